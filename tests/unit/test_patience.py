"""An agent whose pool does not answer: a pipe that nobody writes to stands where an image should be."""

import os
import threading
import time
from pathlib import Path

import pytest

from nodeagent import patience, wire
from nodeagent.images import base_name
from nodeagent.patience import Patience
from nodeagent.refusal import Refused
from novactl.conductor import fleet
from tests.contract.kit import Node, until


def _asking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ask"]


def test_a_question_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks first waits, who asks then is refused at once and costs no thread; once the answer came there are answers again, and
    faults, as ever."""
    monkeypatch.setattr(patience, "WAIT_S", 0.2)
    back, pool = threading.Event(), Patience("the pool /x")
    with pytest.raises(Refused, match="the pool /x has not answered for 0 s: its storage hangs"):
        pool.ask(back.wait)
    asking, began = _asking(), time.monotonic()
    for _ in range(50):
        with pytest.raises(Refused):
            pool.ask(lambda: 1)
    assert len(asking) == 1 and _asking() == asking and time.monotonic() - began < 50 * patience.WAIT_S / 2
    back.set()
    until(lambda: not _asking())
    monkeypatch.setattr(patience, "WAIT_S", 60.0)
    assert pool.ask(lambda: 1) == 1
    with pytest.raises(FileNotFoundError):
        pool.ask(lambda: os.listdir("/nowhere"))


def test_reads_do_not_wait_for_the_pool(tmp_path: Path) -> None:
    """Reports and lists of images are refused as often as they are asked for, what needs no pool is answered, and the report comes again
    with the pool."""
    node = Node(tmp_path)
    pipe = node.pool / base_name("a" * 64, "qcow2")
    os.mkfifo(pipe)
    for _ in range(5):
        failure = node.refusal("inventory.read", wire.InventoryRead(0.0))
        assert failure.code == wire.Code.DRIVER and "its storage hangs" in failure.message and failure.retryable
    assert node.refusal("image.list").code == wire.Code.DRIVER
    assert node.ok("domain.list", wire.Page("")).domains == ()
    os.close(os.open(pipe, os.O_WRONLY))                      # to who waits there, an empty image
    pipe.unlink()
    until(lambda: node.ask(node.request("inventory.read", wire.InventoryRead(0.0)))[0].kind == wire.RESULT)
    node.down()


def test_a_refusal_comes_before_the_node_is_called_silent() -> None:
    """A controller takes a node that answers later for one that does not answer, and a conductor may fence those."""
    assert patience.WAIT_S <= fleet.REFRESH_DEADLINE_S / 2
