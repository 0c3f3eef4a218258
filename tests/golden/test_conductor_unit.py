"""The conductor's systemd unit, as it is written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from novactl.conductor import unit
from novactl.config import load_config
from novactl.errors import Conflict, NovaError

HERE = Path(__file__).parent / "conductor"


def made(monkeypatch: pytest.MonkeyPatch, *, for_user: bool, **env: str) -> unit.Unit:
    """For an installed novactl of the user root."""
    monkeypatch.setattr(sys, "executable", "/opt/novactl/bin/python")
    monkeypatch.setattr("site.getsitepackages", lambda: [str(Path(unit.__file__).parents[2])])
    monkeypatch.setattr("pwd.getpwuid", lambda uid: type("Entry", (), {"pw_name": "ann"}))
    config = load_config(env={"HOME": "/home/ann", "NOVACTL_DATA_DIR": "/home/ann/.local/share/novactl", **env})
    return unit.unit(config, for_user=for_user)


@pytest.mark.parametrize("for_user", [False, True], ids=["machine", "user"])
def test_the_unit_is_what_it_was(for_user: bool, monkeypatch: pytest.MonkeyPatch, golden: Callable[[Path, str], None]) -> None:
    """Of the machine's manager with every lock that the conductor can live with, of a user's with those that a user may set."""
    golden(HERE / f"{'user' if for_user else 'machine'}.service", made(monkeypatch, for_user=for_user).text)


def test_odd_paths_stay_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A space, a quote or a percent sign in a path is no more than that."""
    text = made(monkeypatch, for_user=False, NOVACTL_DATA_DIR='/srv/a b"c%d').text
    assert 'Environment="NOVACTL_DATA_DIR=/srv/a b\\"c%%d"\n' in text and 'ReadWritePaths="/srv/a b\\"c%%d"\n' in text


def test_no_secret_goes_into_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database URL that only this shell knows is refused: unit files can be read by everybody."""
    with pytest.raises(Conflict, match=r"database\.url") as refused:
        made(monkeypatch, for_user=False, NOVACTL_DATABASE_URL="postgresql+psycopg://ann:secret@db/novactl")
    assert "secret" not in refused.value.message + refused.value.hint


def test_no_setting_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that only this shell has are named, with the variables and where they belong; those of a file are the conductor's too."""
    with pytest.raises(Conflict, match=r"will not have: conductor\.hook, ha\.fence_after_s$") as refused:
        made(monkeypatch, for_user=True, NOVACTL_HA_FENCE_AFTER_S="5", NOVACTL_CONDUCTOR_HOOK="/usr/bin/tell")
    assert "under [conductor] [ha]" in refused.value.hint
    assert refused.value.hint.endswith("unset NOVACTL_CONDUCTOR_HOOK NOVACTL_HA_FENCE_AFTER_S")


def test_what_the_file_says_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The conductor reads the same file."""
    (tmp_path / "c.toml").write_text('[conductor]\nhook = "/usr/bin/tell"\n')
    assert f"NOVACTL_CONFIG={tmp_path}/c.toml" in made(monkeypatch, for_user=True, NOVACTL_CONFIG=str(tmp_path / "c.toml")).text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's tools are not installed")
@pytest.mark.parametrize("for_user", [False, True], ids=["machine", "user"])
def test_systemd_understands_it(for_user: bool, tmp_path: Path) -> None:
    """`systemd-analyze verify` has no complaint about the unit of this novactl."""
    config = load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path)})
    path = tmp_path / unit.UNIT
    path.write_text(unit.unit(config, for_user=for_user).text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(["--user"] if for_user else []), "--man=no", str(path)],
        capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if unit.UNIT in line] == []


def test_where_there_is_no_systemd_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The refusal says what to do instead; taking away what is not there is no error."""
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path / "nothing")
    monkeypatch.setattr(unit, "SYSTEM_DIR", tmp_path)
    wanted = made(monkeypatch, for_user=False)
    with pytest.raises(NovaError, match="systemd does not run here") as refused:
        unit.install(wanted, for_user=False)
    assert "novactl conductor run" in refused.value.hint and list(tmp_path.iterdir()) == []
    assert unit.uninstall(for_user=False).state == "absent"


def test_installing_twice_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The second time the file is left alone and the service not restarted; uninstalling leaves nothing."""
    said: list[str] = []
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path)
    monkeypatch.setattr(unit, "SYSTEM_DIR", tmp_path / "system")
    monkeypatch.setattr(unit, "_systemctl", lambda for_user, *words: said.append(" ".join(words)))
    wanted = made(monkeypatch, for_user=False)
    assert unit.install(wanted, for_user=False).state == "installed"
    assert said == ["daemon-reload", f"enable {unit.UNIT}", f"restart {unit.UNIT}"]
    assert wanted.path.read_text() == wanted.text and wanted.path.stat().st_mode & 0o777 == 0o644
    said.clear()
    assert unit.install(wanted, for_user=False).state == "unchanged" and said == [f"enable {unit.UNIT}", f"start {unit.UNIT}"]
    assert unit.uninstall(for_user=False).state == "removed" and not wanted.path.exists()
