"""Small data folders: of sine waves that are made here, and of recorded speech."""

import re

import numpy as np
import pytest
import soundfile

from mambaasr.data.folder import DataFolder


@pytest.fixture
def sines(tmp_path):
    """A function that writes a folder of n utterances of a second each, utt0, utt1, ..."""

    def make(name="data/train", n=4, rate=16000):
        folder = DataFolder()
        for i in range(n):
            path = tmp_path / "corpus" / f"{i}.wav"
            path.parent.mkdir(exist_ok=True)
            wave = 0.3 * np.sin(2 * np.pi * 100 * (i + 1) * np.arange(rate) / rate)
            soundfile.write(path, wave, rate)
            folder.wav[f"utt{i}"] = str(path)
            folder.text[f"utt{i}"] = f"WORD {i}"
            folder.utt2spk[f"utt{i}"] = f"spk{i % 2}"
        folder.write(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def an4(test_data, tmp_path):
    """A data folder of 12 recorded utterances of AN4's test set."""
    root = test_data / "an4"
    lines = (root / "etc/an4_test.transcription").read_text().splitlines()
    files = (root / "etc/an4_test.fileids").read_text().split()
    folder = DataFolder()
    for file, line in list(zip(files, lines, strict=True))[::11]:
        text, utt = re.fullmatch(r"(.*)\((.*)\)", line.strip()).groups()
        speaker = file.split("/")[-2]
        folder.wav[f"{speaker}-{utt}"] = str(root / "wav" / f"{file}.wav")
        folder.text[f"{speaker}-{utt}"] = re.sub("</?s>", "", text).strip()
        folder.utt2spk[f"{speaker}-{utt}"] = speaker
    folder.write(tmp_path / "data/an4")
    return tmp_path / "data/an4"
