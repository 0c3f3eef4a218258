"""Files that only the agent may read: private from their first moment, and whole or not there at all."""

import contextlib
import os
from typing import Union


def write_private(path: str, content: Union[str, bytes]) -> None:
    """`path` holds `content`, mode 0600 whatever the umask; on disk before this returns. Who reads it sees the old file or the new one."""
    part = path + ".part"
    if os.path.lexists(part):                                 # of a process that died; the descriptor is only ever of a new file
        os.unlink(part)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    """What was renamed in it, or removed, stays so after a loss of power."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
