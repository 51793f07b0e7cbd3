"""Damaged audio files of seven formats through formatting: each is reported or whole.

``python -m tests.data.test_mutated_audio N`` does it with N files and prints what became of them.
"""

import collections
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from encoded import encode, flac_of_length

from mambaasr.data.dropped import read_report
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder

FORMATS = ("wav", "flac", "mp3", "ogg", "aiff", "m4a", "webm")
SECONDS = 3


def write_good(folder):
    """Write a file of each format; two are awkward, but whole: MP3 and FLAC without a length."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    samples = 0.1 * rng.standard_normal(48000 * SECONDS).cumsum() / 30
    samples = np.clip(samples - samples.mean(), -0.9, 0.9).astype("f4")
    for name in FORMATS:
        path = folder / f"good.{name}"
        if name == "m4a":
            encode(path, samples[: 16000 * SECONDS], 16000, "aac")
        elif name == "webm":
            encode(path, samples, 48000, "libopus")
        elif name == "mp3":
            encode(path, samples[: 16000 * SECONDS], 16000, "libmp3lame", {"write_xing": "0"})
        else:
            soundfile.write(path, samples[: 16000 * SECONDS], 16000)
    soundfile.write(folder / "counted.mp3", samples[: 16000 * SECONDS], 16000)
    content = (folder / "good.flac").read_bytes()
    (folder / "unknown.flac").write_bytes(flac_of_length(content, 0))
    return sorted(folder.iterdir())


def mutate(content, rng):
    """Return bytes that are damaged in one way or another, mostly near their head."""
    content = bytearray(content)
    place = int(rng.integers(len(content)) if rng.random() < 0.4 else rng.integers(200))
    kind = rng.integers(7)
    if kind == 0:  # bits
        for _ in range(rng.integers(1, 9)):
            content[min(len(content) - 1, place + int(rng.integers(40)))] ^= 1 << rng.integers(8)
    elif kind == 1:  # a number: nothing, huge, negative
        content[place : place + 4] = [b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\xff" * 4][
            rng.integers(4)
        ]
    elif kind == 2:  # cut off
        del content[place:]
    elif kind == 3:  # a hole
        del content[place : place + int(rng.integers(1, 3000))]
    elif kind == 4:  # noise
        size = int(rng.integers(1, 400))
        content[place : place + size] = rng.bytes(size)
    elif kind == 5:  # something between
        content[place:place] = rng.bytes(int(rng.integers(1, 400)))
    else:  # a run of zeros
        content[place : place + int(rng.integers(1, 3000))] = bytes(int(rng.integers(1, 3000)))
    return bytes(content)


def run(tmp_path, count, seed=0):
    """Format good files with so many damaged ones; return source -> samples, or the reason."""
    good = write_good(tmp_path / "corpus")
    rng = np.random.default_rng(seed)
    folder = DataFolder()
    for path in good:
        folder.wav[path.name] = str(path)
    for number in range(count):
        source = good[number % len(good)]
        path = source.with_name(f"{number:04d}-{source.name}")
        path.write_bytes(mutate(source.read_bytes(), rng))
        folder.wav[path.name] = str(path)
    folder.text = dict.fromkeys(folder.wav, "WORD")
    folder.utt2spk = dict.fromkeys(folder.wav, "speaker")
    folder.write(tmp_path / "data")
    format_folder(tmp_path / "data", tmp_path / "dump", 16000)
    kept = DataFolder.read(tmp_path / "dump")
    reasons = {row.utt: row.reason for row in read_report(tmp_path / "dump")}
    assert sorted([*kept.utterances, *reasons]) == sorted(folder.wav)
    found = {utt: soundfile.read(path)[0] for utt, path in kept.wav.items()}
    for path in good:
        assert abs(len(found[path.name]) / 16000 - SECONDS) < 0.15, path.name
    return found | reasons


@pytest.mark.parametrize("count", [90, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_reported_and_good_ones_stay(tmp_path, count):
    found = run(tmp_path, count)
    assert count / 4 < sum(isinstance(each, str) for each in found.values()) < count


def main(count):
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), count)
    table = collections.defaultdict(collections.Counter)
    for name, each in found.items():
        if not name[0].isdigit():
            continue
        good = found[name.partition("-")[2]]
        if isinstance(each, str):
            what = "reported"
        elif len(each) < len(good) - 1600:
            what = "shorter"
        elif len(each) > len(good) + 1600:
            what = "longer"
        elif len(each) == len(good) and np.abs(each - good).max() < 1e-3:
            what = "the same"
        else:
            what = "other samples"
        table[name.partition("-")[2]][what] += 1
        if what == "shorter":
            print(name, len(each))
    for name, counts in sorted(table.items()):
        print(f"{name:13}", dict(sorted(counts.items())))
    reasons = collections.Counter(
        each.partition(": ")[2][:40] for each in found.values() if isinstance(each, str)
    )
    print(*reasons.most_common(30), sep="\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
