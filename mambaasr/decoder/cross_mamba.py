"""A decoder without attention: Mamba over speech and text."""

from torch import nn

from mambaasr.checks import check_counts, check_sizes
from mambaasr.decoder.base import RecurrentDecoder, mixer_maker
from mambaasr.layers.block import FeedForward
from mambaasr.layers.cpu import Dropout
from mambaasr.layers.join import join
from mambaasr.layers.norm import make_norm
from mambaasr.layers.speech_prefix import PrefixMixer


class CrossMambaBlock(nn.Module):
    """Mamba over the text, Mamba over speech and text, an optional feed-forward module.

        x += Mixer(norm x)
        x += the text's part of CrossMixer([speech; norm x])
        x += FFN(norm x)                          only if hidden > 0

    Args:
        width: channels of speech and text.
        hidden: width inside the feed-forward module; 0 leaves it out.
        norm: see :func:`mambaasr.layers.norm.make_norm`.
        dropout_rate: on every residual branch and inside the feed-forward module.
        mixer: a function without arguments that makes a causal mixer.
        activation: in the feed-forward module.
    """

    def __init__(self, width, hidden, norm, dropout_rate, mixer, activation="swish"):
        super().__init__()
        self.norm_mixer, self.mixer = make_norm(norm, width), mixer()
        self.norm_cross, self.cross_mixer = make_norm(norm, width), PrefixMixer(mixer())
        self.feed_forward = None
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate, activation)
        self.dropout = Dropout(dropout_rate)

    def _finish(self, x):
        if self.feed_forward is None:
            return x
        return x + self.dropout(self.feed_forward(self.norm_ff(x)))

    def forward(self, x, lengths, speech, speech_lengths):
        """x (batch, text, width), speech (batch, time, width) -> (batch, text, width)."""
        x = x + self.dropout(self.mixer(self.norm_mixer(x), lengths))
        joint = join(speech, speech_lengths, self.norm_cross(x), lengths)
        y = self.cross_mixer(*joint, speech_lengths, tokens=x.shape[1])
        return self._finish(x + self.dropout(y))

    def step(self, x, state, cross_state):
        """One token of each hypothesis: x (hypothesis, width); states are updated in place."""
        x = x + self.mixer.step(self.norm_mixer(x), state)
        return self._finish(x + self.cross_mixer.step(self.norm_cross(x), cross_state))


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
        mixer: "mamba1" or "mamba2", of both mixers.
        d_state, d_conv, expand: of the mixers, see :func:`mambaasr.layers.mixer_conf.make_mixer`.
        mixer_conf: a mapping of further options of the mixers.
        norm: "layer_norm" or "rms_norm" in the blocks; the last norm is a LayerNorm.
        positions: added to the embeddings: "none" or "sinusoidal".
        activation_type: in the feed-forward modules, "swish", "gelu" or "relu".
        dropout_rate: on residual branches, the embedding and inside feed-forward modules.
        mixer_dropout_rate: inside the mixers, after their input and output projections.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    def __init__(
        self,
        vocab_size,
        encoder_output_size,
        num_blocks=6,
        linear_units=2048,
        mixer="mamba1",
        d_state=None,
        d_conv=4,
        expand=2,
        mixer_conf=None,
        norm="layer_norm",
        positions="none",
        activation_type="swish",
        dropout_rate=0.1,
        mixer_dropout_rate=0.0,
    ):
        check_sizes(type(self).__name__, num_blocks=num_blocks)
        check_counts(linear_units=linear_units)
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
            CrossMambaBlock(width, linear_units, norm, dropout_rate, make, activation_type)
            for _ in range(num_blocks)
        )
        super().__init__(vocab_size, width, blocks, positions, dropout_rate)

    def _run(self, x, lengths, speech, speech_lengths):
        for block in self.blocks:
            x = block(x, lengths, speech, speech_lengths)
        return x

    def _start(self, speech):
        states = []
        for block in self.blocks:
            states.append(block.mixer.initial_state(1, speech.device, speech.dtype))
            states.append(self._absorb(block.cross_mixer.mixer, speech))
        return states, []

    def _advance(self, x, states, memory, mask):
        for index, block in enumerate(self.blocks):
            x = block.step(x, *states[2 * index : 2 * index + 2])
        return x
