"""A Mamba decoder: recurrent over the text, attending to the speech."""

from torch import nn

from mambaasr.checks import check_choice, check_counts, check_rates, check_sizes
from mambaasr.decoder.base import RecurrentDecoder, mixer_maker
from mambaasr.layers.activation import ACTIVATIONS
from mambaasr.layers.attention import CrossAttention
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.norm import make_norm
from mambaasr.ops.lengths import valid_mask


class DecoderBlock(nn.Module):
    """Mixers, cross-attention, mixers, and an optional feed-forward module.

        x += Mixer(norm x)                        ``before`` times
        x += CrossAttention(norm x, speech)
        x += Mixer(norm x)                        ``after`` times
        x += FFN(norm x)                          only if hidden > 0

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
        width,
        memory_width,
        heads,
        hidden,
        norm,
        dropout_rate,
        attention_dropout,
        mixer,
        before,
        after,
        drop_mixers,
        activation,
    ):
        super().__init__()
        self.before = self._add_mixers("", before, width, norm, mixer)
        self.norm_attention = make_norm(norm, width)
        self.attention = CrossAttention(width, memory_width, heads, attention_dropout)
        self.after = self._add_mixers("_after", after, width, norm, mixer)
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate, activation)
        self.dropout = Dropout(dropout_rate)
        self.dropout_mixer = Dropout(dropout_rate if drop_mixers else 0.0)

    def _add_mixers(self, place, count, width, norm, mixer):
        """Add norms and mixers; return their names: the first is plain, the others count on."""
        names = []
        for index in range(count):
            suffix = f"{place}_{index + 1}" if index else place
            names.append((f"norm_mixer{suffix}", f"mixer{suffix}"))
            setattr(self, names[-1][0], make_norm(norm, width))
            setattr(self, names[-1][1], mixer())
        return names

    def mixers(self):
        """The mixers in their order."""
        return [getattr(self, name) for _, name in self.before + self.after]

    def _mix(self, x, names, run):
        for norm, mixer in names:
            x = x + self.dropout_mixer(run(getattr(self, mixer), getattr(self, norm)(x)))
        return x

    def _pass(self, x, attend, run):
        x = self._mix(x, self.before, run)
        x = x + self.dropout(attend(self.norm_attention(x)))
        x = self._mix(x, self.after, run)
        if self.feed_forward is not None:
            x = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return x

    def forward(self, x, lengths, memory, mask):
        """x (batch, text, width), memory (batch, time, memory_width) -> (batch, text, width)."""
        keys, values = self.attention.memory(memory)
        return self._pass(
            x,
            lambda queries: self.attention(queries, keys, values, mask),
            lambda mixer, x: mixer(x, lengths),
        )

    def step(self, x, states, keys, values, mask=None):
        """One token of each hypothesis.

        Args:
            x: (hypothesis, width).
            states: of each mixer in order, updated in place.
            keys, values: (utterance, heads, time, width / heads). The hypotheses lie utterance by
                utterance, of each as many, and attend as so many queries of it.
            mask: (utterance, time), true at valid frames; None if all are.
        """
        states = iter(states)

        def attend(queries):
            queries = queries.unflatten(0, (len(keys), -1))
            return self.attention(queries, keys, values, mask).flatten(0, 1)

        return self._pass(
            x,
            attend,
            lambda mixer, x: mixer.step(x, next(states)),
        )


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
        mixer: "mamba1" or "mamba2".
        mamba_before, mamba_after: mixers before and after a block's cross-attention.
        d_state, d_conv, expand: of the mixer, see :func:`mambaasr.layers.mixer_conf.make_mixer`.
        mixer_conf: a mapping of further options of the mixer.
        norm: "layer_norm" or "rms_norm" in the blocks; the last norm is a LayerNorm.
        positions: added to the embeddings: "none" or "sinusoidal".
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.
        mixer_dropout_rate: inside the mixer, after its input and output projections.
        src_attention_dropout_rate: on the attention weights.
        activation_type: in the feed-forward modules, "swish", "gelu" or "relu".

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    _drop_mixers = True

    def __init__(
        self,
        vocab_size,
        encoder_output_size,
        num_blocks=6,
        attention_heads=4,
        linear_units=2048,
        mixer="mamba1",
        mamba_before=1,
        mamba_after=0,
        d_state=None,
        d_conv=4,
        expand=2,
        mixer_conf=None,
        norm="layer_norm",
        positions="none",
        dropout_rate=0.1,
        mixer_dropout_rate=0.0,
        src_attention_dropout_rate=0.0,
        activation_type="swish",
    ):
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
        make = mixer_maker(
            mixer,
            width,
            mixer_conf,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            dropout_rate=mixer_dropout_rate,
        )
        blocks = (
            DecoderBlock(
                width,
                encoder_output_size,
                attention_heads,
                linear_units,
                norm,
                dropout_rate,
                src_attention_dropout_rate,
                make,
                mamba_before,
                mamba_after,
                self._drop_mixers,
                activation_type,
            )
            for _ in range(num_blocks)
        )
        super().__init__(vocab_size, width, blocks, positions, dropout_rate)

    def _run(self, x, lengths, speech, speech_lengths):
        speech = _never_empty(speech)
        mask = valid_mask(speech_lengths.clamp(min=1), speech.shape[1])
        for block in self.blocks:
            x = block(x, lengths, speech, mask)
        return x

    def _start(self, speech):
        states = [
            mixer.initial_state(1, speech.device, speech.dtype)
            for block in self.blocks
            for mixer in block.mixers()
        ]
        speech = _never_empty(speech)
        return states, [part for block in self.blocks for part in block.attention.memory(speech)]

    def _advance(self, x, states, memory, mask):
        each = len(states) // len(self.blocks)
        for index, block in enumerate(self.blocks):
            own = states[index * each : (index + 1) * each]
            x = block.step(x, own, *memory[2 * index : 2 * index + 2], mask)
        return x


def _never_empty(memory):
    """Attention over nothing would be NaN: speech without a frame gets one of zeros."""
    return memory if memory.shape[1] else memory.new_zeros(len(memory), 1, memory.shape[2])
