"""Decoding of archives and of stored features gives what decoding of the files gives."""

import json

import pytest
import yaml
from tiny_asr import OURS, make_experiment

from mambaasr.bin.asr_inference import main
from mambaasr.data.features import store_features
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder
from mambaasr.errors import UserError


@pytest.fixture(scope="module")
def stored(speech, tmp_path_factory):
    """Six utterances as files, in archives and as features, and a model for each."""
    root = tmp_path_factory.mktemp("stored")
    folder = DataFolder(
        wav={utt: str(path) for utt, path in speech.items()},
        text=dict.fromkeys(speech, "X"),
        utt2spk=dict.fromkeys(speech, "someone"),
    )
    folder.write(root / "data")
    config, weights = make_experiment(
        root / "exp", **OURS | {"frontend_conf": {"fs": 16000, "n_mels": 40}}
    )
    trained = yaml.safe_load(config.read_text())
    trained |= {"frontend": "fbank", "frontend_conf": {"fs": 16000, "n_mels": 40}}
    config.write_text(yaml.safe_dump(trained))
    trained |= {"frontend": None, "input_size": 40}
    (root / "exp/features.yaml").write_text(yaml.safe_dump(trained))
    format_folder(root / "data", root / "files", 16000)
    format_folder(root / "data", root / "arks", 16000, "flac.ark")
    fbank = {"frontend": "fbank", "frontend_conf": {"n_mels": 40}}
    store_features(root / "data", root / "features", fbank, 16000)
    return root


def decode(stored, kind, triple, output, config="config.yaml", *more):
    words = ["--data_path_and_name_and_type", f"{stored}/{kind}/{triple}", "--ctc_weight", "0.5"]
    words += ["--asr_train_config", f"{stored}/exp/{config}", "--output_dir", str(output)]
    words += ["--asr_model_file", f"{stored}/exp/model.pth", "--beam_size", "2"]
    return main([*words, "--maxlenratio", "0.1", *more])


@pytest.mark.parametrize("espnet_search", ["false", "true"])
def test_transcripts_are_the_same(stored, tmp_path, espnet_search):
    for kind, triple, config in (
        ("files", "wav.scp,speech,sound", "config.yaml"),
        ("arks", "wav.scp,speech,kaldi_ark", "config.yaml"),
        ("features", "feats.scp,speech,kaldi_ark", "features.yaml"),
    ):
        more = ["--espnet_search", espnet_search]
        assert decode(stored, kind, triple, tmp_path / kind, config, *more) == 0
    expected = (tmp_path / "files/text").read_text()
    assert len(expected.splitlines()) == 6
    for kind in ("arks", "features"):
        assert (tmp_path / kind / "text").read_text() == expected
        assert (tmp_path / kind / "failed.tsv").read_text() == "utt\tpath\treason\n"
    seconds, frames = (
        json.loads((tmp_path / kind / "decode.json").read_text())["audio_seconds"]
        for kind in ("files", "features")
    )
    assert frames == pytest.approx(seconds, abs=6 * 0.03)


def test_a_place_in_an_archive_decides_what_is_decoded_again(stored, tmp_path):
    """An archive is one file for many utterances."""
    triple = "wav.scp,speech,kaldi_ark"
    decode(stored, "arks", triple, tmp_path / "out")
    first = {path.name for path in (tmp_path / "out/chunks").iterdir()}
    decode(stored, "arks", triple, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out/chunks").iterdir()} == first
    a, b, *rest = (stored / "arks/wav.scp").read_text().splitlines()
    (key_a, at_a), (key_b, at_b) = a.split(), b.split()
    changed = stored / "changed"
    changed.mkdir()
    lines = [f"{key_a} {at_b}", f"{key_b} {at_a}", *rest]
    (changed / "wav.scp").write_text("".join(f"{line}\n" for line in lines))
    decode(stored, "changed", triple, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out/chunks").iterdir()} != first


def test_what_is_bad_is_reported(stored, tmp_path):
    lines = dict(line.split() for line in (stored / "features/feats.scp").read_text().splitlines())
    keys = list(lines)
    arks = dict(line.split() for line in (stored / "arks/wav.scp").read_text().splitlines())
    lines |= {keys[0]: f"{lines[keys[0]]}1", keys[1]: f"{tmp_path}/gone.ark:7"}
    lines |= {keys[2]: arks[keys[2]]}
    other = {"frontend": "fbank", "frontend_conf": {"n_mels": 41}}
    store_features(stored / "data", tmp_path / "other", other, 16000)
    wider = DataFolder.read(tmp_path / "other").wav
    lines |= {keys[3]: wider[keys[3]]}
    bad = stored / "bad"
    bad.mkdir()
    (bad / "feats.scp").write_text("".join(f"{key} {at}\n" for key, at in lines.items()))
    triple = "feats.scp,speech,kaldi_ark"
    assert decode(stored, "bad", triple, tmp_path / "out", "features.yaml") == 0
    rows = [line.split("\t") for line in (tmp_path / "out/failed.tsv").read_text().splitlines()[1:]]
    reasons = {utt: reason for utt, _, reason in rows}
    assert list(reasons) == keys[:4]
    assert "no record begins there" in reasons[keys[0]] and "no such file" in reasons[keys[1]]
    assert "audio, and no features" in reasons[keys[2]]
    assert "41 bins; the model was trained on 40" in reasons[keys[3]]


def test_kinds_that_do_not_fit(stored, tmp_path):
    with pytest.raises(UserError, match="FEATS_SCP,speech,kaldi_ark .the model was trained on"):
        decode(stored, "files", "wav.scp,speech,sound", tmp_path, "features.yaml")
    with pytest.raises(UserError, match="expected WAV_SCP,speech,sound"):
        decode(stored, "files", "wav.scp,speech,npy", tmp_path)
    with pytest.raises(UserError, match="no audio"):
        decode(stored, "features", "feats.scp,speech,kaldi_ark", tmp_path / "out")
