"""Trainings on archives and on stored features are those on single audio files."""

import re

import numpy as np
import pytest
import torch
import yaml

from mambaasr.data.features import store_features
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder
from mambaasr.data.splits import split_lists
from mambaasr.task.features import feature_statistics

FBANK = ["--frontend", "fbank", "--max_epoch", "1"]
# Kind of storage -> the list, and ESPnet's type of what it names.
KINDS = {
    "files": ("wav.scp", "sound"),
    "arks": ("wav.scp", "kaldi_ark"),
    "features": ("feats.scp", "kaldi_ark"),
}


@pytest.fixture(scope="module")
def stored(workspace, tmp_path_factory):
    """The workspace's sets, stored in each way."""
    root = tmp_path_factory.mktemp("stored")
    config = yaml.safe_load(workspace.config.read_text()) | {"frontend": "fbank"}
    for name in ("train", "valid"):
        source = root / "data" / name
        source.mkdir(parents=True)
        utts = [line.split()[0] for line in (workspace.folder / name / "wav.scp").open()]
        for file in ("wav.scp", "text"):
            (source / file).write_text((workspace.folder / name / file).read_text())
        (source / "utt2spk").write_text("".join(f"{utt} someone\n" for utt in utts))
        format_folder(source, root / "files" / name, 16000)
        format_folder(source, root / "arks" / name, 16000, "flac.ark")
        store_features(source, root / "features" / name, config, 16000)
    return root


def arguments(workspace, stored, kind, output, *more, **options):
    """Return the arguments of a training on what is stored in one way."""
    scp, of_type = KINDS[kind]
    words = workspace.arguments(output, *more, **options)
    for name in ("train", "valid"):
        old = f"{name}/wav.scp,speech,sound"
        words[words.index(old)] = f"{stored}/{kind}/{name}/{scp},speech,{of_type}"
    return words


def losses(folder):
    log = (folder / "train.log").read_text()
    return [float(x) for x in re.findall(r"\bloss=([\d.]+)", log.rpartition("epoch results:")[2])]


def test_losses_and_weights_are_the_same(workspace, stored, tmp_path):
    weights = {}
    for kind in KINDS:
        folder = tmp_path / kind
        code, said = workspace.run(arguments(workspace, stored, kind, folder, *FBANK))
        assert code == 0, said
        weights[kind] = torch.load(folder / "1epoch.pth", weights_only=True)
    expected = losses(tmp_path / "files")
    assert len(expected) == 2
    for kind in ("arks", "features"):
        assert losses(tmp_path / kind) == pytest.approx(expected, rel=1e-4)
        assert weights[kind].keys() == weights["files"].keys()
        for name, weight in weights["files"].items():
            torch.testing.assert_close(weights[kind][name], weight, rtol=1e-2, atol=1e-3)
    config = yaml.safe_load((tmp_path / "features/config.yaml").read_text())
    assert (config["input_size"], config["frontend"]) == (80, None)
    assert config["frontend_conf"] == {"hop_length": 160}
    config = yaml.safe_load((tmp_path / "arks/config.yaml").read_text())
    assert (config["input_size"], config["frontend"]) == (None, "fbank")


def test_statistics_are_the_same(stored, tmp_path):
    """Also the lengths, so that batches are."""
    conf = {"frontend": "fbank", "frontend_conf": {"fs": 16000, "hop_length": 160}}
    for kind, (scp, _) in KINDS.items():
        sets = {name: f"{stored}/{kind}/{name}/{scp}" for name in ("train", "valid")}
        feature_statistics(conf, sets, tmp_path / kind)
    for kind in ("arks", "features"):
        for name in ("train", "valid"):
            theirs, ours = tmp_path / "files" / name, tmp_path / kind / name
            for file in ("speech_shape", "feats_lengths"):
                assert (ours / file).read_text() == (theirs / file).read_text()
            with np.load(ours / "feats_stats.npz") as a, np.load(theirs / "feats_stats.npz") as b:
                for key in ("count", "sum", "sum_square"):
                    np.testing.assert_allclose(a[key], b[key], rtol=1e-5)
    # A user's own features: nothing says how long their audio was.
    (stored / "features/valid/utt2num_samples").rename(stored / "aside")
    try:
        sets = {"valid": f"{stored}/features/valid/feats.scp"}
        feature_statistics(conf, sets, tmp_path / "own")
    finally:
        (stored / "aside").rename(stored / "features/valid/utt2num_samples")
    shapes = DataFolder.read(stored / "features/valid").shapes
    said = (tmp_path / "own/valid/speech_shape").read_text()
    assert said == "".join(f"{utt} {shape}\n" for utt, shape in shapes.items())


def test_statistics_of_trainings(workspace, stored, tmp_path):
    """Stage 10: from lengths, with the utterance left out whose text is too long."""
    conf = {"frontend": "fbank", "frontend_conf": {"fs": 16000, "hop_length": 160}}
    sets = {name: f"{stored}/features/{name}/feats.scp" for name in ("train", "valid")}
    feature_statistics(conf, sets, tmp_path / "lengths")
    more = [f"--{x}_shape_file={tmp_path}/lengths/{x}/speech_shape" for x in ("train", "valid")]
    words = arguments(
        workspace, stored, "features", tmp_path / "stats", *more, *FBANK, collect=True
    )
    code, said = workspace.run(words)
    assert code == 0, said
    assert workspace.long in (tmp_path / "stats/train/report.tsv").read_text()
    text = (tmp_path / "stats/train/speech_shape").read_text()
    assert len(text.splitlines()) == 19 and workspace.long not in text


def test_joined_utterances_of_archives(workspace, stored, tmp_path):
    join = ["--join_utterances", "9", "--join_utt2spk", f"{stored}/files/train/utt2spk"]
    for kind in ("files", "arks"):
        words = arguments(workspace, stored, kind, tmp_path / kind, *FBANK, *join)
        code, said = workspace.run(words)
        assert code == 0, said
    assert losses(tmp_path / "arks") == pytest.approx(losses(tmp_path / "files"), rel=1e-4)
    words = arguments(workspace, stored, "features", tmp_path / "features", *FBANK, *join)
    code, said = workspace.run(words)
    assert code == 2 and "it joins audio, and speech is stored features" in said


def test_a_training_set_in_parts(workspace, stored, tmp_path):
    """Every utterance of the statistics is trained on once, whichever part it is in."""
    stats = workspace.folder / "stats/train"
    data = stored / "features/train"
    lists = [f"{data}/feats.scp", f"{data}/text"]
    lists += [f"{stats}/{name}" for name in ("speech_shape", "text_shape.char")]
    paths = {path.rpartition("/")[2]: path for path in lists}
    split_lists(paths, f"{stats}/speech_shape", 3, tmp_path)
    words = arguments(workspace, stored, "features", tmp_path / "exp", *FBANK)
    changed = {f"{path}{end}": f"{tmp_path}/{name}{end}" for name, path in paths.items()
               for end in ("", ",speech,kaldi_ark", ",text,text")}  # fmt: skip
    changed["train/text,text,text"] = f"{tmp_path}/text,text,text"
    changed |= {f"stats/train/{name}": f"{tmp_path}/{name}" for name in paths}
    words = [changed.get(word, word) for word in words] + ["--multiple_iterator", "true"]
    code, said = workspace.run([*words, "--batch_size", "100", "--log_interval", "1"])
    assert code == 0, said
    log = (tmp_path / "exp/train.log").read_text()
    assert log.count("iter-factory...") == 3 and len(losses(tmp_path / "exp")) == 2
    # Of 19 utterances 7, 6 and 6.
    assert re.findall(r"1epoch:train:(\d+)-\d+batch", log) == ["1", "2", "3"]
    (tmp_path / "text/num_splits").unlink()
    code, said = workspace.run(words)
    assert code == 2 and f"{tmp_path}/text: a folder, and no list that was split" in said


@pytest.mark.parametrize("damage", ["truncated", "missing", "offset"])
def test_a_bad_archive_is_named(workspace, stored, tmp_path, damage):
    """As a bad file is: the utterance, in a line before, and what to do."""
    folder = DataFolder.read(stored / "arks/train")
    utt = [utt for utt in folder.utterances if utt != workspace.long][-1]
    path, _, offset = folder.wav[utt].rpartition(":")
    bad = tmp_path / "bad.flac.ark"
    content = open(path, "rb").read()
    if damage != "missing":
        bad.write_bytes(content if damage == "offset" else content[: int(offset) + 500])
    place = f"{bad}:{int(offset) + (3 if damage == 'offset' else 0)}"
    lines = (stored / "arks/train/wav.scp").read_text().replace(folder.wav[utt], place)
    (tmp_path / "wav.scp").write_text(lines)
    words = arguments(workspace, stored, "arks", tmp_path / "exp", *FBANK, "--num_workers", "1")
    words[words.index(f"{stored}/arks/train/wav.scp,speech,kaldi_ark")] = (
        f"{tmp_path}/wav.scp,speech,kaldi_ark"
    )
    code, said = workspace.run(words)
    assert code == 2 and f"id={utt}" in said, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: an audio file is missing or damaged: ")
    assert "run stage 3" in last


def test_a_width_that_does_not_fit(workspace, stored, tmp_path):
    words = arguments(workspace, stored, "features", tmp_path, *FBANK, "--input_size", "40")
    code, said = workspace.run(words)
    assert code == 2 and "--input_size 40" in said and "features of 80 bins" in said
    words = arguments(workspace, stored, "files", tmp_path, *FBANK, "--input_size", "40")
    code, said = workspace.run(words)
    assert code == 2 and "the model reads features, and speech is audio" in said
