import numpy as np
import pytest
import soundfile

from mambaasr.data.audio import read_sound
from mambaasr.data.dropped import read_report
from mambaasr.data.folder import DataFolder, Segment
from mambaasr.data.format import change_speed, format_folder
from mambaasr.data.speed import parse_factors, perturb_folder
from mambaasr.errors import UserError


@pytest.mark.parametrize("factor", [0.9, 1.1, 0.5, 2.0])
@pytest.mark.parametrize("hertz", [200, 1000])
def test_duration_and_pitch_move_by_the_factor(factor, hertz):
    samples = np.sin(2 * np.pi * hertz * np.arange(32000) / 16000).astype("f4")
    changed = change_speed(samples, factor)
    assert len(changed) == pytest.approx(32000 / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed)), 1 << 18))
    assert spectrum.argmax() * 16000 / (1 << 18) == pytest.approx(hertz * factor, rel=1e-3)
    inner = slice(500, -500)
    expected = np.sin(2 * np.pi * hertz * factor * np.arange(len(changed)) / 16000)
    np.testing.assert_allclose(changed[inner], expected[inner], atol=5e-3)


def test_recorded_speech(an4, tmp_path):
    summary = perturb_folder(an4, tmp_path / "sp", "0.9 1.0 1.1")
    assert "12 utterances at 3 speeds: 36 in, 36 kept, 0 dropped" in summary
    before, after = DataFolder.read(an4), DataFolder.read(tmp_path / "sp")
    for utt in before.utterances:
        frames = soundfile.info(before.wav[utt]).frames
        assert after.wav[utt] == before.wav[utt]
        for factor in (0.9, 1.1):
            copy = f"sp{factor}-{utt}"
            assert after.text[copy] == before.text[utt]
            assert after.utt2spk[copy] == f"sp{factor}-{before.utt2spk[utt]}"
            assert abs(soundfile.info(after.wav[copy]).frames - frames / factor) <= 1
    assert len(after.utterances) == 36


def test_the_channel_that_is_chosen_is_perturbed(sines, tmp_path, caplog):
    path = sines(n=2)
    waves = [soundfile.read(tmp_path / f"corpus/{i}.wav")[0] for i in range(2)]
    soundfile.write(tmp_path / "corpus/0.wav", np.stack(waves, 1), 16000)
    perturb_folder(path, tmp_path / "sp", "0.5 1")
    assert "channels that differ were averaged in 1 of 2 (first sp0.5-utt0)" in caplog.text
    caplog.clear()
    (path / "reco2file_and_channel").write_text("utt0 call B\n")
    for name, channel in (("table", None), ("option", 2)):
        perturb_folder(path, tmp_path / name, "0.5 1", channel=channel)
        format_folder(tmp_path / name, tmp_path / "dump", 16000, channel=channel)
        folder = DataFolder.read(tmp_path / "dump")
        slow, fast = (soundfile.read(folder.wav[utt])[0] for utt in ("sp0.5-utt0", "utt0"))
        np.testing.assert_allclose(slow, change_speed(waves[1], 0.5), atol=1e-3)
        np.testing.assert_allclose(fast, waves[1], atol=1e-3)
    assert not caplog.messages


def test_segments_follow(sines, tmp_path):
    path = sines(n=2)
    (path / "wav.scp").write_text(f"rec {tmp_path}/corpus/0.wav\n")
    (path / "segments").write_text("utt0 rec 0.2 0.6\nutt1 rec 0.6 -1\n")
    (path / "utt2lang").write_text("utt0 en\nutt1 de\n")
    perturb_folder(path, tmp_path / "sp", "0.5 1")
    folder = DataFolder.read(tmp_path / "sp")
    assert folder.segments["utt0"] == Segment("rec", 0.2, 0.6)
    assert folder.segments["sp0.5-utt0"] == Segment("sp0.5-rec", 0.4, 1.2)
    assert folder.segments["sp0.5-utt1"] == Segment("sp0.5-rec", 1.2, None)
    assert folder.utt2lang["sp0.5-utt1"] == "de"
    format_folder(tmp_path / "sp", tmp_path / "dump", 16000)
    lengths = DataFolder.read(tmp_path / "dump").utt2num_samples
    assert lengths == {"utt0": 6400, "utt1": 6400, "sp0.5-utt0": 12800, "sp0.5-utt1": 12800}


def test_rerun_keeps_the_audio(sines, tmp_path):
    path = sines(n=2)
    perturb_folder(path, tmp_path / "sp", "0.9")
    files = sorted((tmp_path / "sp/audio").rglob("*.flac"))
    before = [file.stat().st_mtime_ns for file in files]
    perturb_folder(path, tmp_path / "sp", "0.9 1.1")
    assert [file.stat().st_mtime_ns for file in files] == before


def test_bad_audio(sines, tmp_path):
    path = sines(n=3)
    (tmp_path / "corpus/1.wav").write_bytes(b"")
    summary = perturb_folder(path, tmp_path / "sp", "0.9 1.1")
    assert "6 in, 4 kept, 2 dropped" in summary
    rows = read_report(tmp_path / "sp")
    assert [row.utt for row in rows] == ["sp0.9-utt1", "sp1.1-utt1"]
    assert rows[0].where == f"{path}/wav.scp:2" and "the file is empty" in rows[0].reason
    with pytest.raises(UserError, match="sp0.9-utt1: .*the file is empty"):
        perturb_folder(path, tmp_path / "stop", "0.9", bad_audio="stop")
    assert not (tmp_path / "stop/wav.scp").exists()


@pytest.mark.parametrize("text", ["", "fast", "0", "nan", "1 1.0"])
def test_bad_factors(text):
    with pytest.raises(UserError, match="speed factor"):
        parse_factors(text)


def test_copies_in_archives(sines, tmp_path):
    path = sines()
    perturb_folder(path, tmp_path / "files", "0.9 1.0")
    perturb_folder(path, tmp_path / "arks", "0.9 1.0", audio_format="flac.ark")
    files, arks = DataFolder.read(tmp_path / "files"), DataFolder.read(tmp_path / "arks")
    assert files.utterances == arks.utterances and len(arks.utterances) == 8
    assert arks.wav["utt1"] == files.wav["utt1"] == f"{tmp_path}/corpus/1.wav"
    for utt in arks.utterances:
        mine, theirs = read_sound(arks.wav[utt]), read_sound(files.wav[utt])
        np.testing.assert_array_equal(mine.samples, theirs.samples)
    names = {path.name for path in (tmp_path / "arks/audio").iterdir()}
    assert names == {"00000.flac.ark", "00000.flac.ark.json"}
