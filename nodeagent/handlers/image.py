"""image.*: base images, cached by SHA-256."""

import contextlib
import os

from nodeagent.images import base_name
from nodeagent.refusal import Refused
from nodeagent.wire import CachedImages, Code, ImageProgress, Nothing


def begin(call, args, payload):
    """Where to send from; `present` where the node has it."""
    progress = call.agent.images.begin(args)
    if progress.present:
        _adopt(call.agent, args)
    return progress, None


def chunk(call, args, payload):
    return call.agent.images.append(args.sha256, args.offset, payload or b""), None


def finish(call, args, payload):
    """Checked, on disk, and only then there under its name."""
    offer = call.agent.images.check(args.sha256)
    if offer is None:
        return ImageProgress(True, 0), None
    call.agent.images.publish(offer)
    _adopt(call.agent, offer)
    return ImageProgress(True, offer.size_bytes), None


def delete(call, args, payload):
    """Gone, half or whole. Refused while a disk is an overlay on it."""
    agent = call.agent
    users = agent.driver.image_users(args.sha256)
    if users:
        some = ", ".join(users[:3])
        raise Refused(Code.CONFLICT, f"image {args.sha256[:12]} is under the disks of {len(users)} servers: {some}")
    agent.images.abandon(args.sha256)
    disk_format = agent.images.format_of(args.sha256)
    if disk_format:
        agent.driver.remove_image(args.sha256, disk_format)
        _gone(agent, args.sha256, disk_format)
    return Nothing(), None


def list_cached(call, args, payload):
    return CachedImages(call.agent.cached_images()), None


def _adopt(agent, offer) -> None:
    """The driver knows the image; one that is not as offered goes."""
    try:
        agent.driver.add_image(offer)
    except Refused as refused:
        if refused.failure.code == Code.BAD_IMAGE:
            agent.driver.remove_image(offer.sha256, offer.disk_format)
            _gone(agent, offer.sha256, offer.disk_format)
        raise


def _gone(agent, sha256: str, disk_format: str) -> None:
    """The driver may have deleted the file with its own record of it."""
    path = os.path.join(agent.config.pool_dir, base_name(sha256, disk_format))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
