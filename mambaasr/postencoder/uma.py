"""Unimodal aggregation between an encoder and CTC."""

from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import check_counts, check_rates, check_sizes
from mambaasr.espnet_compat import AbsPostEncoder
from mambaasr.layers.attention import SelfAttention
from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.positions import POSITIONS, sinusoidal, split_positions
from mambaasr.layers.uma import UnimodalAggregation
from mambaasr.ops.lengths import zero_padding


class UMAPostEncoder(AbsPostEncoder):
    """Tokens in the place of frames: aggregation, Transformer blocks, LayerNorm.

    After arXiv 2309.08150 (offline) and 2410.00070 (behind a causal Mamba encoder); their
    non-autoregressive decoder is 6 Transformer blocks, here ``num_blocks: 6``. Its early
    termination, which cuts at maxima too, is a matter of decoding and not here.

    CTC needs at least as many frames as tokens of the text, and one more between two that are the
    same. Where the aggregation leaves fewer, the text has no alignment: ESPnet's CTC with its
    default ``zero_infinity: true`` then gives the utterance a loss and gradients of zero, so that
    nothing is learned from it and nothing breaks; with false the loss is infinite. It was
    published for Mandarin characters; for shorter units, such as letters, ``max_frames`` keeps
    enough. ESPnet gives intermediate CTC losses the lengths that come out here, so that
    ``interctc_weight`` must be 0.

    Args:
        input_size: width, of the output too.
        max_frames: longest segment in frames of the encoder, see
            :class:`mambaasr.layers.uma.UnimodalAggregation`; ours, null as published.
        num_blocks: Transformer blocks after the aggregation.
        attention_heads: their heads.
        attention_dropout_rate: on their attention's weights.
        linear_units: width inside their feed-forward modules.
        positions: "sinusoidal" (added to the tokens), "rotary" or "none"; only with blocks.
        dropout_rate: in the blocks, on their residual branches and in front of them.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    def __init__(
        self,
        input_size: int,
        max_frames: int | None = None,
        num_blocks: int = 0,
        attention_heads: int = 4,
        attention_dropout_rate: float = 0.1,
        linear_units: int = 2048,
        positions: Annotated[str, POSITIONS] = "sinusoidal",
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(num_blocks=num_blocks, linear_units=linear_units)
        check_sizes("UMAPostEncoder", attention_heads=attention_heads)
        check_rates(
            "UMAPostEncoder",
            attention_dropout_rate=attention_dropout_rate,
            dropout_rate=dropout_rate,
        )
        added, turned = split_positions(positions, input_size)
        self._output_size = input_size
        self.aggregation = UnimodalAggregation(input_size, max_frames)
        self.add_positions = added == "sinusoidal" and num_blocks > 0
        self.dropout = Dropout(dropout_rate if num_blocks else 0.0)
        self.blocks = nn.ModuleList(
            EncoderBlock(
                input_size,
                SelfAttention(input_size, attention_heads, attention_dropout_rate, turned),
                hidden=linear_units,
                dropout_rate=dropout_rate,
            )
            for _ in range(num_blocks)
        )
        self.after_norm = nn.LayerNorm(input_size)

    def output_size(self) -> int:
        """Width of the output."""
        return self._output_size

    def initial_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple:
        """The state before the first piece of speech, for :meth:`forward_chunk` only.

        Raises:
            ValueError: there are blocks, whose attention looks ahead.
        """
        if self.blocks:
            raise ValueError(
                f"UMAPostEncoder looks ahead in its {len(self.blocks)} blocks, so it cannot take "
                "speech in pieces; it can with num_blocks: 0"
            )
        return self.aggregation.initial_state(batch, device, dtype)

    def forward_chunk(
        self, xs: Tensor, state: tuple, last: bool = False
    ) -> tuple[Tensor, Tensor, tuple | None]:
        """Aggregate the next piece of each utterance; pieces of any size give what the whole gives.

        Args, returns: see :meth:`mambaasr.layers.uma.UnimodalAggregation.forward_chunk`.
        """
        x, counts, state = self.aggregation.forward_chunk(xs, state, last)
        return zero_padding(self.after_norm(x), counts), counts, state

    def forward(self, xs_pad: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor]:
        """Aggregate a batch.

        Args:
            xs_pad: (batch, time, input_size), of an encoder.
            ilens: (batch) valid frames.

        Returns:
            (batch, tokens, input_size), zero beyond the lengths; the lengths (batch).
        """
        x, lengths = self.aggregation(xs_pad, ilens.to(xs_pad.device))
        if self.add_positions:
            x = x + sinusoidal(*x.shape[1:], device=x.device, dtype=x.dtype)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, lengths)
        return zero_padding(self.after_norm(x), lengths), lengths
