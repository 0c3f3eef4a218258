"""Between the scheduler and the sagas: the profile in force, and a refusal as an error."""

from __future__ import annotations

from novactl.config import Config
from novactl.errors import NoValidHost
from novactl.plugins import profile
from novactl.scheduler.profiles import Profile
from novactl.scheduler.request import Decision
from novactl.scheduler.telling import rejection_lines, request_line, summary_line


def configured(config: Config) -> Profile:
    """The profile of `placement.profile`. Raises BadConfig naming those there are."""
    return profile(config["placement.profile"])


def refusal(decision: Decision) -> NoValidHost:
    """Why no node will do: one line a node."""
    if not decision.names:
        return NoValidHost(
            f"no node can host {request_line(decision.request)}: no node is enrolled", command="novactl node enroll [user@]HOST")
    return NoValidHost(
        f"no node can host {request_line(decision.request)}. {summary_line(decision)}", reasons=rejection_lines(decision),
        hint="free some room, enrol another node, or ask for less", command="novactl node list",
        details={"rejected": decision.to_plain()["rejected"], "names": dict(decision.names)})
