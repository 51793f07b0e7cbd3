"""How long the utterances of a training are: a model reads well what is as long."""

from collections.abc import Iterable
from pathlib import Path

SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)


def quantiles(samples: Iterable[int], rate: int) -> dict[str, float]:
    """Return the lengths [s] that shares of utterances do not exceed: "0.95" -> seconds.

    Args:
        samples: each utterance's length; at least one.
        rate: sampling rate [Hz].
    """
    import numpy as np

    found = np.quantile(np.fromiter(samples, np.float64), SHARES) / rate
    return {f"{share:g}": round(float(each), 3) for share, each in zip(SHARES, found, strict=True)}


def quantiles_of(shape_file: str | Path, rate: int) -> dict[str, float] | None:
    """Return :func:`quantiles` of a file of shapes of audio, ``utterance samples``.

    None where it holds those of features.
    """
    lengths = []
    with open(shape_file, encoding="utf-8") as stream:
        for line in stream:
            shape = line.split()[-1]
            if not shape.isdecimal():
                return None
            lengths.append(int(shape))
    return quantiles(lengths, rate) if lengths else None
