"""Eight admins create at the same time: nothing is lost, and nothing holds more than it may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from novactl.api import groups as api_groups
from novactl.api import projects as api_projects
from novactl.api import quotas as api_quotas
from novactl.db import groups, nodes, placement, projects, servers
from novactl.errors import ExitStatus
from novactl.model.resources import MEMORY_MB
from tests import databases
from tests.world import World

ADMINS, EACH, NODES = 8, 25, 10
QUOTA, PER_NODE = 60, 2
"""Servers of project `small`; members of the anti-affinity group on one node."""


class Made(NamedTuple):
    name: str
    status: int
    code: str


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Ten nodes with room for 15 servers of 1 GiB each: 150 for 200 that are asked for."""
    with ExitStack() as stack:
        made = World(tmp_path, url=stack.enter_context(databases.database(request.param)))
        for number in range(NODES):
            made.add_node(f"n{number}", fake={"vcpus": 64, "memory_mb": 15 * 1024 + 512})
        made.add_flavor("one", vcpus=1, memory_mb=1024, disk_gb=1)
        made.add_image("guest", b"\0" * 4096)
        api_projects.create(made.cluster, name="small")
        api_quotas.set_(made.cluster, "small", {"servers": str(QUOTA)})
        api_groups.create(made.cluster, api_groups.CreateGroup(name="apart", policy="anti-affinity", max_per_host=PER_NODE))
        made.start()
        stack.callback(made.stop)
        yield made


def admin(number: int) -> list[str]:
    """What one of them types: every third for project `small`, every fourth of the others in group `apart`."""
    lines = []
    for turn in range(EACH):
        extra = " --project small" if turn % 3 == 0 else " --group apart" if turn % 4 == 0 else ""
        lines.append(f"server create s{number}-{turn} --flavor one --image guest -q{extra}")
    return lines


def typed(world: World) -> list[Made]:
    """Eight processes, all at once."""
    command, env = [sys.executable, "-m", "novactl", "batch"], {**os.environ, **world.env}
    running = []
    for number in range(ADMINS):
        with tempfile.TemporaryFile("w+") as lines:
            lines.write("\n".join(admin(number)))
            lines.seek(0)
            running.append(subprocess.Popen(command, env=env, stdin=lines, stdout=subprocess.PIPE, text=True))
    made = []
    with ThreadPoolExecutor(ADMINS) as pool:
        for out in pool.map(lambda process: process.communicate()[0], running):
            for line in map(json.loads, out.splitlines()):
                made.append(Made(line["command"].split()[2], line["exit_status"], (line["error"] or {}).get("code", "")))
    return made


@pytest.mark.timeout(600)
def test_two_hundred_creations_by_eight_admins(world: World) -> None:
    """Whatever was said to be created is there and runs; what was refused left nothing; no node, quota or group holds too much."""
    made = typed(world)
    assert len(made) == ADMINS * EACH
    ends = {(ExitStatus.OK, ""), (ExitStatus.NO_VALID_HOST, "no_valid_host"), (ExitStatus.DENIED, "quota")}
    assert [one for one in made if (one.status, one.code) not in ends] == []
    created = {one.name for one in made if one.status == ExitStatus.OK}
    with world.cluster.db.read() as tx:
        living = servers.all_(tx)
        assert {server.name for server in living} == created and {server.status for server in living} == {"ACTIVE"}
        held = placement.all_(tx)
        assert {row.consumer_id for row in held} == {server.id for server in living}
        used: Counter[str] = Counter()
        for row in held:
            used[row.node_id] += row.amount if row.resource_class == MEMORY_MB else 0
        capacity = {node.id: nodes.inventories_of(tx, node.id)[MEMORY_MB].capacity for node in nodes.all_(tx)}
        assert all(used[node] <= capacity[node] for node in capacity)
        small = projects.by_name(tx, "small")
        assert small and projects.usage(tx, small.id)["servers"] == sum(server.project_id == small.id for server in living) <= QUOTA
        apart = groups.by_name(tx, "apart")
        assert apart
        members = Counter(member.node_id for member in groups.members(tx, apart.id))
        assert max(members.values()) <= PER_NODE and sum(members.values()) <= NODES * PER_NODE
    assert len(world.domains()) == len(created) and set(world.domains().values()) == {"RUNNING"}
    assert len(created) == NODES * 15, "there was room for exactly so many, and more were asked for"
