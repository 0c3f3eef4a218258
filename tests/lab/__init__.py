"""Several libvirt hosts on this machine, for tests: `Lab` makes them, `Host` is one of them.

A host is this machine's own libvirt, QEMU and sshd in network, mount, UTS, PID and IPC namespaces of its own, with
private /etc, /root, /run, /opt, /tmp and state directories. A SIGKILL of its first process is a loss of power; a bridge rule
cuts it off. It has no systemd, and installing packages in it would install them here. Needs root.

    with Lab(count=3) as lab:
        lab.hosts[0].run("virsh", "list")

By hand: `python -m tests.lab 3` starts three, prints how to reach them and stops them at Ctrl-C.
"""

from tests.lab.host import Host, Output
from tests.lab.lab import Lab

__all__ = ["Host", "Lab", "Output"]
