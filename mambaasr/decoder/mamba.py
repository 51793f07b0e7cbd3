"""A Mamba decoder: recurrent over the text, attending to the speech."""

from dataclasses import dataclass

import torch
from torch import nn

from mambaasr.espnet_compat import AbsDecoder, BatchScorerInterface
from mambaasr.layers.attention import CrossAttention
from mambaasr.layers.block import FeedForward
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.masking import valid_mask, zero_padding


class DecoderBlock(nn.Module):
    """x += Mamba(LN x); x += CrossAttention(LN x, speech); x += FFN(LN x)."""

    def __init__(self, width, memory_width, heads, hidden, dropout_rate, attention_dropout, mixer):
        super().__init__()
        self.norm_mixer = nn.LayerNorm(width)
        self.mixer = mixer
        self.norm_attention = nn.LayerNorm(width)
        self.attention = CrossAttention(width, memory_width, heads, attention_dropout)
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = nn.LayerNorm(width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate)
        self.dropout = nn.Dropout(dropout_rate)

    def _attend(self, x, keys, values, mask):
        x = x + self.dropout(self.attention(self.norm_attention(x), keys, values, mask))
        if self.feed_forward is not None:
            x = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return x

    def forward(self, x, lengths, memory, mask):
        """x (batch, time, width), memory (batch, time', memory_width) -> (batch, time, width)."""
        x = x + self.dropout(self.mixer(self.norm_mixer(x), lengths))
        return self._attend(x, *self.attention.memory(memory), mask)

    def step(self, x, state, keys, values):
        """One token: x (batch, width); the mixer's state is updated in place."""
        x = x + self.mixer.step(self.norm_mixer(x), state)
        return self._attend(x.unsqueeze(1), keys, values, None).squeeze(1)


@dataclass
class DecoderState:
    """The state of one hypothesis: everything that its next token needs, of fixed size.

    Attributes:
        conv: inputs of each block's convolution (block, d_inner, d_conv - 1).
        ssm: state of each block's scan (block, d_inner, d_state).
        memory: for each block the keys and values of the speech (1, heads, time, width / heads);
            shared by all hypotheses of an utterance.
    """

    conv: torch.Tensor
    ssm: torch.Tensor
    memory: tuple


class MambaDecoder(AbsDecoder, BatchScorerInterface):
    """Mamba mixer, cross-attention and an optional feed-forward module a block.

    The decoder of arXiv 2406.16808: the Transformer decoder with Mamba in the place of its
    self-attention. One step costs the same at any length of the prefix.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        encoder_output_size: width of the speech, and of the decoder.
        num_blocks: number of blocks.
        attention_heads: heads of the cross-attention.
        linear_units: width inside the feed-forward module; 0 leaves it out.
        d_state, d_conv, expand: of the mixer, see :class:`mambaasr.layers.mamba.Mamba`.
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.
        mixer_dropout_rate: inside the mixer, after its input and output projections.
        src_attention_dropout_rate: on the attention weights.

    Raises:
        ValueError: a size is impossible.
    """

    def __init__(
        self,
        vocab_size,
        encoder_output_size,
        num_blocks=6,
        attention_heads=4,
        linear_units=2048,
        d_state=16,
        d_conv=4,
        expand=2,
        dropout_rate=0.1,
        mixer_dropout_rate=0.0,
        src_attention_dropout_rate=0.0,
    ):
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"num_blocks is {num_blocks}; it must be positive")
        if linear_units < 0:
            raise ValueError(f"linear_units is {linear_units}; it must not be negative")
        width = encoder_output_size
        self.embed = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(dropout_rate)
        self.blocks = nn.ModuleList(
            DecoderBlock(
                width,
                encoder_output_size,
                attention_heads,
                linear_units,
                dropout_rate,
                src_attention_dropout_rate,
                Mamba(width, d_state, d_conv, expand, dropout_rate=mixer_dropout_rate),
            )
            for _ in range(num_blocks)
        )
        self.after_norm = nn.LayerNorm(width)
        self.output_layer = nn.Linear(width, vocab_size)

    def forward(self, hs_pad, hlens, ys_in_pad, ys_in_lens):
        """Score whole texts.

        Args:
            hs_pad: speech (batch, time, encoder_output_size).
            hlens: (batch) valid frames.
            ys_in_pad: tokens, <sos/eos> first (batch, text).
            ys_in_lens: (batch) valid tokens.

        Returns:
            logits (batch, text, vocab_size), zero beyond the lengths, and the lengths (batch).
        """
        hlens, ys_in_lens = hlens.to(hs_pad.device), ys_in_lens.to(hs_pad.device)
        memory = _never_empty(zero_padding(hs_pad, hlens))
        mask = valid_mask(hlens.clamp(min=1), memory.shape[1])
        x = self.dropout(self.embed(ys_in_pad))
        for block in self.blocks:
            x = block(x, ys_in_lens, memory, mask)
        logits = self.output_layer(self.after_norm(x))
        return zero_padding(logits, ys_in_lens), ys_in_lens

    @torch.no_grad()
    def init_state(self, x):
        """The state before the first token of an utterance x (time, encoder_output_size)."""
        mixer = self.blocks[0].mixer
        conv, ssm = mixer.initial_state(len(self.blocks), x.device, x.dtype)
        x = _never_empty(x.unsqueeze(0))
        memory = tuple(block.attention.memory(x) for block in self.blocks)
        return DecoderState(conv, ssm, memory)

    @torch.no_grad()
    def batch_score(self, ys, states, xs):
        """Score the next token of hypotheses; ESPnet's ``BatchScorerInterface``.

        Args:
            ys: prefixes (hypothesis, length), of which only the last token is read.
            states: a :class:`DecoderState` each, as :meth:`init_state` or the last call gave it;
                not changed, so that beams may share one.
            xs: speech (hypothesis, time, encoder_output_size); used where a state is None.

        Returns:
            log-probabilities (hypothesis, vocab_size), and the list of next states.
        """
        states = [
            self.init_state(speech) if state is None else state
            for state, speech in zip(states, xs, strict=True)
        ]
        conv = torch.stack([state.conv for state in states], dim=1)  # (block, hyp, d, width - 1)
        ssm = torch.stack([state.ssm for state in states], dim=1)  # (block, hyp, d, n)
        x = self.embed(ys[:, -1])
        for index, block in enumerate(self.blocks):
            keys, values = _gather([state.memory[index] for state in states])
            x = block.step(x, (conv[index], ssm[index]), keys, values)
        scores = torch.log_softmax(self.output_layer(self.after_norm(x)).float(), dim=-1)
        new = [
            DecoderState(conv[:, index], ssm[:, index], state.memory)
            for index, state in enumerate(states)
        ]
        return scores, new

    def score(self, ys, state, x):
        """Score the next token of one hypothesis: ys (length), x (time, encoder_output_size)."""
        scores, states = self.batch_score(ys.unsqueeze(0), [state], x.unsqueeze(0))
        return scores[0], states[0]


def _never_empty(memory):
    """Attention over nothing would be NaN: speech without a frame gets one of zeros."""
    return memory if memory.shape[1] else memory.new_zeros(len(memory), 1, memory.shape[2])


def _gather(memories):
    """Keys and values of several hypotheses; those of one utterance are shared, not copied."""
    keys, values = memories[0]
    if all(memory[0] is keys for memory in memories):
        return tuple(x.expand(len(memories), -1, -1, -1) for x in (keys, values))
    return tuple(torch.cat(parts) for parts in zip(*memories, strict=True))
