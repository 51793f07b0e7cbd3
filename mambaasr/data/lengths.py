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


def quantiles_of(files: Iterable[str | Path], rate: int) -> dict[str, float] | None:
    """Return :func:`quantiles` of files of shapes of audio, ``utterance samples``.

    None where they hold those of features.
    """
    lengths = []
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            shape = line.split()[-1]
            if not shape.isdecimal():
                return None
            lengths.append(int(shape))
    return quantiles(lengths, rate) if lengths else None
