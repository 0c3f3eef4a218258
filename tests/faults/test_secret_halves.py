"""The database dies while a key pair's public half is being made lasting: its secret half is there if that is, and only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from novactl.api import keypairs, keys, secret_half
from novactl.api.authority import Role
from novactl.cluster import Cluster
from novactl.errors import Uncertain
from tests import databases
from tests.faults.test_database import Killer
from tests.world import small_world


def a_keypair(cluster: Cluster, name: str, path: Path) -> None:
    keypairs.create(cluster, keypairs.CreateKeypair(name=name, private_key_path=path))


def an_admins_key(cluster: Cluster, name: str, path: Path) -> None:
    keys.create(cluster, name=name, role=Role.READER, secret_file=path)


@pytest.mark.parametrize("kind", databases.SHARED)
@pytest.mark.parametrize(("make", "found"), [
    (a_keypair, lambda cluster: {one.name for one in keypairs.list_keypairs(cluster)}),
    (an_admins_key, lambda cluster: {one.name for one in keys.list_keys(cluster)} - {"tester"}),
], ids=["keypair", "key"])
def test_a_commit_without_an_answer(
    tmp_path: Path, kind: str, make: Callable[[Cluster, str, Path], None], found: Callable[[Cluster], set[str]],
) -> None:
    """It was written: that is looked for, and the command has done what it was to do. It was not: the same command can be given again."""
    with databases.server(kind) as server, small_world(tmp_path, url=server.create(), count=1) as world:
        killer, written, lost = Killer(server, world.cluster), tmp_path / "written.key", tmp_path / "lost.key"
        with killer.at("answer", 1) as happened:
            make(world.cluster, "written", written)
        assert happened and found(world.cluster) == {"written"} and written.exists()
        with killer.at("commit", 1) as happened, pytest.raises(Uncertain):
            make(world.cluster, "lost", lost)
        assert happened and found(world.cluster) == {"written"} and not lost.exists()
        make(world.cluster, "lost", lost)
        assert found(world.cluster) == {"written", "lost"} and lost.exists()


@pytest.mark.parametrize("make", [a_keypair, an_admins_key])
def test_a_database_that_stays_away(tmp_path: Path, make: Callable[[Cluster, str, Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can say whether it was written: the file stays, and that is said."""
    monkeypatch.setattr(secret_half, "WAITS_S", ())
    with databases.server("postgresql") as server, small_world(tmp_path, url=server.create(), count=1) as world:
        killer, path = Killer(server, world.cluster), tmp_path / "bob.key"
        with killer.at("answer", 1), pytest.raises(Uncertain) as lost:
            make(world.cluster, "bob", path)
        assert path.exists() and str(path) in lost.value.reasons[0]


def interrupted(*args: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("make", [a_keypair, an_admins_key])
def test_a_command_that_is_interrupted(
    tmp_path: Path, make: Callable[[Cluster, str, Path], None], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything was written: no file stays."""
    with small_world(tmp_path, count=1) as world:
        monkeypatch.setattr("novactl.conductor.change._journal", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(world.cluster, "bob", tmp_path / "bob.key")
        assert not (tmp_path / "bob.key").exists()
