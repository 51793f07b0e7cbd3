"""Noise of a stated signal-to-noise ratio."""

import numpy as np

KINDS = ("white", "pink", "babble")
TALKERS = 6


def add_noise(signal, sound, snr, spoken):
    """Add noise so that the ratio of the two powers is ``snr`` [dB] while somebody speaks.

    Args:
        signal, sound: float arrays ``(time,)`` of equal length.
        snr: signal-to-noise ratio [dB].
        spoken: slice of the stretch that the ratio is over; the rest is silence and noise.
    """
    ratio = np.mean(signal[spoken] ** 2) / np.mean(sound[spoken] ** 2)
    return signal + sound * np.sqrt(ratio / 10 ** (snr / 10))


def make_noise(kind, length, rng, voices=()):
    """Return noise ``(time,)`` of no particular level.

    Args:
        kind: white, pink (power falls with frequency as 1/f) or babble (TALKERS voices at once).
        length: number of samples.
        rng: a :class:`numpy.random.Generator`.
        voices: utterances for babble, float arrays of equal power, longer than a few samples.
    """
    if kind == "white":
        return rng.standard_normal(length)
    if kind == "pink":
        spectrum = np.fft.rfft(rng.standard_normal(length))
        # The constant and everything below the first bin would be infinite.
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
        return np.fft.irfft(spectrum, length)
    if kind != "babble":
        raise ValueError(f"unknown noise {kind!r}; known: {', '.join(KINDS)}")
    mixed = np.zeros(length)
    for talker in rng.choice(len(voices), TALKERS, replace=False):
        voice = voices[talker]
        start = rng.integers(len(voice))
        mixed += np.resize(np.roll(voice, -start), length)
    return mixed
