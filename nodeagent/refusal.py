"""Refused: why a method did not do what was asked, in the words of the wire."""

import errno
import sqlite3
from typing import Optional

from nodeagent.wire import Code, Failure

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RETRYABLE = frozenset({Code.BUSY, Code.DRIVER})


class Refused(Exception):
    """Raised by handlers and drivers; becomes the error reply.

    `retryable` defaults by code: only what may pass by itself (a full queue, a libvirt that is away) is.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", retryable=None, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.failure = Failure(
            code=code,
            message=message,
            hint=hint,
            retryable=code in _RETRYABLE if retryable is None else retryable,
            elsewhere=elsewhere,
        )


def not_found(what: str, name: str) -> Refused:
    return Refused(Code.NOT_FOUND, f"no {what} {name} on this node")


def not_pinned(server: str, virt_type: str, error: str) -> Refused:
    """libvirt ties no vcpus to CPUs where QEMU has not a thread for each: emulation on some hosts."""
    return Refused(
        Code.DRIVER,
        f"start server {server}: its vcpus are tied to host CPUs, but QEMU ({virt_type}) runs them all in one thread here: {error}",
        hint="it needs a host with KVM, or a QEMU that emulates with a thread for each vcpu",
        retryable=False,
        elsewhere=True,
    )


def no_pool(directory: str) -> Refused:
    return Refused(Code.CONFLICT, f"the node has no pool directory {directory}", hint="node.prepare first", retryable=True)


def of_the_disk(fault: Exception) -> Optional[Refused]:
    """The refusal that a fault of this node's disk amounts to: another node may do it, and this one later. None: no such fault."""
    if isinstance(fault, OSError) and fault.errno in _FULL:
        return Refused(Code.NO_SPACE, f"the node's disk is full: {fault}", retryable=True, elsewhere=True)
    if isinstance(fault, sqlite3.Error):
        code = Code.NO_SPACE if "full" in str(fault) else Code.DRIVER
        return Refused(code, f"the agent cannot keep its ledger: {fault}", hint="see to its state_dir", retryable=True, elsewhere=True)
    return None
