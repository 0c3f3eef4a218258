"""Facts and goal -> what is wrong, and what has to change. Pure: it looks at nothing else and does nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novactl.enroll import paths, unit
from novactl.enroll.checks import FAIL, find
from novactl.enroll.distro import family_of, missing, packages
from novactl.enroll.facts import Facts
from novactl.enroll.goal import Goal, Others, config_text, kvm_closed, run_user, same_admins
from novactl.model.finding import Finding


@dataclass(frozen=True)
class Change:
    """One step that has something to do, and what it will do."""

    step: str
    text: str


@dataclass(frozen=True)
class Plan:
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.verdict == FAIL)


def make_plan(facts: Facts, goal: Goal, now: float, others: Others = Others()) -> Plan:
    """Every finding at once, and the changes in the order they must be made. No changes: enrolled already."""
    return Plan(find(facts, goal, now, others), tuple(change for step in CHANGES for change in step(facts, goal)))


def _change_packages(facts: Facts, goal: Goal) -> list[Change]:
    lacking = missing(facts.machine, facts.programs, facts.modules)
    family = family_of(facts.os_ids, facts.programs)
    if not lacking or not goal.packages or family is None:
        return []
    return [Change("packages", f"install with {family.name}: {' '.join(packages(lacking, family, facts.machine))}")]


def _change_kvm(facts: Facts, goal: Goal) -> list[Change]:
    if not kvm_closed(facts):
        return []
    return [Change("kvm", f"give /dev/kvm to group kvm, mode 660 (now {facts.kvm_device})")]


def _change_user(facts: Facts, goal: Goal) -> list[Change]:
    groups = facts.installed.user_groups
    if not facts.systemd or ("libvirt" in groups and "kvm" in facts.groups):
        return []
    return [Change("user", f"system user {paths.USER} in group libvirt" + ("" if groups else " (new)"))]


def _change_directories(facts: Facts, goal: Goal) -> list[Change]:
    user = run_user(facts)
    wrong = [path for path, found, wanted in (
        (paths.STATE_DIR, facts.installed.state_dir, f"750 {user} {user}"), (paths.POOL_DIR, facts.installed.pool, f"711 {user} {user}"),
    ) if found != wanted]
    return [Change("directories", f"make {', '.join(wrong)}")] if wrong else []


def _change_libvirt(facts: Facts, goal: Goal) -> list[Change]:
    lacking = any(need.name in ("libvirt", "virtlogd") for need in missing(facts.machine, facts.programs, facts.modules))
    if facts.libvirt_running and (facts.systemd or "virtlogd" in facts.daemons) and not lacking:
        return []
    return [Change("libvirt", "start libvirt and virtlogd" + (", and at boot" if facts.systemd else ""))]


def _change_agent(facts: Facts, goal: Goal) -> list[Change]:
    installed = facts.installed
    if installed.sha256 == goal.bundle_sha256 and installed.current == goal.bundle_folder:
        return []
    return [Change("agent", f"{paths.AGENT_HOME}/{goal.bundle_folder}/{paths.ZIPAPP} (sha256 {goal.bundle_sha256[:12]}…)"
                   + (f", was {installed.current}" if installed.current else ""))]


def _change_keys(facts: Facts, goal: Goal) -> list[Change]:
    if facts.installed.public_key:
        return []
    return [Change("keys", f"the node makes its CURVE key pair in {paths.KEYS_DIR}")]


def _change_config(facts: Facts, goal: Goal) -> list[Change]:
    installed = facts.installed
    wrong = [path for path, right in (
        (paths.CONFIG_FILE, installed.config == config_text(goal)), (paths.ADMINS_FILE, same_admins(facts, goal))) if not right]
    return [Change("config", f"write {', '.join(wrong)}")] if wrong else []


def _change_firewall(facts: Facts, goal: Goal) -> list[Change]:
    """A firewall's rules are not read back: on a machine enrolled already, its rule is there."""
    if not facts.firewall or not goal.peer or facts.installed.config == config_text(goal):
        return []
    return [Change("firewall", f"{facts.firewall}: let {goal.peer} reach port {goal.port}")]


def _change_service(facts: Facts, goal: Goal) -> list[Change]:
    installed = facts.installed
    if facts.systemd:
        same = installed.unit == unit.SYSTEMD_UNIT and installed.at_boot
        text = f"{paths.UNIT_FILE}, enabled and started"
    else:
        same = installed.supervisor == unit.SUPERVISOR
        text = f"{paths.SUPERVISOR}, started from {paths.RC_LOCAL} at boot and now"
    if same and installed.running and not (_change_agent(facts, goal) or _change_keys(facts, goal) or _needs_restart(facts, goal)):
        return []
    return [Change("service", text)]


def _needs_restart(facts: Facts, goal: Goal) -> bool:
    """admins.json is read again by the running agent, config.json is not."""
    return facts.installed.config != config_text(goal)


CHANGES: tuple[Callable[[Facts, Goal], list[Change]], ...] = (
    _change_packages, _change_kvm, _change_user, _change_directories, _change_libvirt, _change_agent, _change_keys,
    _change_config, _change_firewall, _change_service,
)
