"""The NoCloud seed: the small disk that tells a guest its name, keys, network and user data. The home of pycdlib.

Format: cloud-init's documentation, "NoCloud" (files in the root of a volume labelled `cidata`). The YAML is written as
JSON, which is YAML.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from novactl.errors import UsageError
from novactl.model.server import Server

LABEL = "cidata"
MAX_USER_DATA_CHARS = 65_535
"""Of its base64, as in Nova's API schema."""
_DATE_S = 946_684_800.0
"""All dates in the image: 2000-01-01, so that one server's seed is the same bytes whenever it is made."""
_ISO_NAMES: Mapping[str, str] = {"meta-data": "/META.;1", "user-data": "/USER.;1", "network-config": "/NETWORK.;1"}


def check_user_data(text: str) -> str:
    """The user data, if it is not too long and a guest can read it. Raises UsageError."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise UsageError("the user data is not UTF-8 text") from None
    size = len(base64.b64encode(raw))
    if size > MAX_USER_DATA_CHARS:
        raise UsageError(
            f"the user data has {size} characters in base64; at most {MAX_USER_DATA_CHARS} are taken",
            hint="let the guest fetch the rest: #include and a URL")
    return text


def host_name(name: str) -> str:
    """A server's name as a host name (RFC 1123), as Nova derives it: 'Web_1.prod' -> 'web-1-prod'."""
    return re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")[:63].rstrip("-") or "server"


def seed_files(server: Server) -> dict[str, bytes]:
    """The files of the seed: name -> content."""
    name, keys = host_name(server.name), [server.public_key] if server.public_key else []
    meta = {"instance-id": server.id, "local-hostname": name, "public-keys": keys}
    network = {"version": 2, "ethernets": {"primary": {"match": {"macaddress": server.mac}, "dhcp4": True}}}
    cloud_config = "#cloud-config\n" + _json({"hostname": name, "ssh_authorized_keys": keys})
    return {
        "meta-data": _json(meta).encode(),
        "user-data": (check_user_data(server.user_data) or cloud_config).encode(),
        "network-config": _json(network).encode(),
    }


def build_seed(server: Server) -> bytes:
    """The seed of a server as an ISO 9660 image with Rock Ridge and Joliet; the same server gives the same bytes.

    Raises UsageError when the user data is too long.
    """
    files = seed_files(server)
    out = io.BytesIO()
    with _BUILDING:
        iso = _new_iso()()
        iso.new(interchange_level=3, vol_ident=LABEL, sys_ident="LINUX", joliet=3, rock_ridge="1.09")
        try:
            for name, content in files.items():
                iso.add_fp(
                    io.BytesIO(content), len(content), _ISO_NAMES[name], rr_name=name, joliet_path=f"/{name}", file_mode=0o100444)
            iso.write_fp(out)
        finally:
            iso.close()
    return out.getvalue()


_BUILDING = threading.Lock()


@functools.cache
def _new_iso() -> Callable[[], Any]:
    """pycdlib, which stamps everything with the clock and the zone of this machine, given a clock that stands still."""
    from pycdlib import dates, headervd, pycdlib

    still: Any = SimpleNamespace(**{name: getattr(time, name) for name in ("strptime", "strftime", "struct_time", "gmtime")})
    still.time, still.localtime = lambda: _DATE_S, time.gmtime
    for module in (dates, headervd, pycdlib):
        module.time = still  # type: ignore[attr-defined]
    return pycdlib.PyCdlib


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, indent=1) + "\n"
