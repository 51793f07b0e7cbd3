"""Corpora through lhotse, on small trees with the true layouts."""

import importlib.util
import sys

import corpora
import pytest

from mambaasr.data.corpora import prepare_sets
from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lhotse") is None, reason="lhotse is not installed"
)


def test_librispeech_parts_become_sets(tmp_path):
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["dev-clean", "dev-other", "test-clean"])
    sets = {"dev": ["dev-clean", "dev-other"], "test_clean": ["test-clean"]}
    counts = prepare_sets("librispeech", root, sets, tmp_path / "data", nj=2)
    assert counts == {"dev": 4, "test_clean": 2}
    dev = DataFolder.read(tmp_path / "data/dev")
    assert dev.utterances == ["19-198-0000", "19-198-0001", "20-198-0000", "20-198-0001"]
    assert dev.segments is None and dev.missing_audio() == []
    assert dev.utt2spk["20-198-0001"] == "20"
    assert dev.text["19-198-0000"] == "SO IT BEGAN AGAIN"
    assert dev.wav["19-198-0000"] == str(root / "dev-clean/19/198/19-198-0000.flac")


def test_an_utterance_without_audio_is_not_lost(tmp_path, caplog):
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["test-clean"], utterances=3)
    gone = root / "test-clean/19/198/19-198-0001.flac"
    gone.unlink()
    prepare_sets("librispeech", root, {"test_clean": ["test-clean"]}, tmp_path / "data")
    folder = DataFolder.read(tmp_path / "data/test_clean")
    assert folder.text["19-198-0001"] == "SO IT BEGAN AGAIN"
    assert [problem.key for problem in folder.missing_audio()] == ["19-198-0001"]
    said = [line for line in caplog.messages if line.startswith("librispeech test-clean")]
    assert said == [
        "librispeech test-clean: 3 utterances, 1 of them without audio, which stage 3 reports; the "
        "whole corpus has 2620"
    ]


def test_aishell_is_written_without_spaces(tmp_path):
    root = corpora.aishell(tmp_path / "aishell")
    (root / "data_aishell/wav/test/S0764/BAC009S0764W0123.wav").unlink()
    sets = {part: [part] for part in ("train", "dev", "test")}
    assert prepare_sets("aishell", root, sets, tmp_path / "data") == dict.fromkeys(sets, 2)
    test = DataFolder.read(tmp_path / "data/test")
    assert set(test.text.values()) == {"而对楼市成交"}
    assert test.utt2spk == {"BAC009S0764W0122": "S0764", "BAC009S0764W0123": "S0764"}
    assert [problem.key for problem in test.missing_audio()] == ["BAC009S0764W0123"]


def test_talks_become_segments(tmp_path):
    root = corpora.tedlium(tmp_path / "TEDLIUM_release-3")
    assert prepare_sets("tedlium3", root, {"dev": ["dev"]}, tmp_path / "data") == {"dev": 2}
    dev = DataFolder.read(tmp_path / "data/dev")
    assert dict(dev.text) == {"Speaker_dev-0": "it's here", "Speaker_dev-2": "and there"}
    assert dev.source("Speaker_dev-0")[1:] == (0.5, 1.25)
    assert dev.missing_audio() == []


def test_spgispeech(tmp_path):
    root = corpora.spgispeech(tmp_path / "spgi")
    assert prepare_sets("spgispeech", root, {"val": ["val"]}, tmp_path / "data") == {"val": 1}
    assert dict(DataFolder.read(tmp_path / "data/val").text) == {"07a785_1": "we're up 3 tom"}


def test_languages_of_mls(tmp_path):
    root = corpora.mls(tmp_path / "mls", ("german", "italian"))
    sets = {"dev": ["german-dev", "italian-dev"], "test_it": ["italian-test"]}
    assert prepare_sets("mls", root, sets, tmp_path / "data") == {"dev": 2, "test_it": 1}
    dev = DataFolder.read(tmp_path / "data/dev")
    assert dev.utt2lang == {"de-10_20_000000": "de", "it-10_20_000000": "it"}
    assert dev.utt2spk["it-10_20_000000"] == "it-10" and dev.missing_audio() == []
    with pytest.raises(UserError, match="mls_polish: no such folder: unpack mls_polish.tar.gz"):
        prepare_sets("mls", root, {"a": ["polish-dev"]}, tmp_path / "more")


@pytest.mark.parametrize(
    ("name", "sets", "message"),
    [
        ("librispeech", {"a": ["test-clear"]}, "librispeech has no part 'test-clear'; it has: tr"),
        ("aishell", {"a": ["train"]}, "data_aishell/wav/train: no such folder: unpack"),
        ("tedlium3", {"a": ["dev"]}, "lhotse cannot read it as tedlium3"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, name, sets, message):
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["test-clean"])
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        prepare_sets(name, root, sets, tmp_path / "data")
    assert not list((tmp_path / "data").glob("[a-z]*"))


def test_a_damaged_file_is_named(tmp_path):
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["test-clean"])
    (root / "test-clean/19/198/19-198-0001.flac").write_bytes(b"fLaC and no more")
    with pytest.raises(UserError, match="19-198-0001.flac"):
        prepare_sets("librispeech", root, {"a": ["test-clean"]}, tmp_path / "data")


def test_without_lhotse_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lhotse", None)
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["test-clean"])
    with pytest.raises(UserError, match="make env"):
        prepare_sets("librispeech", root, {"a": ["test-clean"]}, tmp_path / "data")
