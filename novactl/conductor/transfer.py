"""Bringing a base image to a node: once per node and content, in order, a window of chunks in flight."""

from __future__ import annotations

import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from novactl.agents import wire
from novactl.conductor.image_store import store_of
from novactl.conductor.saga import Run
from novactl.errors import NovaError
from novactl.model.node import Node

_LOCKS: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
"""Within one process a node gets an image once; another process that sends the same only skips ahead."""


class NoImageFile(NovaError):
    """Images are files of the machine that took them in: a node that has it by now needs no machine's."""

    code, elsewhere = "image.no_file", True


def ensure_image(run: Run, node: Node, offer: wire.ImageOffer) -> None:
    """The node has the image, whole and checked. Calling it again costs one message."""
    state: wire.ImageProgress = run.call(node, "image.begin", offer)
    if state.present:
        return
    with _LOCKS[node.id, offer.sha256]:
        _send(run, node, offer)


def _send(run: Run, node: Node, offer: wire.ImageOffer) -> None:
    path = store_of(run.cluster).path(offer.sha256)
    for _ in range(3):                                        # another sender may have got ahead of, or reset, the file
        state: wire.ImageProgress = run.call(node, "image.begin", offer)
        if state.present:
            return
        if not path.is_file():
            raise NoImageFile(
                f"node {node.name} does not have image {offer.sha256[:12]}, and its file is not on this machine "
                f"({os.uname().nodename}): {path}",
                hint="it lies where `novactl image create` was run; take the same file in here, under another name",
                command="novactl image create NAME FILE")
        reached = state.offset
        results = run.cluster.agents.pipeline(
            node, "image.chunk", _chunks(path, offer.sha256, state.offset), fence=run.fence("image.chunk"), window=wire.IMAGE_WINDOW)
        for answer in results:
            reached = offer.size_bytes if answer.present else answer.offset
            run.progress(reached, offer.size_bytes)
        if reached >= offer.size_bytes:
            run.call(node, "image.finish", wire.ImageRef(offer.sha256))
            return
    raise NovaError(f"image {offer.sha256[:12]} did not arrive whole on node {node.name}", hint="try again")


def _chunks(path: Path, sha256: str, offset: int) -> Iterator[tuple[wire.ImageChunk, memoryview]]:
    """Read into one more buffer than may be unanswered: what was answered has been sent, and its buffer is free again."""
    buffers = itertools.cycle([memoryview(bytearray(wire.CHUNK_BYTES)) for _ in range(wire.IMAGE_WINDOW + 1)])
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        for buffer in buffers:
            size = file.readinto(buffer)
            if not size:
                return
            yield wire.ImageChunk(sha256, offset), buffer[:size]
            offset += size
