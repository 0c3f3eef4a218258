"""The changes that make a machine a node. Each may run twice; each undo puts back what `Before` says was there.

An undo returns what it had to leave, one line each: enrolment and `node remove` tell the user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novactl.enroll import bundle, paths, service
from novactl.enroll.distro import FAMILIES
from novactl.enroll.goal import config_text, parsed
from novactl.enroll.site import Site
from novactl.errors import EnrolFailed

Stayed = tuple[str, ...]
PACKAGES_TIMEOUT_S = 1800


@dataclass(frozen=True)
class NodeStep:
    name: str
    do: Callable[[Site], None]
    undo: Callable[[Site], Stayed]


# ---------------------------------------------------------------- packages


def install_packages(site: Site) -> None:
    """Refreshing the package lists may fail (offline mirrors); what counts is whether the packages can be installed."""
    family = next(f for f in FAMILIES if f.name == site.family)
    if family.refresh:
        refreshed = site.shell.run(["env", *family.environment, *family.refresh], timeout_s=PACKAGES_TIMEOUT_S)
        if not refreshed.ok:
            site.shell.note(f"the package lists could not be refreshed: {refreshed.stderr.strip()[-300:]}")
    site.shell.must(
        f"installing {' '.join(site.packages)}", ["env", *family.environment, *family.install, *site.packages],
        timeout_s=PACKAGES_TIMEOUT_S)


def keep_packages(site: Site) -> Stayed:
    names = site.packages or site.before.packages
    return (f"the packages {' '.join(names)} stay installed",) if names else ()


# ---------------------------------------------------------------- /dev/kvm


def open_kvm(site: Site) -> None:
    site.shell.must("opening /dev/kvm to group kvm", """
getent group kvm >/dev/null || groupadd --system kvm; chgrp kvm /dev/kvm && chmod 660 /dev/kvm""")


def close_kvm(site: Site) -> Stayed:
    if site.before.kvm_closed:
        mode, user, group = site.before.kvm_device.split()
        site.shell.run('chown "$1" /dev/kvm && chmod "$2" /dev/kvm', args=(f"{user}:{group}", mode))
    return ()


# ---------------------------------------------------------------- user and directories


def make_user(site: Site) -> None:
    site.shell.must(f"making the user {paths.USER}", f"""
id {paths.USER} >/dev/null 2>&1 ||
    useradd --system --user-group --home-dir {paths.STATE_DIR} --no-create-home --shell /usr/sbin/nologin {paths.USER}
getent group kvm >/dev/null || groupadd --system kvm
usermod -a -G libvirt {paths.USER}""")


def remove_user(site: Site) -> Stayed:
    if site.before.user_groups or not site.before.systemd:
        return ()
    gone = site.shell.run(f"""id {paths.USER} >/dev/null 2>&1 || exit 0
userdel {paths.USER}; getent group {paths.USER} >/dev/null && groupdel {paths.USER}; ! id {paths.USER} >/dev/null 2>&1""")
    return () if gone.ok else (f"the user {paths.USER} stays: {gone.stderr.strip()[-200:]}",)


def make_directories(site: Site) -> None:
    site.shell.must(
        "making the agent's directories", f"""set -e
for d in /var/lib/libvirt {paths.POOL_PARENT}; do [ -d "$d" ] || install -d -m 711 "$d"; done
install -d -m 750 -o "$1" -g "$1" {paths.STATE_DIR}
install -d -m 711 -o "$1" -g "$1" {paths.POOL_DIR}
install -d -m 755 {paths.CONFIG_DIR} {paths.AGENT_HOME}""", args=(site.before.run_user,))


def remove_directories(site: Site) -> Stayed:
    """Of a first enrolment, the agent's state goes; the pool only if nothing is in it."""
    if site.before.config:
        return ()
    left = site.shell.run(f"""as_before() {{ chmod "$2" "$1"; chown "$3:$4" "$1"; }}
rm -rf {paths.STATE_DIR}/* {paths.STATE_DIR}/.[!.]*
if [ -n "$1" ]; then as_before {paths.STATE_DIR} $1
elif ! rmdir {paths.STATE_DIR} 2>/dev/null; then as_before {paths.STATE_DIR} 755 root root; fi
[ -z "$2" ] || as_before {paths.POOL_DIR} $2
[ "$(ls -A {paths.POOL_DIR} 2>/dev/null)" != {paths.POOL_ID} ] || rm -f {paths.POOL_DIR}/{paths.POOL_ID}
rmdir {paths.CONFIG_DIR} {paths.AGENT_HOME} 2>/dev/null && rmdir {paths.AGENT_HOME.rpartition('/')[0]} 2>/dev/null
[ -n "$2" ] || [ ! -d {paths.POOL_DIR} ] || rmdir {paths.POOL_DIR} 2>/dev/null || ls -A {paths.POOL_DIR} | head -n 5
""", args=(site.before.state_dir, site.before.pool))
    files = left.stdout.split()
    return (f"{paths.POOL_DIR} stays, because it holds {', '.join(files)}",) if files else ()


# ---------------------------------------------------------------- libvirt


def start_libvirt(site: Site) -> None:
    site.shell.must("starting libvirt", service.START_LIBVIRT, timeout_s=90)


def stop_libvirt(site: Site) -> Stayed:
    """What enrolment started it stops, unless guests run; under systemd what a package enabled stays with the package."""
    if site.before.libvirt_running or site.before.systemd:
        return ()
    left = site.shell.run(service.STOP_LIBVIRT, args=tuple({"libvirtd", "virtlogd"} - set(site.before.daemons)))
    return () if left.ok else ("libvirtd goes on running, because it has guests",)


# ---------------------------------------------------------------- agent, keys, config


def install_agent(site: Site) -> None:
    """A new folder, then the symlink replaced atomically: a running agent never sees half a version. The version before is kept."""
    folder = f"{paths.AGENT_HOME}/{site.goal.bundle_folder}"
    built = bundle.build()
    if built.folder != site.goal.bundle_folder:
        raise EnrolFailed("novactl itself was changed while the enrolment ran", command="novactl node enroll …")
    site.shell.put(built.content, f"{folder}/{paths.ZIPAPP}", 0o644)
    done = site.shell.must("installing the agent", f"""set -e
chmod 755 {paths.AGENT_HOME.rpartition('/')[0]} {paths.AGENT_HOME} "$1"
ln -sfn "$1" {paths.CURRENT}.new && mv -Tf {paths.CURRENT}.new {paths.CURRENT}
for d in {paths.AGENT_HOME}/*-*; do [ "$d" = "$1" ] || [ "$d" = "{paths.AGENT_HOME}/$2" ] || rm -rf "$d"; done
sha256sum {paths.CURRENT_ZIPAPP} | cut -d' ' -f1
{paths.PYTHON} {paths.CURRENT_ZIPAPP} version""", args=(folder, site.before.current))
    if done.split()[:1] != [site.goal.bundle_sha256]:
        raise EnrolFailed(f"the agent that arrived on {site.shell.name} is not the one sent", reasons=done.splitlines()[:2])


def remove_agent(site: Site) -> Stayed:
    """The version before comes back; of a first enrolment nothing remains."""
    if site.before.current:
        site.shell.must("putting the agent before back", f"""
[ -e "{paths.AGENT_HOME}/$1/{paths.ZIPAPP}" ] || exit 0
ln -sfn "{paths.AGENT_HOME}/$1" {paths.CURRENT}.new && mv -Tf {paths.CURRENT}.new {paths.CURRENT}
[ "$1" = "$2" ] || rm -rf "{paths.AGENT_HOME}/$2" """, args=(site.before.current, site.goal.bundle_folder))
    else:
        site.shell.must("removing the agent", f"""rm -rf {paths.AGENT_HOME}
rmdir {paths.AGENT_HOME.rpartition('/')[0]} 2>/dev/null || true""")
    return ()


def make_keys(site: Site) -> None:
    site.shell.must("making the agent's keys", f"""set -e
umask 077
{paths.PYTHON} {paths.CURRENT_ZIPAPP} keygen --keys-dir {paths.KEYS_DIR} >/dev/null
chown -R "$1:$1" {paths.KEYS_DIR}
chmod 700 {paths.KEYS_DIR}""", args=(site.before.run_user,))


def remove_keys(site: Site) -> Stayed:
    if not site.before.public_key:
        site.shell.must("removing the agent's keys", f"rm -rf {paths.KEYS_DIR}")
    return ()


def public_key(site: Site) -> str:
    """The agent's public key, as the node itself tells it."""
    return site.shell.must("reading the agent's public key", ["cat", paths.PUBLIC_KEY_FILE]).strip()


def write_config(site: Site) -> None:
    site.shell.put(config_text(site.goal).encode(), paths.CONFIG_FILE, 0o644)
    _put_admins(site, site.admins)


def restore_config(site: Site) -> Stayed:
    if site.before.admins:
        _put_admins(site, site.before.admins)
    else:
        site.shell.must(f"removing {paths.ADMINS_FILE}", ["rm", "-f", paths.ADMINS_FILE])
    if site.before.config:
        site.shell.put(site.before.config.encode(), paths.CONFIG_FILE, 0o644)
        return ()
    site.shell.must(f"removing {paths.CONFIG_FILE}", ["rm", "-f", paths.CONFIG_FILE, paths.FORMER_ADMINS_FILE])
    return ()


def _put_admins(site: Site, text: str) -> None:
    """The cluster's table, as it was when the enrolment began. A newer one that the agent was given since stays: with the older one a key
    that was revoked meanwhile would be let in again."""
    if parsed(site.before.config).get("cluster_id") == site.goal.cluster_id:
        site.shell.must(
            f"writing {paths.ADMINS_FILE}", [paths.PYTHON, "-I", "-c", _PUT_UNLESS_NEWER, paths.ADMINS_FILE], input=text.encode())
    else:
        site.shell.put(text.encode(), paths.ADMINS_FILE, 0o644)


_PUT_UNLESS_NEWER = """
import json, os, sys, tempfile

def version(text):
    try:
        return int(json.loads(text).get("version", 0))
    except (ValueError, TypeError, AttributeError):
        return -1

path, text = sys.argv[1], sys.stdin.read()
os.makedirs(os.path.dirname(path), exist_ok=True)
fd, part = tempfile.mkstemp(dir=os.path.dirname(path))
with os.fdopen(fd, "w") as file:
    file.write(text)
    file.flush()
    os.fchmod(fd, 0o644)
    os.fsync(fd)
try:
    with open(path) as file:
        there = file.read()
except OSError:
    there = ""
if version(there) > version(text):
    os.unlink(part)
else:
    os.replace(part, path)
"""


STEPS: tuple[NodeStep, ...] = (
    NodeStep("packages", install_packages, keep_packages),
    NodeStep("kvm", open_kvm, close_kvm),
    NodeStep("user", make_user, remove_user),
    NodeStep("directories", make_directories, remove_directories),
    NodeStep("libvirt", start_libvirt, stop_libvirt),
    NodeStep("agent", install_agent, remove_agent),
    NodeStep("keys", make_keys, remove_keys),
    NodeStep("config", write_config, restore_config),
    NodeStep("firewall", service.open_firewall, service.close_firewall),
    NodeStep("service", service.start_agent, service.stop_agent),
)
"""In the order they are done; undone in reverse."""
