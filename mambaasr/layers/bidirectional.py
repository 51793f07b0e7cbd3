"""Two ways to look both ways with mixers of one direction."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mambaasr.checks import check_choice
from mambaasr.layers.cpu import call
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.mamba2 import Mamba2
from mambaasr.layers.mixer import BidirectionalMixer, Mixer, StateSpaceMixer
from mambaasr.ops.lengths import zero_padding

MERGES = ("sum", "mean", "concat")


class OuterBiMamba(BidirectionalMixer):
    """Two whole mixers, one for each direction: "ExtBiMamba" of arXiv 2405.12609.

    Args:
        mixer: class of the mixers, such as :class:`Mamba` or :class:`Mamba2`.
        d_model: width of input and output.
        merge: "sum" (algorithm 2 of the paper), "mean", or "concat" followed by a linear layer
            (the paper's published code).
        **options: of the mixer.

    Raises:
        ValueError: the merge is unknown, or the mixer refuses an option.
    """

    def __init__(
        self, mixer: Callable[..., Mixer], d_model: int, merge: str = "sum", **options: Any
    ) -> None:
        super().__init__()
        check_choice("merge", merge, MERGES)
        self.d_model, self.merge = d_model, merge
        self.forward_mixer = mixer(d_model, **options)
        self.backward_mixer = mixer(d_model, **options)
        self.linear = nn.Linear(2 * d_model, d_model) if merge == "concat" else None

    def forward(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Mix whole sequences in both directions, exchanged by ``reverse``; see :class:`Mixer`."""
        forward = self.forward_mixer(x, lengths, reverse=reverse)
        backward = self.backward_mixer(x, lengths, reverse=not reverse)
        merged = _merge(self.merge, forward, backward)
        if self.linear is None:
            return merged
        merged = call(self.linear, merged)
        return merged if lengths is None else zero_padding(merged, lengths)

    def scale_output(self, factor: float) -> None:
        """Scale the outputs of both mixers."""
        self.forward_mixer.scale_output(factor)
        self.backward_mixer.scale_output(factor)


class _Inner(BidirectionalMixer, StateSpaceMixer):
    """Adds a second direction to a mixer, between its input and output projections."""

    def __init__(self, d_model: int, merge: str = "mean", **options: Any) -> None:
        super().__init__(d_model, **options)
        check_choice("merge", merge, MERGES)
        self.merge = merge
        self.add_direction("_b")
        if merge == "concat":
            single = self.out_proj
            width = single.in_features + self.d_ssm
            self.out_proj = nn.Linear(width, d_model, bias=single.bias is not None)

    def espnet_initialization_fn(self) -> None:
        """See :meth:`StateSpaceMixer.espnet_initialization_fn`."""
        super().espnet_initialization_fn()
        self.reset_direction("_b")

    def forward(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Mix whole sequences in both directions, exchanged by ``reverse``; see :class:`Mixer`."""
        parts = self.project_in(x)
        forward, _ = self.mix(parts, "", lengths, reverse)
        backward, _ = self.mix(parts, "_b", lengths, not reverse)
        return self.project_out(_merge(self.merge, forward, backward), parts, lengths)


class InnerBiMamba(_Inner, Mamba):
    """Both directions of Mamba-1 between shared projections, as in Vision Mamba v2.

    "InnBiMamba" of arXiv 2405.12609, and the mixer of ConMamba (arXiv 2407.09732) with
    ``merge="mean"``; parameters have Vision Mamba's names (arXiv 2401.09417), the second
    direction's with the suffix ``_b``. The gate z is shared too.

    Args:
        merge: how the directions meet before the output projection: "sum", "mean", or "concat",
            for which the output projection takes 2 * d_inner.
        **options: of :class:`Mamba`.

    Raises:
        ValueError: the merge is unknown, or :class:`Mamba` refuses an option.
    """


class InnerBiMamba2(_Inner, Mamba2):
    """Both directions of Mamba-2 between shared projections.

    No paper that we know defines it; this is :class:`InnerBiMamba` carried over. The input
    projection serves both directions: x, B, C, dt, the gate z and, with ``d_ssm``, the gated linear
    unit. Convolution, dt_bias, A_log, D and the norm are each direction's own, the second's with
    the suffix ``_b``. Each direction is gated and normalised before they meet: a norm behind the
    sum would undo the difference between "sum" and "mean", and let the louder direction drown
    the other.

    Args:
        merge: how the directions meet before the output projection: "sum", "mean", or "concat",
            for which the output projection takes d_ssm more.
        **options: of :class:`Mamba2`.

    Raises:
        ValueError: the merge is unknown, or :class:`Mamba2` refuses an option.
    """


def _merge(merge: str, forward: Tensor, backward: Tensor) -> Tensor:
    if merge == "concat":
        return torch.cat([forward, backward], dim=-1)
    total = forward + backward
    return total if merge == "sum" else 0.5 * total
