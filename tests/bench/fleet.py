"""Many fake agents in one process: `python -m tests.bench.fleet COUNT ADMIN_PUBLIC_KEY DIR`.

Each has its own ROUTER, CURVE key pair and port on loopback; one loop serves them all. Prints one JSON array of
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
from nodeagent.drivers.fake import FakeDriver
from nodeagent.ledger import Ledger
from nodeagent.loop import Loop, new_keypair


def main(count: int, admin_key: str, directory: Path) -> None:
    loop, clock, admins = Loop(sockets=count + 16), BootClock(), FixedAdmins({admin_key: ("bench", wire.ADMIN)})
    cluster, found = str(uuid.uuid4()), []
    for number in range(count):
        place = str(directory / f"h{number}")
        config = Config(
            node_id=str(uuid.uuid4()), cluster_id=cluster, name=f"h{number}", driver="fake", state_dir=place, pool_dir=place
        )
        agent = Agent(config, FakeDriver(config), clock, Ledger(":memory:"), admins)
        public, secret = new_keypair()
        endpoint = loop.add(agent, "tcp://127.0.0.1:*", secret, public)
        agent.start()
        found.append((endpoint.address, public, config.node_id))
    print(json.dumps(found), flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), loop.stop()), daemon=True).start()
    loop.run()
    loop.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
