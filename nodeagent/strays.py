"""Files of servers that have no domain on this node."""

import os
import re
from typing import Collection, Tuple

from nodeagent.domains import FILES_AT_MOST

_OF_SERVER = re.compile(
    r"(?:disk-|seed-|novactl-)([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"(?:\.qcow2|\.iso|-console\.log|\.log)(?:\.part)?\Z")


def strays(pool_dir: str, known: Collection[str]) -> Tuple[str, ...]:
    """Ids of servers other than `known` with a disk, a seed or a log in the pool, FILES_AT_MOST of them."""
    try:
        names = os.listdir(pool_dir)
    except OSError:
        return ()
    found = {match.group(1) for match in map(_OF_SERVER.match, names) if match}
    return tuple(sorted(found.difference(known))[:FILES_AT_MOST])
