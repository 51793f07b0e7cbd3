"""Sequences of different lengths in one batch: the one mask and the one reversal.

``time`` is the axis of frames, 1 where tensors are (batch, time, ...), -1 where they are
(batch, ..., time).
"""

from typing import overload

import torch
from torch import Tensor


def valid_mask(lengths: Tensor, time: int) -> Tensor:
    """(batch) lengths -> (batch, time) bool, true at valid frames."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def unpadded(lengths: Tensor, time: int) -> bool:
    """Whether no sequence has padding, so far as that is seen without stalling a GPU.

    False under a compiler, which cannot trace the look at values.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or lengths.device.type != "cpu":
        return False
    return min(lengths.tolist(), default=time) >= time


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Put zeros into x (batch, time, ...) beyond the lengths, whatever was there, NaN included.

    Returns x itself where :func:`unpadded` says so.
    """
    if unpadded(lengths, x.shape[1]):
        return x
    mask = valid_mask(lengths.to(x.device), x.shape[1])
    return x.masked_fill(~_along(mask, x, 1), 0.0)


@overload
def keep(x: Tensor, mask: Tensor | None, fill: float = ..., *, time: int = ...) -> Tensor: ...
@overload
def keep(x: None, mask: Tensor | None, fill: float = ..., *, time: int = ...) -> None: ...


def keep(
    x: Tensor | None, mask: Tensor | None, fill: float = 0.0, *, time: int = 1
) -> Tensor | None:
    """Put ``fill`` into x, or None, where the mask (batch, time) is false; no gradient passes.

    A mask of None keeps all. Unlike :func:`zero_padding`, this never looks at values.
    """
    if x is None or mask is None:
        return x
    return torch.where(_along(mask, x, time), x, fill)


def reversal(lengths: Tensor | None, batch: int, time: int, device: torch.device) -> Tensor:
    """(batch, time) index that reverses each sequence within its length; its own inverse.

    Padding stays where it is. Lengths of None stand for ``time``.
    """
    frames = torch.arange(time, device=device).expand(batch, time)
    if lengths is None:
        return frames.flip(1)
    return torch.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames)


@overload
def take(x: Tensor, index: Tensor, *, time: int = ...) -> Tensor: ...
@overload
def take(x: None, index: Tensor, *, time: int = ...) -> None: ...


def take(x: Tensor | None, index: Tensor, *, time: int = 1) -> Tensor | None:
    """Gather frames of x, or None, in the order of ``index`` (batch, frames)."""
    if x is None:
        return None
    shape = list(x.shape)
    shape[time] = index.shape[1]
    return x.gather(time, _along(index, x, time).expand(shape))


def reverse(x: Tensor, lengths: Tensor | None, *, time: int = 1) -> Tensor:
    """Reverse each sequence of x within its length (batch), or all of ``time`` for None."""
    if lengths is None:
        return x.flip(time)
    return take(x, reversal(lengths, len(x), x.shape[time], x.device), time=time)


def _along(frames: Tensor, x: Tensor, time: int) -> Tensor:
    """View (batch, time) so that it broadcasts against x."""
    ones = (1,) * (x.dim() - 2)
    if time in (-1, x.dim() - 1):
        return frames.reshape(len(frames), *ones, frames.shape[1])
    return frames.reshape(*frames.shape, *ones)
