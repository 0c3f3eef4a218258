"""What makes domains: libvirt, or a full second implementation without it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodeagent.config import Config
    from nodeagent.drivers.base import Driver


def driver_for(config: "Config") -> "Driver":
    """The driver the configuration names; the other one is not imported."""
    if config.driver == "fake":
        from nodeagent.drivers.fake import FakeDriver

        return FakeDriver(config)
    from nodeagent.drivers.libvirt import LibvirtDriver

    return LibvirtDriver(config)
