"""Archives: what we write others read, what others write we read, and what is bad is named."""

import struct

import numpy as np
import pytest
import soundfile
from omniio import kaldi

from mambaasr.data import ark
from mambaasr.data.audio import AudioError, encode_audio, read_header, read_sound

WAVE = 0.3 * np.sin(np.arange(8000) / 9)


def write(path, kind="flac", count=3):
    """Write an archive of waves, each softer than the one before; return their places."""
    with ark.writing(path) as archive:
        return [
            archive.add(
                f"utt{i}", ark.audio_record(encode_audio(WAVE / (i + 1), 8000, kind).read())
            )
            for i in range(count)
        ]


def test_places():
    assert ark.split("a b/x.flac.ark:120") == ("a b/x.flac.ark", 120)
    for path in ("a/x.flac", "12:30", "a.ark", "x.ark:1:", "x.flac:12"):
        assert ark.split(path) == (path, None) and ark.file_of(path) == path


@pytest.mark.parametrize("kind", ["flac", "wav"])
def test_audio_comes_back_here_and_in_espnets_reader(tmp_path, kind):
    places = write(tmp_path / f"x.{kind}.ark", kind)
    listed = tmp_path / "wav.scp"
    listed.write_text("".join(f"utt{i} {place}\n" for i, place in enumerate(places)))
    found = kaldi.load_scp(str(listed))
    for i, place in enumerate(places):
        expected, _ = soundfile.read(encode_audio(WAVE / (i + 1), 8000, kind), dtype="float32")
        sound = read_sound(place)
        np.testing.assert_array_equal(sound.samples, expected)
        assert sound.rate == 8000 and read_header(place).duration == 1.0
        rate, theirs = found[f"utt{i}"]
        np.testing.assert_array_equal(theirs.astype("float32"), expected)
        assert rate == 8000
    part = read_sound(places[1], 0.25, 0.5, rate=16000)
    assert len(part.samples) == 4000


def test_archives_of_others_are_read(tmp_path):
    path = str(tmp_path / "x.ark")
    with kaldi.WriteHelper(f"ark,scp:{path},{tmp_path}/scp") as writer:
        writer["riff"] = (8000, np.round(WAVE * 32767).astype("int16"))
        writer["matrix"] = np.arange(6, dtype="float64").reshape(2, 3)
    with kaldi.WriteHelper(f"ark,scp:{path}.ark,{tmp_path}/scp2", compression_method=2) as writer:
        writer["packed"] = np.linspace(-1, 1, 200, dtype="float32").reshape(50, 4)
    places = dict(line.split() for name in ("scp", "scp2") for line in open(tmp_path / name))
    np.testing.assert_allclose(read_sound(places["riff"]).samples, WAVE, atol=2 / 32768)
    matrix = ark.read_matrix(places["matrix"])
    assert matrix.dtype == np.float32 and matrix.tolist() == [[0, 1, 2], [3, 4, 5]]
    packed = ark.read_matrix(places["packed"])
    np.testing.assert_allclose(packed, np.linspace(-1, 1, 200).reshape(50, 4), atol=0.02)
    assert ark.holds_matrix(places["packed"]) and not ark.holds_matrix(places["riff"])


def test_a_matrix_is_kaldis(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((5, 80)).astype("float32")
    with ark.writing(tmp_path / "x.ark") as archive:
        places = [archive.add("a", ark.matrix_record(matrix)) for _ in range(2)]
    np.testing.assert_array_equal(kaldi.load_mat(places[1]), matrix)
    np.testing.assert_array_equal(ark.read_matrix(places[1]), matrix)
    assert dict(kaldi.load_ark(str(tmp_path / "x.ark"))).keys() == {"a"}
    # Alone in a file, without a key.
    kaldi.save_mat(str(tmp_path / "alone.mat"), matrix)
    np.testing.assert_array_equal(ark.read_matrix(tmp_path / "alone.mat"), matrix)


def test_what_is_bad_is_named(tmp_path):
    path = tmp_path / "x.flac.ark"
    first, second, third = write(path)
    offset = int(second.rpartition(":")[2])
    last = int(third.rpartition(":")[2])
    with ark.writing(tmp_path / "m.ark") as archive:
        matrix = archive.add("m", ark.matrix_record(np.ones((3, 2))))
        nothing = archive.add("n", ark.matrix_record(np.full((3, 2), np.nan)))
        empty = archive.add("e", ark.matrix_record(np.ones((0, 2))))
    for place, reason in (
        (f"{path}:{offset + 1}", "no record begins there"),
        (f"{path}:{offset - 3}", "no record begins there"),
        (f"{path}:99999999", f"the file has only {path.stat().st_size} bytes"),
        (f"{tmp_path}/gone.ark:5", "no such file"),
        (matrix, "numbers, such as features, and no audio"),
    ):
        with pytest.raises(AudioError, match=reason) as found:
            read_sound(place)
        assert str(found.value).startswith(place)
        with pytest.raises(AudioError):
            read_header(place)
    for place, reason in (
        (first, "audio, and no features"),
        (f"{path}:{offset + 1}", "no record begins there"),
        (f"{tmp_path}/gone.ark:5", "no such file"),
        (nothing, "NaN or infinite"),
        (empty, "no frames"),
    ):
        with pytest.raises(ark.ArkError, match=reason):
            ark.read_matrix(place)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert len(read_sound(second).samples) == 8000
    with pytest.raises(AudioError, match="truncated: [0-9]+ bytes are promised"):
        read_sound(third)
    # The record is there, and what it holds is no audio.
    path.write_bytes(content[: last + 20] + bytes(len(content) - last - 20))
    with pytest.raises(AudioError):
        read_sound(third)
    (tmp_path / "m.ark").write_bytes((tmp_path / "m.ark").read_bytes()[:20])
    with pytest.raises(ark.ArkError, match="not readable, or truncated"):
        ark.read_matrix(matrix)


def test_a_length_that_is_a_lie_allocates_nothing(tmp_path):
    path = tmp_path / "x.ark"
    path.write_bytes(b"a AUDIO\x08" + struct.pack("<q", 1 << 60) + b"fLaC")
    with pytest.raises(AudioError, match="truncated"):
        read_sound(f"{path}:2")
    path.write_bytes(b"a \0BFM \x04" + struct.pack("<i", 1 << 30) + b"\x04\x10\0\0\0")
    with pytest.raises(ark.ArkError, match="truncated"):
        ark.read_matrix(f"{path}:2")


def test_a_failed_block_leaves_the_old_archive(tmp_path):
    places = write(tmp_path / "x.flac.ark")
    with pytest.raises(KeyError), ark.writing(tmp_path / "x.flac.ark") as archive:
        archive.add("utt9", b"AUDIO")
        raise KeyError
    assert len(read_sound(places[2]).samples) == 8000
    assert [path.name for path in tmp_path.iterdir()] == ["x.flac.ark"]
