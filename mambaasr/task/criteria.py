"""Which epochs are the best: what a model reports, and the file that they are averaged into."""

from mambaasr.errors import UserError

# What decides, besides model_conf.
OPTIONS = (
    "decoder", "best_model_criterion", "early_stopping_criterion", "val_scheduler_criterion",
)  # fmt: skip
# What only an attention decoder's statistics hold, in ESPnet's model.
_OF_ATTENTION = ("acc", "cer", "wer", "loss_att")
# ESPnet's best_model_criterion where a config has none.
_DEFAULT = (("valid", "loss"), ("valid", "acc"))


def has_decoder(config):
    """Say whether a config's model has a decoder: ESPnet drops it at a CTC weight of 1.

    Args:
        config: dict of a training's options, such as config.yaml of an experiment.
    """
    weight = (config.get("model_conf") or {}).get("ctc_weight", 0.5)
    return config.get("decoder") == "transducer" or weight != 1.0


def check(config, where):
    """Refuse a training that would never choose its best epochs, or has no decoder to train.

    Args:
        config: dict of the options that decide: decoder, model_conf, best_model_criterion,
            early_stopping_criterion, val_scheduler_criterion.
        where: function of an option's name that says where it was given.

    Raises:
        UserError: names the option and what is allowed.
    """
    if has_decoder(config):
        if _no_class(config.get("decoder", "rnn")):
            weight = (config.get("model_conf") or {}).get("ctc_weight", 0.5)
            raise UserError(
                f"{where('decoder')}: without a decoder CTC is alone: set ctc_weight of model_conf "
                f"to 1.0, found {weight}"
            )
        return
    advice = "a model without a decoder reports loss and, in validation, cer_ctc"
    for pair in _pairs(config.get("best_model_criterion")):
        if not _reported(pair, config):
            raise UserError(
                f"{where('best_model_criterion')}: no epoch can be chosen by {' '.join(pair)}: "
                f"{advice}; write best_model_criterion: [[valid, cer_ctc, min]]"
            )
    for option in ("early_stopping_criterion", "val_scheduler_criterion"):
        pair = tuple(_words(config.get(option)))[:2]
        if pair and not _reported(pair, config):
            raise UserError(f"{where(option)}: {' '.join(pair)} is not reported: {advice}")


def drop_unreported(args):
    """Take what the model does not report from ESPnet's own default of best_model_criterion.

    ESPnet notes nan for it, and would average epochs that nothing chose.

    Args:
        args: the task's options.
    """
    config = vars(args)
    if not has_decoder(config):
        args.best_model_criterion = [
            each for each in args.best_model_criterion if _reported(tuple(each[:2]), config)
        ]


def model_file(config):
    """Return the name of the averaged model that a training writes.

    ESPnet2's valid.acc.ave.pth where the accuracy is reported and among the criteria; else the
    first criterion of the validation.
    """
    pairs = _pairs(config.get("best_model_criterion")) or _DEFAULT
    if not has_decoder(config):
        pairs = [pair for pair in pairs if _reported(pair, config)] or _DEFAULT[:1]
    for wanted in (("valid", "acc"), *(pair for pair in pairs if pair[0] == "valid"), *pairs):
        if wanted in pairs:
            return f"{wanted[0]}.{wanted[1]}.ave.pth"
    raise AssertionError("there is always a criterion")


def _reported(pair, config):
    """Say whether a model without a decoder reports a (phase, name)."""
    phase, name = pair
    if name == "cer_ctc":
        conf = config.get("model_conf") or {}
        return phase == "valid" and (conf.get("report_cer", True) or conf.get("report_wer", True))
    return name not in _OF_ATTENTION


def _no_class(name):
    return name is None or str(name).lower() in ("none", "null", "nil")


def _pairs(criteria):
    """Return (phase, name) of criteria in a config's form or a command line's."""
    return [tuple(_words(each))[:2] for each in criteria or ()]


def _words(criterion):
    if isinstance(criterion, str):
        return [word.strip(" ()[]'\"") for word in criterion.split(",")]
    return [str(word) for word in criterion or ()]
