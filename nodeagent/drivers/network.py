"""The NAT network through libvirt, and the addresses its DHCP gave. `link` is drivers/link.py's."""

from typing import Dict, List, Mapping, MutableMapping, Tuple

from nodeagent import networkxml
from nodeagent.journal import log
from nodeagent.refusal import Refused
from nodeagent.wire import Code


class Networks:
    def __init__(self, link) -> None:
        self._link = link

    def prepare(self, name: str, made: MutableMapping[str, str]) -> None:
        """Defined, active, autostarted; what was changed for it is noted in `made`.

        A network that is there keeps its definition, unless it is off and its subnet is one the host uses
        otherwise: then it moves to a free one, and the old definition is kept for `unprepare`.
        """
        with self._link.acting(f"prepare network {name}") as conn:
            network = self._network(conn, name)
            if network is None:
                network = conn.networkDefineXML(networkxml.build(name, self._free()))
                made["network"] = name
            elif not network.isActive():
                network = self._moved(conn, network, made)
            if not network.isActive():
                network.create()
                made.setdefault("network_started", name)
            if not network.autostart():
                network.setAutostart(1)
                made.setdefault("network_autostart", name)

    def activate(self, name: str) -> None:
        with self._link.acting(f"activate network {name}") as conn:
            network = self._network(conn, name)
            if network is not None and not network.isActive():
                network.create()

    def unprepare(self, name: str, made: Mapping[str, str]) -> None:
        """As it was before `prepare`."""
        with self._link.acting(f"remove network {name}") as conn:
            network = self._network(conn, name)
            if network is None:
                return
            users = self._users(conn, name)
            if users and name in (made.get("network"), made.get("network_started")):
                log(f"network {name} stays: {', '.join(users)} use it")
            elif made.get("network") == name:
                if network.isActive():
                    network.destroy()
                network.undefine()
            else:
                self._restore(conn, network, made)

    def _restore(self, conn, network, made: Mapping[str, str]) -> None:
        """A network that was there before us, as it was."""
        name = network.name()
        if made.get("network_autostart") == name:
            network.setAutostart(0)
        if made.get("network_started") == name and network.isActive():
            network.destroy()
        if made.get("network_xml"):
            conn.networkDefineXML(made["network_xml"])

    def _users(self, conn, name: str) -> List[str]:
        """Running domains with an interface on the network."""
        active = conn.listAllDomains(self._link.lib.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return [domain.name() for domain in active if name in networkxml.networks_of(domain.XMLDesc(0))]

    def addresses(self, name: str) -> Dict[str, Tuple[str, ...]]:
        """MAC -> addresses leased on the network; empty where there is no such network or it is off."""
        found: Dict[str, Tuple[str, ...]] = {}
        try:
            with self._link.acting(f"read the leases of network {name}") as conn:
                network = self._network(conn, name)
                for lease in network.DHCPLeases() if network is not None else ():
                    mac = (lease.get("mac") or "").lower()
                    found[mac] = tuple(sorted({*found.get(mac, ()), lease["ipaddr"]}))
        except Refused as refused:
            if refused.failure.retryable:
                raise
        return found

    def _network(self, conn, name: str):
        return self._link.found(conn.networkLookupByName, name)

    def _moved(self, conn, network, made: MutableMapping[str, str]):
        old = network.XMLDesc(0)
        routes = _host_routes()
        if not any(networkxml.collides(subnet, routes) for subnet in networkxml.subnets(old)):
            return network
        new = networkxml.moved(old, self._free())
        log(f"network {network.name()} is on a subnet this host uses: it moves to {networkxml.subnets(new)[0]}")
        made.setdefault("network_xml", old)
        return conn.networkDefineXML(new)

    def _free(self) -> networkxml.Net:
        subnet = networkxml.free_subnet(_host_routes())
        if subnet is None:
            raise Refused(Code.CONFLICT, "the host uses every subnet a network could have", elsewhere=True)
        return subnet


def _host_routes():
    with open("/proc/net/route", encoding="ascii") as file:
        return networkxml.parse_routes(file.read())
