"""A mixer over [speech; text] that may look both ways within the speech."""

import torch
from torch import nn

from mambaasr.layers.join import reverse_speech, text_of


class PrefixMixer(nn.Module):
    """Runs over speech and on over text, on the speech in one order or in both.

    Reversal concerns the speech alone: the text follows it in either order and stays causal, so
    that a state is enough to go on with (speech prefixing, arXiv 2411.06968, section 3).

    Args:
        mixer: a causal mixer, :class:`Mamba` or :class:`Mamba2`. With "both" it gets parameters
            of a second direction, named as in :class:`InnerBiMamba`.
        order: of the speech: "forward", "reversed", or "both" between shared projections, their
            outputs summed.
    """

    def __init__(self, mixer, order="forward"):
        super().__init__()
        self.mixer = mixer
        # Suffix of the parameters, and whether the speech is turned round.
        self.passes = {
            "forward": (("", False),),
            "reversed": (("", True),),
            "both": (("", False), ("_b", True)),
        }[order]
        for suffix, _ in self.passes:
            if suffix:
                mixer._add_direction(suffix)

    def espnet_initialization_fn(self):
        """Restore what ESPnet's ``init`` would destroy; the mixer itself sees to its first."""
        for suffix, _ in self.passes:
            if suffix:
                self.mixer._restore_direction(suffix)

    def forward(self, joint, lengths, speech_lengths, tokens=None):
        """Mix joint sequences of :func:`mambaasr.layers.join.join`.

        Args:
            joint: (batch, time, width).
            lengths: (batch) of the joint sequences.
            speech_lengths: (batch).
            tokens: None; or the longest text, if the text alone is wanted, which spares the
                speech the output projection.

        Returns:
            (batch, time, width), or (batch, tokens, width); zero beyond the lengths.
        """
        parts, total = self.mixer._enter(joint), 0
        for suffix, turned in self.passes:
            seen = [reverse_speech(part, speech_lengths) for part in parts] if turned else parts
            y, _ = self.mixer._mix(seen, suffix, lengths)
            total = total + (reverse_speech(y, speech_lengths) if turned else y)
        if tokens is not None:
            lengths = lengths - speech_lengths
            total, *parts = (
                text_of(part, speech_lengths, lengths, tokens) for part in (total, *parts)
            )
        return self.mixer._leave(total, parts, lengths)

    @torch.no_grad()
    def start(self, speech):
        """Mix speech (1, time, width); return the same shape, and the state at its end.

        The state is a tuple of tensors (1, ...): each pass's, one after the other.
        """
        parts, total, state = self.mixer._enter(speech), 0, ()
        for suffix, turned in self.passes:
            ended = self.mixer.initial_state(len(speech), speech.device, speech.dtype)
            if speech.shape[1]:
                seen = [part.flip(1) for part in parts] if turned else parts
                y, ended = self.mixer._mix(seen, suffix, state=ended)
                total = total + (y.flip(1) if turned else y)
            state += tuple(ended)
        return (self.mixer._leave(total, parts) if speech.shape[1] else speech), state

    @torch.no_grad()
    def step(self, x, state):
        """Mix one token of text: x (hypothesis, width); the state is updated in place."""
        parts, total = self.mixer._enter(x), 0
        size = len(state) // len(self.passes)
        for index, (suffix, _) in enumerate(self.passes):
            own = state[index * size : (index + 1) * size]
            total = total + self.mixer._mix_frame(parts, own, suffix)
        return self.mixer._leave(total, parts)
