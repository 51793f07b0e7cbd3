"""Imports point down only, and the rooms of the maths need nothing but torch."""

import ast
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mambaasr"

# A room (a folder or a file of the package; "" is its __init__.py) may import those further up
# here, and nothing beside or below it.
LEVELS = (
    ("errors", "checks"),
    ("command", "files", "fingerprint", "ops"),
    ("beside", "parallel", "layers"),
    ("espnet_compat", "configurable", "search"),
    ("registry", "frontend", "encoder", "postencoder", "decoder", "lm", "model", "optim"),
    ("",),
    ("provenance",),
    ("source",),
    ("data", "config", "doctor"),
    ("score", "task"),
    ("decode",),
    ("recipe",),
    ("tables",),
    ("bin",),
    ("__main__",),
)
# What the package itself offers, and imports only when it is asked for it.
OFFERED = {("", "decode")}
# What other packages a room may import; the others may import what setup.py asks for.
ALONE = {
    "ops": {"torch", "triton", "mamba_ssm", "causal_conv1d"},
    "layers": {"torch"},
    "search": {"torch"},
}
OWN = {"ops": {"checks", "errors", "files", "parallel"}}
OWN["layers"] = OWN["ops"] | {"ops", "layers"}
OWN["search"] = OWN["layers"]


def name_of(path):
    """Return the dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
        ".__init__"
    )


@cache
def imports():
    """Return (file, line, dotted name) of every import in the package, in functions too.

    An argument of a call that names a module counts: what is loaded by its name is imported. What
    a process of its own runs (``python -m``, config/schema.py's question) does not.
    """
    modules = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    found = []
    for name, path in modules.items():
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                base = (
                    ".".join([*above, node.module or ""]).strip(".") if node.level else node.module
                )
                full = [f"{base}.{alias.name}" for alias in node.names]
                names = [each if each in modules else base for each in full]
            elif isinstance(node, ast.Call) and path.stem != "registry":
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                names = [text for text in texts if text in modules and text != PACKAGE.name]
            found += [(path, node.lineno, each) for each in names]
    return found


def room_of(name):
    """Return the room of a module of the package, by its dotted name."""
    return (name.split(".") + [""])[1]


def within():
    """Yield (room, place, room that is imported) of the imports inside the package."""
    for path, line, name in imports():
        if name.partition(".")[0] == PACKAGE.name:
            place = f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
            yield room_of(name_of(path)), place, room_of(name)


def test_every_room_has_a_level():
    level = [room for rooms in LEVELS for room in rooms]
    assert len(level) == len(set(level))
    assert {room_of(name_of(path)) for path in PACKAGE.rglob("*.py")} == set(level)


def test_imports_point_down():
    level = {room: index for index, rooms in enumerate(LEVELS) for room in rooms}
    up = [
        place
        for room, place, other in within()
        if room != other and level[other] >= level[room] and (room, other) not in OFFERED
    ]
    assert up == []


@pytest.mark.parametrize("room", ALONE)
def test_the_maths_needs_torch_alone(room):
    allowed = ALONE[room] | {PACKAGE.name} | set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line} imports {name}"
        for path, line, name in imports()
        if room_of(name_of(path)) == room and name.partition(".")[0] not in allowed
    ]
    assert wrong == []
    assert [
        place for own, place, other in within() if own == room and other not in OWN[room] | {room}
    ] == []


def test_what_the_recipes_import_is_there():
    """Their scripts are outside of the package, and some need what not every machine has."""
    gone = []
    for path in sorted((PACKAGE.parent / "egs").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
                module = import_module(node.module)
                names = [each.name for each in node.names if not hasattr(module, each.name)]
                gone += [f"{path}:{node.lineno}: {node.module} has no {name}" for name in names]
    assert gone == []
