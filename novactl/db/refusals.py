"""Why the ledger refuses a claim."""

from __future__ import annotations

from novactl.errors import Conflict


class Moved(Conflict):
    """The node is no longer what the scheduler saw: place again."""

    code = "placement.moved"


class Crossed(Moved):
    """Two transactions waited for each other, or wrote the same, and the database ended this one: all of it may be done again."""


class OverCapacity(Moved):
    """The node no longer has the room."""

    code = "placement.over_capacity"


class GroupPolicy(Moved):
    """The server's group does not let it on this node by now; the message names group and members."""

    code = "placement.group"
