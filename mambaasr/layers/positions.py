"""Positions computed for whatever length is asked for: no table that could end."""

import math

import torch
from torch import Tensor

from mambaasr.checks import check_choice

# What a yaml may name: nothing, positions added to the frames, or rotated queries and keys.
POSITIONS = ("none", "sinusoidal", "rotary")
# Wavelengths run from 2 pi to this times 2 pi frames (arXiv 1706.03762, section 3.5).
LONGEST = 10000.0


def _angles(time, width, offset, device):
    """Position times frequency: (time, width / 2), or (batch, time, width / 2)."""
    if width < 2 or width % 2:
        raise ValueError(f"positions need an even width; it is {width}")
    # In float64: at frame 100,000 an angle in float32 is off by 1/100.
    steps = torch.arange(0, width, 2, device=device, dtype=torch.float64)
    frequency = torch.exp(steps * (-math.log(LONGEST) / width))
    offset = torch.as_tensor(offset, device=device, dtype=torch.float64)
    place = offset[..., None] + torch.arange(time, device=device, dtype=torch.float64)
    return place[..., None] * frequency


def split_positions(positions: str, width: int) -> tuple[str, ...]:
    """Split positions into what is added to frames and what works within attention.

    Args:
        positions: one of :data:`POSITIONS`.
        width: channels of the frames.

    Returns:
        ``positions`` of the frames ("none" or "sinusoidal") and of
        :class:`mambaasr.layers.attention.SelfAttention` ("none" or "rotary").

    Raises:
        ValueError: ``positions`` is unknown, or sinusoidal with an odd width.
    """
    check_choice("positions", positions, POSITIONS)
    if positions == "sinusoidal" and width % 2:
        raise ValueError(f"positions is 'sinusoidal', which needs an even width; it is {width}")
    return tuple(positions if positions == kind else "none" for kind in POSITIONS[1:])


def sinusoidal(
    time: int,
    width: int,
    offset: int | Tensor = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Absolute positions: sines at even channels, cosines at odd ones (arXiv 1706.03762, 3.5).

    Args:
        time: number of frames.
        width: channels, even.
        offset: position of the first frame: an integer, or one for each sequence (batch).

    Returns:
        (time, width), or (batch, time, width) where ``offset`` is (batch).

    Raises:
        ValueError: the width is odd.
    """
    angles = _angles(time, width, offset, device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).to(dtype)


def rotary(x: Tensor, offset: int | Tensor = 0) -> Tensor:
    """Rotate pairs of channels by angles that grow with the position (RoFormer, arXiv 2104.09864).

    Products of queries and keys rotated so depend on their distance alone.

    Args:
        x: queries or keys (batch, heads, time, width / heads).
        offset: position of the first frame: an integer, or one for each sequence (batch).

    Returns:
        the same shape and dtype; channel i is paired with channel i + width / heads / 2.

    Raises:
        ValueError: the width of a head is odd.
    """
    angles = _angles(x.shape[-2], x.shape[-1], offset, x.device)
    if angles.dim() == 3:
        angles = angles[:, None]  # the same for every head
    dtype = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    first, second = x.to(dtype).chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.to(x.dtype)
