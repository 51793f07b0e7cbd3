"""RESULTS.md: the tables of an experiment, and where they come from."""

import json
import re
from pathlib import Path
from typing import Any

from mambaasr import provenance
from mambaasr.errors import UserError
from mambaasr.score.score_files import (
    TITLES,
    UNIT_NAMES,
    cells,
    describe,
    language_rows,
    markdown_table,
)


def is_scored(folder: str | Path) -> bool:
    """Return whether anything is scored in an experiment's folder; UserError if there is none."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such experiment folder")
    return any(Path(folder).glob("**/score/score.json"))


def read_results(folder: str | Path) -> list[tuple[str, dict, dict]]:
    """Collect the scores of an experiment.

    Args:
        folder: an experiment's folder, with ``<decoding>/<set>/score/score.json`` inside.

    Returns:
        A list of (name, score, decoding): the name is ``<decoding>/<set>``, the others are the
        contents of score.json and of decode.json (``{}`` where there is none).

    Raises:
        UserError: there is no such folder, nothing is scored in it, or a file is unreadable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such experiment folder")
    found = []
    for path in sorted(folder.glob("**/score/score.json")):
        place = path.parent.parent
        decoding = place / "decode.json"
        name = place.relative_to(folder).as_posix()
        found.append((name, read_json(path), read_json(decoding) if decoding.exists() else {}))
    if not found:
        raise UserError(f"{folder}: nothing is scored in it; run stages 12 and 13")
    return found


def results_page(folder: str | Path, origin: bool = True) -> str:
    """Return RESULTS.md of an experiment as text; see :func:`read_results` for the errors.

    Args:
        folder: the experiment's.
        origin: whether to add where the figures come from.
    """
    folder = Path(folder)
    results = read_results(folder)
    sections = [f"# {folder.resolve().name}\n"]
    for rate, title in TITLES.items():
        rows = [
            (name, *cells(score[rate]), _rtf(decoding))
            for name, score, decoding in results
            if rate in score
        ]
        if rows:
            columns = ("Snt", UNIT_NAMES[rate], "Corr", "Sub", "Del", "Ins", "Err", "S.Err", "RTF")
            sections.append(f"## {title}\n\n" + markdown_table(("Test set", *columns), rows))
            if rate == "normalized_wer":
                sections.append(_normalizers(results))
        rows = [
            row
            for name, found in _languages(results, rate).items()
            for row in language_rows(found, f"{name} ")
        ]
        if rows:
            header = ("Test set and language", *columns[:-1])
            sections.append(f"## {title} by language\n\n" + markdown_table(header, rows))
    rows = _lid_rows(results)
    if rows:
        header = ("Test set", "Snt", "Right", "Right in %")
        sections.append("## Languages found\n\n" + markdown_table(header, rows))
    comparisons = [
        f"- {name}: {describe(score['compare'])}\n"
        for name, score, _ in results
        if score.get("compare")
    ]
    if comparisons:
        sections.append("## Comparison\n\n" + "".join(comparisons))
    sections.append(_notes(results))
    if origin:
        sections.append(_origin(folder, results))
    return "\n".join(section for section in sections if section)


def _normalizers(results):
    """Say which normalizer was applied, to which sets where there are several."""
    found = {}
    for name, score, _ in results:
        if score.get("normalizer"):
            found.setdefault(score["normalizer"], []).append(name)
    if len(found) == 1:
        return f"References and hypotheses normalized by {next(iter(found))}.\n"
    lines = [f"- {', '.join(names)}: normalized by {name}\n" for name, names in found.items()]
    return "".join(lines)


def _languages(results, rate):
    """Return test set -> language -> counts and rates, where there are several languages.

    Sets of one language each, whose names differ by its code alone (test_en, test_de), belong
    together: as test_*.
    """
    found, together = {}, {}
    for name, score, _ in results:
        languages = score.get(rate, {}).get("languages", {})
        if len(languages) > 1:
            found[name] = languages
        elif common := _common_name(name, languages):
            together.setdefault(common, {}).update(languages)
    return found | {name: each for name, each in together.items() if len(each) > 1}


def _common_name(name, languages):
    """Return the name of a set of one language with ``*`` for its code; None where it has none."""
    folder, slash, last = name.rpartition("/")
    for code in languages:
        word = rf"(?<![A-Za-z0-9]){re.escape(code)}(?![A-Za-z0-9])"
        common, times = re.subn(word, "*", last, count=1)
        if times:
            return folder + slash + common
    return None


def _lid_rows(results):
    """Return a row for each set whose languages a model found, and for sets that are alike."""
    rows, together = [], {}
    for name, score, _ in results:
        if "lid" in score:
            right = score["lid"]["correct"], score["lid"]["utterances"]
            rows.append((name, *right))
            languages = score.get("wer", {}).get("languages", {})
            if len(languages) == 1 and (common := _common_name(name, languages)):
                together.setdefault(common, []).append(right)
    for common, several in together.items():
        if len(several) > 1:
            rows.append((common, *map(sum, zip(*several, strict=True))))
    return [
        (name, str(count), str(right), f"{100 * right / count:.1f}") for name, right, count in rows
    ]


def _rtf(decoding):
    rtf = decoding.get("rtf")
    return "-" if rtf is None else f"{rtf:.3f}"


def _notes(results):
    """Say what was not decoded: it counts as deleted in the tables."""
    lines = []
    for name, score, decoding in results:
        missing, failed = len(score.get("missing", ())), decoding.get("failed", 0)
        if missing or failed:
            why = [f"{failed} utterances could not be decoded (failed.tsv)"] if failed else []
            why += [f"{missing} were left out by stage 3 (report.tsv)"] if missing else []
            lines.append(f"- {name}: {' and '.join(why)}; they count as deleted.\n")
    return "## Not decoded\n\n" + "".join(lines) if lines else ""


def _origin(folder, results):
    """Return the section that makes the tables traceable."""
    lines = ["Rates in %. RTF: seconds of computing a second of audio, summed over the workers.\n"]
    counts = {d["parameters"] for _, _, d in results if d.get("parameters")}
    sizes = ", ".join(f"{count:,}" for count in sorted(counts)) or "unknown"
    lines.append(f"- Parameters: {sizes}")
    lines += [f"- {title}: {how}" for title, how in _starts(folder)]
    # In the order of the tables, each language model once.
    for file in dict.fromkeys(d.get("lm_file") for _, _, d in results if d.get("lm_file")):
        for title, how in _starts(Path(file).parent):
            lines.append(f"- {title} of the language model in {Path(file).parent.name}: {how}")
    for name, _, decoding in results:
        if decoding:
            lines.append(
                f"- {name}: `{decoding['command']}`, commit {decoding['commit'] or 'unknown'}, "
                f"{decoding['date']}, {decoding['nj']} jobs on {decoding['device']}; "
                f"{provenance.versions(decoding['environment'])}"
            )
    here = provenance.environment()
    commit = provenance.git_commit() or "unknown"
    lines.append(
        f"- This page: `{provenance.command()}`, commit {commit}, {provenance.now()}; "
        f"{provenance.versions(here)}; {here['cpu']}"
    )
    return "## Origin\n\n" + "\n".join(lines) + "\n"


def _starts(folder):
    """Return what was started how: statistics and training, each start that differs from the last.

    Returns:
        list of (title, how).
    """
    found, before = [], {}
    try:
        starts = provenance.starts(folder)
    except UserError as error:  # no reason to hold back the figures
        return [("Training", str(error))]
    if starts and starts[0].get("epoch", 1) > 1:
        found.append(("Training", f"unknown before epoch {starts[0]['epoch']}"))
    for start in starts:
        for title, entry in (("Statistics", start.get("statistics")), ("Training", start)):
            made = entry and [
                entry[key] for key in ("command", "commit", "clean", "environment", "device")
            ]
            if made and made != before.get(title):
                found.append((title, _how(entry)))
                before[title] = made
    return found


def _how(start):
    since = f", from epoch {start['epoch']}" if start.get("epoch", 1) > 1 else ""
    return (
        f"`{start['command']}`, commit {provenance.commit_of(start)}{since}, seed {start['seed']}, "
        f"{start['date']}, on {start['device']}; {provenance.versions(start['environment'])}"
    )


def read_json(path: Path) -> Any:
    """Return what a file that a command of ours wrote says.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, make it anew: {error}") from error
