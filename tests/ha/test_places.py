"""Where servers of a fenced node find a place, although something of theirs is still counted on the node that is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import ha as api
from novactl.api import servers as servers_api
from novactl.errors import NovaError
from tests.ha.test_fencing import power_cut, server_on
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=3) as made:
        yield made


def fenced(world: World, name: str = "n1") -> api.Fenced:
    """Its host has died, and an admin says so."""
    power_cut(world, name)
    made = api.fence(world.cluster, name, by_hand=True)
    assert isinstance(made, api.Fenced)
    return made


def test_a_node_that_has_the_image_needs_no_file_of_it(world: World) -> None:
    """The machine that evacuates is not the one that took the image in: the next node is asked, and n2 has it."""
    server_on(world, "n2", "other", wants_ha=False)
    server_on(world, "n1")
    shutil.rmtree(world.config.data_dir / "images")
    (web,) = fenced(world).elsewhere
    assert web.node_name == "n2"


def test_where_no_node_has_the_image_it_is_said_on_which_machine_its_file_is_not(world: World) -> None:
    shutil.rmtree(world.config.data_dir / "images")
    with pytest.raises(NovaError, match="node n[123] does not have image [0-9a-f]+, and its file is not on this machine") as no:
        servers_api.create(world.cluster, servers_api.CreateServer(name="web", flavor="small", image="guest"))
    assert f"({os.uname().nodename})" in no.value.message and no.value.command == "novactl image create NAME FILE"
