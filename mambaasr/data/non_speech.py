"""Pieces without speech, made: silence, noise and hum, for a model to learn to say nothing."""

import numpy as np

LOUDEST, SOFTEST = -20.0, -70.0
# name -> the power by which a noise's amplitude falls with frequency
# The speaker of pieces in a set begins so.
NON_SPEECH = "non_speech"
SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}
KINDS = ("silence", *SLOPES, "hum")


def make_piece(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return a piece of a kind and a level that are drawn, float array ``(samples,)`` in -1..1.

    A fifth of the pieces each: digital silence; white, pink and brown noise from -70 to -20 dB
    of full scale, swelling or falling by up to 10 dB; and mains hum with its harmonics.

    Args:
        samples: length.
        rate: sampling rate [Hz].
        rng: what draws.
    """
    kind = KINDS[rng.integers(len(KINDS))]
    if kind == "silence":
        return np.zeros(samples)
    hums = kind == "hum"
    sound = _hum(samples, rate, rng) if hums else _noise(samples, SLOPES[kind], rng)
    level = rng.uniform(SOFTEST, LOUDEST) + np.linspace(0, rng.uniform(-10, 10), samples)
    sound = sound / max(float(np.sqrt(np.mean(sound**2))), 1e-9) * 10 ** (level / 20)
    return np.clip(sound, -1, 1)


def _noise(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    # The constant would be infinite.
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** slope, samples)


def _hum(samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    mains = rng.choice([50.0, 60.0])
    time = np.arange(samples) / rate
    waves = [np.sin(2 * np.pi * (mains * k * time + rng.random())) / k for k in (1, 2, 3, 5, 7)]
    return np.sum(waves, axis=0) + 0.1 * rng.standard_normal(samples)
