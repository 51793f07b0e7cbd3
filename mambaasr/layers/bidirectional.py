"""Two ways to look both ways with a mixer of one direction."""

import torch
from torch import nn

from mambaasr.layers.linear import Linear
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.masking import zero_padding

MERGES = ("sum", "mean", "concat")


class OuterBiMamba(nn.Module):
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

    causal = False

    def __init__(self, mixer, d_model, merge="sum", **options):
        super().__init__()
        _check_merge(merge)
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


class InnerBiMamba(Mamba):
    """Both directions between shared projections, as in Vision Mamba v2 (arXiv 2401.09417).

    "InnBiMamba" of arXiv 2405.12609, and the mixer of ConMamba (arXiv 2407.09732) with
    ``merge="mean"``.

    Args:
        merge: how the directions meet before the output projection: "sum", "mean", or "concat",
            for which the output projection takes 2 * d_inner.
        **kwargs: of :class:`Mamba`.
    """

    causal = False

    def __init__(self, d_model, merge="mean", conv_bias=True, bias=False, **kwargs):
        super().__init__(d_model, conv_bias=conv_bias, bias=bias, **kwargs)
        _check_merge(merge)
        self.merge = merge
        self._add_direction("_b", conv_bias)
        if merge == "concat":
            self.out_proj = Linear(2 * self.d_inner, d_model, bias=bias)

    def espnet_initialization_fn(self):
        """See :meth:`Mamba.espnet_initialization_fn`."""
        super().espnet_initialization_fn()
        self._reset_direction("_b")

    def forward(self, hidden, lengths=None):
        """Mix whole sequences in both directions; see :meth:`Mamba.forward`."""
        x, z = self.dropout(self.in_proj(hidden)).chunk(2, dim=-1)
        forward, _ = self._mix(x, z, "", lengths)
        backward, _ = self._mix(x, z, "_b", lengths, reverse=True)
        return self._leave(_merge(self.merge, forward, backward), lengths)

    def forward_chunk(self, hidden, state):
        """A bidirectional mixer needs the whole sequence."""
        raise ValueError("InnerBiMamba looks both ways and cannot run in pieces; use Mamba")

    step = forward_chunk


def _check_merge(merge):
    if merge not in MERGES:
        raise ValueError(f"merge is {merge!r}; choose one of {', '.join(MERGES)}")


def _merge(merge, forward, backward):
    if merge == "concat":
        return torch.cat([forward, backward], dim=-1)
    total = forward + backward
    return total if merge == "sum" else 0.5 * total
