"""Pieces of a host in a domain's specification: what can be said, and what this host can give."""

from typing import Any

import pytest

from nodeagent import wire
from nodeagent.pieces import cpuset_text, lacking, parse_cpuset, vcpus_of_cells
from nodeagent.wire import BadMessage, DomainCell, DomainSpec, NumaCell, PciDevice

CELLS = (
    NumaCell(0, (0, 1, 4, 5), 8192, ((0, 4), (1, 5)), {"2048": 1024}),
    NumaCell(1, (2, 3, 6, 7), 8192, ((2, 6), (3, 7))))
DEVICES = (PciDevice("0000:3b:00.0", "10de", "1eb8", 0),)
PLAIN = {
    "server": "0b5f2f4e-8f3c-4a57-9f0e-2a8d1c7e6b90", "epoch": 1, "name": "web1", "vcpus": 2, "memory_mb": 1024, "disk_gb": 1,
    "image_sha256": "5e" * 32, "mac": "52:54:00:12:34:56"}


def spec(**changes: Any) -> DomainSpec:
    return wire.from_plain(DomainSpec, {**PLAIN, **changes})


def test_cpusets() -> None:
    """A cpuset is numbers and ranges; as text it is the shortest."""
    assert parse_cpuset("0-3,8,2") == (0, 1, 2, 3, 8)
    assert parse_cpuset("") == ()
    assert cpuset_text((8, 3, 2, 1, 0)) == "0-3,8"
    assert cpuset_text(()) == ""


def test_a_spec_with_pieces_travels_whole() -> None:
    """What is asked of the host comes back as it was from JSON; a spec that says nothing of it asks for nothing."""
    whole = spec(vcpus=3, pins=[4, 0, 2], cells=[
        {"vcpus": 2, "memory_mb": 512, "host_cell": 0, "page_kib": 2048}, {"vcpus": 1, "memory_mb": 512, "host_cell": 1}],
        pci=["0000:3b:00.0"], cpuset="0-7")
    assert wire.from_plain(DomainSpec, wire.to_plain(whole)) == whole
    assert whole.cells[1] == DomainCell(1, 512, 1, 0)
    assert vcpus_of_cells(whole) == (range(2), range(2, 3))
    assert (spec().cpuset, spec().pins, spec().cells, spec().pci) == ("", (), (), ())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cpuset": "0-3'/><x"}, "is not CPU numbers"),
        ({"cpuset": "3-1"}, "'3-1' is not a range of CPUs from 0 to 8191"),
        ({"cpuset": "0,9000"}, "from 0 to 8191"),
        ({"cpuset": "1," * 2000 + "1"}, "is not CPU numbers"),
        ({"cpuset": "١"}, "is not CPU numbers"),
        ({"pins": [0]}, "one CPU for each of 2 vcpus, not 1"),
        ({"pins": [3, 3]}, "different CPUs"),
        ({"pins": [-1, 3]}, "different CPUs from 0"),
        ({"cells": [{"vcpus": 1, "memory_mb": 1024, "host_cell": 0}]}, "the vcpus of all cells are 1, the server's 2"),
        ({"cells": [{"vcpus": 2, "memory_mb": 1000, "host_cell": 0}]}, "the memory_mb of all cells are 1000, the server's 1024"),
        ({"cells": [{"vcpus": 0, "memory_mb": 1024, "host_cell": 0}]}, "positive"),
        ({"cells": [{"vcpus": 2, "memory_mb": 1024, "host_cell": -1}]}, "host_cell must be 0 to 1023"),
        ({"cells": [{"vcpus": 2, "memory_mb": 1024, "host_cell": 0, "page_kib": 3000}]}, "power of two"),
        ({"cells": [{"vcpus": 2, "memory_mb": 1024, "host_cell": 0, "page_kib": 16777216}]}, "not a multiple"),
        ({"vcpus": 9, "memory_mb": 9, "cells": [{"vcpus": 1, "memory_mb": 1, "host_cell": n} for n in range(9)]}, "at most 8"),
        ({"pci": ["3b:00.0"]}, "is not of the form 0000:3b:00.0"),
        ({"pci": ["0000:3B:00.0"]}, "is not of the form"),
        ({"pci": ["0000:3b:20.0"]}, "is not of the form"),
        ({"pci": ["0000:3b:00.0", "0000:3b:00.0"]}, "different addresses"),
        ({"pci": [f"0000:3b:00.{n}" for n in range(8)] * 5}, "different addresses, at most 32"),
    ],
)
def test_what_cannot_be_said(changes: dict[str, Any], why: str) -> None:
    """A spec that is not well-formed does not come into being, and says what is wrong with it."""
    with pytest.raises(BadMessage, match=why):
        spec(**changes)


def cell(vcpus: int = 2, memory_mb: int = 1024, host_cell: int = 0, page_kib: int = 0) -> dict[str, int]:
    return {"vcpus": vcpus, "memory_mb": memory_mb, "host_cell": host_cell, "page_kib": page_kib}


OTHERS = (
    spec(name="db1", pins=[1, 5], pci=["0000:3b:00.0"]),
    spec(name="db2", cells=[cell(page_kib=2048)]),
)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"cpuset": "0-3"}, ""),
        ({"cpuset": "0-8"}, "CPU of the cpuset 8 is not one of this host's: 0-7"),
        ({"pins": [0, 9]}, "pinned CPU 9 is not one of this host's: 0-7"),
        ({"pins": [0, 5]}, "CPU 5 is pinned by server db1 already"),
        ({"pins": [0, 4], "cells": [cell()]}, ""),
        ({"pins": [0, 3], "cells": [cell()]}, "vcpu 1 is pinned to CPU 3, which is not in host cell 0 as its memory is"),
        ({"cells": [cell(host_cell=2)]}, "guest cell 0 is to be on host cell 2, the host has 0-1"),
        ({"cells": [cell(host_cell=1)], "cpuset": "0-1"}, "no CPU of host cell 1 is in the cpuset 0-1"),
        ({"cells": [cell(page_kib=2048)]}, ""),
        ({"memory_mb": 1538, "cells": [cell(memory_mb=1538, page_kib=2048)]},
         "pages of 2048 KiB in host cell 0: needs 769, has 512 of 1024 (512 used)"),
        ({"cells": [cell(host_cell=1, page_kib=2048)]}, "pages of 2048 KiB in host cell 1: needs 512, has 0 of 0 (0 used)"),
        ({"pci": ["0000:3b:00.0"]}, "PCI device 0000:3b:00.0 is given to server db1 already"),
        ({"pci": ["0000:3b:00.1"]},
         "PCI device 0000:3b:00.1 is not there, or cannot be given to a guest (no IOMMU group, or the host uses it)"),
    ],
)
def test_what_the_host_cannot_give(changes: dict[str, Any], why: str) -> None:
    """A piece that is not there, or that another server of this host has, is named with its numbers."""
    assert lacking(spec(**changes), CELLS, DEVICES, OTHERS) == why


def test_the_largest_report_can_be_sent() -> None:
    """What a report may hold of the host's pieces takes less than a quarter of what a message may."""
    numbers = iter(range(8191 - 2048, 8191))
    cells = []
    for number in range(960, 1024):
        cpus = tuple(next(numbers) for _ in range(2048 // 64))
        cells.append(NumaCell(number, cpus, 1 << 30, tuple(zip(cpus[::2], cpus[1::2], strict=True)), {"2048": 1 << 30, "1048576": 1 << 20}))
    devices = [PciDevice(f"ffff:{n:02x}:1f.7", "10de", "1eb8", 1023) for n in range(256)]
    plain = {"cells": wire.to_plain(cells), "pci": wire.to_plain(devices), "machines": ["m" * 63] * 128}
    assert len(wire.encode(wire.Reply("x", wire.RESULT, plain))[1]) < wire.MAX_HEADER_BYTES // 4
