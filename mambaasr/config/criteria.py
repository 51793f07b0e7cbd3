"""Which epochs are the best: what a model reports, and the file that they are averaged into."""

import argparse
import re
from collections.abc import Mapping
from itertools import batched
from typing import Any

from mambaasr.config.read import Config
from mambaasr.errors import UserError

NOTHING = ("none", "null", "nil")  # ESPnet's texts for no class
_BEST = "best_model_criterion"
# What ESPnet takes for it where a config has none.
_DEFAULT = [("valid", "loss"), ("valid", "acc")]


def has_decoder(config: Mapping[str, Any]) -> bool:
    """Say whether a config's model has a decoder: ESPnet drops it at a CTC weight of 1."""
    return _is_transducer(config) or _ctc_weight(config) != 1.0


def check_criteria(config: Config) -> None:
    """Refuse a training that would never choose its best epochs, or has no decoder to train.

    Raises:
        UserError: names the option and what is allowed.
    """
    if has_decoder(config):
        if str(config.get("decoder", "rnn")).lower() in NOTHING:
            raise UserError(
                f"{config.where('decoder')}: without a decoder CTC is alone: set ctc_weight of "
                f"model_conf to 1.0, found {_ctc_weight(config)}"
            )
        if not _is_transducer(config):
            return
    without, better = "a transducer reports no accuracy", "loss"
    if not _is_transducer(config):
        without = "a model without a decoder reports loss and, in validation, cer_ctc"
        better = "cer_ctc"
    for option in (_BEST, "early_stopping_criterion", "val_scheduler_criterion"):
        for phase, name in _pairs(config, option):
            if not _reported(phase, name, config):
                raise UserError(
                    f"{config.where(option)}: {option}: {phase} {name} is not reported: {without}; "
                    f"write {_BEST}: [[valid, {better}, min]]"
                )


def drop_unreported(args: argparse.Namespace) -> None:
    """Take what the model does not report from ESPnet's own default of best_model_criterion.

    ESPnet notes nan for it, and would average epochs that nothing chose.
    """
    args.best_model_criterion = [
        each for each in args.best_model_criterion if _reported(*each[:2], vars(args))
    ]


def model_file(config: Mapping[str, Any], task: str = "asr") -> str:
    """Return the name of the averaged model that a training writes.

    ESPnet2's valid.acc.ave.pth where the accuracy is reported and among the criteria; else the
    first criterion of the validation. A language model ("lm") reports its loss alone.
    """
    pairs = _pairs(config, _BEST) or _DEFAULT
    if task == "lm":
        pairs = [pair for pair in pairs if pair[1] == "loss"]
    pairs = [pair for pair in pairs if _reported(*pair, config)] or _DEFAULT[:1]
    best = min(pairs, key=lambda pair: (pair != ("valid", "acc"), pair[0] != "valid"))
    return f"{'.'.join(best)}.ave.pth"


def _is_transducer(config):
    return config.get("decoder") == "transducer"


def _ctc_weight(config):
    return (config.get("model_conf") or {}).get("ctc_weight", 0.5)


def _reported(phase, name, config):
    """Say whether a model reports a value; with an attention decoder nothing is left out."""
    if _is_transducer(config):
        return name != "acc"
    if has_decoder(config):
        return True
    if name == "cer_ctc":
        conf = config.get("model_conf") or {}
        return phase == "valid" and (conf.get("report_cer", True) or conf.get("report_wer", True))
    return name not in ("acc", "cer", "wer", "loss_att")  # of an attention decoder


def _pairs(config, option):
    """Return each (phase, name) of a criterion, written as in a yaml or on a command line."""
    words = re.findall(r"[^][()'\",\s]+", str(config.get(option) or ""))
    size = 2 if option == "val_scheduler_criterion" else 3  # without and with min or max
    return [each[:2] for each in batched(words, size)]
