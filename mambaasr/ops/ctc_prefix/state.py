"""What CTC prefix scoring works on: prepared frames and the forward variables of prefixes.

Symbols: u utterances, k hypotheses of each, v tokens, t a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.dispatch import check_lengths, check_tensor
from mambaasr.ops.lengths import keep, valid_mask
from mambaasr.ops.precision import wide

LOG_ZERO = -1e10  # the logarithm of nothing; finite, so that no difference of two is NaN
TILE = 16  # frames; the time of all tensors is a multiple, so that kernels have no loose ends


@dataclass(slots=True)
class Frames:
    """What CTC says of utterances; made by :func:`prepare`.

    Attributes:
        log_probs: (u, v, time) float32 (or float64), less each frame's largest, so that it is
            near 0 on likely paths; zeros at padding. Time is a multiple of :data:`TILE`.
        base: (u, time) float64, the cumulated sum of what was taken off.
        lengths: (u) int64, valid frames.
        blank_id: the token that stands for no label.
        peaks: (u, v, time / TILE) float32, the largest probability of each tile, or None where
            nobody has asked for it yet.
    """

    log_probs: Tensor
    base: Tensor
    lengths: Tensor
    blank_id: int
    peaks: Tensor | None = None

    def select(self, utterances: Tensor) -> "Frames":
        """Return the utterances of an index (u'), cut to the longest of them."""
        lengths = self.lengths[utterances]
        time = _whole_tiles(int(lengths.max()) if len(lengths) else 0)
        return Frames(
            self.log_probs[..., :time][utterances].contiguous(),
            self.base[:, :time][utterances].contiguous(),
            lengths,
            self.blank_id,
            None
            if self.peaks is None
            else self.peaks[..., : time // TILE][utterances].contiguous(),
        )

    def find_peaks(self) -> Tensor:
        """Return peaks, computed once."""
        if self.peaks is None:
            self.peaks = self.log_probs.unflatten(2, (-1, TILE)).amax(3).exp_()
        return self.peaks

    @staticmethod
    def join(frames: Sequence["Frames"]) -> "Frames":
        """Put the utterances of several side by side; their tokens must be the same."""
        kinds = {(x.log_probs.shape[1], x.blank_id) for x in frames}
        if len(kinds) != 1:
            raise ValueError(f"Frames.join: (tokens, blank_id) differ: {sorted(kinds)}")
        time = max(x.log_probs.shape[2] for x in frames)
        peaks = None
        if any(x.peaks is not None for x in frames):
            peaks = torch.cat([_pad(x.find_peaks(), time // TILE, 0.0) for x in frames])
        return Frames(
            torch.cat([_pad(x.log_probs, time, 0.0) for x in frames]),
            torch.cat([_pad(x.base, time, 0.0) for x in frames]),
            torch.cat([x.lengths for x in frames]),
            frames[0].blank_id,
            peaks,
        )


@dataclass(slots=True)
class Prefixes:
    """The forward variables of u * k prefixes; made by :func:`start` and ``advance``.

    A prefix without a path is dead: its forward variables are all :data:`LOG_ZERO`.

    Attributes:
        forward: (u, k, 2, time), the log-probabilities of the paths over the frames 0..t that give
            the prefix and end in a label (0) or in blank (1), less base[t] and shift; LOG_ZERO at
            padding.
        shift: (u, k) float64, taken off so that forward is near 0 where the prefix ends most
            probably: rounding then does not grow with the length.
        last: (u, k) int64, the last label, -1 for the empty prefix.
    """

    forward: Tensor
    shift: Tensor
    last: Tensor

    def reorder(self, index: Tensor | None = None, utterances: Tensor | None = None) -> "Prefixes":
        """Return the utterances (u') of an index, and of them the hypotheses index (u', k')."""
        rows = [self.forward, self.shift, self.last]
        if utterances is not None:
            rows = [x[utterances] for x in rows]
        if index is not None:
            of = torch.arange(len(index), device=index.device)[:, None]
            rows = [x[of, index] for x in rows]
        return Prefixes(*rows)

    @staticmethod
    def join(prefixes: Sequence["Prefixes"]) -> "Prefixes":
        """Put the utterances of several side by side; where there are fewer, dead ones follow."""
        time = max(x.forward.shape[3] for x in prefixes)
        k = max(x.forward.shape[1] for x in prefixes)

        def more(x, value):
            return F.pad(x, (0, 0) * (x.dim() - 2) + (0, k - x.shape[1]), value=value)

        return Prefixes(
            torch.cat([more(_pad(x.forward, time, LOG_ZERO), LOG_ZERO) for x in prefixes]),
            torch.cat([more(x.shift, 0.0) for x in prefixes]),
            torch.cat([more(x.last, 0) for x in prefixes]),
        )


def _whole_tiles(time):
    return -(-time // TILE) * TILE


def _pad(x, time, value):
    return F.pad(x, (0, time - x.shape[-1]), value=value)


def check_range(op: str, name: str, index: Tensor, low: int, high: int) -> None:
    """Raise a ValueError naming the argument unless it lies within low..high - 1."""
    if index.numel():
        least, most = (int(x) for x in index.aminmax())
        if least < low or most >= high:
            raise ValueError(
                f"ctc_prefix.{op}: {name} reaches from {least} to {most}, "
                f"expected {low} to {high - 1}"
            )


def check_candidates(frames: Frames, candidates: Tensor) -> None:
    """Raise a ValueError unless these are tokens of the frames."""
    check_range("scores", "candidates", candidates, 0, frames.log_probs.shape[1])


def check_steps(frames: Frames, prefixes: Prefixes, parents: Tensor, tokens: Tensor) -> None:
    """Raise a ValueError unless there are such parents and tokens."""
    check_range("advance", "parents", parents, 0, prefixes.last.shape[1])
    check_range("advance", "tokens", tokens, -1, frames.log_probs.shape[1])


def prepare(log_probs: Tensor, lengths: Tensor | None = None, blank_id: int = 0) -> Frames:
    """Prepare CTC's log-probabilities for prefix scoring, once for each utterance.

    Args:
        log_probs: (u, time, v); kept in float32, float64 stays.
        lengths: (u) valid frames; None: all.
        blank_id: the token that stands for no label.

    Raises:
        ValueError: an argument's shape or value does not fit; the message names it.
    """
    op = "ctc_prefix.prepare"
    check_tensor(op, "log_probs", log_probs, (None, None, None), log_probs.device)
    batch, time, tokens = log_probs.shape
    if not 0 <= blank_id < tokens:
        raise ValueError(f"{op}: blank_id is {blank_id}, log_probs has {tokens} tokens")
    lengths = check_lengths(op, lengths, batch, time, log_probs.device)
    if lengths is None:
        lengths = torch.full((batch,), time, device=log_probs.device)
    x = keep(wide(log_probs.detach()), valid_mask(lengths, time)).clamp(min=LOG_ZERO)
    peak = x.amax(2)
    peak = peak.masked_fill(peak.isinf(), float("nan"))  # such an utterance has no scores
    whole = _whole_tiles(time)
    values = x.new_zeros(batch, tokens, whole)
    values[..., :time] = (x - peak[..., None]).clamp_(min=LOG_ZERO).transpose(1, 2)
    return Frames(values, _pad(peak.double(), whole, 0.0).cumsum(1), lengths, blank_id)


def start(frames: Frames) -> Prefixes:
    """Return the empty prefix of each utterance: k is 1."""
    blanks = frames.log_probs[:, frames.blank_id].double().cumsum(1).clamp(min=LOG_ZERO)
    blanks = keep(blanks, valid_mask(frames.lengths, blanks.shape[1]), LOG_ZERO)
    blanks = blanks.to(frames.log_probs.dtype)
    forward = torch.stack([torch.full_like(blanks, LOG_ZERO), blanks], dim=1).unsqueeze(1)
    last = torch.full((len(blanks), 1), -1, device=blanks.device)
    return Prefixes(forward, torch.zeros_like(last, dtype=torch.float64), last)
