"""The pieces of a decoding: what each decodes, what its result depends on, its file."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mambaasr.data.ark import file_of, split
from mambaasr.errors import UserError
from mambaasr.files import atomic_write
from mambaasr.source import code_of

# Utterances in a chunk: few enough that a kill costs little, as many as a batch at least.
MIN_CHUNK, MAX_CHUNK = 16, 64
# What decodes; with what it imports, its code decides what comes out.
DECODER = "mambaasr.decode.asr"


class Model(NamedTuple):
    """A model and its search options.

    Attributes:
        train_config, model_file: of the model.
        lm_train_config, lm_file: of the language model, or None.
        options: further arguments of ``Speech2Text``, plain values, sorted pairs.
        ngpu: whether workers use a GPU; several GPUs are shared among the workers.
        seed: of torch, for models that draw numbers.
        batch_size: utterances decoded together, or "auto": no transcript depends on it.
        espnet_search: decode by ESPnet's own search, one utterance at a time.
        ngram_file: ARPA file of an n-gram model, or None; its weight is among the options.
        search: see :class:`mambaasr.decode.recogniser.Recogniser`.
        phrases, phrase_weight: file with phrases to prefer, and what each token of one adds.
    """

    train_config: str
    model_file: str
    lm_train_config: str | None = None
    lm_file: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    ngpu: int = 0
    seed: int = 0
    batch_size: int | str = "auto"
    espnet_search: bool = False
    ngram_file: str | None = None
    search: str = "joint"
    phrases: str | None = None
    phrase_weight: float = 1.0


class Spoken(NamedTuple):
    """An utterance that is to be decoded.

    Attributes:
        utt: its id.
        path: absolute path of its audio, or None.
        language: for a model that is given one, else None.
        prompt: what its text begins with, or nothing.
    """

    utt: str
    path: str | None
    language: str | None = None
    prompt: str = ""


class Chunk(NamedTuple):
    """Utterances that one task decodes and writes into one file.

    Attributes:
        file: where the results go, beside those of other utterances that are there already.
        utterances: what is decoded.
        model: a :class:`Model`.
    """

    file: str
    utterances: tuple[Spoken, ...]
    model: Model

    def __str__(self) -> str:
        first, last = self.utterances[0].utt, self.utterances[-1].utt
        return f"utterance {first}" if first == last else f"utterances {first} to {last}"


def plan(
    model: Model,
    wavs: Mapping[str, str],
    keys: Iterable[str],
    folder: Path,
    chunk_size: int | None = None,
    languages: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
) -> list[Chunk]:
    """Split the utterances into chunks, each file named by a hash of all its result depends on.

    Raises:
        UserError: there is nothing to decode, or a file of the model is missing.
    """
    keys = list(keys)
    if not keys:
        raise UserError("there are no utterances to decode")
    if not any(key in wavs for key in keys):
        raise UserError(
            f"none of the {len(keys)} utterances has audio, the first is {keys[0]!r}; do the key "
            "file and wav.scp belong to the same set?"
        )
    # Independent of nj: a run with another number of workers can resume.
    size = chunk_size or min(MAX_CHUNK, max(MIN_CHUNK, math.ceil(len(keys) / 8)))
    fingerprint = _fingerprint(model)
    chunks = []
    for start in range(0, len(keys), size):
        spoken = tuple(
            Spoken(
                key,
                os.path.abspath(wavs[key]) if key in wavs else None,
                (languages or {}).get(key),
                (prompts or {}).get(key, ""),
            )
            for key in keys[start : start + size]
        )
        stamps = [[*each._replace(path=None), *stamp_of(each.path)] for each in spoken]
        # Where in an archive, which is one file for many utterances.
        offsets = [each.path and split(each.path)[1] for each in spoken]
        stamps += [offsets] if any(offsets) else []
        name = hashlib.sha256(json.dumps([fingerprint, stamps]).encode()).hexdigest()[:32]
        chunks.append(Chunk(str(folder / f"{name}.json"), spoken, model))
    return chunks


def _fingerprint(model: Model) -> dict[str, Any]:
    """Return what every hypothesis depends on, as plain values: contents, options, code.

    The commit is left out: any commit between a kill and the rerun would throw all chunks away.
    """
    files = (model.train_config, model.model_file, model.lm_train_config, model.lm_file)
    files += (model.ngram_file, model.phrases)
    return {
        "files": [file and sha256(file) for file in files],
        "bpemodel": _bpemodel_sha256(model),
        "options": [list(pair) for pair in model.options if pair[0] != "bpemodel"],
        "seed": model.seed,
        "phrase_weight": model.phrase_weight if model.phrases else None,
        "search": "espnet" if model.espnet_search else model.search,
        "code": code_of([DECODER], configs=[file for file in files[:4:2] if file]),
        "backend": os.environ.get("MAMBAASR_BACKEND") or "auto",
    }


def _bpemodel_sha256(model: Model) -> str | None:
    """Return the digest of the option's sentencepiece model, or else of the config's."""
    from mambaasr.beside import resolve
    from mambaasr.config import read

    given, trained = dict(model.options), read(model.train_config)
    resolve(trained, Path(model.train_config).parent)
    kind, path = (given.get(key) or trained.get(key) for key in ("token_type", "bpemodel"))
    return sha256(path) if kind == "bpe" and path else None


def sha256(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def stamp_of(path: str | None) -> tuple[int, int]:
    """Return size and modification time [ns] of an audio file; zeros where it is missing.

    Of a place in an archive they are the archive's.
    """
    try:
        status = os.stat(file_of(path)) if path is not None else None
    except OSError:
        status = None
    return (status.st_size, status.st_mtime_ns) if status else (0, 0)


def missing(chunk: Chunk) -> list[Spoken]:
    """Return a chunk's utterances without a result, or with a failure that may be transient."""
    known = read_chunk(chunk)["results"]
    left = [each for each in chunk.utterances if known.get(each.utt, {"again": True})["again"]]
    # First what was not reached for another.
    return sorted(left, key=lambda each: each.utt in known)


def read_chunk(chunk: Chunk) -> dict[str, Any]:
    """Return a chunk's results by utterance, and on what they were made; empty at first."""
    if not os.path.exists(chunk.file):
        return {"device": None, "parameters": None, "results": {}}
    try:
        return json.loads(Path(chunk.file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{chunk.file}: cannot be read, remove it: {error}") from error


def add_results(
    chunk: Chunk, results: Sequence[dict[str, Any]], **facts: Any
) -> list[dict[str, Any]]:
    """Add results to a chunk's file; return those that failed."""
    content = read_chunk(chunk) | facts
    content["results"] |= {result["utt"]: result for result in results}
    with atomic_write(chunk.file) as stream:
        json.dump(content, stream, ensure_ascii=False)
    return [result for result in results if result["reason"]]


def remove_others(folder: Path, chunks: Sequence[Chunk]) -> None:
    """Remove chunks of other models and options, and half-written files of a killed run."""
    wanted = {os.path.basename(chunk.file) for chunk in chunks}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
