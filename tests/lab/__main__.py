"""`python -m tests.lab [COUNT]`: start test hosts, print how to reach them, stop them at Ctrl-C or SIGTERM."""

import signal
import sys
import time

from tests.lab import Lab


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    began = time.monotonic()
    with Lab(int(sys.argv[1]) if len(sys.argv) > 1 else 3) as lab:
        print(f"{len(lab.hosts)} hosts in {time.monotonic() - began:.1f} s; files in {lab.dir}")
        for host in lab.hosts:
            options = f"-i {lab.client_key} -o UserKnownHostsFile={lab.home}/.ssh/known_hosts"
            print(f"  ssh {options} root@{host.address}    # {host.name}, {host.fingerprint}")
        print(f"HOME={lab.home} lets novactl use that key and those known hosts. Ctrl-C stops them.", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping")


if __name__ == "__main__":
    main()
