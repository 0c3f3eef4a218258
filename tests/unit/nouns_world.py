"""A small world whose nodes have servers by decree: rows and claims, without a creation."""

from pathlib import Path

from novactl.db import nodes, placement, servers
from novactl.db.placement import Claim
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Amounts
from novactl.model.server import Server
from novactl.states import PowerState, TaskState, VmState
from tests.world import World

ROOM: Amounts = {VCPU: 2, MEMORY_MB: 1024, DISK_GB: 4}


def quiet_world(folder: Path, *, url: str = "") -> World:
    """Two nodes n1, n2 of 8 CPUs, 16 GiB and 100 GiB, a flavor `small` and an image `guest`; no agent answers."""
    world = World(folder, url=url)
    for name in ("n1", "n2"):
        world.add_node(name)
    world.add_flavor()
    world.add_image()
    return world


def put_server(
    world: World, name: str, node: str, *, amounts: Amounts = ROOM, zone: str = "", project: str = DEFAULT_PROJECT, group: str = "",
) -> Server:
    """A running server with its claim; `project` and `group` are ids."""
    cluster, now = world.cluster, world.cluster.clock.now()
    with cluster.db.write() as tx:
        home = nodes.by_name(tx, node)
        assert home is not None
        server = Server(
            id=cluster.ids.uuid(), name=name, vm_state=VmState.ACTIVE, task_state=TaskState.NONE, power_state=PowerState.RUNNING,
            node_id=home.id, node_name=home.name, epoch=1, operation_id="", flavor_name="small", vcpus=amounts.get(VCPU, 0),
            memory_mb=amounts.get(MEMORY_MB, 0), disk_gb=amounts.get(DISK_GB, 0), image_id=cluster.ids.uuid(), image_name="guest",
            image_sha256="0" * 64, architecture="x86_64", keypair_name="", public_key="", user_data="", zone=zone, mac=cluster.ids.mac(),
            addresses=(), fault="", created_at=now, updated_at=now, launched_at=now, deleted_at=None, project_id=project, group_id=group)
        servers.insert(tx, server)
        placement.claim(tx, Claim(server.id, home.id, amounts, project_id=project, group_id=group))
    return server
