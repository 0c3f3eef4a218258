"""The agent's configuration, its admins, its keys, and who ZAP lets in."""

import json
import os
import uuid
from pathlib import Path

import pytest

from nodeagent import admins, config, zap
from nodeagent.__main__ import ensure_keys, main

GOOD = {"node_id": str(uuid.uuid4()), "cluster_id": str(uuid.uuid4()), "name": "h1"}
KEY = "k" * 40


def test_a_config_needs_only_names() -> None:
    """The rest has defaults, and integers are taken where seconds are meant."""
    parsed = config.parse(json.dumps({**GOOD, "report_interval_s": 5}))
    assert (parsed.name, parsed.listen, parsed.report_interval_s) == ("h1", "tcp://0.0.0.0:7766", 5.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nmae": "h1"}, "unknown key 'nmae'"), ({"name": "../h1"}, "'../h1'"), ({"node_id": "x"}, "node_id"),
        ({"driver": "xen"}, "libvirt, fake"), ({"virt_type": "lxc"}, "auto, kvm, qemu"), ({"report_interval_s": 0}, "report_interval_s"),
        ({"pool_dir": "images"}, "pool_dir"), ({"listen": 7766}, "Config.listen"), ({"pool_name": "a b"}, "pool_name"),
    ],
)
def test_a_bad_config_is_refused_by_key(change: dict, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits 2 and names the file and the key."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**GOOD, **change}))
    assert main(["run", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and says in error


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00"])
def test_what_is_no_config_is_refused(text: str) -> None:
    """Anything but a JSON object is BadConfig."""
    with pytest.raises(config.BadConfig):
        config.parse(text)


def test_keygen_makes_one_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pair is made once, the secret readable to its owner only; the public key is printed each time."""
    umask = os.umask(0)
    try:
        assert main(["keygen", "--keys-dir", str(tmp_path / "keys")]) == 0
    finally:
        os.umask(umask)
    public = capsys.readouterr().out.strip()
    assert len(public) == 40 and (tmp_path / "keys/agent.pub").read_text().strip() == public
    assert (tmp_path / "keys/agent.key").stat().st_mode & 0o777 == 0o600
    secret = (tmp_path / "keys/agent.key").read_text()
    assert ensure_keys(str(tmp_path / "keys")) == public and (tmp_path / "keys/agent.key").read_text() == secret


def test_admins_are_read_anew(tmp_path: Path) -> None:
    """A key counts from when the file has it to when it has it no more; a file that is missing or broken admits nobody."""
    path = tmp_path / "admins.json"
    table = admins.Admins(str(path))
    assert table.role(KEY) == "" and "No such file" in table.fault
    for role in ("reader", "admin"):
        replace(path, json.dumps({"keys": {KEY: {"name": "alice", "role": role}}}))
        assert (table.role(KEY), table.name(KEY), table.fault) == (role, "alice", "")
    for broken in ("{", json.dumps({"keys": {KEY: {"role": "root"}}}), json.dumps({"keys": {"short": {"role": "admin"}}}), "[]"):
        replace(path, broken)
        assert table.role(KEY) == "" and table.fault
    path.unlink()
    assert table.role(KEY) == ""


def replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


REQUEST = [b"1.0", b"7", b"novactl", b"192.0.2.1", b"", b"CURVE", b"\1" * 32]


def ask(frames: list[bytes], admitted: bool = True) -> list[bytes]:
    return zap.answer(frames, lambda key: admitted and key == KEY, lambda _: KEY.encode())


def test_zap_admits_an_enrolled_key() -> None:
    """The reply is 200 under the request's id, with the key as user id (RFC 27)."""
    assert ask(REQUEST) == [b"1.0", b"7", b"200", b"OK", KEY.encode(), b""]


@pytest.mark.parametrize(
    ("place", "value"), [(0, b"2.0"), (2, b""), (2, b"other"), (5, b"NULL"), (5, b"PLAIN"), (6, b""), (6, b"\1" * 31)]
)
def test_zap_refuses_the_rest(place: int, value: bytes) -> None:
    """Another version, domain or mechanism, or a key of another length, is refused."""
    frames = [*REQUEST[:place], value, *REQUEST[place + 1 :]]
    assert ask(frames)[2:] == [b"400", b"refused", b"", b""]


def test_zap_refuses_a_stranger() -> None:
    """A key that is not enrolled is refused, and so is a request that lacks frames."""
    assert ask(REQUEST, admitted=False)[2] == b"400"
    for count in range(7):
        assert ask(REQUEST[:count])[2] == b"400"
