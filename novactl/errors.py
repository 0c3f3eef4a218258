"""What can go wrong, as types: each with a code, an exit status and a way out.

The command line prints an error as `error[CODE]: message`, its reasons indented, then `hint:` and `try:`.
Adding an error is adding a class here; `novactl help exit-codes` is drawn from `ExitStatus`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any


class ExitStatus(enum.IntEnum):
    """The exit status of `novactl`, and what a script may conclude from it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    NO_VALID_HOST = 5
    UNREACHABLE = 6
    PARTIAL = 7
    DENIED = 8
    TIMEOUT = 124
    INTERRUPTED = 130


EXIT_STATUS_HELP: Mapping[ExitStatus, str] = {
    ExitStatus.OK: "done",
    ExitStatus.FAILED: "failed; what was begun has been undone, or the message says what stayed",
    ExitStatus.USAGE: "the command line, a file or a value in it is not valid; nothing was changed",
    ExitStatus.NOT_FOUND: "no object of that name or id",
    ExitStatus.CONFLICT: "the object's state, name or lock does not allow it (duplicate name, busy, changed host key, newer schema)",
    ExitStatus.NO_VALID_HOST: "no node can take the server; each node is listed with what it lacks",
    ExitStatus.UNREACHABLE: "a node, its agent or a URL did not answer in time",
    ExitStatus.PARTIAL: "some of the targets succeeded, some failed",
    ExitStatus.DENIED: "not permitted: a key, a role, a password or a quota",
    ExitStatus.TIMEOUT: "--timeout passed; the operation goes on",
    ExitStatus.INTERRUPTED: "interrupted; the operation can be resumed",
}


class NovaError(Exception):
    """A refusal or a failure that a user can act on.

    `reasons` are further lines (one per node, per field …); `hint` says what to do, `command` is a command to copy.
    `operation` is the id of the operation that failed, where there is one. `retryable`: the same may succeed in a moment.
    `elsewhere`: another node may succeed where this one failed.
    """

    code = "failed"
    exit_status = ExitStatus.FAILED
    retryable = False
    elsewhere = False

    def __init__(
        self, message: str, *, hint: str = "", command: str = "", reasons: Sequence[str] = (), operation: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.command = command
        self.reasons = tuple(reasons)
        self.operation = operation
        self.details = dict(details or {})

    def as_dict(self) -> dict[str, Any]:
        """For JSON on stderr, for the journal, and back by `from_dict`."""
        return {
            "code": self.code, "message": self.message, "exit_status": int(self.exit_status), "hint": self.hint,
            "try": self.command, "reasons": list(self.reasons), "operation": self.operation, "details": self.details,
        }

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> NovaError:
        """The error that `as_dict` described, of the same class where the code is known."""
        cls = by_code().get(plain.get("code", ""), NovaError)
        error = cls.__new__(cls)
        NovaError.__init__(
            error, plain.get("message", ""), hint=plain.get("hint", ""), command=plain.get("try", ""),
            reasons=plain.get("reasons", ()), operation=plain.get("operation", ""), details=plain.get("details"),
        )
        return error


def by_code() -> dict[str, type[NovaError]]:
    found: dict[str, type[NovaError]] = {}
    todo = [NovaError]
    while todo:
        cls = todo.pop()
        found.setdefault(cls.code, cls)
        todo.extend(cls.__subclasses__())
    return found


class UsageError(NovaError):
    """The request itself is malformed: a flag, a size, a name, a file's content."""

    code, exit_status = "usage", ExitStatus.USAGE


class BadConfig(UsageError):
    code = "config"


class PluginFailed(NovaError):
    """A filter or weigher of an installed package failed while it was asked; the message names the package."""

    code = "plugin"


class NotFound(NovaError):
    code, exit_status = "not_found", ExitStatus.NOT_FOUND

    def __init__(self, noun: str, ref: str, *, similar: Sequence[str] = (), command: str = "") -> None:
        super().__init__(
            f"no {noun} {ref!r}",
            hint=f"did you mean {', '.join(similar)}?" if similar else "",
            command=command or f"novactl {noun} list{' --all' if noun == 'operation' else ''}",
        )


class Ambiguous(UsageError):
    code = "ambiguous"

    def __init__(self, noun: str, ref: str, candidates: Sequence[str]) -> None:
        super().__init__(
            f"{noun} {ref!r} is ambiguous: {len(candidates)} match", reasons=candidates, hint="use the name or a longer id"
        )


class Conflict(NovaError):
    code, exit_status = "conflict", ExitStatus.CONFLICT


class AlreadyExists(Conflict):
    code = "exists"

    def __init__(self, noun: str, name: str) -> None:
        super().__init__(f"{noun} {name!r} exists already", command=f"novactl {noun} show {name}")


class Busy(Conflict):
    """Another operation holds the object; the message names it, its owner and its age."""

    code = "busy"


class Diverged(Conflict):
    """The node has done an operation that this database does not know: it is a copy, or was restored from a backup."""

    code = "diverged"

    def __init__(self, node: str, seq: int, operation: str) -> None:
        super().__init__(
            f"node {node} has done operation {operation[:8]}, number {seq}, which this database does not know: two copies of it are at"
            " work, or an old one was restored", hint="see to it that one of them is used no more; then, with the other",
            command="novactl cluster adopt")


class Superseded(Conflict):
    """This process's hold on an operation was taken over: it must change nothing more."""

    code = "superseded"


class Cancelled(Conflict):
    """Somebody has turned the operation back with `operation cancel`; the message names them."""

    code = "cancelled"


class Overdue(NovaError):
    """An operation's time (a `timeout.` setting) is over: it is turned back."""

    code = "overdue"


class InUse(Conflict):
    code = "in_use"


class NotInitialised(NovaError):
    code, exit_status = "not_initialised", ExitStatus.NOT_FOUND

    def __init__(self, where: str) -> None:
        super().__init__(f"there is no cluster at {where}", command="novactl init")


class SchemaNewer(Conflict):
    code = "schema.newer"

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(
            f"the database {where} has schema {found}; this novactl knows {known}",
            hint="a newer novactl has upgraded it: use that version; or restore a backup taken before in another place: move the file away,"
            " or name another database.url",
        )


class SchemaOlder(Conflict):
    code = "schema.older"

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(f"the database {where} has schema {found}; this novactl needs {known}",
            hint="keep a backup of it: novactl db backup FILE", command="novactl db upgrade")


class DatabaseFailed(NovaError):
    """The database could not be opened, read or written; the message is its own."""

    code = "database"


class DatabaseUnavailable(DatabaseFailed):
    """It takes nothing now: another process holds it, its disk is full, it is gone. The transaction changed nothing."""

    code = "database.unavailable"


class DatabaseLost(DatabaseUnavailable):
    """Its server cannot be reached, or ended the connection: it may be back in a moment."""

    code, retryable = "database.lost", True


class Uncertain(DatabaseLost):
    """The connection was lost while a commit was waited for: the transaction changed all it was to change, or nothing."""

    code = "database.uncertain"


class NoValidHost(NovaError):
    """No node can take the server. `reasons` has one line a node; `details["rejected"]` the numbers."""

    code, exit_status, elsewhere = "no_valid_host", ExitStatus.NO_VALID_HOST, False


class Unreachable(NovaError):
    """A node, its agent or a URL did not answer. What was asked may still happen there."""

    code, exit_status, elsewhere = "unreachable", ExitStatus.UNREACHABLE, True


class AgentTimeout(Unreachable):
    code = "agent.timeout"

    def __init__(self, node: str, method: str, waited_s: float) -> None:
        super().__init__(f"{method} on node {node}: no reply within {waited_s:g} s", command=f"novactl node check {node}")


class AgentRefused(NovaError):
    """The agent answered with an error. `details["code"]` is its code (nodeagent.wire.Code)."""

    code = "agent.refused"

    def __init__(self, node: str, method: str, failure: Mapping[str, Any]) -> None:
        super().__init__(
            f"{method} on node {node}: {failure.get('message', '')}", hint=failure.get("hint", ""),
            details={"code": failure.get("code", ""), "node": node, "method": method},
        )
        self.retryable, self.elsewhere = bool(failure.get("retryable")), bool(failure.get("elsewhere"))


class FencingFailed(NovaError):
    """It could not be made sure that a node is off: nothing of it is started elsewhere."""

    code = "fencing"


class Denied(NovaError):
    code, exit_status = "denied", ExitStatus.DENIED


class QuotaExceeded(Denied):
    """A project's limit would be passed; the message names project, resource, usage and limit."""

    code = "quota"


class Partial(NovaError):
    """Some targets succeeded, some failed; `reasons` has one line for each that failed."""

    code, exit_status = "partial", ExitStatus.PARTIAL


class WaitTimeout(NovaError):
    code, exit_status = "timeout", ExitStatus.TIMEOUT


class BadImage(UsageError):
    """The image file is not what it should be: truncated, another format, a wrong checksum, or unsafe."""

    code = "image"


class BadBackup(UsageError):
    """The file is no backup, or not a whole one, or a newer novactl's; nothing was changed."""

    code = "backup"


class HostKeyUnknown(Denied):
    """The SSH host key is not known and nobody vouched for it."""

    code = "ssh.host_key_unknown"


class HostKeyChanged(Conflict):
    code = "ssh.host_key_changed"


class SshDenied(Denied):
    code = "ssh.denied"


class EnrolFailed(NovaError):
    """A step of enrolment failed and was rolled back; `reasons` says what, if anything, stayed."""

    code = "enrol"


class Stuck(NovaError):
    """An operation can neither go forward nor back now; the message names step and node, `command` the way on."""

    code = "stuck"
