"""Two admins who set limits at the same moment."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import projects, quotas
from novactl.cluster import Cluster
from novactl.db import quotas as db
from novactl.errors import NovaError
from novactl.model.resources import VCPU
from tests import databases
from tests.world import World, small_world


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with databases.cluster(request.param) as url, small_world(tmp_path, count=1, url=url) as made:
        yield made


@pytest.mark.parametrize("resource", ["cores", "ram"])
@pytest.mark.parametrize("whose", ["shop", None])
def test_first_limits_set_at_once_all_hold(world: World, whose: str | None, resource: str) -> None:
    """The second waits for the first and is told of no conflict; what neither has set is not lost, and claims are held to both."""
    shop, told = projects.create(world.cluster, name="shop"), list[object]()

    def second() -> None:
        other = Cluster(world.config, actor="bob@there")
        try:
            told.append(quotas.set_(other, whose, {resource: "7"}))
        except NovaError as error:
            told.append(error)
        other.close()

    thread = threading.Thread(target=second)
    with world.cluster.db.write() as tx:
        db.set_(tx, shop.id if whose else "", "cores", 5)
        thread.start()
        time.sleep(0.5)
        assert not told
    thread.join(30)
    assert isinstance(told[0], tuple), told
    limits = {row.resource: row.limit for row in quotas.show(world.cluster, "shop")}
    cores = 7 if resource == "cores" else 5
    assert (limits["cores"], limits["ram_mb"]) == (cores, 7 if resource == "ram" else -1)
    with world.cluster.db.write() as tx:
        assert not db.charge(tx, shop.id, {VCPU: cores + 1}, "web", "n1") and db.charge(tx, shop.id, {VCPU: cores}, "web", "n1")
