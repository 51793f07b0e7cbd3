"""Which epochs are the best, with a decoder and without."""

import argparse

import pytest

from mambaasr.config import check_command, has_decoder
from mambaasr.config.criteria import drop_unreported, model_file
from mambaasr.errors import UserError

CTC = "model_conf:\n  ctc_weight: 1.0\n"
ACC = "best_model_criterion:\n- [valid, acc, max]\n"
CER = "best_model_criterion:\n- [valid, cer_ctc, min]\n"


def command(tmp_path, text, *more):
    path = tmp_path / "train.yaml"
    path.write_text("encoder: conmamba\n" + text)
    return ["--config", str(path), *more]


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("decoder: none\n", (), "line 2: without a decoder CTC is alone"),
        ("", ("--decoder", "none"), "--decoder: without a decoder CTC is alone"),
        (CTC + ACC, (), "line 4: .*valid acc is not reported"),
        (CTC + CER, ("--best_model_criterion", "valid,acc,max"), "^--best_model_criterion: "),
        (CTC.replace("model_conf:", "model_conf:\n  report_cer: false\n  report_wer: false") + CER,
         (), "valid cer_ctc is not"),
        (CTC + CER + "- [valid, acc, max]\n", (), "valid acc"),
        (CTC + "best_model_criterion:\n- [train, cer_ctc, min]\n", (), "train cer_ctc"),
        (ACC, ("--model_conf", "ctc_weight=1.0"), "line 2: .*valid acc"),
        (CTC + "early_stopping_criterion: [valid, acc, max]\n", (), "line 4: early.*valid acc"),
        (CTC, ("--val_scheduler_criterion", "valid,acc"), "valid acc is not reported"),
    ],
)  # fmt: skip
def test_a_training_that_would_choose_no_epoch_is_refused(tmp_path, text, more, message):
    with pytest.raises(UserError, match=message):
        check_command(command(tmp_path, text, *more))


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (CTC, ()),
        (CTC + CER, ("--decoder", "none")),
        (CTC + ACC, ("--best_model_criterion", "valid,cer_ctc,min", "valid,loss,min")),
        (CTC + "decoder: transducer\nbest_model_criterion:\n- [valid, loss, min]\n", ()),
        (ACC, ("--val_scheduler_criterion", "valid", "acc")),
    ],
)
def test_others_are_taken(tmp_path, text, more):
    check_command(command(tmp_path, text, *more))


@pytest.mark.parametrize(
    ("criterion", "decoder", "file"),
    [
        (None, True, "valid.acc.ave.pth"),
        (None, False, "valid.loss.ave.pth"),
        ([["valid", "acc", "max"]], True, "valid.acc.ave.pth"),
        ([["valid", "loss", "min"], ["valid", "acc", "max"]], True, "valid.acc.ave.pth"),
        ([["valid", "acc", "max"], ["valid", "loss", "min"]], False, "valid.loss.ave.pth"),
        ([["train", "loss", "min"], ["valid", "cer_ctc", "min"]], False, "valid.cer_ctc.ave.pth"),
        ([["train", "loss", "min"]], True, "train.loss.ave.pth"),
        (["(valid, wer, min)"], True, "valid.wer.ave.pth"),
        (None, "transducer", "valid.loss.ave.pth"),
    ],
)
def test_the_averaged_models_name(criterion, decoder, file):
    config = {"model_conf": {} if decoder else {"ctc_weight": 1.0}}
    if decoder == "transducer":
        config["decoder"] = decoder
    if criterion:
        config["best_model_criterion"] = criterion
    assert has_decoder(config) == bool(decoder)
    assert model_file(config) == file


def test_a_language_model_is_averaged_by_its_loss():
    assert model_file({}, "lm") == "valid.loss.ave.pth"
    config = {"best_model_criterion": [["train", "loss", "min"]]}
    assert model_file(config, "lm") == "train.loss.ave.pth"


def test_espnets_default_loses_what_is_not_reported():
    theirs = [(phase, name) for name in ("loss", "acc") for phase in ("train", "valid")]
    theirs = [(*pair, "min") for pair in theirs]
    for weight, kept in ((1.0, theirs[:2]), (0.5, theirs)):
        args = argparse.Namespace(
            model_conf={"ctc_weight": weight}, decoder="rnn", best_model_criterion=list(theirs)
        )
        drop_unreported(args)
        assert args.best_model_criterion == kept
