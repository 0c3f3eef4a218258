"""A PostgreSQL server for tests: its own directory, its own socket, an unprivileged user, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path:
    """Where the newest installed server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    assert found, "PostgreSQL's server is not installed: tests/run installs it"
    return found[-1].parent


@contextmanager
def server(*, durable: bool = False) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database; the server is gone afterwards. `durable`: a commit waits for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="novactl-pg-", dir="/tmp"))
    user = pwd.getpwnam("postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
    os.chown(folder, user.pw_uid, user.pw_gid)
    bin_dir, data = programs(), folder / "data"

    def run(*argv: str | Path) -> None:
        subprocess.run(
            [str(arg) for arg in argv], check=True, user=user.pw_uid, group=user.pw_gid, cwd=folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    options = f"-k {folder} -c listen_addresses='' -c fsync={'on' if durable else 'off'} -c max_connections=200"
    try:
        run(bin_dir / "initdb", "-D", data, "-A", "trust", "-U", "novactl", "--no-sync")
        run(bin_dir / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            run(bin_dir / "createdb", "-h", folder, "-U", "novactl", "novactl")
            yield f"postgresql+psycopg://novactl@/novactl?host={folder}"
        finally:
            run(bin_dir / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
