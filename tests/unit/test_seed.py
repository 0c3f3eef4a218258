"""The NoCloud seed, read back by a second reader where one is installed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from novactl.conductor.seed import build_seed, check_user_data, host_name, seed_files
from novactl.errors import UsageError
from novactl.model.server import Server
from novactl.states import PowerState, TaskState, VmState

SERVER = Server(
    id="12345678-1234-4234-8234-123456789abc", name="Web_1.prod", vm_state=VmState.BUILDING, task_state=TaskState.SCHEDULING,
    power_state=PowerState.NOSTATE, node_id="", node_name="", epoch=1, operation_id="", flavor_name="small", vcpus=1,
    memory_mb=512, disk_gb=1, image_id="", image_name="debian", image_sha256="0" * 64, architecture="x86_64",
    keypair_name="alice", public_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA alice", user_data="", zone="",
    mac="52:54:00:12:34:56", addresses=(), fault="", created_at=0.0, updated_at=0.0, launched_at=None, deleted_at=None,
)


def read_back(image: bytes) -> tuple[str, dict[str, bytes], dict[str, bytes]]:
    """(label, files by Rock Ridge, files by Joliet)."""
    from pycdlib import PyCdlib

    iso = PyCdlib()
    iso.open_fp(io.BytesIO(image))
    found: list[dict[str, bytes]] = []
    for view in ("rr_path", "joliet_path"):
        files = {}
        for child in iso.list_children(**{view: "/"}):
            if not child.is_dir():
                name = child.rock_ridge.name().decode() if view == "rr_path" else child.file_identifier().decode("utf-16-be")
                out = io.BytesIO()
                iso.get_file_from_iso_fp(out, **{view: f"/{name}"})
                files[name] = out.getvalue()
        found.append(files)
    label = iso.pvd.volume_identifier.decode().strip()
    iso.close()
    return label, found[0], found[1]


def test_the_seed_holds_the_three_files() -> None:
    """The volume is `cidata`; by Rock Ridge and by Joliet it has the NoCloud files with their content."""
    label, rock_ridge, joliet = read_back(build_seed(SERVER))
    assert label == "cidata"
    assert rock_ridge == joliet == seed_files(SERVER)


def test_what_a_guest_is_told() -> None:
    """Identity, host name, key and a DHCP interface found by its MAC."""
    files = seed_files(SERVER)
    assert json.loads(files["meta-data"]) == {
        "instance-id": SERVER.id, "local-hostname": "web-1-prod", "public-keys": [SERVER.public_key]}
    assert json.loads(files["network-config"]) == {
        "version": 2, "ethernets": {"primary": {"match": {"macaddress": "52:54:00:12:34:56"}, "dhcp4": True}}}
    head, _, body = files["user-data"].partition(b"\n")
    assert head == b"#cloud-config"
    assert json.loads(body) == {"hostname": "web-1-prod", "ssh_authorized_keys": [SERVER.public_key]}


def test_without_a_key() -> None:
    """No keypair is an empty list, not an empty key."""
    assert json.loads(seed_files(replace(SERVER, public_key=""))["meta-data"])["public-keys"] == []


@pytest.mark.parametrize("text", ["#!/bin/sh\necho hi\n", "#cloud-config\npackages: [é]\n", "x" * 49_149])
def test_user_data_passes_as_it_is(text: str) -> None:
    """User data reaches the guest byte for byte."""
    assert read_back(build_seed(replace(SERVER, user_data=text)))[1]["user-data"] == text.encode()


def test_user_data_is_bounded() -> None:
    """65,535 characters of base64 are 49,149 bytes (the next group of four would be one too many); more is refused."""
    assert len(base64.b64encode(b"x" * 49_149)) == 65_532
    assert check_user_data("x" * 49_149)
    with pytest.raises(UsageError, match="65536 characters in base64"):
        check_user_data("x" * 49_150)
    with pytest.raises(UsageError):
        build_seed(replace(SERVER, user_data="é" * 25_000))
    with pytest.raises(UsageError, match="not UTF-8"):
        check_user_data("\udcff")


@pytest.mark.parametrize(("name", "host"), [
    ("web1", "web1"), ("Web_1.prod", "web-1-prod"), ("a" * 63, "a" * 63), ("x-", "x"), ("9.", "9"), ("___", "server"),
])
def test_host_name(name: str, host: str) -> None:
    """Any server name gives a valid host name."""
    assert host_name(name) == host


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_the_same_server_gives_the_same_bytes(zone: str) -> None:
    """Another process, at another time and in another time zone, makes the same image: asking again changes nothing."""
    script = (
        "import hashlib, sys; sys.path.insert(0, '.'); from tests.unit.test_seed import SERVER, build_seed\n"
        "print(hashlib.sha256(build_seed(SERVER)).hexdigest())")
    other = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == hashlib.sha256(build_seed(SERVER)).hexdigest()


def test_a_hostile_name_stays_a_value() -> None:
    """Nothing in a key or a name can open a new line of YAML."""
    files = seed_files(replace(SERVER, public_key='ssh-ed25519 AAAA x"\nruncmd: [evil]'))
    assert json.loads(files["meta-data"])["public-keys"] == ['ssh-ed25519 AAAA x"\nruncmd: [evil]']
    assert not any(line.startswith(b"runcmd") for line in files["user-data"].splitlines())


def test_pycdlib_is_imported_late() -> None:
    """Importing the seed's module does not import pycdlib."""
    script = "import sys, novactl.conductor.seed; sys.exit('pycdlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
