"""Questions to the person at the terminal. Where nobody can answer, asking is an error, never a wait."""

from __future__ import annotations

from novactl.cli.session import Session
from novactl.errors import UsageError


def confirm(session: Session, action: str, *, yes: bool) -> None:
    """Returns if `action` may go on. Raises UsageError (exit 2) where nobody can be asked, or the answer is no."""
    if yes or session.assume_yes:
        return
    if not session.can_ask:
        raise UsageError(
            f"{action}: this needs a confirmation, and nobody can be asked here", hint="add --yes (or NOVACTL_YES=1)")
    if not question(session, f"{action}?"):
        raise UsageError(f"{action}: not confirmed, nothing was changed")


def confirm_by_name(session: Session, action: str, name: str, *, yes: bool) -> None:
    """As `confirm`, but the answer is the object's name: for what cannot be taken back."""
    if yes or session.assume_yes or not session.can_ask:
        confirm(session, action, yes=yes)
        return
    if _answer(session, f"{action}? Type {name} to go on: ") != name:
        raise UsageError(f"{action}: not confirmed, nothing was changed")


def question(session: Session, text: str) -> bool:
    """A yes-or-no question; anything but yes is no."""
    return _answer(session, f"{text} [y/N] ").lower() in ("y", "yes")


def password(session: Session, prompt: str) -> str:
    """A secret typed without echo. Raises UsageError where nobody can type."""
    import getpass

    if not session.can_ask:
        raise UsageError("a password is needed, and nobody can be asked here", hint="run this on a terminal")
    return getpass.getpass(prompt, stream=session.stderr)


def _answer(session: Session, prompt: str) -> str:
    session.stderr.write(prompt)
    session.stderr.flush()
    line = session.stdin.readline()
    if not line:
        session.stderr.write("\n")
    return line.strip()


def confirm_act(session: Session, verb: str, noun: str, refs: list[str], *, yes: bool, destroys: bool = False) -> None:
    """As `confirm`: for one target only where the act destroys something, for several always."""
    refs = list(dict.fromkeys(refs))
    if len(refs) > 1:
        confirm(session, f"{verb} {len(refs)} {noun}s ({', '.join(refs)})", yes=yes)
    elif destroys:
        confirm(session, f"{verb} {noun} {refs[0]}", yes=yes)
