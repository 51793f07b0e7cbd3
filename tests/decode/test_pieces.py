"""Pieces of recordings: whatever is said is in one of them, and none is longer than allowed."""

import numpy as np
import pytest

from mambaasr.decode import pieces
from mambaasr.decode.pieces import Cutter, Cutting, cut, loudness_silence

RATE = 1000


def spoken(random, seconds, pause):
    """Return times of tokens: bursts of speech, some without a pause for long."""
    times, now = [], random.exponential(pause)
    while now < seconds:
        for _ in range(random.integers(1, 60)):
            times.append(now)
            now += random.uniform(0.04, 0.25)
        now += random.exponential(pause)
    return np.array([time for time in times if time < seconds])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("target", [None, 2.5])
def test_every_token_is_in_one_piece(seed, target):
    random = np.random.default_rng(seed)
    said = spoken(random, 300, random.uniform(0.1, 5))
    cutting = Cutting(random.uniform(3, 20), target)
    found = cut(said, 300.0, cutting)
    begins, ends = map(np.array, zip(*found, strict=True))
    assert (begins[1:] >= ends[:-1]).all() and begins[0] >= 0 and ends[-1] <= 300
    assert (ends - begins <= cutting.longest + 1e-6).all()
    inside = (said[:, None] >= begins) & (said[:, None] <= ends)
    assert (inside.sum(1) == 1).all()
    # Nothing is cut where pauses suffice: no two tokens of a short burst are parted.
    bursts = np.split(said, np.flatnonzero(np.diff(said) >= cutting.pause) + 1)
    for burst in bursts:
        if burst[-1] - burst[0] <= cutting.longest - 2 * cutting.pad:
            assert inside[np.isin(said, burst)].any(0).sum() == 1


def test_silence_has_no_pieces_and_pauses_stay_outside():
    assert cut(np.array([]), 60.0, Cutting(5.0)) == []
    found = cut(np.array([10.0, 10.2, 40.0]), 60.0, Cutting(5.0))
    assert found == [(pytest.approx(9.7), pytest.approx(10.5)), (pytest.approx(39.7), 40.3)]


def test_neighbours_are_one_piece_up_to_the_target():
    said = np.arange(0.0, 12.0, 0.5)  # every gap is a pause
    assert len(cut(said, 12.0, Cutting(20.0))) == 1
    short = cut(said, 12.0, Cutting(20.0, target=3.0))
    assert [round(end - begin, 1) for begin, end in short[1:-1]] == [2.5, 2.5, 2.5]


def speech(random, seconds):
    """Return a recording that is 0 where nothing is said, and where it is not 0."""
    audio = np.zeros(round(seconds * RATE), np.float32)
    for time in spoken(random, seconds - 1, 1.5):
        audio[round(time * RATE) : round(time * RATE) + 40] = 0.5
    return audio


def silent(waves):
    """Return 1 for each 20 ms of zeros."""
    return [
        1.0 - (np.abs(wave[: len(wave) // 20 * 20].reshape(-1, 20)) > 0).any(1) for wave in waves
    ]


@pytest.mark.parametrize("seconds", [2, 59.9, 60.1, 400])
def test_a_recording_bit_by_bit_has_the_same_pieces(seconds):
    random = np.random.default_rng(int(seconds))
    audio = speech(random, seconds)
    found = {}
    for size in (len(audio), 7777, 100):
        cutter = Cutter(silent, RATE, Cutting(8.0, 3.0))
        parts = [audio[i : i + size] for i in range(0, len(audio), size)]
        found[size] = [piece for part in parts for piece in cutter.accept(part)] + cutter.finish()
    assert len({tuple(piece.start for piece in some) for some in found.values()}) == 1
    covered = np.zeros(len(audio), int)
    for piece in found[100]:
        first = round(piece.start * RATE)
        assert np.array_equal(piece.samples, audio[first : first + len(piece.samples)])
        assert len(piece.samples) <= 8 * RATE
        covered[first : first + len(piece.samples)] += 1
    assert covered.max() == 1 and (covered[audio > 0] == 1).all()


def test_a_token_of_a_frame_is_not_lost_between_windows():
    """Neighbouring windows have their frames at other times."""

    def frames(waves):
        # 40 ms a frame, of which there are not whole numbers in a window.
        found = []
        for wave in waves:
            count = len(wave) // 41
            places = np.minimum(np.flatnonzero(wave) * count // len(wave), count - 1)
            found.append(np.ones(count))
            found[-1][places] = 0.0
        return found

    for seed in range(200):
        random = np.random.default_rng(seed)
        audio = np.zeros(40 * RATE, np.float32)
        places = np.sort(random.choice(np.arange(500, 39_500, 1500), 8, replace=False))
        audio[places + random.integers(0, 1000, 8)] = 1.0
        cutter = Cutter(frames, RATE, Cutting(random.uniform(2, 5)))
        found = [*cutter.accept(audio), *cutter.finish()]
        assert sum(int(piece.samples.sum()) for piece in found) == 8


def test_a_word_is_whole_in_short_pieces():
    said = np.arange(0.4, 1.05, 0.05)
    assert len(cut(said, 2.0, Cutting(1.0, 0.9))) == 1


def test_what_waits_does_not_grow_with_the_recording():
    for audio in (np.zeros(60 * RATE, np.float32), np.ones(60 * RATE, np.float32)):
        cutter, most = Cutter(silent, RATE, Cutting(8.0)), 0
        for _ in range(30):
            cutter.accept(audio)
            most = max(most, cutter._length)
        assert most <= pieces.BLOCK * RATE


def test_windows_are_as_long_as_allowed_and_none_is_short():
    """A model knows nothing that is shorter than its training's utterances."""
    seen = []

    def note(waves):
        seen.extend(len(wave) / RATE for wave in waves)
        return silent(waves)

    cutter = Cutter(note, RATE, Cutting(8.0, context=1.0))
    cutter.accept(np.zeros(round(45.5 * RATE), np.float32))
    cutter.finish()
    assert max(seen) == 8.0 and min(seen) >= 7.0


def test_soft_is_silence_and_digital_zero_too():
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.003, 8000)
    noise[3000:5000] += random.normal(0, 0.2, 2000)
    (found,) = loudness_silence([noise], RATE)
    assert not found[151:249].any() and found[:149].all() and found[251:].all()
    (nothing,) = loudness_silence([np.zeros(5)], RATE)
    assert nothing.all()
