"""The programs that we are measured against: installed for the bench alone, each optional.

They lie in a folder of their own at the end of ``sys.path``, so that the environment's versions of
whatever they share with it win.
"""

import contextlib
import functools
import importlib
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "bench" / "peers"
# No build of CUDA code, and no search for a wheel outside the package index.
NO_CUDA = {
    f"{package}_{what}": "TRUE"
    for package in ("MAMBA", "CAUSAL_CONV1D")
    for what in ("SKIP_CUDA_BUILD", "FORCE_BUILD")
}
# The builds of the second want `wheel` of the first.
PINS = (HERE / "peers.txt", HERE / "references.txt")


class Missing(Exception):
    """A peer cannot be had here; the message names it and says why."""


def install(folder: Path = FOLDER, pins: Sequence[Path] = PINS) -> list[str]:
    """Install what is not there yet; what fails does not keep the rest from it.

    Returns:
        for each file of pins that cannot be installed: which, and why.
    """
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    command += ["--target", str(folder), "--no-deps", "--no-build-isolation", "--requirements"]
    environment = {**os.environ, **NO_CUDA, "PYTHONPATH": str(folder)}
    missing = []
    for path in pins:
        result = subprocess.run([*command, path], env=environment, capture_output=True, text=True)
        if result.returncode:
            reason = "; ".join(line.strip() for line in result.stderr.strip().splitlines())
            missing.append(f"missing peers: {path.name}: cannot be installed: {reason}")
    return missing


def load(module: str, folder: Path = FOLDER) -> types.ModuleType:
    """Import a peer's module.

    Raises:
        Missing: it is not installed, or does not import.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    # Nothing of a peer's may be fetched while we measure; that its loop is slow we know.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    return _import(module)


def _import(module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(f"{module.partition('.')[0]}: {error}") from error


@functools.cache
def selective_scan_ref(folder: Path = FOLDER) -> Callable[..., torch.Tensor]:
    """Return mamba_ssm's reference scan, which is plain torch.

    Raises:
        Missing: mamba_ssm is not installed.
    """
    with sources(folder) as source:
        return source("mamba_ssm.ops.selective_scan_interface").selective_scan_ref


@contextlib.contextmanager
def sources(folder: Path = FOLDER) -> Iterator[Callable[[str], types.ModuleType]]:
    """Within, modules of mamba_ssm and causal_conv1d load without their compiled code.

    Stand-ins take the places of what they import and their reference functions do not use: CUDA
    code and Triton. Afterwards none of it is left in ``sys.modules``.

    Args:
        folder: where they are installed.

    Yields:
        a function that takes a module's name and returns the module, or raises :class:`Missing`.
    """
    stand_ins = dict.fromkeys(_COMPILED, _Unused())
    for name in _SOURCES:
        package = stand_ins[name] = types.ModuleType(name)
        package.__path__ = [str(folder / name)]  # its own __init__ would import everything

    def taken():
        return [name for name in sys.modules if name in stand_ins or name.startswith(_SUBMODULES)]

    before = {name: sys.modules.pop(name) for name in taken()}
    sys.modules.update(stand_ins)
    try:
        yield _import
    finally:
        for name in taken():
            del sys.modules[name]
        sys.modules.update(before)


_SOURCES = ("mamba_ssm", "causal_conv1d")
_SUBMODULES = tuple(f"{name}." for name in (*_SOURCES, "triton"))
_COMPILED = (
    "selective_scan_cuda",
    "causal_conv1d_cuda",
    "triton",
    "triton.language",
    "mamba_ssm.ops.triton.layer_norm",  # asks the GPU for its sizes while it loads
)


class _Unused:
    """Stands for a module, and for all that is in it, while a source is loaded."""

    __version__ = "3.0"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_, **__):
        return self

    def __getitem__(self, _):
        return self

    def __iter__(self):
        yield self
