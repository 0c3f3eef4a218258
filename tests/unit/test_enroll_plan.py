import dataclasses
import json

import pytest

from nodeagent import admins
from nodeagent import config as agent_config
from nodeagent.config import parse
from novactl.enroll import paths, unit
from novactl.enroll.checks import FAIL, OK, WARN, find
from novactl.enroll.distro import FAMILIES, MACHINES, NEEDS
from novactl.enroll.facts import Facts
from novactl.enroll.goal import Goal, Others, admins_text, config_text, kvm_closed
from novactl.enroll.plan import make_plan
from novactl.enroll.site import before_of, earliest
from novactl.enroll.steps import STEPS
from novactl.model.finding import Finding
from tests.unit.enroll_machines import CONTAINER, DEBIAN, LEAP, READY, ROCKY, machine

NOW = 1700000000.0
KEY, OTHER_KEY = "a" * 40, "b" * 40
GOAL = Goal(
    node_id="11111111-1111-4111-8111-111111111111", cluster_id="22222222-2222-4222-8222-222222222222", name="h1", version="0.1.0",
    bundle_folder="0.1.0-abc", bundle_sha256="c" * 64, admins={KEY: {"name": "alice", "role": "admin"}}, admins_version=3,
    peer="192.0.2.1",
)


def finding(facts: Facts, check: str, goal: Goal = GOAL, others: Others = Others()) -> Finding:
    found = [f for f in find(facts, goal, NOW, others) if f.check == check]
    return next((f for f in found if f.verdict != OK), found[0])


def changes(facts: Facts, goal: Goal = GOAL) -> dict[str, str]:
    return {change.step: change.text for change in make_plan(facts, goal, NOW).changes}


def enrolled(sections: dict[str, str]) -> Facts:
    """The machine as enrolment leaves it."""
    user = "nodeagent" if sections["systemd"] else "root"
    units = sections["units"].replace("Id=nodeagent.service\nActiveState=inactive\nUnitFileState=",
                                      "Id=nodeagent.service\nActiveState=active\nUnitFileState=enabled")
    return machine(
        sections, units=units, config=config_text(GOAL), admins=admins_text(GOAL), public_key=KEY,
        agent=f"{paths.AGENT_HOME}/{GOAL.bundle_folder}\n{GOAL.bundle_sha256}  x", unit=unit.SYSTEMD_UNIT if user != "root" else "",
        supervisor="" if user != "root" else unit.SUPERVISOR, supervised="running 7", user="nodeagent libvirt" if user != "root" else "",
        pool=f"711 {user} {user}", state_dir=f"750 {user} {user}",
    )


# ---------------------------------------------------------------- changes


def test_a_fresh_debian_gets_everything() -> None:
    """Every step but those for what is there already has something to do."""
    made = changes(machine(DEBIAN))
    assert list(made) == ["packages", "user", "directories", "libvirt", "agent", "keys", "config", "service"]
    assert made["packages"] == (
        "install with apt: qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-clients dnsmasq-base iptables"
        " python3 python3-libvirt python3-zmq")


@pytest.mark.parametrize("sections", [READY, CONTAINER], ids=["systemd", "supervisor"])
def test_an_enrolled_machine_needs_no_change(sections: dict[str, str]) -> None:
    """Planning again on what enrolment made gives no change and no failure."""
    plan = make_plan(enrolled(sections), GOAL, NOW)
    assert plan.changes == () and plan.failures == ()


@pytest.mark.parametrize("sections", [READY, CONTAINER], ids=["systemd", "supervisor"])
def test_a_new_agent_is_installed_and_started(sections: dict[str, str]) -> None:
    """Another bundle changes the agent and restarts it, and nothing else."""
    newer = dataclasses.replace(GOAL, bundle_folder="0.2.0-def", bundle_sha256="d" * 64, version="0.2.0")
    assert list(changes(enrolled(sections), newer)) == ["agent", "service"]


def test_the_node_gets_the_clusters_table() -> None:
    """The whole of it with its version, without a restart; keys that it does not name are admitted no more."""
    second = dataclasses.replace(GOAL, admins={OTHER_KEY: {"name": "bob", "role": "reader"}}, admins_version=4)
    assert list(changes(enrolled(CONTAINER), second)) == ["config"]
    assert admins.parse(admins_text(second)) == admins.Table(4, {OTHER_KEY: ("bob", "reader")})
    assert admins.text_of(admins.parse(admins_text(second))) == admins_text(second)


def test_a_table_that_the_agent_wrote_is_the_same() -> None:
    """What it was given over the wire is no change, however it is laid out."""
    plain = json.loads(admins_text(GOAL))
    facts = dataclasses.replace(enrolled(CONTAINER), installed=dataclasses.replace(
        enrolled(CONTAINER).installed, admins=json.dumps(dict(reversed(plain.items())))))
    assert changes(facts) == {}


def test_a_newer_table_is_not_written_over() -> None:
    """A node that has one than the database knows stops the enrolment: the database is not the newest there is."""
    facts = enrolled(CONTAINER)
    older = dataclasses.replace(GOAL, admins_version=2)
    assert finding(facts, "admins' keys", older).verdict == FAIL and "cluster adopt" in finding(facts, "admins' keys", older).fix
    assert finding(facts, "admins' keys").detail == "version 3"
    assert finding(machine(DEBIAN), "admins' keys").verdict == OK


def test_a_stopped_agent_is_started() -> None:
    """Files in place but nothing running: the service step alone."""
    assert list(changes(dataclasses.replace(
        enrolled(CONTAINER), installed=dataclasses.replace(enrolled(CONTAINER).installed, running=False)))) == ["service"]


def test_dnf_and_zypper_name_their_own_packages() -> None:
    """The plan on EL 9 and on openSUSE names what those distributions call the packages."""
    assert changes(machine(ROCKY))["packages"] == (
        "install with dnf: qemu-kvm qemu-img libvirt-daemon-kvm libvirt-client dnsmasq iptables-nft python3-libvirt python3-zmq")
    assert changes(machine(LEAP))["packages"] == (
        "install with zypper: qemu-arm qemu-tools libvirt-daemon-qemu libvirt-client dnsmasq iptables python3-libvirt-python"
        " python3-pyzmq")


def test_every_need_has_a_package_everywhere() -> None:
    """Each family of distributions names a package for each need, and a name for each architecture."""
    for family in FAMILIES:
        assert all(family.name in need.packages for need in NEEDS)
        assert all(family.name in names for names in MACHINES.values())


def test_every_change_is_a_step_in_order() -> None:
    """What the plan names is what the steps do, in the same order."""
    order = [step.name for step in STEPS]
    closed = machine(DEBIAN, kvm="vmx\ndevice 600 root root", firewall="Status: active")
    assert list(changes(closed)) == order


def test_a_firewall_lets_the_controller_in() -> None:
    """An active firewall gets a rule for the address SSH comes from, and none once enrolled."""
    assert changes(machine(ROCKY))["firewall"] == "firewalld: let 192.0.2.1 reach port 7766"
    assert "firewall" not in changes(dataclasses.replace(enrolled(READY), firewall="ufw"))


def test_no_packages_installs_none() -> None:
    """With --no-packages what is missing is a failure and no change."""
    goal = dataclasses.replace(GOAL, packages=False)
    plan = make_plan(machine(DEBIAN), goal, NOW)
    assert "packages" not in [c.step for c in plan.changes]
    assert "apt-get" in finding(machine(DEBIAN), "packages", goal).fix


def test_the_agent_understands_its_config() -> None:
    """config.json is what nodeagent.config accepts, every key of it."""
    read = agent_config.parse(config_text(GOAL))
    assert (read.node_id, read.listen, read.driver) == (GOAL.node_id, "tcp://0.0.0.0:7766", "libvirt")


# ---------------------------------------------------------------- findings


def test_everything_is_found_at_once() -> None:
    """A machine with many faults gets all of them in one answer."""
    bad = machine(
        DEBIAN, uname="s390x\nx", python="python 3.7.3", clock="1700000100",
        space=DEBIAN["space"].replace("82335020", "51200"), ports="0: 00000000:1E56 00000000:0000 0A ")
    verdicts = {f.check: f.verdict for f in find(bad, GOAL, NOW) if f.verdict != OK}
    assert verdicts == {"architecture": FAIL, "python": FAIL, "port": FAIL, "space": FAIL, "clock": WARN}
    assert all(f.fix for f in find(bad, GOAL, NOW) if f.verdict != OK)


def test_no_package_manager_we_know() -> None:
    """A distribution without apt, dnf or zypper is refused by name, unless it has all that is needed."""
    gentoo = machine(DEBIAN, os="ID=gentoo\nPRETTY_NAME=Gentoo", programs="emerge")
    assert finding(gentoo, "system").verdict == FAIL and "Gentoo" in finding(gentoo, "system").detail
    assert "Debian 12" in finding(gentoo, "packages").fix
    ready = machine(READY, os="ID=gentoo\nPRETTY_NAME=Gentoo")
    assert finding(ready, "system").verdict == WARN and finding(ready, "packages").verdict == OK


def test_too_little_space_is_named_with_numbers() -> None:
    """What there is and what is needed, for each place."""
    tight = machine(DEBIAN, space="/var/lib/libvirt/images tmpfs 10240 0 10240 0% /x\n/opt /dev/x 1 1 1048576 1% /")
    assert finding(tight, "space").detail == "/var/lib/libvirt/images has 10 MiB free, 1024 MiB are needed"


def test_python_and_libzmq_too_old() -> None:
    """Python before 3.9 and libzmq before 4.3.3 are refused, and so is a libzmq without CURVE."""
    assert finding(machine(READY, python="python 3.8.10"), "python").verdict == FAIL
    assert finding(machine(READY, python="python 3.9.2\nlibzmq 4.3.2\ncurve True"), "zeromq").verdict == FAIL
    assert finding(machine(READY, python="python 3.9.2\nlibzmq 4.3.4\ncurve False"), "zeromq").verdict == FAIL


@pytest.mark.parametrize(("device", "closed"), [
    ("600 root root", True), ("660 root root", True), ("660 root kvm", False), ("666 root root", False), ("640 root kvm", True),
])
def test_who_may_open_kvm(device: str, closed: bool) -> None:
    """/dev/kvm that QEMU's user cannot open is found, and opening it is planned."""
    facts = machine(READY, kvm=f"vmx\ndevice {device}")
    assert kvm_closed(facts) is closed
    assert (finding(facts, "/dev/kvm").verdict == WARN) is closed
    assert ("kvm" in changes(facts)) is closed


def test_emulation_is_said() -> None:
    """Without the processor's flags, or without the device, guests are emulated: a warning, not a failure."""
    assert finding(machine(READY, kvm="device 660 root kvm"), "kvm").verdict == WARN
    assert finding(machine(READY, kvm=""), "kvm").verdict == WARN


def test_somebody_elses_port_is_refused_and_the_agents_own_is_not() -> None:
    """Port 7766 in use fails, unless it is this node's running agent that listens."""
    busy = "0: 00000000:1E56 00000000:0000 0A "
    assert finding(machine(READY, ports=busy), "port").verdict == FAIL
    assert finding(dataclasses.replace(enrolled(READY), listening=frozenset({7766})), "port").verdict == OK


def test_a_node_of_another_cluster_is_refused() -> None:
    """Its agent is not taken over."""
    theirs = machine(READY, config=config_text(dataclasses.replace(GOAL, cluster_id=GOAL.node_id)))
    assert finding(theirs, "cluster").verdict == FAIL


def test_a_machine_that_is_a_node_already_keeps_its_name() -> None:
    """Enrolling it under a second name is refused, naming the first; a name that the cluster forgot does not matter."""
    other = dataclasses.replace(GOAL, node_id=GOAL.cluster_id, name="h9")
    facts = machine(READY, config=config_text(GOAL))
    assert "h1" in finding(facts, "cluster", other, Others(ids={GOAL.node_id: "h1"})).detail
    assert finding(facts, "cluster", other).verdict == OK


def test_clones_are_noticed() -> None:
    """A machine id or host name that another node has is a warning."""
    others = Others(machine_ids={READY["machine_id"]: "h7"}, hostnames={"h1": "h7"})
    assert "h7" in finding(machine(READY), "machine id", others=others).detail
    assert finding(machine(READY), "host name", others=others).verdict == WARN


def test_guests_of_others_are_counted_and_left() -> None:
    """Domains that are not novactl's are a warning with their names."""
    facts = machine(READY, domains="db1\nnovactl-11111111-1111-4111-8111-111111111111\n")
    assert finding(facts, "guests").detail == "1 guests that are not novactl's: db1"


# ---------------------------------------------------------------- before


def test_before_is_that_of_the_first_enrolment() -> None:
    """After a second enrolment, removal still goes back to before the first; a reinstalled machine starts anew."""
    first = before_of(machine(READY), GOAL)
    again = before_of(dataclasses.replace(enrolled(READY), firewall="ufw"), GOAL)
    both = earliest(first, again)
    assert (both.config, both.user_groups, both.firewall) == ("", (), "ufw")
    fresh = before_of(machine(DEBIAN), GOAL)
    assert earliest(first, fresh) == fresh


def test_autostart_is_in_the_config_where_it_is_not_the_default() -> None:
    """Asked for, 'local' is written and the agent restarted; otherwise the file is as it always was, and nothing changes."""
    local = dataclasses.replace(GOAL, autostart="local")
    assert parse(config_text(local)).autostart == "local" and "autostart" not in config_text(GOAL)
    assert parse(config_text(GOAL)).autostart == "confirmed"
    assert set(changes(enrolled(READY), local)) == {"config", "service"} and changes(enrolled(READY)) == {}
