from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Beside flavor and image, what is asked of the node, by names (Nova's scheduler hints).

    `project` "" is the default one. `query` is a JSON s-expression, `near` a network as 10.0.0.0/24, `spread_by` a label of nodes.
    """

    project: str = ""
    group: str = ""
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()
    query: str = ""
    near: str = ""
    spread_by: str = ""


NO_HINTS = Hints()
