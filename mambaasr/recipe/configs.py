"""The yaml files of a recipe's trainings: merged, checked, and reduced to what matters."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mambaasr.bin.merge_config import check, check_decoding, flatten_options, shown
from mambaasr.config import drop, dump, flatten, merge
from mambaasr.recipe.options import BLOCKS, Options
from mambaasr.task.config import read


@dataclass(frozen=True)
class TrainingConfig:
    """A training's config with its blocks laid over it.

    Attributes:
        values: the merged options.
        given: option -> words, of the command line that goes over them.
        model: name of the model's class.
        model_file: what the best epochs are averaged into.
    """

    values: dict[str, Any]
    given: dict[str, list[str]]
    model: str
    model_file: str

    @property
    def text(self) -> str:
        """The config as yaml, without the command line's options."""
        return dump(self.values)

    def reduced(
        self, drop_names: Sequence[str], keep: Sequence[str] = (), zeros: Sequence[str] = ()
    ) -> str:
        """Return what is left of config and options without some of them, as flat yaml.

        Args:
            drop_names: patterns of flat names, such as ``optim*`` or ``encoder_conf.*``.
            keep: names that stay although they fit a pattern.
            zeros: names of numbers that count only where they are 0.
        """
        found = drop(flatten(self.values), drop_names, keep)
        options = drop(flatten_options(self.given), drop_names, keep)
        for key in zeros:
            if key in options:
                found[key] = yaml.safe_load(options.pop(key)[-1].partition("=")[2])
            if found.get(key) != 0:
                found.pop(key, None)
        return dump(found | {f"--{name}": options[name] for name in sorted(options)})


def training_config(o: Options, build: bool = False) -> TrainingConfig:
    """Merge and check the config of the recipe's training.

    Args:
        o: checked options.
        build: whether to try our classes with it, which takes seconds.

    Raises:
        UserError: names file, line and remedy.
    """
    return _load([o.asr_config, *(o[name] for name in BLOCKS if o[name])], o.asr_args, "asr", build)


def lm_config(o: Options, build: bool = False) -> TrainingConfig:
    """Check the config of the language model's training; see :func:`training_config`."""
    return _load([o.lm_config], o.lm_args, "lm", build)


def check_decodings(o: Options, lm: bool) -> None:
    """Check the decoding's config and arguments.

    Args:
        o: checked options.
        lm: whether a language model takes part, whose weight must not be 0 then.

    Raises:
        UserError: an option is unknown or impossible.
    """
    check_decoding(o.inference_config, o.inference_args, lm)


def _load(paths: list[str], arguments: str, task: str, build: bool) -> TrainingConfig:
    parts = [(path, read(path)) for path in paths]
    values = merge(parts[0][1], parts[1:])
    given = check(parts, values, shlex.split(arguments), task, build)
    if task == "lm":
        return TrainingConfig(values, given, "lm", "")
    model, file = (shown(name, values, given) for name in ("model", "model_file"))
    return TrainingConfig(values, given, model, file)
