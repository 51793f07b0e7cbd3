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


def load_configs(
    o: Options, build: bool, decodes: bool
) -> tuple[TrainingConfig, TrainingConfig | None]:
    """Merge and check what the options name of configs and their arguments.

    Args:
        o: checked options.
        build: whether to try our classes with them, which takes seconds.
        decodes: whether a decoding follows, where a language model's weight must not be 0.

    Returns:
        The config of the training, and that of the language model's where it has one.

    Raises:
        UserError: names file, line and remedy.
    """
    blocks = [o[name] for name in BLOCKS if o[name]]
    asr = _load([o.asr_config, *blocks], o.asr_args, "asr", build)
    check_decoding(o.inference_config, shlex.split(o.inference_args), o.use_lm and decodes)
    has_lm = o.use_lm and o.lm_config
    return asr, _load([o.lm_config], o.lm_args, "lm", build) if has_lm else None


def _load(paths: list[str], arguments: str, task: str, build: bool) -> TrainingConfig:
    values = merge(read(paths[0]), map(read, paths[1:]))
    return TrainingConfig(values, check_training(values, shlex.split(arguments), task, build))
