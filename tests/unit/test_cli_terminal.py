"""The serial console on a real terminal, and progress on stderr."""

import io
import os
import sys
import termios
from pathlib import Path

import pexpect
import pytest

from novactl.cli.progress import STEPS, STEPS_OF, watching
from novactl.cli.session import Session
from novactl.cli.terminal import attach
from novactl.conductor.progress import Progress
from novactl.conductor.sagas import SAGAS

ECHO = """
import sys
from novactl.cli.session import Session
from novactl.cli.terminal import attach

class Echo:
    '''A guest that says back what it is told; it hangs up at "bye" and faults at "fault".'''
    reason = ""
    heard = b""
    def write(self, data):
        if b"bye" in data: self.heard = None
        elif b"fault" in data: raise RuntimeError("the line broke")
        else: self.heard += b"<" + data.replace(b"\\r", b"CR") + b">"
    def read(self, timeout_s):
        heard, self.heard = self.heard, None if self.heard is None else b""
        return heard

input("ready")
print("attached", flush=True)
try:
    attach(Session([]), Echo(), linger_s=0.05)
finally:
    print("left", flush=True)
"""


@pytest.fixture
def line(tmp_path: Path):
    """The echoing guest's console in a terminal of its own, whose settings are compared afterwards."""
    program = tmp_path / "echo.py"
    program.write_text(ECHO)
    repository = str(Path(__file__).parents[2])
    spawned = pexpect.spawn(sys.executable, [str(program)], env={**os.environ, "PYTHONPATH": repository}, encoding="utf-8", timeout=60)
    spawned.expect("ready")
    settings = termios.tcgetattr(spawned.child_fd)
    spawned.sendline("")
    spawned.expect("attached")
    spawned.send("a")
    spawned.expect("<a>")
    yield spawned
    spawned.expect("left")
    assert termios.tcgetattr(spawned.child_fd) == settings
    spawned.expect(pexpect.EOF)
    spawned.close()


def test_keys_go_out_raw_and_ctrl_bracket_leaves(line) -> None:
    """Keys reach the guest one by one, Ctrl-C and Return included; Ctrl-] leaves, and the terminal is as it was."""
    line.send("\x03")
    line.expect("<\x03>")
    line.send("\r")
    line.expect("<CR>")
    line.setwinsize(10, 40)
    line.send("\x1dc")


def test_the_terminal_is_restored_when_the_guest_hangs_up(line) -> None:
    """A console that closes from the other side leaves the terminal as it was."""
    line.send("bye")


def test_the_terminal_is_restored_after_a_fault(line) -> None:
    """An exception in the middle leaves the terminal as it was."""
    line.send("fault")


@pytest.mark.parametrize("number", [15, 1])
def test_the_terminal_is_restored_after_a_signal(line, number: int) -> None:
    """SIGTERM and SIGHUP leave the terminal as it was."""
    line.kill(number)


class Script:
    """A guest that answers each piece it is told, and then is silent."""

    reason = ""

    def __init__(self) -> None:
        self.told, self.answers = b"", [b"login: "]

    def write(self, data: bytes) -> None:
        self.told += data
        self.answers.append(b"ok ")

    def read(self, timeout_s: float) -> bytes | None:
        return self.answers.pop(0) if self.answers else b""


def test_commands_can_be_piped_in(tmp_path: Path) -> None:
    """With input that is no terminal everything is sent, Ctrl-] too, and the answers are waited for."""
    (tmp_path / "input").write_bytes(b"uname\n\x1d\n")
    out, guest = io.BytesIO(), Script()
    with (tmp_path / "input").open() as stdin, io.TextIOWrapper(out, write_through=True) as stdout:
        attach(Session([], {}, stdin=stdin, stdout=stdout, stderr=io.StringIO()), guest, linger_s=0.05)
        stdout.flush()
        assert guest.told == b"uname\n\x1d\n"
        assert out.getvalue() == b"login: ok "


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


NEWS = [
    Progress("op-1", "web1", "place", "started"), Progress("op-1", "web1", "place", "done", detail="n1"),
    Progress("op-1", "web1", "image", "started"), Progress("op-1", "web1", "image", "running", 1 << 20, 4 << 20),
    Progress("op-1", "web1", "image", "done", 4 << 20, 4 << 20), Progress("op-1", "web1", "start", "failed", detail="no memory"),
]


def watched(stderr: io.StringIO, *, quiet: bool = False, **env: str) -> Session:
    session = Session([], env, stdin=io.StringIO(), stdout=io.StringIO(), stderr=stderr)
    with watching(session, quiet=quiet) as watch:
        for news in NEWS:
            watch(news)
    assert list(session.operations) == ["op-1"] and session.stdout.getvalue() == ""
    return session


def test_progress_in_a_pipe_is_one_line_a_step() -> None:
    """Where stderr is no terminal each ended step is one line, with the bytes where there were some, and no escape codes."""
    said = watched(io.StringIO()).stderr.getvalue()
    lines = said.splitlines()
    assert lines[0] == "web1: scheduling done: n1"
    assert lines[1].startswith("web1: image transfer done, 4.0 MiB")
    assert lines[2] == "web1: starting failed: no memory"
    assert len(lines) == 3 and "\x1b" not in said


def test_every_step_of_every_saga_has_words_for_people() -> None:
    """No step is shown by the name it has in the code, but where that is the word people use."""
    words = {step.name: {**STEPS, **STEPS_OF.get(kind, {})}.get(step.name) for kind, saga in SAGAS.items() for step in saga.steps}
    assert [name for name, word in words.items() if not word] == []
    assert {name for name, word in words.items() if name == word} <= {"disk"}


def test_a_step_is_called_by_what_it_does_in_its_operation() -> None:
    """The disk of a creation is a disk, that of a deletion is being deleted."""
    def said(kind: str) -> str:
        session = Session([], {}, stdin=io.StringIO(), stdout=io.StringIO(), stderr=io.StringIO())
        with watching(session, quiet=False, kind=kind) as watch:
            watch(Progress("op-1", "web1", "disk", "done"))
        return session.stderr.getvalue()

    assert (said("server.create"), said("server.delete")) == ("web1: disk done\n", "web1: deleting the disk done\n")


def test_quiet_means_silent() -> None:
    """With --quiet nothing is said, but the operation is remembered."""
    assert watched(io.StringIO(), quiet=True).stderr.getvalue() == ""


def test_progress_on_a_terminal_moves_and_clears_itself() -> None:
    """On a terminal progress is drawn by rich: the step, the bytes, then nothing is left of it but failures."""
    said = watched(Terminal(), TERM="xterm").stderr.getvalue()
    assert "image transfer" in said and "4.0 MiB" in said and "starting failed: no memory" in said
    assert "\x1b" in said


def test_a_dumb_terminal_gets_lines() -> None:
    """TERM=dumb gets lines, as a pipe does."""
    assert "\x1b" not in watched(Terminal(), TERM="dumb").stderr.getvalue()
