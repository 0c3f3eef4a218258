"""Enrolment over real SSH of a real libvirt host, and what bad input gets there."""

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import wire
from novactl.api import keys as api_keys
from novactl.api import nodes as api_nodes
from novactl.api import operations as api_operations
from novactl.conductor import check_node, enrolment
from novactl.conductor.progress import Progress
from novactl.db import placement
from novactl.enroll import access, bundle, paths
from novactl.enroll.request import EnrolPlan
from novactl.enroll.shell import LocalShell, Output
from novactl.errors import (
    AgentRefused,
    Busy,
    Denied,
    EnrolFailed,
    HostKeyChanged,
    HostKeyUnknown,
    InUse,
    SshDenied,
    Unreachable,
    UsageError,
    WaitTimeout,
)
from novactl.model.key import Role
from novactl.model.node import NodeState
from tests.integration.enroll_world import World, await_true, home_of, private_host_key
from tests.lab import Lab


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Lab]:
    with Lab(count=1) as lab:
        yield lab


@pytest.fixture
def world(bare_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A host with nothing on it; afterwards it must be that again, or the test removes the node."""
    home_of(bare_lab, monkeypatch)
    bare_lab.hosts[0].power_on()
    made = World(bare_lab, tmp_path / "data")
    try:
        before = made.slate()
        yield made
        if made.slate()["nodes"]:
            made.remove()
        assert made.slate() == before
    finally:
        made.close()


# ---------------------------------------------------------------- the way it should go


def test_enrolled_again_and_removed(world: World) -> None:
    """The node is up and reported; again changes nothing; removed, the host is as before and the name is free at once."""
    bare = world.slate()
    node_id = world.enroll(zone="left", labels={"rack": "r1"})
    node = world.node()
    assert (node.id, node.state, node.zone, node.labels) == (node_id, NodeState.ENABLED, "left", {"rack": "r1"})
    assert node.report and node.report["hostname"] == "h1" and node.host_key == world.host.host_key
    enrolled, said = world.slate(), []
    assert world.enroll(watch=said.append) == node_id
    assert world.slate() == enrolled and "0 changes" in said[-1].detail
    assert (world.node().zone, world.node().labels) == ("left", {"rack": "r1"})
    world.remove()
    assert world.slate() == bare
    world.enroll(name="another-name")
    assert world.node("another-name").id != node_id
    with pytest.raises(EnrolFailed) as refused:
        world.enroll(name="third-name")
    assert "another-name" in refused.value.reasons[0]
    world.remove("another-name")


def test_waiting_for_a_machine_has_an_end(world: World) -> None:
    """With a timeout a process in the background changes the machine, and is followed: past it that one goes on, and is named."""
    bare, said = world.slate(), []
    wanted = api_nodes.EnrollNode(target=f"root@{world.host.address}")
    with pytest.raises(UsageError, match="cannot ask for a password"):
        api_nodes.enroll(world.cluster, dataclasses.replace(wanted, sudo_password=lambda: "secret"), timeout_s=1)
    with pytest.raises(WaitTimeout) as late:
        api_nodes.enroll(world.cluster, wanted, timeout_s=0)
    assert late.value.command == f"novactl operation watch {late.value.operation[:8]}"
    api_operations.watch(world.cluster, [late.value.operation], timeout_s=300)
    assert world.node().state is NodeState.ENABLED
    removed = api_nodes.remove(world.cluster, "h1", timeout_s=300, watch=said.append)
    assert not isinstance(removed, str) and removed.state == "removed" and world.slate() == bare
    assert [step.step for step in said if step.step.startswith("no ")]
    enrolled = api_nodes.enroll(world.cluster, wanted, timeout_s=300)
    assert isinstance(enrolled, api_nodes.NodeView) and enrolled.name == "h1"


def test_dry_run(world: World) -> None:
    """It connects and says everything that would change, and changes nothing."""
    plan = world.enroll(dry_run=True)
    assert isinstance(plan, EnrolPlan)
    assert [change.split(":")[0] for change in plan.changes] == ["directories", "agent", "keys", "config", "service"]
    assert all(f.verdict != "fail" for f in plan.findings)


def test_the_secret_key_stays_on_the_node(world: World) -> None:
    """What the controller knows is the public key; the secret is 0600 on the node and in no log."""
    world.enroll()
    secret = world.host.run("cat", f"{paths.KEYS_DIR}/agent.key").stdout.strip()
    assert world.host.run("stat", "-c", "%a", f"{paths.KEYS_DIR}/agent.key").stdout.strip() == "600"
    assert world.node().public_key == world.host.run("cat", paths.PUBLIC_KEY_FILE).stdout.strip()
    stored = world.log() + json.dumps(world.node().undo)
    admin = (world.folder / "keys/admin.secret").read_text().split()[0]
    assert secret not in stored and admin not in stored


def test_the_agent_comes_back(world: World) -> None:
    """Killed, it is started again; after a loss of power it starts with the host."""
    world.enroll()
    ping = lambda: world.cluster.agents.call(world.node(), "agent.ping")  # noqa: E731
    first = world.pid()
    world.host.run("kill", "-KILL", str(first))
    await_true(lambda: world.pid() not in (0, first))
    await_true(lambda: _answers(ping))
    world.host.power_off()
    world.host.power_on()
    await_true(lambda: _answers(ping))


def _answers(call) -> bool:
    try:
        call()
    except Unreachable:
        return False
    return True


def test_a_new_version_and_a_broken_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another agent replaces the one before; one that does not answer is rolled back and the one before runs again."""
    world.enroll()
    before = world.slate()
    good = bundle.build()
    altered = bundle.Bundle(good.version, good.content, "0" * 64)
    broken = bundle.Bundle(good.version, good.content[:1000], hashlib.sha256(good.content[:1000]).hexdigest())
    for bad, said in ((altered, "is not the one sent"), (broken, "installing the agent on .* failed")):
        monkeypatch.setattr(bundle, "build", lambda bad=bad: bad)
        with pytest.raises(EnrolFailed, match=said):
            world.enroll()
        assert world.slate() == before
        world.cluster.agents.call(world.node(), "agent.ping")


# ---------------------------------------------------------------- who may


def test_a_second_admin(world: World) -> None:
    """A key nobody knows is refused by database and agent; made known, it is served by the agent as it runs; revoked, no more."""
    world.enroll()
    pid, bob = world.pid(), world.admin("bob")
    with pytest.raises(Denied, match="not one of this cluster's"):
        api_nodes.list_nodes(bob)
    with pytest.raises(Denied) as refused:
        bob.agents.call(world.node(), "agent.hello")
    assert refused.value.exit_status == 8
    assert api_keys.create(world.cluster, name="bob", role=Role.OPERATOR, public_key=bob.key).unreached == {}
    assert bob.agents.call(world.node(), "agent.hello").body.role == wire.OPERATOR
    with pytest.raises(Denied, match="needs the role admin; key bob has operator"):
        api_nodes.disable(bob, "h1")
    assert world.host.run("stat", "-c", "%a", paths.ADMINS_FILE).stdout.strip() == "600"
    assert world.enroll(dry_run=True).changes == ()           # what the agent wrote is what enrolment would write
    assert api_keys.revoke(world.cluster, "bob").unreached == {}
    with pytest.raises(AgentRefused, match="not enrolled here"):
        bob.agents.call(world.node(), "agent.hello")
    assert world.pid() == pid


def test_keys_are_changed_while_it_runs(world: World) -> None:
    """The node's key and the admin's are changed without the agent being started anew; killed, it comes back with both."""
    world.enroll()
    pid, first = world.pid(), world.node().public_key
    world.cluster.agents.call(world.node(), "agent.ping")
    api_nodes.rotate_key(world.cluster, "h1")
    assert api_keys.rotate(world.cluster).unreached == {}
    fresh = world.node()
    assert world.pid() == pid and fresh.public_key == world.host.run("cat", paths.PUBLIC_KEY_FILE).stdout.strip() != first
    assert sorted(world.host.run("ls", paths.KEYS_DIR).stdout.split()) == ["admins.json", "agent.key", "agent.pub"]
    assert {f.check for f in check_node.check(world.cluster, world.node()) if f.verdict == "fail"} == set()
    assert world.enroll(dry_run=True).changes == ()
    world.host.run("kill", "-KILL", str(pid))
    await_true(lambda: world.pid() not in (0, pid))
    await_true(lambda: _answers(lambda: world.cluster.agents.call(world.node(), "agent.ping")))


def test_a_wrong_ssh_key(world: World, keys_folder: Path) -> None:
    """Exit 8, the key that was refused, and nothing done."""
    with pytest.raises(SshDenied) as refused:
        world.enroll(identity=keys_folder / "stranger")
    assert "stranger" in refused.value.reasons[0]


@pytest.fixture
def keys_folder(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "stranger")], check=True)
    return tmp_path


def _user(world: World, name: str, sudoers: str) -> str:
    """A user of the host who may log in with the client's key, and what sudo lets them do."""
    world.host.run("sh", "-c", """id "$1" >/dev/null 2>&1 || useradd -M -d "/tmp/$1" -s /bin/sh "$1"; echo "$1:pass word" | chpasswd
mkdir -p "/tmp/$1/.ssh" && cp /root/.ssh/authorized_keys "/tmp/$1/.ssh/" && chown -R "$1" "/tmp/$1"
[ -z "$2" ] || echo "$1 $2" >"/etc/sudoers.d/$1" """, "_", name, sudoers)
    return f"{name}@{world.host.address}"


@pytest.fixture
def former_passwd(bare_lab: Lab) -> Iterator[None]:
    host = bare_lab.hosts[0]
    host.power_on()
    host.run("sh", "-c", "for f in passwd shadow group gshadow; do cp -p /etc/$f /root/$f; done")
    yield
    host.run("sh", "-c", "for f in passwd shadow group gshadow; do cp -p /root/$f /etc/$f; done; rm -rf /etc/sudoers.d/* /tmp/u?")


def test_a_user_without_sudo(former_passwd: None, world: World) -> None:
    """Exit 8 with both ways out; with a password nobody can type, too."""
    for target in (_user(world, "u1", ""), _user(world, "u2", "ALL=(ALL) ALL")):
        with pytest.raises(SshDenied) as refused:
            world.enroll(target=target)
        assert "root@host" in refused.value.hint and "NOPASSWD" in refused.value.hint
    with pytest.raises(SshDenied, match="refused the password"):
        world.enroll(target=target, sudo_password=lambda: "wrong")
    _forget_users(world)


def test_sudo_with_and_without_a_password(former_passwd: None, world: World) -> None:
    """Both enrol; the password is asked once, is in no log and in no file that was written."""
    asked = []
    world.enroll(target=_user(world, "u3", "ALL=(ALL) NOPASSWD: ALL"))
    world.remove()
    world.enroll(target=_user(world, "u4", "ALL=(ALL) ALL"), sudo_password=lambda: asked.append(1) or "pass word")
    assert asked == [1] and "pass word" not in world.log()
    assert json.loads(world.host.run("cat", paths.CONFIG_FILE).stdout)["name"] == "h1"
    with pytest.raises(SshDenied):
        world.remove()
    world.remove(sudo_password=lambda: "pass word")
    _forget_users(world)


def _forget_users(world: World) -> None:
    world.host.run("sh", "-c", "for f in passwd shadow group gshadow; do cp -p /root/$f /etc/$f; done")


# ---------------------------------------------------------------- host keys


def test_an_unknown_host_key(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody vouches: refused. A fingerprint vouches, and the key is pinned."""
    empty = tmp_path / "home"
    (empty / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(empty))
    with pytest.raises(HostKeyUnknown):
        world.enroll(identity=world.lab.client_key)
    world.enroll(identity=world.lab.client_key, host_key=world.host.fingerprint)
    assert world.node().host_key == world.host.host_key
    world.enroll(identity=world.lab.client_key)
    world.remove()


def test_a_changed_host_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4 with both fingerprints, also for removal, until somebody vouches for the new one."""
    world.enroll()
    old = world.host.fingerprint
    new = private_host_key(world.host)
    for act in (world.enroll, world.remove, lambda: world.enroll(accept_new=True)):
        with pytest.raises(HostKeyChanged) as refused:
            act()
        assert old in refused.value.reasons[0] and new in refused.value.reasons[1]
    world.enroll(host_key=new)
    assert world.node().host_key == world.host.host_key
    known = world.lab.home / ".ssh/known_hosts"
    known.write_text(f"{world.host.address} {world.host.host_key}\n")


# ---------------------------------------------------------------- machines that will not do


def _refused(world: World, **wanted: object) -> EnrolFailed:
    bare = world.slate()
    with pytest.raises(EnrolFailed) as refused:
        world.enroll(**wanted)
    assert world.slate() == bare and "nothing was changed" in refused.value.message
    return refused.value


def test_no_space(world: World) -> None:
    """A pool folder that is too small is refused with the numbers."""
    world.host.run("mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", "/var/lib/libvirt/images")
    try:
        assert "10 MiB free, 1024 MiB are needed" in _refused(world).reasons[0]
    finally:
        world.host.run("umount", "/var/lib/libvirt/images")


def test_no_apt(world: World) -> None:
    """Without a package manager we know and with something missing, the system is named, and what is supported."""
    world.host.run("sh", "-c", """mount --bind /dev/null /usr/bin/virsh
rm /etc/os-release; printf 'ID=void\\nPRETTY_NAME=Void' >/etc/os-release""")
    try:
        reasons = "\n".join(_refused_unlooked(world).reasons)
    finally:
        world.host.run("sh", "-c", "umount /usr/bin/virsh; rm /etc/os-release; ln -s ../usr/lib/os-release /etc/os-release")
    assert "Void is not supported" in reasons and "missing: virsh" in reasons and "Debian 12" in reasons


def _refused_unlooked(world: World) -> EnrolFailed:
    with pytest.raises(EnrolFailed) as refused:
        world.enroll()
    return refused.value


def test_a_port_in_use_and_another_cluster(world: World) -> None:
    """Both are said at once."""
    code = "import socket,time; s = socket.create_server(('0.0.0.0', 7766)); print('ready', flush=True); time.sleep(60)"
    world.host.run("sh", "-c", """mkdir /etc/nodeagent; echo '{"cluster_id": "x"}' >/etc/nodeagent/config.json
setsid /usr/bin/python3 -c "$1" >/tmp/out 2>&1 </dev/null & echo $! >/tmp/pid
until grep -q ready /tmp/out; do sleep 0.05; done""", "_", code)
    reasons = "\n".join(_refused(world).reasons)
    assert "port 7766" in reasons and "another cluster (x)" in reasons
    world.host.run("sh", "-c", "kill $(cat /tmp/pid); rm -r /etc/nodeagent /tmp/out /tmp/pid")


def test_names_cannot_be_shell(world: World) -> None:
    """A name that is none is a usage error, before anything is connected."""
    for name in ("a;reboot", "$(id)", "../x", "-x", "a b", ""):
        with pytest.raises(UsageError):
            world.enroll(name=name)


def test_an_agent_that_cannot_be_reached(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails, everything is rolled back, and the error has the agent's words, what stayed and the log."""
    monkeypatch.setattr(enrolment, "AGENT_DEADLINE_S", 12.0)  # in which it has begun to listen, and says so in its log
    world.cluster.config = world.cluster.config.replace(agent__connect_s=0.3)
    world.host.run("nft", "add table inet t; add chain inet t i { type filter hook input priority 0; };"
                   " add rule inet t i iifname eth0 tcp dport 7766 drop")
    try:
        with pytest.raises(Unreachable) as failed:
            world.enroll()
    finally:
        world.host.run("nft", "delete", "table", "inet", "t")
    reasons = "\n".join(failed.value.reasons)
    assert "listening on tcp://0.0.0.0:7766" in reasons and "rolled back" in reasons and "enrol-h1.log" in reasons
    assert failed.value.exit_status == 6


def test_keep_on_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --keep-on-failure the host is left to be looked at; enrolling again goes on from there."""
    monkeypatch.setattr(enrolment, "check_hello", _never)
    with pytest.raises(EnrolFailed) as failed:
        world.enroll(keep_on_failure=True)
    assert any("as it was left" in reason for reason in failed.value.reasons)
    assert world.pid() and world.node().state is NodeState.ENROLLING
    monkeypatch.undo()
    home_of(world.lab, monkeypatch)
    world.enroll()


def _never(*_: object) -> None:
    raise EnrolFailed("never good enough")


def test_another_enrolment_under_way(world: World) -> None:
    """Two clusters cannot enrol one machine at a time; the second changes nothing."""
    world.host.run("sh", "-c", f"mkdir {paths.LOCK_DIR}; echo 12345678-other >{paths.LOCK_DIR}/owner")
    with pytest.raises(Busy, match="12345678"):
        world.enroll()
    world.host.run("rm", "-r", paths.LOCK_DIR)


# ---------------------------------------------------------------- check, removal, loss


def test_check_finds(world: World) -> None:
    """`node check` finds a closed /dev/kvm, files that were changed and an agent that is down."""
    world.enroll()
    assert {f.check for f in check_node.check(world.cluster, world.node()) if f.verdict == "fail"} == set()
    none = world.host.run("test", "-e", "/dev/kvm", check=False).status     # then there is nothing to mount over: it is made for the test
    world.host.run("sh", "-c", "mknod /tmp/kvm c 10 232; chmod 600 /tmp/kvm; touch /dev/kvm; mount --bind /tmp/kvm /dev/kvm;"
                   f" echo '{{}}' >{paths.ADMINS_FILE}; {paths.SUPERVISOR} stop")
    patient = world.cluster.config
    world.cluster.config = patient.replace(agent__connect_s=0.3)
    found = {f.check: f for f in check_node.check(world.cluster, world.node()) if f.verdict != "ok"}
    assert found["agent"].verdict == "fail" and "chgrp kvm /dev/kvm" in found["/dev/kvm"].fix
    world.host.run("sh", "-c", "umount /dev/kvm; rm /tmp/kvm" + ("; rm /dev/kvm" if none else ""))
    drift = [f.detail for f in check_node.check(world.cluster, world.node()) if f.check == "enrolment"]
    assert any("admins.json" in text for text in drift) and any("started" in text for text in drift)
    world.cluster.config = patient
    world.enroll()
    assert world.cluster.agents.call(world.node(), "agent.hello").body.role == wire.ADMIN


def test_removal_is_refused_while_servers_are_there(world: World) -> None:
    """A claim on the node is enough; nothing is touched, and the same for --lost."""
    world.enroll()
    consumer, node_id = world.cluster.ids.uuid(), world.node().id
    with world.cluster.db.write() as tx:
        placement.claim(tx, placement.Claim(consumer, node_id, {"VCPU": 1}))
    enrolled = world.slate()
    for lost in (False, True):
        with pytest.raises(InUse):
            world.remove(lost=lost)
    assert world.slate() == enrolled
    with world.cluster.db.write() as tx:
        placement.release(tx, consumer, node_id)


def test_a_lost_machine(world: World) -> None:
    """Off: removal says it is unreachable and how to forget it; forgotten; back, it can be enrolled again."""
    world.enroll()
    world.host.power_off()
    with pytest.raises(Unreachable) as refused:
        world.remove()
    assert "--lost" in refused.value.hint and world.node().state is NodeState.ENABLED
    world.remove(lost=True)
    world.host.power_on()
    world.enroll()
    assert world.node().state is NodeState.ENABLED


def test_removal_without_an_agent(world: World) -> None:
    """A dead agent does not keep the node: libvirt is told directly, and what had to stay is said."""
    world.enroll()
    world.host.run(paths.SUPERVISOR, "stop")
    world.cluster.config = world.cluster.config.replace(agent__connect_s=0.3)
    said: list[Progress] = []
    left = world.remove(watch=said.append)
    assert left and "network" in left[0] and said[-1].detail == "; ".join(left)
    world.host.run("sh", "-c", "virsh -q net-destroy default; virsh -q net-undefine default")


# ---------------------------------------------------------------- without SSH


def test_this_machine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """--local runs the same plan and steps in a shell of its own, and is removed the same way."""
    enter = f"nsenter -t {world.host._inner_pid()} -m -u -i -n -p "

    class OnTheHost(LocalShell):
        def _exec(self, line: str, stdin: bytes, timeout_s: float) -> Output:
            return super()._exec(enter + line, stdin, timeout_s)

    monkeypatch.setattr(access, "LocalShell", OnTheHost)
    world.enroll(target="", local=True, address=world.host.address)
    node = world.node()
    assert (node.ssh, node.host_key, node.address) == ("local", "", f"tcp://{world.host.address}:7766")
    enrolled = world.slate()
    world.enroll(target="", local=True)
    assert world.slate() == enrolled


def test_a_firewall_that_drops(world: World) -> None:
    """Where nftables drops what it does not know, the controller alone is let in, and the rule goes with the node."""
    world.host.run("nft", "-f", "-", stdin="""table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        tcp dport 22 accept
    }
}
""")
    try:
        rules = lambda: world.host.run("nft", "list", "chain", "inet", "filter", "input").stdout  # noqa: E731
        closed = rules()
        world.enroll()
        opened = rules()
        assert f'ip saddr {world.lab.network.prefix}.1 tcp dport 7766 accept comment "novactl"' in opened
        world.enroll()
        assert rules() == opened
        world.remove()
        assert rules() == closed
    finally:
        world.host.run("nft", "delete", "table", "inet", "filter")
