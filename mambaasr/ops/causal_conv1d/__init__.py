"""Causal depthwise convolution: signature, checks and backend selection."""

import torch
from torch import Tensor

from mambaasr.ops.causal_conv1d import cpu, cuda, naive, triton
from mambaasr.ops.dispatch import check_lengths, check_tensor, choose

IMPLEMENTATIONS = {"cpu": cpu, "cuda": cuda, "triton": triton, "naive": naive}


def _check_activation(op, activation):
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"{op}: activation is {activation!r}; choose None, 'silu' or 'swish'")


def _check_weight(op, weight, channels, device):
    """Return the kernel's width, which must be at least 1."""
    check_tensor(op, "weight", weight, (channels, None), device)
    if weight.shape[1] < 1:
        raise ValueError(f"{op}: weight has width 0, expected at least 1")
    return weight.shape[1]


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: None = None,
    activation: str | None = None,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Causal depthwise convolution, a drop-in for causal_conv1d's.

    Args:
        x: (batch, channel, time), any strides.
        weight: (channel, width).
        bias: (channel).
        seq_idx, final_states_out: of causal_conv1d's signature; not supported, must be None.
        initial_states: (batch, channel, width - 1), the inputs before the first frame that is
            visited, the nearest one last; zeros by default.
        return_final_states: return (out, final_states) instead of out.
        activation: None, "silu" or "swish".
        lengths: (batch) valid frames; output beyond is zero and passes no gradient.
        reverse: visit each sequence from its own last frame to its first, so that an output
            depends on its own and later frames.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        out (batch, channel, time); with ``return_final_states`` also the last width - 1 inputs
        that were visited (batch, channel, width - 1), the nearest one last.

    Raises:
        ValueError: an argument's shape or value does not fit; the message names it.
        RuntimeError: the named backend cannot run here.
    """
    op = "causal_conv1d_fn"
    if x.dim() != 3:
        raise ValueError(f"{op}: x has shape {tuple(x.shape)}, expected (batch, channel, time)")
    check_tensor(op, "x", x, x.shape, x.device)
    batch, channels, time = x.shape
    width = _check_weight(op, weight, channels, x.device)
    if seq_idx is not None or final_states_out is not None:
        raise ValueError(f"{op}: seq_idx and final_states_out are not supported; leave them None")
    _check_activation(op, activation)
    for name, tensor, shape in (
        ("bias", bias, (channels,)),
        ("initial_states", initial_states, (batch, channels, width - 1)),
    ):
        check_tensor(op, name, tensor, shape, x.device, optional=True)
    lengths = check_lengths(op, lengths, batch, time, x.device)
    implementation = choose(op, x, IMPLEMENTATIONS, backend, weight=weight, x=x)
    out, final_states = implementation.causal_conv1d(
        x, weight, bias, activation, lengths, reverse, initial_states
    )
    return (out, final_states) if return_final_states else out


@torch.no_grad()
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Run one step of the convolution, for decoding; no gradients.

    Args:
        x: (batch, channel).
        conv_state: (batch, channel, state_len >= width - 1), the latest inputs, the nearest one
            last; updated in place.
        weight: (channel, width).
        bias: (channel).
        activation: None, "silu" or "swish".
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        (batch, channel) in the dtype of x.

    Raises:
        ValueError: an argument's shape or value does not fit; the message names it.
        RuntimeError: the named backend cannot run here.
    """
    op = "causal_conv1d_update"
    if x.dim() != 2:
        raise ValueError(f"{op}: x has shape {tuple(x.shape)}, expected (batch, channel)")
    check_tensor(op, "x", x, x.shape, x.device)
    batch, channels = x.shape
    width = _check_weight(op, weight, channels, x.device)
    check_tensor(op, "conv_state", conv_state, (batch, channels, None), x.device)
    if conv_state.shape[2] < width - 1:
        raise ValueError(
            f"{op}: conv_state holds {conv_state.shape[2]} inputs, expected at least "
            f"{width - 1} for a kernel of width {width}"
        )
    check_tensor(op, "bias", bias, (channels,), x.device, optional=True)
    _check_activation(op, activation)
    implementation = choose(op, x, IMPLEMENTATIONS, backend, weight=weight, x=x)
    return implementation.causal_conv1d_update(x, conv_state, weight, bias, activation)
