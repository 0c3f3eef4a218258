"""A full file system lets nothing be changed, and keeps nobody from reading what is in the database or backing it up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.faults.test_database import BEGIN, alone

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small file system")

FULL = BEGIN + """
import gc
create("web")
world.stop()
gc.collect()                                                  # with what threads that have ended held open
data = folder / "data"
def novactl(*words, env=world.env):
    return subprocess.run([sys.executable, "-m", "novactl", *words], env={**os.environ, **env}, capture_output=True, text=True, timeout=50)
def python(code, wait=True):
    begin = (
        "import os, sys; from novactl.cluster import Cluster; from novactl.config import load_config; from novactl.db import meta\\n"
        f"cluster = Cluster(load_config(env={world.env!r}))\\n")
    argv = [sys.executable, "-c", begin + code]
    started = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return started.communicate(timeout=50)[0] if wait else started
assert not (data / "novactl.db-shm").exists()
def fill():
    with open(data / "ballast", "wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError:
            pass
"""

READS = FULL + """
python("with cluster.db.write() as tx: meta.put(tx, 'kept', 'in the log')\\nos._exit(0)")   # its log is left, as by SIGKILL
assert (data / "novactl.db-wal").stat().st_size
(data / "novactl.db-shm").unlink()
fill()
read = python("with cluster.db.read() as tx: print(meta.get(tx, 'kept'))")
assert read == "in the log\\n", read
for words, says in (
    (("server", "list"), "web"), (("operation", "list", "--all"), "server.create"), (("server", "show", "web", "-o", "json"), '"web"'),
    (("db", "backup", str(folder / "kept.nova")), "kept.nova"),
):
    done = novactl(*words)
    assert done.returncode == 0 and says in done.stdout, (words, done)
refused = novactl("project", "create", "more")
assert refused.returncode == 1 and "no space left for the database" in refused.stderr, refused
assert f"mounted at {data}, has 0 bytes free" in refused.stderr and "novactl db backup FILE" in refused.stderr, refused
said = novactl("doctor").stdout
assert f"{data}/novactl.db: its file system has 0 bytes free, nothing" in said, said
(data / "ballast").unlink()
assert novactl("project", "create", "more").returncode == 0
assert python("with cluster.db.read() as tx: print(meta.get(tx, 'kept'))") == "in the log\\n"
assert "more" in novactl("project", "list").stdout
print("read")
"""

ALONE = FULL + """
fill()
reader = python("with cluster.db.read() as tx:\\n meta.get(tx, 'schema'); print('reads', flush=True); sys.stdin.read()", wait=False)
assert reader.stdout.readline() == "reads\\n"
(data / "ballast").unlink()
hasty = {**world.env, "NOVACTL_DATABASE_BUSY_TIMEOUT_S": "1"}
refused = novactl("project", "create", "more", env=hasty)
assert refused.returncode == 1 and "another process has held the database" in refused.stderr, refused
reader.communicate("", timeout=50)
assert novactl("project", "create", "more", env=hasty).returncode == 0
print("alone")
"""


def test_what_is_there_can_be_read_and_backed_up(tmp_path: Path) -> None:
    """Also what a killed process left in the log. Changes are refused with the file system and its free bytes; with room again all
    goes on."""
    assert alone(tmp_path, READS) == "read\n"


def test_who_reads_without_room_lets_nobody_write_meanwhile(tmp_path: Path) -> None:
    """Its index of the log is its own: another's change would not be in it."""
    assert alone(tmp_path, ALONE) == "alone\n"
