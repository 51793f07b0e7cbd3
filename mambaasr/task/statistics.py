"""ESPnet's statistics (stages 6 and 10), less utterances whose tokens do not fit their frames."""

import functools
import logging
from pathlib import Path

import torch

from mambaasr import espnet_compat, provenance
from mambaasr.data.report import Dropped, write_report
from mambaasr.errors import UserError
from mambaasr.files import atomic_write
from mambaasr.ops.lengths import valid_mask
from mambaasr.task.trainer import Progress, tell_start

# Frames that ESPnet's input layers leave, an utterance alone: (kernel, stride) of each layer.
_CONVOLUTIONS = {
    "Conv1dSubsampling1": ((3, 1), (3, 1)),
    "Conv1dSubsampling2": ((3, 1), (3, 2)),
    "Conv1dSubsampling3": ((3, 1), (5, 3)),
    "Conv2dSubsampling": ((3, 2), (3, 2)),
    "Conv2dSubsampling1": ((3, 1), (3, 1)),
    "Conv2dSubsampling2": ((3, 2), (3, 1)),
    "Conv2dSubsampling6": ((3, 2), (5, 3)),
    "Conv2dSubsampling8": ((3, 2), (3, 2), (3, 2)),
}


def frames_needed(tokens, lengths):
    """Count the frames that CTC needs at least: a blank stands between repeated neighbours.

    Args:
        tokens: (batch, time) token ids, padded.
        lengths: (batch,) numbers of tokens.

    Returns:
        tuple: two (batch,) tensors, tokens plus repeats, and the repeats alone.
    """
    inside = valid_mask(lengths - 1, tokens.size(1) - 1)
    repeats = ((tokens[:, 1:] == tokens[:, :-1]) & inside).sum(1)
    return lengths + repeats, repeats


def encoder_frames(encoder, lengths):
    """Count the frames that an encoder gives for features of some lengths.

    Args:
        encoder: ours say it by ``output_lengths``; ESPnet's by the kind of their input layer.
        lengths: (batch,) feature frames.

    Returns:
        (batch,) tensor, or None where the encoder's arithmetic is not known.
    """
    if hasattr(encoder, "output_lengths"):
        return encoder.output_lengths(lengths)
    if not hasattr(encoder, "embed"):
        return None
    layer = encoder.embed
    for kernel, stride in _CONVOLUTIONS.get(type(layer).__name__, ()):
        lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
    known = type(layer).__name__ in _CONVOLUTIONS
    if not known and "Subsampling" in type(layer).__name__:
        return None
    return lengths.clamp(min=0)


class FrameCheck:
    """Follows ESPnet's statistics pass and notes the utterances that cannot be trained on.

    These are the ones that an encoder leaves no frame of and, in a model with a CTC loss, the
    ones that CTC cannot align.
    """

    def __init__(self, model):
        self.dropped = {}
        self._model = model
        self._keys = None
        self._ctc = getattr(model, "ctc", None) is not None
        self._ctc = self._ctc and getattr(model, "ctc_weight", 0.0) != 0.0
        if not self._possible():
            return
        collect = model.collect_feats

        @functools.wraps(collect)
        def collect_and_check(**batch):
            found = collect(**batch)
            self._check(batch, found["feats_lengths"])
            return found

        model.collect_feats = collect_and_check

    def follow(self, loader, name):
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

    def _check(self, batch, feature_lengths):
        frames = encoder_frames(self._model.encoder, feature_lengths)
        lengths = batch["text_lengths"]
        needed, repeats = frames_needed(batch["text"], lengths)
        if not self._ctc:
            needed = torch.zeros_like(needed)
        for row in (frames < needed.clamp(min=1)).nonzero().flatten().tolist():
            reason = f"{int(feature_lengths[row])} feature frames leave no encoder frame"
            if frames[row] > 0:
                reason = (
                    f"{int(lengths[row])} tokens and {int(repeats[row])} repeats need "
                    f"{int(needed[row])} frames, the encoder gives {int(frames[row])}"
                )
            self.dropped[self._keys[row]] = reason


def collect_stats(args, *, model, train_iter, valid_iter, output_dir, ngpu, **kwargs):
    """Collect statistics as ESPnet does, then drop what cannot be trained on.

    Writes, in ``train`` and ``valid`` below ``output_dir``, ESPnet's files, further
    ``text_shape.<token_type>`` (with the vocabulary size) and ``report.tsv``.

    Args:
        args: the task's options; the rest are ESPnet's arguments of the same function.

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
    espnet_compat.collect_stats(
        model=model,
        train_iter=check.follow(train_iter, "train"),
        valid_iter=check.follow(valid_iter, "valid"),
        output_dir=output_dir,
        # Several GPUs would split a batch behind the check's back; this pass is not worth it.
        ngpu=min(ngpu, 1),
        **kwargs,
    )
    data = {"train": args.train_data_path_and_name_and_type,
            "valid": args.valid_data_path_and_name_and_type}  # fmt: skip
    for name, paths in data.items():
        where = next((path for path, key, _ in paths if key == "text"), "text")
        _finish(output_dir / name, check.dropped, where, args.token_type, len(args.token_list))


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
        logging.warning(f"{len(gone)} utterances do not fit their frames, see {folder}/report.tsv")


def _write(path, lines):
    with atomic_write(path) as stream:
        stream.writelines(f"{line}\n" for line in lines)
