"""seed.*: the NoCloud seed, an ISO image that the admin's side made."""

import os

from nodeagent.domainxml import seed_name
from nodeagent.refusal import Refused, no_pool
from nodeagent.secretfile import write_private
from nodeagent.wire import Code, Nothing

_ISO9660_AT, _ISO9660 = 32769, b"CD001"


def write(call, args, payload):
    """The payload becomes the server's seed, replacing an older one at once or not at all."""
    if not payload or payload[_ISO9660_AT : _ISO9660_AT + 5] != _ISO9660:
        raise Refused(Code.BAD_REQUEST, "a seed is an ISO 9660 image in the payload")
    path = _path(call, args)
    if not os.path.isdir(os.path.dirname(path)):
        raise no_pool(os.path.dirname(path))
    try:
        write_private(path, payload)
    except OSError as full:
        raise Refused(Code.NO_SPACE, f"{path}: {full.strerror}", elsewhere=True) from None
    return Nothing(), None


def delete(call, args, payload):
    """Gone; absent is success."""
    for path in (_path(call, args), _path(call, args) + ".part"):
        if os.path.lexists(path):
            os.unlink(path)
    return Nothing(), None


def _path(call, args) -> str:
    return os.path.join(call.agent.config.pool_dir, seed_name(args.server))
