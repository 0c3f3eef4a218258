"""A cluster on disk and the command line run against it, in this process: what the tests of the command line share."""

import io
import json
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


class World:
    """`run` is what `novactl WORDS` does. With `tty` a person sits at the terminal and types `stdin`."""

    def __init__(self, data_dir: Path, servers: int = 0) -> None:
        self.data_dir = data_dir
        self.env = {"NOVACTL_DATA_DIR": str(data_dir), "HOME": str(data_dir), "TERM": "dumb"}
        fill(data_dir, servers)

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
