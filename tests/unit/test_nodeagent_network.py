"""Which subnet a NAT network gets."""

from ipaddress import IPv4Network

from nodeagent import networkxml

ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
virbr0	007AA8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""


def test_routes() -> None:
    """Addresses are little-endian; the default route is nobody's subnet."""
    assert networkxml.parse_routes(ROUTES) == [IPv4Network("192.0.2.0/24"), IPv4Network("192.168.122.0/24")]
    assert networkxml.parse_routes("") == []


def test_a_free_subnet() -> None:
    """The usual one where it is free, else the next that overlaps nothing, in 10/8 where all of 192.168/16 is taken."""
    assert networkxml.free_subnet([]) == IPv4Network("192.168.122.0/24")
    assert networkxml.free_subnet([IPv4Network("192.168.122.0/25")]) == IPv4Network("192.168.123.0/24")
    assert networkxml.free_subnet([IPv4Network("192.168.0.0/16")]) == IPv4Network("10.122.122.0/24")
    assert networkxml.free_subnet([IPv4Network("192.168.0.0/16"), IPv4Network("10.0.0.0/8")]) is None


def test_subnets_of_a_network() -> None:
    """By netmask or prefix; IPv6 is passed over."""
    xml = """<network><ip address='10.1.2.1' prefix='24'/><ip address='192.168.9.1' netmask='255.255.255.0'/>
      <ip family='ipv6' address='fd00::1' prefix='64'/></network>"""
    assert networkxml.subnets(xml) == [IPv4Network("10.1.2.0/24"), IPv4Network("192.168.9.0/24")]
