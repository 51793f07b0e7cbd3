"""Calls into the library: packs arguments as args.h lays them out."""

import struct
from typing import Any

import torch
from torch import Tensor

from mambaasr.ops.native import build

# Below so many elements another thread costs more than it brings.
SMALL = 1 << 15
ERRORS = {
    1: (MemoryError, "no memory for a thread's workspace"),
    2: (ValueError, "a length is negative or larger than the number of frames"),
    5: (IndexError, "an index is out of range"),
    4: (RuntimeError, "its record has not the fields of args.h"),
}
DTYPES = (torch.float32, torch.bfloat16)
NO_TENSOR = (0, 0, 0, 0, 0)


def unavailable(tensor: Tensor) -> str | None:
    """Say why the kernels cannot run on ``tensor``, or None where they can."""
    if tensor.device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {tensor.device}"
    if tensor.dtype not in DTYPES:
        return f"it computes in float32 and takes float32 or bfloat16, not {tensor.dtype}"
    return _missing()


def _missing():
    return build.load()[1]


# A compiler shall not trace how the library is found. This is all that
# torch.compiler.assume_constant_result does, but that imports Dynamo and, with it, Triton.
_missing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def tensor(x: Tensor | None) -> tuple[int, ...]:
    """Record of a (batch, channel, time) tensor."""
    return NO_TENSOR if x is None else (x.data_ptr(), *x.stride(), x.dtype == torch.bfloat16)


def pointer(x: Tensor | None) -> int:
    """Address of a contiguous tensor, 0 for None."""
    return 0 if x is None else x.data_ptr()


def floats(x: Tensor | None) -> Any:
    """``x`` (or None) as contiguous float32."""
    return None if x is None else x.to(torch.float32).contiguous()


def integers(x: Tensor | None) -> Tensor | None:
    """``x`` (or None) as contiguous int64."""
    return None if x is None else x.to(torch.int64).contiguous()


def io(x: Tensor | None) -> Any:
    """``x`` (or None) in a dtype that the kernels read, float32 where it has another."""
    return x if x is None or x.dtype in DTYPES else x.float()


def empty_like(x: Tensor) -> Tensor:
    """Make an uninitialised (batch, channel, time) tensor with the axes in memory as in ``x``."""
    batch, channels, time = x.shape
    like: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    if x.stride(1) == 1:
        return torch.empty(batch, time, channels, **like).transpose(1, 2)
    return torch.empty(batch, channels, time, **like)


def threads(elements: int) -> int:
    """Return how many threads work on so many elements."""
    return torch.get_num_threads() if elements > SMALL else 1


def block(sequences: int, channels: int, threads: int, most: int) -> int:
    """Channels of a task, a multiple of 16 and at most ``most``.

    As many as leave a task for each thread and tasks that the threads can share evenly, or so many
    tasks that the last ones do not matter.
    """
    pieces, finest = -(-channels // most), channels // 32
    while pieces < finest and sequences * pieces % threads and sequences * pieces < 4 * threads:
        pieces += 1
    return -(-channels // max(1, pieces) // 16) * 16 or 16


def call(function: str, *numbers: int) -> None:
    """Run ``mambaasr_<function>`` on a record of 64-bit integers, put behind their number.

    Raises:
        ValueError, MemoryError, RuntimeError: as the library reports.
    """
    library, reason = build.load()
    if library is None:
        raise RuntimeError(f"the CPU kernels cannot run: {reason}")
    size = len(numbers) + 1
    code = getattr(library, f"mambaasr_{function}")(struct.pack(f"{size}q", size, *numbers))
    if code:
        kind, message = ERRORS[code]
        raise kind(f"mambaasr_{function}: {message}")


def sum_terms(x: Tensor, dim: int) -> Tensor:
    """Sum of a contiguous float32 tensor over ``dim``, in order: the same for any thread count."""
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    if x.shape[dim] == 1 or x.numel() == 0:
        return x.sum(dim)
    out = torch.empty(shape, dtype=x.dtype, device=x.device)
    outer, inner = x.shape[:dim].numel(), x.shape[dim + 1 :].numel()
    call("sum", threads(x.numel()), outer, x.shape[dim], inner, pointer(x), pointer(out))
    return out
