"""What the GPU backends share: is the package there, does it load, and what to do if not."""

import functools
import importlib
import os

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def interpreted():
    """Whether Triton kernels run in its interpreter, which needs no GPU; slow, for checks."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def attempt(name):
    """Import a module; return (module, None), or (None, the error as one line)."""
    try:
        return importlib.import_module(name), None
    # A compiled package fails in many ways (OSError and RuntimeError too), each with a remedy.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return None, f"{type(error).__name__}: {lines[0]}"


def unfit(tensor, device="cuda"):
    """Say why kernels that compute in fp32 on a CUDA device cannot take ``tensor``, or None."""
    if tensor.device.type != device:
        return f"it runs on a CUDA device, the tensors are on {tensor.device}"
    if tensor.dtype not in DTYPES:
        return f"it takes float32, bfloat16 or float16, not {tensor.dtype}; use backend='naive'"
    return None


def triton_unavailable(tensor):
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


def reversal(lengths, batch, time, device):
    """(b, t) index that turns each sequence round within its length; its own inverse."""
    frames = torch.arange(time, device=device).expand(batch, time)
    if lengths is None:
        return frames.flip(1)
    return torch.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames)


def take(x, index):
    """Frames of x (b, ..., t), or None, in the order of ``index`` (b, t)."""
    if x is None:
        return None
    return x.gather(-1, index.view(len(index), *(1,) * (x.dim() - 2), -1).expand_as(x))


def keep(x, mask, fill=0.0):
    """x (b, ..., t), or None, with ``fill`` where ``mask`` (b, t) is false; None keeps all."""
    if x is None or mask is None:
        return x
    fill = torch.full((), fill, dtype=x.dtype, device=x.device)
    return torch.where(mask.view(len(mask), *(1,) * (x.dim() - 2), -1), x, fill)
