"""Settings: one table, read from a TOML file and the environment. Flag > environment > file > default.

The file is `$NOVACTL_CONFIG` or `$XDG_CONFIG_HOME/novactl/config.toml`:

    [database]
    url = "postgresql+psycopg://novactl@db.example/novactl"
    [placement]
    fresh_s = 60

A setting `database.url` is `NOVACTL_DATABASE_URL` in the environment. An unknown key is an error, not a surprise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from novactl.errors import BadConfig


class Setting(NamedTuple):
    name: str
    default: Any
    help: str
    minimum: float | None = None
    maximum: float = 1e9
    """Of numbers: further than any deadline needs to be, and near enough to be a date."""


SETTINGS: tuple[Setting, ...] = (
    Setting("database.url", "", "SQLAlchemy URL; empty: SQLite in the data directory"),
    Setting("database.busy_timeout_s", 60.0, "how long a writer waits for another one's transaction", 1, 1e6),
    Setting("agent.port", 7766, "TCP port of the agents enrolled from now on", 1, 65535),
    Setting("agent.connect_s", 3.0, "how long a node may take to answer at all before it counts as silent", 0.05, 1e6),
    Setting("agent.report_interval_s", 10.0, "how often an agent takes a report", 0.5),
    Setting("placement.fresh_s", 60.0, "a report older than this does not place servers", 1),
    Setting("placement.refresh_s", 10.0, "a report older than this is asked for anew before placing", 0),
    Setting("placement.max_attempts", 3, "nodes tried for one server", 1),
    Setting("placement.profile", "default", "the scheduler's profile (novactl scheduler list)"),
    Setting("placement.filters", "", "filters: a whole list 'enabled,resources', or changes to the profile's '+gpu_free,-zone'"),
    Setting("placement.weighers", "", "weighers: a whole list 'ram=1.0,balance=2', or changes to the profile's '+ram=1.0,-servers'"),
    Setting("placement.host_subset_size", 1, "one of so many best nodes is taken by chance", 1),
    Setting("placement.shuffle_equals", False, "among equally good nodes chance decides, not the id"),
    Setting("placement.max_servers", 50, "servers on one node unless its aggregates say otherwise; needs +servers_limit in filters", 1),
    Setting("placement.max_io_ops", 8, "operations under way on one node, likewise; needs +io_ops in filters", 1),
    Setting("placement.isolated_images", "", "images that only isolated nodes take: names, by comma"),
    Setting("placement.isolated_nodes", "", "nodes kept for isolated images: names, by comma"),
    Setting("placement.restrict_isolated", True, "isolated nodes take isolated images only"),
    Setting("placement.metrics", "", "what one unit of a measured load weighs: 'load_1m=-1.0,memory_used_mb=-0.001'"),
    Setting("placement.metrics_required", True, "a node without those measurements takes no servers"),
    Setting("placement.image_properties", "", "what a server of the same image property nearby weighs: 'os_distro=1.0'"),
    Setting("placement.pci_aliases", "", "names of PCI devices: 'gpu=10de:1db4', by comma"),
    Setting("placement.cpu_ratio", 4.0, "VCPU claimed per host CPU, for nodes enrolled from now on", 0.001),
    Setting("placement.ram_ratio", 1.0, "memory claimed per host memory, for nodes enrolled from now on", 0.001),
    Setting("placement.disk_ratio", 1.0, "disk claimed per pool size, for nodes enrolled from now on", 0.001),
    Setting("placement.reserved_ram_mb", 512, "memory kept for the host itself, for nodes enrolled from now on", 0),
    Setting("image.max_virtual_gb", 2048, "the largest virtual disk an image may have", 1),
    Setting("image.max_file_gb", 256, "the largest image file", 1),
    Setting("operation.lease_s", 30.0, "a process silent for this long no longer holds its operation", 2),
    Setting("operation.parallel", 4, "servers created, or operations resumed, at a time by one command", 1),
    Setting("operation.retries", 3, "how often a step is tried again where the same may succeed in a moment", 0),
    Setting("operation.retry_s", 0.5, "the wait before the first of these; each further one is twice as long", 0),
    Setting("timeout.build_s", 3600.0, "an operation that takes longer is turned back: creating a server; 0: never", 0),
    Setting("timeout.start_s", 600.0, "the same for starting a server", 0),
    Setting("timeout.stop_s", 600.0, "the same for stopping a server, beside its grace", 0),
    Setting("timeout.reboot_s", 600.0, "the same for rebooting a server, beside its grace", 0),
    Setting("timeout.delete_s", 600.0, "the same for deleting a server, beside its grace", 0),
    Setting("timeout.enroll_s", 3600.0, "the same for enrolling and removing a node", 0),
    Setting("timeout.default_s", 3600.0, "the same for every other operation", 0),
    Setting("conductor.lease_s", 10.0, "a conductor silent for this long no longer leads: another one does", 1),
    Setting("conductor.verify_s", 300.0, "how often the conductor compares nodes with the database in full", 1),
    Setting("conductor.hook", "", "a command run for each event, the event as JSON on its standard input; no shell reads it"),
    Setting("conductor.hook_timeout_s", 10.0, "after so long the hook is killed", 0.1),
    Setting("conductor.publish", "", "where the leading conductor publishes events, for admins' keys only: 'tcp://0.0.0.0:7767'"),
    Setting("retention.operations_days", 90, "ended operations are forgotten after so many days; 0: never", 0),
    Setting("retention.events_days", 365, "the same for events", 0),
    Setting("retention.deleted_servers_days", 90, "the same for deleted servers", 0),
    Setting("node.down_s", 60.0, "a node silent for this long is down; before that it is stale", 0),
    Setting("ha.fence_after_s", 120.0, "the conductor fences a node with --ha servers that is silent for so long; 0: never", 0),
    Setting("server.stop_grace_s", 30.0, "seconds a guest gets to shut down by itself", 0),
    Setting("server.delete_grace_s", 0.0, "the same, before a server is deleted", 0),
)


class Config:
    """The settings in force. `config["placement.fresh_s"]`; `origins` says where each came from."""

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str], data_dir: Path, file: Path) -> None:
        self._values = MappingProxyType(dict(values))
        self.origins = MappingProxyType(dict(origins))
        self.data_dir = data_dir
        self.config_file = file

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    @property
    def sqlite_path(self) -> Path:
        return self.data_dir / "novactl.db"

    @property
    def database_url(self) -> str:
        return self._values["database.url"] or f"sqlite:///{self.sqlite_path}"

    def replace(self, **values: Any) -> Config:
        """A copy with some settings changed; `__` stands for the dot (`placement__fresh_s=5`)."""
        named = {name.replace("__", "."): value for name, value in values.items()}
        return Config({**self._values, **named}, {**self.origins, **dict.fromkeys(named, "argument")}, self.data_dir, self.config_file)


def load_config(path: Path | None = None, env: Mapping[str, str] = os.environ) -> Config:
    """Read the settings. Raises BadConfig naming file, key and what is accepted. Writes nothing."""
    home = Path(env.get("HOME") or "/root")
    file = path or Path(env.get("NOVACTL_CONFIG") or _xdg(env, "XDG_CONFIG_HOME", home / ".config") / "novactl" / "config.toml")
    data_dir = Path(env.get("NOVACTL_DATA_DIR") or _xdg(env, "XDG_DATA_HOME", home / ".local" / "share") / "novactl")
    values = {setting.name: setting.default for setting in SETTINGS}
    origins = dict.fromkeys(values, "default")
    if path is not None and not path.exists():
        raise BadConfig(f"there is no config file {path}")
    if file.exists():
        for name, value in _read_file(file).items():
            values[name], origins[name] = _checked(name, value, str(file)), str(file)
    for setting in SETTINGS:
        variable = "NOVACTL_" + setting.name.upper().replace(".", "_")
        if variable in env:
            values[setting.name] = _checked(setting.name, _parsed(setting, env[variable], variable), variable)
            origins[setting.name] = variable
    return Config(values, origins, data_dir.absolute(), file)


def _xdg(env: Mapping[str, str], variable: str, default: Path) -> Path:
    return Path(env[variable]) if env.get(variable, "").startswith("/") else default


def _read_file(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        plain = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as bad:
        raise BadConfig(f"cannot read {file}: {bad}") from None
    flat: dict[str, Any] = {}
    for section, content in plain.items():
        if isinstance(content, dict):
            flat.update({f"{section}.{key}": value for key, value in content.items()})
        else:
            flat[section] = content
    return flat


_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _parsed(setting: Setting, text: str, where: str) -> Any:
    if type(setting.default) is bool:
        if text.lower() not in _BOOLEANS:
            raise BadConfig(f"{where}: {text!r} is neither true nor false", hint=f"one of {', '.join(_BOOLEANS)}")
        return _BOOLEANS[text.lower()]
    try:
        return type(setting.default)(text)
    except ValueError:
        raise BadConfig(f"{where}: {text[:40]!r} is not a {type(setting.default).__name__}") from None


def _checked(name: str, value: Any, where: str) -> Any:
    setting = next((s for s in SETTINGS if s.name == name), None)
    if setting is None:
        import difflib

        close = difflib.get_close_matches(name, [s.name for s in SETTINGS], 1)
        raise BadConfig(
            f"{where}: unknown setting {name!r}",
            hint=f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(s.name for s in SETTINGS),
        )
    wanted = type(setting.default)
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise BadConfig(f"{where}: {name} must be a {wanted.__name__}, not {value!r}")
    if wanted in (int, float) and not abs(value) <= setting.maximum:      # nan is neither more nor less
        shown = f"{value:g}" if type(value) is float else f"a number of {value.bit_length()} bits" if value.bit_length() > 64 else value
        raise BadConfig(
            f"{where}: {name} must be a number up to {setting.maximum:.10g}, not {shown}",
            hint="0 is never" if name.startswith("timeout.") else "")
    if wanted is float:
        value = float(value)
    if setting.minimum is not None and value < setting.minimum:
        raise BadConfig(f"{where}: {name} must be at least {setting.minimum:g}, not {value!r}")
    return value
