"""A language model of Mamba blocks."""

import torch
from torch import nn

from mambaasr.checks import check_counts, check_flags, check_rates, check_sizes
from mambaasr.espnet_compat import AbsLM
from mambaasr.layers.beam import Origin, StepScorer
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cpu import Dropout, Linear, linear
from mambaasr.layers.mixer_conf import make_mixer, mixer_options
from mambaasr.layers.norm import make_norm


class Embedding(nn.Embedding):
    """Small initial values: the same matrix may give the logits."""

    def reset_parameters(self):
        """Draw the values; ESPnet's ``init`` calls this too."""
        nn.init.normal_(self.weight, std=0.02)

    espnet_initialization_fn = reset_parameters


class LMBlock(nn.Module):
    """x += Mixer(norm x); x += FFN(norm x), the second only with ``hidden > 0``."""

    def __init__(self, width, mixer, hidden, norm, dropout_rate):
        super().__init__()
        self.norm_mixer = make_norm(norm, width)
        self.mixer = mixer
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate)
        self.dropout = Dropout(dropout_rate)

    def _after(self, x, mixed):
        x = x + self.dropout(mixed)
        if self.feed_forward is not None:
            x = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return x

    def forward(self, x):
        """x (batch, time, width) -> the same."""
        return self._after(x, self.mixer(self.norm_mixer(x)))

    def forward_chunk(self, x, state):
        """The next piece x (batch, time, width) -> the same, and the next state."""
        mixed, state = self.mixer.forward_chunk(self.norm_mixer(x), state)
        return self._after(x, mixed), state

    def step(self, x, state):
        """One token: x (batch, width); the state is updated in place."""
        return self._after(x, self.mixer.step(self.norm_mixer(x), state))


class MambaLM(StepScorer, AbsLM):
    """Embedding, blocks of a norm and a causal mixer, a norm, and logits.

    The model of arXiv 2312.00752 (its released language models: RMSNorm, no feed-forward
    module, one matrix for embedding and logits), as an LM of ESPnet. One step costs the same at
    any length of the prefix, where a Transformer's grows. Dropout and the feed-forward module are
    ours.

    A causal model needs no lengths: what stands behind a sequence's end changes nothing before.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        unit: width of the embedding and of the blocks.
        num_blocks: number of blocks.
        linear_units: width inside the feed-forward modules; 0 leaves them out.
        mixer, d_state, d_conv, expand: see :func:`mambaasr.layers.mixer_conf.make_mixer`.
        mixer_conf: the mixer's further options.
        norm: "rms_norm" or "layer_norm".
        tie_weights: take the embedding's matrix for the logits, else a matrix of their own.
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.
        mixer_dropout_rate: inside the mixer, after its input and output projections.

    Raises:
        ValueError: a size is impossible, or a name or an option of the mixer is unknown.
    """

    def __init__(
        self,
        vocab_size,
        unit=512,
        num_blocks=6,
        linear_units=0,
        mixer="mamba1",
        d_state=None,
        d_conv=4,
        expand=2,
        mixer_conf=None,
        norm="rms_norm",
        tie_weights=True,
        dropout_rate=0.1,
        mixer_dropout_rate=0.0,
    ):
        super().__init__()
        check_sizes("MambaLM", unit=unit, num_blocks=num_blocks)
        check_counts(linear_units=linear_units)
        check_rates("MambaLM", dropout_rate=dropout_rate, mixer_dropout_rate=mixer_dropout_rate)
        check_flags(tie_weights=tie_weights)
        self.embed = Embedding(vocab_size, unit)
        self.dropout = Dropout(dropout_rate)
        self.blocks = nn.ModuleList(
            LMBlock(
                unit,
                make_mixer(
                    mixer,
                    "uni",
                    unit,
                    d_state=d_state,
                    d_conv=d_conv,
                    expand=expand,
                    dropout_rate=mixer_dropout_rate,
                    **mixer_options(mixer_conf),
                ),
                linear_units,
                norm,
                dropout_rate,
            )
            for _ in range(num_blocks)
        )
        self.after_norm = make_norm(norm, unit)
        self.output_layer = None if tie_weights else Linear(unit, vocab_size, bias=False)
        self._reset_residual()

    @torch.no_grad()
    def _reset_residual(self):
        """Scale what enters the residual stream by 1 / sqrt(its branches), as mamba_ssm does."""
        branches = sum(1 + (block.feed_forward is not None) for block in self.blocks)
        for block in self.blocks:
            block.mixer.out_proj.weight.mul_(branches**-0.5)
            if block.feed_forward is not None:
                block.feed_forward[-1].weight.mul_(branches**-0.5)

    def espnet_initialization_fn(self):
        """Scale the new values of ESPnet's ``init`` as the first ones."""
        self._reset_residual()

    def _logits(self, x):
        x = self.after_norm(x)
        return linear(x, self.embed.weight) if self.output_layer is None else self.output_layer(x)

    def zero_state(self, batch=1):
        """The state before the first token: for each block its mixer's state."""
        weight = self.embed.weight
        return tuple(
            block.mixer.initial_state(batch, weight.device, weight.dtype) for block in self.blocks
        )

    def forward(self, input, hidden=None):
        """Score whole sequences, or the next pieces of them.

        Args:
            input: tokens, <sos/eos> first (batch, time); padded on the right with anything.
            hidden: None for whole sequences; for pieces :meth:`zero_state` or what the call for
                the piece before returned, which is not changed. Pieces of any size give what the
                whole gives.

        Returns:
            logits (batch, time, vocab_size), and None or the next state.
        """
        x = self.dropout(self.embed(input))
        if hidden is None:
            for block in self.blocks:
                x = block(x)
            return self._logits(x), None
        states = []
        for block, state in zip(self.blocks, hidden, strict=True):
            x, state = block.forward_chunk(x, state)
            states.append(state)
        return self._logits(x), tuple(states)

    @torch.no_grad()
    def init_state(self, x=None):
        """The state of a hypothesis before its first token; the speech x is not looked at."""
        return Origin(self.zero_state()).first()

    def _step(self, tokens, batch):
        x = self.embed(tokens)
        for block, state in zip(self.blocks, batch.states(), strict=True):
            x = block.step(x, state)
        return self._logits(x)
