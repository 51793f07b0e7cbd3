"""Stages 6 to 8, and decoding with the language model, on a few recordings."""

import json
import shlex

import pytest
from recipes import NEEDED, call, some_of_an4, steps_of

CONFIG = """
lm: mamba
lm_conf: {unit: 16, num_blocks: 1}
optim: adam
batch_type: unsorted
batch_size: 4
max_epoch: 1
num_workers: 0
num_att_plot: 0
use_matplotlib: false
use_tensorboard: false
"""
LM = ["--use_lm", "true", "--lm_config", "conf/train_lm.yaml", "--nj", "1", "--inference_nj", "1"]


@pytest.fixture
def prepared(recipe, test_data):
    """A recipe whose stages 1 to 5 are done, with a config for the language model."""
    some_of_an4(test_data, recipe)
    (recipe / "conf/train_lm.yaml").write_text(CONFIG)
    assert call(recipe, *NEEDED, "--stop_stage", "5", "--nj", "1").returncode == 0
    return recipe


@pytest.mark.slow
def test_stages_6_to_8_and_again(prepared):
    options = [*NEEDED, *LM, "--stage", "6", "--stop_stage", "8"]
    first = steps_of(call(prepared, *options))
    assert list(first) == [
        "6: text for training",
        "6: text for validation",
        "6: statistics of the texts",
        "7: training of the language model",
        "8: perplexity",
    ]
    assert set(first.values()) == {"it was not done yet"}
    folder = prepared / "exp/lm_train_lm_char"
    measured = json.loads((folder / "perplexity_test/perplexity.json").read_text())
    assert measured["texts"] == 3 and measured["unknown_tokens"] < 10
    assert 10 < measured["perplexity"] < 30
    assert set(steps_of(call(prepared, *options)).values()) == {"done already"}

    # Another model shares texts and statistics; without one, nothing is trained.
    tag = ["--lm_args", "--lm_conf unit=24", "--stop_stage", "6"]
    assert set(steps_of(call(prepared, *options, *tag)).values()) == {"done already"}
    taken = call(
        prepared, *NEEDED, *LM[:2], "--lm_exp=exp/lm_train_lm_char", "--stage=6", "--stop_stage=8"
    )
    assert steps_of(taken) == {"8: perplexity": "done already"}
    assert "exp/lm_train_lm_char is taken as it is" in taken.stdout


def test_texts_of_ones_own(prepared):
    """Several files, in folders with odd names; what cannot be used is named."""
    more = prepared / "more text"
    more.write_bytes(b"x1 ONE TWO\n\nx2\nx1 AGAIN\nx3 \xff\nx4 THREE\r\n")
    own = f"dump/raw/train/text {shlex.quote(str(more))}"
    options = [*NEEDED, *LM, "--stage", "6", "--stop_stage", "6", "--lm_train_text", own]
    options += ["--lm_stats_dir", "exp/own"]
    (prepared / "exp/own").mkdir(parents=True)
    (prepared / "exp/own/log").touch()  # the statistics themselves are another test's
    done = call(prepared, *options)
    assert "log/6_statistics_of_the_texts.log: cannot be written" in done.stderr
    (joined,) = (prepared / "dump/raw").glob("lm_train_*.txt")
    assert f"dump/raw/{joined.name}: 14 texts; 3 lines left out" in done.stdout
    lines = joined.read_text().splitlines()
    assert lines[-2:] == ["x1 ONE TWO", "x4 THREE"] and len(lines) == 14
    report = (prepared / f"{joined}.report/report.tsv").read_text()
    for line, reason in ((3, "there is no text"), (4, "the id occurred"), (5, "not UTF-8")):
        assert f"{more}:{line}\t" in report and reason in report


def test_an_ngram_model(prepared):
    """Its text is that of stage 6; what is right is not made again."""
    options = [*NEEDED, "--use_ngram", "true", "--stage", "9", "--stop_stage", "9"]
    first = steps_of(call(prepared, *options))
    assert first == dict.fromkeys(
        ("6: text for training", "9: 3-gram model"), "it was not done yet"
    )
    lines = (prepared / "exp/ngram_char/3gram.arpa").read_text().splitlines()
    assert lines[0] == "\\data\\" and lines[-1] == "\\end\\"
    assert any(line.partition("\t")[2] == "O N E" for line in lines)
    again = steps_of(call(prepared, *options, "--ngram_num", "2"))
    assert again["6: text for training"] == "done already" and "9: 2-gram model" in again
    assert set(steps_of(call(prepared, *options)).values()) == {"done already"}


@pytest.mark.slow
def test_decoding_with_it(prepared):
    from tiny_asr import OURS, make_experiment
    from tiny_lm import make_lm_experiment

    _, weights = make_experiment(prepared / "exp/asr", **OURS)
    _, lm = make_lm_experiment(prepared / "exp/lm")
    options = [*NEEDED, "--stage", "12", "--stop_stage", "12", "--asr_exp", "exp/asr"]
    options += ["--inference_asr_model", weights.name, "--inference_lm", lm.name]
    options += ["--use_lm", "true", "--lm_exp", "exp/lm", "--inference_nj", "1"]
    missing = call(prepared, *options, "--lm_exp", "exp/none")
    assert missing.returncode == 2 and "exp/none/lm.pth: no such model" in missing.stderr
    args = ["--inference_args", "--lm_weight 0.4 --beam_size 2 --maxlenratio -5"]
    steps_of(call(prepared, *options, *args))
    (done,) = (prepared / "exp/asr").glob("*_lm_lm_lm_asr_model_model/test/decode.json")
    summary = json.loads(done.read_text())
    assert summary["lm_file"] == str(lm) and summary["options"]["lm_weight"] == 0.4
