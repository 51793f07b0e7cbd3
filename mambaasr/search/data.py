"""What searches take and what they find."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.lengths import valid_mask

# Why an utterance has no hypotheses although it could be searched.
NOT_NUMBERS = "the scores are not numbers: broken weights"


@dataclass(slots=True)
class Encoded:
    """Utterances behind the encoder.

    Attributes:
        keys: a name of each.
        frames: (u, time, width).
        lengths: (u) valid frames.
        log_probs: of CTC (u, time, v); None where nothing asks for them.
    """

    keys: Sequence[object]
    frames: Tensor
    lengths: Tensor
    log_probs: Tensor | None = None

    def select(self, index: Sequence[int]) -> Self:
        """Return some of the utterances, no longer than the longest of them."""
        where = torch.tensor(index, dtype=torch.long, device=self.frames.device)
        lengths = self.lengths.to(where.device)[where]
        time = int(lengths.max()) if index else 0
        return replace(
            self,
            keys=[self.keys[each] for each in index],
            frames=self.frames[where, :time],
            lengths=lengths,
            log_probs=None if self.log_probs is None else self.log_probs[where, :time],
        )

    def log_probs_of(self, place: int) -> Tensor | None:
        """Return the log-probabilities (frames, v) of an utterance, without padding, or None."""
        if self.log_probs is None:
            return None
        # A copy: a view would hold those of the whole batch.
        return self.log_probs[place, : int(self.lengths[place])].clone()

    @staticmethod
    def join(several: Sequence["Encoded"]) -> "Encoded":
        """Put the utterances of several side by side."""
        time = max(each.frames.shape[1] for each in several)

        def padded(x: Tensor) -> Tensor:
            return F.pad(x, (0, 0, 0, time - x.shape[1]))

        log_probs = [each.log_probs for each in several if each.log_probs is not None]
        return Encoded(
            [key for each in several for key in each.keys],
            torch.cat([padded(each.frames) for each in several]),
            torch.cat([each.lengths for each in several]),
            torch.cat([padded(each) for each in log_probs]) if log_probs else None,
        )

    def unusable(self) -> dict[int, str]:
        """Return the utterances that cannot be searched, by their place, and why."""
        valid = valid_mask(self.lengths.to(self.frames.device), self.frames.shape[1])
        finite = torch.isfinite(self.frames).all(-1)
        if self.log_probs is not None:
            finite &= ~self.log_probs.isnan().any(-1)
        bad = (valid & ~finite).any(-1)
        found = {}
        for place, (length, broken) in enumerate(
            zip(self.lengths.tolist(), bad.tolist(), strict=True)
        ):
            if not length:
                found[place] = "the encoder gives no frame: too short"
            elif broken:
                found[place] = "the encoder's output is not finite: broken audio or weights"
        return found


@dataclass(slots=True)
class Hypothesis:
    """A text that a search has found.

    Attributes:
        tokens: without <sos/eos>, and without what the search was made to begin with.
        score: the weighted sum of the parts, which decides the order.
        parts: the sum of each scorer's log-probabilities, the end's included; ``length_bonus`` is
            the number of tokens that were scored.
    """

    tokens: list[int]
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """An utterance's hypotheses, best first, or the reason why there is none."""

    key: object
    hypotheses: list[Hypothesis]
    reason: str | None = None


def of_usable(encoded: Encoded, search: Callable[[Encoded], list[Found]]) -> list[Found]:
    """Search the utterances that can be searched; return all in their order, others by reason."""
    bad = encoded.unusable()
    good = [place for place in range(len(encoded.keys)) if place not in bad]
    found = iter(search(encoded.select(good) if bad else encoded) if good else [])
    return [
        Found(key, [], bad[place]) if place in bad else next(found)
        for place, key in enumerate(encoded.keys)
    ]


def ctc_log_probs(encoded: Encoded) -> Tensor:
    """Return the log-probabilities of CTC.

    Raises:
        ValueError: the model has no CTC.
    """
    if encoded.log_probs is None:
        raise ValueError("this search needs CTC, and the model has none (ctc_weight 0)")
    return encoded.log_probs


def prompt_tensor(prompts: Sequence[Sequence[int]], encoded: Encoded) -> Tensor:
    """Return the tokens that the texts of utterances begin with (u, p); p is 0 without any.

    Args:
        prompts: one for each utterance, or nothing.
        encoded: the utterances.

    Raises:
        ValueError: the prompts differ in length, or are not as many.
    """
    first = list(prompts) or [()] * len(encoded.keys)
    if len(first) != len(encoded.keys) or len({len(prompt) for prompt in first}) > 1:
        raise ValueError("prompts of one batch must be equally long, one for each utterance")
    shape = len(first), len(first[0]) if first else 0
    device = encoded.frames.device
    return torch.tensor([list(each) for each in first], device=device).long().view(shape)
