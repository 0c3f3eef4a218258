"""The XML the agent gives to libvirt."""

import dataclasses
import ipaddress
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from nodeagent import domainxml, networkxml
from nodeagent.domainxml import Platform
from nodeagent.drivers.base import Mark
from nodeagent.wire import DomainCell, DomainSpec, NumaCell

Golden = Callable[[str, str], None]
SERVER = "0b5f2f4e-8f3c-4a57-9f0e-2a8d1c7e6b90"
QEMU = Platform("qemu", "q35", "maximum", "/var/lib/libvirt/images/novactl", "/var/log/libvirt/qemu")
KVM = Platform("kvm", "q35", "host-model", "/var/lib/libvirt/images/novactl", "/var/log/libvirt/qemu")
SPEC = DomainSpec(
    server=SERVER, epoch=3, name="web1", vcpus=2, memory_mb=2048, disk_gb=10, image_sha256="5e" * 32, mac="52:54:00:12:34:56",
    flavor="m1.small", image="debian-12")
HOST = (
    NumaCell(0, tuple(range(8)), 65536, ((0, 4), (1, 5), (2, 6), (3, 7)), {"2048": 8192, "1048576": 16}),
    NumaCell(1, tuple(range(8, 16)), 65536, ((8, 12), (9, 13), (10, 14), (11, 15)), {"2048": 8192}))
NUMA_KVM = dataclasses.replace(KVM, cells=HOST)


def changed(**changes: Any) -> DomainSpec:
    return dataclasses.replace(SPEC, **changes)


def pretty(xml: str) -> str:
    root = ET.fromstring(xml)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


@pytest.mark.parametrize(
    ("name", "spec", "disk_format", "platform"),
    [
        ("domain-qemu.xml", SPEC, "qcow2", QEMU),
        ("domain-kvm.xml", SPEC, "qcow2", KVM),
        ("domain-raw-base.xml", SPEC, "raw", KVM),
        ("domain-no-seed.xml", changed(has_seed=False), "qcow2", KVM),
        ("domain-named-cpu.xml", changed(cpu_model="Skylake-Client", machine="pc"), "qcow2", KVM),
        ("domain-cpuset.xml", changed(cpuset="0-1,8-9"), "qcow2", NUMA_KVM),
        ("domain-pinned.xml", changed(pins=(1, 5), cells=(DomainCell(2, 2048, 0, 2048),)), "qcow2", NUMA_KVM),
        ("domain-cells.xml", changed(vcpus=4, cpuset="0-1,8-11", cells=(DomainCell(1, 512, 1), DomainCell(3, 1536, 0))), "qcow2", NUMA_KVM),
        ("domain-pages.xml", changed(
            vcpus=3, memory_mb=2560, cells=(DomainCell(1, 1024, 0, 1 << 20), DomainCell(2, 1536, 1, 2048))), "qcow2", NUMA_KVM),
        ("domain-pci.xml", changed(pci=("0000:3b:00.0", "0001:af:1f.7")), "qcow2", KVM),
    ],
)
def test_domain(golden: Golden, name: str, spec: DomainSpec, disk_format: str, platform: Platform) -> None:
    """A domain is what its golden file says, and says itself what it was made from."""
    mark = Mark("3f0e…", "3f0e…:define:1:do")
    xml = domainxml.build(spec, disk_format, mark, platform)
    golden(name, pretty(xml))
    assert domainxml.parse_metadata(xml) == (spec, mark)


def test_volume(golden: Golden) -> None:
    """An overlay names its base image and both formats."""
    path = f"/var/lib/libvirt/images/novactl/base-{'5e' * 32}.raw"
    xml = domainxml.volume(domainxml.disk_name(SERVER), 10 << 30, path, "raw")
    golden("volume.xml", pretty(xml))
    assert domainxml.parse_volume(xml) == ("qcow2", path)


def test_pool(golden: Golden) -> None:
    """A pool is a directory."""
    xml = domainxml.pool("novactl", "/var/lib/libvirt/images/novactl")
    golden("pool.xml", pretty(xml))
    assert domainxml.parse_pool(xml) == ("dir", "/var/lib/libvirt/images/novactl")


def test_network(golden: Golden) -> None:
    """A NAT network gives all its addresses but the host's by DHCP."""
    subnet = ipaddress.IPv4Network("192.168.123.0/24")
    xml = networkxml.build("default", subnet)
    golden("network.xml", pretty(xml))
    assert networkxml.subnets(xml) == [subnet]


def test_moved_network(golden: Golden) -> None:
    """A network that collides moves with all it has but its addresses."""
    old = """<network><name>default</name><uuid>3a5e1f30-57b5-4b7f-9b1f-0f0d5d0a8a11</uuid><forward mode='nat'/>
      <bridge name='virbr0' stp='on' delay='0'/><mac address='52:54:00:5d:6f:37'/><ip address='192.168.122.1' netmask='255.255.255.0'>
      <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp></ip></network>"""
    golden("network-moved.xml", pretty(networkxml.moved(old, ipaddress.IPv4Network("10.122.122.0/24"))))
