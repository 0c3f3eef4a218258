"""The node's own CURVE pairs on disk: the one in force, and while it is changed the next one.

The secret half of a pair is all that counts: the public one follows from it, and its file is for people and for enrolment.
A pair is taken into force by one rename, so that a crash leaves the old key or the next, and the cluster knows both by then.
"""

import os
from typing import Callable, NamedTuple, Optional

from nodeagent.secretfile import sync_directory, write_private

SECRET, PUBLIC, NEXT = "agent.key", "agent.pub", "agent.next.key"


class Pair(NamedTuple):
    """Z85, 40 characters each."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Pair(public={self.public!r})"


class NodeKeys:
    """`public_of` derives the public half from the secret one, `new_pair` makes a pair (both are ZeroMQ's)."""

    def __init__(self, folder: str, public_of: Callable[[str], str], new_pair: Callable[[], tuple]) -> None:
        self.folder, self._public_of, self._new_pair = folder, public_of, new_pair

    def ensure(self) -> Pair:
        """The pair in force, made where there is none."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if not os.path.exists(self._path(SECRET)):
            write_private(self._path(SECRET), self._new_pair()[1] + "\n")
        return self.current()

    def current(self) -> Pair:
        """The pair in force; its public half is in `agent.pub` from now on. Raises OSError, ValueError."""
        pair = self._read(SECRET)
        if self._told() != pair.public:
            try:
                self._tell(pair.public)
            except OSError:                                   # nobody but people reads it
                pass
        return pair

    def next(self) -> Optional[Pair]:
        """The pair to come; None where none was made."""
        try:
            return self._read(NEXT)
        except FileNotFoundError:
            return None

    def make_next(self) -> Pair:
        """Made where there is none."""
        found = self.next()
        if found is None:
            write_private(self._path(NEXT), self._new_pair()[1] + "\n")
            found = self._read(NEXT)
        return found

    def commit(self) -> Pair:
        """The next pair is the one in force, and what was before is gone. Raises FileNotFoundError where there is no next one."""
        os.rename(self._path(NEXT), self._path(SECRET))
        sync_directory(self.folder)
        return self.current()

    def drop_next(self) -> None:
        """Dropping what is not there is fine."""
        try:
            os.unlink(self._path(NEXT))
        except FileNotFoundError:
            return
        sync_directory(self.folder)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _read(self, name: str) -> Pair:
        with open(self._path(name), encoding="ascii") as file:
            secret = file.read().strip()
        if len(secret) != 40:
            raise ValueError(f"{self._path(name)} holds no key")
        return Pair(self._public_of(secret), secret)

    def _told(self) -> str:
        try:
            with open(self._path(PUBLIC), encoding="ascii") as file:
                return file.read().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _tell(self, public: str) -> None:
        part = self._path(PUBLIC) + ".part"
        with open(part, "w", encoding="ascii") as file:
            file.write(public + "\n")
        os.chmod(part, 0o644)
        os.rename(part, self._path(PUBLIC))
