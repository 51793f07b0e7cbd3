"""ESPnet's statistics (stages 6 and 10), less utterances whose tokens do not fit their frames."""

import argparse
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mambaasr import espnet_compat, provenance
from mambaasr.data.dropped import Dropped, write_report
from mambaasr.data.kaldi_file import parse_count, parse_name, parse_text, read_good_table
from mambaasr.errors import UserError
from mambaasr.files import atomic_write
from mambaasr.ops.lengths import valid_mask
from mambaasr.task import features
from mambaasr.task.trainer import Progress, tell_start


def frames_needed(tokens: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the frames that CTC needs at least: a blank stands between repeated neighbours.

    Args:
        tokens: (batch, time) token ids, padded.
        lengths: (batch,) numbers of tokens.

    Returns:
        two (batch,) tensors, tokens plus repeats, and the repeats alone.
    """
    inside = valid_mask(lengths - 1, max(tokens.size(1) - 1, 0))  # texts may be empty
    repeats = ((tokens[:, 1:] == tokens[:, :-1]) & inside).sum(1)
    return lengths + repeats, repeats


def encoder_frames(encoder: torch.nn.Module, lengths: torch.Tensor) -> torch.Tensor | None:
    """Count the frames that an encoder gives for features of some lengths.

    Args:
        encoder: ours say it by ``output_lengths``; ESPnet's by the kind of their input layer.
        lengths: (batch,) feature frames.

    Returns:
        (batch,) tensor, or None where the encoder's arithmetic is not known.
    """
    if hasattr(encoder, "output_lengths"):
        return encoder.output_lengths(lengths)
    layer = getattr(encoder, "embed", None)
    if layer is None:
        return None
    if "Subsampling" in type(layer).__name__:
        convolutions = (torch.nn.Conv1d, torch.nn.Conv2d)
        for each in (each for each in layer.modules() if isinstance(each, convolutions)):
            if any(each.padding):  # no layer of ESPnet's that we know
                return None
            # Time is the first of a convolution's dimensions.
            lengths = (lengths - each.kernel_size[0]).div(each.stride[0], rounding_mode="floor") + 1
    return lengths.clamp(min=0)


class FrameCheck:
    """Note the utterances that cannot be trained on.

    These are the ones that an encoder leaves no frame of and, in a model with a CTC loss, the
    ones that CTC cannot align.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.dropped: dict[str, str] = {}
        self._model = model
        self._keys = None
        self._ctc = getattr(model, "ctc", None) is not None
        self._ctc = self._ctc and getattr(model, "ctc_weight", 0.0) != 0.0
        self._known = self._possible()

    def follow_model(self) -> None:
        """Check what the model collects features of, in ESPnet's pass over all audio."""
        if not self._known:
            return
        collect = self._model.collect_feats

        @functools.wraps(collect)
        def collect_and_check(**batch):
            found = collect(**batch)
            self.check(self._keys, found["feats_lengths"], batch["text"], batch["text_lengths"])
            return found

        self._model.collect_feats = collect_and_check

    def follow(self, loader: Iterable, name: str) -> Iterator:
        """Pass a loader's batches on, with a progress bar, and remember whose they are."""
        for keys, batch in Progress(loader, f"statistics {name}"):
            self._keys = keys
            yield keys, batch

    def _possible(self):
        model, probe = self._model, None
        if not hasattr(model, "encoder"):  # a language model
            return False
        if getattr(model, "preencoder", None) is None:
            probe = encoder_frames(model.encoder, torch.tensor([1000]))
        if probe is None and self._ctc:
            logging.warning("frames after this encoder are not known: tokens are not checked")
        return probe is not None

    def check(
        self, keys: Sequence[str], feature_lengths: Tensor, tokens: Tensor, lengths: Tensor
    ) -> None:
        """Check a batch by its lengths.

        Args:
            keys: the utterances.
            feature_lengths: (batch) frames of features.
            tokens: (batch, time) token ids, padded.
            lengths: (batch) numbers of tokens.
        """
        if not self._known:
            return
        frames = encoder_frames(self._model.encoder, feature_lengths)
        needed, repeats = frames_needed(tokens, lengths)
        if not self._ctc:
            needed = torch.zeros_like(needed)
        for row in (frames < needed.clamp(min=1)).nonzero().flatten().tolist():
            reason = f"{int(feature_lengths[row])} feature frames leave no encoder frame"
            if frames[row] > 0:
                reason = (
                    f"{int(lengths[row])} tokens and {int(repeats[row])} repeats need "
                    f"{int(needed[row])} frames, the encoder gives {int(frames[row])}"
                )
            self.dropped[keys[row]] = reason


def collect_stats(
    args: argparse.Namespace,
    preprocess: Callable[[str, dict[str, Any]], dict[str, Any]] | None,
    *,
    model: torch.nn.Module,
    train_iter: Iterable,
    valid_iter: Iterable,
    output_dir: str | Path,
    ngpu: int,
    **kwargs: Any,
) -> None:
    """Collect statistics as ESPnet does, then drop what cannot be trained on.

    Writes, in ``train`` and ``valid`` below ``output_dir``, ESPnet's files, further
    ``text_shape.<token_type>`` (with the vocabulary size) and ``report.tsv``. Where the files of
    ``--train_shape_file`` and ``--valid_shape_file`` are those of
    :func:`mambaasr.task.features.feature_statistics`, no audio is read: lengths tell what fits.

    Args:
        args: the task's options; the rest are ESPnet's arguments of the same function.
        preprocess: ESPnet's, which makes tokens of a text.

    Raises:
        UserError: no utterance is left, or a set was empty.
    """
    output_dir = Path(output_dir)
    tell_start(provenance.record_start(output_dir, args.seed, min(ngpu, 1)))
    for name in ("train", "valid"):
        # The training reads these; they must not outlive a killed rerun.
        for stale in (output_dir / name).glob("*shape*"):
            stale.unlink()
    check = FrameCheck(model)
    measured = [Path(path).parent for path in (*args.train_shape_file, *args.valid_shape_file)[:2]]
    measured = [folder for folder in measured if (folder / features.FRAMES).exists()]
    data = {"train": args.train_data_path_and_name_and_type,
            "valid": args.valid_data_path_and_name_and_type}  # fmt: skip
    if len(measured) == 2 and not kwargs.get("write_collected_feats"):
        for folder, (name, paths) in zip(measured, data.items(), strict=True):
            _check_lengths(check, folder, output_dir / name, paths, preprocess)
    else:
        check.follow_model()
        espnet_compat.collect_stats(
            model=model,
            train_iter=check.follow(train_iter, "train"),
            valid_iter=check.follow(valid_iter, "valid"),
            output_dir=output_dir,
            # Several GPUs would split a batch behind the check's back; this pass is not worth it.
            ngpu=min(ngpu, 1),
            **kwargs,
        )
    for name, paths in data.items():
        where = next((path for path, key, _ in paths if key == "text"), "text")
        _finish(output_dir / name, check.dropped, where, args.token_type, len(args.token_list))


def _check_lengths(check, measured, folder, data, preprocess):
    """Write ESPnet's files of a set from the lengths of its audio and features, and its texts."""
    samples = read_good_table(measured / features.SAMPLES, parse_name)
    frames = read_good_table(measured / features.FRAMES, parse_count)
    texts = {name: read_good_table(path, parse_text) for path, name, kind in data if kind == "text"}
    missing = [key for table in texts.values() for key in samples.keys() - table.keys()]
    if missing:
        raise UserError(f"{measured}: {min(missing)} has no transcript; run stage 4 again")
    shapes = {name: [] for name in texts}
    for keys in batched(samples, 1000):
        made = [
            preprocess(key, {name: table[key] for name, table in texts.items()}) for key in keys
        ]
        for name in texts:
            shapes[name] += [
                f"{key} {len(each[name])}" for key, each in zip(keys, made, strict=True)
            ]
        tokens = [torch.from_numpy(each["text"]) for each in made]
        check.check(
            keys,
            torch.tensor([frames[key] for key in keys]),
            pad_sequence(tokens, batch_first=True, padding_value=-1),
            torch.tensor([len(each) for each in tokens]),
        )
    _write(folder / "speech_shape", [f"{key} {shape}" for key, shape in samples.items()])
    for name, lines in shapes.items():
        _write(folder / f"{name}_shape", lines)
    with atomic_write(folder / features.STATISTICS, "wb") as stream:
        stream.write((measured / features.STATISTICS).read_bytes())


def _finish(folder, dropped, where, token_type, vocabulary):
    gone = []
    for shapes in sorted(folder.glob("*_shape")):
        lines = shapes.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.split(maxsplit=1)[0] not in dropped]
        if not kept:
            raise UserError(
                f"{folder}: no utterance is left of {len(lines)}: their tokens do not fit their "
                f"encoder frames; use a smaller subsampling (input_layer) or larger tokens"
            )
        gone = [key for key in (line.split(maxsplit=1)[0] for line in lines) if key in dropped]
        _write(shapes, kept)
        if shapes.name == "text_shape":
            _write(folder / f"text_shape.{token_type}", [f"{line},{vocabulary}" for line in kept])
    write_report(folder, [Dropped(key, where, dropped[key]) for key in gone])
    if gone:
        logging.warning(
            f"{len(gone)} of {len(lines)} utterances are left out (a few are usual): CTC cannot "
            f"align more tokens than encoder frames; see {folder}/report.tsv"
        )


def _write(path, lines):
    with atomic_write(path) as stream:
        stream.writelines(f"{line}\n" for line in lines)
