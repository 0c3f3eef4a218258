"""The agent without its socket: what handlers work with."""

import dataclasses
import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from nodeagent import __version__, wire
from nodeagent.autostart import Autostart, going_down
from nodeagent.clock import Clock
from nodeagent.config import Config
from nodeagent.consoles import Consoles
from nodeagent.drivers.base import Driver
from nodeagent.images import ImageStore
from nodeagent.ledger import Ledger
from nodeagent.patience import Patience
from nodeagent.poolid import PoolId
from nodeagent.secretfile import write_private
from nodeagent.selffence import SelfFence
from nodeagent.strays import strays

_PYTHON = sys.version.split()[0]
_SPEAKS = tuple(protocol.decode() for protocol in wire.SPEAKS)


@dataclass(frozen=True)
class Prepared:
    """What `node.prepare` asked for last, and what was made for it."""

    network: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)


class Changes:
    """Domains changed state: wakes those who wait for one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.hook: Callable[[], None] = lambda: None

    def notify(self) -> None:
        with self._condition:
            self._condition.notify_all()
        self.hook()

    def wait_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """True as soon as `done()`, asked at every change (and each second, should one go unseen); False after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            if done():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._condition:
                self._condition.wait(min(left, 1.0))


class Agent:
    """One node's side: built once, given to every handler."""

    def __init__(self, config: Config, driver: Driver, clock: Clock, ledger: Ledger, admins) -> None:
        self.config, self.driver, self.clock, self.ledger, self.admins = config, driver, clock, ledger, admins
        self.images = ImageStore(config.pool_dir, config.node_id)
        self.pool_id = PoolId(config.pool_dir)
        self._pool = Patience(f"the pool {config.pool_dir}")
        self.consoles = Consoles()
        self.changes = Changes()
        self.autostart = Autostart(self)
        self.self_fence = SelfFence(os.path.join(config.state_dir, "lease.json"), clock)
        self.define_lock = threading.Lock()
        self.zmq_version = ""
        self.own_keys: Any = None
        self._report: Optional[wire.Report] = None
        self._reports, self._is_reporting = threading.Condition(), False
        self._prepared_path = os.path.join(config.state_dir, "node.json")
        self.prepared = _read_prepared(self._prepared_path)

    def start(self) -> None:
        """Connect the driver and make active again what `node.prepare` made."""
        self.ledger.of_cluster(self.config.cluster_id)
        if self.prepared.network:
            self.driver.activate(self.prepared.network)
        self.autostart.begin()
        self.driver.start(self.changes.notify)

    def close(self) -> None:
        """Guests go on running."""
        self.consoles.close_all("the agent stops")
        self.driver.close()
        self.ledger.close()

    def set_prepared(self, prepared: Prepared) -> None:
        """Remembered across restarts, before this returns."""
        plain = {"network": prepared.network, "limits": dict(prepared.limits), "made": dict(prepared.made)}
        write_private(self._prepared_path, json.dumps(plain))
        self.prepared = prepared

    def hello(self, role: str) -> wire.Hello:
        seq, operation = self.ledger.highest()
        return wire.Hello(
            agent_version=__version__,
            speaks=_SPEAKS,
            node_id=self.config.node_id,
            cluster_id=self.config.cluster_id,
            boot_id=self.clock.boot_id,
            boottime_s=self.clock.boottime_s(),
            role=role,
            python_version=_PYTHON,
            zmq_version=self.zmq_version,
            driver=self.driver.name,
            seq=seq,
            seq_operation=operation,
            admins_version=self.admins.version,
        )

    def report(self, max_age_s: float) -> wire.Report:
        """What the node is and has, at most `max_age_s` old when it was asked for.

        Those who ask while one is being taken share the next one, which began after they asked.
        """
        asked_s = self.clock.boottime_s()

        def is_fresh() -> bool:
            return self._report is not None and asked_s - self._report.taken_s <= max_age_s

        with self._reports:
            self._reports.wait_for(lambda: is_fresh() or not self._is_reporting)
            report = self._report if is_fresh() else None
            self._is_reporting = self._is_reporting or report is None
        if report is None:
            report = self._next_report()
        values: Dict[str, object] = dict(
            vars(report), age_s=max(0.0, self.clock.boottime_s() - report.taken_s), admins_version=self.admins.version,
            self_fence_s=self.self_fence.self_fence_s)
        return wire.Report(**values)  # type: ignore[arg-type]

    def _next_report(self) -> wire.Report:
        """Take one, as the only one who does, and let those who wait have it."""
        report = None
        try:
            report = self._take_report(self.clock.boottime_s())
            return report
        finally:
            with self._reports:
                self._report, self._is_reporting = report or self._report, False
                self._reports.notify_all()

    def _take_report(self, now_s: float) -> wire.Report:
        host, found, (seq, operation) = self.driver.host(), self.driver.states(), self.ledger.highest()
        known = {state.server for state in found.domains}
        pool_id, images, files = self._pool.ask(
            lambda: (self.pool_id.read(), tuple(self.images.list()), strays(self.config.pool_dir, known)))
        report = wire.Report(
            node_id=self.config.node_id,
            agent_version=__version__,
            boot_id=self.clock.boot_id,
            taken_s=now_s,
            age_s=0.0,
            domains=(),
            images=images,
            foreign_domains=found.foreign,
            wild=found.wild,
            files=files,
            pool_id=pool_id,
            going_down=going_down(),
            seq=seq,
            seq_operation=operation,
            fencings=self.self_fence.count,
            lacks_lease=self.self_fence.lacks_lease(),
            **dict(vars(host), versions={**host.versions, "agent": __version__, "python": _PYTHON}),
        )
        domains = self._with_runs(found.domains)
        count = wire.fitting(domains, wire.MAX_BODY_BYTES - len(json.dumps(wire.to_plain(report), ensure_ascii=False).encode()))
        return dataclasses.replace(report, domains=domains[:count], domains_left=len(domains) - count)

    def cached_images(self) -> Tuple[wire.CachedImage, ...]:
        """Raises Refused where the pool hangs."""
        return self._pool.ask(lambda: tuple(self.images.list()))

    def states(self) -> Tuple[wire.DomainState, ...]:
        """All servers here, in the order of ids."""
        return self._with_runs(self.driver.states().domains)

    def has_started(self, server: str) -> wire.DomainState:
        """The server's state, after this agent has started it."""
        state = self.driver.state(server)
        self.ledger.should_run(server, True, self._run_of(state))
        return dataclasses.replace(state, started_by_us=True)

    def _run_of(self, state: wire.DomainState) -> str:
        return f"{self.clock.boot_id}:{state.run}" if state.run else ""

    def _with_runs(self, states: Tuple[wire.DomainState, ...]) -> Tuple[wire.DomainState, ...]:
        ours = {server: wanted.run for server, wanted in self.ledger.wanted().items()}
        return tuple(
            dataclasses.replace(state, started_by_us=True) if state.run and ours.get(state.server) == self._run_of(state) else state
            for state in states)


def _read_prepared(path: str) -> Prepared:
    try:
        with open(path, encoding="utf-8") as file:
            return Prepared(**json.load(file))
    except FileNotFoundError:
        return Prepared()
    except (ValueError, TypeError) as bad:
        raise ValueError(f"{path}: {bad}") from None
