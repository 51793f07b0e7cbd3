"""The yaml files of a recipe's trainings: merged, checked, and reduced to what matters."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mambaasr.config import Config, check_training, dump, merge, model_file, read
from mambaasr.data.features import check_frontend
from mambaasr.decode.options import check_decoding
from mambaasr.errors import UserError
from mambaasr.recipe.options import BLOCKS, Options

# What stages give a training themselves: another value would go past their checks and names.
_OF_THE_DRIVER = {"--config", "--output_dir", "--token_list", "--token_type", "--bpemodel"}
_OF_THE_DRIVER |= {f"--{kind}_shape_file" for kind in ("train", "valid")}
_OF_THE_DRIVER |= {"--collect_stats", "--print_config", "--dry_run"}


@dataclass(frozen=True)
class TrainingConfig:
    """A training's config with its blocks laid over it.

    Attributes:
        values: the merged options.
        whole: the same with the command line's options over them.
        task: "asr" or "lm".
    """

    values: Config
    whole: Config
    task: str

    @property
    def model(self) -> str:
        """Name of the model's class."""
        return str(self.whole.get("model") or "espnet")

    @property
    def model_file(self) -> str:
        """Name of the file that the best epochs are averaged into."""
        return model_file(self.whole, self.task)

    @property
    def text(self) -> str:
        """The config as yaml, without the command line's options."""
        return dump(self.values)

    @property
    def frontend(self) -> str:
        """What features depend on, as yaml."""
        names = ("frontend", "frontend_conf", "speech_volume_normalize")
        return dump({key: self.whole[key] for key in names if key in self.whole})

    def reduced(
        self, drop: Sequence[str], keep: Sequence[str] = (), drop_unless_0: Sequence[str] = ()
    ) -> str:
        """Return what a result depends on as yaml of flat names (``encoder_conf.num_blocks``).

        Args:
            drop: patterns of flat names that do not matter, such as ``optim*``.
            keep: flat names that matter although a pattern fits.
            drop_unless_0: flat names of numbers that matter only where they are 0.
        """
        flat: dict[str, Any] = {}
        for key, value in self.whole.items():
            in_conf = key.endswith("_conf") and isinstance(value, dict)
            flat |= {f"{key}.{name}": value[name] for name in value} if in_conf else {key: value}
        dropped = {key for key in flat if any(fnmatchcase(key, pattern) for pattern in drop)}
        dropped -= {*keep}
        dropped |= {key for key in drop_unless_0 if flat.get(key) != 0}
        return dump({key: value for key, value in flat.items() if key not in dropped})


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
    if o.feats_type == "fbank":
        check_frontend(asr.whole)
    if o.feats_type != "raw" and asr.whole.get("input_size") is not None:
        raise UserError(f"{asr.whole.where('input_size')}: input_size: the features say it")
    models = o.use_lm and decodes, o.use_ngram and decodes
    check_decoding(o.inference_config, shlex.split(o.inference_args), *models)
    has_lm = o.use_lm and o.lm_config
    return asr, _load([o.lm_config], o.lm_args, "lm", build) if has_lm else None


def _load(paths: list[str], arguments: str, task: str, build: bool) -> TrainingConfig:
    for name in {word.partition("=")[0] for word in shlex.split(arguments)} & _OF_THE_DRIVER:
        raise UserError(f"--{task}_args: {name} is the recipe's own; run.sh --help has its options")
    values = merge(read(paths[0]), map(read, paths[1:]))
    whole = check_training(values, shlex.split(arguments), task)
    if build:
        from mambaasr.task.build import build_classes  # imports torch

        build_classes(whole, task)
    return TrainingConfig(values, whole, task)
