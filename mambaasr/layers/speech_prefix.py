"""A mixer over [speech; text] that may look both ways within the speech."""

import functools
import operator

import torch
from torch import Tensor, nn

from mambaasr.layers.join import reverse_speech, text_of
from mambaasr.layers.mixer import Mixer, State
from mambaasr.ops.lengths import reverse

# order of the speech -> suffix of a direction's parameters, and whether the speech is reversed
ORDERS = {
    "forward": (("", False),),
    "reversed": (("", True),),
    "both": (("", False), ("_b", True)),
}


class PrefixMixer(nn.Module):
    """Runs over speech and on over text, on the speech in one order or in both.

    Reversal concerns the speech alone: the text follows it in either order and stays causal, so
    that a state is enough to resume from (speech prefixing, arXiv 2411.06968, section 3).

    Args:
        mixer: a causal mixer. With "both" it gets parameters of a second direction, named as in
            :class:`mambaasr.layers.bidirectional.InnerBiMamba`.
        order: of the speech: "forward", "reversed", or "both" between shared projections, their
            outputs summed.
    """

    def __init__(self, mixer: Mixer, order: str = "forward") -> None:
        super().__init__()
        self.mixer = mixer
        self.passes = ORDERS[order]
        for suffix, _ in self.passes:
            if suffix:
                mixer.add_direction(suffix)

    def espnet_initialization_fn(self) -> None:
        """Restore what ESPnet's ``init`` would destroy; the mixer itself sees to its first."""
        for suffix, _ in self.passes:
            if suffix:
                self.mixer.reset_direction(suffix)

    def forward(
        self, joint: Tensor, lengths: Tensor, speech_lengths: Tensor, tokens: int | None = None
    ) -> Tensor:
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
        parts, outputs = self.mixer.project_in(joint), []
        for suffix, reversed_ in self.passes:
            seen = parts
            if reversed_:
                seen = tuple(reverse_speech(part, speech_lengths) for part in parts)
            y, _ = self.mixer.mix(seen, suffix, lengths)
            outputs.append(reverse_speech(y, speech_lengths) if reversed_ else y)
        y = _sum(outputs)
        if tokens is not None:
            lengths = lengths - speech_lengths
            y = text_of(y, speech_lengths, lengths, tokens)
            parts = tuple(text_of(part, speech_lengths, lengths, tokens) for part in parts)
        return self.mixer.project_out(y, parts, lengths)

    @torch.no_grad()
    def start(self, speech: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Mix speech; return the same shape, and the state at the end of each utterance.

        Args:
            speech: (utterance, time, width), which may have no frame.
            lengths: (utterance) valid frames; None if all are.

        Returns:
            (utterance, time, width), zero beyond the lengths; and the state, a tuple of tensors
            (utterance, ...): each pass's, one after the other.
        """
        parts, outputs = self.mixer.project_in(speech), []
        states: list[Tensor] = []
        for suffix, reversed_ in self.passes:
            state = self.mixer.initial_state(len(speech), speech.device, speech.dtype)
            if speech.shape[1]:
                seen = parts
                if reversed_:
                    seen = tuple(reverse(part, lengths) for part in parts)
                y, state = self.mixer.mix(seen, suffix, lengths, state=state)
                outputs.append(reverse(y, lengths) if reversed_ else y)
            states.extend(state)
        if not outputs:
            return speech, tuple(states)
        return self.mixer.project_out(_sum(outputs), parts, lengths), tuple(states)

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> Tensor:
        """Mix one token of text: x (hypothesis, width); the state is updated in place."""
        parts, size = self.mixer.project_in(x), len(state) // len(self.passes)
        outputs = [
            self.mixer.mix_step(parts, state[index * size : (index + 1) * size], suffix)
            for index, (suffix, _) in enumerate(self.passes)
        ]
        return self.mixer.project_out(_sum(outputs), parts)


def _sum(outputs: list[Tensor]) -> Tensor:
    return functools.reduce(operator.add, outputs)
