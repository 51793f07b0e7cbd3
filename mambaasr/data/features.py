"""Features of a data folder: computed once and stored, or those that a user brings.

A front end of ours (:mod:`mambaasr.frontend`) gives an utterance the same frames alone and in any
batch; so what is stored is what a training on audio would compute in each epoch.
"""

import dataclasses
import functools
import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambaasr import registry
from mambaasr.data import ark
from mambaasr.data.audio import AudioError, encode_audio
from mambaasr.data.folder import FEATURES, DataFolder
from mambaasr.data.format import Sink, format_folder, write_formatted
from mambaasr.errors import UserError
from mambaasr.parallel import map_items

if TYPE_CHECKING:
    import numpy as np
    import torch

# Utterances that are read in one piece of work.
_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class FeatureSink(Sink):
    """Archives of features of a folder's audio.

    Attributes:
        frontend: JSON text of the front end's name and options.
    """

    kind: str = "feats.ark"
    frontend: str = ""

    def record(self, samples: "np.ndarray", rate: int) -> tuple[bytes, str]:
        """Return what an archive holds of an utterance, and the shape of its features.

        Raises:
            AudioError: it is too short for a single frame.
        """
        import soundfile
        import torch

        # What a training would read: 16 bit.
        wave, _ = soundfile.read(encode_audio(samples, rate, "wav"), dtype="float32")
        with torch.no_grad():
            features, lengths = _frontend(self.frontend)(
                torch.from_numpy(wave)[None], torch.tensor([len(wave)])
            )
        matrix = features[0, : lengths[0]].numpy()
        if not len(matrix):
            raise AudioError(f"{len(wave)} samples are too few for a frame of features")
        return ark.matrix_record(matrix), "{},{}".format(*matrix.shape)


@functools.lru_cache(maxsize=1)
def _frontend(text: str) -> "torch.nn.Module":
    name, conf = json.loads(text)
    return registry.load(registry.CLASSES["frontend"][name])(**conf).eval()


def store_features(
    in_dir: str | Path,
    out_dir: str | Path,
    config: Mapping[str, Any],
    rate: int,
    nj: int = 1,
    bad_audio: str = "skip",
    keep_references: bool = False,
    channel: int | None = None,
) -> str:
    """Write a folder of the features of a data folder's audio.

    Args:
        in_dir: data folder, with or without ``segments``.
        out_dir: folder to write: archives of features below ``audio``, ``feats.scp``,
            ``feats_shape`` and what :func:`mambaasr.data.format.format_folder` writes.
        config: a training's; ``frontend`` and ``frontend_conf`` matter.
        rate: sampling rate of the audio [Hz].
        nj, bad_audio, keep_references, channel: see
            :func:`mambaasr.data.format.format_folder`.

    Returns:
        A one-line summary.

    Raises:
        UserError: the front end's features cannot be stored, or as ``format_folder``.
    """
    check_frontend(config)
    name, conf = config["frontend"], {**(config.get("frontend_conf") or {}), "fs": rate}
    try:
        registry.load(registry.CLASSES["frontend"][name])(**conf)
    except (TypeError, ValueError) as error:
        raise UserError(f"frontend_conf: {error}") from error
    modules = (registry.CLASSES["frontend"][name].partition(":")[0], __name__)
    sink = FeatureSink(str(out_dir), modules=modules, frontend=json.dumps([name, conf]))
    more = {"bad_audio": bad_audio, "keep_references": keep_references, "channel": channel}
    return format_folder(in_dir, out_dir, rate, nj=nj, sink=sink, **more)


def check_frontend(config: Mapping[str, Any]) -> None:
    """Check that what a training would compute from audio can be stored.

    Args:
        config: the training's.

    Raises:
        UserError: the front end is none of ours, or the audio is changed before it.
    """
    name, ours = config.get("frontend", "default"), registry.CLASSES["frontend"]
    if name not in ours:
        raise UserError(
            f"--feats_type fbank: the features of frontend: {name} depend on the batch or are "
            f"learned, and are not stored; use frontend: {' or '.join(ours)}, or --feats_type raw"
        )
    for option in ("speech_volume_normalize", "rir_scp", "noise_scp"):
        if config.get(option):
            raise UserError(
                f"--feats_type fbank: {option} changes the audio in training; leave it out, or "
                "take --feats_type raw"
            )


def extracted_features(
    in_dir: str | Path,
    out_dir: str | Path,
    nj: int = 1,
    bad_audio: str = "skip",
    keep_references: bool = False,
) -> str:
    """Write a data folder of the features that a folder's ``feats.scp`` names.

    They are read and checked, and not copied. Such as are of another width than most are bad.

    Args:
        in_dir: data folder with ``feats.scp``, with or without ``wav.scp``.
        out_dir: folder to write, with ``feats.scp``, ``feats_shape`` and ``report.tsv``.
        nj, bad_audio, keep_references: see :func:`mambaasr.data.format.format_folder`.

    Returns:
        A one-line summary.

    Raises:
        UserError: the folder has a problem, or all its features are bad (or any, with stop).
    """
    folder = DataFolder.read(in_dir, FEATURES)
    utts = folder.utterances
    chunks = list(itertools.batched((folder.wav[utt] for utt in utts), _CHUNK))
    read = map_items(_shapes, chunks, nj, f"Features of {in_dir}")
    found = dict(zip(utts, itertools.chain.from_iterable(read), strict=True))
    bad = {utt: shape for utt, shape in found.items() if isinstance(shape, str)}
    shapes = {utt: shape for utt, shape in found.items() if not isinstance(shape, str)}
    usual = statistics.mode([width for _, width in shapes.values()] or [0])
    for utt in [utt for utt, (_, width) in shapes.items() if width != usual]:
        bad[utt] = f"{folder.wav[utt]}: {shapes.pop(utt)[1]} bins, others have {usual}"
    output = folder.select(shapes)
    output.utt2num_samples = None
    output.shapes = {utt: f"{frames},{width}" for utt, (frames, width) in shapes.items()}
    return write_formatted(folder, output, out_dir, bad, bad_audio, keep_references, 0)


def _shapes(places: Sequence[str]) -> list[tuple[int, int] | str]:
    """Return the shape of the features at each place, or why they cannot be used."""
    found: list[tuple[int, int] | str] = []
    for place in places:
        try:
            frames, width = ark.read_matrix(place).shape
            found.append((frames, width))
        except ark.ArkError as error:
            found.append(str(error))
    return found
