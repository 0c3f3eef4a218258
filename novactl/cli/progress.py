"""Live progress on stderr: moving bars on a terminal, one line a step elsewhere, nothing with --quiet."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from novactl.cli.formats import visible
from novactl.cli.session import Session, is_terminal
from novactl.model.units import human_bytes, human_rate, human_seconds

if TYPE_CHECKING:
    from novactl.conductor.progress import Progress, Watch

STEPS: Mapping[str, str] = {
    "place": "scheduling", "image": "image transfer", "disk": "disk", "seed": "first-boot data", "define": "definition",
    "start": "starting", "stop": "shutting down", "reboot": "rebooting",
    "reach": "reaching its node", "destroy": "powering off", "undefine": "removing the domain",
    "connect": "connecting", "check": "check", "lock": "locking the host",
    "packages": "installing packages", "no packages": "removing packages",
    "kvm": "opening /dev/kvm", "no kvm": "closing /dev/kvm",
    "user": "making the agent's user", "no user": "removing the agent's user",
    "directories": "making the agent's directories", "no directories": "removing the agent's directories",
    "libvirt": "starting libvirt", "no libvirt": "putting libvirt back",
    "agent": "installing the agent", "no agent": "removing the agent",
    "keys": "making the agent's keys", "no keys": "removing the agent's keys",
    "config": "writing the agent's configuration", "no config": "removing the agent's configuration",
    "firewall": "opening the firewall", "no firewall": "closing the firewall",
    "service": "starting the agent", "no service": "stopping the agent",
    "verify": "end-to-end check", "unlock": "unlocking the host", "unprepare": "giving up pool and network",
    "forget": "forgetting the node",
    "claim": "counting it in", "mark": "marking the domain", "files": "removing its files", "fenced": "making sure that it is off",
    "hold": "taking it out of service", "power_off": "switching it off", "make": "making the new key",
    "serve": "listening with both keys", "commit": "giving up the old key",
}
"""What a step is called for people."""
STEPS_OF: Mapping[str, Mapping[str, str]] = {
    "server.delete": {"disk": "deleting the disk"},
    "server.clean": {"check": "looking where it lives"},
    "node.rotate_key": {"verify": "asking with the new key"},
}
"""By the kind of operation, where a step of the same name means something else there."""


@contextmanager
def watching(session: Session, *, quiet: bool, kind: str = "") -> Iterator[Watch]:
    """A watch for one command, whose operations are of `kind` ("" where they may be of several).

    It always remembers the operations, which an interruption must be able to name.
    """
    if quiet or not session.chatty:
        yield lambda progress: _remember(session, progress)
        return
    lines = Lines(session, kind)
    if not is_terminal(session.stderr) or session.env.get("TERM") == "dumb":
        yield lines.take
        return
    bars = Bars(session, kind)
    try:
        yield bars.take
    finally:
        bars.stop()


def _remember(session: Session, progress: Progress) -> None:
    if progress.operation:
        session.operations[progress.operation] = None


class Steps:
    """What the steps are called, and when each step of each subject began."""

    def __init__(self, session: Session, kind: str = "") -> None:
        self.session = session
        self.names = {**STEPS, **STEPS_OF.get(kind, {})}
        self._began: dict[tuple[str, str], float] = {}

    def took(self, progress: Progress) -> float:
        began = self._began.setdefault((progress.subject, progress.step), time.monotonic())
        return time.monotonic() - began

    def sentence(self, progress: Progress) -> str:
        """'web1: image transfer done, 512.0 MiB at 85.0 MiB/s (6 s)'."""
        took = self.took(progress)
        text = f"{progress.subject}: {self.names.get(progress.step, progress.step)} {progress.state}"
        size = progress.total or progress.done
        if progress.state == "done" and size:
            text += f", {human_bytes(size)}" + (f" at {human_rate(size / took)}" if took > 0.001 else "")
        if progress.detail:
            text += f": {progress.detail}"
        return text + (f" ({human_seconds(took)})" if progress.state != "started" and took >= 0.05 else "")


class Lines(Steps):
    """One line when a step ends; a step's start and the bytes in between are not worth one."""

    def take(self, progress: Progress) -> None:
        _remember(self.session, progress)
        self.took(progress)
        if progress.state not in ("started", "running"):
            self.session.note(self.sentence(progress))


class Bars(Steps):
    """A line a subject, with a bar, bytes and a rate while something is transferred. rich is imported at the first news."""

    def __init__(self, session: Session, kind: str = "") -> None:
        super().__init__(session, kind)
        self._display: Any = None
        self._tasks: dict[str, Any] = {}

    def take(self, progress: Progress) -> None:
        _remember(self.session, progress)
        if self._display is None:
            self._display = _display(self.session)
            self._display.start()
        task = self._tasks.get(progress.subject)
        if task is None:
            task = self._tasks[progress.subject] = self._display.add_task("", subject=progress.subject, total=None, amount="")
        took = self.took(progress)
        if progress.state in ("failed", "undone"):
            self._display.console.print(visible(self.sentence(progress)), highlight=False, markup=False)
        amount = ""
        if progress.total:
            amount = f"{human_bytes(progress.done)} / {human_bytes(progress.total)}"
            amount += f"  {human_rate(progress.done / took)}" if took > 0.05 else ""
        doing = self.names.get(progress.step, progress.step)
        doing += "" if progress.state in ("started", "running") else f" {progress.state}"
        self._display.update(
            task, description=visible(f"{doing} {progress.detail}".rstrip()), total=progress.total or None, completed=progress.done,
            amount=amount, refresh=progress.state != "running",
        )

    def stop(self) -> None:
        if self._display is not None:
            self._display.stop()


def _display(session: Session) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=session.stderr, no_color=not session.colour(session.stderr), highlight=False, markup=False)
    return Progress(
        SpinnerColumn(), TextColumn("{task.fields[subject]}", markup=False), TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24), TextColumn("{task.fields[amount]}", markup=False), TimeElapsedColumn(),
        console=console, transient=True,
    )
