"""keys.*: the table of the admins' keys, and changing the node's own key.

The node's key is changed in three steps, each of which may be repeated: `next` makes the pair, `serve` lets new connections have
it while open ones go on, `commit` takes it into force for good. Before that `drop` takes all of it back.
"""

from nodeagent.admins import OlderTable, table_of
from nodeagent.refusal import Refused
from nodeagent.wire import Code, NodeKey, Nothing


def write(call, args, payload):
    """Refused where the table here is newer. In force with the next message, whoever sends it."""
    try:
        call.agent.admins.write(table_of(args))
    except OlderTable as older:
        hint = "was the database restored from an old copy, or are two in use? novactl cluster adopt"
        raise Refused(Code.CONFLICT, str(older), hint=hint) from None
    except OSError as bad:
        raise Refused(Code.INTERNAL, f"the table of keys cannot be written: {bad.strerror}", hint="enrol the node again") from None
    return Nothing(), None


def make_next(call, args, payload):
    return NodeKey(_own(call).keys.make_next().public), None


def serve(call, args, payload):
    """New connections are made with the next key; what is connected goes on with the old one."""
    own = _own(call)
    pair = own.keys.next()
    if pair is None or pair.public != args.public_key:
        if own.keys.current().public == args.public_key:
            return Nothing(), None
        raise Refused(Code.NOT_FOUND, "that is not the key this node made last")
    own.serve(pair)
    return Nothing(), None


def commit(call, args, payload):
    """The next key is the only one; connections made with the old one end a little later. Done already: nothing changes."""
    own = _own(call)
    if own.keys.current().public != args.public_key:
        serve(call, args, payload)
        own.keys.commit()
    own.retire_others(args.public_key)
    return Nothing(), None


def drop(call, args, payload):
    """As before `next`. What was committed stays."""
    own = _own(call)
    own.withdraw()
    own.keys.drop_next()
    return Nothing(), None


def _own(call):
    if call.agent.own_keys is None:
        raise Refused(Code.CONFLICT, "this agent was started with a key that it cannot change")
    return call.agent.own_keys
