"""All sagas, by the kind of operation they run. Being listed here is being held to the three laws."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from novactl.conductor.saga import Saga

_HOMES: Mapping[str, str] = {
    "server.create": "create_server",
    "server.delete": "delete_server",
    "server.start": "power",
    "server.stop": "power",
    "server.reboot": "power",
    "server.revive": "revive",
    "server.clean": "clean_server",
    "server.adopt": "adopt_server",
    "server.evacuate": "evacuate_server",
    "node.fence": "fence_node",
    "node.rotate_key": "rotate_key",
    "node.enroll": "enroll_node",
    "node.remove": "remove_node",
}


class _Sagas(Mapping[str, Saga[Any]]):
    """Kind -> saga; the file is imported with the first use, because enrolment brings SSH with it."""

    def __getitem__(self, kind: str) -> Saga[Any]:
        return importlib.import_module(f"novactl.conductor.{_HOMES[kind]}").SAGAS[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


SAGAS: Mapping[str, Saga[Any]] = _Sagas()
