"""A language model of Mamba blocks."""

from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import check_counts, check_flags, check_rates, check_sizes
from mambaasr.configurable import configurable
from mambaasr.espnet_compat import AbsLM
from mambaasr.layers.adapter import AdapterPlaces
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cpu import Dropout, call, linear
from mambaasr.layers.espnet_scorer import ESPnetScorer
from mambaasr.layers.mixer import Mixer, State
from mambaasr.layers.mixer_conf import CausalMixerConf
from mambaasr.layers.norm import NORMS, make_norm
from mambaasr.layers.output import OutputLayer, SoftmaxOutput
from mambaasr.layers.stateful import RecurrentState


class Embedding(nn.Embedding):
    """Vectors of tokens; small initial values, as their matrix may give the logits too."""

    def reset_parameters(self) -> None:
        """Draw the values; ESPnet's ``init`` calls this too."""
        nn.init.normal_(self.weight, std=0.02)

    espnet_initialization_fn = reset_parameters


class LMBlock(AdapterPlaces):
    """x += Mixer(norm x); x += FFN(norm x), the second only with ``hidden > 0``.

    Behind each branch there is a place for an adapter (:mod:`mambaasr.layers.adapter`): ``mixer``,
    ``feed_forward``.
    """

    def __init__(
        self, width: int, mixer: Mixer, hidden: int, norm: str, dropout_rate: float
    ) -> None:
        super().__init__()
        self.norm_mixer = make_norm(norm, width)
        self.mixer = mixer
        self.adapter_mixer = nn.Identity()
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate)
            self.adapter_feed_forward = nn.Identity()
        self.dropout = Dropout(dropout_rate)

    def _after(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.dropout(self.adapter_mixer(mixed))
        if self.feed_forward is not None:
            x = x + self.dropout(self.adapter_feed_forward(self.feed_forward(self.norm_ff(x))))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, time, width) -> the same."""
        return self._after(x, self.mixer(self.norm_mixer(x)))

    def forward_chunk(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the next piece x (batch, time, width); return the same, and the next state."""
        mixed, state = self.mixer.forward_chunk(self.norm_mixer(x), state)
        return self._after(x, mixed), state

    def step(self, x: Tensor, state: State) -> Tensor:
        """Read one token of each hypothesis: x (hypothesis, width); updates the state in place."""
        return self._after(x, self.mixer.step(self.norm_mixer(x), state))


@configurable()
class MambaLM(ESPnetScorer, AbsLM):
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
        mixer_conf: see :class:`mambaasr.layers.mixer_conf.CausalMixerConf`.
        norm: "rms_norm" or "layer_norm".
        tie_weights: take the embedding's matrix for the logits, else a matrix of their own.
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.

    Attributes:
        output_layer: a linear layer; None where the embedding's matrix gives the logits. Another
            :class:`mambaasr.layers.output.OutputLayer` that is a module may take its place.

    Raises:
        ValueError: a size is impossible, or a name or an option of the mixer is unknown.
    """

    hears_speech = False

    def __init__(
        self,
        vocab_size: int,
        unit: int = 512,
        num_blocks: int = 6,
        linear_units: int = 0,
        mixer_conf: CausalMixerConf = CausalMixerConf(),
        norm: Annotated[str, NORMS] = "rms_norm",
        tie_weights: bool = True,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes("MambaLM", unit=unit, num_blocks=num_blocks)
        check_counts(linear_units=linear_units)
        check_rates("MambaLM", dropout_rate=dropout_rate)
        check_flags(tie_weights=tie_weights)
        self.embed = Embedding(vocab_size, unit)
        self.dropout = Dropout(dropout_rate)
        self.blocks = nn.ModuleList(
            LMBlock(unit, mixer_conf.make(unit), linear_units, norm, dropout_rate)
            for _ in range(num_blocks)
        )
        self.after_norm = make_norm(norm, unit)
        self.output_layer = None if tie_weights else nn.Linear(unit, vocab_size, bias=False)
        self._reset_residual()

    @torch.no_grad()
    def _reset_residual(self) -> None:
        """Scale what enters the residual stream by 1 / sqrt(its branches), as mamba_ssm does."""
        branches = sum(1 + (block.feed_forward is not None) for block in self.blocks)
        for block in self.blocks:
            block.mixer.scale_output(branches**-0.5)
            if block.feed_forward is not None:
                block.feed_forward[-1].weight.mul_(branches**-0.5)

    def espnet_initialization_fn(self) -> None:
        """Scale the new values of ESPnet's ``init`` as the first ones."""
        self._reset_residual()

    @property
    def output(self) -> OutputLayer:
        """The output layer, with the embedding's matrix or with one of its own."""
        layer = self.output_layer
        if isinstance(layer, OutputLayer):
            return layer
        if layer is None:
            return SoftmaxOutput(partial(linear, weight=self.embed.weight))
        return SoftmaxOutput(partial(call, layer))

    def _logits(self, x: Tensor) -> Tensor:
        return self.output.logits(self.after_norm(x))

    def zero_state(self, batch: int = 1) -> tuple[State, ...]:
        """Return the state before the first token: for each block its mixer's state."""
        weight = self.embed.weight
        return tuple(
            block.mixer.initial_state(batch, weight.device, weight.dtype) for block in self.blocks
        )

    def forward(
        self, input: Tensor, hidden: tuple[State, ...] | None = None
    ) -> tuple[Tensor, tuple[State, ...] | None]:
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
    def start(self, speech: Tensor | int, lengths: Tensor | None = None) -> RecurrentState:
        """Return the state before the first token, one hypothesis an utterance.

        Args:
            speech: the number of utterances u, or their speech (u, ...), which is not looked at.
            lengths: not looked at.
        """
        count = speech if isinstance(speech, int) else len(speech)
        return RecurrentState.of_mixers(self.zero_state(count))

    @torch.no_grad()
    def step(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Read one token of each hypothesis.

        Args:
            tokens: (u, k).
            state: updated in place and returned; :meth:`reorder` makes copies.

        Returns:
            logits of the next token (u, k, vocab_size), and the state.
        """
        x = self.embed(tokens.flatten())
        for block, own in zip(self.blocks, state.of_each_mixer(), strict=True):
            x = block.step(x, own)
        state.position = state.position + 1
        return self._logits(x).unflatten(0, tokens.shape), state
