"""Write a decoded set: hypotheses as ESPnet does, and what is to be reported of it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mambaasr.data.kaldi_file import parse_hypothesis
from mambaasr.files import atomic_write

BEST = ("text", "token", "token_int")
FILES = (*BEST, "score", "score_parts")


def write_hypotheses(folder: Path, results: Sequence[dict[str, Any]], nbest: int) -> None:
    """Write ESPnet's ``<n>best_recog`` folders, and beside them the best text, tokens and times.

    The times are in NIST's ``ctm``: utterance, channel, start and duration [s], word, confidence;
    those of tokens in ``token_ctm``. What intermediate CTC has found is in ``1best_recog``, the
    language found by a model with a head for it in ``lang``.

    The best hypotheses' scores, and of each scorer's part (``ctc=-1.5 decoder=-0.7``), stay in
    ``1best_recog``: the folder ``score`` is for error rates.
    """
    for rank in range(nbest):
        for name in FILES:
            _write_column(folder / f"{rank + 1}best_recog" / name, results, rank, name)
    for name in BEST:
        _write_column(folder / name, results, 0, name)
    for name, timed in (("ctm", "words"), ("token_ctm", "tokens")):
        with atomic_write(folder / name) as stream:
            for result in results:
                for text, start, duration, confidence in () if result["reason"] else result[timed]:
                    word = parse_hypothesis(text)  # as in the text
                    stream.write(
                        f"{result['utt']} 1 {start:.3f} {duration:.3f} {word} {confidence:.3f}\n"
                    )
    for block in sorted({block for result in results for block in result["intermediate"]}):
        with atomic_write(folder / "1best_recog" / f"encoder_interctc_layer{block}.txt") as stream:
            for result in results:
                tokens = result["intermediate"].get(block, "")
                stream.write(f"{result['utt']} {tokens}".rstrip() + "\n")
    if any("lang" in result for result in results):
        with atomic_write(folder / "lang") as stream:
            stream.writelines(f"{r['utt']} {r.get('lang', '')}".rstrip() + "\n" for r in results)


def _write_column(path: Path, results: Sequence[dict[str, Any]], rank: int, name: str) -> None:
    with atomic_write(path) as stream:
        for result in results:
            there = result["hypotheses"][rank : rank + 1]
            value = ""
            if there and not result["reason"]:
                best = there[0]
                value = str(best[name]) if name != "score_parts" else _parts(best["parts"])
            stream.write(f"{result['utt']} {value}".rstrip(" ") + "\n")


def _parts(parts: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.4f}" for name, value in sorted(parts.items()))


def without_speech(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results whose best hypothesis has a text though CTC hears no speech."""
    heard = [each for each in results if each["no_speech"] and each["hypotheses"]]
    return [each for each in heard if each["hypotheses"][0]["text"]]


def write_reports(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    """Write ``failed.tsv`` and ``no_speech.tsv``: utterance, audio file, and reason or text."""
    failed = [(each, each["reason"]) for each in results if each["reason"]]
    silent = [(each, each["hypotheses"][0]["text"]) for each in without_speech(results)]
    for name, last, rows in (("failed", "reason", failed), ("no_speech", "text", silent)):
        with atomic_write(folder / f"{name}.tsv") as stream:
            stream.write(f"utt\tpath\t{last}\n")
            for result, words in rows:
                row = (result["utt"], result["path"] or "-", words)
                stream.write("\t".join(" ".join(cell.split()) for cell in row) + "\n")


def remove_outputs(folder: Path) -> None:
    """Remove what an earlier decoding wrote, but for its chunks."""
    # decode.json first: without it the others do not count as a result.
    for name in ("decode.json", *BEST, "ctm", "token_ctm", "lang", "failed.tsv", "no_speech.tsv"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("[1-9]*best_recog"):
        shutil.rmtree(path)
