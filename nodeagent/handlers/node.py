"""node.*: what must be there before servers come, and taking it away again."""

import os

from nodeagent.agent import Prepared
from nodeagent.refusal import Refused
from nodeagent.wire import Code, Nothing


def prepare(call, args, payload):
    """Pool and network are made, active and start with the host; the limits are remembered."""
    agent = call.agent
    made = dict(agent.prepared.made)
    if _make_directory(agent.config.pool_dir):
        made["pool_dir"] = agent.config.pool_dir
    agent.pool_id.keep()
    try:
        agent.driver.prepare(args.network, made)
    except Refused:
        agent.set_prepared(Prepared(agent.prepared.network, agent.prepared.limits, made))
        raise
    agent.set_prepared(Prepared(args.network, args.limits, made))
    return Nothing(), None


def unprepare(call, args, payload):
    """Take away what `prepare` made, cached images included, unless disks of other nodes' servers are there. Refused while servers are
    here."""
    agent = call.agent
    servers = agent.driver.specs()
    if servers:
        names = ", ".join(sorted(spec.name for spec in servers)[:5])
        raise Refused(Code.CONFLICT, f"{len(servers)} servers are still on this node: {names}", hint="delete them first")
    agent.images.clear()
    agent.pool_id.drop()
    agent.driver.unprepare(agent.prepared.network, agent.prepared.made)
    if agent.prepared.made.get("pool_dir") and os.path.isdir(agent.config.pool_dir) and not agent.images.under_disks():
        _remove_empty(agent.config.pool_dir)
    agent.set_prepared(Prepared())
    return Nothing(), None


def adopt(call, args, payload):
    """Nothing more than hearing of the operation: with its number the copies of the database that are behind it are refused."""
    return Nothing(), None


def _make_directory(path: str) -> bool:
    """True where it had to be made. QEMU must be able to pass through it, nobody else to list it."""
    try:
        if not os.path.isdir(path):
            os.makedirs(path)
            os.chmod(path, 0o711)
            return True
        if os.access(path, os.W_OK):
            return False
        reason = "this agent may not write there"
    except OSError as error:
        reason = error.strerror
    raise Refused(Code.CONFLICT, f"the pool directory {path} cannot be used: {reason}", hint=f"give {path} to the agent's user")


def _remove_empty(path: str) -> None:
    if os.listdir(path):
        raise Refused(Code.CONFLICT, f"{path} holds files that are not ours", hint="move them away and ask again")
    os.rmdir(path)
