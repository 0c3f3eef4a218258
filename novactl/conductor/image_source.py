"""Where an image comes from: a file of this machine, or an http(s) URL."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from novactl.errors import BadImage, Unreachable

if TYPE_CHECKING:
    from http.client import HTTPResponse

CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 5
TIMEOUT_S = 30.0
"""How long a server may stay silent, at any moment of the transfer."""


@dataclass(frozen=True)
class Source:
    """`name` is fit to be stored and shown (no query, no password). `total_bytes` is 0 where it is not known."""

    name: str
    total_bytes: int
    chunks: Iterator[bytes]


@contextlib.contextmanager
def open_source(source: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[Source]:
    """The bytes behind a path or a URL, whole or not at all: `chunks` raises when fewer come than were promised.

    Raises BadImage for what cannot be an image (no such file, a pipe, another scheme) and Unreachable for a URL that
    does not answer, answers with an error, or breaks off.
    """
    if "://" in source:
        with _open_url(source, timeout_s) as (url, response, total):
            yield Source(url, total, _url_chunks(url, response, total))
        return
    path = os.path.abspath(source)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as failed:
        raise BadImage(f"cannot read {source!r}: {getattr(failed, 'strerror', None) or failed}") from None
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise BadImage(f"{source!r} is not a regular file", hint="give the image file itself")
        yield Source(path, facts.st_size, _file_chunks(path, file, facts.st_size))
    finally:
        os.close(file)


def _file_chunks(path: str, file: int, total: int) -> Iterator[bytes]:
    done = 0
    while chunk := _read(path, file):
        done += len(chunk)
        yield chunk
    if done != total:
        raise BadImage(
            f"{path} changed while it was read ({total} bytes, then {done})", hint="try again when nobody writes to it")


def _read(path: str, file: int) -> bytes:
    try:
        return os.read(file, CHUNK_BYTES)
    except OSError as failed:
        raise BadImage(f"cannot read {path}: {failed.strerror}") from None


def _checked_url(url: str) -> str:
    """The URL without its fragment. Only http and https, only with a host, never with a password in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as bad:
        raise BadImage(f"not a URL: {bad}") from None
    if parts.scheme not in ("http", "https"):
        raise BadImage(f"{parts.scheme}:// is not supported", hint="give a path, or an http:// or https:// URL")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise BadImage(f"not a URL of a file: {url[:200]!r}")
    if "@" in parts.netloc:
        raise BadImage("a URL with a user or password in it is not supported", hint="it would be stored and shown with the image")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))


def _without_query(url: str) -> str:
    """For storing and showing: a query may hold a signature that is as good as a password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


@contextlib.contextmanager
def _open_url(source: str, timeout_s: float) -> Iterator[tuple[str, HTTPResponse, int]]:
    """Follows redirects itself: few, checked like the URL given, and never from https to http."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request

    from novactl import __version__

    url = _checked_url(source)
    shown = _without_query(url)
    for _ in range(MAX_REDIRECTS + 1):
        asked = Request(url, headers={"User-Agent": f"novactl/{__version__}", "Accept-Encoding": "identity"})
        try:
            response = _opener().open(asked, timeout=timeout_s)
        except HTTPError as answer:
            response = answer
        except (OSError, HTTPException) as failed:
            raise Unreachable(f"cannot fetch {_without_query(url)}: {_why(failed)}") from None
        with response:
            moved = response.headers.get("Location") if response.status in (301, 302, 303, 307, 308) else None
            if not moved:
                yield shown, response, _promised(shown, response)
                return
        target = _checked_url(urljoin(url, moved))
        if url.startswith("https:") and not target.startswith("https:"):
            raise BadImage(
                f"{shown} leads from https to http", hint="give the final URL yourself if you trust it, and --checksum")
        url = target
    raise Unreachable(f"{shown}: more than {MAX_REDIRECTS} redirects")


def _why(failed: Exception) -> str:
    """'Connection refused', not '<urlopen error [Errno 111] Connection refused>'."""
    reason = getattr(failed, "reason", None) or failed
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _opener() -> Any:
    """urllib's machine with only what http needs: no file, ftp or data URLs, no redirects of its own."""
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.HTTPDefaultErrorHandler,
                    request.HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


def _promised(shown: str, response: HTTPResponse) -> int:
    if response.status != 200:
        raise Unreachable(f"{shown} answered {response.status} {response.reason}")
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise Unreachable(f"{shown} sends the file encoded as {encoding}, though we asked for it plain")
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and length.isascii() and len(length) < 19 else 0


def _url_chunks(url: str, response: HTTPResponse, total: int) -> Iterator[bytes]:
    from http.client import HTTPException

    done = 0
    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (OSError, HTTPException) as failed:
            raise Unreachable(f"{url} broke off after {done} bytes: {_why(failed)}") from None
        if not chunk:
            break
        done += len(chunk)
        yield chunk
    if total and done != total:
        raise Unreachable(f"{url} broke off after {done} of {total} bytes")
