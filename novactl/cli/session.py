"""One run of the command line: its streams, its environment, and the cluster opened when first asked for."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from novactl.cli.streams import Output
from novactl.errors import UsageError

if TYPE_CHECKING:
    import typer

    from novactl.cluster import Cluster
    from novactl.config import Config

MAX_REASON = 255
BACKGROUND = "NOVACTL_BACKGROUND"
"""Set in the environment of a process that was started to go on with operations."""
_FALSE = ("", "0", "false", "no", "off")


class Session:
    """Made once by `run`, handed to every command as `ctx.obj`.

    `captured` is None, or a list that takes what would be printed as a JSON object (`novactl batch`). `operations` are
    the ids of those that reported progress, in order. `argv` is what the user typed. `settles`: opening the cluster first ends
    what a dead process left behind. `reason` is what --reason said.
    """

    def __init__(
        self, argv: list[str], env: Mapping[str, str] | None = None, *,
        stdin: IO[str] | None = None, stdout: IO[str] | None = None, stderr: IO[str] | None = None,
    ) -> None:
        self.argv = argv
        self.env = os.environ if env is None else env
        self.stdin = stdin or sys.stdin
        self.stdout = Output(stdout or sys.stdout)
        self.stderr = Output(stderr or sys.stderr)
        self.debug = "--debug" in argv
        self.assume_yes = self.env.get("NOVACTL_YES", "").lower() not in _FALSE
        self.config_file: Path | None = None
        self.captured: list[dict[str, Any]] | None = None
        self.operations: dict[str, None] = {}
        self.settles = False
        self.reason = ""
        self._cluster: Cluster | None = None
        self._lender: Session | None = None

    def inner(self, argv: list[str]) -> Session:
        """A session for one line of a batch: the same cluster and environment, its output captured, nobody to ask."""
        line = Session(argv, self.env, stdin=io.StringIO(), stdout=io.StringIO(), stderr=io.StringIO())
        line.captured = []
        line.assume_yes, line.config_file, line._lender = self.assume_yes, self.config_file, self
        return line

    @property
    def config(self) -> Config:
        from novactl.config import load_config

        return load_config(self.config_file, self.env)

    @property
    def cluster(self) -> Cluster:
        found = self._opened() if self._lender is None else self._lender.cluster
        found.reason = self.reason
        return found

    def _opened(self) -> Cluster:
        if self._cluster is None:
            from novactl.cluster import open_cluster

            self._cluster = open_cluster(self.config)
            if self.settles:
                from novactl.api.recovery import settle

                for sentence in settle(self._cluster):
                    self.note(sentence)
        return self._cluster

    @property
    def begun(self) -> Cluster | None:
        """The cluster, if it was opened."""
        return self._lender.begun if self._lender is not None else self._cluster

    def give_reason(self, text: str) -> None:
        """What the command is for. Raises UsageError."""
        if len(text) > MAX_REASON or (text and not text.isprintable()):
            raise UsageError(f"a reason is printable text of at most {MAX_REASON} characters")
        self.reason = text

    @property
    def can_ask(self) -> bool:
        """Whether a person is there to answer: a terminal, and neither NOVACTL_NO_INPUT nor a batch."""
        no_input = self.env.get("NOVACTL_NO_INPUT", "").lower() not in _FALSE
        return self.captured is None and not no_input and is_terminal(self.stdin) and is_terminal(self.stderr)

    def colour(self, stream: IO[str]) -> bool:
        """https://no-color.org and https://bixense.com/clicolors: off beats forced, forced beats a pipe."""
        if self.env.get("NO_COLOR"):
            return False
        if self.env.get("CLICOLOR_FORCE", "0") not in ("", "0"):
            return True
        return is_terminal(stream) and self.env.get("TERM") != "dumb"

    @property
    def wants_json(self) -> bool:
        """Whether the command line asks for JSON; read off the raw words, since parsing them may be what failed."""
        if self.env.get("NOVACTL_OUTPUT") == "json":
            return True
        joined = ("-ojson", "-o=json", "--output=json")
        return any(
            word in joined or (word in ("-o", "--output") and self.argv[at + 1:at + 2] == ["json"]) for at, word in enumerate(self.argv))

    @property
    def chatty(self) -> bool:
        """Whether notes and progress are wanted: not in a batch, and not where a program reads errors as JSON from stderr."""
        return self.captured is None and (is_terminal(self.stderr) or not self.wants_json)

    def note(self, text: str) -> None:
        """A line for the person, never data, on stderr."""
        if self.chatty:
            from novactl.cli.formats import visible

            print(f"{visible(text)}\n", end="", file=self.stderr, flush=True)      # one write: threads do not mix their lines

    def now(self) -> float:
        return time.time()

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def session_of(ctx: typer.Context) -> Session:
    return ctx.obj


def cluster_of(ctx: typer.Context) -> Cluster:
    return ctx.obj.cluster


def is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
