"""A cluster on disk and the command line run against it, in this process: what the tests of the command line share."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from novactl.cli import failures
from novactl.cli.run import attempt
from novactl.cli.session import Session
from tests.bench.startup import fill


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class Prompt:
    """`run` is what `novactl WORDS` does. With `tty` a person sits at the terminal and types `stdin`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = {"TERM": "dumb", **env}

    def run(self, *words: str, stdin: str = "", tty: bool = False, **env: str) -> Ran:
        stream = Tty if tty else io.StringIO
        session = Session(list(words), {**self.env, **env}, stdin=stream(stdin), stdout=stream(), stderr=stream())
        try:
            status, error = attempt(session, list(words))
            if error is not None:
                failures.report(session, error)
        finally:
            session.close()
        return Ran(status, session.stdout.getvalue(), session.stderr.getvalue())


class World(Prompt):
    """A cluster on disk: two nodes that nobody answers for, and so many servers."""

    def __init__(self, data_dir: Path, servers: int = 0) -> None:
        super().__init__({"NOVACTL_DATA_DIR": str(data_dir), "HOME": str(data_dir)})
        self.data_dir = data_dir
        fill(data_dir, servers)
