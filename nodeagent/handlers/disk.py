"""disk.*: a server's root disk."""

from nodeagent.refusal import Refused
from nodeagent.wire import Code, Nothing


def create(call, args, payload):
    """A fresh overlay on the image; where the server's domain is defined at this epoch, the disk it has stays."""
    disk_format = call.agent.images.format_of(args.image_sha256)
    if disk_format is None:
        raise Refused(Code.NOT_FOUND, f"image {args.image_sha256[:12]} is not on this node", retryable=True)
    call.agent.driver.create_disk(args, disk_format)
    return Nothing(), None


def delete(call, args, payload):
    """Gone; absent is success. Refused while the server runs on it."""
    if call.agent.driver.run_id(args.server):
        raise Refused(Code.CONFLICT, f"server {args.server} runs on the disk")
    call.agent.driver.delete_disk(args.server)
    return Nothing(), None
