"""Is this file the image it claims to be, and safe to give to a hypervisor? The home of oslo.utils' inspector.

No format is parsed here. The inspector of OpenStack tells format, virtual size and what is unsafe, from the file's
first bytes; only then, and only where it is installed, `qemu-img` is asked whether the file is whole, with the format
said explicitly and within limits of time and memory.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novactl.errors import BadImage
from novactl.model.image import DISK_FORMATS
from novactl.model.units import human_bytes

if TYPE_CHECKING:
    from oslo_utils.imageutils.format_inspector import FileInspector

SECTOR_BYTES = 512
LIMIT_CPU_S, LIMIT_MEMORY_BYTES, LIMIT_OUTPUT_BYTES = 30, 2 << 30, 1 << 20
"""Nova's limits for qemu-img (nova/conf/libvirt.py), and one on what it may print."""

_AS: Mapping[str, str] = {"gpt": "raw"}
"""What we call a format the inspector tells: a whole disk with a partition table is a raw disk."""
_CONVERT = "make a plain one: qemu-img convert -O qcow2 IN OUT"
_UNSAFE: Mapping[str, tuple[str, str]] = {
    "backing_file": ("has a backing file: a guest would read a file of the node through it", _CONVERT),
    "data_file": ("keeps its data in another file: a guest would read a file of the node through it", _CONVERT),
    "unknown_features": ("has a qcow2 version or feature that is not supported", _CONVERT),
    "mbr": ("has a partition table that is not sound", _CONVERT),
}
"""Safety checks of the inspector, by their names, in our words, and the way out."""


@dataclass(frozen=True)
class Inspected:
    disk_format: str
    virtual_size_bytes: int


def inspect(path: Path, declared: str | None, *, shown: str, vouched: bool) -> Inspected:
    """What the file is. Raises BadImage, speaking of it as `shown`, unless it is a whole, safe qcow2 or raw disk.

    `declared` is the format its owner claims (None: no claim; then it must show what it is). `vouched`: its bytes were
    compared with a checksum from outside, so that it is whole even where qemu-img is missing to confirm it.
    """
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise BadImage(f"{shown} is empty")
    found = _detect(path, shown)
    disk_format = _AS.get(found.NAME, found.NAME)
    _check_format(found.NAME, disk_format, declared, shown)
    _check_safe(found, shown)
    if disk_format == "raw":
        if size_bytes % SECTOR_BYTES:
            raise BadImage(
                f"{shown} is truncated, or not a raw disk: {size_bytes} bytes are not a multiple of {SECTOR_BYTES}",
                hint="compare its size with the source's, and give --checksum")
        return Inspected("raw", size_bytes)
    virtual_size_bytes = found.virtual_size
    if virtual_size_bytes <= 0:
        raise BadImage(f"{shown} is a disk of no size")
    _check_whole(path, disk_format, virtual_size_bytes, shown=shown, vouched=vouched)
    return Inspected(disk_format, virtual_size_bytes)


def _detect(path: Path, shown: str) -> FileInspector:
    from oslo_utils.imageutils import format_inspector

    # It logs every refusal; ours is the error. (Without a handler of its own, logging prints to stderr.)
    log = logging.getLogger(format_inspector.__name__)
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    try:
        found = format_inspector.detect_file_format(str(path))
    except format_inspector.ImageFormatError as bad:
        raise BadImage(f"{shown} is not one plain image: {bad}") from None
    if found is None:
        raise BadImage(f"{shown} is not a disk image")
    return found


def _check_format(detected: str, disk_format: str, declared: str | None, shown: str) -> None:
    if declared is not None and declared not in DISK_FORMATS:
        raise BadImage(f"disk format {declared!r} is not supported", hint=f"one of {', '.join(DISK_FORMATS)}")
    if detected == "luks":
        raise BadImage(f"{shown} is encrypted (LUKS)", hint="give the plain disk")
    if disk_format not in DISK_FORMATS:
        raise BadImage(f"{shown} is {disk_format}: only {' and '.join(DISK_FORMATS)} are supported", hint=_CONVERT)
    if declared is not None and declared != disk_format:
        raise BadImage(
            f"{shown} is {disk_format}, not {declared} as declared",
            hint=f"--format {disk_format}, if that is what you mean" if disk_format != "raw" else "")
    if declared is None and detected == "raw":
        raise BadImage(
            f"{shown} is not recognised: no qcow2, and no partition table",
            hint="if it is a raw disk, say --format raw; if it is compressed, unpack it first")


def _check_safe(found: FileInspector, shown: str) -> None:
    from oslo_utils.imageutils.format_inspector import ImageFormatError, QcowInspector, SafetyCheckFailed

    try:
        found.safety_check()
    except SafetyCheckFailed as unsafe:
        name, failure = next(iter(unsafe.failures.items()))
        said, hint = _UNSAFE.get(name, (f"is not safe: {failure}", ""))
        raise BadImage(f"{shown} {said}" + (f" ({failure})" if name == "mbr" else ""), hint=hint) from None
    except ImageFormatError as bad:
        raise BadImage(f"{shown} cannot be checked: {bad}") from None
    # The inspector captures the header but does not look at crypt_method, bytes 32-35, big-endian, 0 for none
    # (qemu: docs/interop/qcow2.txt).
    if isinstance(found, QcowInspector) and any(found.region("header").data[32:36]):
        raise BadImage(f"{shown} is encrypted", hint=_CONVERT)


def qemu_img() -> tuple[str, str] | None:
    """(prlimit, qemu-img) where both are installed."""
    found = [shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin") for tool in ("prlimit", "qemu-img")]
    return (found[0], found[1]) if found[0] and found[1] else None


def _check_whole(path: Path, disk_format: str, virtual_size_bytes: int, *, shown: str, vouched: bool) -> None:
    """By qemu-img, or by word of whoever gave the checksum.

    What is missing from a file's last cluster qemu-img does not miss either: it reads as zeros. A checksum would.
    """
    tools = qemu_img()
    if tools is None:
        if vouched:
            return
        raise BadImage(
            f"cannot tell whether {shown} is whole: there is no qemu-img here, and no checksum was given",
            hint="install qemu-utils (qemu-img), or give --checksum sha256:… from where the image was published")
    info = _ask(tools, "info", disk_format, path, shown)
    if info.get("format") != disk_format or info.get("virtual-size") != virtual_size_bytes:
        raise BadImage(f"{shown} is not what its header says: qemu-img finds {info.get('format')}, "
                       f"{human_bytes(int(info.get('virtual-size') or 0))}")
    if info.get("encrypted"):
        raise BadImage(f"{shown} is encrypted", hint=_CONVERT)
    if info.get("backing-filename") or "data-file" in (info.get("format-specific") or {}).get("data", {}):
        raise BadImage(f"{shown} refers to another file", hint=_CONVERT)
    _ask(tools, "check", disk_format, path, shown)


def _ask(tools: tuple[str, str], verb: str, disk_format: str, path: Path, shown: str) -> dict[str, Any]:
    """`qemu-img info|check` on a file that was inspected before. Raises BadImage unless it says that all is well."""
    prlimit, tool = tools
    argv = [
        prlimit, f"--cpu={LIMIT_CPU_S}", f"--as={LIMIT_MEMORY_BYTES}", f"--fsize={LIMIT_OUTPUT_BYTES}", "--core=0", "--",
        tool, verb, "-f", disk_format, "--output=json", "--", str(path),
    ]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            status = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={"LC_ALL": "C"}, timeout=4 * LIMIT_CPU_S, check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
        out.seek(0)
        err.seek(0)
        said, complaint = out.read(), err.readline(500).decode("utf-8", "replace").strip()
    if status < 0 or status > 128:
        raise BadImage(f"{shown} is too costly to check, or damaged: qemu-img {verb} was ended by a limit",
                       hint=f"{LIMIT_CPU_S} s of CPU, {human_bytes(LIMIT_MEMORY_BYTES)} of memory")
    if status not in ((0, 3) if verb == "check" else (0,)):  # 3: leaked clusters, which waste space and hurt nobody
        detail = complaint.replace(str(path), shown).removeprefix("qemu-img: ")
        raise BadImage(f"{shown} is truncated or damaged: {detail or f'qemu-img {verb} says {status}'}",
                       hint="fetch it again, and give --checksum")
    try:
        found = json.loads(said)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadImage(f"{shown} cannot be checked: qemu-img {verb} gave no answer")
    return found
