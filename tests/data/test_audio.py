import errno
import os

import numpy as np
import pytest
import soundfile

from mambaasr.data.audio import (
    AudioError,
    audio_problems,
    finished_samples,
    read_audio,
    resample,
    write_audio,
)
from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError


def sine(hertz=440.0, rate=16000, seconds=1.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4")


def loudest(samples, rate):
    """Frequency [Hz] of the largest bin of the spectrum."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def test_recorded_speech(an4):
    folder = DataFolder.read(an4)
    for utt in folder.utterances:
        samples, rate = read_audio(*folder.source(utt))
        expected, _ = soundfile.read(folder.wav[utt], dtype="float32")
        assert rate == 16000 and samples.dtype == np.float32
        np.testing.assert_array_equal(samples, expected)
    assert audio_problems(folder) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.au", "a.w64", "a.rf64", "a.ogg"])
def test_truncated_in_the_middle(tmp_path, name):
    soundfile.write(tmp_path / name, sine(), 16000)
    assert len(read_audio(tmp_path / name)[0]) == 16000
    whole = (tmp_path / name).read_bytes()
    for share in (0.5, 0.95):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AudioError, match="truncated"):
            read_audio(tmp_path / name)


def test_a_header_that_counts_itself_as_sound(tmp_path):
    write_audio(tmp_path / "a.wav", sine(), 16000, "wav", "x")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    place = content.index(b"data") + 4
    for extra, fine in [(44, True), (46, False)]:
        content[place : place + 4] = (32000 + extra).to_bytes(4, "little")
        (tmp_path / "a.wav").write_bytes(content)
        assert finished_samples(tmp_path / "a.wav", "x") is None
        if fine:
            assert len(read_audio(tmp_path / "a.wav")[0]) == 16000
        else:
            with pytest.raises(AudioError, match="promises 32046 bytes, 32000 are there"):
                read_audio(tmp_path / "a.wav")


def test_truncated_sphere(tmp_path):
    soundfile.write(tmp_path / "a.sph", sine(), 16000, format="NIST")
    assert len(read_audio(tmp_path / "a.sph")[0]) == 16000
    whole = (tmp_path / "a.sph").read_bytes()
    (tmp_path / "a.sph").write_bytes(whole[:-2000])
    with pytest.raises(AudioError, match="truncated: the header promises 16000 samples, 15000"):
        read_audio(tmp_path / "a.sph")


def test_mp3(tmp_path):
    soundfile.write(tmp_path / "a.mp3", sine(seconds=2), 16000)
    samples, rate = read_audio(tmp_path / "a.mp3")
    assert abs(len(samples) - 32000) <= 2304 and loudest(samples, rate) == pytest.approx(440, abs=2)
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="truncated"):
        read_audio(tmp_path / "a.mp3")


def test_wav_of_a_pipe_has_no_length_in_its_header(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    for place in (4, content.index(b"data") + 4):
        content[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "a.wav")[0]) == 16000


@pytest.mark.parametrize(
    "content, what",
    [(None, "no such file"), (b"text\n", "not readable")],
)
def test_no_audio(tmp_path, content, what):
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=f"a.wav: {what}"):
        read_audio(tmp_path / "a.wav")


def test_samples_that_are_no_numbers(tmp_path):
    samples = sine()
    samples[700] = np.inf
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="sample 700 of the utterance is NaN or infinite"):
        read_audio(tmp_path / "a.wav")


def test_channels_are_averaged(tmp_path):
    left, right = sine(440), sine(880)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    samples, _ = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("native", [8000, 44100, 48000])
def test_rate_is_converted(tmp_path, native):
    soundfile.write(tmp_path / "a.wav", sine(1000, native), native)
    samples, rate = read_audio(tmp_path / "a.wav", rate=16000)
    assert (rate, len(samples)) == (16000, 16000)
    inner = slice(500, -500)
    np.testing.assert_allclose(samples[inner], sine(1000)[inner], atol=2e-3)


def test_no_aliasing():
    silent = resample(sine(7000, 16000), 16000, 8000)
    assert np.abs(silent[200:-200]).max() < 1e-3


def test_segments(tmp_path):
    samples = sine()
    soundfile.write(tmp_path / "a.flac", samples, 16000, subtype="PCM_24")
    part, _ = read_audio(tmp_path / "a.flac", 0.25, 0.5)
    np.testing.assert_allclose(part, samples[4000:8000], atol=1e-6)
    assert len(read_audio(tmp_path / "a.flac", 0.75)[0]) == 4000
    assert len(read_audio(tmp_path / "a.flac", 0.75, 1.2)[0]) == 4000
    for start, end in [(0.75, 1.6), (1.0, None), (2.0, 2.5)]:
        with pytest.raises(AudioError, match="leaves the recording, which lasts 1 s"):
            read_audio(tmp_path / "a.flac", start, end)
    with pytest.raises(AudioError, match="holds no sample"):
        read_audio(tmp_path / "a.flac", 0.5, 0.50001)


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_written_audio_comes_back(tmp_path, audio_format):
    path = tmp_path / f"a b,$(touch x)'.{audio_format}"
    samples = np.concatenate([sine(), [1.5, -1.5]])
    write_audio(path, samples, 16000, audio_format, "made by a test")
    again, rate = read_audio(path)
    assert rate == 16000 and soundfile.info(path).subtype == "PCM_16"
    np.testing.assert_allclose(again, np.clip(samples, -1, 1), atol=2**-15)
    assert finished_samples(path, "made by a test") == 16002
    assert finished_samples(path, "made by another") is None


def test_unfinished_files(tmp_path):
    assert finished_samples(tmp_path / "a.flac", "x") is None
    rng = np.random.default_rng(0)
    write_audio(tmp_path / "a.flac", 0.1 * rng.standard_normal(32000), 16000, "flac", "x")
    whole = (tmp_path / "a.flac").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "a.flac").write_bytes(whole[:size])
        assert finished_samples(tmp_path / "a.flac", "x") is None


def test_full_disk(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="a.flac: cannot be written: No space left on device"):
        write_audio(tmp_path / "a.flac", sine(), 16000)
    assert list(tmp_path.iterdir()) == []
