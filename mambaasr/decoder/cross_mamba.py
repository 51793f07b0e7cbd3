"""A decoder without attention: Mamba over speech and text."""

from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor, nn

from mambaasr.checks import check_counts, check_sizes
from mambaasr.configurable import configurable
from mambaasr.decoder.base import POSITIONS, RecurrentDecoder
from mambaasr.layers.activation import ACTIVATIONS
from mambaasr.layers.adapter import AdapterPlaces
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.join import join
from mambaasr.layers.mixer import Mixer, State
from mambaasr.layers.mixer_conf import CausalMixerConf
from mambaasr.layers.norm import NORMS, make_norm
from mambaasr.layers.speech_prefix import PrefixMixer

# Frames of speech that go through a mixer at once where only its last state is wanted.
PIECE = 4096


class CrossMambaBlock(AdapterPlaces):
    """Mamba over the text, Mamba over speech and text, an optional feed-forward module.

        x += Mixer(norm x)
        x += the text's part of CrossMixer([speech; norm x])
        x += FFN(norm x)                          only if hidden > 0

    Behind each branch there is a place for an adapter (:mod:`mambaasr.layers.adapter`):
    ``mixer``, ``cross_mixer``, ``feed_forward``.

    Args:
        width: channels of speech and text.
        hidden: width inside the feed-forward module; 0 leaves it out.
        norm: see :func:`mambaasr.layers.norm.make_norm`.
        dropout_rate: on every residual branch and inside the feed-forward module.
        mixer: a function without arguments that makes a causal mixer.
        activation: in the feed-forward module.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        norm: str,
        dropout_rate: float,
        mixer: Callable[[], Mixer],
        activation: str = "swish",
    ) -> None:
        super().__init__()
        self.norm_mixer, self.mixer = make_norm(norm, width), mixer()
        self.adapter_mixer = nn.Identity()
        self.norm_cross, self.cross_mixer = make_norm(norm, width), PrefixMixer(mixer())
        self.adapter_cross_mixer = nn.Identity()
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate, activation)
            self.adapter_feed_forward = nn.Identity()
        self.dropout = Dropout(dropout_rate)

    def _feed(self, x: Tensor) -> Tensor:
        if self.feed_forward is None:
            return x
        return x + self.dropout(self.adapter_feed_forward(self.feed_forward(self.norm_ff(x))))

    def forward(self, x: Tensor, lengths: Tensor, speech: Tensor, speech_lengths: Tensor) -> Tensor:
        """x (batch, text, width), speech (batch, time, width) -> (batch, text, width)."""
        x = x + self.dropout(self.adapter_mixer(self.mixer(self.norm_mixer(x), lengths)))
        joint = join(speech, speech_lengths, self.norm_cross(x), lengths)
        y = self.cross_mixer(*joint, speech_lengths, tokens=x.shape[1])
        return self._feed(x + self.dropout(self.adapter_cross_mixer(y)))

    def start(self, speech: Tensor, lengths: Tensor) -> tuple[State, State]:
        """Return the states of both mixers before the first token.

        Args:
            speech: (utterance, time, width), which may have no frame.
            lengths: (utterance) valid frames.
        """
        first = (len(speech), speech.device, speech.dtype)
        mixer = self.cross_mixer.mixer
        state = mixer.initial_state(*first)
        for begin in range(0, speech.shape[1], PIECE):
            piece = speech[:, begin : begin + PIECE]
            left = (lengths - begin).clamp(0, piece.shape[1])
            _, state = mixer.mix(mixer.project_in(piece), lengths=left, state=state)
        return self.mixer.initial_state(*first), state

    def step(self, x: Tensor, state: State, cross_state: State) -> Tensor:
        """Read one token of each hypothesis: x (hypothesis, width); updates states in place."""
        x = x + self.adapter_mixer(self.mixer.step(self.norm_mixer(x), state))
        y = self.cross_mixer.step(self.norm_cross(x), cross_state)
        return self._feed(x + self.adapter_cross_mixer(y))


@configurable()
class CrossMambaDecoder(RecurrentDecoder):
    """Attention-free: the text's state has run over the speech before it meets the first token.

    The decoder of Speech Slytherin (arXiv 2407.09732): Mamba over the text, then Mamba over
    [speech; text] of which the text's frames are kept, then a feed-forward module. We take it for
    Samba-ASR's "Mamba-cross-connection" (arXiv 2501.02832) as well, which that paper names
    without an equation: that is our reading, not a published fact.

    Of the published code differ: no padding lies between speech and text (theirs has the batch's
    padded frames there, so that a score depends on the batch), and decoding keeps a state instead
    of running over speech and text anew at each token.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        encoder_output_size: width of the speech, and of the decoder.
        num_blocks: number of blocks.
        linear_units: width inside the feed-forward module; 0 leaves it out.
        mixer_conf: of both mixers, see :class:`mambaasr.layers.mixer_conf.CausalMixerConf`.
        norm: "layer_norm" or "rms_norm" in the blocks; the last norm is a LayerNorm.
        positions: added to the embeddings: "none" or "sinusoidal".
        activation_type: in the feed-forward modules, "swish", "gelu" or "relu".
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        num_blocks: int = 6,
        linear_units: int = 2048,
        mixer_conf: CausalMixerConf = CausalMixerConf(),
        norm: Annotated[str, NORMS] = "layer_norm",
        positions: Annotated[str, POSITIONS] = "none",
        activation_type: Annotated[str, ACTIVATIONS] = "swish",
        dropout_rate: float = 0.1,
    ) -> None:
        check_sizes(type(self).__name__, num_blocks=num_blocks)
        check_counts(linear_units=linear_units)
        width = encoder_output_size
        blocks = (
            CrossMambaBlock(
                width,
                linear_units,
                norm,
                dropout_rate,
                lambda: mixer_conf.make(width),
                activation_type,
            )
            for _ in range(num_blocks)
        )
        super().__init__(vocab_size, width, blocks, positions, dropout_rate)

    def run_blocks(
        self, x: Tensor, lengths: Tensor, speech: Tensor, speech_lengths: Tensor
    ) -> Tensor:
        """See :meth:`RecurrentDecoder.run_blocks`."""
        for block in self.blocks:
            x = block(x, lengths, speech, speech_lengths)
        return x

    def start_blocks(self, speech: Tensor, lengths: Tensor) -> tuple[list[State], list[Tensor]]:
        """See :meth:`RecurrentDecoder.start_blocks`."""
        return [state for block in self.blocks for state in block.start(speech, lengths)], []

    def step_blocks(
        self, x: Tensor, states: list[State], memory: Sequence[Tensor], mask: Tensor | None
    ) -> Tensor:
        """See :meth:`RecurrentDecoder.step_blocks`."""
        for index, block in enumerate(self.blocks):
            x = block.step(x, *states[2 * index : 2 * index + 2])
        return x
