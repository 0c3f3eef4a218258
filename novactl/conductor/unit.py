"""The conductor's systemd unit: of the machine, or of one user's own manager."""

from __future__ import annotations

import os
import pwd
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from novactl.config import Config
from novactl.enroll.unit import RESTRICTED
from novactl.errors import Conflict, NovaError

UNIT = "novactl-conductor.service"
SYSTEM_DIR = Path("/etc/systemd/system")
SYSTEMD = Path("/run/systemd/system")
"""There where systemd runs (sd_booted(3))."""
TIMEOUT_S = 60

_UNIT = """\
[Unit]
Description=novactl conductor
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -P -m novactl conductor run
{environment}\
Restart=always
RestartSec=2
WatchdogSec=180
TimeoutStopSec=15
{user}\
UMask=0077
# A connection to an agent takes three.
LimitNOFILE=65536
NoNewPrivileges=yes
{sandbox}\
{restricted}\

[Install]
WantedBy={target}
"""

_SANDBOX = """\
CapabilityBoundingSet=
ProtectSystem=strict
ReadWritePaths={writable}
# Not ProtectHome=yes: ending an interrupted enrolment takes the admin's SSH keys and known hosts.
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
"""


@dataclass(frozen=True)
class Unit:
    """`path` is where it goes, `text` what it says. `state`: installed, unchanged, removed, absent, or, where only shown, would-be or
    present."""

    path: Path
    text: str
    state: str


def unit(config: Config, *, for_user: bool) -> Unit:
    """For this novactl, its settings and its data directory; run by this user. Raises Conflict for settings that only this shell has:
    a unit file, which everybody can read, must not hold them."""
    lost = sorted(name for name, origin in config.origins.items() if origin.startswith("NOVACTL_"))
    if lost:
        tables = " ".join(dict.fromkeys(f"[{name.partition('.')[0]}]" for name in lost))
        raise Conflict(
            f"set in the environment, which the conductor will not have: {', '.join(lost)}",
            hint=f"write to {config.config_file}, mode 0600, under {tables}; or unset {' '.join(config.origins[name] for name in lost)}")
    environment = [f"NOVACTL_DATA_DIR={config.data_dir}", f"NOVACTL_CONFIG={config.config_file}"]
    home = Path(__file__).parents[2]
    if str(home) not in [*site.getsitepackages(), site.getusersitepackages()]:
        environment.append(f"PYTHONPATH={home}")              # a checkout
    writable = [config.data_dir, *([Path(config.database_url.removeprefix("sqlite:///")).parent] if _is_file(config) else [])]
    text = _UNIT.format(
        restricted=RESTRICTED, python=_word(sys.executable.replace("$", "$$")),
        environment="".join(f"Environment={_word(line)}\n" for line in environment),
        user="" if for_user else f"User={pwd.getpwuid(os.getuid()).pw_name}\n",
        # a user's manager may not mount: what needs that would keep the unit from starting
        sandbox="" if for_user else _SANDBOX.format(writable=" ".join(dict.fromkeys(_word(str(path)) for path in writable))),
        target="default.target" if for_user else "multi-user.target")
    return Unit(_folder(for_user) / UNIT, text, "would-be")


def install(wanted: Unit, *, for_user: bool) -> Unit:
    """Write it, and have it run now and at boot; started anew where it changed. Raises NovaError where there is no systemd, or no right."""
    _need_systemd()
    is_there = wanted.path.exists() and wanted.path.read_text(encoding="utf-8") == wanted.text
    if not is_there:
        try:
            wanted.path.parent.mkdir(parents=True, exist_ok=True)
            part = wanted.path.with_suffix(".part")
            part.write_text(wanted.text, encoding="utf-8")
            part.chmod(0o644)
            part.rename(wanted.path)
        except OSError as error:
            raise NovaError(
                f"cannot write {wanted.path}: {error.strerror}", hint="as root it is the machine's; your own needs no right",
                command="novactl conductor install --user") from None
        _systemctl(for_user, "daemon-reload")
    _systemctl(for_user, "enable", UNIT)
    _systemctl(for_user, "start" if is_there else "restart", UNIT)
    return Unit(wanted.path, wanted.text, "unchanged" if is_there else "installed")


def uninstall(*, for_user: bool, dry_run: bool = False) -> Unit:
    """Stop it and take it away; where there is none, nothing changes. Raises NovaError as `install`. What a dry run returns is
    there still."""
    path = _folder(for_user) / UNIT
    if not path.exists():
        return Unit(path, "", "absent")
    text = path.read_text(encoding="utf-8")
    if dry_run:
        return Unit(path, text, "present")
    _need_systemd()
    _systemctl(for_user, "disable", "--now", UNIT)
    try:
        path.unlink()
    except OSError as error:
        raise NovaError(f"cannot remove {path}: {error.strerror}", hint="it was installed by root: remove it as root") from None
    _systemctl(for_user, "daemon-reload")
    return Unit(path, text, "removed")


def _need_systemd() -> None:
    if not SYSTEMD.is_dir():
        raise NoSystemd(
            f"systemd does not run here (there is no {SYSTEMD})", hint="have what keeps services here run `novactl conductor run`",
            command="novactl conductor install --dry-run")


class NoSystemd(NovaError):
    code = "no_systemd"


def _folder(for_user: bool) -> Path:
    if not for_user:
        return SYSTEM_DIR
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _is_file(config: Config) -> bool:
    return config.database_url.startswith("sqlite:///")


def _word(text: str) -> str:
    """One word of a unit file: quoted where it must be, and no % is read in it."""
    text = text.replace("%", "%%")
    if not set(text) & set(" \t\n'\"\\"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _systemctl(for_user: bool, *words: str) -> None:
    argv = ["systemctl", *(["--user"] if for_user else []), "-q", *words]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NovaError(f"{' '.join(argv)}: {error}") from None
    if done.returncode:
        raise NovaError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit status {done.returncode}'}",
                        command=f"journalctl {'--user ' if for_user else ''}-u {UNIT} -n 20")
