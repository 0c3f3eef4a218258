"""The node's side of novactl: one small daemon per hypervisor host. Imports nothing of novactl."""

__version__ = "0.1.0"
