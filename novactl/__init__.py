"""novactl: virtual machines on a fleet of KVM hosts, from one command line."""

__version__ = "0.1.0"
