"""Cluster: the one seam to the world, built once and passed down.

Whatever code needs from outside (the database, the agents, the time, new ids, the settings, who is asking) it asks of
a Cluster, so that the same code runs under a virtual clock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from novactl.config import Config

if TYPE_CHECKING:
    from novactl.agents.client import Agents
    from novactl.db.engine import Database
    from novactl.errors import NovaError


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that only grow, for measuring waits."""

    def sleep(self, seconds: float) -> None: ...

    def every(self, seconds: float, act: Callable[[], bool]) -> contextlib.AbstractContextManager[None]:
        """Calls `act` each so many seconds while the block runs, beside it, until it returns False."""


class SystemClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)

    @contextlib.contextmanager
    def every(self, seconds: float, act: Callable[[], bool]) -> Iterator[None]:
        """In a thread, which a short block leaves idle."""
        stop = threading.Event()

        def tick() -> None:
            while not stop.wait(seconds) and act():
                pass

        threading.Thread(target=tick, name="every", daemon=True).start()
        try:
            yield
        finally:
            stop.set()


class SharedClock:
    """The time of the database server, which all who share it reckon in; waits are by this machine's own clock.

    Without the database it is this machine's: then nothing is written of it.
    """

    def __init__(self, cluster: Cluster, own: Clock) -> None:
        self._cluster, self._own = cluster, own
        self.monotonic, self.sleep, self.every = own.monotonic, own.sleep, own.every

    def now(self) -> float:
        from novactl.errors import NovaError

        try:
            return self._cluster.db.now(self._own)
        except NovaError:
            return self._own.now()


class Ids(Protocol):
    def uuid(self) -> str:
        """A new random UUID, lower case."""

    def mac(self) -> str:
        """A new MAC address of QEMU's range 52:54:00."""


class RandomIds:
    def uuid(self) -> str:
        raw = bytearray(os.urandom(16))                       # RFC 9562 version 4, without importing uuid on hot paths
        raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
        text = raw.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def mac(self) -> str:
        return "52:54:00:" + ":".join(f"{byte:02x}" for byte in os.urandom(3))


class Cluster:
    """`db` and `agents` are opened with their first use, once, by whichever thread.

    `actor` is who asks (`user@host`), `key` the public key they use, `reason` what they said it is for. `driving` are the ids of the
    operations that this process has begun or taken over, and not ended; `late` those of dead processes that it has given to the
    background. `unheard` is, by node id, when it last asked a node for its report in vain, and what came of that.
    """

    def __init__(self, config: Config, *, clock: Clock | None = None, ids: Ids | None = None, actor: str = "") -> None:
        self.config = config
        own: Clock = clock or SystemClock()
        self.clock: Clock = own if config.database_url.startswith("sqlite") else SharedClock(self, own)
        self.ids: Ids = ids or RandomIds()
        self._actor = actor
        self.reason = ""
        self.driving: dict[str, None] = {}
        self.late: set[str] = set()
        self.unheard: dict[str, tuple[float, NovaError]] = {}
        self._opening = threading.Lock()
        self._db: Database | None = None
        self._agents: Agents | None = None

    @property
    def db(self) -> Database:
        """The database, its schema checked, and that this admin's key may read it.

        Raises NotInitialised, SchemaOlder, SchemaNewer, DatabaseFailed, Denied, BadConfig for a key that cannot be used.
        """
        with self._opening:
            if self._db is None:
                from novactl.db.admission import admit

                database = self.unchecked_db()
                database.check_schema()
                admit(database, self.key)
                self._db = database
            return self._db

    def unchecked_db(self) -> Database:
        """The database as it is: for `init` and `doctor`."""
        from novactl.db.engine import open_database

        return open_database(self.config.database_url, busy_timeout_s=self.config["database.busy_timeout_s"])

    @property
    def agents(self) -> Agents:
        with self._opening:
            if self._agents is None:
                from novactl.agents import keys
                from novactl.agents.client import Agents
                from novactl.conductor.keyring import Ring

                self._agents = Agents(
                    lambda: keys.load(self.config.data_dir / "keys"), actor=self.actor, connect_s=self.config["agent.connect_s"],
                    ring=Ring(self))
            return self._agents

    @functools.cached_property
    def actor(self) -> str:
        if self._actor:
            return self._actor
        import pwd

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
        return f"{user}@{os.uname().nodename}"

    @functools.cached_property
    def key(self) -> str:
        """Z85; "" where there is none yet. Raises BadConfig for one that is damaged, or that others can read."""
        from novactl.agents import keys
        from novactl.errors import NotInitialised

        try:
            return keys.load(self.config.data_dir / "keys").public
        except NotInitialised:
            return ""

    def forget_key(self) -> None:
        """It has been changed: read it again."""
        self.__dict__.pop("key", None)

    def close(self) -> None:
        if self._agents is not None:
            self._agents.close()
        if self._db is not None:
            self._db.close()


def open_cluster(config: Config) -> Cluster:
    """The cluster these settings describe; nothing is opened yet."""
    return Cluster(config)
