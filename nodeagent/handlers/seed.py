"""seed.*: the NoCloud seed, an ISO image that the admin's side made."""

import os

from nodeagent.domainxml import seed_name
from nodeagent.refusal import Refused, no_pool
from nodeagent.wire import Code, Nothing

_ISO9660_AT, _ISO9660 = 32769, b"CD001"


def write(call, args, payload):
    """The payload becomes the server's seed, replacing an older one at once or not at all."""
    if not payload or payload[_ISO9660_AT : _ISO9660_AT + 5] != _ISO9660:
        raise Refused(Code.BAD_REQUEST, "a seed is an ISO 9660 image in the payload")
    path = _path(call, args)
    part = path + ".part"
    if not os.path.isdir(os.path.dirname(path)):
        raise no_pool(os.path.dirname(path))
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        try:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        except OSError as full:
            os.unlink(part)
            raise Refused(Code.NO_SPACE, f"{part}: {full.strerror}", elsewhere=True) from None
    os.rename(part, path)
    return Nothing(), None


def delete(call, args, payload):
    """Gone; absent is success."""
    for path in (_path(call, args), _path(call, args) + ".part"):
        if os.path.lexists(path):
            os.unlink(path)
    return Nothing(), None


def _path(call, args) -> str:
    return os.path.join(call.agent.config.pool_dir, seed_name(args.server))
