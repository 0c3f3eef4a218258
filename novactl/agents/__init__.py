"""The ZeroMQ side of novactl: calls to the agents. `wire` is the protocol both sides share.

Importing this package loads no ZeroMQ; that happens with the first call.
"""

from nodeagent import wire

__all__ = ["wire"]
