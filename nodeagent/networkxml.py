"""The NAT network with DHCP, as libvirt wants it, on a /24 that the host does not use. Pure; ElementTree only."""

import ipaddress
import xml.etree.ElementTree as ET
from typing import Iterable, List, Optional, Sequence, Set

Net = ipaddress.IPv4Network

CANDIDATES: Sequence[Net] = tuple(
    Net(text) for text in [f"192.168.{n}.0/24" for n in range(122, 255)] + [f"10.{n}.122.0/24" for n in range(122, 200)]
)


def build(name: str, subnet: Net) -> str:
    """A NAT network: the host is the first address, DHCP gives the others."""
    hosts = list(subnet.hosts())
    network = ET.Element("network")
    ET.SubElement(network, "name").text = name
    ET.SubElement(network, "forward", {"mode": "nat"})
    ET.SubElement(network, "bridge", {"stp": "on", "delay": "0"})
    address = ET.SubElement(network, "ip", {"address": str(hosts[0]), "netmask": str(subnet.netmask)})
    dhcp = ET.SubElement(address, "dhcp")
    ET.SubElement(dhcp, "range", {"start": str(hosts[1]), "end": str(hosts[-1])})
    return ET.tostring(network, encoding="unicode")


def subnets(xml: str) -> List[Net]:
    """The IPv4 subnets of a network's XML."""
    found = []
    for address in ET.fromstring(xml).findall("ip"):
        mask = address.get("netmask") or address.get("prefix")
        if mask and address.get("family", "ipv4") == "ipv4":
            found.append(Net(f"{address.get('address')}/{mask}", strict=False))
    return found


def moved(xml: str, subnet: Net) -> str:
    """A network's XML with its first IPv4 address and DHCP range on `subnet` instead."""
    network = ET.fromstring(xml)
    hosts = list(subnet.hosts())
    for address in network.findall("ip"):
        if address.get("family", "ipv4") == "ipv4":
            address.attrib.pop("prefix", None)
            address.set("address", str(hosts[0]))
            address.set("netmask", str(subnet.netmask))
            for part in list(address):
                address.remove(part)
            dhcp = ET.SubElement(address, "dhcp")
            ET.SubElement(dhcp, "range", {"start": str(hosts[1]), "end": str(hosts[-1])})
            break
    return ET.tostring(network, encoding="unicode")


def networks_of(domain_xml: str) -> Set[str]:
    """A domain's XML -> the networks its interfaces are on."""
    found = ET.fromstring(domain_xml).findall("devices/interface/source")
    return {source.get("network", "") for source in found} - {""}


def parse_routes(text: str) -> List[Net]:
    """/proc/net/route -> the subnets the host has routes to, the default route left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 8 and fields[7] != "00000000":
            found.append(Net((_little_endian(fields[1]), _little_endian(fields[7])), strict=False))
    return found


def _little_endian(text: str) -> str:
    return str(ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(text), "little")))


def collides(subnet: Net, used: Iterable[Net]) -> bool:
    return any(subnet.overlaps(other) for other in used)


def free_subnet(used: Iterable[Net]) -> Optional[Net]:
    """The first candidate that overlaps nothing in `used`; None where all do."""
    taken = list(used)
    return next((candidate for candidate in CANDIDATES if not collides(candidate, taken)), None)
