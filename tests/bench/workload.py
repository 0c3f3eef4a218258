"""Made-up workloads for placement (format placement-workload/1, novactl/scheduler/replay.py), always the same for the same seed.

`fit` creates servers until they would need 1.10 times what there is; `churn` fills to a share and then deletes one at random and
creates another, over and over; `speed` only creates, from empty or from a share on.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FLAVORS = (  # name, vcpus, ram_mb, disk_gb, weight (1:1 to 1:8 GiB a vcpu)
    ("g1.tiny", 1, 1024, 10, 14), ("g1.small", 1, 2048, 20, 20), ("g1.medium", 2, 4096, 40, 22), ("g1.large", 4, 8192, 80, 14),
    ("c1.large", 8, 8192, 80, 9), ("r1.large", 2, 16384, 100, 7), ("g1.xlarge", 8, 16384, 160, 6), ("c1.2xlarge", 16, 16384, 160, 3),
    ("r1.2xlarge", 8, 65536, 200, 2), ("g1.4xlarge", 24, 65536, 400, 2), ("g1.8xlarge", 48, 131072, 800, 1),
)
HOSTS = {  # kind -> (cpus, ram_mb, disk_gb, share of the hosts)
    "uniform": ((64, 262144, 4000, 1.0),),
    "mixed": ((48, 196608, 3000, 0.45), (64, 262144, 4000, 0.30), (96, 393216, 8000, 0.15), (32, 393216, 4000, 0.10)),
}
CLASSES = (("vcpus", "cpus", "cpu"), ("ram_mb", "ram_mb", "ram"), ("disk_gb", "disk_gb", "disk"))
"""What a flavor, a host and the ratios call it."""


def generate(
    hosts: int, seed: int = 1, kind: str = "mixed", trace: str = "speed", *, requests: int = 500, fill: float | None = None,
    cpu_ratio: float = 2.0,
) -> dict[str, Any]:
    chance = random.Random(f"{seed}/{kind}/{hosts}")
    fleet = [_host(chance, number, HOSTS[kind]) for number in range(hosts)]
    ratios = {"cpu": cpu_ratio, "ram": 1.0, "disk": 1.0}
    flavors = [dict(zip(("name", "vcpus", "ram_mb", "disk_gb", "weight"), flavor, strict=True)) for flavor in FLAVORS]
    total = [sum(int(host[there] * ratios[ratio]) for host in fleet) for _, there, ratio in CLASSES]
    steps = list(_Trace(chance, flavors, total).steps(trace, requests, fill))
    return {
        "format": "placement-workload/1", "name": f"{kind}-{trace}-n{hosts}-s{seed}", "seed": seed, "ratios": ratios, "hosts": fleet,
        "flavors": flavors, "requests": steps}


def _host(chance: random.Random, number: int, kinds: Sequence[tuple[int, int, int, float]]) -> dict[str, Any]:
    drawn, upto, kind = chance.random(), 0.0, 0
    while drawn >= (upto := upto + kinds[kind][3]) and kind + 1 < len(kinds):
        kind += 1
    cpus, ram_mb, disk_gb, _ = kinds[kind]
    return {"name": f"host{number:06d}", "cpus": cpus, "ram_mb": ram_mb, "disk_gb": disk_gb, "az": f"az{number % 3}"}


class _Trace:
    """The requests, and what would be used if all of them had been placed."""

    def __init__(self, chance: random.Random, flavors: Sequence[Mapping[str, Any]], total: Sequence[int]) -> None:
        self.chance, self.flavors, self.total = chance, flavors, total
        self.weights = [flavor["weight"] for flavor in flavors]
        self.used = [0] * len(total)
        self.live: list[tuple[str, Mapping[str, Any]]] = []
        self.serial = 0

    def steps(self, trace: str, requests: int, fill: float | None) -> Iterator[dict[str, str]]:
        upto = {"fit": 1.10, "churn": 0.85 if fill is None else fill, "speed": fill or 0.0}[trace]
        while max(used / total for used, total in zip(self.used, self.total, strict=True)) < upto:
            yield self._create()
        for _ in range(0 if trace == "fit" else requests):
            if trace == "churn":
                yield self._delete()
            yield self._create()

    def _create(self) -> dict[str, str]:
        flavor = self.chance.choices(self.flavors, self.weights)[0]
        self.serial += 1
        self._count(flavor, 1)
        self.live.append((f"vm{self.serial:07d}", flavor))
        return {"op": "create", "id": self.live[-1][0], "flavor": flavor["name"]}

    def _delete(self) -> dict[str, str]:
        at = self.chance.randrange(len(self.live))
        name, flavor = self.live[at]
        self.live[at] = self.live[-1]
        self.live.pop()
        self._count(flavor, -1)
        return {"op": "delete", "id": name}

    def _count(self, flavor: Mapping[str, Any], sign: int) -> None:
        self.used = [used + sign * flavor[name] for used, (name, _, _) in zip(self.used, CLASSES, strict=True)]


def check(workload: Mapping[str, Any], results: Mapping[str, str | None]) -> None:
    """Fails when a host was over its capacity at any time."""
    ratios, flavors = workload["ratios"], {flavor["name"]: flavor for flavor in workload["flavors"]}
    free = {host["name"]: [int(host[there] * ratios[ratio]) for _, there, ratio in CLASSES] for host in workload["hosts"]}
    where: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for step in workload["requests"]:
        if step["op"] == "create":
            host = results.get(step["id"])
            if not host:
                continue
            where[step["id"]] = host, flavors[step["flavor"]]
            sign = -1
        elif step["id"] in where:
            sign = 1
        else:
            continue
        host, flavor = where[step["id"]] if sign < 0 else where.pop(step["id"])
        free[host] = [left + sign * flavor[name] for left, (name, _, _) in zip(free[host], CLASSES, strict=True)]
        assert min(free[host]) >= 0, f"host {host} is over its capacity with {step['id']}"
