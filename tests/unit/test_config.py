"""Settings: where they come from and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from novactl.config import SETTINGS, load_config
from novactl.errors import BadConfig


def written(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return {"HOME": str(tmp_path), "NOVACTL_CONFIG": str(file)}


def test_defaults_without_a_file(tmp_path: Path) -> None:
    """No file, no environment: every setting has its default, and nothing is made on disk."""
    config = load_config(env={"HOME": str(tmp_path)})
    assert all(config[s.name] == s.default for s in SETTINGS)
    assert config.data_dir == tmp_path / ".local/share/novactl"
    assert list(tmp_path.iterdir()) == []


def test_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """`NOVACTL_PLACEMENT_FRESH_S` wins over the file, and origins say where each came from."""
    env = written(tmp_path, "[placement]\nfresh_s = 5\nrefresh_s = 2.5\n")
    config = load_config(env={**env, "NOVACTL_PLACEMENT_FRESH_S": "7"})
    assert (config["placement.fresh_s"], config["placement.refresh_s"]) == (7.0, 2.5)
    assert config.origins["placement.fresh_s"] == "NOVACTL_PLACEMENT_FRESH_S"
    assert config.origins["placement.refresh_s"] == env["NOVACTL_CONFIG"]
    assert config.origins["agent.port"] == "default"


@pytest.mark.parametrize(("text", "says"), [
    ("[placement]\nfresh = 5\n", "placement.fresh_s"),
    ("speed = 1\n", "unknown setting 'speed'"),
    ("[placement]\nfresh_s = 'x'\n", "must be a float"),
    ("[placement]\nfresh_s = 0\n", "at least 1"),
    ("[agent]\nport = true\n", "must be a int"),
    ("[placement\n", "cannot read"),
    ("[timeout]\nbuild_s = inf\n", "timeout.build_s must be a number up to 1000000000, not inf"),
    ("[timeout]\nbuild_s = -inf\n", "not -inf"),
    ("[operation]\nlease_s = nan\n", "operation.lease_s must be a number up to 1000000000, not nan"),
    ("[timeout]\nstart_s = 1e15\n", "0 is never"),
    ("[agent]\nport = 65536\n", "up to 65535, not 65536"),
    (f"[operation]\nlease_s = 1{'0' * 400}\n", "not a number of 1329 bits"),
])
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    """An unknown key, a wrong type, a wrong value, a broken file: the error names file and key (exit 2)."""
    with pytest.raises(BadConfig) as refused:
        load_config(env=written(tmp_path, text))
    assert says in refused.value.message + refused.value.hint
    assert str(tmp_path / "config.toml") in refused.value.message
    assert refused.value.exit_status == 2


@pytest.mark.parametrize("name", [s.name for s in SETTINGS if type(s.default) in (int, float)])
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "1e15", "9" * 20, "9" * 5000])
def test_numbers_that_no_deadline_could_be(tmp_path: Path, name: str, text: str) -> None:
    """No setting takes what is not finite, or far beyond any calendar, from the environment."""
    variable = "NOVACTL_" + name.upper().replace(".", "_")
    with pytest.raises(BadConfig) as refused:
        load_config(env={"HOME": str(tmp_path), variable: text})
    assert refused.value.message.startswith(f"{variable}: ") and len(refused.value.message) < 200


def test_a_file_asked_for_must_be_there(tmp_path: Path) -> None:
    """--config with no such file is an error, not the defaults."""
    with pytest.raises(BadConfig):
        load_config(tmp_path / "none.toml", env={"HOME": str(tmp_path)})
