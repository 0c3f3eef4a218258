"""Creating servers beside what libvirt alone needs for equal domains, on one lab host with the image cached.

The image is an empty disk: firmware that waits costs nothing, where guests that boot would take the processors from both.
"""

import json
import re
import statistics
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.registry import Figure, bench, over, share
from tests.lab import Host, Lab
from tests.lab.fleet import Fleet

WIDTH, WAVE = 4, 24
TURNS, TURNS_OF_WAVES = 7, 3
POOL = "/var/lib/libvirt/images/novactl"

# Reads domains as a JSON list of XML and creates them WIDTH at a time. libvirt says now and then "Resource temporarily
# unavailable" when several start at once: asked again, as everybody does.
RAW = """
import concurrent.futures, json, sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
connection = libvirt.open("qemu:///system")
def create(xml):
    for attempt in range(10):
        try:
            return connection.createXML(xml)
        except libvirt.libvirtError as error:
            if "temporarily unavailable" not in str(error) or attempt == 9:
                raise
domains = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(int(sys.argv[1])) as pool:
    list(pool.map(create, domains))
"""


@contextmanager
def one_node() -> Iterator[Fleet]:
    """A cluster of one node that has the image already; `server create` defaults are flavor tiny and image guest."""
    with Lab(count=1) as lab:
        fleet = Fleet(lab, lab.home / "data")
        image = lab.dir / "empty.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"], check=True, stdin=subprocess.DEVNULL)
        fleet.novactl("init")
        fleet.novactl("node", "enroll", f"root@{lab.hosts[0].address}", env={"NOVACTL_PLACEMENT_CPU_RATIO": str(WAVE)})
        fleet.novactl("flavor", "create", "tiny", "--vcpus", "1", "--ram", "192M", "--disk", "1")
        fleet.novactl("image", "create", "guest", str(image))
        fleet.create("warm")
        yield fleet


def twins(host: Host, count: int) -> list[str]:
    """XML of `count` domains equal to the one the host runs, each with an overlay of its own."""
    model = next(name for name, state in host.domains().items() if state == "running")
    seed, found = f"{POOL}/twin-seed.iso", []
    for number in range(count):
        domain = ET.fromstring(host.run("virsh", "dumpxml", "--inactive", model).stdout)
        identity = f"00000000-0000-4000-8000-{number:012d}"
        for part in ("uuid", "name", "title"):
            element = domain.find(part)
            if element is not None:
                element.text = identity if part == "uuid" else f"twin-{number}"
        metadata = domain.find("metadata")
        if metadata is not None:
            domain.remove(metadata)
        source, seeded = domain.findall("devices/disk/source")
        if not number:
            host.run("cp", seeded.get("file", ""), seed)
        seeded.set("file", seed)
        backing = json.loads(host.run("qemu-img", "info", "-U", "--output=json", source.get("file", "")).stdout)["full-backing-filename"]
        overlay = f"{POOL}/twin-{number}.qcow2"
        host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", overlay, "1G")
        source.set("file", overlay)
        for log in domain.iterfind("devices/*/log"):
            log.set("file", f"/var/log/libvirt/qemu/twin-{number}-console.log")
        for mac in domain.iterfind("devices/interface/mac"):
            mac.set("address", f"52:54:00:ff:00:{number:02x}")
        found.append(ET.tostring(domain, encoding="unicode"))
    return found


def destroy_twins(host: Host) -> None:
    for name in host.domains():
        if name.startswith("twin-"):
            host.run("virsh", "destroy", name)


def seconds(act: list[str], fleet: Fleet) -> float:
    began = time.perf_counter()
    done = subprocess.run(act, env=fleet.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(act)}: exit {done.returncode}: {done.stderr}")
    return took


@bench("create.one")
def one_server() -> Figure:
    """`novactl server create`, from the shell until it runs, beside `virsh create` of an equal domain."""
    with one_node() as fleet:
        host = fleet.lab.hosts[0]
        Path(host.dir / "tmp/twin.xml").write_text(twins(host, 1)[0])
        fleet.novactl("server", "stop", "warm", "--grace", "0")
        ours, virsh = [], []
        for turn in range(TURNS + 1):
            began = time.perf_counter()
            host.run("virsh", "create", "/tmp/twin.xml")
            virsh.append(time.perf_counter() - began)
            destroy_twins(host)
            ours.append(seconds(fleet.command("server", "create", f"web{turn}", "--flavor", "tiny", "--image", "guest"), fleet))
            fleet.novactl("server", "delete", f"web{turn}", "--yes")
        return over(
            "create.one", statistics.median(ours[1:]), "s", against="virsh create", reference=statistics.median(virsh[1:]), limit=1.2,
            plus=0.3)


@bench("create.four_at_a_time")
def four_at_a_time() -> Figure:
    """Servers a second of one command that keeps four creations under way, beside a program that calls raw createXML in four
    threads; both from the shell to the last domain running."""
    with one_node() as fleet:
        host = fleet.lab.hosts[0]
        domains = json.dumps(twins(host, WAVE))
        fleet.novactl("server", "delete", "warm", "--yes")                   # its claim would leave room for one less
        ours, raw = [], []
        for turn in range(TURNS_OF_WAVES + 1):
            began = time.perf_counter()
            host.run("/usr/bin/python3", "-c", RAW, str(WIDTH), stdin=domains)
            raw.append(WAVE / (time.perf_counter() - began))
            destroy_twins(host)
            create = fleet.command("server", "create", f"web{turn}", "--count", str(WAVE), "--flavor", "tiny", "--image", "guest")
            ours.append(WAVE / seconds(create, fleet))
            names = re.findall(r"\S+", fleet.novactl("server", "list", "--status", "ACTIVE", "-o", "name").stdout)
            fleet.novactl("server", "delete", "--yes", *names)
        return share(
            "create.four_at_a_time", statistics.median(ours[1:]), "servers/s", against=f"createXML in {WIDTH} threads",
            reference=statistics.median(raw[1:]), limit=0.85)
