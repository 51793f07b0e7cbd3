"""What an experiment's folder says of its model."""

import json
import os
import shutil

import pytest

from mambaasr.decode.experiment import UNKNOWN, open_experiment
from mambaasr.errors import UserError


@pytest.fixture
def folder(experiment, tmp_path):
    for path in experiment:
        shutil.copy(path, tmp_path)
    (tmp_path / "model.pth").rename(tmp_path / "valid.acc.ave.pth")
    return tmp_path


def decoded(folder, name, options, **more):
    path = folder / name / "test/decode.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"options": options, **more}))
    return path


def test_the_averaged_model_and_what_is_known_of_it(folder):
    found = open_experiment(folder)
    assert found.weights == folder / "valid.acc.ave.pth" and found.options == {}
    assert found.search == "joint" and found.prompt == "" and found.lm is None
    assert found.seconds is None and found.longest == found.usual == UNKNOWN
    assert open_experiment(found.weights).config == folder / "config.yaml"


def test_options_of_the_last_decoding(folder, caplog):
    first = decoded(folder, "old", {"beam_size": 3, "search": "attention"})
    os.utime(first, (1, 1))
    lm = folder / "lm/valid.loss.ave.pth"
    lm.parent.mkdir()
    lm.touch()
    decoded(
        *(folder, "new", {"beam_size": 7, "ctc_weight": 0.4, "nbest": 9, "search": "rescore"}),
        **dict(prompt="<|{lang}|>", prompts=["<|de|>", "<|en|>"], lm_file=str(lm)),
        ngram_file="gone.arpa",
    )
    found = open_experiment(folder)
    assert found.options == {"beam_size": 7, "ctc_weight": 0.4} and found.search == "rescore"
    assert found.prompt == "<|{lang}|>" and found.lm == (lm.with_name("config.yaml"), lm)
    assert found.ngram is None and "gone.arpa, which is not there" in caplog.text


def test_prompts_of_which_none_can_be_taken(folder, caplog):
    decoded(folder, "old", {}, prompts=["<|de|>", "<|en|>"])
    assert open_experiment(folder).prompt == "" and "several prompts, none is taken" in caplog.text


def test_lengths_of_the_training(folder):
    shapes = folder / "speech_shape"
    shapes.write_text("".join(f"u{n} {16000 * n}\n" for n in range(1, 102)))
    config = folder / "config.yaml"
    text = config.read_text().replace("train_shape_file: []", f"train_shape_file: [{shapes}]")
    config.write_text(text)
    found = open_experiment(folder)
    assert found.usual == 51.0 and found.longest == 96.0
    noted = [{"seconds": {"0.5": 4.0, "0.95": 6.0}}]
    (folder / "provenance.json").write_text(json.dumps(noted))
    found = open_experiment(folder)
    assert found.usual == 4.0 and found.longest == 6.0


def test_what_is_no_experiment(folder, tmp_path):
    (folder / "valid.acc.ave.pth").rename(folder / "3epoch.pth")
    with pytest.raises(UserError, match="valid.acc.ave.pth: no such file; there are: 3epoch.pth"):
        open_experiment(folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(UserError, match="config.yaml: no such file"):
        open_experiment(folder)
    with pytest.raises(UserError, match="no such model: name an experiment's folder"):
        open_experiment(tmp_path / "gone")
