"""What our decoders share: embedding, output layer, and recurrent states in ESPnet's search."""

import torch
from torch import nn

from mambaasr.checks import check_choice, check_rates
from mambaasr.espnet_compat import AbsDecoder, BatchScorerInterface
from mambaasr.layers.beam import Origin, Row, StepScorer
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.mixer_conf import make_mixer, mixer_options
from mambaasr.layers.positions import sinusoidal
from mambaasr.ops.lengths import zero_padding

POSITIONS = ("none", "sinusoidal")
# Frames of speech that go through a mixer at once where only its last state is wanted.
PIECE = 4096


def mixer_maker(mixer, width, conf, **options):
    """Return a function that makes a causal mixer.

    Args:
        mixer: "mamba1" or "mamba2".
        width: of input and output.
        conf: the yaml's ``mixer_conf``.
        **options: of :func:`mambaasr.layers.mixer_conf.make_mixer`.

    Raises:
        ValueError: see :func:`mambaasr.layers.mixer_conf.mixer_options`.
    """
    conf = mixer_options(conf)
    return lambda: make_mixer(mixer, "uni", width, **options, **conf)


class RecurrentDecoder(StepScorer, AbsDecoder, BatchScorerInterface):
    """Embedding, blocks that a subclass runs, LayerNorm, output layer.

    One step costs the same at any length of the prefix. A subclass gives three methods:

    - ``_run(x, lengths, speech, speech_lengths)``: whole texts x (batch, text, width) through all
      blocks; speech (batch, time, encoder_output_size) is zero beyond its lengths.
    - ``_start(speech)``: speech (1, time, encoder_output_size), which may have no frame, -> the
      state of every mixer before the first token, as a list of tuples of tensors (1, ...), all
      mixers alike; and a list of tensors (1, ..., time, channel) that do not change while the text
      grows.
    - ``_advance(x, states, memory, mask)``: one token of each hypothesis x (hypothesis, width);
      states as ``_start`` gave them, with a row for each hypothesis, updated in place; memory and
      mask as in :class:`mambaasr.layers.beam.Batch`.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        width: of the blocks.
        blocks: an iterable of modules, made after the embedding.
        positions: added to the embeddings: "none" or "sinusoidal" (computed for any length).
        dropout_rate: on the embedding, and whatever a subclass does with ``self.dropout``.

    Raises:
        ValueError: positions are unknown or do not fit the width; the rate is impossible.
    """

    def __init__(self, vocab_size, width, blocks, positions="none", dropout_rate=0.1):
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

    def _embed(self, tokens, offset=0):
        """tokens (batch, text), the first at position ``offset`` -> (batch, text, width)."""
        x = self.embed(tokens)
        if self.positions == "sinusoidal":
            x = x + sinusoidal(*x.shape[1:], offset, x.device, x.dtype)
        return x

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
        x = self.dropout(self._embed(ys_in_pad))
        x = self._run(x, ys_in_lens, zero_padding(hs_pad, hlens), hlens)
        logits = self.output_layer(self.after_norm(x))
        return zero_padding(logits, ys_in_lens), ys_in_lens

    @torch.no_grad()
    def init_state(self, x):
        """The state before the first token of an utterance x (time, encoder_output_size)."""
        return Origin(*self._start(x.unsqueeze(0)), frames=len(x)).first()

    @torch.no_grad()
    def batch_init_state(
        self, x: torch.Tensor, xs_lengths: torch.Tensor | None = None
    ) -> Row | list[Row]:
        """The states before the first token of a batch of utterances, as ESPnet's search asks.

        Args:
            x: speech (utterance, time, width), or that of one utterance (time, width).
            xs_lengths: (utterance) valid frames; None if all are.

        Returns:
            a :class:`mambaasr.layers.beam.Row`, or a list with one for each utterance; the search
            gives the list to :meth:`batch_score` for each hypothesis.
        """
        if x.dim() == 2:
            return self.init_state(x)
        lengths = [x.shape[1]] * len(x) if xs_lengths is None else xs_lengths.tolist()
        return [self.init_state(each[:length]) for each, length in zip(x, lengths, strict=True)]

    @staticmethod
    def _absorb(mixer, x):
        """The state of a causal mixer after x (1, time, width), which may have no frame."""
        state = mixer.initial_state(1, x.device, x.dtype)
        for piece in x.split(PIECE, dim=1) if x.shape[1] else ():
            _, state = mixer.forward_chunk(piece, state)
        return state

    def _step(self, tokens, batch):
        """tokens (hypothesis) -> logits (hypothesis, vocab_size); updates the batch's states."""
        x = self._embed(tokens.unsqueeze(1), batch.length).squeeze(1)
        x = self._advance(x, batch.states(), batch.memory, batch.mask)
        return self.output_layer(self.after_norm(x))
