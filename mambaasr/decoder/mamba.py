"""A Mamba decoder: recurrent over the text, attending to the speech."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from torch import Tensor, nn

from mambaasr.checks import check_choice, check_counts, check_rates, check_sizes
from mambaasr.configurable import configurable
from mambaasr.decoder.base import POSITIONS, RecurrentDecoder
from mambaasr.layers.activation import ACTIVATIONS
from mambaasr.layers.adapter import PREFIX, AdapterPlaces
from mambaasr.layers.attention import CrossAttention
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.mixer import Mixer, State
from mambaasr.layers.mixer_conf import CausalMixerConf
from mambaasr.layers.norm import NORMS, make_norm
from mambaasr.ops.lengths import valid_mask


class DecoderBlock(AdapterPlaces):
    """Mixers, cross-attention, mixers, and an optional feed-forward module.

        x += Mixer(norm x)                        ``before`` times
        x += CrossAttention(norm x, speech)
        x += Mixer(norm x)                        ``after`` times
        x += FFN(norm x)                          only if hidden > 0

    Behind each branch there is a place for an adapter (:mod:`mambaasr.layers.adapter`): ``mixer``,
    ``mixer_2``, ..., ``attention``, ``mixer_after``, ``mixer_after_2``, ..., ``feed_forward``.

    Args:
        width: channels.
        memory_width: channels of the speech.
        heads: of the cross-attention.
        hidden: width inside the feed-forward module; 0 leaves it out.
        norm: see :func:`mambaasr.layers.norm.make_norm`.
        dropout_rate: on every residual branch and inside the feed-forward module.
        attention_dropout: on the attention weights.
        mixer: a function without arguments that makes a causal mixer.
        before, after: how many mixers stand on either side of the cross-attention.
        drop_mixers: whether the dropout is on the mixers' branches too.
        activation: in the feed-forward module, "swish", "gelu" or "relu".
    """

    def __init__(
        self,
        width: int,
        memory_width: int,
        heads: int,
        hidden: int,
        norm: str,
        dropout_rate: float,
        attention_dropout: float,
        mixer: Callable[[], Mixer],
        before: int,
        after: int,
        drop_mixers: bool,
        activation: str,
    ) -> None:
        super().__init__()
        self.before = self._add_mixers("mixer", before, width, norm, mixer)
        self.norm_attention = make_norm(norm, width)
        self.attention = CrossAttention(width, memory_width, heads, attention_dropout)
        self.adapter_attention = nn.Identity()
        self.after = self._add_mixers("mixer_after", after, width, norm, mixer)
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate, activation)
            self.adapter_feed_forward = nn.Identity()
        self.dropout = Dropout(dropout_rate)
        self.dropout_mixer = Dropout(dropout_rate if drop_mixers else 0.0)

    def _add_mixers(
        self, first: str, count: int, width: int, norm: str, mixer: Callable[[], Mixer]
    ) -> list[str]:
        """Add norms, mixers and places; return the mixers' names: after the first they count on."""
        names = [first if index == 0 else f"{first}_{index + 1}" for index in range(count)]
        for name in names:
            setattr(self, f"norm_{name}", make_norm(norm, width))
            setattr(self, name, mixer())
            setattr(self, PREFIX + name, nn.Identity())
        return names

    def mixers(self) -> list[Mixer]:
        """Return the mixers in their order."""
        return [getattr(self, name) for name in self.before + self.after]

    def _mix(self, x: Tensor, names: list[str], run: Callable[[Mixer, Tensor], Tensor]) -> Tensor:
        for name in names:
            y = run(getattr(self, name), getattr(self, f"norm_{name}")(x))
            x = x + self.dropout_mixer(getattr(self, PREFIX + name)(y))
        return x

    def _pass(
        self,
        x: Tensor,
        attend: Callable[[Tensor], Tensor],
        run: Callable[[Mixer, Tensor], Tensor],
    ) -> Tensor:
        x = self._mix(x, self.before, run)
        x = x + self.dropout(self.adapter_attention(attend(self.norm_attention(x))))
        x = self._mix(x, self.after, run)
        if self.feed_forward is not None:
            x = x + self.dropout(self.adapter_feed_forward(self.feed_forward(self.norm_ff(x))))
        return x

    def forward(self, x: Tensor, lengths: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """x (batch, text, width), memory (batch, time, memory_width) -> (batch, text, width)."""
        keys, values = self.attention.memory(memory)
        return self._pass(
            x,
            lambda queries: self.attention(queries, keys, values, mask),
            lambda mixer, x: mixer(x, lengths),
        )

    def step(
        self,
        x: Tensor,
        states: Iterator[State],
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Read one token of each hypothesis.

        Args:
            x: (hypothesis, width).
            states: of each mixer in order, updated in place.
            keys, values: (utterance, heads, time, width / heads). The hypotheses lie utterance by
                utterance, of each as many, and attend as so many queries of it.
            mask: (utterance, time), true at valid frames; None if all are.
        """

        def attend(queries: Tensor) -> Tensor:
            queries = queries.unflatten(0, (len(keys), -1))
            return self.attention(queries, keys, values, mask).flatten(0, 1)

        return self._pass(x, attend, lambda mixer, x: mixer.step(x, next(states)))


@configurable()
class MambaDecoder(RecurrentDecoder):
    """Mamba mixer, cross-attention and an optional feed-forward module a block.

    The decoder of arXiv 2406.16808: the Transformer decoder with Mamba in the place of its
    self-attention.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        encoder_output_size: width of the speech, and of the decoder.
        num_blocks: number of blocks.
        attention_heads: heads of the cross-attention.
        linear_units: width inside the feed-forward module; 0 leaves it out.
        mamba_before, mamba_after: mixers before and after a block's cross-attention.
        mixer_conf: see :class:`mambaasr.layers.mixer_conf.CausalMixerConf`.
        norm: "layer_norm" or "rms_norm" in the blocks; the last norm is a LayerNorm.
        positions: added to the embeddings: "none" or "sinusoidal".
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.
        src_attention_dropout_rate: on the attention weights.
        activation_type: in the feed-forward modules, "swish", "gelu" or "relu".

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    drop_mixers = True

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        num_blocks: int = 6,
        attention_heads: int = 4,
        linear_units: int = 2048,
        mamba_before: int = 1,
        mamba_after: int = 0,
        mixer_conf: CausalMixerConf = CausalMixerConf(),
        norm: Annotated[str, NORMS] = "layer_norm",
        positions: Annotated[str, POSITIONS] = "none",
        dropout_rate: float = 0.1,
        src_attention_dropout_rate: float = 0.0,
        activation_type: Annotated[str, ACTIVATIONS] = "swish",
    ) -> None:
        name = type(self).__name__
        check_sizes(name, num_blocks=num_blocks, attention_heads=attention_heads)
        check_counts(linear_units=linear_units, mamba_before=mamba_before, mamba_after=mamba_after)
        check_rates(name, src_attention_dropout_rate=src_attention_dropout_rate)
        check_choice("activation_type", activation_type, ACTIVATIONS)
        if mamba_before + mamba_after == 0:
            raise ValueError(
                "mamba_before and mamba_after are 0; without a mixer the decoder knows no order"
            )
        width = encoder_output_size
        blocks = (
            DecoderBlock(
                width,
                encoder_output_size,
                attention_heads,
                linear_units,
                norm,
                dropout_rate,
                src_attention_dropout_rate,
                lambda: mixer_conf.make(width),
                mamba_before,
                mamba_after,
                self.drop_mixers,
                activation_type,
            )
            for _ in range(num_blocks)
        )
        super().__init__(vocab_size, width, blocks, positions, dropout_rate)

    def run_blocks(
        self, x: Tensor, lengths: Tensor, speech: Tensor, speech_lengths: Tensor
    ) -> Tensor:
        """See :meth:`RecurrentDecoder.run_blocks`."""
        speech = _never_empty(speech)
        mask = valid_mask(speech_lengths.clamp(min=1), speech.shape[1])
        for block in self.blocks:
            x = block(x, lengths, speech, mask)
        return x

    def start_blocks(self, speech: Tensor, lengths: Tensor) -> tuple[list[State], list[Tensor]]:
        """See :meth:`RecurrentDecoder.start_blocks`."""
        states = [
            mixer.initial_state(len(speech), speech.device, speech.dtype)
            for block in self.blocks
            for mixer in block.mixers()
        ]
        speech = _never_empty(speech)
        return states, [part for block in self.blocks for part in block.attention.memory(speech)]

    def step_blocks(
        self, x: Tensor, states: list[State], memory: Sequence[Tensor], mask: Tensor | None
    ) -> Tensor:
        """See :meth:`RecurrentDecoder.step_blocks`."""
        rest = iter(states)
        for index, block in enumerate(self.blocks):
            x = block.step(x, rest, *memory[2 * index : 2 * index + 2], mask)
        return x


def _never_empty(memory: Tensor) -> Tensor:
    """Attention over nothing would be NaN: speech without a frame gets one of zeros."""
    return memory if memory.shape[1] else memory.new_zeros(len(memory), 1, memory.shape[2])
