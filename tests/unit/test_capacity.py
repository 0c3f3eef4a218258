"""How many more fit: the arithmetic, what stops the next one, and hardware that is not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from novactl.errors import UsageError
from novactl.model.facts import AggregateFacts, Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.topology import GuestCell, GuestTopology, Hardware, HostCell
from novactl.model.wants import Wants
from novactl.scheduler.capacity import NodeRoom, capacity, hardware, hypothetical
from novactl.scheduler.request import NodeView, Request
from novactl.scheduler.survival import Resident, Survival
from tests.unit.cli_world import Prompt
from tests.unit.nouns_world import put_server, quiet_world

X86 = Facts(architecture="x86_64", zone="z1")
LARGE = Request(server="m1.large", amounts={VCPU: 4, MEMORY_MB: 8192, DISK_GB: 80}, architecture="x86_64")


def node(name: str, *, vcpus: int = 8, gib: int = 64, used: tuple[int, int, int] = (0, 0, 0), facts: Facts = X86) -> NodeView:
    """8 CPUs at a ratio of 4 hold 8 such servers, 64 GiB hold 8, 1000 GiB hold 12."""
    return NodeView(
        id=name, name=name, state=NodeState.ENABLED, facts=facts, reported_at=0.0,
        used=dict(zip((VCPU, MEMORY_MB, DISK_GB), used, strict=True)),
        inventories={VCPU: Inventory(VCPU, vcpus, ratio_milli=4000), MEMORY_MB: Inventory(MEMORY_MB, gib * 1024),
                     DISK_GB: Inventory(DISK_GB, 1000)})


def test_each_node_by_its_scarcest_resource() -> None:
    """n1: 8 by memory. n2: 20 GiB free, 2. n3: 4 CPUs x 4 less 13 is 3 vcpus, none. Together 10; n2 is full first."""
    found = capacity(LARGE, [node("n1", vcpus=16), node("n2", used=(8, 44 * 1024, 0)), node("n3", vcpus=4, used=(13, 0, 0))])
    assert found.count == 10 and found.per_node == (NodeRoom("n1", "n1", 8), NodeRoom("n2", "n2", 2), NodeRoom("n3", "n3", 0))
    assert found.next_to_fill == "n2"
    assert (found.limited_by.code, found.limited_by.nodes, found.limited_by.of) == (MEMORY_MB, 2, 3)
    assert found.limited_by.text == "memory: needs 8.0 GiB; 68.0 GiB left on 3 nodes, at most 64.0 GiB on one"


def test_a_filter_may_be_what_stops() -> None:
    """Where no node would have it anyway, the filter that most of them name is told, with the first one's sentence."""
    found = capacity(replace(LARGE, zone="z2"), [node("n1"), node("n2")])
    assert (found.count, found.next_to_fill, found.limited_by.code) == (0, "", "zone")
    assert found.limited_by.text == "n1: zone: needs z2, is in z1"
    assert capacity(LARGE, []).limited_by.text == "there is no node"


def test_a_limit_of_servers_counts() -> None:
    """Eight fit, its aggregate allows three."""
    few = replace(X86, aggregates=(AggregateFacts("few", {"max_instances_per_host": "3"}),))
    found = capacity(LARGE, [node("n1", facts=few)])
    assert found.count == 3 and found.limited_by.code == "aggregate_servers"


def test_pinned_servers_take_pieces() -> None:
    """Seven dedicated CPUs are three pairs."""
    pinned = replace(LARGE, amounts={MEMORY_MB: 1024}, wants=Wants(topology=GuestTopology((GuestCell(2, 1024),), pinned=True)))
    host = replace(node("n1"), fittings=(), hardware=Hardware((HostCell(0, tuple(range(8)), 65_536),), dedicated=tuple(range(7))))
    assert capacity(pinned, [host]).count == 3


def test_a_shared_disk_is_counted_once() -> None:
    """Each of two nodes could take 12 by disk and 8 by memory; the pool they share has 1000 GiB: 12 in all."""
    shared = [replace(node(name), shared_disk="pool") for name in ("n1", "n2")]
    found = capacity(LARGE, shared)
    assert found.count == 12 and found.limited_by.code == DISK_GB


def test_with_n_plus_1() -> None:
    """Three nodes of 8 hold 24. With one lost, two hold 16."""
    nodes = [node(name) for name in ("n1", "n2", "n3")]
    found = capacity(LARGE, nodes, survival=Survival(nodes, []))
    assert (found.count, found.n_plus_1) == (24, 16)
    assert found.n_plus_1_limited_by is not None and found.n_plus_1_limited_by.code == "n_plus_1"
    assert "without a place" in found.n_plus_1_limited_by.text


def test_n_plus_1_of_many() -> None:
    """Forty nodes of 8 hold 320, of which a larger server has two. So many are not tried one by one."""
    nodes = [node(f"n{number:02}") for number in range(40)]
    db = replace(LARGE, amounts={VCPU: 1, MEMORY_MB: 16_384, DISK_GB: 1})
    nodes[0] = replace(nodes[0], used=dict(db.amounts), servers=1)
    survival = Survival(nodes, [Resident("db", "db", "n00", db)])
    found = capacity(LARGE, nodes, survival=survival)
    assert found.count == 318                                 # 16 GiB are two of them
    assert found.n_plus_1 == 310                              # eight places must be free for whoever is on the node that is lost
    assert survival.losses() == ()


def test_a_server_of_nothing_is_refused() -> None:
    """It would fit without end."""
    with pytest.raises(UsageError, match="asks for nothing"):
        capacity(replace(LARGE, amounts={VCPU: 0}), [node("n1")])


@pytest.mark.parametrize(("text", "numbers"), [
    ("2x64c/256G/2T", (2, 64, 262_144, 2048)), ("16c/32G/500", (1, 16, 32_768, 500)), ("1X8C/4096/100G", (1, 8, 4096, 100)),
])
def test_hardware_is_written_short(text: str, numbers: tuple[int, ...]) -> None:
    """COUNTxCPUSc/RAM/DISK; memory without a unit is MiB, disk GiB."""
    assert hardware(text) == numbers


@pytest.mark.parametrize("text", [
    "", "64/256G/2T", "0x64c/256G/2T", "2x0c/1G/1G", "2x64c/256G", "2x64c/much/2T", "x64c/1G/1G", "2x64c/1G/1G/1G"])
def test_other_hardware_is_refused(text: str) -> None:
    """The error names the form."""
    with pytest.raises(UsageError) as refused:
        hardware(text)
    assert "2x64c/256G/2T" in refused.value.hint


def test_added_nodes_are_like_most() -> None:
    """They get the facts of the most common enabled node, the cluster's ratios and reservations, and names of their own."""
    rare, common = replace(X86, zone="z9"), replace(X86, zone="z2")
    like = [node("n1", facts=rare), node("n2", facts=common), node("n3", facts=common)]
    offered = {VCPU: (4000, 0), MEMORY_MB: (1000, 512), DISK_GB: (1000, 0)}
    added = hypothetical([hardware("2x8c/64G/1000")], like, offered, now=5.0)
    assert [view.name for view in added] == ["new-1", "new-2"] and {view.facts.zone for view in added} == {"z2"}
    assert added[0].inventories[MEMORY_MB] == Inventory(MEMORY_MB, 65_536, 512, max_unit=65_536) and added[0].reported_at == 5.0
    found = capacity(LARGE, added)
    assert found.count == 14                                  # (65536 - 512) / 8192 = 7.9 each
    assert hypothetical([hardware("8c/64G/1000")], [], offered, now=0.0)[0].facts.architecture == "x86_64"


# ---- the command

@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """Two nodes of 8 CPUs (32 vcpus), 16 GiB less 512 MiB, and 100 GiB, with a server each."""
    world = quiet_world(tmp_path_factory.mktemp("world"))
    for number in (1, 2):
        put_server(world, f"web{number}", f"n{number}")
    asked = Prompt(world.env)
    assert asked.run("flavor", "create", "large", "--ram", "4G", "--vcpus", "2", "--disk", "10").status == 0
    yield asked
    world.stop()


def test_the_command_counts_each_flavor(prompt: Prompt) -> None:
    """large: (16384 - 512 - 1024) / 4096 = 3.6 each. With N+1 three of these six: a lost node's go to the other."""
    rows = {row["flavor"]: row for row in prompt.run("capacity", "--n+1", "-o", "json").json["items"]}
    assert (rows["large"]["fits"], rows["large"]["n_plus_1"]) == (6, 3)
    assert [room["fits"] for room in rows["large"]["per_node"]] == [3, 3] and rows["large"]["limit"]["code"] == "n_plus_1"
    (row,) = prompt.run("capacity", "--flavor", "large", "-o", "json").json["items"]
    assert (row["n_plus_1"], row["limited_by"], row["before"]) == (None, "memory (2 of 2 nodes)", None)


def test_the_command_reckons_with_other_nodes(prompt: Prompt) -> None:
    """Two nodes of 256 GiB less 512 MiB take 63 each."""
    (row,) = prompt.run("capacity", "--flavor", "large", "--without", "n1", "--add", "2x64c/256G/2T", "-o", "json").json["items"]
    assert (row["fits"], row["before"], row["changes"]) == (129, 6, "adding 2x64c/256G/2T, without n1")
    told = prompt.run("capacity", "--flavor", "large", "--without", "n1", "--add", "2x64c/256G/2T", "-o", "table").out
    assert "n2 (adding 2x64c/256G/2T, without n1: 6 -> 129)" in told


@pytest.mark.parametrize(("words", "status", "told"), [
    ("--flavor nonesuch", 3, "no flavor 'nonesuch'"), ("--without n9", 3, "no node 'n9'"), ("--zone z9", 3, "no zone 'z9'"),
    ("--add 2x64c", 2, "write COUNTxCPUSc/RAM/DISK"), ("--image nonesuch", 3, "no image 'nonesuch'"),
    ("--project nonesuch", 3, "no project 'nonesuch'"),
])
def test_the_command_says_what_is_wrong(prompt: Prompt, words: str, status: int, told: str) -> None:
    """Names that are not there, and hardware that is none."""
    ran = prompt.run("capacity", *words.split())
    assert ran.status == status and told in ran.err
