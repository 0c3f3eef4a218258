"""The time commands expire in: this boot, and the seconds since it."""

import time
from typing import Protocol


class Clock(Protocol):
    boot_id: str

    def boottime_s(self) -> float:
        """Seconds since boot; never goes back, counts time asleep."""


class BootClock:
    """CLOCK_BOOTTIME and the kernel's boot id: no clock skew can change what they say."""

    def __init__(self) -> None:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            self.boot_id = file.read().strip()

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
