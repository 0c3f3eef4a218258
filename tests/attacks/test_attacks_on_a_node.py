"""What was done to others' hypervisor hosts, tried on our agent. Which attack each test stands for: nodeagent/SECURITY.md."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import ipaddress
import json
import os
import re
import socket
import threading
import time
import typing
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from nodeagent import domainxml, endpoint, loop, wire
from nodeagent.drivers.base import Mark
from nodeagent.loop import Loop, Unsafe
from nodeagent.wire import BadMessage, Code, ConsoleRef, DiskSpec, DomainRef, ImageChunk, ImageOffer, ImageRef
from tests.contract.kit import ISO, Node, until
from tests.contract.process import AgentProcess, ask

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "../../../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b", "a\0b", "a\nb", "-rf", "--help", "$(touch owned)", "`touch owned`",
    "a;touch owned", "a|b", "a'b", 'a"b', "<x/>", "]]>", "&amp;", "&x;", "<!ENTITY x SYSTEM 'file:///etc/passwd'>", "a\x1b[2J",
    "\u202eabc", "a" * 5000, "%s%n",
    "json:{}", "nbd://evil/x", "file:///etc/passwd", "CON", "a\ud800b".encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

PLATFORM = domainxml.Platform("qemu", "pc", "host-model", "/pool", "/log")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "node").mkdir()
    made = Node(tmp_path / "node")
    made.prepare()
    yield made
    made.down()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path)
    yield made
    made.stop()


def texts(cls: type) -> list[str]:
    """The fields of a message that are text, or lists of it."""
    hints = typing.get_type_hints(cls)
    return [field.name for field in dataclasses.fields(cls) if "str" in str(hints[field.name])]


def sound(method: str, sha256: str, node: Node) -> dict[str, Any]:
    """Arguments that the method takes, as JSON has them."""
    args = wire.METHODS[method].args
    by_name = {
        "DomainSpec": lambda: node.spec(sha256), "DiskSpec": lambda: DiskSpec(str(uuid.uuid4()), 1, sha256, 1),
        "ImageOffer": lambda: ImageOffer("0" * 64, 10, 10, "raw"), "ImageChunk": lambda: ImageChunk("0" * 64, 0),
        "ImageRef": lambda: ImageRef("0" * 64), "ConsoleRef": lambda: ConsoleRef("c"), "Prepare": lambda: wire.Prepare(network="default")}
    if args.__name__ in by_name:
        return wire.to_plain(by_name[args.__name__]())
    usual = {"server": str(uuid.uuid4()), "public_key": "a" * 40, "boot_id": node.clock.boot_id}
    hints = typing.get_type_hints(args)
    plain = {str: "", int: 1, float: 1.0, bool: False}
    return {name: usual.get(name, plain.get(hint, [])) for name, hint in hints.items()}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


FIELDS = [(method, field) for method, row in wire.METHODS.items() if not row.streams for field in texts(row.args)]


@pytest.mark.parametrize(("method", "field"), FIELDS)
def test_cve_2011_4596_a_nodes_names_are_no_paths(node: Node, tmp_path: Path, method: str, field: str) -> None:
    """A hostile text in each text of each method: an answer, and no file appears outside the pool or under another name than ours."""
    sha256 = node.put_image()
    usual, _ = node.ask(dataclasses.replace(node.request(method), args=sound(method, sha256, node)), ISO)
    assert usual.body.get("code") != Code.BAD_REQUEST
    before = files(tmp_path)
    for hostile in HOSTILE:
        args = sound(method, sha256, node)
        args[field] = [hostile] if isinstance(args.get(field), list) else {hostile: 1} if isinstance(args.get(field), dict) else hostile
        request = dataclasses.replace(node.request(method), args=args)
        reply, _ = node.ask(request, ISO if method == "seed.write" else None)
        assert reply.kind in (wire.RESULT, wire.ERROR) and reply.body.get("code") != Code.INTERNAL, (hostile, reply.body)
        assert "root:" not in str(reply.body)
    appeared = {name for name in files(tmp_path) - before if not name.endswith(("-wal", "-shm", "-journal"))}
    ours = re.compile(r"node/(pool/(base-[0-9a-f]{64}\.([0-9a-f-]{36}\.part|raw|qcow2)|(disk|seed)-[0-9a-f-]{36}\.\w+)|state/[a-z.]+)\Z")
    assert {name for name in appeared if not ours.match(name)} == set()
    assert not Path("owned").exists()


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(wire.DomainSpec) if f.type is str or f.type == "str"])
def test_cve_2022_37425_a_specification_holds_no_path(node: Node, field: str) -> None:
    """No text of a server's specification can be the path of a file of the host."""
    with pytest.raises(BadMessage):
        node.spec("0" * 64, **{field: "/etc/passwd"})


def test_cve_2026_33897_values_reach_xml_as_text(node: Node) -> None:
    """Whatever texts a specification can hold, its XML has the elements it would have anyway: parsed again, no element more."""
    plain = ET.fromstring(domainxml.build(node.spec("0" * 64), "raw", Mark("o", "r"), PLATFORM))
    for hostile in HOSTILE:
        for field in ("name", "network", "flavor", "image", "cpu_model", "machine", "architecture"):
            try:
                spec = node.spec("0" * 64, **{field: hostile})
            except BadMessage:
                continue
            found = ET.fromstring(domainxml.build(spec, "raw", Mark(hostile, hostile), PLATFORM))
            assert [e.tag for e in found.iter()] == [e.tag for e in plain.iter()] or field in ("cpu_model", "network", "machine")


@pytest.mark.parametrize("name", ["base-{sha256}.{node}.part", "seed-{server}.iso.part", "disk-{server}.qcow2.part"])
def test_cve_2012_3361_links_in_the_pool_are_not_followed(node: Node, tmp_path: Path, name: str) -> None:
    """Where a symbolic link to a file of the host lies in the place of one we write, that file keeps its content."""
    victim, server, sha256 = tmp_path / "victim", str(uuid.uuid4()), "0" * 64
    victim.write_text("untouched")
    whole = node.put_image()
    link = node.pool / name.format(server=server, sha256=sha256, node=node.config.node_id)
    link.symlink_to(victim)
    for request, payload in (
        (node.request("image.begin", ImageOffer(sha256, 4, 4, "raw")), None), (node.request("image.chunk", ImageChunk(sha256, 0)), b"evil"),
        (node.request("seed.write", DomainRef(server, 1)), ISO),
    ):
        node.ask(request, payload)
    if "disk" not in name:                                    # what makes disks is libvirt's, and writes a name that is no link
        node.ask(node.request("disk.create", DiskSpec(server, 1, whole, 1)))
    assert victim.read_text() == "untouched"


# ---------------------------------------------------------------- XML

BOMB = '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(10)) + "]><r>&k;</r>"
OUTSIDE = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r><name>&x;</name><target><path>&x;</path></target></r>'


def xml_entry_points() -> list[tuple[str, str]]:
    """Every function of the agent that parses XML, found in its source."""
    found = []
    for path in sorted((ROOT / "nodeagent").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and re.search(r"\bET\.(fromstring|parse|XML)\(", ast.unparse(function)):
                found.append((".".join(path.relative_to(ROOT).with_suffix("").parts), function.name))
    return found


@pytest.mark.parametrize("text", [BOMB, OUTSIDE], ids=["bomb", "outside"])
@pytest.mark.parametrize(("module", "function"), xml_entry_points())
def test_cve_2013_1664_xml_entities(module: str, function: str, text: str) -> None:
    """A billion laughs, and a file of the host as an entity, at each function that parses XML: an error or nothing of it, at once."""
    parse, began = getattr(importlib.import_module(module), function), time.monotonic()
    wanted = parse.__code__.co_argcount
    spare: Any = {"moved": ipaddress.ip_network("10.0.0.0/24")}.get(function, "")
    try:
        said = repr(parse(*[text, *[spare] * (wanted - 1)][:wanted]))
    except (ET.ParseError, ValueError, AttributeError, TypeError) as refused:
        assert isinstance(refused, ET.ParseError | ValueError), f"{function}: {refused!r}"
        said = str(refused)
    assert "root:" not in said and len(said) < 100_000 and time.monotonic() - began < 30


def test_cve_2025_12748_xml_of_callers_is_not_parsed(node: Node) -> None:
    """No method takes XML, and the largest specification makes a document of some kilobytes."""
    assert not [field for row in wire.METHODS.values() for field in texts(row.args) if "xml" in field.lower()]
    longest = node.spec("0" * 64, name="a" * 63, flavor="f" * 63, image="i" * 63)
    assert len(domainxml.build(longest, "raw", Mark("o" * wire.ID_CHARS, "r" * wire.ID_CHARS), PLATFORM)) < 32_000


def test_cve_2026_24708_every_disk_tells_its_format(node: Node) -> None:
    """QEMU never probes what a guest wrote: each disk of a domain, and each file behind one, has its format declared."""
    xml = ET.fromstring(domainxml.build(node.spec("0" * 64, has_seed=True), "raw", Mark("o", "r"), PLATFORM))
    disks = xml.findall("devices/disk")
    assert disks and all(disk.find("driver").get("type") in ("qcow2", "raw") for disk in disks)
    assert all(backing.find("format") is not None for backing in xml.iter("backingStore") if len(backing))


def test_cve_2012_5625_a_new_disk_is_new(node: Node) -> None:
    """A disk is a new qcow2 over its image, by the server's own id: what was never written reads as the image's, or zeros."""
    volume = ET.fromstring(domainxml.volume(f"disk-{uuid.uuid4()}.qcow2", 1 << 30, "/pool/base", "raw"))
    assert volume.find("target/format").get("type") == "qcow2" and volume.find("backingStore/format").get("type") == "raw"
    assert volume.findtext("target/permissions/mode") == "0600"


# ---------------------------------------------------------------- images

@pytest.mark.parametrize("value", [";id", "-o", "qcow2,backing_file=/etc/passwd", "json:{}", "RAW", "vmdk", "", "raw\n"])
def test_cve_2026_48755_formats_are_enumerated(node: Node, value: str) -> None:
    """The one value of a caller's that names an algorithm is one of a list of ours, or refused."""
    request = dataclasses.replace(
        node.request("image.begin"), args={"sha256": "0" * 64, "size_bytes": 1, "virtual_size_bytes": 1, "disk_format": value})
    assert node.ask(request)[0].body["code"] == Code.BAD_REQUEST


def test_cve_2026_41685_an_upload_is_held_to_its_offer(node: Node) -> None:
    """More than the disk holds is refused before a byte, more than was offered is thrown away, and five at once are too many."""
    assert node.refusal("image.begin", ImageOffer("1" * 64, 1 << 60, 1 << 60, "raw")).code == Code.NO_SPACE
    node.ok("image.begin", ImageOffer("2" * 64, 10, 10, "raw"))
    assert node.refusal("image.chunk", ImageChunk("2" * 64, 0), bytes(11)).code == Code.BAD_IMAGE
    for number in range(4):
        node.ok("image.begin", ImageOffer(f"{number}" * 64, 10, 10, "raw"))
    assert node.refusal("image.begin", ImageOffer("9" * 64, 10, 10, "raw")).code == Code.BUSY
    assert sum(path.stat().st_size for path in node.pool.iterdir()) == 0


# ---------------------------------------------------------------- who may

@pytest.mark.parametrize("extra", [
    {"role": "admin"}, {"User-Id": "a" * 40}, {"admin": True}, {"tfa-challenge": "x"}, {"key": "a" * 40, "signature": ""}])
def test_cve_2023_54391_what_a_request_says_of_itself_gives_no_right(node: Node, extra: dict[str, Any]) -> None:
    """Fields that nobody asked for, in the envelope or the arguments, make no reader an operator and admit no stranger."""
    for role, code in ((wire.READER, Code.DENIED), ("z" * 40, Code.DENIED)):
        plain = {**wire.to_plain(node.request("domain.destroy", DomainRef(str(uuid.uuid4()), 1))), **extra, "actor": "admin"}
        plain["args"] = {**plain["args"], **extra}
        header = json.dumps(plain).encode()
        node.send_frames([wire.PROTOCOL, header], role=role)
        assert node.next()[0].body["code"] == code


def test_ganeti_2_10_a_nodes_key_commands_no_node(tmp_path: Path) -> None:
    """With the secret of one node's agent, another node's agent, and that node's own, admit nobody."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = AgentProcess(tmp_path / "one"), AgentProcess(tmp_path / "two")
    stolen = (one.public, (tmp_path / "one/keys/agent.key").read_text().split()[0])
    for target in (one, two):
        assert ask(target.dealer(), "agent.ping") is not None
        assert ask(target.dealer(stolen), "agent.ping", wait_s=1) is None
    assert one.stop() == two.stop() == 0


def test_cve_2013_0335_a_console_shows_one_server_only(node: Node) -> None:
    """The id of a console that ended, with its server gone and another in its place, opens nothing."""
    sha256 = node.put_image()
    first, second = node.define(sha256), node.define(sha256, mac="52:54:00:00:00:02")
    node.ok("domain.start", DomainRef(first.server, 1))
    opened = node.request("console.open", DomainRef(first.server, 1))
    node.send(opened)
    until(lambda: node.replies.qsize() > 0)
    for method in ("domain.destroy", "domain.undefine"):
        node.ok(method, DomainRef(first.server, 1))
    node.ok("domain.start", DomainRef(second.server, 1))
    until(lambda: node.refusal("console.input", ConsoleRef(opened.id), b"x").code == Code.NOT_FOUND)
    while not node.replies.empty():
        reply, payload = node.next()
        assert second.server not in str(reply.body) and second.server.encode() not in (payload or b"")


# ---------------------------------------------------------------- the port

@pytest.mark.parametrize("version", [(4, 3, 2), (4, 3, 1), (4, 2, 5), (3, 2, 0)])
def test_cve_2020_15166_an_older_libzmq_is_not_used(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    """Below 4.3.3 (starved, or overflowed, before authentication) the agent does not start."""
    monkeypatch.setattr(loop.zmq, "zmq_version_info", lambda: version)
    with pytest.raises(Unsafe, match="4.3.3"):
        Loop()


def test_cve_2015_7944_a_flood_of_handshakes(agent: AgentProcess) -> None:
    """Three hundred half-made handshakes, renewed all the time: who is enrolled is answered, and the agent stays small."""
    before, stop = agent.rss_mb(), threading.Event()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\x00" + bytes(31) + b"\x04\xc8\x05HELLO" + bytes(100)

    def flood() -> None:
        while not stop.is_set():
            made = []
            for _ in range(100):
                try:
                    made.append(socket.create_connection(("127.0.0.1", agent.port), 1))
                    made[-1].sendall(greeting)
                except OSError:
                    pass
            stop.wait(0.2)
            for one in made:
                one.close()

    floods = [threading.Thread(target=flood, daemon=True) for _ in range(3)]
    for one in floods:
        one.start()
    try:
        client = agent.dealer()
        assert ask(client, "agent.ping", wait_s=60) is not None
        for _ in range(10):
            reply = ask(client, "agent.ping")
            assert reply is not None and reply.kind == wire.RESULT
    finally:
        stop.set()
    assert agent.rss_mb() - before < 48


def test_bounds_of_the_port(agent: AgentProcess) -> None:
    """Message size, queues, handshake, backlog and sockets are bounded by numbers, and the longest message fits in them."""
    options = dict(endpoint._OPTIONS)
    assert options[zmq.MAXMSGSIZE] == wire.MAX_MESSAGE_BYTES == wire.CHUNK_BYTES + wire.MAX_HEADER_BYTES
    assert options[zmq.RCVHWM] == options[zmq.SNDHWM] == 100 and options[zmq.HANDSHAKE_IVL] <= 2000 and options[zmq.BACKLOG] <= 256
    with pytest.raises(BadMessage):
        wire.encode(wire.Reply("id", wire.RESULT), bytes(wire.CHUNK_BYTES + 1))


# ---------------------------------------------------------------- files

def test_cve_2014_5247_an_agents_files_under_umask_0(tmp_path: Path) -> None:
    """Started with umask 0, what an agent writes can be read by nobody else; base images by QEMU, and written by nobody."""
    before = os.umask(0)
    try:
        agent = AgentProcess(tmp_path)
        server = str(uuid.uuid4())
        client = agent.dealer()
        hello = wire.from_plain(wire.Hello, ask(client, "agent.hello").body)
        fence = {"operation": "o", "epoch": 1, "boot_id": hello.boot_id, "valid_until_s": hello.boottime_s + 60}
        assert ask(client, "node.prepare", wire.Prepare(), **fence).kind == wire.RESULT
        client.send_multipart(wire.encode(wire.Request(
            id="s", method="seed.write", args=wire.to_plain(DomainRef(server, 1)), **fence), ISO))
        assert wire.decode(wire.Reply, client.recv_multipart())[0].kind == wire.RESULT
        assert ask(client, "image.begin", ImageOffer("3" * 64, 10, 10, "raw"), **fence).kind == wire.RESULT
        agent.stop()
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for name in ("keys", "state", "pool") for path in
             (tmp_path / name).rglob("*") if path.is_file()}
    for path, mode in modes.items():
        public = path.name == "agent.pub" or path.name.startswith("base-")
        assert mode & (0o022 if public else 0o077) == 0, f"{path} has mode {mode:o}"
    assert any(path.name.startswith("seed-") for path in modes) and Path("keys/agent.key") in modes
