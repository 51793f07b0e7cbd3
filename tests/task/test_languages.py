"""The languages of the training data: checked, named in the options, turned into indices."""

import argparse

import numpy as np
import pytest
import yaml

from mambaasr.errors import UserError
from mambaasr.task import languages

LID = {"ctc_weight": 1.0, "lid_weight": 0.5}


def arguments(tmp_path, conf=LID, model="multilingual", collect_stats=False, **changed):
    """Return a task's options; train is a, b, c in en, de, en, and valid is d in de."""
    files = {"train": "a en\nb de\nc en\n", "valid": "d de\n"} | changed
    options = {"model": model, "model_conf": dict(conf), "collect_stats": collect_stats}
    for name, table in files.items():
        (tmp_path / name).mkdir(exist_ok=True)
        ids = "abc" if name == "train" else "d"
        (tmp_path / name / "wav.scp").write_text("".join(f"{utt} {utt}.wav\n" for utt in ids))
        data = [(str(tmp_path / name / "wav.scp"), "speech", "sound")]
        if table is not None:
            (tmp_path / name / "utt2lang").write_text(table)
            data.append((str(tmp_path / name / "utt2lang"), "lang", "text"))
        options[f"{name}_data_path_and_name_and_type"] = data
    return argparse.Namespace(**options)


def test_languages_are_the_datas_where_none_are_given(tmp_path):
    args = arguments(tmp_path)
    languages.prepare(args)
    assert args.model_conf == LID | {"languages": ["de", "en"]}
    given = LID | {"languages": ["fr", "en", "de"]}
    args = arguments(tmp_path, given)
    languages.prepare(args)
    assert args.model_conf == given


@pytest.mark.parametrize("conf", [LID, {"conditioning": "none"}])
def test_data_that_nothing_asks_for_is_left_out(tmp_path, conf):
    args = arguments(tmp_path, conf, collect_stats=conf is LID)
    languages.prepare(args)
    assert [name for _, name, _ in args.train_data_path_and_name_and_type] == ["speech"]
    if conf is LID:  # statistics do not depend on languages: they are those of ESPnet's model
        assert (args.model, args.model_conf) == ("espnet", {"ctc_weight": 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": "d fr\n"}, "valid/utt2lang:1: utterance 'd' is in 'fr', .* languages: de, en"),
        ({"train": "a en\nb de\n"}, "train/utt2lang: utterance 'c' has no language there"),
        ({"train": "a en\nb de x\n"}, "utt2lang:2: b: more than two columns"),
        ({"train": ""}, "train/utt2lang: the file is empty"),
        ({"valid": None}, "give --valid_data_path_and_name_and_type FOLDER/utt2lang,lang,text"),
        ({"model": "espnet"}, "utt2lang: only `model: multilingual` takes data named lang"),
        ({"conf": LID | {"languages": ["en"]}}, "utt2lang:2: utterance 'b' is in 'de'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        languages.prepare(arguments(tmp_path, **options))


def test_a_language_becomes_an_index_and_the_rest_is_espnets():
    def inner(uid, data):
        return {key: np.array([len(value)]) for key, value in data.items()}

    data = languages.LanguagePreprocessor(inner, ["de", "en"])("u", {"text": "abc", "lang": "en"})
    assert {key: value.tolist() for key, value in data.items()} == {"text": [3], "lang": [1]}
    assert languages.LanguagePreprocessor(None, ["de"])("u", {"lang": "de"})["lang"].tolist() == [0]


def test_training_with_a_head_and_ctc_alone(workspace):
    """It chooses its best epochs by the CER, and config.yaml knows the languages."""
    config = yaml.safe_load(workspace.config.read_text())
    config |= {"decoder": "none", "model": "multilingual", "model_conf": LID, "max_epoch": 1}
    config["best_model_criterion"] = [["valid", "cer_ctc", "min"], ["valid", "lid_acc", "max"]]
    del config["decoder_conf"]
    (workspace.folder / "lid.yaml").write_text(yaml.safe_dump(config))
    more = ["--config", "lid.yaml"]
    for name in ("train", "valid"):
        folder = workspace.folder / name
        ids = [line.split()[0] for line in (folder / "text").read_text().splitlines()]
        (folder / "utt2lang").write_text("".join(f"{u} {'xy'[i % 2]}\n" for i, u in enumerate(ids)))
        more += [f"--{name}_data_path_and_name_and_type", f"{name}/utt2lang,lang,text"]
    code, printed = workspace.run(workspace.arguments("lid", *more))
    assert code == 0, printed
    folder = workspace.folder / "lid"
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["model_conf"]["languages"] == ["x", "y"]
    for name in ("valid.cer_ctc.ave.pth", "valid.lid_acc.ave.pth"):
        assert (folder / name).exists()
    assert "loss_lid=" in (folder / "train.log").read_text()
