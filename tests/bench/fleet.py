"""Many fake agents in one process: `python -m tests.bench.fleet COUNT ADMIN_PUBLIC_KEY DIR [GUESTS]`.

Each has its own ROUTER, CURVE key pair and port on loopback, and so many running guests; one loop serves them all. Prints one JSON array of
[address, public key, node id], one for each agent, and serves until its standard input ends.
"""

import json
import sys
import threading
import uuid
from pathlib import Path

from nodeagent import wire
from nodeagent.admins import FixedAdmins
from nodeagent.agent import Agent
from nodeagent.clock import BootClock
from nodeagent.config import Config
from nodeagent.drivers.base import Mark
from nodeagent.drivers.fake import FakeDriver
from nodeagent.ledger import Ledger
from nodeagent.loop import Loop, new_keypair


def server_of(node_id: str, number: int) -> str:
    """The id of a node's guest, for whoever writes its row."""
    return str(uuid.uuid5(uuid.UUID(node_id), str(number)))


def _run(driver: FakeDriver, node_id: str, guests: int) -> None:
    for number in range(guests):
        server = server_of(node_id, number)
        driver.create_disk(wire.DiskSpec(server, 1, "0" * 64, 1), "qcow2")
        driver.define(wire.DomainSpec(
            server=server, epoch=1, name=f"vm-{server[:8]}", vcpus=1, memory_mb=512, disk_gb=1, image_sha256="0" * 64,
            mac=f"52:54:00:00:00:{number:02x}"), "qcow2", Mark("bench", "bench"))
        driver.start_domain(server)


def main(count: int, admin_key: str, directory: Path, guests: int) -> None:
    loop, clock, admins = Loop(sockets=count + 16), BootClock(), FixedAdmins({admin_key: ("bench", wire.ADMIN)})
    cluster, found = str(uuid.uuid4()), []
    for number in range(count):
        place = str(directory / f"h{number}")
        config = Config(
            node_id=str(uuid.uuid4()), cluster_id=cluster, name=f"h{number}", driver="fake", state_dir=place, pool_dir=place
        )
        driver = FakeDriver(config)
        if guests:
            Path(place).mkdir()
            _run(driver, config.node_id, guests)
        agent = Agent(config, driver, clock, Ledger(":memory:"), admins)
        public, secret = new_keypair()
        endpoint = loop.add(agent, "tcp://127.0.0.1:*", secret, public)
        agent.start()
        found.append((endpoint.address, public, config.node_id))
    print(json.dumps(found), flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), loop.stop()), daemon=True).start()
    loop.run()
    loop.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
