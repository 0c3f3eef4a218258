"""Options of the whole suite."""

from __future__ import annotations

import pytest

from tests import postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", default=False, help="rewrite golden files and generated tables; review the diff")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Each process of the suite has its own."""
    postgres.stop()
