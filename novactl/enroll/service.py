"""Steps about what runs and who may reach it: libvirt, the firewall, the agent's service."""

from __future__ import annotations

from novactl.enroll import paths, unit
from novactl.enroll.goal import nft_rule
from novactl.enroll.site import Site
from novactl.errors import Busy

START_LIBVIRT = """
if [ -d /run/systemd/system ]; then
    if systemctl cat libvirtd.service >/dev/null 2>&1 && ! systemctl -q is-active virtqemud.socket; then
        systemctl enable --now libvirtd.service virtlogd.socket || exit 1
    else
        systemctl enable --now virtqemud.socket virtnetworkd.socket virtstoraged.socket virtlogd.socket || exit 1
    fi
else
    runs() { pid=$(cat "/run/$1.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]; }
    mkdir -p /run/libvirt
    runs virtlogd || virtlogd -d || exit 1
    runs libvirtd || libvirtd -d || exit 1
fi
n=0
until timeout 10 virsh -q -c qemu:///system version >/dev/null 2>&1; do
    n=$((n + 1))
    [ "$n" -gt 60 ] && { virsh -c qemu:///system version; exit 1; }
    sleep 0.5
done
"""
STOP_LIBVIRT = """
[ -z "$(timeout 10 virsh -q -c qemu:///system list --name 2>/dev/null)" ] || exit 1
for name; do
    pid=$(cat "/run/$name.pid" 2>/dev/null) || continue
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] && kill -TERM "$pid"
    n=0
    while [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] && [ "$n" -lt 100 ]; do n=$((n + 1)); sleep 0.1; done
done
exit 0
"""
_POOL_AWAY = """
timeout 20 virsh -q -c qemu:///system pool-destroy "$1"; timeout 20 virsh -q -c qemu:///system pool-undefine "$1"; true
"""

# ---------------------------------------------------------------- one enrolment at a time

_LOCK = f"""
mkdir {paths.LOCK_DIR} 2>/dev/null || {{
    owner=$(cat {paths.LOCK_DIR}/owner 2>/dev/null)
    [ "$owner" = "$1" ] || [ -z "$(find {paths.LOCK_DIR} -maxdepth 0 -mmin -{paths.LOCK_MINUTES})" ] || {{ echo "$owner"; exit 75; }}
}}
echo "$1" >{paths.LOCK_DIR}/owner; touch {paths.LOCK_DIR}"""


def lock(site: Site, operation: str) -> None:
    """Keep other enrolments, of other clusters too, off this machine. Taking it again is fine. Raises Busy."""
    taken = site.shell.run(_LOCK, args=(operation,), act="locking the machine")
    if taken.status == 75:
        raise Busy(f"another enrolment is working on {site.shell.name} (operation {taken.stdout.strip()[:8]})",
                   hint=f"if nothing runs any more: rm -r {paths.LOCK_DIR} there")


def locked_by(site: Site, operation: str) -> bool:
    return site.shell.run(f'[ "$(cat {paths.LOCK_DIR}/owner 2>/dev/null)" = "$1" ]', args=(operation,), act="whose lock").ok


def unlock(site: Site, operation: str) -> None:
    script = f'[ "$(cat {paths.LOCK_DIR}/owner 2>/dev/null)" != "$1" ] || rm -rf {paths.LOCK_DIR}'
    site.shell.run(script, args=(operation,), act="unlocking")


# ---------------------------------------------------------------- firewall

_UFW = 'ufw {verb} allow from "$1" to any port "$2" proto tcp'
_FIREWALLD = """rule="rule family=\\"$3\\" source address=\\"$1\\" port port=\\"$2\\" protocol=\\"tcp\\" accept"
firewall-cmd -q --permanent --{verb}-rich-rule="$rule"; firewall-cmd -q --{verb}-rich-rule="$rule" """
_NFT_CLOSE = """nft -a list chain inet filter input 2>/dev/null | grep 'comment "novactl"' | sed 's/.*# handle //' |
while read -r handle; do nft delete rule inet filter input handle "$handle"; done"""


def open_firewall(site: Site) -> None:
    goal, kind = site.goal, site.before.firewall
    args = (goal.peer, str(goal.port), "ipv6" if ":" in goal.peer else "ipv4")
    act = f"opening port {goal.port} in {kind}"
    if kind == "ufw":
        site.shell.must(act, _UFW.format(verb=""), args=args)
    elif kind == "firewalld":
        site.shell.must(act, _FIREWALLD.format(verb="add"), args=args)
    elif kind == "nft":
        site.shell.must(act, _NFT_CLOSE)
        site.shell.must(act, ["nft", "insert", "rule", "inet", "filter", "input", *nft_rule(goal)])


def close_firewall(site: Site) -> tuple[str, ...]:
    before = site.before
    args = (before.firewall_peer, str(before.firewall_port), "ipv6" if ":" in before.firewall_peer else "ipv4")
    script = {"ufw": _UFW.format(verb="delete"), "firewalld": _FIREWALLD.format(verb="remove"), "nft": _NFT_CLOSE}.get(before.firewall)
    if script and before.firewall_peer:
        site.shell.run(script, args=args)
    return ()


# ---------------------------------------------------------------- the agent's service

_SUPERVISE = f"""set -e
chmod 755 {paths.SUPERVISOR}
if ! grep -qF '{unit.BOOT_LINE}' {paths.RC_LOCAL} 2>/dev/null; then
    [ -s {paths.RC_LOCAL} ] || echo '#!/bin/sh' >{paths.RC_LOCAL}
    if [ "$(tail -n 1 {paths.RC_LOCAL})" = 'exit 0' ]; then sed -i '$ i {unit.BOOT_LINE}' {paths.RC_LOCAL}
    else echo '{unit.BOOT_LINE}' >>{paths.RC_LOCAL}; fi
    chmod 755 {paths.RC_LOCAL}
fi
{paths.SUPERVISOR} restart"""
_UNSUPERVISE = f"""
[ ! -x {paths.SUPERVISOR} ] || {paths.SUPERVISOR} stop
if grep -qF '{unit.BOOT_LINE}' {paths.RC_LOCAL} 2>/dev/null; then
    grep -vF '{unit.BOOT_LINE}' {paths.RC_LOCAL} >{paths.RC_LOCAL}.new
    if [ "$(grep -cv '^#!/bin/sh$' {paths.RC_LOCAL}.new)" = 0 ]; then rm -f {paths.RC_LOCAL} {paths.RC_LOCAL}.new
    else cat {paths.RC_LOCAL}.new >{paths.RC_LOCAL}; rm -f {paths.RC_LOCAL}.new; fi
fi
rm -f {paths.SUPERVISOR} {paths.PID_FILE} {paths.PID_FILE}.lock {paths.CHILD_PID_FILE}"""
_LOG_TAIL = f"""
if [ -d /run/systemd/system ]; then journalctl -q -u {paths.UNIT} -n 12 --no-pager -o cat; else tail -n 12 {paths.LOG_FILE}; fi"""


def start_agent(site: Site) -> None:
    """The unit (or the supervisor), started now and at boot; restarted if it ran, so that it runs what was installed."""
    if site.before.systemd:
        site.shell.put(unit.SYSTEMD_UNIT.encode(), paths.UNIT_FILE, 0o644)
        site.shell.must(
            "starting the agent", f"systemctl daemon-reload && systemctl -q enable {paths.UNIT} && systemctl restart {paths.UNIT}")
    else:
        site.shell.put(unit.SUPERVISOR.encode(), paths.SUPERVISOR, 0o755)
        site.shell.must("starting the agent", _SUPERVISE)


def stop_agent(site: Site) -> tuple[str, ...]:
    """Stopped and gone; or, where an earlier enrolment had one, as that one left it."""
    if site.before.systemd:
        _restore_unit(site)
    elif site.before.supervisor:
        site.shell.put(site.before.supervisor.encode(), paths.SUPERVISOR, 0o755)
        site.shell.must("stopping the agent", [paths.SUPERVISOR, "stop"])
    else:
        site.shell.must("stopping the agent", _UNSUPERVISE)
    return ()


def _restore_unit(site: Site) -> None:
    if site.before.unit:
        site.shell.put(site.before.unit.encode(), paths.UNIT_FILE, 0o644)
        site.shell.must("stopping the agent", f"systemctl daemon-reload; systemctl stop {paths.UNIT}")
    else:
        site.shell.must("removing the agent's unit", f"""
if [ -e {paths.UNIT_FILE} ]; then systemctl -q disable --now {paths.UNIT}; rm -f {paths.UNIT_FILE}; systemctl daemon-reload; fi
systemctl reset-failed {paths.UNIT} 2>/dev/null; true""")


def restart_former(site: Site) -> None:
    """After an undo: what ran before runs again, with its own files back in place."""
    if not site.before.running:
        return
    if site.before.systemd:
        site.shell.must("starting the former agent again", f"systemctl restart {paths.UNIT}")
    else:
        site.shell.must("starting the former agent again", [paths.SUPERVISOR, "start"])


def log_tail(site: Site) -> tuple[str, ...]:
    """The agent's last words, for an error."""
    return tuple(line for line in site.shell.run(_LOG_TAIL).stdout.splitlines() if line.strip())[-8:]


def remove_pool(site: Site) -> None:
    """libvirt forgets the pool; its files stay. For when the agent can no longer be asked."""
    site.shell.run(_POOL_AWAY, args=(paths.POOL_NAME,))
