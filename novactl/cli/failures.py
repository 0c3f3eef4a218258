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
    from collections.abc import Iterator, Sequence

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
    """Hands what this command drives to the background, counts what it has ended, and says how to come back."""
    if session.begun is None or not (session.begun.driving or session.operations):
        return Interrupted("interrupted")
    from novactl.api import waiting

    try:
        left = waiting.detach(session.begun)
        counts, watched = _read_back(session)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001 - no database, no process: no reason to say nothing
        return Interrupted("interrupted; what this command began is left as it is", command="novactl operation list")
    if left.waiting:
        ids = [operation.id[:8] for operation in left.waiting]
        rest = f"{_those(left.waiting)} {'is' if len(ids) == 1 else 'are'} left half way"
        return Interrupted(
            "; ".join(["interrupted", *counts, rest]),
            reasons=[_named(operation) for operation in left.waiting] if len(ids) > 1 else (),
            hint=f"or turn {'it' if len(ids) == 1 else 'them'} back with: novactl operation undo {' '.join(ids)}",
            command=f"novactl operation resume {' '.join(ids)}", operation=left.waiting[0].id if len(ids) == 1 else "")
    going_on = left.going_on or watched
    if not going_on:
        return Interrupted("; ".join(["interrupted", *counts]))
    ids = [operation.id[:8] for operation in going_on]
    one, where = len(ids) == 1, " in the background" if left.going_on else ""
    return Interrupted(
        "; ".join(["interrupted", *counts, f"{_those(going_on)} {'goes' if one else 'go'} on{where}"]),
        reasons=() if one else [_named(operation) for operation in going_on],
        hint=f"come back with the command below, or turn {'it' if one else 'them'} back with: novactl operation cancel {' '.join(ids)}",
        command=f"novactl operation watch {' '.join(ids)}", operation=going_on[0].id if one else "")


def _those(found: Sequence[Operation]) -> str:
    return f"operation {_named(found[0])}" if len(found) == 1 else f"{len(found)} operations"


def _named(operation: Operation) -> str:
    return f"{operation.id[:8]} ({operation.kind} {operation.object_name})"


def _read_back(session: Session) -> tuple[list[str], tuple[Operation, ...]]:
    """Of the operations that reported progress: what has become of the ended, in words; and those that somebody drives on."""
    from novactl.api import operations as api
    from novactl.model.operation import OperationState

    found = [api.show(session.cluster, id_)[0] for id_ in session.operations]
    ended = [operation for operation in found if operation.state.ended]
    ok = sum(operation.state is OperationState.OK for operation in ended)
    failed = [operation for operation in ended if operation.state is not OperationState.OK]
    counts = [", ".join([f"{ok} ended ok"] * bool(ok) + [f"{len(failed)} failed"] * bool(failed))] if ended else []
    if len(failed) == 1 and not ok:
        counts = [f"operation {_named(failed[0])} was undone"]
    return counts, tuple(operation for operation in found if not operation.state.ended and operation.state is not OperationState.STUCK)


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
