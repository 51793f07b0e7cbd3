"""What the GPU backends share: is the package there, does it load, and what to do if not."""

import functools
import importlib
import os
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, which needs no GPU; slow, for checks."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def attempt(name: str) -> tuple[Any, str | None]:
    """Import a module; return (module, None), or (None, the error as one line)."""
    try:
        return importlib.import_module(name), None
    # A compiled package fails in many ways (OSError and RuntimeError too), each with a remedy.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return None, f"{type(error).__name__}: {lines[0]}"


def unfit(tensor: Tensor, device: str = "cuda") -> str | None:
    """Say why kernels that compute in fp32 on a CUDA device cannot take ``tensor``, or None."""
    if tensor.device.type != device:
        return f"it runs on a CUDA device, the tensors are on {tensor.device}"
    if tensor.dtype not in DTYPES:
        return f"it takes float32, bfloat16 or float16, not {tensor.dtype}; use backend='naive'"
    return None


def triton_unavailable(tensor: Tensor) -> str | None:
    """Say why our Triton kernels cannot run on ``tensor``, or None where they can."""
    on_cpu = tensor.device.type == "cpu"
    if on_cpu and not interpreted():
        return (
            "it runs on a CUDA device, the tensors are on cpu (to check it without one, set "
            "TRITON_INTERPRET=1 before Python starts)"
        )
    reason = unfit(tensor, "cpu" if on_cpu else "cuda")
    if reason is not None:
        return reason
    triton, error = attempt("triton")
    if triton is None:
        return (
            f"triton cannot be imported ({error}); torch for CUDA on Linux brings it, else "
            "`pip install triton`"
        )
    return None
