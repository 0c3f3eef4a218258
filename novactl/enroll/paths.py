"""Where enrolment puts things on a node."""

from __future__ import annotations

AGENT_HOME = "/opt/novactl/agent"
CURRENT = f"{AGENT_HOME}/current"
"""A symlink to the folder of the version in force, replaced atomically."""
ZIPAPP = "nodeagent.pyz"
CURRENT_ZIPAPP = f"{CURRENT}/{ZIPAPP}"
SUPERVISOR = f"{AGENT_HOME}/supervise"

CONFIG_DIR = "/etc/nodeagent"
CONFIG_FILE = f"{CONFIG_DIR}/config.json"
KEYS_DIR = f"{CONFIG_DIR}/keys"
"""The agent's own: here it changes its key, and the table of admins' keys that it is given."""
ADMINS_FILE = f"{KEYS_DIR}/admins.json"
FORMER_ADMINS_FILE = f"{CONFIG_DIR}/admins.json"
"""Where it was while only enrolment wrote it."""
PUBLIC_KEY_FILE = f"{KEYS_DIR}/agent.pub"
STATE_DIR = "/var/lib/nodeagent"

POOL_NAME = "novactl"
POOL_PARENT = "/var/lib/libvirt/images"
POOL_DIR = f"{POOL_PARENT}/novactl"

UNIT = "nodeagent.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
USER = "nodeagent"
PYTHON = "/usr/bin/python3"
"""The distribution's own Python: the one that sees its libvirt and zmq packages."""
PID_FILE = "/run/nodeagent.pid"
CHILD_PID_FILE = "/run/nodeagent.child.pid"
LOG_FILE = f"{STATE_DIR}/nodeagent.log"
"""Where there is no systemd; with it, the journal."""
RC_LOCAL = "/etc/rc.local"
LOCK_DIR = "/run/novactl-enrol"
LOCK_MINUTES = 60
"""After so long an enrolment that never ended no longer keeps others away."""
