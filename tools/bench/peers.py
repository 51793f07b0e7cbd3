"""The programs that we are measured against: installed for the bench alone, each optional.

They lie in a folder of their own at the end of ``sys.path``, so that the environment's versions of
whatever they share with it win.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

from mambaasr.files import atomic_write

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "bench" / "peers"
# No build of CUDA code, and no search for a wheel outside the package index.
NO_CUDA = {
    f"{package}_{what}": "TRUE"
    for package in ("MAMBA", "CAUSAL_CONV1D")
    for what in ("SKIP_CUDA_BUILD", "FORCE_BUILD")
}
# name -> what is installed together; the builds of the last want the first
GROUPS = {
    "wheel": ["wheel==0.45.1"],
    "transformers, mambapy": ["-r", str(HERE / "peers.txt")],
    "mamba_ssm, causal_conv1d": ["--require-hashes", "-r", str(HERE / "references.txt")],
}


class Missing(Exception):
    """A peer cannot be had here; the message names it and says why."""


def install(folder=FOLDER, groups=None, say=print):
    """Install what is not there yet; what fails is said, and the rest goes on.

    Args:
        folder: where to.
        groups: name -> arguments of ``uv pip install``; by default :data:`GROUPS`.
        say: takes each message.

    Returns:
        the names of the groups that are missing.
    """
    missing = []
    for name, arguments in (GROUPS if groups is None else groups).items():
        digest = hashlib.sha256(repr(arguments).encode() + sys.version.encode())
        for file in HERE.glob("*.txt"):
            digest.update(file.read_bytes() if str(file) in arguments else b"")
        stamp = Path(folder) / f".{digest.hexdigest()[:16]}"
        if stamp.exists():
            continue
        command = [*_installer(), "--target", str(folder), "--no-deps", "--no-build-isolation"]
        environment = {**os.environ, **NO_CUDA, "PYTHONPATH": str(folder)}
        try:
            result = subprocess.run(
                [*command, *arguments], env=environment, capture_output=True, text=True, timeout=600
            )
            failure = _reason(result.stderr) if result.returncode else None
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = str(error)
        if failure is None:
            with atomic_write(stamp) as stream:
                stream.write(name)
            say(f"installed for the bench: {name}")
        else:
            missing.append(name)
            say(f"missing peer: {name}: cannot be installed: {failure}")
    return missing


def _installer():
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]


def load(module, folder=FOLDER):
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
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(f"{module.partition('.')[0]}: {error}") from error


def selective_scan_ref(folder=FOLDER):
    """Return mamba_ssm's reference scan, which is plain torch.

    Raises:
        Missing: mamba_ssm is not installed.
    """
    with sources(folder) as source:
        return source("mamba_ssm.ops.selective_scan_interface").selective_scan_ref


@contextlib.contextmanager
def sources(folder=FOLDER):
    """Within, modules of mamba_ssm and causal_conv1d load without their compiled code.

    Stand-ins take the places of what they import and their reference functions do not use: CUDA
    code, Triton, the hub. Afterwards none of it is left in ``sys.modules``.

    Args:
        folder: where they are installed.

    Yields:
        a function that takes a module's name and returns the module; it raises
        :class:`Missing` if it is not installed or does not import.
    """
    unused = _Unused()
    stand_ins = dict.fromkeys(_COMPILED, unused)
    for name in _SOURCES:
        package = stand_ins[name] = types.ModuleType(name)
        package.__path__ = [str(Path(folder) / name)]  # its own __init__ would import everything
    hub = stand_ins["huggingface_hub"] = types.ModuleType("huggingface_hub")
    hub.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})

    def source(module):
        package = module.partition(".")[0]
        if not (Path(folder) / package).is_dir():
            raise Missing(f"{package}: there is none in {folder}")
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise Missing(f"{package}: {error}") from error

    def taken():
        return [name for name in sys.modules if name in stand_ins or name.startswith(_SUBMODULES)]

    before = {name: sys.modules.pop(name) for name in taken()}
    sys.modules.update(stand_ins)
    try:
        yield source
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


def _reason(said):
    """What an installer says of its failure, in one line."""
    return "; ".join(line.strip() for line in said.strip().splitlines()) or "it says nothing"
