import errno
import os
import re
import tracemalloc
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from encoded import encode, flac_of_length

from mambaasr.data import audio
from mambaasr.data.audio import (
    AudioError,
    audio_problems,
    finished,
    read_audio,
    resample,
    write_audio,
)
from mambaasr.data.folder import DataFolder
from mambaasr.errors import TransientError, UserError


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
        assert finished(tmp_path / "a.wav", "x") is None
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
    with pytest.raises(
        AudioError, match="truncated or damaged: the header promises 16000 samples, 15000"
    ):
        read_audio(tmp_path / "a.sph")


def test_ogg_without_some_of_its_pages(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, sine(seconds=20) + 0.1, 16000)
    whole = path.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", whole)]
    assert len(pages) > 5
    cuts = {
        "the last page is missing": whole[: pages[-1]],
        "a page is missing": whole[: pages[3]] + whole[pages[4] :],
        f"the page at byte {pages[4]} is damaged": whole[: pages[5] - 9]
        + b"x"
        + whole[pages[5] - 8 :],
        f"the page at byte {pages[-1]} is cut off": whole[:-1],
    }
    for what, content in cuts.items():
        path.write_bytes(content)
        with pytest.raises(AudioError, match=f"truncated or damaged: {what}"):
            read_audio(path)
    path.write_bytes(whole + whole)
    assert len(read_audio(path)[0]) >= 320000
    path.write_bytes(whole + b"a tag of some kind")
    assert len(read_audio(path)[0]) == 320000


def test_mp3(tmp_path):
    soundfile.write(tmp_path / "a.mp3", sine(seconds=2), 16000)
    samples, rate = read_audio(tmp_path / "a.mp3")
    assert abs(len(samples) - 32000) <= 2304 and loudest(samples, rate) == pytest.approx(440, abs=2)
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="truncated"):
        read_audio(tmp_path / "a.mp3")


def noisy(seconds, rate=16000):
    """A sine, then soft noise: a variable bit rate has reason to vary."""
    noise = 0.001 * np.random.default_rng(0).standard_normal(int(rate * seconds / 2))
    return np.concatenate([sine(440, rate, seconds / 2), noise]).astype("f4")


def test_mp3_of_variable_bit_rate_that_does_not_say_its_length(tmp_path):
    path = tmp_path / "a.mp3"
    encode(path, noisy(20), 16000, "libmp3lame", {"write_xing": "0"}, flags="+qscale")
    assert soundfile.info(path).duration < 15  # libsndfile stops at its guess
    samples, rate = read_audio(path)
    assert rate == 16000 and 0 <= len(samples) / rate - 20 < 0.15
    part, _ = read_audio(path, 17.5, 18)
    np.testing.assert_array_equal(part, samples[280000:288000])
    over, _ = read_audio(path, 19, len(samples) / rate + 0.4)
    np.testing.assert_array_equal(over, samples[304000:])
    for start in (21, 19):
        with pytest.raises(AudioError, match="leaves the recording, which lasts 20.0"):
            read_audio(path, start, 22)
    # What begins and ends anywhere, as a recorded stream, is read to its last whole frame.
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 + 7])
    assert len(read_audio(path)[0]) > len(samples) / 3
    for rest in (b"\xff", b"\xff\xf3", whole[:3], bytes(20)):
        path.write_bytes(whole + rest)
        np.testing.assert_array_equal(read_audio(path)[0], samples)
    path.write_bytes(whole[: len(whole) // 2] + bytes(1500) + whole[len(whole) // 2 + 1500 :])
    with pytest.raises(AudioError, match="Invalid data found when processing input after"):
        read_audio(path)


def test_flac_that_does_not_say_its_length(tmp_path):
    samples = noisy(10) + 0.01
    soundfile.write(tmp_path / "a.flac", samples, 16000)
    content = flac_of_length((tmp_path / "a.flac").read_bytes(), 0)
    expected, _ = read_audio(tmp_path / "a.flac")
    (tmp_path / "a.flac").write_bytes(content)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac")[0], expected)
    np.testing.assert_array_equal(
        read_audio(tmp_path / "a.flac", 9, 9.5)[0], expected[144000:152000]
    )
    np.testing.assert_array_equal(read_audio(tmp_path / "a.flac", 9, 10.4)[0], expected[144000:])
    third = len(content) // 3
    for damaged, what in [
        (content[:third], "Invalid data"),
        (content[:third] + content[-third:], "s are missing after"),
    ]:
        (tmp_path / "a.flac").write_bytes(damaged)
        with pytest.raises(AudioError, match=what):
            read_audio(tmp_path / "a.flac")


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.webm", "libopus")]
)
def test_segments_of_a_recording_are_decoded_once(tmp_path, monkeypatch, name, codec):
    decoded = []

    class Counting:
        made = av.AudioResampler

        def __init__(self, **options):
            self.resampler = self.made(**options)

        def resample(self, frame):
            parts = self.resampler.resample(frame)
            decoded.extend(part.samples for part in parts)
            return parts

    path, rate = tmp_path / name, 48000 if codec == "libopus" else 16000
    encode(path, noisy(80, rate), rate, codec, {"write_xing": "0"} if codec == "libmp3lame" else {})
    whole, _ = read_audio(path)
    # Another file ends what is known of the first.
    soundfile.write(tmp_path / "b.mp3", sine(), 16000)
    read_audio(tmp_path / "b.mp3")
    monkeypatch.setattr(av, "AudioResampler", Counting)
    in_order = [(start, start + 3.3) for start in range(76)]
    for start, end in in_order:
        segment = whole[start * rate : round(end * rate)]
        np.testing.assert_array_equal(read_audio(path, start, end)[0], segment)
    assert sum(decoded) <= len(whole)
    # Backwards by little and by much, and on to the end.
    for start, end in [(50, 51), (2, 4.5), (1, 3), (70, None)]:
        segment = whole[start * rate : end and round(end * rate)]
        np.testing.assert_array_equal(read_audio(path, start, end)[0], segment)
    assert sum(decoded) < 3 * len(whole)
    # A file of another content in its place is another file.
    encode(path, noisy(3, rate), rate, codec)
    assert abs(len(read_audio(path)[0]) / rate - 3) < 0.2


@pytest.mark.parametrize(
    ("name", "codec"), [("a.m4a", "aac"), ("a.mp4", "aac"), ("a.webm", "libopus"), ("a.aac", "aac")]
)
def test_other_containers(tmp_path, name, codec):
    path = tmp_path / name
    rate = 48000 if codec == "libopus" else 16000
    muxer = {"movflags": "faststart"} if name == "a.mp4" else None
    # Soft first: by its first frames a file without a header would be longer.
    encode(path, noisy(4, rate)[::-1], rate, codec, muxer)
    samples, found = read_audio(path)
    assert found == rate and abs(len(samples) / rate - 4) < 0.2
    assert loudest(samples, rate) == pytest.approx(440, abs=2)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if name != "a.aac":  # a stream without a header
        with pytest.raises(AudioError, match="not readable, or truncated|truncated: .* promised"):
            read_audio(path)


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path):
    soundfile.write(tmp_path / "a.flac", sine(), 16000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(flac_of_length(content, (1 << 36) - 1))
    soundfile.write(tmp_path / "a.mp3", sine(), 16000)
    content = bytearray((tmp_path / "a.mp3").read_bytes())
    place = content.index(b"Xing" if b"Xing" in content else b"Info") + 8
    content[place : place + 4] = b"\x7f\xff\xff\xff"
    (tmp_path / "a.mp3").write_bytes(content)
    tracemalloc.start()
    try:
        for name in ("a.flac", "a.mp3"):
            with pytest.raises(AudioError, match="truncated"):
                read_audio(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_what_names_other_files_is_not_followed(tmp_path):
    encode(tmp_path / "a.m4a", sine(), 16000, "aac")
    (tmp_path / "list.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/a.m4a\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(AudioError, match="list.mp4: not readable"):
        read_audio(tmp_path / "list.mp4")


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ValueError("odd"), False),
        (RuntimeError("odd"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (MemoryError(), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (soundfile.LibsndfileError(1), False),
        (soundfile.LibsndfileError(2), True),
    ],
)
def test_whatever_a_decoder_raises_is_an_audio_error(tmp_path, monkeypatch, error, transient):
    def broken(*args, **kwargs):
        raise error

    soundfile.write(tmp_path / "a.wav", sine(), 16000)
    monkeypatch.setattr(soundfile.SoundFile, "read", broken)
    with pytest.raises(AudioError, match="a.wav: (not readable|too long for the memory)") as got:
        read_audio(tmp_path / "a.wav")
    assert isinstance(got.value, TransientError) == transient


def test_memory_that_ffmpeg_lacks_is_transient(tmp_path, monkeypatch):
    """FFmpeg's error of the kind is also one of those that say that a file is damaged."""

    def resample(frame):
        raise av.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    encode(tmp_path / "a.m4a", sine(), 16000, "aac")
    monkeypatch.setattr(av, "AudioResampler", lambda **_: SimpleNamespace(resample=resample))
    with pytest.raises(TransientError, match="a.m4a: "):
        read_audio(tmp_path / "a.m4a")


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


def test_channels_are_averaged(tmp_path, caplog):
    left, right = sine(440), sine(880)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    samples, _ = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-7)
    assert "a.wav: channels that differ were averaged" in caplog.text
    caplog.clear()
    second, _ = read_audio(tmp_path / "a.wav", channel=2)
    np.testing.assert_array_equal(second, right)
    assert not caplog.messages


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
    assert finished(path, "made by a") == (16002, " test")
    assert finished(path, "made by another") is None


def test_unfinished_files(tmp_path):
    assert finished(tmp_path / "a.flac", "x") is None
    rng = np.random.default_rng(0)
    write_audio(tmp_path / "a.flac", 0.1 * rng.standard_normal(32000), 16000, "flac", "x")
    whole = (tmp_path / "a.flac").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "a.flac").write_bytes(whole[:size])
        assert finished(tmp_path / "a.flac", "x") is None


def test_full_disk(tmp_path, monkeypatch):
    def full(old, new):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="a.flac: cannot be written: No space left on device"):
        write_audio(tmp_path / "a.flac", sine(), 16000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix, rate", [("wav", 16000), ("flac", 8000), ("mp3", 44100)])
def test_a_recording_in_pieces_is_the_recording(tmp_path, monkeypatch, suffix, rate):
    """Of any length, at any rate, from and to any time; a fault is named behind what it leaves."""
    monkeypatch.setattr(audio, "_BLOCK", 5000)
    noise = np.random.default_rng(0).normal(0, 0.1, (3 * rate, 2)).astype("float32")
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise, rate)
    for more in ({}, {"start": 0.7, "end": 2.1}, {"channel": 2}):
        pieces = list(audio.stream_audio(path, 16000, **more))
        whole = audio.read_sound(path, rate=16000, **more).samples
        assert len(pieces) > 3 and {piece.dtype for piece in pieces} == {np.dtype("float32")}
        assert abs(sum(map(len, pieces)) - len(whole)) <= 1
        got = np.concatenate(pieces)[: len(whole)]
        assert np.abs(got - whole[: len(got)]).max() < 1e-5


def test_a_fault_in_the_middle_ends_the_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK", 1000)
    samples = np.zeros(8000, "float32")
    samples[5500] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    pieces = audio.stream_audio(tmp_path / "a.wav", 16000)
    assert [len(next(pieces)) for _ in range(5)] == [1000] * 5
    with pytest.raises(AudioError, match="a.wav: sample 5500 .* is NaN"):
        next(pieces)
    with pytest.raises(AudioError, match="no such file"):
        next(audio.stream_audio(tmp_path / "b.wav", 16000))
