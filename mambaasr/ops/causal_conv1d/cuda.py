"""The causal depthwise convolution by the CUDA kernel of causal_conv1d, where that is built.

It knows neither lengths nor direction: the reversed direction gathers each sequence's own frames
in reverse and gathers the output back. The initial state is put before the frames, as the kernel's
own takes channel-last tensors of 8 n channels alone.
"""

import torch
from torch import Tensor

from mambaasr.ops.gpu import DTYPES, attempt, unfit
from mambaasr.ops.lengths import keep, reversal, take, valid_mask

__all__ = ["causal_conv1d", "causal_conv1d_update", "refuses", "unavailable"]

PACKAGE, EXTENSION = "causal_conv1d", "causal_conv1d_cuda"
GET = (
    "build it on the GPU machine, against the torch that is installed (needs nvcc): "
    "CAUSAL_CONV1D_FORCE_BUILD=TRUE pip install --no-build-isolation --no-cache-dir "
    "causal-conv1d==1.7.0 (with --force-reinstall --no-deps where one is installed), or take "
    "backend='triton', which needs no build"
)


def unavailable(tensor: Tensor) -> str | None:
    """Say why causal_conv1d cannot run on ``tensor``, or None where it can."""
    reason = unfit(tensor)
    if reason is not None:
        return reason
    for name in (EXTENSION, PACKAGE):
        error = attempt(name)[1]
        if error is not None:
            return f"{name} cannot be imported ({error}); {GET}"
    return None


def refuses(*, x: Tensor, weight: Tensor) -> str | None:
    """Say which argument of a call causal_conv1d cannot serve, or None."""
    if not 2 <= weight.shape[1] <= 4:
        return (
            f"causal_conv1d takes kernels of width 2 to 4, weight has {weight.shape[1]}; "
            "backend='triton' takes any"
        )
    if weight.dtype not in DTYPES:
        return f"causal_conv1d does not take a weight of {weight.dtype}; use backend='triton'"
    return None


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    lengths: Tensor | None,
    reverse: bool,
    initial_states: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`mambaasr.ops.causal_conv1d_fn`; arguments are checked there."""
    batch, channels, time = x.shape
    before = weight.shape[1] - 1
    if x.numel() == 0:  # the kernel cannot be launched over nothing
        final = x.new_zeros(batch, channels, before) if initial_states is None else initial_states
        return torch.empty_like(x), final.to(x.dtype)
    mask = None
    if lengths is not None:
        mask = valid_mask(lengths, time)
    order = reversal(lengths, batch, time, x.device) if reverse else None
    inputs = keep(x if order is None else take(x, order, time=-1), mask, time=-1)
    if initial_states is not None:
        inputs = torch.cat([initial_states.to(x.dtype), inputs], dim=2)
    elif inputs.stride(1) == 1 and (channels % 8 or any(s % 8 for s in inputs.stride()[::2])):
        inputs = inputs.contiguous()  # channel-last takes multiples of 8 alone
    out = attempt(PACKAGE)[0].causal_conv1d_fn(
        inputs, weight, None if bias is None else bias.to(weight.dtype), activation=activation
    )
    out = keep(out[:, :, -time:], mask, time=-1)
    out = out if order is None else take(out, order, time=-1)
    return out, _final(inputs, lengths, before, time)


def _final(inputs, lengths, before, time):
    """The last ``before`` inputs of each sequence, zeros or the initial state if it is shorter."""
    batch, _, total = inputs.shape
    end = torch.full((batch,), time, device=inputs.device) if lengths is None else lengths
    index = end[:, None] + torch.arange(-before, 0, device=inputs.device) + (total - time)
    return keep(take(inputs, index.clamp(min=0), time=-1), index >= 0, time=-1)


def causal_conv1d_update(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """Run one step; see :func:`mambaasr.ops.causal_conv1d_update`."""
    bias = None if bias is None else bias.to(weight.dtype)
    # The kernel takes one dtype for both.
    out = attempt(PACKAGE)[0].causal_conv1d_update(
        x.to(conv_state.dtype), conv_state, weight, bias, activation
    )
    return out.to(x.dtype)
