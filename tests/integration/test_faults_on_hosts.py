"""Faults on real hosts in the middle of a command: one direction of the network gone, libvirtd hung or killed."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_ha import conductor
from tests.lab.fleet import PATIENCE_S, Fleet, until
from tests.lab.host import Host

CUT_S = 4.0
DIRECTIONS = {"to it": {"to_host": True, "from_host": False}, "from it": {"to_host": False, "from_host": True}}
directions = pytest.mark.parametrize("way", DIRECTIONS.values(), ids=DIRECTIONS)


def libvirtd(host: Host, number: signal.Signals) -> None:
    host.run("sh", "-c", f"kill -{number.value} $(cat /run/libvirtd.pid)")


@pytest.fixture(scope="module")
def large(cluster: Fleet) -> str:
    """An image that takes some seconds to arrive: nothing boots from it."""
    path = cluster.lab.home / "large.raw"
    with path.open("wb") as file, Path("/dev/urandom").open("rb") as noise:
        for _ in range(1000):
            file.write(noise.read(1 << 20))
    cluster.novactl("image", "create", "large", str(path), "--format", "raw")
    path.unlink()
    return "large"


def sending(fleet: Fleet, host: Host, image: str, name: str) -> Any:
    """A create on `host` whose image is on its way."""
    begun = fleet.begin("server", "create", name, "--flavor", "tiny", "--image", image, "--node", host.name)
    until(lambda: any(file.endswith(".part") for file in host.pool_files()) or begun.poll() is not None, "the image is on its way")
    return begun


@directions
def test_a_transfer_that_is_cut_one_way_goes_on(fleet: Fleet, large: str, way: dict[str, bool]) -> None:
    """One direction gone for some seconds in the middle of an image: the same command ends well, the image whole."""
    host = fleet.lab.host("h2" if way["to_host"] else "h3")
    begun = sending(fleet, host, large, "web1")
    host.cut(**way)
    was_under_way = begun.poll() is None
    time.sleep(CUT_S)
    fleet.lab.heal()
    out, err = begun.communicate(timeout=PATIENCE_S)
    assert was_under_way and begun.returncode == 0, out + err
    assert not [name for name in host.pool_files() if name.endswith(".part")]
    assert fleet.server("web1")["status"] == "ACTIVE"


@directions
def test_a_delete_that_is_cut_one_way_ends(fleet: Fleet, way: dict[str, bool]) -> None:
    """Cut before the node is reached, and healed after some seconds or after the command gave up: the server is gone in the end, once."""
    fleet.create("web1", "--node", "h2")
    host = fleet.lab.host("h2")
    begun = fleet.begin("server", "delete", "--yes", "web1")
    until(lambda: fleet.rows("SELECT 1 FROM operation WHERE kind = 'server.delete' AND object_name = 'web1'"), "the delete has begun")
    host.cut(**way)
    if way["to_host"]:
        time.sleep(CUT_S)
        fleet.lab.heal()
    begun.communicate(timeout=PATIENCE_S)
    assert begun.returncode in (0, 6)
    fleet.lab.heal()
    if begun.returncode:                                      # 3: the command ended what the first one had begun, before it looked
        assert fleet.status("server", "delete", "--yes", "web1") in (0, 3)
    until(lambda: (fleet.novactl("server", "list"), fleet.leftovers())[1] == {}, "nothing is left of web1")
    assert fleet.novactl("server", "list", "-o", "json").items == []


def test_a_hung_libvirtd_delays_its_own_node_only(fleet: Fleet) -> None:
    """I9: with libvirtd of one host stopped, stops and starts on another take no more than a second longer; afterwards both obey.
    What a busy machine adds comes and goes; what the hung libvirtd would add is there every time."""
    fleet.create("web1", "--node", "h1")
    fleet.create("web2", "--node", "h2")

    def cycle() -> float:
        began = time.monotonic()
        fleet.novactl("server", "stop", "web2", "--grace", "0")
        fleet.novactl("server", "start", "web2")
        return time.monotonic() - began

    host, cycles = fleet.lab.host("h1"), []
    for _ in range(5):
        usual = cycle()
        libvirtd(host, signal.SIGSTOP)
        try:
            cycles.append((usual, cycle()))
            began = time.monotonic()
            fleet.novactl("node", "list")
            assert time.monotonic() - began < 45
        finally:
            libvirtd(host, signal.SIGCONT)
        if cycles[-1][1] < usual + 1.0:
            break
    else:
        pytest.fail(f"seconds without and with h1 hung: {cycles}")
    until(lambda: fleet.status("server", "stop", "web1", "--grace", "0") == 0, "h1 obeys again")
    assert fleet.server("web1")["status"] == "SHUTOFF"


@pytest.mark.skipif(not shutil.which("bindfs") or not Path("/dev/fuse").exists(), reason="mounts bindfs (requirements/apt-test.txt)")
def test_storage_that_hangs_delays_what_needs_it(fleet: Fleet) -> None:
    """I9: where a host's pool is on storage that does not answer, other hosts work on and its agent answers: a conductor that fences the
    silent leaves it alone. A create that came meanwhile ends when the storage is back, and then the host obeys as before."""
    host = fleet.lab.host("h1")
    with slow_pool(host) as storage, conductor(fleet, HA_FENCE_AFTER_S="2", AGENT_REPORT_INTERVAL_S="1"):
        fleet.create("web1", "--node", "h1")
        fleet.create("web2", "--node", "h2")
        fleet.novactl("server", "set", "web1", "--ha")
        storage(signal.SIGSTOP)
        begun = fleet.begin("server", "create", "web3", "--flavor", "tiny", "--image", "guest", "--node", "h1")
        until(lambda: fleet.rows(
            "SELECT 1 FROM operation_step JOIN operation ON operation.id = operation_id"
            " WHERE object_name = 'web3' AND kind = 'server.create' AND name = 'image'"), "it needs the pool")
        check = fleet.begin("node", "check", "h1")
        began = time.monotonic()
        assert fleet.server("web1")["status"] == "ACTIVE"
        fleet.novactl("server", "stop", "web2", "--grace", "0")
        fleet.novactl("server", "start", "web2")
        fleet.novactl("node", "list")
        assert time.monotonic() - began < 60 and begun.poll() is None
        until(lambda: fleet.rows("SELECT silent_since FROM node WHERE name = 'h1'") == [(None,)], "h1 is not silent")
        until(lambda: check.poll() is not None or speaks_ssh(check.pid), "h1's agent has told the check what it has to tell")
        storage(signal.SIGCONT)
        out, err = begun.communicate(timeout=PATIENCE_S)
        assert begun.returncode == 0, out + err
        assert "its storage hangs" in "".join(check.communicate(timeout=PATIENCE_S))
        fleet.novactl("server", "stop", "web1", "--grace", "0")
        assert sorted(host.domains().values()) == ["running", "shut off"]
        fleet.novactl("server", "delete", "--yes", "web1", "web2", "web3")


def speaks_ssh(pid: int) -> bool:
    """Whether a process has a connection to a port 22."""
    files = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(words[2].endswith(":0016") and f"socket:[{words[9]}]" in files for words in lines)


@contextlib.contextmanager
def slow_pool(host: Host) -> Iterator[Callable[[signal.Signals], None]]:
    """The host's pool is reached through a process, as one on a network is; SIGSTOP to it is the server that does not answer."""
    pool = "/var/lib/libvirt/images/novactl"
    host.run("bindfs", pool, pool, "-o", "nonempty")
    pid = host.run("pgrep", "-x", "bindfs").stdout.strip()

    def send(number: signal.Signals) -> None:
        host.run("kill", f"-{number.value}", pid)

    try:
        yield send
    finally:
        send(signal.SIGCONT)
        host.run("umount", "-l", pool)


def test_libvirtd_killed_in_the_middle_of_a_call(fleet: Fleet) -> None:
    """Stopped while a server starts, then killed and started again: the command ends, tried again it succeeds, and there is one domain."""
    server = fleet.create("web1", "--node", "h3")
    fleet.novactl("server", "stop", "web1", "--grace", "0")
    host = fleet.host_of(server)
    libvirtd(host, signal.SIGSTOP)
    begun = fleet.begin("server", "start", "web1")
    time.sleep(2.0)
    libvirtd(host, signal.SIGKILL)
    until(lambda: host.run("libvirtd", "-d", check=False).status == 0, "the dead one has let go of its lock")
    begun.communicate(timeout=PATIENCE_S)
    until(lambda: fleet.server("web1")["status"] == "ACTIVE" or fleet.status("server", "start", "web1") == 0, "web1 runs")
    assert [name for name, state in host.domains().items() if state == "running"] == [f"novactl-{server['id']}"]
