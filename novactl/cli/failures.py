"""How an error looks: `error[code]: message`, its reasons indented, then what to do."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from novactl.cli.session import Session
from novactl.errors import ExitStatus, NovaError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Interrupted(NovaError):
    code, exit_status = "interrupted", ExitStatus.INTERRUPTED


class Crashed(NovaError):
    """A fault of novactl itself."""

    code = "internal"


class Unwritten(NovaError):
    code = "output"


def unwritten(session: Session) -> Unwritten | None:
    """None where everything is out, or its reader has gone (`| head`): that is no failure."""
    session.stdout.flush()
    lost = session.stdout.lost
    if lost is None or isinstance(lost, ConnectionError):
        return None
    reason = getattr(lost, "strerror", None) or str(lost)
    return Unwritten(f"cannot write the output: {reason}", hint="the command itself has been carried out")


def report(session: Session, error: NovaError) -> None:
    """The error on stderr, in the form the command line asked for."""
    from novactl.cli.formats import as_json
    from novactl.cli.plain import SCHEMA_VERSION, plain

    if session.wants_json:
        session.stderr.write(as_json({"schema_version": SCHEMA_VERSION, "error": plain(error.as_dict())}))
    else:
        session.stderr.write("".join(line + "\n" for line in lines(error, session.colour(session.stderr))))
    session.stderr.flush()


def note(session: Session, error: NovaError) -> None:
    """The error of one target among several. JSON has it in the result already."""
    if session.captured is None and not session.wants_json:
        report(session, error)


def lines(error: NovaError, colour: bool = False) -> Iterator[str]:
    from novactl.cli.formats import visible

    head = f"error[{error.code}]:"
    yield f"\x1b[1;31m{head}\x1b[0m {visible(error.message)}" if colour else f"{head} {visible(error.message)}"
    for reason in error.reasons:
        yield f"  {visible(reason)}"
    for label, text in (("hint", error.hint), ("try", error.command), ("operation", error.operation)):
        if text:
            yield f"{label}: {visible(text)}"


def interrupted(session: Session) -> Interrupted:
    """Names the operation under way, if there is one, and how to go on with it."""
    if not session.operation:
        return Interrupted("interrupted")
    return Interrupted(
        f"interrupted; operation {session.operation} is left as it was",
        hint="the next novactl command takes it over; or turn it back with: novactl operation undo " + session.operation,
        command=f"novactl operation resume {session.operation}", operation=session.operation,
    )


def crashed(session: Session, fault: Exception) -> Crashed:
    """Writes the traceback to a log file (to stderr with --debug) and names it."""
    text = "".join(traceback.format_exception(fault))
    message = f"novactl failed unexpectedly: {type(fault).__name__}: {fault}"
    if session.debug:
        session.stderr.write(text)
        return Crashed(message)
    try:
        path = _write_log(session, text)
    except (OSError, NovaError):
        return Crashed(message, hint="run it again with --debug to see where")
    return Crashed(message, hint=f"this is a fault of novactl; the details are in {path}")


def _write_log(session: Session, text: str) -> Path:
    from novactl import __version__

    folder = session.config.data_dir / "logs"
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"crash-{session.now():.0f}-{os.getpid()}.log"
    head = f"novactl {__version__}, Python {sys.version.split()[0]}\nargv: {session.argv}\n"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as log:
        log.write(head + text)
    return path
