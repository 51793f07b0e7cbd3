"""The yaml files of a recipe's trainings: merged, checked, and reduced to what matters."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mambaasr.config import Config, check_training, dump, merge, model_file, read, relevant
from mambaasr.decode.options import check_decoding
from mambaasr.recipe.options import BLOCKS, Options


@dataclass(frozen=True)
class TrainingConfig:
    """A training's config with its blocks laid over it.

    Attributes:
        values: the merged options.
        whole: the same with the command line's options over them.
    """

    values: Config
    whole: Config

    @property
    def model(self) -> str:
        """Name of the model's class."""
        return str(self.whole.get("model") or "espnet")

    @property
    def model_file(self) -> str:
        """Name of the file that the best epochs are averaged into."""
        return model_file(self.whole)

    @property
    def text(self) -> str:
        """The config as yaml, without the command line's options."""
        return dump(self.values)

    def reduced(
        self, drop_names: Sequence[str], keep: Sequence[str] = (), zeros: Sequence[str] = ()
    ) -> str:
        """Return what a result depends on as flat yaml; see :func:`mambaasr.config.relevant`."""
        return dump(relevant(self.whole, drop_names, keep, zeros))


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
    check_decoding(o.inference_config, shlex.split(o.inference_args), lm)


def _load(paths: list[str], arguments: str, task: str, build: bool) -> TrainingConfig:
    values = merge(read(paths[0]), map(read, paths[1:]))
    return TrainingConfig(values, check_training(values, shlex.split(arguments), task, build))
