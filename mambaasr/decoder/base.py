"""What our decoders share: embedding, output layer, hypothesis states."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_rates
from mambaasr.espnet_compat import AbsDecoder, BatchScorerInterface
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.espnet_scorer import ESPnetScorer
from mambaasr.layers.mixer import State
from mambaasr.layers.output import OutputLayer, SoftmaxOutput
from mambaasr.layers.positions import sinusoidal
from mambaasr.layers.stateful import RecurrentState
from mambaasr.ops.lengths import valid_mask, zero_padding

POSITIONS = ("none", "sinusoidal")


class RecurrentDecoder(ESPnetScorer, AbsDecoder, BatchScorerInterface):
    """Embedding, blocks that a subclass runs, LayerNorm, output layer.

    A :class:`mambaasr.layers.stateful.StatefulScorer`, whose step costs the same at any length of
    the text; and a scorer of ESPnet's searches. A subclass gives :meth:`run_blocks`,
    :meth:`start_blocks` and :meth:`step_blocks`.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        width: of the blocks.
        blocks: modules, made after the embedding.
        positions: added to the embeddings: "none" or "sinusoidal" (computed for any length).
        dropout_rate: on the embedding, and whatever a subclass does with ``self.dropout``.

    Attributes:
        output_layer: a linear layer; another :class:`mambaasr.layers.output.OutputLayer` that is
            a module may take its place.

    Raises:
        ValueError: positions are unknown or do not fit the width; the rate is impossible.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        blocks: Iterable[nn.Module],
        positions: str = "none",
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_choice("positions", positions, POSITIONS)
        check_rates(type(self).__name__, dropout_rate=dropout_rate)
        if positions == "sinusoidal" and width % 2:
            raise ValueError(f"positions is 'sinusoidal', which needs an even width, not {width}")
        self.positions = positions
        self.embed = nn.Embedding(vocab_size, width)
        self.dropout = Dropout(dropout_rate)
        self.blocks = nn.ModuleList(blocks)
        self.after_norm = nn.LayerNorm(width)
        self.output_layer = nn.Linear(width, vocab_size)

    @property
    def output(self) -> OutputLayer:
        """The output layer: a softmax over what the linear layer gives, or another in its place."""
        layer: nn.Module = self.output_layer
        return layer if isinstance(layer, OutputLayer) else SoftmaxOutput(layer)

    def run_blocks(
        self, x: Tensor, lengths: Tensor, speech: Tensor, speech_lengths: Tensor
    ) -> Tensor:
        """Run whole texts through all blocks.

        Args:
            x: embedded tokens (batch, text, width).
            lengths: (batch) valid tokens.
            speech: (batch, time, encoder_output_size), zero beyond its lengths.
            speech_lengths: (batch) valid frames.

        Returns:
            (batch, text, width); what lies beyond the lengths is not looked at.
        """
        raise NotImplementedError

    def start_blocks(self, speech: Tensor, lengths: Tensor) -> tuple[list[State], list[Tensor]]:
        """Let all blocks hear the speech.

        Args:
            speech: (utterance, time, encoder_output_size), zero beyond the lengths, of which the
                longest is ``time``; it may be 0.
            lengths: (utterance) valid frames.

        Returns:
            the state of every mixer before the first token, tensors (utterance, ...), all mixers
            alike; and keys and values (utterance, heads, time, width / heads), where speech
            without a frame has one of zeros.
        """
        raise NotImplementedError

    def step_blocks(
        self, x: Tensor, states: list[State], memory: Sequence[Tensor], mask: Tensor | None
    ) -> Tensor:
        """Run one token of each hypothesis through all blocks.

        Args:
            x: embedded tokens (hypothesis, width), utterance by utterance, of each as many.
            states: as :meth:`start_blocks` gave them, a row for each hypothesis; updated in place.
            memory: as :meth:`start_blocks` gave it.
            mask: (utterance, time), true at frames to attend to; None if all are.

        Returns:
            (hypothesis, width).
        """
        raise NotImplementedError

    def _embed(self, tokens: Tensor, offset: int | Tensor = 0, time: int | None = None) -> Tensor:
        """Embed tokens (batch, any); the position of the first, and how many there are."""
        x = self.embed(tokens)
        if self.positions == "sinusoidal":
            time = x.shape[1] if time is None else time
            x = x + sinusoidal(time, x.shape[-1], offset, x.device, x.dtype)
        return x

    def hidden(
        self, hs_pad: Tensor, hlens: Tensor, ys_in_pad: Tensor, ys_in_lens: Tensor
    ) -> Tensor:
        """Return what the output layer reads, for a loss that needs no logits of all tokens.

        Args:
            hs_pad, hlens, ys_in_pad, ys_in_lens: as in :meth:`forward`.

        Returns:
            (batch, text, width); what lies beyond the lengths is not to be looked at.
        """
        hlens, ys_in_lens = hlens.to(hs_pad.device), ys_in_lens.to(hs_pad.device)
        x = self.dropout(self._embed(ys_in_pad))
        return self.after_norm(self.run_blocks(x, ys_in_lens, zero_padding(hs_pad, hlens), hlens))

    def forward(
        self, hs_pad: Tensor, hlens: Tensor, ys_in_pad: Tensor, ys_in_lens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score whole texts.

        Args:
            hs_pad: speech (batch, time, encoder_output_size).
            hlens: (batch) valid frames.
            ys_in_pad: tokens, <sos/eos> first (batch, text).
            ys_in_lens: (batch) valid tokens.

        Returns:
            logits (batch, text, vocab_size), zero beyond the lengths, and the lengths (batch).
        """
        logits = self.output.logits(self.hidden(hs_pad, hlens, ys_in_pad, ys_in_lens))
        ys_in_lens = ys_in_lens.to(hs_pad.device)
        return zero_padding(logits, ys_in_lens), ys_in_lens

    @torch.no_grad()
    def start(self, speech: Tensor, lengths: Tensor | None = None) -> RecurrentState:
        """Return the state before the first token, one hypothesis an utterance.

        Args:
            speech: (u, time, encoder_output_size).
            lengths: (u) valid frames, none allowed; None if all are.
        """
        if lengths is None:
            lengths = torch.full((len(speech),), speech.shape[1])
        shortest, longest = int(lengths.min()), int(lengths.max())
        lengths = lengths.to(speech.device)
        speech = zero_padding(speech[:, :longest], lengths)
        states, memory = self.start_blocks(speech, lengths)
        mask = None
        if memory and shortest < longest:
            mask = valid_mask(lengths.clamp(min=1), longest)
        return RecurrentState.of_mixers(states, memory, mask)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Read one token of each hypothesis.

        Args:
            tokens: (u, k).
            state: updated in place and returned; :meth:`reorder` makes copies.

        Returns:
            logits of the next token (u, k, vocab_size), and the state.
        """
        # All hypotheses of an utterance are at one position.
        x = self._embed(tokens, state.position, time=1).flatten(0, 1)
        x = self.step_blocks(x, state.of_each_mixer(), state.memory, state.mask)
        state.position = state.position + 1
        return self.output.logits(self.after_norm(x)).unflatten(0, tokens.shape), state
