"""One act on several targets: each is tried, and one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from novactl.cli import columns, failures
from novactl.cli.render import Shown
from novactl.cli.session import Session
from novactl.errors import ExitStatus, NovaError


class Outcome(NamedTuple):
    target: str
    ok: bool
    result: Any
    error: Any

    @property
    def detail(self) -> str:
        if self.error:
            return f"error[{self.error['code']}]: {self.error['message']}"
        return self.result if isinstance(self.result, str) else getattr(self.result, "status", "")


def each(session: Session, refs: list[str], act: Callable[[str], Any]) -> Shown:
    """`act` on every one of `refs`, in their order, each once.

    One target: its result as a record, its error raised. Several: an outcome each on stdout, errors on stderr, exit 7 if
    some failed; if all failed, the status they share, else 1.
    """
    refs = list(dict.fromkeys(refs))
    if len(refs) == 1:
        result = act(refs[0])
        return Shown(result, rows=(Outcome(refs[0], True, result, None),), table=columns.OUTCOMES)
    outcomes, statuses = [], []
    for ref in refs:
        try:
            outcomes.append(Outcome(ref, True, act(ref), None))
        except NovaError as error:
            failures.note(session, error)
            outcomes.append(Outcome(ref, False, None, error.as_dict()))
            statuses.append(error.exit_status)
    session.note(f"{len(refs) - len(statuses)} ok, {len(statuses)} failed")
    return Shown(tuple(outcomes), table=columns.OUTCOMES, status=_status(len(refs), statuses))


def _status(targets: int, failed: list[ExitStatus]) -> ExitStatus:
    if not failed:
        return ExitStatus.OK
    if len(failed) < targets:
        return ExitStatus.PARTIAL
    return failed[0] if len(set(failed)) == 1 else ExitStatus.FAILED
