"""Decode a set in chunks, in parallel, resumable."""

import functools
import gc
import json
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambaasr import provenance
from mambaasr.data.ark import read_matrix
from mambaasr.decode import outputs
from mambaasr.decode.chunks import (
    Chunk,
    Model,
    Spoken,
    add_results,
    missing,
    plan,
    read_chunk,
    remove_others,
    sha256,
)
from mambaasr.errors import TransientError, UserError, lost_gpu, may_pass
from mambaasr.files import atomic_write
from mambaasr.parallel import map_items, worker_index

if TYPE_CHECKING:
    import numpy as np

    from mambaasr.decode.recogniser import ESPnetRecogniser, Recogniser, Utterance

# Audio that is read before it is decoded [s].
READ_SECONDS = 1200.0


def decode_set(
    model: Model,
    wavs: Mapping[str, str],
    keys: Iterable[str],
    output_dir: str | Path,
    nj: int = 1,
    cluster: str | None = None,
    chunk_size: int | None = None,
    languages: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
    prompt: str = "",
) -> dict[str, Any]:
    """Decode utterances; write what :mod:`mambaasr.decode.outputs` tells, and decode.json.

    ``failed.tsv`` names what could not be decoded, ``no_speech.tsv`` hypotheses with a text for
    which the model's own CTC has found nothing but blanks: a decoder's invention, most likely.

    Finished chunks stay in ``output_dir/chunks``, each under a fingerprint of model, options,
    ids and audio files: a rerun decodes only what is missing. An utterance that cannot be decoded
    gets an empty hypothesis, a warning and a line in failed.tsv. Where the reason may be
    transient (out of memory, a worker process that was killed), it is tried once more in this
    run, with no other at its side, and again in a rerun. With a GPU all is decoded in worker
    processes, and one whose GPU fails is replaced. What an earlier run wrote beside the
    chunks is removed first: it may be another model's, and would look like this one's after a
    kill.

    Args:
        model: a :class:`Model`.
        wavs: dict of utterance -> path of its audio.
        keys: the utterances to decode; one without audio fails.
        output_dir: where to write.
        nj, cluster: see :func:`mambaasr.parallel.map_items`.
        chunk_size: utterances in a chunk; by default an eighth of them, from 16 to 64.
        languages: utterance -> language, for a model that is given it; or None.
        prompts: utterance -> words that its text begins with in training, such as task tokens;
            they are read, not recognised, and are no part of the hypotheses. Or None.
        prompt: what they were made of, with ``{lang}``, for decode.json.

    Returns:
        The content of decode.json; ``again`` counts the failures that are worth another try.

    Raises:
        UserError: the model does not load, or not a single utterance could be decoded.
        TransientError: nor could one be, and some of the reasons may be transient.
    """
    output_dir = Path(output_dir).absolute()
    chunks = plan(model, wavs, keys, output_dir / "chunks", chunk_size, languages, prompts)
    pending = [chunk for chunk in chunks if missing(chunk)]
    if len(pending) < len(chunks):
        done = len(chunks) - len(pending)
        logging.info(f"{output_dir}: {done} of {len(chunks)} chunks are decoded already")
    outputs.remove_outputs(output_dir)
    _decode(pending, nj, cluster)
    contents = [read_chunk(chunk) for chunk in chunks]
    results = [
        content["results"][utt]
        for chunk, content in zip(chunks, contents, strict=True)
        for utt, *_ in chunk.utterances
    ]
    summary = summarise(model, contents, results, nj)
    summary["prompt"] = prompt
    summary["prompts"] = sorted(set((prompts or {}).values()))
    outputs.write_reports(output_dir, results)
    failed = [result for result in results if result["reason"]]
    if len(failed) == len(results):
        kind = TransientError if summary["again"] else UserError
        raise kind(
            f"not one of {len(results)} utterances could be decoded; the first, "
            f"{failed[0]['utt']}: {failed[0]['reason']}; all: {output_dir / 'failed.tsv'}"
        )
    outputs.write_hypotheses(output_dir, results, dict(model.options).get("nbest", 1))
    with atomic_write(output_dir / "decode.json") as stream:
        json.dump(summary, stream, ensure_ascii=False, indent=1)
        stream.write("\n")
    remove_others(output_dir / "chunks", chunks)
    return summary


def _decode(chunks: Sequence[Chunk], nj: int, cluster: str | None) -> None:
    """Decode chunks; then each utterance by itself that something transient has stopped."""
    # With a GPU never in this process: it could not be replaced, and would keep its memory.
    alone = min(nj, len(chunks)) == 1 and bool(chunks[0].model.ngpu)
    work: tuple[Any, ...] = (decode_chunk, chunks, nj, "Decode", cluster, alone)
    for failed in map_items(*work, lost=lambda _: []):
        _report(result for result in failed if not result["again"])
    left = [chunk._replace(utterances=(one,)) for chunk in chunks for one in missing(chunk)]
    if left:
        logging.warning(
            f"{len(left)} utterances were stopped, by full memory, a GPU's error or a worker "
            "process that died: each is tried again with no other at its side"
        )
        _load.cache_clear()  # the model of this process makes room
        gc.collect()
        for failed in map_items(decode_chunk, left, 1, "Decode again", cluster, True, _give_up):
            _report(failed)


def _report(failed: Iterable[dict[str, Any]]) -> None:
    for result in failed:
        logging.warning(f"{result['utt']} is not decoded: {result['reason']}")


def _give_up(chunk: Chunk) -> list[dict[str, Any]]:
    """Write down that a worker process died on a chunk's utterances, or ended over its GPU."""
    reason = "the worker process died on it, by itself too: killed, crashed or out of memory"
    died = {"reason": reason, "again": True}
    known = read_chunk(chunk)["results"]
    return add_results(
        chunk,
        [
            known[utt] if utt in known and _lost_gpu(known[utt]) else _result(utt, path) | died
            for utt, path, *_ in chunk.utterances
        ],
    )


def decode_chunk(chunk: Chunk) -> list[dict[str, Any]]:
    """Decode what is missing of a chunk, in a worker, and write its file.

    A worker whose GPU fails ends there: nothing more could be decoded in this process.

    Returns:
        The results of the utterances that failed.
    """
    failed = _decode_missing(chunk)
    if chunk.model.ngpu and any(map(_lost_gpu, failed)):
        os._exit(1)
    return failed


def _decode_missing(chunk: Chunk) -> list[dict[str, Any]]:
    left = missing(chunk)
    try:
        recogniser, facts = _load(chunk.model)
    except Exception as error:
        if not may_pass(error):
            raise
        results = [_stopped(_result(utt, path), error) for utt, path, *_ in left]
        return add_results(chunk, results)
    results = []
    with warnings.catch_warnings():
        # ESPnet uses deprecated names of torch.
        warnings.filterwarnings("ignore", category=FutureWarning, module="espnet")
        for read in _read(left, recogniser):
            results += _decode_together(recogniser, read)
            if any(map(_lost_gpu, results)):
                break
    return add_results(chunk, results, **facts)


def _read(
    utterances: Sequence[Spoken], recogniser: "Recogniser | ESPnetRecogniser"
) -> Iterator[list[tuple[dict[str, Any], "Utterance | None"]]]:
    """Read audio, some minutes at a time: lists of (result, what is to be recognised).

    Of an utterance that cannot be read the result has the reason, and there is nothing else.
    """
    import torch

    from mambaasr.data.audio import read_audio
    from mambaasr.decode.recogniser import Utterance

    found: list[tuple[dict[str, Any], Utterance | None]] = []
    spelled: dict[str, tuple[int, ...]] = {"": ()}
    seconds, rate = 0.0, recogniser.rate
    for utt, path, language, prompt in utterances:
        result, utterance = _result(utt, path), None
        try:
            if path is None:
                raise UserError("there is no audio for it in wav.scp")
            if recogniser.width is None:
                samples, _ = read_audio(path, rate=int(rate))
            else:
                samples = _read_features(path, recogniser.width)
            result["audio_seconds"] = len(samples) / rate
            if prompt not in spelled:
                spelled[prompt] = recogniser.prompt(prompt)
            utterance = Utterance(utt, torch.as_tensor(samples), language, spelled[prompt])
        except Exception as error:
            _stopped(result, error)
        found.append((result, utterance))
        seconds += result["audio_seconds"]
        if seconds > READ_SECONDS:
            yield found
            found, seconds = [], 0.0
    if found:
        yield found


def _read_features(path: str, width: int) -> "np.ndarray":
    """Return stored features (frames, bins).

    Raises:
        UserError: they cannot be read, or have not as many bins as the model reads.
    """
    features = read_matrix(path)
    if features.shape[1] != width:
        raise UserError(f"{path}: {features.shape[1]} bins; the model was trained on {width}")
    return features


def _decode_together(
    recogniser: "Recogniser | ESPnetRecogniser",
    read: Sequence[tuple[dict[str, Any], "Utterance | None"]],
) -> list[dict[str, Any]]:
    """Recognise utterances that were read; return the results of those that were reached."""
    by_key = {result["utt"]: result for result, _ in read}
    reached = [result for result, utterance in read if utterance is None]
    started = time.perf_counter()
    for each in recogniser([utterance for _, utterance in read if utterance is not None]):
        result = by_key[each.key]
        result["words"], result["tokens"] = each.words, each.tokens
        result["intermediate"] = {
            block: " ".join(recogniser.speech2text.converter.ids2tokens(tokens))
            for block, tokens in each.intermediate.items()
        }
        result["no_speech"] = each.no_speech
        if each.language is not None:
            result["lang"] = each.language
        if each.error is not None:
            _stopped(result, each.error)
        elif each.reason or not each.hypotheses:
            result["reason"] = each.reason or "the search found no hypothesis"
        try:
            result["hypotheses"] = [recogniser.plain(found) for found in each.hypotheses]
        except Exception as error:
            _stopped(result, error)
        reached.append(result)
    spent = time.perf_counter() - started
    audio = sum(result["audio_seconds"] for result in reached) or 1.0
    for result in reached:
        # Each has its share of what was spent on all together.
        result["decoding_seconds"] = spent * result["audio_seconds"] / audio
    return reached


@functools.lru_cache(maxsize=1)
def _load(model: Model) -> tuple["Recogniser | ESPnetRecogniser", dict[str, Any]]:
    """Return a model that recognises, and its number of parameters and device."""
    import torch

    from mambaasr.decode.load import load_speech2text
    from mambaasr.decode.recogniser import ESPnetRecogniser, NotSearchable, Recogniser

    # Several lines for each utterance; what fails is reported here.
    for name in ("espnet", "espnet2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    device = "cpu"
    if model.ngpu:
        device = f"cuda:{worker_index() % max(1, torch.cuda.device_count())}"
    torch.manual_seed(model.seed)
    speech2text = load_speech2text(
        model.train_config,
        model.model_file,
        device,
        model.lm_train_config,
        model.lm_file,
        model.ngram_file,
        model.phrases,
        model.phrase_weight,
        **dict(model.options),
    )
    name = torch.cuda.get_device_name(device) if model.ngpu else provenance.cpu_model()
    facts = {"device": name, "parameters": speech2text.parameters}
    if model.espnet_search:
        return ESPnetRecogniser(speech2text), facts
    try:
        return Recogniser(speech2text, model.batch_size, model.search), facts
    except NotSearchable as error:
        logging.warning(f"decoding by ESPnet's own search, one utterance at a time: {error}")
        return ESPnetRecogniser(speech2text), facts


def _result(utt: str, path: str | None) -> dict[str, Any]:
    """Return the result of an utterance that is still to be decoded.

    ``again`` marks a failure that may be transient, ``no_speech`` that CTC finds blanks alone.
    """
    return {
        "utt": utt,
        "path": path,
        "reason": None,
        "again": False,
        "no_speech": False,
        "hypotheses": [],
        "words": [],
        "tokens": [],
        "intermediate": {},
        "audio_seconds": 0.0,
        "decoding_seconds": 0.0,
    }


def _stopped(result: dict[str, Any], error: Exception) -> dict[str, Any]:
    """Write into a result what has stopped it."""
    if isinstance(error, UserError):
        result["reason"] = str(error)
    else:
        result["reason"] = f"{type(error).__name__}: {error}"
        logging.warning(f"{result['utt']} failed", exc_info=error)
    result["again"] = may_pass(error)
    return result


def _lost_gpu(result: Mapping[str, Any]) -> bool:
    """Whether an utterance ended with an error that leaves its process without a GPU."""
    return result["again"] and lost_gpu(RuntimeError(result["reason"]))


def summarise(
    model: Model,
    contents: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    nj: int,
) -> dict[str, Any]:
    """Return the content of decode.json, of the chunks' contents and all results."""
    audio = sum(result["audio_seconds"] for result in results)
    decoding = sum(result["decoding_seconds"] for result in results)
    return {
        "command": provenance.command(),
        "commit": provenance.git_commit(),
        "date": provenance.now(),
        "environment": provenance.environment(),
        "device": ", ".join(sorted({content["device"] for content in contents} - {None})),
        "train_config": model.train_config,
        "model_file": model.model_file,
        "model_sha256": sha256(model.model_file),
        "lm_file": model.lm_file,
        "ngram_file": model.ngram_file,
        "phrases": model.phrases,
        "parameters": max((content["parameters"] or 0 for content in contents), default=0),
        "options": dict(model.options)
        | {
            "search": model.search,
            "espnet_search": model.espnet_search,
            "batch_size": model.batch_size,
            "phrase_weight": model.phrase_weight,
        },
        "nj": nj,
        "utterances": len(results),
        "failed": sum(bool(result["reason"]) for result in results),
        "again": sum(result["again"] for result in results),
        "no_speech": len(outputs.without_speech(results)),
        "audio_seconds": round(audio, 3),
        "decoding_seconds": round(decoding, 3),
        "rtf": decoding / audio if audio else None,
    }
