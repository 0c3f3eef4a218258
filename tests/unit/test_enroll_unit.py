"""The agent's systemd unit: what it may use up."""

import re

from novactl.enroll import unit


def directive(name: str) -> str:
    found = re.findall(rf"^{name}=(.*)$", unit.SYSTEMD_UNIT, re.MULTILINE)
    assert len(found) == 1
    return found[0]


def test_memory_has_an_end() -> None:
    """The agent is killed before the host runs short, has no swap to hide in, and always comes back."""
    assert directive("MemoryMax") == "256M" and directive("MemorySwapMax") == "0"
    assert directive("Restart") == "always" and directive("StartLimitIntervalSec") == "0"
