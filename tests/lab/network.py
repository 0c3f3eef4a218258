"""The lab's network: one bridge, a namespace and a veth pair for each host, and rules that cut hosts off."""

import subprocess
from pathlib import Path


def command(*words: str, check: bool = True, stdin: str | None = None) -> str:
    """Run a command to its end and return its stdout. Raises RuntimeError with its stderr when it fails and `check`."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def hardware_address(address: str) -> str:
    """A MAC that follows from the IPv4 address: a host that comes back keeps it, so no neighbour has to forget."""
    return "02:4e:" + ":".join(f"{int(part):02x}" for part in address.split("."))


class Network:
    """Slot `slot`'s bridge `ntl<slot>` with 10.76.<slot>.1 on it. Every method may be called again."""

    def __init__(self, slot: int) -> None:
        self.bridge = f"ntl{slot}"
        self.prefix = f"10.76.{slot}"
        self.address = f"{self.prefix}.1"

    def namespace(self, name: str) -> str:
        return f"{self.bridge}-{name}"

    def ensure_bridge(self) -> None:
        if not Path(f"/sys/class/net/{self.bridge}").exists():
            command("ip", "link", "add", self.bridge, "address", hardware_address(self.address), "type", "bridge")
        command("ip", "addr", "replace", f"{self.address}/24", "dev", self.bridge)
        command("ip", "link", "set", self.bridge, "up")
        command("nft", "-f", "-", stdin=self._rules())

    def _rules(self) -> str:
        table = f"bridge {self.bridge}"
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; iifname @from_host drop; oifname @to_host drop; }}\n"
            for hook in ("input", "forward", "output")
        )
        sets = "set from_host { type ifname; }\nset to_host { type ifname; }\n"
        return f"table {table} {{}}\ndelete table {table}\ntable {table} {{\n{sets}{chains}}}\n"

    def add(self, name: str, address: str) -> None:
        """A namespace whose eth0 is on the bridge with `address`; one of that name is replaced."""
        space = self.namespace(name)
        self.drop(name)
        command("ip", "netns", "add", space)
        inner = ("peer", "name", "eth0", "address", hardware_address(address), "netns", space)
        command("ip", "link", "add", space, "type", "veth", *inner)
        command("ip", "link", "set", space, "master", self.bridge, "up")
        command("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        command("ip", "-n", space, "link", "set", "eth0", "up")
        command("ip", "-n", space, "link", "set", "lo", "up")
        command("ip", "-n", space, "route", "add", "default", "via", self.address)

    def drop(self, name: str) -> None:
        """Kill what still runs in the namespace and remove it."""
        space = self.namespace(name)
        if Path(f"/run/netns/{space}").exists():
            for pid in command("ip", "netns", "pids", space, check=False).split():
                command("kill", "-KILL", pid, check=False)
            command("ip", "netns", "del", space, check=False)
        if Path(f"/sys/class/net/{space}").exists():
            command("ip", "link", "del", space, check=False)

    def cut(self, name: str, *, to_host: bool = True, from_host: bool = True) -> None:
        """Drop every frame to and from the host, silently, as an unplugged switch would."""
        for way, wanted in (("to_host", to_host), ("from_host", from_host)):
            if wanted:
                command("nft", "add", "element", "bridge", self.bridge, way, f'{{ "{self.namespace(name)}" }}')

    def heal(self) -> None:
        """Let all traffic through again."""
        command("nft", "-f", "-", stdin=f"flush set bridge {self.bridge} to_host\nflush set bridge {self.bridge} from_host\n")

    def remove(self) -> None:
        """Every namespace, link and rule of this slot, also those of a run that crashed."""
        spaces = Path("/run/netns")
        for space in spaces.iterdir() if spaces.is_dir() else ():
            if space.name.startswith(f"{self.bridge}-"):
                self.drop(space.name.removeprefix(f"{self.bridge}-"))
        command("nft", "delete", "table", "bridge", self.bridge, check=False)
        command("ip", "link", "del", self.bridge, check=False)
