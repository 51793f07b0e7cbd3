"""What is looked at before the stages that take hours."""

import numpy as np
import pytest
import soundfile
from recipes import NEEDED, ROOT

from mambaasr.config import Config
from mambaasr.errors import UserError
from mambaasr.recipe import checks, run
from mambaasr.recipe.options import OPTIONS, check, parse

TEMPLATE = ROOT / "egs/TEMPLATE/asr1"


@pytest.fixture
def begun(recipe, monkeypatch):
    """A recipe whose three sets hold two seconds each; tasks are noted, not run."""
    monkeypatch.chdir(recipe)
    for name in ("train", "dev", "test"):
        folder = recipe / "data" / name
        folder.mkdir(parents=True)
        soundfile.write(f"data/{name}.wav", np.zeros(32000), 16000)
        (folder / "wav.scp").write_text(f"a data/{name}.wav\n")
        (folder / "text").write_text("a A\n")
        (folder / "utt2spk").write_text("a a\n")
    ran = []
    monkeypatch.setattr(run, "run", lambda task, *_: ran.append(task.stage) or 0)
    # In this process, and no classes are built: that is the test of one of them.
    builds = run.load_configs
    monkeypatch.setattr(checks, "apart", lambda f, *given: f is not builds and f(*given))

    def start(*words):
        status = run.main([str(TEMPLATE), *NEEDED, *words])
        return status, ran

    start.folder = recipe
    start.ran = ran
    return start


def test_every_set_is_read_before_stage_2(begun):
    (begun.folder / "data/test/text").write_text("b B\n")
    (begun.folder / "data/dev/utt2spk").unlink()
    with pytest.raises(UserError, match="dev/utt2spk.*\n.*test/wav.scp.*no transcript"):
        begun()
    assert begun.ran == [1]


def test_transcripts_without_words_are_counted(begun, capsys):
    (begun.folder / "data/dev/text").write_text("a\n")
    assert begun()[0] == 0
    said = capsys.readouterr().out
    assert said.count("warning: ") == 1
    assert "data/dev/text: 1 of 1 transcripts have no word (the first: a)" in said


def test_a_class_of_espnets_that_cannot_be_built(begun, monkeypatch):
    monkeypatch.setattr(checks, "apart", lambda function, *given: function(*given))
    (begun.folder / "conf/train_asr.yaml").write_text(
        "encoder: conformer\nencoder_conf:\n  attention_heads: 3\ndecoder: mamba\n"
    )
    for dry in ("true", "false"):
        with pytest.raises(UserError, match="line 2: encoder_conf: n_feat % n_head == 0 must hold"):
            begun("--dry_run", dry)
    assert begun.ran == []


def test_a_warm_up_that_is_longer_than_the_training(begun, capsys):
    def said(scheduler, steps):
        begun("--asr_args", f"--scheduler {scheduler} --scheduler_conf warmup_steps={steps}")
        return "the learning rate would not reach its peak" in capsys.readouterr().out

    assert said("warmuplr", 3) and not said("warmuplr", 2)
    assert said("warmup_cosine", 99)
    # What libsndfile opens only by further options is stage 3's to report.
    (begun.folder / "data/train.raw").write_bytes(bytes(32000))
    (begun.folder / "data/train/wav.scp").write_text("a data/train.raw\n")
    assert said("warmuplr", 99)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"batch_type": "numel", "batch_bins": "160000"}, 2 * 320 * 16000 / 160000),
        ({"batch_type": "unsorted", "batch_size": 8}, 2 * 100 / 8),
        ({}, 2 * 100),
        ({"num_iters_per_epoch": 7, "accum_grad": "2"}, 3.5),
    ],
)
def test_updates_are_estimated(recipe, monkeypatch, options, most):
    monkeypatch.chdir(recipe)
    o = check(parse([*NEEDED, "--speed_perturb_factors", "1.0 1.0"])[0], TEMPLATE)
    sets = checks.Sets([], utterances=100, seconds=160.0)
    found = checks.estimate_updates(Config("", {"max_epoch": 3} | options), sets, o)
    assert 3 * most <= found <= 3 * most + 3


def test_fewer_utterances_than_gpus(begun, monkeypatch):
    monkeypatch.setattr(checks, "check_devices", lambda *_: None)
    with pytest.raises(UserError, match="data/train: 1 utterances are fewer than --ngpu 2"):
        begun("--ngpu", "2")
    assert begun.ran == [1]


def test_decoding_on_the_gpu_has_a_job_for_each(monkeypatch):
    """Eight jobs on one GPU would each hold the model there."""
    monkeypatch.setattr("mambaasr.recipe.options.count_gpus", lambda: 2)
    on_gpu = [*NEEDED, "--gpu_inference", "true"]
    assert parse(on_gpu)[0].inference_nj == "2"
    assert parse([*on_gpu, "--inference_nj", "3"])[0].inference_nj == "3"
    assert parse(NEEDED)[0].inference_nj == OPTIONS["inference_nj"].default


def test_archives_and_features_of_the_corpus_are_looked_at(begun):
    """Of archives headers tell how long the training set is, of features nothing does."""
    from mambaasr.data.features import store_features
    from mambaasr.data.format import format_folder

    format_folder("data/train", "arks", 16000, "flac.ark")
    store_features("data/train", "features", {"frontend": "fbank"}, 16000)
    sets = checks.look_at_sets(["arks"], "arks")
    assert (sets.problems, sets.utterances, sets.seconds) == ([], 1, 2.0)
    sets = checks.look_at_sets(["features"], "features", "feats.scp")
    assert (sets.problems, sets.utterances, sets.seconds) == ([], 1, None)
    (problem,) = checks.look_at_sets(["arks"], "arks", "feats.scp").problems
    assert "arks/feats.scp: no such file" in problem
