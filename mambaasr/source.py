"""Find the code that a command runs: files of this package and releases of others.

Sources are parsed, not run: imports (inside functions too), strings that name a module, and the
classes that a config chooses. So the result is known before the command runs, and is the same in
all processes.
"""

import ast
import contextlib
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from mambaasr import provenance
from mambaasr.fingerprint import read_config
from mambaasr.registry import CLASSES

PACKAGE = "mambaasr"
ROOT = Path(__file__).resolve().parents[1]
# What is imported of others -> the package whose release may change a result.
OTHERS = {
    "torch": "torch",
    "torchaudio": "torchaudio",
    "espnet2": "espnet",
    "sentencepiece": "sentencepiece",
    "lhotse": "lhotse",
    "av": "av",
    "soundfile": "soundfile",
    "soxr": "soxr",
}
# These only name things; what they name is counted by itself, where it is used.
# task/describe looks at every class to check configs, which decides no result.
UNCOUNTED = {
    f"{PACKAGE}/{name}.py"
    for name in ("__init__", "registry", "provenance", "source", "task/describe")
}
# Sources that lie beside Python modules, and that the package compiles.
COMPILED = (".cpp", ".h")

_NAME = re.compile(rf"({PACKAGE}|espnet2)(\.\w+)+")
_IN_SHELL = re.compile(rf"\b{PACKAGE}(?:\.\w+)+|\b{PACKAGE} +[a-z]\w*")


def code_of(
    command: Iterable[str],
    folder: str | Path | None = None,
    configs: Iterable[str | Path] = (),
) -> dict[str, str]:
    """Return the code and releases that a command's results depend on.

    Args:
        command: words, such as ``["python", "-m", "mambaasr.bin.score", "--ref", ...]``.
        folder: with programs of the command's own, such as a recipe's ``local``; what these call
            of this package counts, they themselves do not.
        configs: yaml files that choose classes of this package for it, as may its options.

    Returns:
        dict: file of the package -> digest of its code without comments and docstrings; and
        name of another package -> its release.
    """
    names = {word for word in command if word.startswith(f"{PACKAGE}.")}
    for path in sorted(Path(folder).rglob("*")) if folder is not None else ():
        # Files that are broken or removed meanwhile are the command's to report.
        with contextlib.suppress(SyntaxError, ValueError, OSError):
            if path.suffix == ".py":
                names |= _parsed(path)[1]
            elif path.suffix == ".sh":
                called = _IN_SHELL.findall(path.read_text(encoding="utf-8", errors="replace"))
                names |= {re.sub(" +", ".bin.", name) for name in called}
    for slot, name in (*pairwise(command), *(each for path in configs for each in _given(path))):
        target = CLASSES.get(slot.removeprefix("--"), {}).get(name)
        if target is not None:
            names.add(target.partition(":")[0])
    return _code(names)


def _given(config: str | Path) -> Iterator[tuple[str, str]]:
    """Yield the options of a config file with each of their plain values."""
    for option, values in read_config(config).items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, str):
                yield str(option), value


def _code(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting, seen = set(names), set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        if name.partition(".")[0] != PACKAGE:
            continue
        # Python runs the packages around a module too.
        waiting |= {name.rpartition(".")[0] or name} - seen
        path = _file(name)
        key = str(path.relative_to(ROOT))
        if key in found or key in UNCOUNTED:
            continue
        found[key], imported = _parsed(path)
        waiting |= imported - seen
        if path.name == "__init__.py":
            for other in path.parent.iterdir():
                if other.suffix in COMPILED:
                    found[str(other.relative_to(ROOT))] = _digest(other.read_bytes())
    for name in OTHERS.keys() & {name.partition(".")[0] for name in seen}:
        # Builds of one release, 2.11.0+cpu and 2.11.0+cu130, differ as devices do.
        found[OTHERS[name]] = provenance.version(OTHERS[name]).partition("+")[0]
    # In the same order in every process, so that it can be part of a digest.
    return dict(sorted(found.items()))


def _file(name: str) -> Path:
    """Return the file of a module, or of the module that defines a name."""
    path = ROOT.joinpath(*name.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file
    return _file(name.rpartition(".")[0])


def _parsed(path: Path) -> tuple[str, set[str]]:
    """Return the digest of a module's code, and the names of what it imports."""
    info = path.stat()
    return _parsed_once(path, info.st_mtime_ns, info.st_size)


@functools.cache  # a driver runs for days, and files may change meanwhile
def _parsed_once(path: Path, mtime: int, size: int) -> tuple[str, set[str]]:
    tree = ast.parse(path.read_bytes(), filename=str(path))
    for node in tree.body:  # annotations' imports are never run
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    imported = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _NAME.fullmatch(node.value):
                imported.add(node.value)
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    known = {name for name in imported if name.partition(".")[0] in (PACKAGE, *OTHERS)}
    return _digest(_dump(tree).encode()), known


def _dump(tree: ast.AST) -> str:
    try:
        return ast.dump(tree, show_empty=True)
    except TypeError:  # Python 3.12 always shows what is empty
        return ast.dump(tree)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
