"""Speech-Mamba: self-attention between Mamba blocks."""

from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import check_counts, check_flags, check_rates, check_sizes
from mambaasr.configurable import configurable
from mambaasr.encoder.base import StackEncoder
from mambaasr.layers.adapter import PREFIX, AdapterPlaces
from mambaasr.layers.attention import SelfAttention
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.mixer_conf import MixerConf
from mambaasr.layers.norm import RMSNorm
from mambaasr.layers.positions import POSITIONS, split_positions


class ResidualLayer(AdapterPlaces):
    """x + dropout(inner(RMSNorm(x))), summed in at least fp32, whatever the weights are.

    Behind the inner module there is a place for an adapter (:mod:`mambaasr.layers.adapter`).

    Args:
        width: channels.
        inner: module with ``forward(x, lengths)``; also ``initial_state`` and ``forward_chunk`` if
            its ``causal`` is true.
        place: name of the place, ``mixer`` or ``attention``.
        dropout_rate: on the branch.
    """

    def __init__(
        self, width: int, inner: nn.Module, place: str = "mixer", dropout_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.norm, self.inner, self.dropout = RMSNorm(width), inner, Dropout(dropout_rate)
        self.place = PREFIX + place
        setattr(self, self.place, nn.Identity())
        self.causal = inner.causal

    def _add(self, x: Tensor, branch: Tensor, scale: float = 1.0) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return torch.add(x, self.dropout(getattr(self, self.place)(branch)), alpha=scale)

    def _enter(self, x: Tensor) -> Tensor:
        return self.norm(x).to(self.norm.weight.dtype)

    def forward(self, x: Tensor, lengths: Tensor, scale: float = 1.0) -> Tensor:
        """(batch, time, width), zero beyond the lengths (batch) -> the same."""
        return self._add(x, self.inner(self._enter(x), lengths), scale)

    def initial_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple:
        """The state before the first frame, that of the inner module."""
        return self.inner.initial_state(batch, device, dtype)

    def forward_chunk(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The next piece of each sequence (batch, time, width) -> the same, and the next state."""
        y, state = self.inner.forward_chunk(self._enter(x), state)
        return self._add(x, y), state


class ResidualLayers(nn.ModuleList):
    """Residual layers one after another, as one block of an encoder."""

    @property
    def causal(self) -> bool:
        """Whether no layer looks ahead."""
        return all(layer.causal for layer in self)

    def forward(self, x: Tensor, lengths: Tensor, scale: float = 1.0) -> Tensor:
        """(batch, time, width), lengths (batch) -> the same.

        Padding that is zero stays zero, unless an adapter gives it a value; no layer looks at it.
        ``scale`` multiplies every residual branch (stochastic depth).
        """
        for layer in self:
            x = layer(x, lengths, scale)
        return x

    def initial_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple:
        """The state before the first frame, one a layer."""
        return tuple(layer.initial_state(batch, device, dtype) for layer in self)

    def forward_chunk(self, x: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The next piece of each sequence (batch, time, width) -> the same, and the next state."""
        after = []
        for layer, past in zip(self, state, strict=True):
            x, past = layer.forward_chunk(x, past)
            after.append(past)
        return x, tuple(after)


@configurable(input_layer="cnn64_64_64")
class SpeechMambaEncoder(StackEncoder):
    """Blocks of [Mamba, self-attention, Mamba] without feed-forward modules (arXiv 2409.18654).

    The defaults are those of the published yaml: with the Speech-Mamba decoder of 3 blocks, 5,000
    tokens and a CTC head 67.6 million parameters. Its Mamba layers are causal, in the encoder too;
    two directions ("inner", "outer") are ours. Its table of positions ends at 100 s; here they are
    computed for any length.

    Args:
        input_size: width of the features; the published one is 80.
        output_size: width of the encoder (d_model).
        num_blocks: number of blocks.
        use_attention: false leaves the self-attention out ("Mamba only").
        attention_heads: heads of the self-attention.
        attention_dropout_rate: on its weights.
        mamba_before, mamba_after: Mamba layers of a block before and after its self-attention; 0
            and 0 leave attention only.
        positions: "sinusoidal" (as published, added to the frames), "rotary" (within the
            attention) or "none".
        mixer_conf: see :class:`mambaasr.layers.mixer_conf.MixerConf`.
        dropout_rate: after the input layer and on the branch of the attention; as published,
            Mamba layers have none but that of ``mixer_conf``.
        **stack: further options of :class:`mambaasr.encoder.base.StackEncoder`.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    streams_with = "use_attention: false, and direction: uni in mixer_conf"

    def __init__(
        self,
        input_size: int,
        output_size: int = 512,
        num_blocks: int = 7,
        use_attention: bool = True,
        attention_heads: int = 4,
        attention_dropout_rate: float = 0.1,
        mamba_before: int = 1,
        mamba_after: int = 1,
        positions: Annotated[str, POSITIONS] = "sinusoidal",
        mixer_conf: MixerConf = MixerConf(direction="uni", d_state=256),
        dropout_rate: float = 0.1,
        **stack: object,
    ) -> None:
        check_flags(use_attention=use_attention)
        check_sizes(type(self).__name__, attention_heads=attention_heads)
        check_rates(type(self).__name__, attention_dropout_rate=attention_dropout_rate)
        check_counts(num_blocks=num_blocks, mamba_before=mamba_before, mamba_after=mamba_after)
        if not use_attention and mamba_before + mamba_after == 0:
            raise ValueError(
                "mamba_before and mamba_after are 0 and use_attention is false: "
                "a block needs one of them"
            )
        added, turned = split_positions(positions, output_size)
        if turned == "rotary" and not use_attention:
            raise ValueError(
                "positions is 'rotary', which works in attention; use_attention is false"
            )

        def attention():
            inner = SelfAttention(output_size, attention_heads, attention_dropout_rate, turned)
            return ResidualLayer(output_size, inner, "attention", dropout_rate)

        def mamba():
            return ResidualLayer(output_size, mixer_conf.make(output_size))

        kinds = [mamba] * mamba_before + [attention] * bool(use_attention) + [mamba] * mamba_after
        super().__init__(
            input_size,
            output_size,
            (ResidualLayers(make() for make in kinds) for _ in range(num_blocks)),
            dropout_rate=dropout_rate,
            positions=added,
            **stack,
        )
