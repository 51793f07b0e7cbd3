"""A language model of Mamba blocks."""

from typing import NamedTuple

import torch
from torch import nn

from mambaasr.espnet_compat import AbsLM
from mambaasr.layers.block import FeedForward
from mambaasr.layers.checks import check_positive
from mambaasr.layers.dropout import Dropout
from mambaasr.layers.linear import Linear, linear
from mambaasr.layers.mixer import make_mixer
from mambaasr.layers.norm import make_norm


class Embedding(nn.Embedding):
    """Small initial values: the same matrix may give the logits."""

    def reset_parameters(self):
        """Draw the values; ESPnet's ``init`` calls this too."""
        nn.init.normal_(self.weight, std=0.02)


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


class Batch:
    """The state of hypotheses that were scored together.

    Attributes:
        mixers: for each block its mixer's state, tensors whose first dimension are hypotheses;
            None after they were let go.
        before: the batches that it was computed from.
    """

    def __init__(self, mixers, before=()):
        self.mixers, self.before = mixers, before
        # A search keeps the states of hypotheses that have ended. Two batches back nobody asks
        # for them any more (and if so, they are computed again), so memory does not grow.
        for batch in before:
            for old in batch.before:
                old.mixers = None
            batch.before = ()


class LMState(NamedTuple):
    """What the next token of one hypothesis needs, of fixed size: a row of a batch."""

    batch: Batch
    row: int


class MambaLM(AbsLM):
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
        mixer, d_state, d_conv, expand: see :func:`mambaasr.layers.mixer.make_mixer`.
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
        check_positive("MambaLM", unit=unit, num_blocks=num_blocks)
        if linear_units < 0:
            raise ValueError(f"MambaLM: linear_units is {linear_units}; it must not be negative")
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
                    **(mixer_conf or {}),
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

    def init_state(self, x=None):
        """The state of a hypothesis before its first token; the speech x is not looked at."""
        return LMState(Batch(self.zero_state()), 0)

    @torch.no_grad()
    def batch_score(self, ys, states, xs=None):
        """Score the next token of hypotheses; ESPnet's ``BatchScorerInterface``.

        Args:
            ys: prefixes (hypothesis, length); as a rule only the last token is read.
            states: a :class:`LMState` each, as :meth:`init_state` or the last call gave it; not
                changed, so that hypotheses may share one.
            xs: not used.

        Returns:
            log-probabilities (hypothesis, vocab_size), and the list of next states.
        """
        states = [self.init_state() if state is None else state for state in states]
        if any(state.batch.mixers is None for state in states):
            _, mixers = self(ys[:, :-1], self.zero_state(len(ys)))
        else:
            mixers = _gather(states)
        x = self.embed(ys[:, -1])
        for block, state in zip(self.blocks, mixers, strict=True):
            x = block.step(x, state)
        scores = torch.log_softmax(self._logits(x).float(), dim=-1)
        batch = Batch(mixers, tuple({id(state.batch): state.batch for state in states}.values()))
        return scores, [LMState(batch, row) for row in range(len(ys))]

    def score(self, y, state, x=None):
        """Score the next token of one hypothesis y (length)."""
        scores, states = self.batch_score(y.unsqueeze(0), [state])
        return scores[0], states[0]


def _gather(states):
    """Copy the states of hypotheses, in their order, out of the batches that they stand in."""
    first = states[0].batch
    if all(state.batch is first for state in states):
        rows = torch.tensor([state.row for state in states], device=first.mixers[0][0].device)
        return tuple(tuple(part.index_select(0, rows) for part in each) for each in first.mixers)
    several = [[part[row] for mixer in batch.mixers for part in mixer] for batch, row in states]
    parts = iter([torch.stack(each) for each in zip(*several, strict=True)])
    return tuple(tuple(next(parts) for _ in mixer) for mixer in first.mixers)
