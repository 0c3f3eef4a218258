"""A cluster in a file: written, read back, asked; and workloads replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from novactl.model.facts import AggregateFacts, Facts
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.topology import FittedCell, Fitting, Hardware, HostCell, PciDevice
from novactl.model.wants import Wants
from novactl.scheduler import lanes
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.replay import replay, workload
from novactl.scheduler.request import GroupView, NodeView, Request
from novactl.scheduler.saved import BadFile, Saved, from_text, to_text
from novactl.scheduler.survival import Resident
from tests.bench.workload import check, generate
from tests.unit.cli_world import Prompt
from tests.unit.nouns_world import put_server, quiet_world
from tests.world import World

RACK = Facts(
    architecture="x86_64", zone="z1", labels={"rack": "r1"}, traits=frozenset({"HW_CPU_X86_AVX"}), virt_types=("kvm", "qemu"),
    aggregates=(AggregateFacts("fast", {"ssd": "true"}),))
GROUP = GroupView(name="web", policy=Policy.ANTI_AFFINITY, scope="rack", max_per_domain=2)
ASKED = Request(
    server="web1", amounts={VCPU: 2, MEMORY_MB: 4096, DISK_GB: 20}, architecture="x86_64", zone="z1", flavor="m1", image="debian",
    group=GROUP, wants=Wants(required=frozenset({"HW_CPU_X86_AVX"}), properties={"os_distro": "debian"}))
NODE = NodeView(
    id="a", name="n1", state=NodeState.ENABLED, facts=RACK, reported_at=100.0, servers=1, used={VCPU: 2, MEMORY_MB: 4096, DISK_GB: 20},
    inventories={VCPU: Inventory(VCPU, 8, 0, 4000, max_unit=8), MEMORY_MB: Inventory(MEMORY_MB, 16_384, 512),
                 DISK_GB: Inventory(DISK_GB, 100, cached=3)},
    metrics={"load_1m": 0.5}, address="tcp://10.0.0.1:0", shared_disk="pool", fittings=(Fitting((FittedCell(0, 2, 4096, (2, 3)),)),),
    hardware=Hardware((HostCell(0, (0, 1, 2, 3), 16_384),), (PciDevice("0000:3b:00.0", "10de", "1db4"),), (2, 3)),
    images={"s1": {"os_distro": "debian"}})
SAVED = Saved(
    nodes=(NODE, replace(NODE, id="b", name="n2", state=NodeState.DISABLED, reason="fans", silent_since=90.0, images={})),
    residents=(Resident("s1", "web1", "a", ASKED),), groups=(GROUP,), settings={"placement.profile": "pack"}, n_plus_1=True)


def test_what_is_written_is_read_back() -> None:
    """Nothing that decides is lost: the same nodes, the same requests."""
    again = from_text(to_text(SAVED))
    assert again.nodes == tuple(replace(node, fittings=node.fittings) for node in SAVED.nodes)
    (resident,) = again.residents
    assert resident == SAVED.residents[0]._replace(request=replace(ASKED, server="web1"))
    assert (again.groups, again.settings, again.n_plus_1, again.now) == ((GROUP,), SAVED.settings, True, 100.0)


def test_the_same_cluster_gives_the_same_text() -> None:
    """Whatever order its rows come in."""
    assert to_text(replace(SAVED, nodes=SAVED.nodes[::-1])) == to_text(SAVED)
    assert to_text(from_text(to_text(SAVED))) == to_text(SAVED)


def test_a_decision_on_the_file_is_the_decision() -> None:
    """Explained from the file as from the rows."""
    asked = Request(server="x", amounts={VCPU: 4, MEMORY_MB: 8192, DISK_GB: 90}, architecture="x86_64", now=100.0)
    assert place(asked, from_text(to_text(SAVED)).nodes).to_plain() == place(asked, SAVED.nodes).to_plain()


def broken(**changes: Any) -> str:
    return json.dumps(json.loads(to_text(SAVED)) | changes)


@pytest.mark.parametrize(("text", "told"), [
    ("", "the file is no JSON"), ("[1]", "the file's format is None"), ("{\"format\": \"x/9\"}", "the file's format is 'x/9'"),
    (broken(nodes=[{"id": "a", "name": "n1"}]), "nodes: entry n1: 'facts' is missing"),
    (broken(nodes=[{"id": "a", "name": "n1", "facts": "0", "inventories": {}}]), "nodes: entry n1: '0' is missing"),
    (broken(nodes=[7]), "nodes: entry 0"), (broken(nodes={"a": 1}), "nodes is not a list"),
    (broken(servers=[{"id": "s", "name": "web1", "node": "a", "amounts": {"VCPU": -1}}]), "servers: entry web1: VCPU is -1"),
    (broken(servers=[{"id": "s", "name": "web1", "node": "a", "amounts": {"VCPU": 1.5}}]), "servers: entry web1: VCPU is 1.5"),
    (broken(servers=[{"id": "s", "name": "web1", "node": "a", "amounts": {}, "group": "x"}]), "servers: entry web1: 'x' is missing"),
    (broken(groups=[{"name": "web", "policy": "near"}]), "groups: entry web: 'near' is not a valid Policy"),
    (broken(flavors=[{"name": "m1"}]), "flavors: entry m1: 'vcpus' is missing"),
    (broken(facts=[]), "facts is not an object"), (broken(settings=7), "settings is not an object"),
    (broken(n_plus_1=1), "n_plus_1 is not true or false"),
    (broken(fresh_s="long"), "fresh_s is 'long'"),
])
def test_a_broken_file_is_refused(text: str, told: str) -> None:
    """With the entry that is not as it should be."""
    with pytest.raises(BadFile) as refused:
        from_text(text)
    assert told in refused.value.message


# ---- workloads

def small(**changes: Any) -> dict[str, Any]:
    """One host of 2 CPUs and 4 GiB, ratio 1.5: 3 vcpus."""
    return {
        "format": "placement-workload/1", "name": "small", "ratios": {"cpu": 1.5}, "hosts": [
            {"name": "h1", "cpus": 2, "ram_mb": 4096, "disk_gb": 100}],
        "flavors": [{"name": "f1", "vcpus": 1, "ram_mb": 1024, "disk_gb": 1}, {"name": "f2", "vcpus": 2, "ram_mb": 1024, "disk_gb": 1}],
        "requests": [], **changes}


def ticks() -> Iterator[float]:
    """A clock on which each decision takes 2 ms."""
    now = 0.0
    while True:
        yield now
        now += 0.002


def test_requests_are_replayed_in_order() -> None:
    """f2 and f1 fill the host; f1 is rejected, and its delete does nothing; with f2 gone two more fit."""
    steps = [("create", "a", "f2"), ("create", "b", "f1"), ("create", "c", "f1"), ("delete", "c", ""), ("delete", "a", ""),
             ("create", "d", "f1"), ("create", "e", "f1"), ("delete", "nobody", "")]
    made = small(requests=[{"op": op, "id": id_} | ({"flavor": flavor} if flavor else {}) for op, id_, flavor in steps])
    found = replay(workload(made), PROFILES["default"], ticks().__next__)
    assert found.results == {"a": "h1", "b": "h1", "c": None, "d": "h1", "e": "h1"}
    assert (found.decisions, found.placed, found.rejects, found.first_fail) == (5, 4, 1, 2)
    assert found.first_fail_utilisation == {"vcpus": 1.0, "ram_mb": 0.5, "disk_gb": 0.02}
    assert found.utilisation == {"vcpus": 1.0, "ram_mb": 0.75, "disk_gb": 0.03}
    assert (found.p50_ms, found.p99_ms, found.per_s) == (2.0, 2.0, 500.0)


@pytest.mark.parametrize("ratio", [1, 1.5, 16.0, 0.333, 1.3333, 2.0000001])
def test_capacity_is_rounded_down(ratio: float) -> None:
    """Exactly: as a fraction of the number that is written."""
    node = workload(small(ratios={"cpu": ratio, "ram": ratio})).nodes[0]
    assert node.inventories[MEMORY_MB].capacity == int(4096 * Fraction(str(ratio)))


def test_a_host_may_have_ratios_of_its_own() -> None:
    """What they leave out is the workload's."""
    host = {"name": "h1", "cpus": 2, "ram_mb": 4096, "disk_gb": 100, "az": "z1", "ratios": {"ram": 2}}
    node = workload(small(hosts=[host])).nodes[0]
    assert [inventory.capacity for inventory in node.inventories.values()] == [3, 8192, 100] and node.facts.zone == "z1"


@pytest.mark.parametrize(("changes", "told"), [
    ({"hosts": [{"name": "h1", "cpus": 2}]}, "hosts: entry h1: 'ram_mb' is missing"),
    ({"hosts": [{"name": "h1", "cpus": 2, "ram_mb": 1.5, "disk_gb": 1}]}, "hosts: entry h1: 1.5 is not a whole number"),
    ({"ratios": {"cpu": 0}}, "ratios: the ratio of cpu is not above 0"), ({"ratios": {"cpu": "much"}}, "ratios: "),
    ({"hosts": small()["hosts"] * 2}, "hosts: two have the same name"),
    ({"flavors": [{"name": "f1"}]}, "flavors: 'vcpus' is missing"),
    ({"requests": [{"op": "move", "id": "a"}]}, "requests: entry 0: op is 'move'"),
    ({"requests": [{"op": "create", "id": "a", "flavor": "f9"}]}, "requests: entry 0: there is no flavor 'f9'"),
    ({"requests": [{"op": "create"}]}, "requests: entry 0: 'id' is missing"), ({"requests": 7}, "requests: "),
])
def test_a_broken_workload_is_refused(changes: dict[str, Any], told: str) -> None:
    """With the entry that is not as it should be."""
    with pytest.raises(BadFile) as refused:
        workload(small(**changes))
    assert told in refused.value.message


@pytest.mark.parametrize("profile", list(PROFILES))
def test_no_host_is_overfilled(profile: str) -> None:
    """Whatever comes and goes; and with numpy and without the same hosts are chosen."""
    made = generate(12, 3, trace="churn", requests=60, fill=0.9)
    found = replay(workload(made), PROFILES[profile], ticks().__next__)
    check(made, found.results)
    assert found.rejects and found.results == replay(workload(made), PROFILES[profile], ticks().__next__, xp=lanes.arrays()).results


# ---- the commands

@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = quiet_world(tmp_path_factory.mktemp("world"))
    for number in (1, 2):
        put_server(made, f"web{number}", f"n{number}")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def prompt(world: World) -> Prompt:
    asked = Prompt(world.env)
    for line in ("flavor create large --ram 4G --vcpus 2 --disk 10", "server-group create web --policy anti-affinity"):
        assert asked.run(*line.split()).status == 0
    return asked


@pytest.fixture(scope="module")
def file(prompt: Prompt, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("saved") / "cluster.json"
    assert prompt.run("placement", "export", str(path)).status == 0
    return str(path)


@pytest.fixture
def nowhere(tmp_path: Path) -> Prompt:
    """Somebody without a cluster."""
    return Prompt({"HOME": str(tmp_path)})


def test_an_export_has_no_secrets(world: World, prompt: Prompt, file: str) -> None:
    """Neither keys, nor addresses of guests, nor where an agent listens."""
    text = Path(file).read_text()
    with world.cluster.db.read() as tx:
        from novactl.db import nodes, servers

        for node in nodes.all_(tx):
            assert node.public_key not in text and node.address not in text
        for server in servers.all_(tx):
            assert server.mac not in text
    assert prompt.run("placement", "export").out == text


def test_the_file_answers_as_the_cluster_does(prompt: Prompt, nowhere: Prompt, file: str) -> None:
    """Explained and counted, by somebody who has only the file."""
    rows = nowhere.run("placement", "simulate", file, "--flavor", "large", "--image", "guest", "-o", "json").json["rows"]
    assert rows == prompt.run("placement", "explain", "--flavor", "large", "--image", "guest", "-o", "json").json["rows"]
    found = nowhere.run("placement", "simulate", file, "--n+1", "-o", "json").json
    assert found["capacity"] == prompt.run("capacity", "--n+1", "-o", "json").json["items"]
    assert (found["nodes"], found["servers"], found["losses"]) == (2, 2, [])
    changed = ("--without", "n1", "--add", "64c/256G/2T")
    assert nowhere.run("placement", "simulate", file, *changed, "-o", "json").json["capacity"] == prompt.run(
        "capacity", *changed, "-o", "json").json["items"]


def test_servers_are_placed_one_after_the_other(nowhere: Prompt, file: str) -> None:
    """Three large ones fit on each node; a seventh does not, and the exit status says so."""
    ran = nowhere.run("placement", "simulate", file, "--create", "db=large:7", "-o", "json")
    assert ran.status == 5 and (ran.json["placed"], ran.json["rejected"]) == (6, 1)
    assert [row["server"] for row in ran.json["servers"]][:2] == ["db-1", "db-2"] and ran.json["servers"][6]["node"] == ""
    assert "resources 2" in ran.json["servers"][6]["detail"]
    ran = nowhere.run("placement", "simulate", file, "--create", "db=large x2", "--create", "a=small", "--n+1", "-o", "table")
    assert ran.status == 0 and "3 placed, 0 rejected." in ran.out
    ran = nowhere.run("placement", "simulate", file, "--create", "w=small:3", "--group", "web", "-o", "json")
    assert [bool(row["node"]) for row in ran.json["servers"]] == [True, True, False]


def test_a_size_of_its_own(nowhere: Prompt, file: str) -> None:
    """Without a flavor; where nothing has the room the exit status is 5."""
    assert nowhere.run("placement", "simulate", file, "--vcpus", "8", "--ram", "8G", "--disk", "20").status == 0
    ran = nowhere.run("placement", "simulate", file, "--vcpus", "9", "--ram", "8G", "-o", "json")
    assert ran.status == 5 and "at most 8" in ran.json["rows"][0]["reasons"][0]


def test_a_workload_is_replayed(nowhere: Prompt, tmp_path: Path) -> None:
    """Every create has its host in the result; people are shown one line."""
    made, path = generate(4, 1, trace="fit"), tmp_path / "load.json"
    path.write_text(json.dumps(made))
    found = nowhere.run("placement", "simulate", str(path), "--profile", "pack", "-o", "json").json
    check(made, found["results"])
    assert len(found["results"]) == found["decisions"] == len(made["requests"]) and found["first_fail"] and found["profile"] == "pack"
    assert nowhere.run("placement", "simulate", str(path)).out.count("\n") == 2
    assert nowhere.run("placement", "simulate", "-", stdin=path.read_text()).status == 0


@pytest.mark.parametrize(("words", "status", "told"), [
    ("--flavor nonesuch", 3, "no flavor 'nonesuch'"), ("--flavor larg", 3, "did you mean large"), ("--without n9", 3, "no node 'n9'"),
    ("--create web", 2, "NAME=FLAVOR:COUNT"), ("--create web=large:0", 2, "NAME=FLAVOR:COUNT"),
    ("--create web=huge", 3, "no flavor 'huge'"),
    ("--profile nonesuch", 2, "profile 'nonesuch' is not known"), ("--flavor large --vcpus 2", 2, "a flavor has its own size"),
    ("--add 2x", 2, "COUNTxCPUSc/RAM/DISK"), ("--image nonesuch --flavor large", 3, "no image 'nonesuch'"),
    ("--create a=small --group nonesuch", 3, "no server-group 'nonesuch'"), ("--ram much", 2, "is not a size"),
])
def test_a_bad_question_is_told_so(nowhere: Prompt, file: str, words: str, status: int, told: str) -> None:
    """With the exit status of what it is."""
    ran = nowhere.run("placement", "simulate", file, *words.split())
    assert ran.status == status and told in ran.err


def test_files_that_are_none(nowhere: Prompt, tmp_path: Path) -> None:
    """Not there, of another format, with settings we do not know, or a workload that is asked something else."""
    assert "cannot read" in nowhere.run("placement", "simulate", str(tmp_path / "none.json")).err
    path = tmp_path / "some.json"
    for content, told in ((json.dumps({"format": "x"}), "novactl-inventory/1"), (broken(settings={"placement.speed": 9}), "is not known"),
                          (broken(settings={"placement.profile": 9}), "must be a str")):
        path.write_text(content)
        ran = nowhere.run("placement", "simulate", str(path))
        assert ran.status == 2 and told in ran.err
    path.write_text(json.dumps(small()))
    ran = nowhere.run("placement", "simulate", str(path), "--flavor", "f1")
    assert ran.status == 2 and "only --profile" in ran.err


def test_an_export_that_cannot_be_written(prompt: Prompt, tmp_path: Path) -> None:
    """The file is named."""
    ran = prompt.run("placement", "export", str(tmp_path / "no" / "dir.json"))
    assert ran.status == 2 and "dir.json: No such file or directory" in ran.err
