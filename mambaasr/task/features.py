"""Statistics of the features of whole sets: how long utterances are, and what normalises them.

They depend on the audio and the front end alone, so that experiments with other encoders, tokens
or losses share them; and they fall into pieces, so that they are made in parallel.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from itertools import batched
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from mambaasr import espnet_compat, registry
from mambaasr.data.ark import read_matrix
from mambaasr.data.audio import read_audio
from mambaasr.data.folder import FEATURES
from mambaasr.data.kaldi_file import parse_count, parse_path, read_good_table, write_table
from mambaasr.files import atomic_write
from mambaasr.parallel import map_items

SAMPLES, FRAMES, STATISTICS = "speech_shape", "feats_lengths", "feats_stats.npz"
_CHUNK = 64


class Chunk(NamedTuple):
    """Audio files, or stored features, that one task measures.

    Attributes:
        frontend: yaml text of the front end's name and options; None: these are its features.
        paths: the files, or places in archives.
    """

    frontend: str | None
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.paths[0]} to {self.paths[-1]}"


class Measured(NamedTuple):
    """What a chunk's audio is.

    Attributes:
        shapes: of what a training reads of each file: samples, or frames and bins.
        frames: lengths of each file's features.
        sums, squares: over all frames of all files, (bins) each, in float64.
    """

    shapes: list[str]
    frames: list[int]
    sums: np.ndarray
    squares: np.ndarray


def feature_statistics(
    frontend: Mapping[str, Any], sets: Mapping[str, str], output_dir: str | Path, nj: int = 1
) -> str:
    """Write each set's ``speech_shape`` and ``feats_stats.npz``, as ESPnet, and ``feats_lengths``.

    The result does not depend on ``nj``.

    Args:
        frontend: ``frontend`` (a name that a yaml may have, or None for the samples themselves),
            ``frontend_conf`` and, as ESPnet has it, ``speech_volume_normalize``.
        sets: name of a folder in ``output_dir``, such as train -> path of a ``wav.scp``, or of a
            ``feats.scp``: its features are taken as they are. A ``utt2num_samples`` beside it says
            how long their audio is; then ``speech_shape`` has that, so that batches are those of
            a training on audio. Else it has frames and bins.
        output_dir: where to write.
        nj: number of processes.

    Returns:
        A one-line summary.

    Raises:
        UserError: a file cannot be read.
    """
    text = yaml.safe_dump(dict(frontend))
    paths = {name: read_good_table(scp, parse_path) for name, scp in sets.items()}
    stored = {name: Path(scp).name == FEATURES for name, scp in sets.items()}
    chunks = {
        name: [
            Chunk(None if stored[name] else text, each) for each in batched(found.values(), _CHUNK)
        ]
        for name, found in paths.items()
    }
    measured = map_items(_measure, itertools.chain(*chunks.values()), nj, "Features")
    total = 0
    for name, expected in chunks.items():
        found = list(itertools.islice(measured, len(expected)))
        folder = Path(output_dir, name)
        for file, kind in ((SAMPLES, "shapes"), (FRAMES, "frames")):
            values = itertools.chain(*(getattr(each, kind) for each in found))
            table = dict(zip(paths[name], values, strict=True))
            lengths = Path(sets[name]).with_name("utt2num_samples")
            if kind == "shapes" and stored[name] and lengths.is_file():
                samples = read_good_table(lengths, parse_count)
                table = {utt: samples[utt] for utt in table}
            write_table(folder / file, table)
        count = sum(sum(each.frames) for each in found)
        with atomic_write(folder / STATISTICS, "wb") as stream:
            np.savez(
                stream,
                count=count,
                # ESPnet keeps their type in the model.
                sum=np.float32(sum(each.sums for each in found)),
                sum_square=np.float32(sum(each.squares for each in found)),
            )
        total += count
    return f"{output_dir}: {total} frames of {', '.join(sets)}"


def _measure(chunk: Chunk) -> Measured:
    """Read a chunk's audio, or features, and add the features up."""
    shapes, frames, sums, squares = [], [], 0.0, 0.0
    for features, shape in _features(chunk):
        shapes.append(shape)
        frames.append(len(features))
        features = features.double()
        sums += features.sum(0).numpy()
        squares += features.square().sum(0).numpy()
    return Measured(shapes, frames, sums, squares)


@torch.no_grad()
def _features(chunk: Chunk) -> Iterator[tuple[torch.Tensor, str]]:
    """Yield each file's features (frames, bins), and the shape of what is read of it."""
    if chunk.frontend is None:
        for path in chunk.paths:
            features = torch.from_numpy(read_matrix(path))
            yield features, "{},{}".format(*features.shape)
        return
    frontend, level = _frontend(chunk.frontend)
    for path in chunk.paths:
        audio, _ = read_audio(path)
        if level is not None and audio.any():
            audio = audio * level / np.abs(audio).max()
        speech, lengths = torch.from_numpy(audio)[None], torch.tensor([len(audio)])
        if frontend is not None:
            speech, lengths = frontend(speech, lengths)
        yield speech[0, : lengths[0]], str(len(audio))


@functools.lru_cache(maxsize=1)
def _frontend(text: str) -> tuple[torch.nn.Module | None, float | None]:
    """Build the front end that a yaml text names; return it and the peak of its audio."""
    config = yaml.safe_load(text)
    name, level = config["frontend"], config.get("speech_volume_normalize")
    if name is None:
        return None, level
    name = name.lower()
    ours = registry.CLASSES["frontend"].get(name)
    cls = registry.load(ours) if ours else espnet_compat.choices("frontend")[name]
    return cls(**config.get("frontend_conf") or {}).eval(), level
