"""The two drivers, behind one face."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.kit import Node

DRIVERS = {"fake": "x86_64", "libvirt": "i686"}


@pytest.fixture(params=DRIVERS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A prepared node on the fake driver, and on libvirt's test driver."""
    made = Node(tmp_path, driver=request.param, architecture=DRIVERS[request.param])
    made.prepare()
    yield made
    for spec in made.agent.driver.specs():
        made.agent.driver.destroy(spec.server)
        made.agent.driver.undefine(spec.server)
    made.ok("node.unprepare")
    made.down()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Node]:
    """A prepared node on the fake driver."""
    made = Node(tmp_path)
    made.prepare()
    yield made
    made.down()
