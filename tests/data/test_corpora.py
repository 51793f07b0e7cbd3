"""Corpora through lhotse, on small trees with the true layouts."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import corpora
import pytest

from mambaasr.data.corpora import prepare_sets
from mambaasr.data.dropped import read_report
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder
from mambaasr.data.known_corpora import CORPORA
from mambaasr.errors import UserError

RULES = Path(__file__).resolve().parents[2] / "egs/TEMPLATE/asr1/text_rules.yaml"
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
        "whole corpus has 2620 utterances and 5.4 hours (here 0.00)"
    ]


def test_an_utterance_of_mls_without_audio_is_not_lost(tmp_path, caplog):
    root = corpora.mls(tmp_path / "mls", ("german",), utterances=3)
    gone = root / "mls_german/test/audio/10/20/10_20_000001.flac"
    gone.unlink()
    prepare_sets("mls", root, {"test": ["german-test"]}, tmp_path / "data")
    folder = DataFolder.read(tmp_path / "data/test")
    assert folder.text["de-10_20_000001"] == "als es anfing" and folder.segments is None
    assert folder.wav["de-10_20_000001"] == str(gone)
    assert folder.utt2lang["de-10_20_000001"] == "de"
    assert [problem.key for problem in folder.missing_audio()] == ["de-10_20_000001"]
    said = [line for line in caplog.messages if line.startswith("mls german-test")]
    assert said == [
        "mls german-test: 3 utterances, 1 of them without audio, which stage 3 reports; the whole "
        "corpus has 3394 utterances and 14.29 hours (here 0.00)"
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


def test_spgispeech_without_a_folder_of_its_own_or_without_audio(tmp_path, caplog):
    root = corpora.spgispeech(tmp_path / "spgi", 2)
    for part in ("train", "val"):
        (root / "spgispeech" / part).rename(root / part)
    (root / "val/07a785/2.wav").unlink()
    assert prepare_sets("spgispeech", root, {"val": ["val"]}, tmp_path / "data") == {"val": 2}
    folder = DataFolder.read(tmp_path / "data/val")
    assert folder.utt2spk == {"07a785_1": "07a785", "07a785_2": "07a785"}
    assert [problem.key for problem in folder.missing_audio()] == ["07a785_2"]
    assert "2 utterances, 1 of them without audio" in caplog.text and "39341" in caplog.text
    (root / "val.csv").unlink()
    with pytest.raises(UserError, match="val.csv: no such file; https://datasets.kensho.com"):
        prepare_sets("spgispeech", root, {"val": ["val"]}, tmp_path / "data")


def test_fleurs(tmp_path, caplog, monkeypatch):
    """Without lhotse; sentences are several readers', whose names are not known."""
    monkeypatch.setitem(sys.modules, "lhotse", None)
    root = corpora.fleurs(tmp_path / "fleurs", ["en_us", "cmn_hans_cn", "tr_tr", "fa_ir"])
    codes = ("en_us", "cmn_hans_cn", "tr_tr", "fa_ir")
    sets = {"test": [f"{code}-test" for code in codes]}
    prepare_sets("fleurs", root, sets, tmp_path / "data", text_rules=RULES)
    folder = DataFolder.read(tmp_path / "data/test")
    assert len(folder.utterances) == 8 and len(set(folder.utt2spk.values())) == 8
    assert folder.missing_audio() == []
    texts = {folder.utt2lang[utt]: text for utt, text in folder.text.items()}
    assert texts == {
        "en_us": "so it began again",
        "cmn_hans_cn": "这是开始",
        "tr_tr": "ığdır'da başladı",
        "fa_ir": "می\u200cخواهم آغاز",
    }
    root = corpora.fleurs(tmp_path / "more", ["vi_vn"])
    prepare_sets("fleurs", root, {"dev": ["vi_vn-dev"]}, tmp_path / "data", text_rules=RULES)
    assert list(DataFolder.read(tmp_path / "data/dev").text.values()) == ["", ""]
    assert "dev.tsv:2: a row without an audio file" in caplog.text
    assert "dev.tsv:4: a row without an audio file" in caplog.text
    with pytest.raises(UserError, match="fleurs has no part 'en_gb-test'"):
        prepare_sets("fleurs", root, {"test": ["en_gb-test"]}, tmp_path / "data")


def test_voxpopuli(tmp_path, caplog):
    root = corpora.voxpopuli(tmp_path / "voxpopuli", ["de", "en_accented"])
    sets = {"dev": ["de-dev"], "accented": ["en_accented-test"]}
    prepare_sets("voxpopuli", root, sets, tmp_path / "data")
    dev = DataFolder.read(tmp_path / "data/dev")
    first, second = (f"de-20110206-0900-PLENARY-15-de_20110206-16:10:0{n}_{n}" for n in (0, 1))
    assert dev.utt2spk == {first: "de-124991", second: second} and dev.missing_audio() == []
    assert set(dev.text.values()) == {"so it began again"} and set(dev.utt2lang.values()) == {"de"}
    accented = DataFolder.read(tmp_path / "data/accented")
    assert set(accented.utt2lang.values()) == {"en"} and accented.missing_audio() == []


def test_a_language_of_common_voice_that_came_later(tmp_path):
    root = corpora.commonvoice(tmp_path / "cv", ["nan-tw"])
    assert prepare_sets("commonvoice", root, {"dev": ["nan-tw-dev"]}, tmp_path / "data")
    assert set(DataFolder.read(tmp_path / "data/dev").utt2lang.values()) == {"nan-tw"}
    for part in ("dev", "nan-tw-devel", "../cv/nan-tw-dev", "-dev"):
        with pytest.raises(UserError, match="commonvoice has no part"):
            prepare_sets("commonvoice", root, {"dev": [part]}, tmp_path / "data")


def test_common_voice(tmp_path, caplog, monkeypatch):
    """Without lhotse; clips that are not there stay in the set, sentences are by rules."""
    monkeypatch.setitem(sys.modules, "lhotse", None)
    root = corpora.commonvoice(tmp_path / "cv", ["de", "zh-CN"])
    gone = root / "zh-CN/clips/common_voice_zh-CN_test_10.mp3"
    gone.unlink()
    rules = tmp_path / "rules.yaml"
    rules.write_text("default: {}\nzh-CN: {spaces: false}\n")
    sets = {"test": ["de-test", "zh-CN-test"]}
    assert prepare_sets("commonvoice", root, sets, tmp_path / "data", text_rules=rules)
    folder = DataFolder.read(tmp_path / "data/test")
    texts = {"de": "wie geht's gut", "zh-CN": "wiegeht'sgut"}
    assert len(folder.utterances) == 4
    for utt, text in folder.text.items():
        assert text == texts[folder.utt2lang[utt]]
    assert "zh-CN-test: 2 utterances, 1 of them without audio" in caplog.text
    (problem,) = folder.missing_audio()
    assert gone.stem in str(problem)
    raw = (tmp_path / "data/test/text.raw").read_text(encoding="utf-8").splitlines()
    assert len(raw) == 4 and raw[0].endswith('"Wie geht’s?" – gut')
    assert len(set(folder.utt2spk.values())) == 4 and "de-test" + 125 * "0" + "1" in set(
        folder.utt2spk.values()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("client_id\tsentence\n", "test.tsv:1: no column path"),
        ("client_id\tpath\tsentence\ns\t../x.mp3\thi\n", "test.tsv:2: no clip or no speaker"),
        ("client_id\tpath\tsentence\ns\t/x.mp3\thi\n", "test.tsv:2: no clip or no speaker"),
        ("client_id\tpath\tsentence\ns\ta\thi\ns\ta\tho\n", "test.tsv:3: a is there twice"),
        (None, "test.tsv: no such file; https://commonvoice"),
    ],
)
def test_bad_lists_of_common_voice(tmp_path, content, message):
    root = corpora.commonvoice(tmp_path / "cv", ["de"])
    path = root / "de/test.tsv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        prepare_sets("commonvoice", root, {"test": ["de-test"]}, tmp_path / "data")


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


@pytest.mark.parametrize(
    ("name", "make", "part", "file", "nj"),
    [
        (
            "librispeech",
            lambda root: corpora.librispeech(root, ["dev-clean"]),
            "dev-clean",
            "*1.flac",
            1,
        ),
        ("aishell", corpora.aishell, "dev", "dev/S0724/*123.wav", 1),
        (
            "mls",
            lambda root: corpora.mls(root, ("german", "dutch"), 2),
            "dutch-dev",
            "mls_dutch/dev/**/*0.flac",
            2,
        ),
        ("tedlium3", corpora.tedlium, "dev", "dev/sph/*.sph", 1),
    ],
)
@pytest.mark.parametrize("content", [b"", b"RIFF and no more"])
def test_a_damaged_file_ends_nothing(tmp_path, caplog, name, make, part, file, nj, content):
    root = make(tmp_path / "corpus")
    (damaged,) = root.rglob(file)
    damaged.write_bytes(content)
    prepare_sets(name, root, {"a": [part]}, tmp_path / "data", nj)
    assert f"1 files that cannot be read (first {damaged})" in caplog.text
    folder = DataFolder.read(tmp_path / "data/a")
    assert len(folder.utterances) == 2
    if name != "tedlium3":  # one talk
        assert folder.segments is None
        format_folder(tmp_path / "data/a", tmp_path / "dump", 16000, keep_references=True)
        (row,) = read_report(tmp_path / "dump")
        assert str(damaged) in row.reason
        assert len(DataFolder.read(tmp_path / "dump").text) == 2


def test_gigaspeech(tmp_path, caplog):
    """A segment is in a set when it names the subset itself; what is no speech is left out."""
    root = corpora.gigaspeech(tmp_path / "GigaSpeech")
    sets = {"train": ["XL"], "large": ["L"], "dev": ["DEV"]}
    counts = prepare_sets("gigaspeech", root, sets, tmp_path / "data")
    assert counts == {"train": 2, "large": 1, "dev": 1}
    train = DataFolder.read(tmp_path / "data/train")
    assert dict(train.text) == {
        "POD0000000025_S0000000": "FOUR O'CLOCK TOMORROW AFTERNOON SAID WILLIAMS",
        "POD0000000025_S0000001": "IS THAT THE STATE-OF-THE-ART",
    }
    # "N/A" is nobody: who speaks in one recording is nobody's neighbour in another.
    assert set(train.utt2spk.values()) == {"POD0000000025"}
    path, start, end = train.source("POD0000000025_S0000001")
    assert path == str(root / "audio/podcast/P0001/POD0000000025.opus") and 0 < start < end
    assert (
        "1 utterances, 1 more are no speech and left out; the whole corpus has 6750" in caplog.text
    )
    format_folder(tmp_path / "data/train", tmp_path / "dump", 16000)
    assert len(DataFolder.read(tmp_path / "dump").text) == 2


def test_a_stopped_preparation_leaves_nothing_that_counts(tmp_path, monkeypatch):
    root = corpora.gigaspeech(tmp_path / "GigaSpeech")
    path = root / "GigaSpeech.json"
    whole = path.read_text()
    for text, message in (
        (whole.replace('"aid"', '"id"'), "lhotse cannot read it as gigaspeech: KeyError: 'aid'"),
        (whole[:3000], 'GigaSpeech.json: the list "audios" breaks off'),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            prepare_sets("gigaspeech", root, {"dev": ["DEV"]}, tmp_path / "data")
        assert not (tmp_path / "data/dev").exists()
    path.unlink()
    with pytest.raises(UserError, match="GigaSpeech.json: no such file; https"):
        prepare_sets("gigaspeech", root, {"dev": ["DEV"]}, tmp_path / "data")

    def stopped(*_):
        raise KeyboardInterrupt

    path.write_text(whole)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("lhotse.recipes.gigaspeech.parse_utterance", stopped)
        prepare_sets("gigaspeech", root, {"dev": ["DEV"]}, tmp_path / "data")
    assert not (tmp_path / "data/dev").exists()
    assert prepare_sets("gigaspeech", root, {"dev": ["DEV"]}, tmp_path / "data") == {"dev": 1}


def repeated(path):
    """Let a list end with its last line once more, and more text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, f"{lines[-1]} more"]) + "\n", encoding="utf-8")


def repeated_segment(path):
    content = json.loads(path.read_text())
    segments = content["audios"][0]["segments"]
    segments.append(segments[0] | {"text_tn": "ANOTHER"})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "make", "part", "file", "spoil", "message"),
    [
        (
            "librispeech",
            lambda root: corpora.librispeech(root, ["dev-clean"]),
            "dev-clean",
            "*.trans.txt",
            repeated,
            "19-198.trans.txt:3: 19-198-0001 is there twice",
        ),
        (
            "aishell",
            corpora.aishell,
            "test",
            "aishell_transcript_v0.8.txt",
            repeated,
            "_v0.8.txt:7: BAC009S0764W0123 is there twice",
        ),
        (
            "mls",
            lambda root: corpora.mls(root, ("german",)),
            "german-test",
            "test/transcripts.txt",
            repeated,
            "mls_german/test/transcripts.txt:2: 10_20_000000 is there twice",
        ),
        (
            "spgispeech",
            corpora.spgispeech,
            "val",
            "val.csv",
            repeated,
            r"val.csv:\d: 07a785_1 is there twice",
        ),
        (
            "gigaspeech",
            corpora.gigaspeech,
            "XL",
            "GigaSpeech.json",
            repeated_segment,
            "gigaspeech XL: POD0000000025_S0000000 is there twice",
        ),
    ],
)
def test_an_utterance_that_is_there_twice(tmp_path, name, make, part, file, spoil, message):
    root = make(tmp_path / "corpus")
    (path,) = root.rglob(file)
    spoil(path)
    with pytest.raises(UserError, match=message):
        prepare_sets(name, root, {"a": [part]}, tmp_path / "data")
    assert not (tmp_path / "data/a").exists()


@pytest.mark.parametrize("name", CORPORA)
def test_a_folder_that_holds_something_else(tmp_path, name):
    with pytest.raises(UserError, match=str(tmp_path)):
        prepare_sets(name, tmp_path, {"a": [next(iter(CORPORA[name].parts))]}, tmp_path / "data")
    assert not (tmp_path / "data/a").exists()


def test_csj(tmp_path):
    """Shift-JIS, tags in the transcripts, and test sets that are lists of talks."""
    root = corpora.csj(tmp_path / "CSJ")
    sets = {"train": ["noncore"], "dev": ["core"], "eval1": ["eval1"]}
    assert prepare_sets("csj", root, sets, tmp_path / "data") == {"train": 4, "dev": 4, "eval1": 20}
    dev = DataFolder.read(tmp_path / "data/dev")
    assert dev.text["A01F0055_0001"] == "えーはい" and dev.text["A01F0055_0002"] == "そうです"
    assert dev.utt2spk["A01F0055_0001"] == "A01F0055"
    assert dev.missing_audio() == []
    assert len(list((tmp_path / "data/.lhotse/csj").glob("*.jsonl.gz"))) == 6
    (root / "WAV/noncore/A01F0067.wav").unlink()
    with pytest.raises(UserError, match="lhotse cannot read it as csj: .*A01F0067.wav"):
        prepare_sets("csj", root, sets, tmp_path / "data")


def test_official_sizes(tmp_path, caplog, monkeypatch):
    """Utterances exactly, hours within what publishers round; each only where it is known."""
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["test-clean"])
    hours = 2.2 / 3600
    corpus = CORPORA["librispeech"]
    for count, length, said in (
        (2, hours, None),
        (2, None, None),
        (None, 1.04 * hours, None),
        (3, hours, "2 utterances; the whole corpus has 3 utterances"),
        (2, 1, "2 utterances; the whole corpus has 1 hours (here 0.00)"),
        (3, 1, "2 utterances; the whole corpus has 3 utterances and 1 hours (here 0.00)"),
    ):
        caplog.clear()
        known = {"test-clean": length} if length else {}
        changed = dataclasses.replace(corpus, parts={"test-clean": count}, hours=known)
        monkeypatch.setitem(CORPORA, "librispeech", changed)
        prepare_sets("librispeech", root, {"test": ["test-clean"]}, tmp_path / "data")
        found = [line for line in caplog.messages if line.startswith("librispeech test-clean")]
        assert found == ([f"librispeech test-clean: {said}"] if said else [])


def test_sizes_are_of_parts_that_there_are():
    for corpus in CORPORA.values():
        assert corpus.hours.keys() <= corpus.parts.keys()


def test_corrected_transcripts_and_another_corpus_come_through(tmp_path):
    sets = {"dev": ["german-dev"]}
    for text, name in (("als es anfing", "a"), ("als es endete", "a"), ("zuletzt", "b")):
        root = tmp_path / name
        if not root.is_dir():
            corpora.mls(root, ("german",))
        (root / "mls_german/dev/transcripts.txt").write_text(f"10_20_000000\t{text}\n")
        prepare_sets("mls", root, sets, tmp_path / "data")
        folder = DataFolder.read(tmp_path / "data/dev")
        assert list(folder.text.values()) == [text]
        assert folder.wav["de-10_20_000000"].startswith(f"{root}/")


def test_without_lhotse_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lhotse", None)
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["test-clean"])
    with pytest.raises(UserError, match="make env"):
        prepare_sets("librispeech", root, {"a": ["test-clean"]}, tmp_path / "data")
