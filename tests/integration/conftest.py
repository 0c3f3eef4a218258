"""Three hosts, enrolled over SSH into one cluster, for all the tests here; each test must leave them as it found them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.lab.fleet import REPOSITORY, Fleet

HUNG_S = 1200.0
GUEST = Path("/var/tmp/novactl-lab/guest.qcow2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real hosts take as long as the machine lets them. One test that hangs fails, the others are run, and no lab stays behind: the
    suite's own way of ending a test ends pytest."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(HUNG_S, method="signal"))


@pytest.fixture(scope="session")
def guest_image() -> Path:
    """The small bootable guest, built anew when its builder changed."""
    builder = REPOSITORY / "examples/guest-image"
    if not GUEST.exists() or GUEST.stat().st_mtime < builder.stat().st_mtime:
        subprocess.run([builder, GUEST], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    return GUEST


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab(count=3) as lab:
        yield lab


@pytest.fixture(scope="session")
def cluster(lab: Lab, guest_image: Path) -> Fleet:
    """The whole fleet, made by the commands a user would type."""
    fleet = Fleet(lab, lab.home / "data")
    fleet.novactl("init")
    for host in lab.hosts:
        fleet.novactl("node", "enroll", f"root@{host.address}", "--zone", "left" if host.name == "h1" else "right")
    fleet.novactl("flavor", "create", "tiny", "--vcpus", "1", "--ram", "192M", "--disk", "1")
    fleet.novactl("image", "create", "guest", str(guest_image), "--format", "qcow2")
    return fleet


@pytest.fixture
def fleet(cluster: Fleet) -> Iterator[Fleet]:
    """The fleet with no servers; afterwards whole again, and nothing may be left but what the test's servers were."""
    yield cluster
    try:
        cluster.mend()
    finally:
        cluster.empty()
    left = cluster.leftovers()
    if left:
        cluster.novactl("cluster", "repair")                  # for the next test: this one has failed
    assert left == {}
