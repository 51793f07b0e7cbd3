"""Which epochs are the best: what a model reports, and the file that they are averaged into."""

import argparse
from collections.abc import Mapping
from typing import Any

from mambaasr.config.read import Config
from mambaasr.errors import UserError

NOTHING = ("none", "null", "nil")  # ESPnet's texts for no class
# ESPnet's best_model_criterion where a config has none.
_DEFAULT = [("valid", "loss"), ("valid", "acc")]


def has_decoder(config: Mapping[str, Any]) -> bool:
    """Say whether a config's model has a decoder: ESPnet drops it at a CTC weight of 1."""
    return config.get("decoder") == "transducer" or _ctc_weight(config) != 1.0


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
        return
    best = "best_model_criterion"
    pairs = [(best, pair) for pair in _pairs(config.get(best))]
    for option in ("early_stopping_criterion", "val_scheduler_criterion"):
        pairs += [(option, _pair(config[option]))] if config.get(option) else []
    for option, pair in pairs:
        if not _reported(pair, config):
            raise UserError(
                f"{config.where(option)}: {option}: {' '.join(pair)} is not reported: a model "
                "without a decoder reports loss and, in validation, cer_ctc; "
                f"write {best}: [[valid, cer_ctc, min]]"
            )


def drop_unreported(args: argparse.Namespace) -> None:
    """Take what the model does not report from ESPnet's own default of best_model_criterion.

    ESPnet notes nan for it, and would average epochs that nothing chose.
    """
    args.best_model_criterion = [
        each for each in args.best_model_criterion if _reported(tuple(each[:2]), vars(args))
    ]


def model_file(config: Mapping[str, Any]) -> str:
    """Return the name of the averaged model that a training writes.

    ESPnet2's valid.acc.ave.pth where the accuracy is reported and among the criteria; else the
    first criterion of the validation.
    """
    pairs = _pairs(config.get("best_model_criterion")) or _DEFAULT
    pairs = [pair for pair in pairs if _reported(pair, config)] or _DEFAULT[:1]
    best = min(pairs, key=lambda pair: (pair != ("valid", "acc"), pair[0] != "valid"))
    return f"{'.'.join(best)}.ave.pth"


def _ctc_weight(config):
    return (config.get("model_conf") or {}).get("ctc_weight", 0.5)


def _reported(pair, config):
    """Say whether a model reports a (phase, name); with a decoder nothing is left out."""
    phase, name = pair[0], pair[-1]
    if has_decoder(config):
        return True
    if name == "cer_ctc":
        conf = config.get("model_conf") or {}
        return phase == "valid" and (conf.get("report_cer", True) or conf.get("report_wer", True))
    return name not in ("acc", "cer", "wer", "loss_att")  # of an attention decoder


def _pairs(criteria):
    return [_pair(each) for each in criteria or ()]


def _pair(criterion):
    """Return (phase, name) of a criterion in a config's form or a command line's."""
    words = [criterion] if isinstance(criterion, str) else map(str, criterion)
    return tuple(word.strip(" ()[]'\"") for word in ",".join(words).split(","))[:2]
