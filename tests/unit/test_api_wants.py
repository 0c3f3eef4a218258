"""Flavor, image and hints become what the scheduler is asked; what contradicts itself is refused before anything is written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import flavors, groups, images, projects
from novactl.api.flavors import CreateFlavor
from novactl.api.groups import CreateGroup
from novactl.api.hints import NO_HINTS, Hints
from novactl.api.wants import wants_of
from novactl.errors import Ambiguous, NotFound, UsageError
from novactl.model.topology import GuestCell, GuestTopology
from novactl.model.wants import NOTHING_SPECIAL, Wants
from tests.unit.nouns_world import put_server, quiet_world
from tests.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = quiet_world(tmp_path)
    yield made
    made.stop()


def asked(world: World, hints: Hints = NO_HINTS, **specs: str) -> tuple[Wants, dict[str, int]]:
    flavor = flavors.create(
        world.cluster, CreateFlavor(name="special", vcpus=4, memory_mb=4096, disk_gb=1, specs=specs), dry_run=True)
    image = images.show(world.cluster, "guest")
    with world.cluster.db.read() as tx:
        return wants_of(tx, flavor, image, hints)


def test_nothing_special(world: World) -> None:
    """A plain flavor and image ask nothing beyond their room."""
    assert asked(world) == (NOTHING_SPECIAL, {})


def test_specs_and_properties_are_taken_apart(world: World) -> None:
    """Traits, classes, capabilities, devices and properties each go where the scheduler reads them."""
    images.set_(world.cluster, "guest", properties={"os_type": "linux", "trait:CUSTOM_TPM": "required"})
    wants, extra = asked(world, **{
        "resources:CUSTOM_GPU": "2", "trait:HW_CPU_X86_AVX2": "required", "trait:CUSTOM_OLD": "forbidden",
        "capabilities:free_ram_mb": "= 4096", "aggregate_instance_extra_specs:ssd": "true", "pci_passthrough:alias": "nic:1"})
    assert wants == Wants(
        required=frozenset({"HW_CPU_X86_AVX2", "CUSTOM_TPM"}), forbidden=frozenset({"CUSTOM_OLD"}), properties={"os_type": "linux"},
        specs={"capabilities:free_ram_mb": "= 4096", "aggregate_instance_extra_specs:ssd": "true"}, pci=(("nic", 1),))
    assert extra == {"CUSTOM_GPU": 2}


def test_a_pinned_server_asks_pcpu(world: World) -> None:
    """hw:cpu_policy=dedicated, of flavor or image, is PCPU instead of VCPU; cells go along."""
    wants, extra = asked(world, **{"hw:cpu_policy": "dedicated", "hw:numa_nodes": "2"})
    assert extra == {"VCPU": 0, "PCPU": 4}
    assert wants.topology == GuestTopology((GuestCell(2, 2048), GuestCell(2, 2048)), pinned=True)
    images.set_(world.cluster, "guest", properties={"hw_cpu_policy": "dedicated"})
    assert asked(world)[1] == {"VCPU": 0, "PCPU": 4}
    with pytest.raises(UsageError, match="the image asks hw_cpu_policy=dedicated, the flavor hw:cpu_policy=shared"):
        asked(world, **{"hw:cpu_policy": "shared"})


def test_a_trait_is_not_required_and_forbidden(world: World) -> None:
    """Flavor and image that contradict each other are both named."""
    images.set_(world.cluster, "guest", properties={"trait:CUSTOM_A": "required"})
    with pytest.raises(UsageError, match="flavor special and image guest contradict each other: CUSTOM_A"):
        asked(world, **{"trait:CUSTOM_A": "forbidden"})


def test_hints_are_resolved(world: World) -> None:
    """Servers by name or id become ids, once each; an address becomes its network; the query is kept as it was typed."""
    a, b, c = (put_server(world, name, "n1") for name in ("a", "b", "c"))
    query = '[">=", "$free_ram_mb", 1024]'
    wants, _ = asked(world, Hints(
        same_host=("a", a.id, "b"), different_host=(c.id[:8],), near="10.0.1.7", query=query, spread_by="rack"))
    assert (wants.same_host, wants.different_host) == ((a.id, b.id), (c.id,))
    assert (wants.near, wants.query, wants.spread_by) == ("10.0.1.0/24", query, "rack")
    assert asked(world, Hints(near="10.0.0.9/16"))[0].near == "10.0.0.0/16"
    assert asked(world, Hints(near="fd00::5"))[0].near == "fd00::/64"


@pytest.mark.parametrize("hints,error,said", [
    (Hints(same_host=("nobody",)), NotFound, "no server 'nobody'"),
    (Hints(same_host=("a",), different_host=("a",)), UsageError, "--same-host and by --different-host"),
    (Hints(near="here"), UsageError, "10.1.0.0/16"), (Hints(near="10.0.0.0/99"), UsageError, "neither"),
    (Hints(query='["~", 1]'), UsageError, "operator"), (Hints(query="{"), UsageError, "JSON"),
    (Hints(spread_by="a b"), UsageError, "not the name of a node label"),
    (Hints(group="nobody"), NotFound, "no server-group 'nobody'"), (Hints(project="nobody", group="mine"), NotFound, "no project"),
    (Hints(project="shop", group="mine"), UsageError, "belongs to project default, not to shop"),
])
def test_hints_that_cannot_be(world: World, hints: Hints, error: type[Exception], said: str) -> None:
    """A hint about what is not there, or that cannot hold, is refused saying why."""
    put_server(world, "a", "n1")
    projects.create(world.cluster, name="shop")
    groups.create(world.cluster, CreateGroup(name="mine", policy="affinity"))
    with pytest.raises(error) as refused:
        asked(world, hints)
    assert not isinstance(refused.value, Ambiguous) and said in f"{refused.value.message} {refused.value.hint}"


def test_flavors_change_in_their_specs_only(world: World) -> None:
    """Specs are set, kept beside each other and taken away; what would make no sense together is refused and nothing is written."""
    cluster = world.cluster
    flavors.create(cluster, CreateFlavor(name="db", vcpus=4, memory_mb=4096, disk_gb=1, specs={"hw:cpu_policy": "dedicated"}))
    changed = flavors.set_(cluster, "db", specs={"hw:cpu_thread_policy": "isolate"}, description="databases")
    assert changed == flavors.show(cluster, "db") and changed.description == "databases" and changed.vcpus == 4
    with pytest.raises(UsageError, match="hw:cpu_thread_policy=isolate needs hw:cpu_policy=dedicated"):
        flavors.unset(cluster, "db", keys=["hw:cpu_policy"])
    assert flavors.show(cluster, "db") == changed
    flavors.set_(cluster, "db", specs={"trait:CUSTOM_A": "required"}, dry_run=True)
    assert dict(flavors.unset(cluster, "db", keys=["hw:cpu_thread_policy", "hw:cpu_policy", "none"]).specs) == {}
    with pytest.raises(UsageError, match="nothing to set"):
        flavors.set_(cluster, "db", specs={})
    for bad in ({"capabilities:free_ram_mb": ">> 1"}, {"capabilities:nope": "1"}, {"aggregate_instance_extra_specs:x": "<or>"}):
        with pytest.raises(UsageError):
            flavors.set_(cluster, "db", specs=bad)
    with pytest.raises(UsageError, match="a description is"):
        flavors.set_(cluster, "db", specs={}, description="x" * 256)


def test_images_are_set_and_unset(world: World) -> None:
    """Properties are kept beside each other; an architecture that is not the image's is refused."""
    cluster = world.cluster
    images.set_(cluster, "guest", properties={"os_distro": "debian"})
    images.set_(cluster, "guest", properties={"custom_license": "x", "hw_architecture": "amd64"})
    assert dict(images.show(cluster, "guest").properties) == {"os_distro": "debian", "custom_license": "x", "hw_architecture": "amd64"}
    images.unset(cluster, "guest", keys=["custom_license", "none"], dry_run=True)
    assert dict(images.unset(cluster, "guest", keys=["custom_license", "hw_architecture"]).properties) == {"os_distro": "debian"}
    with pytest.raises(UsageError, match="image guest is x86_64; hw_architecture=aarch64 contradicts it"):
        images.set_(cluster, "guest", properties={"hw_architecture": "aarch64"})
    with pytest.raises(UsageError, match="nothing to set"):
        images.set_(cluster, "guest", properties={})
