"""How close the forward pass comes to the exponentials that it computes, and to torch.exp."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.measure import in_turns
from bench.scan import ours, scan_case

SOURCE = Path(__file__).with_name("floor.cpp")
CACHED = 1 << 17  # numbers; their input and output stay in two cores' second-level caches


@functools.cache
def library():
    """Build floor.cpp with the flags of the kernels, for the instructions in use, and load it."""
    from mambaasr.ops.native import build

    native, reason = build.load()
    if native is None:
        raise RuntimeError(f"the CPU kernels cannot run: {reason}")
    isa = native.mambaasr_isa().decode()
    compiler = next(filter(shutil.which, [os.environ.get("CXX", ""), *build.COMPILERS]))
    folder = Path(__file__).resolve().parents[2] / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(SOURCE.read_bytes() + (build.SOURCES / "vec.h").read_bytes())
    path = folder / f"floor-{isa}-{digest.hexdigest()[:16]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "floor.so"
            flags = [*build.FLAGS, *build.X86.get(isa, []), f"-DISA={isa}", f"-I{build.SOURCES}"]
            command = [compiler, *flags, "-shared", str(SOURCE), "-o", str(made)]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise RuntimeError(f"{compiler} cannot build {SOURCE.name}: {result.stderr[:500]}")
            os.replace(made, path)
    found = ctypes.CDLL(str(path))
    found.exponentials.argtypes, found.exponentials.restype = [ctypes.c_int64], ctypes.c_float
    return found


def torch_exponentials(numbers):
    """Return a callable that takes torch.exp of so many numbers from cache."""
    import torch

    x = -torch.rand(min(CACHED, numbers))
    out = torch.empty_like(x)
    rounds = -(-numbers // x.numel())

    def run():
        with torch.no_grad():
            for _ in range(rounds):
                torch.exp(x, out=out)

    return run


def cell(shape, threads, budget):
    """Measure the forward pass beside its floors; runs in a worker.

    Args:
        shape: (batch, time, channel, state).
        threads: for torch.exp and the forward pass beside it; the vectorised exponentials and
            the forward pass beside them have one.

    Returns:
        "forward", "floor", "floor_all" (with the exponentials of softplus and of the gate),
        each with seconds on one thread; "forward_threads" and "torch_exp" with ``threads``;
        "vectors" and "ns_per_vector".
    """
    import torch

    native = library()
    batch, time, channels, states = shape
    frames = batch * time * channels
    vectors, more = (-(-frames * n // native.width()) for n in (states, states + 2))
    case = scan_case(ours("cpu"), True, shape)

    def forward():
        case.run(False)

    torch.set_num_threads(1)
    sides = {
        "forward": forward,
        "floor": lambda: native.exponentials(vectors),
        "floor_all": lambda: native.exponentials(more),
    }
    found = in_turns(sides, budget)
    torch.set_num_threads(threads)
    sides = {"forward_threads": forward, "torch_exp": torch_exponentials(frames * states)}
    found |= in_turns(sides, budget)
    median = {name: one["median"] for name, one in found.items()}
    return {
        **found,
        "vectors": vectors,
        "ns_per_vector": median["floor"] / vectors * 1e9,
        "forward_over_floor": median["forward"] / median["floor"],
        "forward_over_floor_all": median["forward"] / median["floor_all"],
        "forward_over_torch_exp": median["forward_threads"] / median["torch_exp"],
        "threads": threads,
    }
