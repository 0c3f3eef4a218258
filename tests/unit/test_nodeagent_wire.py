"""The codec: what is sent is what arrives, and whatever arrives is a message or BadMessage."""

import dataclasses
import json
import string
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import wire
from nodeagent.handlers import HANDLERS
from nodeagent.wire import METHODS, BadMessage, Reply, Request

_HEX = "0123456789abcdef"
_NAMED = {
    "server": st.uuids().map(str),
    "sha256": st.text(_HEX, min_size=64, max_size=64),
    "image_sha256": st.text(_HEX, min_size=64, max_size=64),
    "mac": st.lists(st.text(_HEX, min_size=2, max_size=2), min_size=6, max_size=6).map(":".join),
    "disk_format": st.sampled_from(wire.DISK_FORMATS),
    "max_bytes": st.integers(1, wire.CHUNK_BYTES),
    "self_fence_s": st.floats(0, 3600),
}
_NAMED["console"] = st.text(string.printable[:95], max_size=wire.ID_CHARS)
_NAMED["adopted"] = st.text(string.printable[:95].replace("/", ""), max_size=wire.ID_CHARS)
_NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=63)
_NAMED.update(dict.fromkeys(("name", "network", "architecture", "machine", "cpu_model", "flavor", "image"), _NAMES))
_PIECES = {
    "cpuset": st.sampled_from(("", "0", "0-3,8")),
    "pins": st.just(()) | st.permutations(range(4)).map(lambda cpus: tuple(cpus[:3])),
    "cells": st.sampled_from((
        (), (wire.DomainCell(3, 6144, 1),), (wire.DomainCell(1, 2048, 0, 1 << 20), wire.DomainCell(2, 4096, 7, 2048)))),
    "pci": st.sampled_from(((), ("0000:3b:00.0",), ("0000:3b:00.1", "0001:af:1f.7"))),
    "vcpus": st.just(3), "memory_mb": st.just(6144),
}
"""Of a server's specification: what can be asked together."""
_KEYS = st.text(string.ascii_letters + string.digits, min_size=40, max_size=40)
_NAMED["public_key"] = _KEYS
_NAMED["role"] = st.sampled_from(wire.ROLES)
_TABLE = st.dictionaries(_KEYS, st.tuples(_NAMES, _NAMED["role"]), min_size=1, max_size=3).map(
    lambda keys: tuple(wire.AdminKey(key, *entry) for key, entry in keys.items())).filter(
    lambda keys: any(key.role == wire.ADMIN for key in keys))


def values(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Anything the type may hold; where a field's value is checked too, anything that passes."""
    if name in _NAMED and kind is not bool:
        return _NAMED[name] if typing.get_origin(kind) is not tuple else st.tuples()
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        pieces = _PIECES if kind is wire.DomainSpec else {"keys": _TABLE} if kind is wire.KeysTable else {}
        return st.builds(
            kind, **{f.name: pieces[f.name] if f.name in pieces else values(hints[f.name], f.name) for f in dataclasses.fields(kind)})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if origin is not None:
        return st.dictionaries(st.text(max_size=8), values(inner[1]), max_size=3)
    return {
        str: st.text(max_size=20), bool: st.booleans(), int: st.integers(1, wire.MAX_INT), float: st.floats(-1e9, 1e9),
    }[kind]


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
def test_arguments_and_results_survive_the_wire(method: str, data: st.DataObject) -> None:
    """For each row of METHODS: arguments in a request and the result in a reply come out as they went in."""
    row = METHODS[method]
    args, result = data.draw(values(row.args)), data.draw(values(row.result))
    payload = data.draw(st.none() | st.binary(max_size=64))
    request = Request("id", method, wire.to_plain(args), operation="o", epoch=1)
    got, given_payload = wire.decode(Request, wire.encode(request, payload))
    assert (wire.from_plain(row.args, got.args), given_payload) == (args, payload)
    reply, _ = wire.decode(Reply, wire.encode(Reply("id", wire.RESULT, wire.to_plain(result))))
    assert wire.from_plain(row.result, reply.body) == result


def test_each_method_has_a_handler_and_a_role() -> None:
    """METHODS and HANDLERS name the same methods, each with a role that exists and a key its arguments have."""
    assert set(METHODS) == set(HANDLERS)
    for row in METHODS.values():
        assert row.role in wire.ROLES
        assert not row.key or row.key in {field.name for field in dataclasses.fields(row.args)}


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_comes_is_a_message_or_bad(frames: list[bytes]) -> None:
    """Random frames never raise anything but BadMessage."""
    for given_frames in (frames, [wire.PROTOCOL, *frames]):
        try:
            wire.decode(Request, given_frames)
        except BadMessage:
            pass


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b"null", b"\xff", b'{"id":1,"method":"m","args":{}}', b'{"id":"a","method":"m","args":[]}',
        b'{"id":"a","id":"b","method":"m","args":{}}', b'{"id":"a","method":"m","args":{"a":1,"a":2}}',
        b'{"id":"a","method":"m","args":{},"timeout_s":NaN}', b'{"id":"a","method":"m","args":{},"timeout_s":1e999}',
        b'{"id":"a","method":"m","args":{},"epoch":9223372036854775808}', b'{"id":"a","method":"m","args":{},"epoch":true}',
        b'{"id":"a","method":"m","args":{},"epoch":' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 50_000,
        b'{"id":"\\ud800","method":"m","args":{}}', b'{"id":"a","method":"m","args":{"\\uDFFF":1}}',
        b'{"id":"a","method":"m"}', b" " * (wire.MAX_HEADER_BYTES + 1),
    ],
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    """Not JSON, half a surrogate pair, twice the same key, NaN, infinite, out of range, too deep, too long, of another type: BadMessage."""
    with pytest.raises(BadMessage):
        wire.decode(Request, [wire.PROTOCOL, header])


@pytest.mark.parametrize("frames", [[], [wire.PROTOCOL], [b"NV0", b"{}"], [b"", b"{}"], [wire.PROTOCOL, b"{}", b"", b""]])
def test_the_frames_are_counted(frames: list[bytes]) -> None:
    """Too few, too many, or another protocol: BadMessage."""
    with pytest.raises(BadMessage):
        wire.decode(Request, frames)


def test_a_newer_peer_may_say_more() -> None:
    """Unknown fields are passed over; a missing one without a default is not."""
    plain = {"server": "0b5f2f4e-8f3c-4a57-9f0e-2a8d1c7e6b90", "epoch": 1, "new": {"x": [1]}}
    assert wire.from_plain(wire.DomainRef, plain) == wire.DomainRef(plain["server"], 1)
    with pytest.raises(BadMessage, match="DomainRef.server is missing"):
        wire.from_plain(wire.DomainRef, {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server", "../../etc/passwd"), ("server", "0B5F2F4E-8F3C-4A57-9F0E-2A8D1C7E6B90"), ("name", "a/b"), ("name", "a..b"),
        ("name", "<x/>"), ("name", "a\x00b"), ("name", "a\n"), ("name", ""), ("name", "-a"), ("network", "a b"), ("mac", "52:54:00:12:34"),
        ("mac", "52:54:00:12:34:5G"), ("image_sha256", "5e" * 31), ("image_sha256", "5E" * 32), ("image_sha256", "5e" * 32 + "\n"),
        ("vcpus", 0), ("memory_mb", -1), ("disk_gb", -1), ("machine", "q35'/>"), ("cpu_model", "../x"), ("architecture", ""),
    ],
)
def test_a_spec_takes_no_hostile_value(field: str, value: Any) -> None:
    """What could become a path, XML or a nonsense size is refused before anyone uses it."""
    good = {
        "server": "0b5f2f4e-8f3c-4a57-9f0e-2a8d1c7e6b90", "epoch": 1, "name": "web1", "vcpus": 1, "memory_mb": 64, "disk_gb": 1,
        "image_sha256": "5e" * 32, "mac": "52:54:00:12:34:56"}
    wire.from_plain(wire.DomainSpec, good)
    with pytest.raises(BadMessage):
        wire.from_plain(wire.DomainSpec, {**good, field: value})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", ["\x7f" * 250_000, "\U0010ffff" * 60_000, ["x"] * 80_000, {"\x01" * 40_000: 1}, 10**18, None, True])
def test_an_error_shows_little_of_what_came(method: str, value: Any) -> None:
    """Whatever stands in whichever field, at most its beginning is in the error's text, and the error can be sent."""
    for field in dataclasses.fields(METHODS[method].args):
        plain: dict[str, Any] = {"server": "0b5f2f4e-8f3c-4a57-9f0e-2a8d1c7e6b90", "sha256": "5e" * 32, "epoch": 1}
        try:
            wire.from_plain(METHODS[method].args, {**plain, field.name: value})
        except BadMessage as bad:
            assert len(str(bad)) < 300


def test_any_failure_can_be_sent() -> None:
    """A message and a hint of any length, and of what UTF-8 cannot hold, become a reply that the other end can read."""
    reply = Reply("id", wire.ERROR, wire.to_plain(wire.Failure(wire.Code.DRIVER, "\x01\udc80" * 500_000, "h" * 500_000)))
    failure = wire.from_plain(wire.Failure, wire.decode(Reply, wire.encode(reply))[0].body)
    assert failure.message.startswith("\x01?") and len(failure.message) <= wire.TEXT_CHARS + 3 >= len(failure.hint)


def test_what_is_too_large_is_not_sent() -> None:
    """A header or payload over its bound is refused at the sender."""
    with pytest.raises(BadMessage):
        wire.encode(Reply("id", wire.RESULT, {"x": "y" * wire.MAX_HEADER_BYTES}))
    with pytest.raises(BadMessage):
        wire.encode(Reply("id", wire.RESULT), bytes(wire.CHUNK_BYTES + 1))
    assert sum(map(len, wire.encode(Reply("id", wire.RESULT), bytes(wire.CHUNK_BYTES)))) < wire.MAX_MESSAGE_BYTES


def test_plain_is_json() -> None:
    """to_plain leaves nothing that JSON cannot hold."""
    report = wire.DomainStates((wire.DomainState("s", "n", "RUNNING", 1, 1, 64, ("192.0.2.1",)),))
    assert json.loads(json.dumps(wire.to_plain(report))) == wire.to_plain(report)
