"""Is one system better than another, or was the test set kind to it?"""

from collections.abc import Sequence
from typing import NamedTuple

from mambaasr.errors import UserError
from mambaasr.score.error_rate import Utterance


class Comparison(NamedTuple):
    """A paired bootstrap of two systems' error rates over the same utterances.

    Attributes:
        rate, other_rate: error rates [%].
        difference: ``rate - other_rate`` [percentage points]; negative: the first is better.
        low, high: 95 % interval of the difference.
        better: share of the resampled test sets in which the first has the lower rate.
        samples: number of resampled test sets.
    """

    rate: float
    other_rate: float
    difference: float
    low: float
    high: float
    better: float
    samples: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    utterances: Sequence[Utterance],
    others: Sequence[Utterance],
    samples: int = 10000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems by drawing utterances with replacement (Bisani and Ney, 2004).

    Args:
        utterances: aligned utterances of one system, from :func:`~mambaasr.score.error_rate.align`.
        others: those of the other, of the same references in the same order.
        samples: how many test sets to draw.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        A :class:`Comparison` with percentile limits.

    Raises:
        UserError: the two do not have the same references, or these hold no units.
    """
    import numpy as np

    same = [(u.utt, u.counts.units) for u in utterances]
    if same != [(u.utt, u.counts.units) for u in others]:
        raise UserError("the two systems were not scored on the same references")
    units = np.array([count for _, count in same], dtype=float)
    if not units.sum():
        raise UserError("the references hold no words to compare on")
    errors = np.array([[u.counts.errors for u in system] for system in (utterances, others)], float)
    rng = np.random.default_rng(seed)
    rates = np.empty((2, samples))
    # Piece by piece: a test set of 10^5 utterances drawn 10^4 times does not fit into memory.
    step = max(1, 10**7 // len(units))
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        drawn = rng.integers(0, len(units), (stop - start, len(units)))
        # A drawn test set without a single word has no rate; its errors count as they are.
        rates[:, start:stop] = errors[:, drawn].sum(-1) / np.maximum(units[drawn].sum(-1), 1)
    rates *= 100
    difference = rates[0] - rates[1]
    low, high = np.percentile(difference, [2.5, 97.5])
    rate, other_rate = 100 * errors.sum(1) / units.sum()
    return Comparison(
        float(rate),
        float(other_rate),
        float(rate - other_rate),
        float(low),
        float(high),
        float((difference < 0).mean()),
        samples,
    )
