"""One agent on a real host with real QEMU guests: without root's rights, and with what it rests on failing under it."""

import dataclasses
import grp
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zmq

from nodeagent import wire
from nodeagent.__main__ import ensure_keys
from nodeagent.wire import Code, ConsoleRef, DomainCell, DomainRef, DomainSpec, Stop
from novactl.agents.client import Agents
from novactl.agents.keys import KeyPair
from novactl.agents.link import Answer, Fence
from novactl.errors import AgentRefused, NovaError
from tests.contract.kit import until
from tests.lab import Lab
from tests.lab.host import Host

REPOSITORY = Path(__file__).parents[2]
PORT, NOBODY = 7799, 65534
POOL = "/var/lib/libvirt/images/novactl"
READY, PROMPT = b"novactl-guest ready:", b":/root# "
BOOT_S = 240.0
"""What is waited for at most on a machine that has other things to do; only a test that fails waits so long."""


_WIPE = """
virsh -q list >/dev/null 2>&1 || libvirtd -d
for name in $(virsh -q list --name); do virsh -q destroy $name; done
for name in $(virsh -q list --all --name); do virsh -q undefine $name; done
for kind in pool net; do
    for name in $(virsh -q $kind-list --name); do virsh -q $kind-destroy $name; done
    for name in $(virsh -q $kind-list --all --name); do virsh -q $kind-undefine $name; done
done
umount -l $0 2>/dev/null
rm -rf $0 /var/log/libvirt/qemu/*console*
"""


class Peer(NamedTuple):
    id: str
    name: str
    address: str
    public_key: str


class RealNode:
    """The agent on a lab host, run as `nobody` in group libvirt with no capability, as the systemd unit runs it."""

    def __init__(self, host: Host, image: Path) -> None:
        self.host, self.image = host, image
        self.state = host.dir / "var/lib/nodeagent"
        public, secret = (key.decode() for key in zmq.curve_keypair())
        self.client = Agents(lambda: KeyPair(public, secret), actor="tester", connect_s=10)
        key = ensure_keys(str(self.state / "keys"))
        self.peer = Peer("h1", "h1", f"tcp://{host.address}:{PORT}", key)
        (self.state / "admins.json").write_text(json.dumps({"keys": {public: {"name": "tester", "role": wire.ADMIN}}}))
        (self.state / "config.json").write_text(json.dumps({
            "node_id": str(uuid.uuid4()), "cluster_id": str(uuid.uuid4()), "name": "h1", "listen": f"tcp://0.0.0.0:{PORT}",
            "keys_dir": "/var/lib/nodeagent/keys", "admins_file": "/var/lib/nodeagent/admins.json",
            "state_dir": "/var/lib/nodeagent/state", "pool_dir": POOL, "report_interval_s": 600.0}))   # so that events alone are told
        (self.state / "state").mkdir()
        for path in (self.state, *self.state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        # The checkout may be where `nobody` cannot read, or the host does not look (/root).
        shutil.copytree(REPOSITORY / "nodeagent", host.dir / "opt/nodeagent", dirs_exist_ok=True)
        host.run("install", "-d", "-o", "nobody", "-m", "0711", POOL)
        self.operation, self._count = str(uuid.uuid4()), 0
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        inner = self.host._inner_pid()
        self.process = subprocess.Popen(
            ["nsenter", "-t", str(inner), "-m", "-u", "-i", "-n", "-p", "setpriv", "--reuid", "nobody", "--regid", "nogroup",
             "--groups", str(grp.getgrnam("libvirt").gr_gid), "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
             "/usr/bin/python3", "-B", "-m", "nodeagent", "--config", "/var/lib/nodeagent/config.json"],
            cwd="/", env={"PYTHONPATH": "/opt", "PATH": os.environ["PATH"]}, start_new_session=True,
            stdin=subprocess.DEVNULL, stderr=(self.state / "log").open("a"))

    def kill(self) -> None:
        """SIGKILL, wherever it is."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self.client.close()

    def get(self, method: str, args: Any = None, timeout_s: float | None = None) -> Answer:
        return self.client.call(self.peer, method, args, timeout_s=timeout_s)

    def change(self, method: str, args: Any = None, payload: bytes | None = None, *, request: str = "") -> Any:
        self._count += 1
        fence = Fence(request or f"{self.operation}:{self._count}:1:do", self.operation, 1)
        return self.client.call(self.peer, method, args or wire.Nothing(), payload, fence=fence).body

    def put_image(self, content: bytes, disk_format: str, virtual_size: int) -> str:
        import hashlib

        sha256 = hashlib.sha256(content).hexdigest()
        progress = self.change("image.begin", wire.ImageOffer(sha256, len(content), virtual_size, disk_format))
        while not progress.present and progress.offset < len(content):
            piece = content[progress.offset : progress.offset + wire.CHUNK_BYTES]
            progress = self.change("image.chunk", wire.ImageChunk(sha256, progress.offset), piece)
        self.change("image.finish", wire.ImageRef(sha256))
        return sha256

    def put_guest(self) -> str:
        info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "-f", "qcow2", self.image]))
        return self.put_image(self.image.read_bytes(), "qcow2", info["virtual-size"])

    def spec(self, number: int = 1, **changes: Any) -> DomainSpec:
        spec = DomainSpec(
            server=str(uuid.uuid4()), epoch=1, name=f"web{number}", vcpus=1, memory_mb=192, disk_gb=1, image_sha256=self.put_guest(),
            mac=f"52:54:00:ac:ce:{number:02x}", has_seed=False)
        return dataclasses.replace(spec, **changes)

    def boot(self, number: int = 1, **changes: Any) -> DomainSpec:
        """A running server of the small guest."""
        spec = self.spec(number, **changes)
        self.change("disk.create", wire.DiskSpec(spec.server, 1, spec.image_sha256, 1))
        self.change("domain.define", spec)
        assert self.change("domain.start", DomainRef(spec.server, 1)).power_state == "RUNNING"
        return spec

    def log(self, spec: DomainSpec) -> bytes:
        return self.get("console.log", wire.ConsoleLogRead(spec.server)).payload or b""

    def await_ready(self, spec: DomainSpec) -> None:
        until(lambda: READY in self.log(spec), BOOT_S)

    def await_shell(self, spec: DomainSpec) -> None:
        """Some milliseconds after it is ready: the line is the shell's from here on, and what is typed before may be thrown away."""
        until(lambda: PROMPT in self.log(spec).partition(READY)[2], BOOT_S)

    def power(self, spec: DomainSpec) -> str:
        return self.get("domain.state", DomainRef(spec.server)).body.power_state

    def qemu(self, spec: DomainSpec) -> int:
        """The pid of the guest's QEMU, in the host's own numbering of processes."""
        return int(self.host.run("cat", f"/run/libvirt/qemu/novactl-{spec.server}.pid").stdout)

    def allowed(self, spec: DomainSpec) -> dict[str, str]:
        """The host CPUs that each thread of the guest's QEMU may use."""
        script = 'cd /proc/$0/task; for t in *; do echo "$(cat $t/comm)=$(sed -n s/^Cpus_allowed_list:.//p $t/status)"; done'
        lines = self.host.run("sh", "-c", script, str(self.qemu(spec))).stdout.splitlines()
        return dict(line.split("=") for line in lines)

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.host.run("kill", f"-{number.value}", str(pid))

    def delete(self, *specs: DomainSpec) -> None:
        for spec in specs:
            for method in ("domain.destroy", "domain.undefine", "disk.delete"):
                self.change(method, DomainRef(spec.server, 1))

    def wipe(self) -> None:
        """Whatever a test that failed has left of it, for the next one."""
        self.kill()
        self.host.power_on()
        self.host.run("sh", "-c", _WIPE, POOL, check=False)
        for path in sorted(self.state.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def answers(self) -> bool:
        try:
            self.get("domain.list", timeout_s=2)
            return True
        except NovaError:
            return False


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host of our own, whose libvirtd lets group libvirt in without asking polkit, as there is none here."""
    with Lab(count=1) as lab:
        made = lab.hosts[0]
        made.power_off()
        with (made.dir / "etc/libvirt/libvirtd.conf").open("a") as conf:
            conf.write('auth_unix_rw = "none"\nunix_sock_group = "libvirt"\nunix_sock_rw_perms = "0770"\n')
        made.power_on()
        yield made


@pytest.fixture
def node(host: Host, guest_image: Path) -> Iterator[RealNode]:
    """A prepared node; afterwards nothing of it may be left on the host."""
    networks = host.run("virsh", "net-list", "--all").stdout
    made = RealNode(host, guest_image)
    try:
        made.start()
        made.change("node.prepare", wire.Prepare())
        yield made
        made.change("node.unprepare")
        made.kill()
        assert host.domains() == {} and host.pool_files() == set()
        assert host.run("virsh", "net-list", "--all").stdout == networks
        assert host.run("virsh", "pool-list", "--all", "--name").stdout.strip() == ""
        assert not list((host.dir / "var/log/libvirt/qemu").glob("*console*"))
    finally:
        made.wipe()


def test_a_guest_boots_without_root(node: RealNode) -> None:
    """As an ordinary user in group libvirt: boot, address, log, live console, a shutdown by ACPI; the log and disk go with it."""
    spec = node.boot()
    node.await_ready(spec)
    until(lambda: node.get("domain.state", DomainRef(spec.server)).body.addresses != (), BOOT_S)
    size = node.get("console.log", wire.ConsoleLogRead(spec.server, -5)).body.size_bytes
    assert size >= len(READY)
    with node.client.stream(node.peer, "console.open", DomainRef(spec.server)) as console:
        assert console.read(BOOT_S) == ({}, b""), "though its shell's prompt comes just now"
        node.await_shell(spec)
        node.client.call(node.peer, "console.input", ConsoleRef(console.id), b"\r echo said-$((6*7))\r")
        seen, deadline = b"", time.monotonic() + BOOT_S
        while b"said-42" not in seen and time.monotonic() < deadline:
            seen += (console.read(1) or ({}, b""))[1] or b""
        assert b"said-42" in seen
        assert node.change("domain.stop", Stop(spec.server, 1, 120)).power_state == "SHUTDOWN"
        until(lambda: b"Power down" in node.log(spec), BOOT_S)  # by itself
        deadline = time.monotonic() + BOOT_S
        with pytest.raises(EOFError):
            while time.monotonic() < deadline:
                console.read(1)
    node.delete(spec)


def test_a_guest_keeps_to_its_pieces(node: RealNode) -> None:
    """Each vcpu of a pinned guest runs on its CPU and its memory is tied to its cell; one that floats keeps to its cpuset; what
    is pinned already, or is not there, is refused by name before libvirt is asked."""
    cell = node.get("inventory.read", wire.InventoryRead(0)).body.cells[0]
    if len(cell.cpus) < 2:
        pytest.skip("one CPU leaves no choice")
    one, two = cell.cpus[:2]
    pinned = node.boot(vcpus=2, pins=(two, one), cells=(DomainCell(2, 192, cell.id),))
    floating = node.boot(2, cpuset=str(two))
    node.await_ready(pinned)
    threads = node.allowed(pinned)
    assert [threads[name] for name in sorted(threads) if name.startswith("CPU ")] == [str(two), str(one)]
    assert set(node.allowed(floating).values()) == {str(two)}
    assert f"numa_nodeset   : {cell.id}" in node.host.run("virsh", "numatune", f"novactl-{pinned.server}").stdout
    for changes, why in (({"pins": (one,)}, "is pinned by server web1 already"), ({"pins": (8191,)}, "is not one of this host's")):
        with pytest.raises(AgentRefused, match=why):
            node.change("domain.define", node.spec(3, **changes))
    node.delete(pinned, floating)


def test_a_killed_libvirtd_is_found_again(node: RealNode) -> None:
    """The agent lives on while libvirtd is dead, and answers when it is back; the guest never noticed."""
    spec = node.boot()
    before = node.qemu(spec)
    node.signal(int(node.host.run("cat", "/run/libvirtd.pid").stdout), signal.SIGKILL)
    until(lambda: not node.answers())
    node.get("agent.ping")
    node.host.run("libvirtd", "-d")
    until(node.answers, 30)
    assert node.power(spec) == "RUNNING" and node.qemu(spec) == before
    node.delete(spec)


def test_a_frozen_guest_delays_itself_only(node: RealNode) -> None:
    """With one QEMU frozen: reports and states come at once, other servers obey, and the frozen one is powered off in the end."""
    frozen, other = node.boot(1), node.boot(2)
    node.signal(node.qemu(frozen), signal.SIGSTOP)
    began = time.monotonic()
    assert {state.power_state for state in node.get("inventory.read", wire.InventoryRead(0)).body.domains} == {"RUNNING"}
    assert node.power(frozen) == "RUNNING" and time.monotonic() - began < 5
    assert node.change("domain.destroy", DomainRef(other.server, 1)).power_state == "SHUTDOWN"
    assert time.monotonic() - began < 12, "libvirt gives a frozen guest 15 s"
    assert node.change("domain.stop", Stop(frozen.server, 1, 1)).power_state == "SHUTDOWN"
    node.delete(frozen, other)


def test_a_dead_guest_is_reported_at_once(node: RealNode) -> None:
    """A watcher hears of a QEMU that was killed, as crashed, long before a report is due."""
    spec = node.boot()
    with node.client.stream(node.peer, "inventory.watch") as watch:
        assert watch.read(10)
        node.signal(node.qemu(spec), signal.SIGKILL)
        began, seen = time.monotonic(), ""
        while seen != "CRASHED" and time.monotonic() < began + 30:
            body, _ = watch.read(30) or ({"domains": []}, None)
            seen = next((domain["power_state"] for domain in body["domains"]), "")
        assert seen == "CRASHED"
    node.delete(spec)


def test_a_killed_agent_leaves_guests_running(node: RealNode) -> None:
    """After SIGKILL and a restart the guest runs on, a repeated request gets its first answer, and the rest works."""
    spec = node.boot()
    first = node.change("domain.start", DomainRef(spec.server, 1), request="o:start:1:do")
    before = node.qemu(spec)
    node.kill()
    node.start()
    until(node.answers, 20)
    assert node.change("domain.start", DomainRef(spec.server, 1), request="o:start:1:do") == first
    assert node.power(spec) == "RUNNING" and node.qemu(spec) == before
    node.delete(spec)


def test_after_a_power_loss_it_is_ready_again(node: RealNode) -> None:
    """Pool and network are active again without being asked for; the guest is off, and starts with the disk it had."""
    spec = node.boot()
    node.await_ready(spec)
    node.kill()
    node.host.power_off()
    node.host.power_on()
    node.start()
    until(node.answers, 30)
    assert node.power(spec) == "SHUTDOWN"
    active = node.host.run("virsh", "net-list", "--name").stdout + node.host.run("virsh", "pool-list", "--name").stdout
    assert {"default", "novactl"} <= set(active.split())
    assert node.change("domain.start", DomainRef(spec.server, 1)).power_state == "RUNNING"
    node.await_ready(spec)
    node.delete(spec)


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(AgentRefused) as caught:
        act()
    return caught.value.details["code"]


def test_an_image_that_is_not_what_was_offered_goes(node: RealNode, tmp_path: Path) -> None:
    """Another format, a file behind it, another size: bad_image, and the file is gone."""
    plain, behind = tmp_path / "plain.qcow2", tmp_path / "behind.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", plain, "8M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", behind, "8M"], check=True)
    for content, disk_format, size in (
        (bytes(1 << 20), "qcow2", 1 << 20), (plain.read_bytes(), "raw", 8 << 20), (behind.read_bytes(), "qcow2", 8 << 20),
        (plain.read_bytes(), "qcow2", 16 << 20),
    ):
        assert refused(lambda c=content, f=disk_format, s=size: node.put_image(c, f, s)) == Code.BAD_IMAGE
        assert node.host.pool_files() == set()


def test_a_full_pool_refuses_the_disk(node: RealNode) -> None:
    """No room for a disk: the refusal says so, another node may do it, nothing of it stays; with room again the same server is made."""
    node.change("node.unprepare")
    node.host.run("mount", "-t", "tmpfs", "-o", f"size=200M,uid={NOBODY},mode=0711", "none", POOL)
    try:
        node.change("node.prepare", wire.Prepare())
        spec = node.spec()
        node.host.run("sh", "-c", f"dd if=/dev/zero of={POOL}/filler bs=4k 2>/dev/null; true")
        with pytest.raises(AgentRefused) as full:
            node.change("disk.create", wire.DiskSpec(spec.server, 1, spec.image_sha256, 1))
        assert full.value.elsewhere and "No space left" in full.value.message
        assert not [name for name in node.host.run("ls", POOL).stdout.split() if spec.server in name]
        node.host.run("rm", f"{POOL}/filler")
        node.change("disk.create", wire.DiskSpec(spec.server, 1, spec.image_sha256, 1))
        node.delete(spec)
        node.change("node.unprepare")
    finally:
        node.host.run("umount", "-l", POOL)
    node.change("node.prepare", wire.Prepare())


def test_what_other_nodes_made_in_a_shared_pool(node: RealNode) -> None:
    """A disk that no libvirt here has heard of, and the agent may not read, keeps the image under it; the pool has an id that all may
    read, and none is told apart from itself."""
    node.host.run("virsh", "pool-refresh", "novactl")
    sha256 = node.put_guest()
    on_it, beside = (f"{POOL}/disk-{uuid.uuid4()}.qcow2" for _ in range(2))
    node.host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{POOL}/base-{sha256}.qcow2", "-F", "qcow2", on_it)
    node.host.run("qemu-img", "create", "-q", "-f", "qcow2", beside, "8M")
    node.host.run("chmod", "600", on_it, beside)
    with pytest.raises(AgentRefused, match="under the disks of 1 servers") as used:
        node.change("image.delete", wire.ImageRef(sha256))
    assert on_it[len(f"{POOL}/disk-"):-len(".qcow2")] in used.value.message
    told = {node.get("inventory.read", wire.InventoryRead(0.0)).body.pool_id for _ in range(2)}
    assert told == {node.host.run("cat", f"{POOL}/.novactl-pool").stdout.strip()}
    node.host.run("rm", on_it)
    node.change("image.delete", wire.ImageRef(sha256))
    node.host.run("rm", beside)


def test_a_disk_left_of_another_epoch_is_made_anew(node: RealNode) -> None:
    """At its own epoch a defined server's disk stays; at a later one what is here is an old copy, and its domain goes with it."""
    spec = node.spec()
    disk = f"{POOL}/disk-{spec.server}.qcow2"

    def created(epoch: int) -> str:
        node.change("disk.create", wire.DiskSpec(spec.server, epoch, spec.image_sha256, 1))
        return node.host.run("sh", "-c", f"sha256sum < {disk}").stdout

    created(1)
    node.change("domain.define", spec)
    node.host.run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", disk)
    written = node.host.run("sh", "-c", f"sha256sum < {disk}").stdout
    assert created(1) == written and f"novactl-{spec.server}" in node.host.domains()
    assert created(2) != written and f"novactl-{spec.server}" not in node.host.domains()
    node.change("disk.delete", DomainRef(spec.server, 2))
