"""How well a model finds the language: confusions as counts, as a table and as a picture."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mambaasr.files import atomic_write

# What stands for the language of an utterance that was not decoded.
NONE = "none"
PICTURE = "languages.svg"


def identification(true: Mapping[str, str], found: Mapping[str, str]) -> dict[str, Any]:
    """Count how often which language was taken for which.

    Args:
        true: utterance -> its language.
        found: utterance -> the one that a model found; where it is missing or empty it counts as
            :data:`NONE`, which is never right.

    Returns:
        ``utterances``, ``correct``, and ``confusion``: true language -> found one -> utterances.
    """
    pairs = Counter((language, found.get(utt) or NONE) for utt, language in true.items())
    confusion: dict[str, dict[str, int]] = {}
    for (language, other), count in sorted(pairs.items()):
        confusion.setdefault(language, {})[other] = count
    correct = sum(row.get(language, 0) for language, row in confusion.items())
    return {"utterances": len(true), "correct": correct, "confusion": confusion}


def describe(lid: Mapping[str, Any]) -> str:
    """Say in a sentence how often the language was found, and what was taken for what most."""
    rate = 100 * lid["correct"] / lid["utterances"]
    text = (
        f"Language found: {lid['correct']} of {lid['utterances']} utterances ({rate:.1f} %); one "
        "that was not decoded counts as not found."
    )
    wrong = [
        (count, language, other)
        for language, row in lid.get("confusion", {}).items()
        for other, count in row.items()
        if other != language
    ]
    if wrong:
        most = sorted(wrong, key=lambda each: (-each[0], each[1:]))[:5]
        several = ", ".join(f"{language} as {other} {count}" for count, language, other in most)
        text += f" Most often wrong: {several}."
    return text


def table(lid: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the confusions: a row a true language, a column a found one."""
    confusion = lid["confusion"]
    columns = _columns(confusion)
    rows = [
        [language, *(str(row.get(other, 0)) for other in columns)]
        for language, row in confusion.items()
    ]
    return ["true \\ found", *columns], rows


def plot(lid: Mapping[str, Any], path: str | Path) -> None:
    """Draw the confusions as an SVG: the share of each true language's utterances.

    Raises:
        UserError: the file cannot be written.
    """
    # Takes a second to import, and few sets have several languages.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    confusion = lid["confusion"]
    columns = _columns(confusion)
    shares = [
        [100 * row.get(other, 0) / sum(row.values()) for other in columns]
        for row in confusion.values()
    ]
    side = 2 + 0.35 * len(columns)
    figure = Figure(figsize=(side, 1 + 0.35 * len(confusion)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90)
    axes.set_yticks(range(len(confusion)), confusion)
    axes.set_xlabel("found")
    axes.set_ylabel("true")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share:
                color = "white" if share > 50 else "black"
                axes.text(x, y, f"{share:.0f}", ha="center", va="center", color=color, fontsize=8)
    # The same file from the same figures.
    with rc_context({"svg.hashsalt": "mambaasr"}), atomic_write(path, "wb") as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})


def _columns(confusion: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return the true languages in their order, then what else was found."""
    others = {other for row in confusion.values() for other in row} - confusion.keys()
    return [*confusion, *sorted(others)]
