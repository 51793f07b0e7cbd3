"""Pieces without speech."""

import numpy as np

from mambaasr.data.non_speech import make_piece


def test_pieces_are_of_every_kind_and_level_and_always_the_same():
    made = [make_piece(8001, 16000, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(piece) == 8001 and np.abs(piece).max() <= 1 for piece in made)
    again = make_piece(8001, 16000, np.random.default_rng(7))
    assert np.array_equal(made[7], again)
    power = np.array([np.mean(piece**2) for piece in made])
    assert 20 < (power == 0).sum() < 60, "a fifth is digital silence"
    levels = 10 * np.log10(power[power > 0])
    assert levels.min() < -60 and -30 < levels.max() < -9
    # Noise spreads over the spectrum, hum does not.
    share = []
    for piece in made:
        if piece.any():
            spectrum = np.sort(np.abs(np.fft.rfft(piece)) ** 2)
            share.append(spectrum[-20:].sum() / spectrum.sum())
    assert min(share) < 0.05 and max(share) > 0.9
