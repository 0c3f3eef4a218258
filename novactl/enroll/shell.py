"""A root shell on one machine. `LocalShell` is this machine's; `ssh.connect` gives the same over SSH."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from novactl.enroll.request import SudoPassword
from novactl.errors import EnrolFailed, SshDenied, Unreachable

ENVIRONMENT = "PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C"
_PUT = 'umask 077; mkdir -p "$(dirname "$1")" && t=$(mktemp "$1.XXXXXX") && cat >"$t" && chmod "$2" "$t" && mv -f "$t" "$1"'
_WHO = """id -u; echo "${SSH_CONNECTION%% *}"
[ "$(id -u)" = 0 ] || sudo -n true 2>&1 || sudo -S -p '' true </dev/null 2>&1"""

Log = Callable[[str], None]


class Output(NamedTuple):
    """What a command said. Control characters are shown as `?`: what a machine says must not drive a terminal."""

    status: int
    stdout: str
    stderr: str

    @staticmethod
    def of(status: int, stdout: bytes, stderr: bytes) -> Output:
        return Output(status, _printable(stdout), _printable(stderr))

    @property
    def ok(self) -> bool:
        return self.status == 0


def _printable(raw: bytes) -> str:
    text = raw.decode(errors="replace")
    return text if text.isprintable() else "".join(c if c in "\n\t" or c.isprintable() else "?" for c in text)


class Shell:
    """Commands and files on one machine, as root.

    `name` is for messages. `peer` is this controller's address as the machine sees it ("" for this machine).
    Nothing that comes from a user is ever part of a script's text: it goes in as an argument.
    """

    name = ""
    peer = ""
    host_key = ""

    def __init__(self, log: Log | None = None) -> None:
        self._log = log or (lambda line: None)
        self._sudo: str | None = None
        self._password = b""

    def run(
        self, command: str | Sequence[str], *, args: Sequence[str] = (), input: bytes = b"", timeout_s: float = 60, act: str = "",
    ) -> Output:
        """Run a POSIX-shell script (`$1`, `$2` … are `args`) or an argument list, and wait for it. `act` names it in the log.

        A status other than 0 is an answer, not an exception. Raises Unreachable when nothing came within `timeout_s`:
        the command may still be running there.
        """
        words = ["sh", "-c", command, "novactl", *args] if isinstance(command, str) else list(command)
        line = f"env {ENVIRONMENT} {shlex.join(words)}"
        if self._sudo is not None:
            line = f"{self._sudo} -- {line}"
        started = time.monotonic()
        output = self._exec(line, self._password + input, timeout_s)
        took = time.monotonic() - started
        shown = act or (command if isinstance(command, str) else shlex.join(command)).strip().splitlines()[0][:160]
        self._log(f"[{took:6.2f} s] exit {output.status}: {shown} {shlex.join(args)}".rstrip())
        for text in output.stderr.strip().splitlines()[-20:]:
            self._log(f"           {text}")
        return output

    def must(self, act: str, command: str | Sequence[str], **how: Any) -> str:
        """`run`, where failing is a failure of enrolment. Returns standard output. Raises EnrolFailed saying what `act` met."""
        output = self.run(command, act=act, **how)
        if not output.ok:
            said = (output.stderr.strip() or output.stdout.strip()).splitlines()[-8:]
            raise EnrolFailed(f"{act} on {self.name} failed (exit {output.status})", reasons=said)
        return output.stdout

    def put(self, content: bytes, path: str, mode: int = 0o644) -> None:
        """Make `path` hold `content`, atomically: a reader sees the old file or the whole new one."""
        self.must(f"writing {path}", _PUT, args=(path, f"{mode:o}"), input=content)

    def become_root(self, password: SudoPassword | None = None) -> None:
        """Be root, or find out how sudo makes us so. A password is asked for once and only ever sent on standard input.

        Raises SshDenied naming the two ways out.
        """
        probe = self._exec(f"env {ENVIRONMENT} sh -c {shlex.quote(_WHO)}", b"", 30)
        uid, peer, said = (probe.stdout.split("\n", 2) + ["", ""])[:3]
        self.peer = peer.strip()
        if uid.strip() == "0":
            self._sudo = None
        elif probe.ok:
            self._sudo = "sudo -n"
        elif "not found" in said or "not in the sudoers" in said or "not allowed" in said or password is None:
            raise self._no_root(said)
        else:
            self._with_password(password)

    def _with_password(self, password: SudoPassword) -> None:
        secret = password().encode() + b"\n"
        # -k: a remembered password must not leave this one in the command's own input.
        if not self._exec("sudo -k -S -p '' true", secret, 30).ok:
            raise SshDenied(f"sudo on {self.name} refused the password")
        self._sudo, self._password = "sudo -k -S -p ''", secret

    def _no_root(self, said: str) -> SshDenied:
        lines = [line for line in said.strip().splitlines() if line]
        return SshDenied(
            f"{self.name} is not root and cannot become root by sudo", reasons=lines[-1:],
            hint="either enrol as root (root@host), or let the user run sudo: without a password"
            " (`USER ALL=(ALL) NOPASSWD: ALL` in /etc/sudoers.d/novactl), or with one, typed at a terminal",
        )

    def note(self, text: str) -> None:
        """A line for the log."""
        self._log(text)

    def close(self) -> None:
        self._password = b""

    def _exec(self, line: str, stdin: bytes, timeout_s: float) -> Output:
        raise NotImplementedError

    def _late(self, timeout_s: float) -> Unreachable:
        return Unreachable(f"{self.name} did not finish a command within {timeout_s:g} s")


class LocalShell(Shell):
    """This machine, without SSH."""

    name = "this machine"

    def _exec(self, line: str, stdin: bytes, timeout_s: float) -> Output:
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", line], input=stdin, capture_output=True, timeout=timeout_s, cwd="/",
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            raise self._late(timeout_s) from None
        return Output.of(done.returncode, done.stdout, done.stderr)
