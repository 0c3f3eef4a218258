"""The agent as one file: a zipapp of the nodeagent package, the same bytes at every build of the same sources."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from novactl.enroll import paths

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold; no build's own time gets in."""
_MAIN = "import sys\nfrom nodeagent.__main__ import main\nsys.exit(main())\n"


@dataclass(frozen=True)
class Bundle:
    version: str
    content: bytes
    sha256: str

    @property
    def folder(self) -> str:
        """Where it goes below the agent's home: a new content is a new folder, so that the one before can come back."""
        return f"{self.version}-{self.sha256[:12]}"


def build() -> Bundle:
    """The zipapp of the nodeagent that is installed beside this novactl (sources or wheel)."""
    from nodeagent import __version__

    files = dict(_sources(resources.files("nodeagent"), "nodeagent"))
    files["__main__.py"] = _MAIN.encode()
    target = io.BytesIO()
    target.write(f"#!{paths.PYTHON}\n".encode())
    # Stored, not deflated: compressed bytes differ between versions of zlib.
    with zipfile.ZipFile(target, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, files[name])
    content = target.getvalue()
    return Bundle(__version__, content, hashlib.sha256(content).hexdigest())


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _sources(entry, name)
        elif entry.name.endswith(".py"):
            yield name, entry.read_bytes()
