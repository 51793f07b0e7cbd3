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
# No build of its CUDA code, and no search for a wheel outside the package index.
MAMBA_SSM = "mamba-ssm==2.3.2.post1"
NO_CUDA = {"MAMBA_SKIP_CUDA_BUILD": "TRUE", "MAMBA_FORCE_BUILD": "TRUE"}
# name -> what is installed together
GROUPS = {"transformers, mambapy": ["-r", str(HERE / "peers.txt")], "mamba_ssm": [MAMBA_SSM]}


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
        digest = hashlib.sha256(repr(arguments).encode())
        digest.update((HERE / "peers.txt").read_bytes() + sys.version.encode())
        stamp = Path(folder) / f".{digest.hexdigest()[:16]}"
        if stamp.exists():
            continue
        command = [*_installer(), "--target", str(folder), "--no-deps", "--no-build-isolation"]
        # mamba_ssm's build wants `wheel`, which is among the peers.
        environment = {**os.environ, **NO_CUDA, "PYTHONPATH": str(folder)}
        try:
            result = subprocess.run(
                [*command, *arguments], env=environment, capture_output=True, text=True, timeout=600
            )
            failure = result.stderr.strip().splitlines()[-1:] if result.returncode else None
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = [str(error)]
        if failure is None:
            with atomic_write(stamp) as stream:
                stream.write(name)
            say(f"installed for the bench: {name}")
        else:
            missing.append(name)
            say(f"missing peer: {name}: cannot be installed: {' '.join(failure)}")
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

    Its module imports compiled code and Triton at its top, which the reference does not use:
    stand-ins take their places while it is loaded.

    Raises:
        Missing: mamba_ssm is not installed.
    """
    package = Path(folder) / "mamba_ssm"
    path = package / "ops" / "selective_scan_interface.py"
    if not path.is_file():
        raise Missing(f"mamba_ssm: there is no {path.name} in {package}")
    unused = types.SimpleNamespace
    layer_norm, amp = types.ModuleType("layer_norm"), types.ModuleType("torch")
    layer_norm._layer_norm_fwd = unused()
    amp.custom_fwd = amp.custom_bwd = lambda function: function
    stand_ins = {
        "selective_scan_cuda": types.ModuleType("selective_scan_cuda"),
        "causal_conv1d": None,  # an ImportError, for which it is prepared
        "mamba_ssm": types.ModuleType("mamba_ssm"),
        "mamba_ssm.utils": types.ModuleType("mamba_ssm.utils"),
        "mamba_ssm.utils.torch": amp,
        "mamba_ssm.ops": types.ModuleType("mamba_ssm.ops"),
        "mamba_ssm.ops.triton": types.ModuleType("mamba_ssm.ops.triton"),
        "mamba_ssm.ops.triton.layer_norm": layer_norm,
    }
    spec = importlib.util.spec_from_file_location("mambaasr_bench_mamba_ssm", path)
    module = importlib.util.module_from_spec(spec)
    with _modules(stand_ins):
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            raise Missing(f"mamba_ssm: {error}") from error
    return module.selective_scan_ref


@contextlib.contextmanager
def _modules(stand_ins):
    """Put ``stand_ins`` into ``sys.modules`` for a while."""
    before = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)
        sys.modules.update(before)
