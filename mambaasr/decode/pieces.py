"""Cut long recordings where nothing is said, into pieces as long as a model was trained on.

A model reads well what is as long as its training's utterances. Where nothing is said, CTC tells:
it is run over windows of that length, of which the middle counts and the rest is context. Pieces
do not overlap and leave out only what is far from any token: no word comes twice, none is lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Recordings are looked at so many seconds at a time, at least.
BLOCK = 60.0


@dataclass(frozen=True)
class Cutting:
    """How a recording is cut.

    Attributes:
        longest: a piece lasts at most so long [s].
        target: neighbours become one piece up to so long [s]; None: ``longest``.
        context: what a window sees before and behind the part of it that counts [s]; at most a
            quarter of ``longest``.
        pause: the shortest time without a token that is a pause [s].
        pad: how much of a pause stays before and behind a piece [s].
        apart: what lies further apart is never one piece [s].
    """

    longest: float
    target: float | None = None
    context: float = 1.0
    pause: float = 0.3
    pad: float = 0.3
    apart: float = 1.0


class Piece(NamedTuple):
    """A piece of a recording: where it begins [s], and its samples (time,)."""

    start: float
    samples: np.ndarray


# From waveforms (time,) to each one's probability that nothing is said, (frames,).
Silence = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Cutter:
    """Cuts a recording that comes bit by bit.

    Args:
        silence: gives the probability of silence in windows of the recording.
        rate: sampling rate [Hz].
        cutting: how to cut.
    """

    def __init__(self, silence: Silence, rate: int, cutting: Cutting) -> None:
        self._silence, self._rate, self._cutting = silence, rate, cutting
        self._waiting: list[np.ndarray] = []
        # Of what waits: its length [samples], and the sample of the recording where it begins.
        self._length = self._begin = 0

    def accept(self, samples: np.ndarray) -> list[Piece]:
        """Take samples (time,) that follow; return the pieces that are settled by them.

        Into what blocks a recording is divided changes no piece.
        """
        found: list[Piece] = []
        most = round(max(BLOCK, 4 * self._cutting.longest) * self._rate)
        while len(samples):
            taken, samples = np.split(samples, [most - self._length])
            self._waiting.append(taken)
            self._length += len(taken)
            if self._length == most:
                found += self._cut(last=False)
        return found

    def finish(self) -> list[Piece]:
        """Return the pieces of what is left, at the recording's end."""
        return self._cut(last=True)

    def _cut(self, last: bool) -> list[Piece]:
        if not self._length:
            return []
        audio, rate = np.concatenate(self._waiting), self._rate
        end = len(audio) / rate
        times, silent = _windows(audio, rate, self._silence, self._cutting)
        spans = cut(np.sort(times[silent < 0.5]), end, self._cutting)
        keep = len(audio)
        if not last:
            # What comes next may belong to the last piece, and speech may begin at the very end.
            if spans and end - spans[-1][1] < self._cutting.longest:
                keep = round(spans.pop()[0] * rate)
            else:
                keep = len(audio) - round(self._cutting.longest * rate)
        found = []
        for first, to in ((round(first * rate), round(to * rate)) for first, to in spans):
            found.append(Piece((self._begin + first) / rate, audio[first:to]))
        self._waiting, self._length = [audio[keep:]], len(audio) - keep
        self._begin += keep
        return found


def _windows(
    audio: np.ndarray, rate: int, silence: Silence, cutting: Cutting
) -> tuple[np.ndarray, np.ndarray]:
    """Return times [s] in audio (time,), and the probability of silence at each."""
    total, size = len(audio), round(cutting.longest * rate)
    context = min(round(cutting.context * rate), size // 4)
    step = size - 2 * context
    # Of each window: what is seen of the audio, and what counts of it.
    windows = [
        (max(0, first - context), min(total, first + step + context), first, first + step)
        for first in range(0, max(1, total - context), step)
    ]
    # The last one is not to be shorter than the others: its model knows none that are.
    begin, _, first, _ = windows[-1]
    windows[-1] = (max(0, min(begin, total - size)), total, first, total)
    found = silence([audio[begin:end] for begin, end, _, _ in windows])
    times, values = [], []
    for (begin, end, first, to), each in zip(windows, found, strict=True):
        frame = (end - begin) / max(1, len(each))
        at = begin + (np.arange(len(each)) + 0.5) * frame
        # The frames of neighbours do not lie at the same times: none is to fall between two.
        counts = (at >= first - frame) & (at < to + frame)
        times.append(at[counts] / rate)
        values.append(each[counts])
    return np.concatenate(times), np.concatenate(values)


def cut(said: np.ndarray, end: float, cutting: Cutting) -> list[tuple[float, float]]:
    """Return the pieces of a recording, in their order, none overlapping.

    Args:
        said: the times [s] when something is said, ascending: (n).
        end: of the recording [s].
        cutting: how to cut.

    Returns:
        (begin, end) [s] of each. What follows within ``cutting.apart`` is put together up to
        ``cutting.target``; what is longer than ``cutting.longest`` without a pause is parted where
        the longest time passes between two tokens.
    """
    if not len(said):
        return []
    # Of short pieces the pads are to leave something.
    pad = min(cutting.pad, cutting.longest / 10)
    room = cutting.longest - 2 * pad
    pauses = np.flatnonzero(np.diff(said) >= cutting.pause) + 1
    groups = [each for group in np.split(said, pauses) for each in _parts(group, room)]
    most = room if cutting.target is None else cutting.target - 2 * pad
    joined = [groups[0]]
    for group in groups[1:]:
        near = group[0] - joined[-1][-1] <= cutting.apart
        if near and group[-1] - joined[-1][0] <= most:
            joined[-1] = np.concatenate([joined[-1], group])
        else:
            joined.append(group)
    first, last = (np.array([each[place] for each in joined]) for place in (0, -1))
    places = [0.0, *((last[:-1] + first[1:]) / 2).tolist(), end]
    return [
        (max(before, begin - pad), min(behind, to + pad))
        for before, behind, begin, to in zip(
            places, places[1:], first.tolist(), last.tolist(), strict=False
        )
    ]


def _parts(group: np.ndarray, room: float) -> list[np.ndarray]:
    """Part times (n) at the longest gap, until none of the parts lasts longer than ``room``."""
    if group[-1] - group[0] <= room or len(group) < 2:
        return [group]
    gaps = np.diff(group)
    middle = (group[1:] + group[:-1]) / 2
    # Near an end a cut leaves a piece too short to be read well.
    share = (middle - group[0]) / (group[-1] - group[0])
    inner = (share > 0.2) & (share < 0.8)
    place = int(np.argmax(np.where(inner, gaps, -1.0) if inner.any() else gaps)) + 1
    return [*_parts(group[:place], room), *_parts(group[place:], room)]


def loudness_silence(waves: Sequence[np.ndarray], rate: int) -> list[np.ndarray]:
    """Return 1 where waveforms (time,) are soft and 0 where they are loud, every 20 ms: (frames,).

    Loud is what lies above a third of the way, in decibels, from the softest tenth of a waveform to
    its loudest, and above -60 dB of full scale.
    """
    found = []
    size = round(0.02 * rate)
    for wave in waves:
        count = max(1, len(wave) // size)
        frames = np.resize(wave, count * size) if len(wave) < size else wave[: count * size]
        power = np.square(frames.astype(np.float64)).reshape(count, size).mean(1)
        level = 10 * np.log10(power + 1e-12)
        soft, loud = np.percentile(level, [10, 95])
        found.append((level < max(soft + (loud - soft) / 3, -60.0)).astype(np.float64))
    return found
