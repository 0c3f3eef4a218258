"""The command: run the agent, make its keys, say its version."""

import argparse
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from typing import List, Optional

from nodeagent import __version__
from nodeagent.config import BadConfig, Config, load

CONFIG = "/etc/nodeagent/config.json"
DESCRIPTORS = 4096


def main(argv: Optional[List[str]] = None) -> int:
    """0: stopped as told. 1: could not run, or would not be safe. 2: usage or configuration."""
    parser = argparse.ArgumentParser(prog="nodeagent", description="The node's side of novactl: one per hypervisor host.")
    parser.add_argument("command", nargs="?", choices=("run", "keygen", "version"), default="run")
    parser.add_argument("--config", default=CONFIG, metavar="FILE", help=f"default: {CONFIG}")
    parser.add_argument("--keys-dir", metavar="DIR", help="keygen: where agent.key and agent.pub are or will be")
    args = parser.parse_args(argv)
    if args.command == "version":
        print(f"nodeagent {__version__}")
        return 0
    if args.command == "keygen":
        if not args.keys_dir:
            parser.error("keygen needs --keys-dir")
        print(ensure_keys(args.keys_dir))
        return 0
    try:
        config = load(args.config)
    except BadConfig as bad:
        print(f"nodeagent: {bad}", file=sys.stderr)
        return 2
    return run(config)


def ensure_keys(keys_dir: str) -> str:
    """The public key in Z85; the pair is made if it is not there. The secret never has another mode than 0600."""
    return _node_keys(keys_dir).ensure().public


def _node_keys(keys_dir: str):
    from nodeagent.loop import new_keypair, public_of
    from nodeagent.nodekeys import NodeKeys

    return NodeKeys(keys_dir, public_of, new_keypair)


def _alone(state_dir: str) -> int:
    """A descriptor that keeps a second agent off this state directory as long as it is open. Raises OSError."""
    held = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise OSError(f"{state_dir} is in use by another agent") from None
    return held


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT."""
    from nodeagent.admins import Admins
    from nodeagent.agent import Agent
    from nodeagent.clock import BootClock
    from nodeagent.drivers import driver_for
    from nodeagent.journal import log
    from nodeagent.ledger import BadLedger, Ledger
    from nodeagent.loop import Loop, Unsafe, zmq_error

    _raise_descriptors()
    try:
        os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
        _alone(config.state_dir)
        keys = _node_keys(config.keys_dir)
        pair = keys.current()
        ledger = Ledger(os.path.join(config.state_dir, "ledger.db"))
        ledger.prune(time.time())
        agent = Agent(config, driver_for(config), BootClock(), ledger, Admins(config.admins_file))
        loop = Loop()
        endpoint = loop.add(agent, config.listen, pair.secret, pair.public, keys)
        loop.self_test(endpoint)
    except (OSError, ValueError, BadLedger, Unsafe, zmq_error) as bad:
        print(f"nodeagent: {bad}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    agent.start()
    log(f"nodeagent {__version__} listening on {endpoint.address}")
    if agent.admins.fault:
        log(f"nobody is admitted: {agent.admins.fault}")
    _notify("READY=1")
    loop.on_tick = _watchdog()
    loop.run()
    _notify("STOPPING=1")
    loop.close()
    return 0


def _raise_descriptors() -> None:
    """As many as the host allows, at most DESCRIPTORS: each connection needs one, and some memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _notify(text: str) -> None:
    """Tell the service manager, where there is one (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)
            except OSError:
                pass


def _watchdog():
    """Called once a second by the loop: a loop that hangs is restarted by the service manager."""
    if not os.environ.get("NOTIFY_SOCKET") or not os.environ.get("WATCHDOG_USEC"):
        return lambda: None
    every = max(1, int(os.environ["WATCHDOG_USEC"]) // 3_000_000)
    count = [0]

    def tick() -> None:
        count[0] += 1
        if count[0] % every == 0:
            _notify("WATCHDOG=1")

    return tick


if __name__ == "__main__":
    sys.exit(main())
