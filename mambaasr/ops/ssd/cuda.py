"""The scan of Mamba-2 by mamba_ssm's own Triton kernels, on a GPU.

They know neither lengths nor direction: padding gets steps of size zero and zeros for the rest, and
the reversed direction gathers each sequence's own frames in reverse and scatters them back.
"""

import importlib

import torch

from mambaasr.ops.ssd.steps import keep, step_sizes, valid

MODULE = "mamba_ssm.ops.triton.ssd_combined"
GET = (
    "install it on the GPU machine: pip install --no-build-isolation mamba-ssm (2.2 or later; "
    "these kernels are Triton code and need no nvcc: MAMBA_SKIP_CUDA_BUILD=TRUE skips the rest)"
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _kernel():
    """mamba_ssm's function and None, or None and a sentence that says why not."""
    try:
        return importlib.import_module(MODULE).mamba_chunk_scan_combined, None
    # A wheel built for another torch fails by OSError or RuntimeError, not only by ImportError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return None, f"{MODULE} cannot be imported ({type(error).__name__}: {error}); {GET}"


def unavailable(tensor):
    """Say why mamba_ssm's kernels cannot run on ``tensor``, or None where they can."""
    if tensor.device.type != "cuda":
        return f"it runs on a GPU, the tensors are on {tensor.device}"
    if tensor.dtype not in DTYPES:
        return f"mamba_ssm takes float32, bfloat16 or float16, not {tensor.dtype}"
    return _kernel()[1]


def _reversal(lengths, batch, time, device):
    """(b, t) index of the frame that comes at place t when each sequence runs backwards.

    Its own inverse; padding stays where it is.
    """
    frames = torch.arange(time, device=device).expand(batch, time)
    if lengths is None:
        return frames.flip(1)
    return torch.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames)


def _gather(x, index):
    if x is None:
        return None
    return x.gather(1, index.reshape(*index.shape, *(1,) * (x.dim() - 2)).expand_as(x))


def chunk_scan(
    x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, softplus, limit, lengths, reverse
):
    """See :func:`mambaasr.ops.mamba_chunk_scan_combined`; arguments are checked there."""
    batch, time, heads, headdim = x.shape
    if x.numel() == 0:
        # The kernels cannot be launched over nothing.
        if initial_states is None:
            return x, x.new_zeros(batch, heads, headdim, B.shape[3], dtype=torch.float32)
        return x, initial_states.float()
    mask = valid(lengths, time)
    dt = step_sizes(dt, dt_bias, softplus, limit, mask, torch.float32)
    x, B, C, z = (keep(v, mask) for v in (x, B, C, z))
    if reverse:
        index = _reversal(lengths, batch, time, x.device)
        x, dt, B, C, z = (_gather(v, index) for v in (x, dt, B, C, z))
    kernel, reason = _kernel()
    if kernel is None:
        raise RuntimeError(f"mamba_chunk_scan_combined: {reason}")
    out, final_states = kernel(
        x,
        dt,
        A.float(),
        B.to(x.dtype),
        C.to(x.dtype),
        chunk_size,
        D=D,
        z=z,
        initial_states=initial_states,
        dt_limit=(-float("inf"), float("inf")),
        return_final_states=True,
    )
    if reverse:
        out = _gather(out, index)
    return keep(out, mask), final_states
