"""Image files, good and hostile, made byte by byte, so that no tool is needed to make them.

Layouts: qemu's docs/interop/qcow2.txt and block/vmdk.c, vpc.c, qed.h; ECMA-119 for the ISO.
"""

from __future__ import annotations

import random
import struct

CLUSTER = 65_536
MIB, GIB, PIB = 1 << 20, 1 << 30, 1 << 50


def qcow2(
    *, clusters: int = 4, virtual_size: int = 16 * MIB, version: int = 3, backing: bytes = b"", crypt_method: int = 0,
    incompatible: int = 0, extensions: bytes = b"",
) -> bytes:
    """A sound qcow2 of `clusters` random data clusters: header, refcount table and block, L1, L2, data.

    A backing file's name and header extensions are put in where given; nothing is checked.
    """
    header_bytes = 104 if version >= 3 else 72
    tail = (extensions + bytes(8)) if extensions or backing else b""
    name_at = header_bytes + len(tail)
    l1_entries = max(1, -(-virtual_size // (CLUSTER // 8 * CLUSTER)))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, name_at if backing else 0, len(backing), 16, virtual_size, crypt_method,
        min(l1_entries, 8192), 3 * CLUSTER, 1 * CLUSTER, 1, 0, 0,
    )
    if version >= 3:
        header += struct.pack(">QQQII", incompatible, 0, 0, 4, header_bytes)
    used = 5 + clusters
    refcount_table = struct.pack(">Q", 2 * CLUSTER)
    refcount_block = b"\0\1" * used
    l1 = struct.pack(">Q", 4 * CLUSTER | 1 << 63)
    l2 = b"".join(struct.pack(">Q", (5 + i) * CLUSTER | 1 << 63) for i in range(clusters))
    data = random.Random(7).randbytes(clusters * CLUSTER)
    parts = (header + tail + backing, refcount_table, refcount_block, l1, l2)
    return b"".join(part.ljust(CLUSTER, b"\0") for part in parts) + data


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content.ljust(-(-len(content) // 8) * 8, b"\0")


def partitioned_disk(size: int = MIB) -> bytes:
    """A raw disk with one Linux partition in its master boot record."""
    entry = struct.pack("<B3BB3BII", 0x80, 0, 2, 0, 0x83, 0, 3, 0, 1, size // 512 - 1)
    return (bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(512, b"\0") + random.Random(8).randbytes(size - 512)


def plain_disk(size: int = MIB) -> bytes:
    """A raw disk that nothing recognises."""
    return random.Random(9).randbytes(size)


def vmdk(kind: str, extent: str) -> bytes:
    """A VMDK that is only its text descriptor."""
    text = (
        f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="{kind}"\n\n'
        f'# Extent description\n{extent}\n\n'
        '# The Disk Data Base\nddb.virtualHWVersion = "4"\nddb.adapterType = "ide"\n'
    )
    return text.encode().ljust(2 * MIB, b"\n")


def sparse_vmdk(kind: str = "monolithicSparse", extent: str = 'RW 2048 SPARSE "a.vmdk"') -> bytes:
    """A VMDK with a binary header and an embedded descriptor."""
    header = struct.pack("<4sIIQQQQIQQQB", b"KDMV", 1, 3, 2048, 128, 1, 20, 512, 0, 21, 128, 0)
    return (header.ljust(512, b"\0") + vmdk(kind, extent).rstrip().ljust(20 * 512, b"\0")).ljust(2 * MIB, b"\0")


def vhd() -> bytes:
    footer = struct.pack(">8sIIQI4sI4sQQ", b"conectix", 2, 0x10000, 512, 0, b"qemu", 0x50003, b"Wi2k", MIB, MIB)
    return footer.ljust(512, b"\0") * 2048


def vdi() -> bytes:
    return (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + struct.pack("<I", 0xBEDA107F)).ljust(MIB, b"\0")


def qed() -> bytes:
    return b"QED\0".ljust(MIB, b"\0")


def luks() -> bytes:
    head = struct.pack(">6sH32s32s32sII", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 4096, 64)
    return head.ljust(MIB, b"\0")


def iso() -> bytes:
    descriptor = struct.pack("<B5sBB", 1, b"CD001", 1, 0).ljust(80, b"\0") + struct.pack("<I", 512) + struct.pack(">I", 512)
    descriptor = descriptor.ljust(128, b"\0") + struct.pack("<H", 2048) + struct.pack(">H", 2048)
    return (bytes(32_768) + descriptor.ljust(2048, b"\0")).ljust(MIB, b"\0")
