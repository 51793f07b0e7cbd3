"""Two ways to look both ways with a mixer of one direction."""

import torch
from torch import nn

from mambaasr.checks import check_choice
from mambaasr.layers.linear import Linear
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.mamba2 import Mamba2
from mambaasr.ops.lengths import zero_padding

MERGES = ("sum", "mean", "concat")


class _BothWays:
    """What needs the whole sequence, and says so."""

    causal = False

    def _refuse(self, *_, **__):
        raise ValueError(
            f"{type(self).__name__} looks both ways and cannot run in pieces; direction: uni can"
        )

    initial_state = forward_chunk = step = _refuse


class OuterBiMamba(_BothWays, nn.Module):
    """Two whole mixers, one for each direction: "ExtBiMamba" of arXiv 2405.12609.

    Args:
        mixer: class of the mixers, :class:`Mamba` or :class:`Mamba2`.
        d_model: width of input and output.
        merge: "sum" (algorithm 2 of the paper), "mean", or "concat" followed by a linear layer
            (the paper's published code).
        **options: of the mixer.

    Raises:
        ValueError: the merge is unknown, or the mixer refuses an option.
    """

    def __init__(self, mixer, d_model, merge="sum", **options):
        super().__init__()
        check_choice("merge", merge, MERGES)
        self.merge = merge
        self.forward_mixer = mixer(d_model, **options)
        self.backward_mixer = mixer(d_model, **options)
        self.linear = Linear(2 * d_model, d_model) if merge == "concat" else None

    def forward(self, hidden, lengths=None):
        """Mix whole sequences in both directions; see :meth:`Mamba.forward`."""
        forward = self.forward_mixer(hidden, lengths)
        backward = self.backward_mixer(hidden, lengths, reverse=True)
        merged = _merge(self.merge, forward, backward)
        if self.linear is None:
            return merged
        merged = self.linear(merged)
        return merged if lengths is None else zero_padding(merged, lengths)


class _Inner(_BothWays):
    """Adds a second direction to a mixer, between its input and output projections."""

    def __init__(self, d_model, merge="mean", **options):
        super().__init__(d_model, **options)
        check_choice("merge", merge, MERGES)
        self.merge = merge
        self._add_direction("_b")
        if merge == "concat":
            single = self.out_proj
            width = single.in_features + self.d_ssm
            self.out_proj = Linear(width, d_model, bias=single.bias is not None)

    def espnet_initialization_fn(self):
        """See :meth:`Mamba.espnet_initialization_fn`."""
        super().espnet_initialization_fn()
        self._restore_direction("_b")

    def forward(self, hidden, lengths=None):
        """Mix whole sequences in both directions; see :meth:`Mamba.forward`."""
        parts = self._enter(hidden)
        forward, _ = self._mix(parts, "", lengths)
        backward, _ = self._mix(parts, "_b", lengths, reverse=True)
        return self._leave(_merge(self.merge, forward, backward), parts, lengths)


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


def _merge(merge, forward, backward):
    if merge == "concat":
        return torch.cat([forward, backward], dim=-1)
    total = forward + backward
    return total if merge == "sum" else 0.5 * total
