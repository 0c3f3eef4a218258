"""What machines of several kinds print for enrolment's facts script, by section; see `machine`."""

from novactl.enroll.facts import _MARK, Facts, parse

_COMMON = {
    "clock": "1700000000",
    "machine_id": "3d1219c7c4c5404aaa1f6d2a48adfda4",
    "kvm": "vmx\ndevice 660 root kvm",
    "groups": "kvm:x:107:",
    "space": "\n".join(f"{path} /dev/vda1 263174212 23000000 82335020  23% /" for path in (
        "/var/lib/libvirt/images", "/opt", "/etc", "/var/lib", "/usr")),
    "ports": "0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14000 1 0 100 0 0 10 0",
}
_READY = "python 3.11.2\nlibvirt 9000000\nzmq 24.0.1\nlibzmq 4.3.4\ncurve True"
_VIRT = "qemu-system-x86_64 qemu-img libvirtd virtlogd virsh dnsmasq iptables nft python3"

DEBIAN = {
    **_COMMON,
    "uname": "x86_64\nh1.example",
    "os": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"',
    "programs": "\n".join(["apt-get", "systemctl", "useradd", "setsid", "timeout"]),
    "python": "python 3.11.2",
    "systemd": "yes",
    "units": "Id=nodeagent.service\nActiveState=inactive\nUnitFileState=",
}
"""A fresh Debian 12 with systemd and none of the packages."""
READY = {
    **DEBIAN,
    "programs": "\n".join([*DEBIAN["programs"].split(), *_VIRT.split()]),
    "python": _READY,
    "groups": "libvirt:x:106:\nkvm:x:107:",
    "daemons": "systemd\nlibvirtd\nbash",
    "units": (
        "Id=libvirtd.service\nActiveState=active\nUnitFileState=enabled\n\nId=libvirtd.socket\nActiveState=active\n"
        "UnitFileState=enabled\n\nId=virtlogd.socket\nActiveState=active\nUnitFileState=enabled\n\n"
        "Id=nodeagent.service\nActiveState=inactive\nUnitFileState="),
}
"""The same with every package, and libvirtd running."""
CONTAINER = {**READY, "systemd": "", "units": "", "daemons": "libvirtd\nvirtlogd\nsshd"}
"""The same without systemd."""
ROCKY = {
    **_COMMON,
    "uname": "x86_64\nr9",
    "os": 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nPRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"',
    "programs": "dnf\nsystemctl\npython3\nuseradd\nfirewall-cmd",
    "python": "python 3.9.18",
    "systemd": "yes",
    "firewall": "firewalld running",
}
LEAP = {
    **_COMMON,
    "uname": "aarch64\nleap",
    "os": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nPRETTY_NAME="openSUSE Leap 15.6"',
    "programs": "zypper\nsystemctl\npython3\nuseradd",
    "python": "python 3.9.19",
    "systemd": "yes",
}


def machine(sections: dict[str, str], **changes: str) -> Facts:
    """The facts of a machine that prints `sections`, with some of them changed."""
    return parse("".join(f"\n{_MARK}{name}\n{text}" for name, text in {**sections, **changes}.items()))
