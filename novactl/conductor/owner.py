"""Who drives an operation: this process, named so exactly that another on this machine can tell whether it still lives."""

from __future__ import annotations

import functools
import os
from pathlib import Path


@functools.cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> tuple[str, str]:
    """A process's state and start time (clock ticks since boot): fields 3 and 22 of proc_pid_stat(5). "" when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def this_process() -> str:
    """`host pid start-time boot-id pid-namespace`."""
    pid = os.getpid()
    return f"{os.uname().nodename} {pid} {_stat(pid)[1]} {boot_id()} {_pid_namespace()}"


def is_alive(owner: str) -> bool | None:
    """True or False for a process of this machine; None when only its lease can tell: it is another's, or it is stopped.

    One that was killed and not yet reaped is dead.
    """
    try:
        _host, pid, started, boot, namespace = owner.split(" ")
    except ValueError:
        return None
    if boot != boot_id() or namespace != _pid_namespace():
        return None
    state, since = _stat(int(pid))
    if since != started or state in "ZX":
        return False
    return None if state in "Tt" else True


def shown(owner: str) -> str:
    """For people: `pid 4711 on host`."""
    parts = owner.split(" ")
    return f"pid {parts[1]} on {parts[0]}" if len(parts) == 5 else "nobody"
