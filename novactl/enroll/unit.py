"""How the agent is kept running: a systemd unit, or a supervisor script where there is no systemd."""

from __future__ import annotations

from novactl.enroll import paths

RESTRICTED = """\
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# libzmq asks netlink for the interfaces before it listens, and aborts when it may not.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
"""What no process of ours needs: of the agent's unit and of the conductor's."""

SYSTEMD_UNIT = f"""\
[Unit]
Description=novactl node agent
After=network-online.target libvirtd.service virtqemud.socket
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={paths.PYTHON} {paths.CURRENT_ZIPAPP} --config {paths.CONFIG_FILE}
Restart=always
RestartSec=2
WatchdogSec=30
TimeoutStopSec=20
User={paths.USER}
Group={paths.USER}
SupplementaryGroups=libvirt kvm
UMask=0077
LimitNOFILE=4096
# An enrolled key can make libzmq hold one message without end. The agent itself needs 45 MB, and with four images
# arriving, held replies and full queues under 200; past this it is killed and started anew, and guests do not notice.
MemoryMax=256M
MemorySwapMax=0
# None: what belongs to root or QEMU (console logs, disks in use) the agent has libvirt do.
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={paths.STATE_DIR} {paths.POOL_DIR} {paths.KEYS_DIR}
ProtectHome=yes
PrivateTmp=yes
# Not PrivateDevices: whether /dev/kvm can be opened decides between KVM and emulation.
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
{RESTRICTED}\

[Install]
WantedBy=multi-user.target
"""

SUPERVISOR = f"""\
#!/bin/sh
# Keeps nodeagent running on a machine without systemd: supervise start|stop|restart|status
# Written by novactl. Starting what runs and stopping what does not changes nothing.
pid_file={paths.PID_FILE}
child_file={paths.CHILD_PID_FILE}
log={paths.LOG_FILE}

alive() {{ # PIDFILE WORD: the pid in the file, if that process is still the one meant
    pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
    tr '\\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2" && echo "$pid"
}}

end() {{ # PIDFILE WORD: end it, gently for 15 s
    n=0
    while pid=$(alive "$1" "$2"); do
        [ "$n" -eq 0 ] && kill -TERM "$pid" 2>/dev/null
        [ "$n" -eq 150 ] && kill -KILL "$pid" 2>/dev/null
        [ "$n" -gt 200 ] && return 1
        n=$((n + 1))
        sleep 0.1
    done
    rm -f "$1"
}}

run() {{
    trap 'stopping=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT
    stopping= child= pause=1
    echo $$ >"$pid_file"
    while [ -z "$stopping" ]; do
        [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -gt 10485760 ] && mv -f "$log" "$log.1"
        began=$(date +%s)
        {paths.PYTHON} {paths.CURRENT_ZIPAPP} --config {paths.CONFIG_FILE} >>"$log" 2>&1 </dev/null &
        child=$!
        echo "$child" >"$child_file"
        [ -n "$stopping" ] && kill -TERM "$child" 2>/dev/null
        wait "$child"
        status=$?
        while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
        child=
        [ -n "$stopping" ] && break
        [ $(($(date +%s) - began)) -ge 60 ] && pause=1
        echo "supervise: nodeagent ended with status $status, starting it again in $pause s" >>"$log"
        sleep "$pause" &
        wait $!
        pause=$((pause * 2))
        [ "$pause" -gt 30 ] && pause=30
    done
    rm -f "$child_file" "$pid_file"
}}

start() {{
    alive "$pid_file" "$0" >/dev/null && return 0
    end "$child_file" {paths.ZIPAPP} || return 1
    cd /
    umask 077
    setsid sh "$0" run </dev/null >/dev/null 2>&1 9>&- &
    n=0
    until alive "$pid_file" "$0" >/dev/null; do
        n=$((n + 1))
        [ "$n" -gt 50 ] && return 1
        sleep 0.1
    done
}}

stop() {{
    end "$pid_file" "$0" && end "$child_file" {paths.ZIPAPP}
}}

case "$1" in
    run) run ;;
    status) if pid=$(alive "$pid_file" "$0"); then echo "running $pid"; else echo stopped; exit 3; fi ;;
    start | stop | restart)
        exec 9>"$pid_file.lock"
        flock 9
        case "$1" in
            start) start ;;
            stop) stop ;;
            restart) stop && start ;;
        esac ;;
    *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
"""

BOOT_LINE = f"{paths.SUPERVISOR} start  # novactl"
