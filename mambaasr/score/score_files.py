"""Scores as files: score.json for programs, score.txt and errors_*.txt for people."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from wcwidth import wcswidth

from mambaasr.files import atomic_write
from mambaasr.score import error_rate
from mambaasr.score import languages as lid_scores
from mambaasr.score.error_rate import Utterance

UNIT_NAMES = {"wer": "Wrd", "normalized_wer": "Wrd", "cer": "Chr", "ter": "Tok"}
TITLES = {"wer": "WER", "normalized_wer": "Normalized WER", "cer": "CER", "ter": "TER"}
PARTS = ("correct", "substitutions", "deletions", "insertions", "errors")
COLUMNS = ("Snt", "Unit", "Corr", "Sub", "Del", "Ins", "Err", "S.Err")


def write_scores(
    folder: str | Path,
    scores: Mapping[str, Sequence[Utterance]],
    speakers: Mapping[str, str] | None,
    details: Mapping[str, Any],
    languages: Mapping[str, str] | None = None,
) -> str:
    """Write score.json, score.txt and, for each rate, errors_<rate>.txt.

    Of languages that were found, where there are several, languages.svg is the picture.

    Args:
        folder: where to.
        scores: "wer", "normalized_wer", "cer", "ter" -> aligned utterances.
        speakers: utterance -> speaker.
        details: plain values that go into score.json as they are (paths, missing utterances).
        languages: utterance -> language. With several, the mean of their rates
            is given too.

    Returns:
        The text of score.txt.
    """
    folder = Path(folder)
    content = dict(details)
    for name, utterances in scores.items():
        rows = _rows(utterances, speakers)
        *by_speaker, (_, everything) = [(who, counts.as_dict()) for who, counts in rows]
        content[name] = everything | {"speakers": dict(by_speaker)}
        if languages is not None:
            found = _by_language(utterances, languages)
            content[name]["languages"] = found
            if len(found) > 1:
                content[name]["macro"] = error_rate.macro_average(found.values())
        with atomic_write(folder / f"errors_{name}.txt") as stream:
            stream.writelines(error_lines(utterances, speakers))
    if len(details.get("lid", {}).get("confusion", ())) > 1:
        lid_scores.plot(details["lid"], folder / lid_scores.PICTURE)
    text = score_text(scores, speakers, details, languages)
    with atomic_write(folder / "score.txt") as stream:
        stream.write(text)
    # Last, for it is what tells other commands that there is a score.
    with atomic_write(folder / "score.json") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.write("\n")
    return text


def score_text(
    scores: Mapping[str, Sequence[Utterance]],
    speakers: Mapping[str, str] | None,
    details: Mapping[str, Any],
    languages: Mapping[str, str] | None = None,
    confusions: bool = True,
) -> str:
    """Return a table for each rate, and what else there is to say; see :func:`write_scores`.

    That of the languages' confusions is left out where ``confusions`` is false: it may be wide.
    """
    sections = []
    for name, utterances in scores.items():
        header = (TITLES[name], *(UNIT_NAMES[name] if c == "Unit" else c for c in COLUMNS))
        table = [(who, *cells(counts.as_dict())) for who, counts in _rows(utterances, speakers)]
        sections.append(markdown_table(header, table))
        found = _by_language(utterances, languages) if languages is not None else {}
        if len(found) > 1:
            header = (f"{TITLES[name]} by language", *header[1:])
            sections.append(markdown_table(header, language_rows(found)))
    if details.get("normalizer"):
        sections.append(f"Normalized by {details['normalizer']}.\n")
    missing = details.get("missing")
    if missing:
        sections.append(f"Utterances without a hypothesis, counted as deleted: {len(missing)}.\n")
    if details.get("lid"):
        sections.append(lid_scores.describe(details["lid"]) + "\n")
        if confusions and len(details["lid"].get("confusion", ())) > 1:
            sections.append(markdown_table(*lid_scores.table(details["lid"])))
    if details.get("compare"):
        sections.append(describe(details["compare"]) + "\n")
    return "\n".join(sections)


def _rows(utterances, speakers):
    """Return (speaker, counts) of every speaker, then of all together."""
    rows = error_rate.by_group(utterances, speakers) if speakers is not None else {}
    return [*rows.items(), ("total", error_rate.total(utterances))]


def _by_language(utterances, languages):
    """Return language -> counts and rates as plain values."""
    found = error_rate.by_group(utterances, languages, "language")
    return {language: counts.as_dict() for language, counts in found.items()}


def language_rows(
    found: Mapping[str, Mapping[str, Any]], prefix: str = ""
) -> list[tuple[str, ...]]:
    """Return rows of a table: every language, then the mean over them.

    Args:
        found: language -> counts and rates.
        prefix: of every row's name.
    """
    rows = [(f"{prefix}{language}", *cells(values)) for language, values in found.items()]
    mean = error_rate.macro_average(found.values())
    if mean is None:
        return rows
    percent = {name: mean[name] * mean["units"] / 100 for name in PARTS}
    name = f"{prefix}mean of {mean['groups']}"
    return [*rows, (name, *cells(mean | percent))]


def cells(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row of the table: counts, then Corr, Sub, Del, Ins, Err in % of the units, S.Err."""
    row = [str(values["sentences"]), str(values["units"])]
    for name in PARTS:
        row.append(f"{100 * values[name] / values['units']:.1f}" if values["units"] else "-")
    rate = values["sentence_error_rate"]
    return (*row, "-" if rate is None else f"{rate:.1f}")


def describe(comparison: Mapping[str, Any]) -> str:
    """Say in a sentence what a comparison (a dict) shows."""
    c = comparison
    verdict = (
        f"the {'first' if c['difference'] < 0 else 'second'} is better"
        if c["significant"]
        else "no difference is shown"
    )
    return (
        f"WER {c['rate']:.2f} % against {c['other_rate']:.2f} % ({c['other']}): difference "
        f"{c['difference']:+.2f}, 95 % interval {c['low']:+.2f} to {c['high']:+.2f} "
        f"(paired bootstrap over utterances, {c['samples']} samples): {verdict}."
    )


def error_lines(
    utterances: Sequence[Utterance], speakers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Yield lines: every utterance with an error, aligned, then the commonest errors."""
    for utterance in utterances:
        if not utterance.counts.errors:
            continue
        speaker = f" ({speakers[utterance.utt]})" if speakers is not None else ""
        counts = utterance.counts
        yield (
            f"{utterance.utt}{speaker}  C {counts.correct}  S {counts.substitutions}  "
            f"D {counts.deletions}  I {counts.insertions}\n"
        )
        rows = {"REF": [], "HYP": [], "   ": []}
        for pair in utterance.pairs:
            units = (pair.ref or "*", pair.hyp or "*", "" if pair.kind == "C" else pair.kind)
            width = max(map(wcswidth, units))
            for row, unit in zip(rows.values(), units, strict=True):
                row.append(unit + " " * (width - wcswidth(unit)))
        for label, row in rows.items():
            yield f"  {label} {' '.join(row)}".rstrip() + "\n"
        yield "\n"
    for kind, title in (("S", "Substitutions"), ("D", "Deletions"), ("I", "Insertions")):
        found = error_rate.confusions(utterances, kind)
        yield f"{title}: {sum(count for _, count in found)}\n"
        for (ref, hyp), count in found:
            what = {"S": f"{ref} -> {hyp}", "D": ref, "I": hyp}[kind]
            yield f"{count:7d}  {what}\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown, aligned for the eye; its first column is text."""
    alignment = ("left", *["right"] * (len(header) - 1))
    # A header that tabulate knows as one makes its column two wider than the widest cell.
    text = tabulate([header, *rows], tablefmt="pipe", colalign=alignment, disable_numparse=True)
    rule, first, *others = text.splitlines(keepends=True)
    return "".join([first, rule, *others, "\n"])
