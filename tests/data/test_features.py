"""Stored features: those that a training would compute, and those that a user brings."""

import numpy as np
import pytest
import torch
from omniio import kaldi

from mambaasr.data import ark
from mambaasr.data import format as data_format
from mambaasr.data.audio import audio_problems, read_sound
from mambaasr.data.dropped import read_report
from mambaasr.data.features import check_frontend, extracted_features, store_features
from mambaasr.data.filter import filter_folder
from mambaasr.data.folder import DataFolder, fix
from mambaasr.data.format import format_folder
from mambaasr.errors import UserError
from mambaasr.frontend.fbank import Fbank

CONFIG = {"frontend": "fbank", "frontend_conf": {"n_mels": 20}}


@pytest.mark.parametrize("convention", ["kaldi", "whisper"])
def test_they_are_those_of_a_training_on_audio(an4, tmp_path, monkeypatch, convention):
    """Also in a batch, where utterances are padded."""
    monkeypatch.setattr(data_format, "_MAX_PART", 5)
    conf = {"n_mels": 20, "convention": convention}
    config = {"frontend": "fbank", "frontend_conf": conf}
    summary = store_features(an4, tmp_path / "fbank", config, 16000, nj=2)
    assert "12 utterances in, 12 kept (0 were there already), 0 dropped" in summary
    format_folder(an4, tmp_path / "raw", 16000)
    raw, stored = DataFolder.read(tmp_path / "raw"), DataFolder.read(tmp_path / "fbank")
    assert (stored.text, stored.utt2num_samples) == (raw.text, raw.utt2num_samples)
    waves = [torch.from_numpy(read_sound(raw.wav[utt]).samples) for utt in raw.utterances]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    features, lengths = Fbank(16000, **conf)(batch, torch.tensor([len(wave) for wave in waves]))
    theirs = kaldi.load_scp(str(tmp_path / "fbank/feats.scp"))
    for utt, row, length in zip(raw.utterances, features, lengths.tolist(), strict=True):
        matrix = ark.read_matrix(stored.wav[utt])
        np.testing.assert_allclose(matrix, row[:length].numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(theirs[utt], matrix)
        assert stored.shapes[utt] == f"{length},20"
    assert not (tmp_path / "fbank/wav.scp").exists()
    assert audio_problems(stored) == stored.missing_audio() == []
    again = store_features(an4, tmp_path / "fbank", config, 16000)
    assert "12 kept (12 were there already)" in again
    other = {"frontend": "fbank", "frontend_conf": conf | {"n_mels": 21}}
    assert "12 kept (0 were there already)" in store_features(an4, tmp_path / "fbank", other, 16000)


def test_bad_and_short_audio_is_reported(sines, tmp_path):
    path = sines(n=3)
    (tmp_path / "corpus/1.wav").unlink()
    (path / "segments").write_text("a utt0 0 0.02\nb utt0 0.1 0.9\nc utt1 0 -1\n")
    for name in ("text", "utt2spk"):
        (path / name).write_text("a x\nb x\nc x\n")
    summary = store_features(path, tmp_path / "out", CONFIG, 16000, keep_references=True)
    assert "3 utterances in, 1 kept" in summary and "2 dropped, references kept" in summary
    first, second = read_report(tmp_path / "out")
    assert first.reason.endswith("0.wav: 320 samples are too few for a frame of features")
    assert second.utt == "c" and "no such file" in second.reason
    folder = DataFolder.read(tmp_path / "out")
    assert folder.utterances == ["b"] and folder.shapes == {"b": "78,20"}
    assert sorted(folder.text) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "config, said",
    [
        ({}, "frontend: default depend on the batch or are learned"),
        ({"frontend": "s3prl"}, "frontend: s3prl"),
        (CONFIG | {"speech_volume_normalize": 0.9}, "speech_volume_normalize changes the audio"),
        (CONFIG | {"noise_scp": "noise.scp"}, "noise_scp changes the audio"),
    ],
)
def test_what_cannot_be_stored(config, said):
    check_frontend(CONFIG)
    with pytest.raises(UserError, match=said):
        check_frontend(config)


def test_wrong_options_of_the_front_end(sines, tmp_path):
    for conf in ({"n_mels": 0}, {"mels": 20}):
        config = {"frontend": "fbank", "frontend_conf": conf}
        with pytest.raises(UserError, match="frontend_conf: "):
            store_features(sines(), tmp_path / "out", config, 16000)


@pytest.fixture
def own(sines, tmp_path):
    """A folder of five utterances with features of a user's own, and no audio."""
    path = sines(n=5)
    rng = np.random.default_rng(0)
    with kaldi.WriteHelper(f"ark,scp:{tmp_path}/a.ark,{path}/feats.scp") as writer:
        for i in range(5):
            writer[f"utt{i}"] = rng.standard_normal((100 + i, 13)).astype("float32")
    (path / "wav.scp").unlink()
    return path


def test_extracted_features_are_listed(own, tmp_path):
    """The segments of the recordings that they were made of, which Kaldi keeps, are nothing."""
    (own / "segments").write_text("utt0 rec 0 1\n")
    summary = extracted_features(own, tmp_path / "out", nj=2)
    assert "5 utterances in, 5 kept (0 were there already), 0 dropped" in summary
    before, after = DataFolder.read(own), DataFolder.read(tmp_path / "out")
    assert after.wav == before.wav and after.text == before.text
    assert after.shapes == {f"utt{i}": f"{100 + i},13" for i in range(5)}
    assert not (tmp_path / "out/segments").exists()


def test_both_audio_and_features(sines, own, tmp_path):
    """feats.scp counts for the features, wav.scp for all else."""
    features = (own / "feats.scp").read_text()
    sines(n=3)
    (own / "feats.scp").write_text(features)
    with pytest.raises(UserError, match=r"feats.scp:4: utt3: no transcript in text"):
        extracted_features(own, tmp_path / "out")
    (own / "feats.scp").write_text("".join(features.splitlines(keepends=True)[:3]))
    assert "3 kept" in extracted_features(own, tmp_path / "out")
    assert "3 kept" in format_folder(own, tmp_path / "audio", 16000)
    assert (tmp_path / "audio/wav.scp").exists()


def test_bad_extracted_features_are_reported(own, tmp_path):
    """A wrong offset, a missing archive, a truncated one, another width, NaN."""
    places = dict(line.split() for line in (own / "feats.scp").read_text().splitlines())
    odd = {"odd": np.ones((9, 12)), "nan": np.full((9, 13), np.nan)}
    with kaldi.WriteHelper(f"ark,scp:{tmp_path}/b.ark,{tmp_path}/b.scp") as writer:
        for key, matrix in odd.items():
            writer[key] = matrix.astype("float32")
    odd = dict(line.split() for line in (tmp_path / "b.scp").read_text().splitlines())
    ark_file = tmp_path / "a.ark"
    ark_file.write_bytes(ark_file.read_bytes()[:-7])
    path, _, offset = places["utt0"].rpartition(":")
    places |= {"utt0": f"{path}:{int(offset) + 3}", "utt1": f"{tmp_path}/gone.ark:5"}
    places |= {"utt2": odd["odd"], "utt5": places["utt3"]}
    for name in ("text", "utt2spk"):
        (own / name).write_text((own / name).read_text() + "utt5 x\n")
    (own / "feats.scp").write_text("".join(f"{key} {at}\n" for key, at in places.items()))
    summary = extracted_features(own, tmp_path / "out", keep_references=True)
    assert "6 utterances in, 2 kept" in summary and "4 dropped, references kept" in summary
    reasons = {row.utt: row.reason for row in read_report(tmp_path / "out")}
    assert "no record begins there" in reasons["utt0"] and "no such file" in reasons["utt1"]
    assert "12 bins, others have 13" in reasons["utt2"] and "truncated" in reasons["utt4"]
    assert len(DataFolder.read(tmp_path / "out").text) == 6
    with pytest.raises(UserError, match="feats.scp:1: utt0: .*4 such utterances"):
        extracted_features(own, tmp_path / "out", bad_audio="stop")
    (own / "feats.scp").write_text(f"utt0 {odd['nan']}\n")
    for name in ("text", "utt2spk"):
        (own / name).write_text("utt0 x\n")
    with pytest.raises(UserError, match="no utterance can be used.*NaN"):
        extracted_features(own, tmp_path / "out")


def test_features_are_filtered(own, an4, tmp_path):
    extracted_features(own, tmp_path / "org")
    summary = filter_folder(tmp_path / "org", tmp_path / "out", 1.015, 1.03, rate=16000)
    assert "5 utterances in, 2 kept" in summary
    assert DataFolder.read(tmp_path / "out").shapes == {"utt2": "102,13", "utt3": "103,13"}
    with pytest.raises(UserError, match="--non_speech_ratio makes audio"):
        filter_folder(tmp_path / "org", tmp_path / "out", non_speech_ratio=0.5)
    with pytest.raises(UserError, match="no feats_shape; run store_features"):
        filter_folder(own, tmp_path / "out")
    # Ours know how long the audio was: what is kept is what a training on audio keeps.
    store_features(an4, tmp_path / "fbank", CONFIG, 16000)
    format_folder(an4, tmp_path / "raw", 16000)
    middle = sorted(DataFolder.read(tmp_path / "raw").utt2num_samples.values())[6] / 16000
    for kind, rate in (("fbank", 16000), ("raw", None)):
        filter_folder(tmp_path / kind, tmp_path / f"few_{kind}", 0.1, middle, rate=rate)
    few = DataFolder.read(tmp_path / "few_fbank").utterances
    assert few == DataFolder.read(tmp_path / "few_raw").utterances and len(few) == 7


def test_a_folder_of_features_is_mended(own):
    (own / "segments").write_text("utt0 rec 0 1\n")
    (own / "text").write_text("utt0 x\nutt1 x\n")
    folder, problems = DataFolder.scan(own)
    assert fix(folder, problems) == (2, 3)
    assert DataFolder.read(own).utterances == ["utt0", "utt1"]
    assert (own / "segments").exists() and (own / ".backup/feats.scp").exists()
