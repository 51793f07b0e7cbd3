"""What an experiment's folder says of its model: files, decoding options, trained lengths."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mambaasr import provenance
from mambaasr.beside import resolve
from mambaasr.config import has_decoder, model_file, read
from mambaasr.config.read import sampling_rate
from mambaasr.data.lengths import quantiles_of
from mambaasr.data.splits import files_of
from mambaasr.errors import UserError
from mambaasr.task.languages import MODEL

CONFIG = "config.yaml"
# What a piece of a recording lasts where nobody knows how long the training's utterances were [s].
UNKNOWN = 15.0
# Options of a decoding that this package's own search has; the others are ESPnet's alone.
_SEARCH = (
    "beam_size", "ctc_weight", "lm_weight", "ngram_weight", "penalty", "maxlenratio", "minlenratio",
    "normalize_length",
)  # fmt: skip


@dataclass
class Experiment:
    """A trained model on disk.

    Attributes:
        config: its config.yaml.
        weights: its model file.
        trained: the content of the config, with paths that open from here.
        options: of the search, as its last decoding had them; empty where it has none.
        search: the way to search, of the last decoding or "joint".
        lm: (config.yaml, model file) of the last decoding's language model, or None.
        ngram: file of its n-gram model, or None.
        prompt: what every text begins with, where the last decoding had one for all; else "".
        decoding: the file that they are taken from, or None.
        seconds: quantiles of the training utterances' lengths, share -> seconds; None: unknown.
    """

    config: Path
    weights: Path
    trained: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    search: str = "joint"
    lm: tuple[Path, Path] | None = None
    ngram: Path | None = None
    prompt: str = ""
    decoding: Path | None = None
    seconds: dict[str, float] | None = None

    @property
    def languages(self) -> list[str] | None:
        """The languages, one of which the model has to be told; None for one that is told none."""
        conf = self.trained.get("model_conf") or {}
        told = self.trained.get("model") == MODEL and conf.get("conditioning", "none") != "none"
        return list(conf.get("languages") or ()) if told else None

    @property
    def longest(self) -> float:
        """What nearly all of the training's utterances are not longer than [s]."""
        return self.seconds["0.95"] if self.seconds else UNKNOWN

    @property
    def usual(self) -> float:
        """The median of their lengths [s]."""
        return self.seconds["0.5"] if self.seconds else UNKNOWN


def open_experiment(path: str | Path) -> Experiment:
    """Find out what there is to know of a trained model.

    Args:
        path: an experiment's folder, or one of its model files.

    Raises:
        UserError: there is no such model, or a file of it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        folder = path
    elif path.is_file() and path.suffix == ".pth":
        folder = path.parent
    else:
        raise UserError(
            f"{path}: no such model: name an experiment's folder (exp/asr_...) or a .pth in it"
        )
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(f"{config}: no such file: {folder} is no experiment, or not yet trained")
    trained = dict(read(config))
    resolve(trained, folder)
    weights = path if path.is_file() else folder / model_file(trained)
    if not weights.is_file():
        there = " ".join(sorted(each.name for each in folder.glob("*.pth")))
        raise UserError(f"{weights}: no such file; there are: {there or 'no models yet'}")
    found = Experiment(config, weights, trained, seconds=trained_seconds(folder, trained))
    _take_decoding(found, folder)
    if not has_decoder(trained):
        found.options["ctc_weight"] = 1.0
    return found


def _take_decoding(found: Experiment, folder: Path) -> None:
    """Take options and language models from the last decoding of an experiment."""
    files = list(folder.glob("*/*/decode.json"))
    if not files:
        return
    last = max(files, key=lambda file: file.stat().st_mtime)
    try:
        said = json.loads(last.read_text(encoding="utf-8"))
        options = said["options"]
        found.options = {name: options[name] for name in _SEARCH if name in options}
        found.search = options.get("search", "joint")
        prompts = [said["prompt"]] if "prompt" in said else said.get("prompts") or []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logging.warning(f"{last}: not used, it cannot be read: {error}")
        return
    found.decoding = last
    if len(prompts) == 1:
        (found.prompt,) = prompts
    elif prompts:
        logging.warning(f"{last}: it had several prompts, none is taken: give one (--prompt)")
    # The folder may have moved, or come without them.
    for kind in ("lm_file", "ngram_file"):
        file = said.get(kind)
        if file and not Path(file).is_file():
            logging.warning(f"{last}: decoded with {file}, which is not there: decoding without it")
        elif file and kind == "lm_file":
            found.lm = Path(file).with_name(CONFIG), Path(file)
        elif file:
            found.ngram = Path(file)


def trained_seconds(folder: Path, trained: dict[str, Any]) -> dict[str, float] | None:
    """Return quantiles of the lengths that a model was trained on, share -> seconds, or None.

    The training has noted them; of one that has not, its list of lengths says it while it is there.
    """
    starts = provenance.starts(folder)
    noted = starts[-1].get("seconds") if starts else None
    if noted:
        return noted
    for shapes in (trained.get("train_shape_file") or [])[:1]:
        if Path(shapes).exists():
            return quantiles_of(files_of(shapes), sampling_rate(trained.get("frontend_conf")))
    return None
