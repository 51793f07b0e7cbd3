"""E-Branchformer with Mamba in the place of its attention, or beside it."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import (
    check_choice,
    check_counts,
    check_flags,
    check_rates,
    check_sizes,
)
from mambaasr.configurable import configurable
from mambaasr.encoder.base import StackEncoder
from mambaasr.layers.adapter import PREFIX, AdapterPlaces
from mambaasr.layers.attention import SelfAttention
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cgmlp import ConvolutionalGatingMLP
from mambaasr.layers.cpu import Dropout, call
from mambaasr.layers.depthwise import DepthwiseConv
from mambaasr.layers.mixer_conf import MixerConf
from mambaasr.layers.positions import POSITIONS, split_positions
from mambaasr.ops.lengths import zero_padding

BRANCHES = ("attention", "mamba", "cgmlp")


class EBranchformerBlock(AdapterPlaces):
    """Parallel branches between feed-forward modules (arXiv 2210.00077, section 3).

        x += 1/2 FFN(LN x)                      only if hidden > 0 and macaron
        y  = [branch(LN x) for each branch]     side by side
        x += Linear(y + DepthwiseConv(y))
        x += 1/2 FFN(LN x)                      only if hidden > 0; whole unless macaron
        x  = LN(x)

    Behind each residual branch there is a place for an adapter (:mod:`mambaasr.layers.adapter`):
    ``feed_forward_macaron``, ``merge``, ``feed_forward``; and behind each parallel branch one of
    the branch's name.

    Args:
        width: channels.
        branches: name -> module with ``forward(x, lengths)``, zero beyond the lengths, and
            ``causal``; if that is true, also with ``initial_state`` and ``forward_chunk``.
        merge_kernel: of the merging convolution, odd unless causal.
        causal: whether that convolution sees past frames only.
        hidden: width inside the feed-forward modules; 0 leaves them out.
        macaron: a feed-forward module on either side.
        dropout_rate: on the output of each branch and on every residual branch.

    Raises:
        ValueError: a size is impossible, or macaron without a feed-forward module.
    """

    def __init__(
        self,
        width: int,
        branches: Mapping[str, nn.Module],
        merge_kernel: int = 3,
        causal: bool = False,
        hidden: int = 0,
        macaron: bool = True,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(linear_units=hidden)
        check_flags(macaron_style=macaron)
        if macaron and hidden == 0:
            raise ValueError("macaron_style needs linear_units > 0")
        self.dropout = Dropout(dropout_rate)
        self.ff_scale = 0.5 if macaron else 1.0
        self.has_macaron, self.has_ff = macaron, hidden > 0
        if self.has_macaron:
            self.norm_macaron = nn.LayerNorm(width)
            self.feed_forward_macaron = FeedForward(width, hidden, dropout_rate)
            self.adapter_feed_forward_macaron = nn.Identity()
        self.names = tuple(branches)
        self.branches = nn.ModuleList(branches.values())
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.branches)
        for name in self.names:
            setattr(self, PREFIX + name, nn.Identity())
        joint = width * len(self.branches)
        self.merge_conv = DepthwiseConv(joint, merge_kernel, causal, "merge_conv_kernel")
        self.merge_linear = nn.Linear(joint, width)
        self.adapter_merge = nn.Identity()
        if self.has_ff:
            self.norm_ff = nn.LayerNorm(width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate)
            self.adapter_feed_forward = nn.Identity()
        self.norm_final = nn.LayerNorm(width)

    @property
    def causal(self) -> bool:
        """Whether no part looks ahead."""
        return self.merge_conv.causal and all(branch.causal for branch in self.branches)

    def _feed_macaron(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if not self.has_macaron:
            return x
        y = self.adapter_feed_forward_macaron(self.feed_forward_macaron(self.norm_macaron(x)))
        return self._add(x, y, self.ff_scale * scale)

    def _feed(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if not self.has_ff:
            return x
        y = self.adapter_feed_forward(self.feed_forward(self.norm_ff(x)))
        return self._add(x, y, self.ff_scale * scale)

    def _merge(self, x: Tensor, y: Tensor, convolved: Tensor, scale: float = 1.0) -> Tensor:
        return self._add(x, self.adapter_merge(call(self.merge_linear, y + convolved)), scale)

    def _add(self, x: Tensor, branch: Tensor, scale: float) -> Tensor:
        return torch.add(x, self.dropout(branch), alpha=scale)

    def forward(self, x: Tensor, lengths: Tensor, scale: float = 1.0) -> Tensor:
        """(batch, time, width), lengths (batch) -> the same, zero beyond the lengths.

        ``scale`` multiplies every residual branch (stochastic depth).
        """
        x = self._feed_macaron(x, scale)
        outs = []
        for name, norm, branch in zip(self.names, self.norms, self.branches, strict=True):
            y, adapter = branch(norm(x), lengths), getattr(self, PREFIX + name)
            if not isinstance(adapter, nn.Identity):
                # It may give padding a value, which the merging convolution would see.
                y = zero_padding(adapter(y), lengths)
            outs.append(self.dropout(y))
        y = torch.cat(outs, dim=-1)
        x = self._merge(x, y, self.merge_conv(y), scale)
        x = self._feed(x, scale)
        return zero_padding(self.norm_final(x), lengths)

    def initial_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple:
        """The state before the first frame: of the merging convolution and of each branch."""
        own = (batch, device, dtype)
        return self.merge_conv.initial_state(*own), *(b.initial_state(*own) for b in self.branches)

    def forward_chunk(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, width).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, width) and the next state. Gradients flow through both.
        """
        merge, *states = state
        x = self._feed_macaron(x)
        outs, after = [], []
        branches = zip(self.names, self.norms, self.branches, states, strict=True)
        for name, norm, branch, past in branches:
            y, past = branch.forward_chunk(norm(x), past)
            outs.append(self.dropout(getattr(self, PREFIX + name)(y)))
            after.append(past)
        y = torch.cat(outs, dim=-1)
        convolved, merge = self.merge_conv.forward_chunk(y, merge)
        x = self._feed(self._merge(x, y, convolved))
        return self.norm_final(x), (merge, *after)


@configurable()
class MambaEBranchformerEncoder(StackEncoder):
    """E-Branchformer (arXiv 2210.00077) whose branches can be chosen.

    [mamba, cgmlp] has Mamba in the place of attention; [attention, mamba, cgmlp] Mamba beside it,
    as Mcformer (doi 10.1038/s41598-025-04979-1) has, of which only the abstract was at hand: that
    all three are merged as E-Branchformer merges two is ours. [attention, cgmlp] is
    E-Branchformer, with ``positions`` instead of its relative ones. Unlike in ESPnet's, no
    convolution sees padding.

    Args:
        input_size: width of the features.
        output_size: width of the encoder (d_model).
        num_blocks: number of blocks.
        branches: what runs side by side, out of attention, mamba and cgmlp, each once at most.
        attention_heads: heads of the self-attention.
        attention_dropout_rate: on its weights.
        linear_units: width inside the feed-forward modules; 0 leaves them out.
        macaron_style: a feed-forward module on either side of the branches.
        cgmlp_linear_units: width inside the convolutional gating MLP.
        cgmlp_conv_kernel: its kernel, odd unless ``direction`` is uni.
        use_linear_after_conv: a linear layer after its convolution.
        merge_conv_kernel: of the convolution that merges the branches, likewise.
        positions: "none", "sinusoidal" (added to the frames) or "rotary" (within the attention).
        mixer_conf: see :class:`mambaasr.layers.mixer_conf.MixerConf`; with ``direction: uni`` the
            convolutions are causal too.
        dropout_rate: on branches, residual branches, inside feed-forward modules and after the
            input layer.
        **stack: further options of :class:`mambaasr.encoder.base.StackEncoder`.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    streams_with = "direction: uni in mixer_conf, and branches without attention"

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        num_blocks: int = 12,
        branches: Sequence[str] = ("mamba", "cgmlp"),
        attention_heads: int = 4,
        attention_dropout_rate: float = 0.1,
        linear_units: int = 1024,
        macaron_style: bool = True,
        cgmlp_linear_units: int = 1024,
        cgmlp_conv_kernel: int = 31,
        use_linear_after_conv: bool = False,
        merge_conv_kernel: int = 31,
        positions: Annotated[str, POSITIONS] = "none",
        mixer_conf: MixerConf = MixerConf(direction="outer"),
        dropout_rate: float = 0.1,
        **stack: object,
    ) -> None:
        if not isinstance(branches, list | tuple) or not branches:
            raise ValueError(f"branches is {branches!r}; list some of {', '.join(BRANCHES)}")
        for branch in branches:
            check_choice("branches", branch, BRANCHES)
        if len(set(branches)) < len(branches):
            raise ValueError(
                f"branches is {list(branches)}; each of {', '.join(BRANCHES)} once at most"
            )
        added, turned = split_positions(positions, output_size)
        if turned == "rotary" and "attention" not in branches:
            raise ValueError(
                f"positions is 'rotary', which works in attention; branches is {list(branches)}"
            )
        check_counts(num_blocks=num_blocks)
        check_flags(use_linear_after_conv=use_linear_after_conv)
        check_sizes(type(self).__name__, attention_heads=attention_heads)
        check_rates(type(self).__name__, attention_dropout_rate=attention_dropout_rate)
        causal = mixer_conf.causal

        def attention():
            return SelfAttention(output_size, attention_heads, attention_dropout_rate, turned)

        def mamba():
            return mixer_conf.make(output_size)

        def cgmlp():
            return ConvolutionalGatingMLP(
                output_size,
                cgmlp_linear_units,
                cgmlp_conv_kernel,
                dropout_rate,
                causal,
                use_linear_after_conv,
            )

        makers = dict(attention=attention, mamba=mamba, cgmlp=cgmlp)
        super().__init__(
            input_size,
            output_size,
            (
                EBranchformerBlock(
                    output_size,
                    {branch: makers[branch]() for branch in branches},
                    merge_kernel=merge_conv_kernel,
                    causal=causal,
                    hidden=linear_units,
                    macaron=macaron_style,
                    dropout_rate=dropout_rate,
                )
                for _ in range(num_blocks)
            ),
            dropout_rate=dropout_rate,
            positions=added,
            **stack,
        )
