"""lease.*: how long the node may go on by itself."""

from nodeagent.wire import Nothing


def renew(call, args, payload):
    call.agent.self_fence.renew(args)
    return Nothing(), None
