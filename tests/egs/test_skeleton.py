"""The data stage of a new recipe: what it reads, how it splits, what it refuses."""

import importlib.util
import re

import pytest
from recipes import ROOT

from mambaasr import fingerprint
from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

SCRIPT = ROOT / "egs/TEMPLATE/asr1/skeleton/local/data.py"
SETS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def data():
    """local/data.py as a module."""
    spec = importlib.util.spec_from_file_location("skeleton_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, **texts):
    """Write a corpus of empty recordings; nothing here reads audio."""
    folder.mkdir(parents=True)
    for name in texts:
        (folder / f"{name}.wav").touch()
    lines = [f"{name} {text}\n" for name, text in texts.items()]
    (folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def sizes(data, share, **speakers):
    """Return set -> utterances of a split of speakers with so many utterances each."""
    utterances = [
        data.Utterance(f"{name}_{i}", name, None, "")
        for name, n in speakers.items()
        for i in range(n)
    ]
    sets = data.split(utterances, share)
    assert sorted(sum(sets.values(), [])) == sorted(utterances)
    return sets


def test_no_speaker_is_in_two_sets(data):
    sets = sizes(data, 0.1, **{f"s{i}": 10 for i in range(20)})
    assert {name: len(found) for name, found in sets.items()} == {
        "train": 160,
        "dev": 20,
        "test": 20,
    }
    speakers = [{utterance.speaker for utterance in found} for found in sets.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers))


@pytest.mark.parametrize("counts", [{"a": 90, "b": 5, "c": 5}, {"a": 1, "b": 1, "c": 1}])
def test_every_set_has_a_speaker_and_the_largest_is_for_training(data, counts):
    sets = sizes(data, 0.1, **counts)
    assert all(sets.values())
    assert counts["a"] == 1 or {utterance.speaker for utterance in sets["train"]} == {"a"}


def test_one_speaker_is_shared_and_named(data, capsys):
    sets = sizes(data, 0.2, a=10)
    assert {name: len(found) for name, found in sets.items()} == {"train": 6, "dev": 2, "test": 2}
    assert "fewer than 3 speakers (a)" in capsys.readouterr().out


def test_given_sets_are_taken(data, tmp_path):
    for name in SETS:
        write(tmp_path / "corpus" / name, **{f"{name}_1": "Ja, gewiß", f"{name}_2": "nein"})
    data.main([f"--corpus={tmp_path / 'corpus'}", f"--data_dir={tmp_path / 'data'}", "--nj=3"])
    for name in SETS:
        folder = DataFolder.read(tmp_path / "data" / name)
        assert folder.text == {f"{name}_1": "JA GEWISS", f"{name}_2": "NEIN"}
        assert set(folder.utt2spk.values()) == {name}


def test_what_has_no_transcript_is_counted(data, tmp_path, capsys):
    corpus = write(tmp_path / "corpus", a_1="x", b_1="y", c_1="z")
    (corpus / "d_1.wav").touch()
    data.main([f"--corpus={corpus}", f"--data_dir={tmp_path / 'data'}"])
    said = capsys.readouterr().out
    assert "1 recordings have no transcript" in said and "as many speakers" not in said


def test_every_kind_of_audio_that_the_guide_names_is_found(data, tmp_path):
    guide = (ROOT / "docs/your_corpus.md").read_text(encoding="utf-8")
    (kinds,) = re.findall(r"one utterance a file \(([^)]*?), any rate", guide)
    kinds = re.split(", | or ", kinds)
    assert {"WAV", "M4A", "WebM"} <= set(kinds)
    names = [f"{kind}_1.{kind.lower()}" for kind in [*kinds, "mp4", "aac", "opus"]]
    names = [name.replace(".ogg", ".OGG") for name in names]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "text.txt").write_text("".join(f"{name} x\n" for name in names))
    assert sorted(utterance.path.name for utterance in data.read(tmp_path)) == sorted(names)
    assert set(data.AUDIO) <= fingerprint.AUDIO


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("a_1 x\nb_1 y\n", "text.txt:2: 'b_1' has no recording"),
        ("a_1 x\na_1.wav y\n", "text.txt:2: 'a_1' stands there twice"),
    ],
)
def test_a_wrong_line_is_named(data, tmp_path, lines, complaint):
    corpus = write(tmp_path / "corpus", a_1="x")
    (corpus / "text.txt").write_bytes(lines.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=complaint):
        data.read(corpus)


def test_a_corpus_that_is_not_there_is_named(data, tmp_path):
    with pytest.raises(UserError, match="CORPUS=/folder"):
        data.main([f"--corpus={tmp_path / 'downloads'}"])
    with pytest.raises(UserError, match="NAME WORDS"):
        data.main([f"--corpus={tmp_path}"])
