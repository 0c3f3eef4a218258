"""Everything imported once: a process under test is a fork, and begins with its `main`."""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil

LEFT_OUT = ("__main__", ".migrat", ".enroll", ".libvirt", ".link", ".stream", ".image_inspection", ".image_intake", ".remove_node")
"""Not of what is killed here, and large, or not there on every machine."""

ALSO = (
    "typer.testing", "zmq.utils.garbage", "pycdlib", "pwd", "psycopg", "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite")
"""What is otherwise imported by each process anew, when it comes to it."""


def import_all() -> None:
    """All of novactl and nodeagent that a command or an agent may need, and is not too large to be forked with each.

    Afterwards there is one thread, and neither a socket nor a database.
    """
    import nodeagent
    import novactl

    for package in (novactl, nodeagent):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not any(part in module.name for part in LEFT_OUT):
                importlib.import_module(module.name)
    for name in ALSO:
        importlib.import_module(name)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"{len(threads)} threads before the first fork"
    gc.collect()
    gc.freeze()                                               # a fork's collector leaves these pages shared
