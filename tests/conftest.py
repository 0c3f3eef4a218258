"""Options of the whole suite."""

from __future__ import annotations

import signal

import pytest

from tests import databases


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", default=False, help="rewrite golden files and generated tables; review the diff")


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts us in the background has us ignore Ctrl-C, nohup a closed terminal; so would every command that a test
    interrupts."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Each process of the suite has its own servers."""
    databases.stop()
