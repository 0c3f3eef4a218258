"""One lab host: its folder, its power switch, and commands run on it over SSH."""

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from novactl.enroll import paths
from tests.lab.network import Network, command

BOOT = Path(__file__).with_name("boot.sh")
PRIVATE = ("root", "tmp", "opt", "var/lib/libvirt/images", "var/cache/libvirt", "var/log/libvirt/qemu", "var/lib/nodeagent")
START_DEADLINE_S = 120.0
AGENT_PORT = 7766

SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
AuthorizedKeysFile .ssh/authorized_keys
UsePAM no
UseDNS no
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
"""
LIBVIRTD = """\
host_uuid = "{uuid}"
"""
# All hosts see one cgroup tree, and one AppArmor: neither is theirs to change.
QEMU = """\
cgroup_controllers = []
security_driver = "none"
"""


# From OpenSSH 9.8 on a client that failed a few times is turned away for a while: tests fail on purpose.
FORGIVING = "PerSourcePenalties no\n"


def _write_sshd_config(path: Path) -> None:
    path.write_text(SSHD + FORGIVING)
    if "PerSourcePenalties" in command("sh", "-c", "/usr/sbin/sshd -t -f $0 2>&1 || true", str(path)):
        path.write_text(SSHD)


@dataclass(frozen=True)
class Output:
    status: int
    stdout: str
    stderr: str


class Host:
    """`name` at `address`; its files are below `dir`. Made by Lab."""

    def __init__(self, name: str, address: str, dir: Path, network: Network, client_key: Path) -> None:
        self.name, self.address, self.dir, self.network = name, address, dir, network
        self.client_key = client_key
        self._process: subprocess.Popen | None = None

    # What it is --------------------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """Write its private directories: a copy of this machine's /etc with an identity of its own."""
        for path in PRIVATE:
            (self.dir / path).mkdir(parents=True, exist_ok=True)
        (self.dir / "root").chmod(0o700)
        (self.dir / "tmp").chmod(0o1777)
        etc = self.dir / "etc"
        command("cp", "-a", "/etc", str(etc))
        for stale in [*etc.glob("ssh/ssh_host_*"), *etc.glob("libvirt/qemu/*.xml"), etc / "rc.local"]:
            stale.unlink(missing_ok=True)
        for stale in ("nodeagent", "libvirt/storage", "libvirt/qemu/networks", "libvirt/qemu/autostart", "libvirt/secrets"):
            shutil.rmtree(etc / stale, ignore_errors=True)
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(etc / "ssh/ssh_host_ed25519_key"))
        _write_sshd_config(etc / "ssh/sshd_config")
        (etc / "libvirt/libvirtd.conf").write_text(LIBVIRTD.format(uuid=uuid.uuid4()))
        (etc / "libvirt/qemu.conf").write_text(QEMU)
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
        (etc / "hostname").write_text(self.name + "\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        ssh = self.dir / "root/.ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.client_key.with_suffix(".pub"), ssh / "authorized_keys")

    @property
    def host_key(self) -> str:
        """`ssh-ed25519 AAAA…`, as a known_hosts line names it."""
        return " ".join((self.dir / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` of its host key."""
        return command("ssh-keygen", "-lf", str(self.dir / "etc/ssh/ssh_host_ed25519_key.pub")).split()[1]

    # Power -------------------------------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def power_on(self) -> None:
        """Boot; returns when sshd and libvirtd answer. A boot runs the host's executable /etc/rc.local, if it has one."""
        if self.is_on:
            return
        self.network.add(self.name, self.address)
        for path in PRIVATE:                                  # a lab beside this one removes what was made for all of them
            Path("/", path).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.dir / "run", ignore_errors=True)
        (self.dir / "run").mkdir()
        log = (self.dir / "boot.log").open("ab")
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.network.namespace(self.name)}",
             "unshare", "-m", "-u", "-i", "-p", "-f", "--kill-child", "--mount-proc",
             "bash", str(BOOT), str(self.dir), self.name],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"},
        )
        log.close()
        (self.dir / "pid").write_text(str(self._process.pid))
        self._await_services()

    def _await_services(self) -> None:
        until = time.monotonic() + START_DEADLINE_S
        while not (self._libvirt_answers() and self._ssh_answers()):
            if not self.is_on or time.monotonic() > until:
                raise RuntimeError(f"lab host {self.name} did not start: {(self.dir / 'boot.log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _libvirt_answers(self) -> bool:
        # Through /proc: a UNIX socket's path may have 107 bytes at most.
        with socket.socket(socket.AF_UNIX) as probe:
            folder = os.open(self.dir / "run", os.O_PATH)
            try:
                return probe.connect_ex(f"/proc/self/fd/{folder}/libvirt/libvirt-sock") == 0
            finally:
                os.close(folder)

    def _ssh_answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=10) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            return False

    def agent_listens(self) -> bool:
        """Whether nodeagent, where it is enrolled, takes connections."""
        try:
            socket.create_connection((self.address, AGENT_PORT), timeout=10).close()
        except OSError:
            return False
        return True

    def power_off(self) -> None:
        """Lose power: every process of the host dies at once, guests too; its disks keep what was written."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=120)
            self._process = None
        self.network.drop(self.name)

    # Network -----------------------------------------------------------------------------------------------------

    def cut(self, *, to_host: bool = True, from_host: bool = True) -> None:
        """Drop what goes to it, what comes from it, or both, until `Lab.heal()`."""
        self.network.cut(self.name, to_host=to_host, from_host=from_host)

    # Commands ----------------------------------------------------------------------------------------------------

    def run(self, *words: str, check: bool = True, stdin: str | None = None, timeout_s: float = 120) -> Output:
        """Run a command inside the host as root (not over the network, so also when it is cut off)."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._inner_pid()), "-m", "-u", "-i", "-n", "-p", *words],
            input=stdin, capture_output=True, text=True, timeout=timeout_s, cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"},
        )
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return Output(done.returncode, done.stdout, done.stderr)

    def _inner_pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"lab host {self.name} is off")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def has(self, pid: int) -> bool:
        """Whether a process, by its number outside, is one of this host's."""
        try:
            return os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{self._inner_pid()}/ns/net")
        except OSError:
            return False

    def domains(self) -> dict[str, str]:
        """Domain name -> libvirt's state, those that are off too."""
        lines = self.run("virsh", "list", "--all").stdout.splitlines()[2:]
        return {words[1]: " ".join(words[2:]) for words in (line.split() for line in lines) if words}

    def pool_files(self) -> set[str]:
        """Names of the files in novactl's storage pool, but for the one that says which pool it is."""
        pool = self.dir / "var/lib/libvirt/images/novactl"
        return {path.name for path in pool.iterdir()} - {paths.POOL_ID} if pool.is_dir() else set()
