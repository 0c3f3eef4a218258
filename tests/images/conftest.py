"""A cluster with a real database in a directory of its own, and nobody to call."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db.migrate import upgrade


def _cluster(data_dir: Path) -> Cluster:
    return Cluster(load_config(env={"NOVACTL_DATA_DIR": str(data_dir), "HOME": str(data_dir)}), actor="alice@test")


@pytest.fixture(scope="session")
def empty_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = _cluster(tmp_path_factory.mktemp("template"))
    upgrade(made.unchecked_db(), made.config.database_url, "00000000-0000-4000-8000-000000000000")
    made.close()
    return made.config.data_dir


@pytest.fixture
def cluster(empty_data_dir: Path, tmp_path: Path) -> Iterator[Cluster]:
    shutil.copytree(empty_data_dir, tmp_path / "data")
    made = _cluster(tmp_path / "data")
    yield made
    made.close()
