"""A program of the admin's, run to its end or killed with all that it began: nothing of it acts later."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence


def run(argv: Sequence[str], given: str, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """`given` is its standard input. By files, not pipes: what it leaves behind may hold those open.

    Raises OSError where it cannot be run, subprocess.TimeoutExpired.
    """
    with tempfile.TemporaryFile() as text, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
        text.write(given.encode())
        text.seek(0)
        with subprocess.Popen(argv, stdin=text, stdout=said, stderr=wrong, start_new_session=True) as process:
            try:
                status = process.wait(timeout_s)
            except BaseException:                             # also an interruption: it must not switch anything off after that
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        said.seek(0)
        wrong.seek(0)
        return subprocess.CompletedProcess(argv, status, said.read().decode(errors="replace"), wrong.read().decode(errors="replace"))
