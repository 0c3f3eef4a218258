"""A command line to an exit status: the one place where errors become words and numbers."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from novactl.cli import failures
from novactl.cli.session import Session
from novactl.errors import ExitStatus, NovaError, UsageError

PROGRAM = "novactl"
COMPLETE = "_NOVACTL_COMPLETE"
_ClickError: type[Exception] = typer.BadParameter.__bases__[0].__bases__[0]
"""ClickException: Typer ships click inside it or depends on it, by version, and exports only its leaves."""


def run(argv: list[str]) -> int:
    session = Session(argv)
    sys.stdout, sys.stderr = session.stdout, session.stderr      # typer prints to them, the interpreter flushes them last
    try:
        if COMPLETE in os.environ:
            return complete(session)
        _heed_signals()
        status, error = attempt(session, argv)
        error = error or failures.unwritten(session)
        if error is not None:
            failures.report(session, error)
        status = status or (int(error.exit_status) if error else 0)
    except KeyboardInterrupt:
        status = int(ExitStatus.INTERRUPTED)
    if status in (ExitStatus.INTERRUPTED, ExitStatus.TIMEOUT):
        _leave(session, status)
    session.close()
    return status


def _heed_signals() -> None:
    """Being asked to end, and a terminal that closes, are what Ctrl-C is: what is under way goes on in the background. A process
    there leaves its operations to the next command. Ctrl-C itself had ended the process until here."""
    from novactl.cli.session import BACKGROUND

    def leave(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if BACKGROUND in os.environ:
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:        # nohup has it ignored
            signal.signal(number, leave)


def _leave(session: Session, status: int) -> None:
    """End at once: threads that wait for a node have nothing more to say, and nobody waits for them."""
    session.stdout.flush()
    session.stderr.flush()
    os._exit(status)


def attempt(session: Session, argv: list[str]) -> tuple[int, NovaError | None]:
    """Run one command line. What went wrong is returned, not raised."""
    try:
        return perform(session, argv), None
    except NovaError as error:
        return int(error.exit_status), error
    except (KeyboardInterrupt, typer.Abort, EOFError):
        return int(ExitStatus.INTERRUPTED), failures.interrupted(session)
    except Exception as fault:  # noqa: BLE001 - the process meets the world here
        return int(ExitStatus.FAILED), failures.crashed(session, fault)


def perform(session: Session, argv: list[str]) -> int:
    """Run one command line; its exit status. Raises NovaError, also for a command line that does not parse."""
    from novactl.cli.root import root

    for word in argv:
        if legible(word) != word:
            raise UsageError(f"the argument '{legible(word)}' is not UTF-8")
    words = [word for word in argv if word != "--debug"] if "--" not in argv else argv
    try:
        with root().make_context(PROGRAM, list(words), obj=session) as ctx:
            status = root().invoke(ctx)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except _ClickError as error:
        context = getattr(error, "ctx", None)
        command = f"{context.command_path} --help" if context else f"{PROGRAM} --help"
        raise UsageError(error.format_message(), command=command) from error
    return int(status or 0)


def legible(word: str) -> str:
    """`word` as it is, or, where it was read from bytes that are no UTF-8, with these spelled out."""
    return word if word.isascii() else word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def complete(session: Session) -> int:
    """Answer the shell. An error must not land in the line being typed: it is only an exit status."""
    from novactl.cli.root import root

    try:
        root().main(args=session.argv, prog_name=PROGRAM, complete_var=COMPLETE, obj=session)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    except Exception:  # noqa: BLE001 - the process meets the world here
        return int(ExitStatus.FAILED)
    return 0
