"""Two who set properties of one flavor, or of one image, at the same moment."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from novactl.api import flavors, images
from novactl.cluster import Cluster
from novactl.db import flavors as db_flavors
from novactl.db import images as db_images
from novactl.db.statements import Tx
from tests import databases
from tests.world import World, small_world

SCOPE = "aggregate_instance_extra_specs"


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with databases.cluster(request.param) as url, small_world(tmp_path, count=1, url=url) as made:
        yield made


def set_flavor(tx: Tx) -> None:
    found = db_flavors.by_name(tx, "small")
    assert found is not None
    db_flavors.update(tx, dataclasses.replace(found, specs={**found.specs, f"{SCOPE}:rack": "a"}))


def set_image(tx: Tx) -> None:
    found = db_images.by_name(tx, "guest")
    assert found is not None
    db_images.update(tx, dataclasses.replace(found, properties={**found.properties, "os_type": "linux"}))


@pytest.mark.parametrize(("first", "second", "both"), [
    (set_flavor, lambda cluster: flavors.set_(cluster, "small", specs={f"{SCOPE}:row": "b"}).specs,
     {f"{SCOPE}:ssd": "c", f"{SCOPE}:rack": "a", f"{SCOPE}:row": "b"}),
    (set_flavor, lambda cluster: flavors.unset(cluster, "small", keys=[f"{SCOPE}:ssd"]).specs, {f"{SCOPE}:rack": "a"}),
    (set_image, lambda cluster: images.set_(cluster, "guest", properties={"hw_machine_type": "q35"}).properties,
     {"hw_architecture": "x86_64", "os_type": "linux", "hw_machine_type": "q35"}),
    (set_image, lambda cluster: images.unset(cluster, "guest", keys=["hw_architecture"]).properties, {"os_type": "linux"}),
], ids=["flavor-set", "flavor-unset", "image-set", "image-unset"])
def test_neither_is_lost(
    world: World, first: Callable[[Tx], None], second: Callable[[Cluster], object], both: dict[str, str],
) -> None:
    """The second waits for the first, and adds to what that has written."""
    flavors.set_(world.cluster, "small", specs={f"{SCOPE}:ssd": "c"})
    images.set_(world.cluster, "guest", properties={"hw_architecture": "x86_64"})
    told: list[object] = []

    def another() -> None:
        other = Cluster(world.config, actor="bob@there")
        told.append(second(other))
        other.close()

    thread = threading.Thread(target=another)
    with world.cluster.db.write() as tx:
        first(tx)
        thread.start()
        time.sleep(0.5)
        assert not told
    thread.join(30)
    assert told == [both]
    written = flavors.show(world.cluster, "small").specs if first is set_flavor else images.show(world.cluster, "guest").properties
    assert written == both
