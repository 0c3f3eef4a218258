"""The ZeroMQ side of novactl: calls to the agents. `wire` is the protocol both sides share.

Importing this package loads neither ZeroMQ nor the protocol: this admin's key is read by every command, the rest by those that call.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodeagent import wire

__all__ = ["wire"]


def __getattr__(name: str) -> Any:
    if name == "wire":
        from nodeagent import wire

        return wire
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
