"""`novactl batch`: many command lines in one process, one JSON result a line."""

import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from novactl.cli.formats import as_json
from novactl.cli.options import Yes
from novactl.cli.plain import SCHEMA_VERSION
from novactl.cli.session import Session, session_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus, NovaError, UsageError

NOUN = Noun()


@NOUN.verb("batch")
def batch(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(
        metavar="[FILE]", show_default=False, help="Command lines; '-': standard input.")] = Path("-"),
    stop_on_error: Annotated[bool, typer.Option("--stop-on-error", help="Run nothing after the first failure.")] = False,
    yes: Yes = False,
) -> int:
    """Run many commands in one process, one JSON result a line.

    printf 'server stop web1\\nserver start web2\\n' | novactl batch
    novactl batch commands.txt --stop-on-error

    Each line is a command without the word novactl; blank lines and lines that begin with # are skipped.
    Exit 0 if all succeeded, 7 if some failed, 1 if all failed.
    """
    session = session_of(ctx)
    session.assume_yes = session.assume_yes or yes
    done = failed = 0
    with _opened(session, file) as lines:
        for number, line in enumerate(lines, 1):
            command = line.strip()
            if not command or command.startswith("#"):
                continue
            result = run_line(session, number, command)
            session.stdout.write(as_json(result, indent=None))
            session.stdout.flush()
            done += 1
            failed += result["exit_status"] != 0
            if result["exit_status"] == ExitStatus.INTERRUPTED:
                return int(ExitStatus.INTERRUPTED)
            if failed and stop_on_error:
                break
    return int(ExitStatus.OK if not failed else ExitStatus.FAILED if failed == done else ExitStatus.PARTIAL)


def _opened(session: Session, file: Path) -> AbstractContextManager[IO[str]]:
    if str(file) == "-":
        if hasattr(session.stdin, "reconfigure"):
            session.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        return nullcontext(session.stdin)
    try:
        return file.open(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error


def run_line(session: Session, number: int, command: str) -> dict[str, Any]:
    """The result of one line, in the shape that batch prints. Never raises for what the line does."""
    from novactl.cli.run import attempt, legible

    line = session.inner([])
    try:
        line.argv = shlex.split(command)
        status, error = attempt(line, line.argv) if line.argv[:1] != ["batch"] else _refused("batch")
    except ValueError as fault:
        status, error = _refused(f"line {number}", f"does not parse: {fault}")
    result = line.captured[-1] if line.captured else None
    if result is None and (text := line.stdout.getvalue()):
        result = {"schema_version": SCHEMA_VERSION, "text": text}
    return {
        "line": number, "command": legible(command), "exit_status": status, "result": result,
        "error": None if error is None else error.as_dict(),
    }


def _refused(what: str, why: str = "cannot run in a batch") -> tuple[int, NovaError]:
    return int(ExitStatus.USAGE), UsageError(f"{what} {why}")
