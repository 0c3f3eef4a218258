"""The lab as a whole: a slot of this machine, its hosts, and the sweep that removes what a crashed run left."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tests.lab.host import PRIVATE, Host
from tests.lab.network import Network, command

HOME = Path("/var/tmp/novactl-lab")
SLOTS = 8


class Lab:
    """`count` hosts h1, h2 … in the first free slot; several labs may run side by side.

    A slot is held by a lock on a file, which dies with this process: what an earlier holder left is swept when
    the slot is taken. Leaving the context stops and removes everything.
    """

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.hosts: list[Host] = []

    def __enter__(self) -> "Lab":
        if os.geteuid() != 0:
            raise PermissionError("the test hosts need root: network namespaces, mounts, libvirtd")
        slot, self._lock = _take_slot()
        self.network = Network(slot)
        self.dir = HOME / str(slot)
        try:
            self._sweep()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            for host in self.hosts:
                host.power_off()
        self._sweep()
        self._lock.close()

    def _sweep(self) -> None:
        """Kill, unplug, unmount and delete what is in this slot, whoever left it."""
        for pidfile in self.dir.glob("*/pid"):
            _kill_boot_process(int(pidfile.read_text() or 0), pidfile.parent)
        self.network.remove()
        shutil.rmtree(self.dir, ignore_errors=True)
        if _is_alone(self._lock):                             # a directory that is removed is unmounted in every other lab, too
            with contextlib.suppress(OSError):
                os.rmdir("/var/lib/nodeagent")

    def _start(self) -> None:
        _share_kvm()
        self.dir.mkdir(parents=True)
        home = self.dir / "client"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        self.client_key = home / ".ssh/id_ed25519"
        self.home = home
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.client_key))
        for path in PRIVATE:
            Path("/", path).mkdir(parents=True, exist_ok=True)
        self.network.ensure_bridge()
        for number in range(1, self.count + 1):
            name = f"h{number}"
            self.hosts.append(Host(name, f"{self.network.prefix}.{10 + number}", self.dir / name, self.network, self.client_key))
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(Host.lay_out, self.hosts))
            list(pool.map(Host.power_on, self.hosts))
        known = "".join(f"{host.address} {host.host_key}\n" for host in self.hosts)
        (home / ".ssh/known_hosts").write_text(known)

    def heal(self) -> None:
        """End every cut."""
        self.network.heal()

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)


def _take_slot() -> tuple[int, IO[str]]:
    HOME.mkdir(parents=True, exist_ok=True)
    for slot in range(SLOTS):
        lock = (HOME / f"{slot}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return slot, lock
    raise RuntimeError(f"all {SLOTS} lab slots are in use ({HOME})")


def _is_alone(mine: IO[str]) -> bool:
    """Whether no other slot of this machine is in use."""
    for slot in range(SLOTS):
        path = HOME / f"{slot}.lock"
        if not path.exists() or path.samefile(mine.name):
            continue
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def _kill_boot_process(pid: int, dir: Path) -> None:
    """End the host that a dead run left: only if that process still is the one that booted `dir`."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return
    if str(dir).encode() in words:
        subprocess.run(["kill", "-KILL", str(pid)], check=False)


def _share_kvm() -> None:
    """Give /dev/kvm to group kvm, as udev does: where QEMU cannot open it, libvirt probes QEMU anew at every start."""
    device = Path("/dev/kvm")
    if device.exists() and device.stat().st_gid == 0:
        with contextlib.suppress(LookupError, OSError):
            shutil.chown(device, group="kvm")
            device.chmod(0o660)
