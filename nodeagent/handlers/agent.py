"""agent.*: is it there, and who is it."""

from nodeagent import wire

_NOTHING = (wire.Nothing(), None)


def ping(call, args, payload):
    return _NOTHING


def hello(call, args, payload):
    return call.agent.hello(call.role), None
