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

    from novactl.model.operation import Operation


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
    """Counts what this command has ended, names what it leaves open, and how to go on with that."""
    if not session.operations:
        return Interrupted("interrupted")
    from novactl.model.operation import OperationState

    try:
        ended, left = _read_back(session)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001 - the journal cannot be read now: no reason to say nothing
        return Interrupted("interrupted; what this command began may be left open", command="novactl operation list")
    if not left:
        return Interrupted("interrupted")
    ok = sum(operation.state is OperationState.OK for operation in ended)
    counts = [f"{ok} ended ok"] * bool(ok) + [f"{len(ended) - ok} failed"] * (ok < len(ended))
    ids = [operation.id[:8] for operation in left]
    names = [f"{operation.id[:8]} ({operation.kind} {operation.object_name})" for operation in left]
    them, one = ("it", "it") if len(left) == 1 else ("them", "one")
    rest = f"operation {names[0]} is left as it was" if len(left) == 1 else f"{len(left)} operations are left as they were"
    return Interrupted(
        f"interrupted; {', '.join([*counts, rest])}", reasons=names if len(left) > 1 else (),
        hint=f"the next novactl command takes {them} over; or turn {one} back with: novactl operation undo {ids[0]}",
        command=f"novactl operation resume {' '.join(ids)}", operation=left[0].id if len(left) == 1 else "")


def _read_back(session: Session) -> tuple[list[Operation], list[Operation]]:
    """This command's operations, (ended, left open): those that reported progress, and those begun with them that had not yet."""
    from novactl.api import operations as api
    from novactl.model.operation import OperationState

    under_way = {operation.id: operation for operation in api.list_operations(session.cluster)}
    named = [under_way.get(id_) or api.show(session.cluster, id_)[0] for id_ in session.operations]
    owners = {operation.owner for operation in named if operation.owner}
    waiting = [
        operation for id_, operation in under_way.items()
        if id_ not in session.operations and operation.owner in owners and operation.state is not OperationState.STUCK]
    left = [operation for operation in (*named, *waiting) if not operation.state.ended]
    return [operation for operation in named if operation.state.ended], sorted(left, key=lambda operation: operation.created_at)


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
