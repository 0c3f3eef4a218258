"""The walls: who may import whom, where each third-party library lives, and what must not be imported at start-up."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("cli", "api", "conductor", "scheduler", "db", "agents", "enroll", "model")
BELOW = {
    "cli": {"api", "conductor", "model"},
    "api": {"conductor", "scheduler", "db", "agents", "enroll", "model"},
    "conductor": {"scheduler", "db", "agents", "enroll", "model"},
    "scheduler": {"model"},
    "db": {"model"},
    "agents": {"model"},
    "enroll": {"model"},
    "model": set(),
}
"""What a room may import besides itself. `cli` sees of the conductor only what it is told while it waits (progress)."""
OPEN = {"novactl", "novactl.errors", "novactl.config", "novactl.states", "novactl.plugins", "novactl.cluster"}
"""Files at the root of the package: open to every room but the pure ones, which see the first, errors and states."""
PURE = {"model", "scheduler"}
HOMES = {
    "typer": {"cli"}, "rich": {"cli"}, "tabulate": {"cli"}, "sqlalchemy": {"db"}, "alembic": {"db"}, "zmq": {"agents"},
    "paramiko": {"enroll"}, "pycdlib": {"conductor"}, "oslo_utils": {"conductor"}, "cryptography": {"api"}, "numpy": {"scheduler"},
}
WORLD = {"time", "random", "os", "subprocess", "socket", "pathlib", "secrets", "uuid", "threading", "io", "tempfile", "shutil"}


@functools.cache
def modules(package: str) -> list[tuple[str, ast.Module]]:
    return [
        (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), ast.parse(path.read_text()))
        for path in sorted((ROOT / package).rglob("*.py"))]


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_is_below_them(room: str) -> None:
    """cli → api → conductor → { scheduler, db, agents, enroll } → model, and never back."""
    for module, tree in modules("novactl"):
        if room_of(module) != room:
            continue
        for name in imports(tree):
            if name.startswith("novactl."):
                there = room_of(name)
                assert there in BELOW[room] | {room, ""}, f"{module} imports {name}"
                if room == "cli" and there == "conductor":
                    assert name.startswith("novactl.conductor.progress"), f"{module} imports {name}"


def test_only_agents_and_enrolment_see_the_wire() -> None:
    """`nodeagent` is imported by novactl.agents (the wire, and who may connect) and novactl.enroll (the bundle) alone; others get it
    from agents."""
    for module, tree in modules("novactl"):
        for name in imports(tree):
            if name.split(".")[0] == "nodeagent":
                assert room_of(module) in ("agents", "enroll"), f"{module} imports {name}"
                if room_of(module) == "agents":
                    assert name.startswith(("nodeagent.wire", "nodeagent.zap")) or name == "nodeagent", f"{module} imports {name}"


def test_third_party_libraries_have_one_home() -> None:
    """A third-party package is imported by one room of ours; what is not in HOMES is not used at all."""
    for module, tree in modules("novactl"):
        for name in imports(tree):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in ("novactl", "nodeagent"):
                continue
            assert room_of(module) in HOMES.get(top, set()), f"{module} imports {top}"


def test_the_agent_needs_only_what_distributions_package() -> None:
    """nodeagent imports itself, the standard library, zmq where its sockets are served and libvirt in drivers/libvirt.py; nothing of
    novactl."""
    homes = {("zmq", "nodeagent.loop"), ("zmq", "nodeagent.endpoint"), ("libvirt", "nodeagent.drivers.libvirt")}
    for module, tree in modules("nodeagent"):
        for name in imports(tree):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "nodeagent":
                continue
            assert (top, module) in homes, f"{module} imports {top}"


def test_the_agent_is_written_for_python_3_9() -> None:
    """nodeagent parses as Python 3.9, no annotation is a union by `|`, and zip has no `strict` (both need 3.10)."""
    for path in sorted((ROOT / "nodeagent").rglob("*.py")):
        tree = ast.parse(path.read_text(), filename=str(path), feature_version=(3, 9))
        annotations = [node.annotation for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation]
        annotations += [node.returns for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.returns]
        for annotation in annotations:
            assert not any(isinstance(node, ast.BitOr) for node in ast.walk(annotation)), f"{path.name}:{annotation.lineno}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
                assert not any(keyword.arg == "strict" for keyword in node.keywords), f"{path.name}:{node.lineno}"


def test_handlers_know_neither_sockets_nor_libvirt() -> None:
    """What a handler is given is all it has: no socket, no hypervisor library."""
    for module, tree in modules("nodeagent"):
        if module.startswith("nodeagent.handlers"):
            assert not {n for n in imports(tree) if n.split(".")[0] in ("zmq", "libvirt", "socket")}, module


@pytest.mark.parametrize("room", sorted(PURE))
def test_pure_rooms_ask_nothing_of_the_world(room: str) -> None:
    """No clock, no chance, no files, no environment in model and scheduler (random is allowed only as a seeded Random)."""
    for module, tree in modules("novactl"):
        if room_of(module) == room or module == "novactl.states":
            for name in imports(tree):
                assert name.split(".")[0] not in WORLD - {"random"}, f"{module} imports {name}"
                assert name != "random" or "random.Random" in ast.unparse(tree), f"{module} uses global chance"


def test_no_cycles() -> None:
    """No module imports itself by way of others at import time (imports inside functions are the late ones)."""
    graph: dict[str, set[str]] = {}
    names = {module for package in ("novactl", "nodeagent") for module, _ in modules(package)}
    for package in ("novactl", "nodeagent"):
        for module, tree in modules(package):
            late = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
            guarded = {
                id(inner) for node in ast.walk(tree)
                if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) for inner in ast.walk(node)
            }
            found = set()
            for node in ast.walk(tree):
                if id(node) in late | guarded:
                    continue
                if isinstance(node, ast.Import):
                    found |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    whole = {f"{node.module}.{alias.name}" for alias in node.names}
                    found |= (whole & names) or {node.module}
            graph[module] = (found & names) - {module}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
