"""What a host, a guest or an agent calls itself, or answers, does not drive the terminal of whoever reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.cli.progress import watching
from novactl.cli.session import Session
from novactl.conductor.progress import Progress
from tests.sagas.scenarios import LEGACY
from tests.unit.cli_world import Prompt, Tty
from tests.world import World, small_world

EVIL = "evil\x1b[31mred\x1b]0;title\x07" + "x" * 150


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=1) as made:
        made.agents["n1"].driver._wild[LEGACY["uuid"]] = {**LEGACY, "name": EVIL}  # type: ignore[attr-defined]
        yield made


@pytest.mark.parametrize("output", ["csv", "name", "tsv", "table", "wide", "yaml", "json", "github"])
def test_on_a_terminal_no_format_lets_it_through(world: World, output: str) -> None:
    """A domain's name with escape sequences is spelled out, in whatever form it is printed."""
    ran = Prompt(world.env).run("cluster", "verify", "-o", output, tty=True, NO_COLOR="1", COLUMNS="40")
    assert ran.status == 0 and "evil" in ran.out
    assert not any(sign in ran.out for sign in ("\x1b[31m", "\x1b]0", "\x07")), ran.out


def test_in_a_pipe_csv_is_what_was_there(world: World) -> None:
    """A program reads the value itself."""
    assert EVIL in Prompt(world.env).run("cluster", "verify", "-o", "csv").out


def test_nor_does_what_an_agent_answers(world: World) -> None:
    """In the lines of the progress, and in the error."""
    def refuse(server: str) -> None:
        raise Refused(Code.DRIVER, f"libvirt says {EVIL}", retryable=False)

    world.agents["n1"].driver.start_domain = refuse  # type: ignore[method-assign]
    ran = Prompt(world.env).run("server", "create", "web", "--flavor", "small", "--image", "guest")
    assert ran.status != 0 and "starting failed" in ran.err and "evil" in ran.err and "\x1b" not in ran.err and "\x07" not in ran.err


def test_nor_what_a_bar_is_told() -> None:
    """On a terminal, where a line moves."""
    session = Session([], {"TERM": "xterm", "NO_COLOR": "1"}, stdin=io.StringIO(), stdout=Tty(), stderr=Tty())
    with watching(session, quiet=False) as watch:
        watch(Progress("1", "web", "image", "running", 1, 2, detail=EVIL))
        watch(Progress("1", "web", "image", "failed", detail=EVIL))
    told = session.stderr.getvalue()
    assert "evil" in told and "\x1b]0" not in told and "\x07" not in told


def test_what_is_copied_is_not_folded(world: World) -> None:
    """The command that `cluster verify` gives is on one line in a narrow terminal too."""
    ran = Prompt(world.env).run("cluster", "verify", tty=True, NO_COLOR="1", COLUMNS="40")
    assert f"novactl server adopt n1 {LEGACY['uuid']}" in ran.out
