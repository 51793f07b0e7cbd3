"""Error rates of hypotheses against references, by word, character or token."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mambaasr.errors import UserError

SPACE = "<space>"
_FILES = {"speaker": "spk", "language": "lang"}


@dataclasses.dataclass
class Counts:
    """Sums over utterances.

    Attributes:
        sentences: utterances.
        wrong_sentences: utterances with at least one error.
        units: words (characters, tokens) of the references.
        correct, substitutions, deletions, insertions: units.
    """

    sentences: int = 0
    wrong_sentences: int = 0
    units: int = 0
    correct: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def error_rate(self) -> float | None:
        """Errors in percent of the references' units; None where there are no units."""
        return 100 * self.errors / self.units if self.units else None

    @property
    def sentence_error_rate(self) -> float | None:
        """Wrong utterances in percent; None where there are none at all."""
        return 100 * self.wrong_sentences / self.sentences if self.sentences else None

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Counts(*(a + b for a, b in zip(mine, others, strict=True)))

    def as_dict(self) -> dict[str, Any]:
        """Return counts and rates as plain values."""
        rates = ("errors", "error_rate", "sentence_error_rate")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in rates}


class Pair(NamedTuple):
    """One step of an alignment: a reference's unit against a hypothesis's.

    Attributes:
        kind: "C" correct, "S" substituted, "D" deleted, "I" inserted.
        ref: the unit, or None where the hypothesis inserts.
        hyp: the unit, or None where the hypothesis deletes.
    """

    kind: str
    ref: str | None
    hyp: str | None


class Utterance(NamedTuple):
    """An utterance's id, its alignment, and its counts."""

    utt: str
    pairs: list[Pair]
    counts: Counts


def words(text: str) -> list[str]:
    """Split at white space."""
    return text.split()


def characters(text: str) -> list[str]:
    """Split into characters; a stretch of white space counts as one character, ``<space>``."""
    return [SPACE if c == " " else c for c in " ".join(text.split())]


def check_ids(
    references: Iterable[str], hypotheses: Iterable[str], name: str = "the hypotheses"
) -> None:
    """Refuse hypotheses of utterances that no reference knows.

    They belong to another test set, or ids were changed on the way: a rate would be wrong.

    Raises:
        UserError: names the first of them.
    """
    unknown = sorted(set(hypotheses) - set(references))
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise UserError(
            f"{name}: utterance {unknown[0]!r}{more} is not among the references; "
            "score the hypotheses of this very test set"
        )


def align(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    split: Callable[[str], list[str]],
) -> list[Utterance]:
    """Align every reference with its hypothesis by the least number of errors.

    A missing hypothesis is an empty one: all of its reference is deleted. Where several
    alignments have the fewest errors, one of them is taken; sclite weighs substitutions against
    deletions and insertions differently, and may split the same utterance otherwise.

    Args:
        references: dict of utterance -> text.
        hypotheses: dict of utterance -> text.
        split: turns a text into a list of units.

    Returns:
        A list of :class:`Utterance` in the order of the references.

    Raises:
        UserError: there are no references, or a hypothesis has none.
    """
    import jiwer

    if not references:
        raise UserError("there are no reference transcripts to score against")
    check_ids(references, hypotheses)
    refs = [split(text) for text in references.values()]
    hyps = [split(hypotheses.get(utt, "")) for utt in references]
    aligned = jiwer.process_words(refs, hyps, _as_it_is, _as_it_is).alignments
    utterances = []
    for utt, ref, hyp, chunks in zip(references, refs, hyps, aligned, strict=True):
        pairs = [pair for chunk in chunks for pair in _pairs(chunk, ref, hyp)]
        utterances.append(Utterance(utt, pairs, _count(pairs)))
    return utterances


def total(utterances: Iterable[Utterance]) -> Counts:
    """Return the :class:`Counts` of all utterances together."""
    return sum((utterance.counts for utterance in utterances), Counts())


def check_groups(ids: Iterable[str], groups: Mapping[str, str], what: str) -> None:
    """Refuse an utterance without a group.

    Raises:
        UserError: names the first of them.
    """
    for utt in ids:
        if utt not in groups:
            raise UserError(f"utterance {utt!r} has no {what} in utt2{_FILES[what]}")


def by_group(
    utterances: Sequence[Utterance], groups: Mapping[str, str], what: str = "speaker"
) -> dict[str, Counts]:
    """Return a dict of group -> :class:`Counts`, sorted by group.

    Args:
        utterances: list of :class:`Utterance`.
        groups: dict of utterance -> group, such as an utt2spk.
        what: the kind of group, for the message: "speaker" or "language".

    Raises:
        UserError: an utterance has no group.
    """
    check_groups((utterance.utt for utterance in utterances), groups, what)
    found = {}
    for utterance in utterances:
        group = groups[utterance.utt]
        found[group] = found.get(group, Counts()) + utterance.counts
    return dict(sorted(found.items()))


def macro_average(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the mean of error rates over groups, each group counting the same.

    Args:
        rows: of :meth:`Counts.as_dict`; those without units have no rate and are left out.

    Returns:
        dict: ``groups`` that were averaged, ``sentences`` and ``units`` of all, and the means of
        ``correct``, ``substitutions``, ``deletions``, ``insertions`` and ``errors`` in percent of
        the units, of ``error_rate`` and of ``sentence_error_rate``; None where there is no group.
    """
    rows = [row for row in rows if row["units"]]
    mean = {"groups": len(rows)}
    mean |= {name: sum(row[name] for row in rows) for name in ("sentences", "units")}
    if not rows:
        return None
    for name in ("correct", "substitutions", "deletions", "insertions", "errors"):
        mean[name] = sum(100 * row[name] / row["units"] for row in rows) / len(rows)
    for name in ("error_rate", "sentence_error_rate"):
        mean[name] = sum(row[name] for row in rows) / len(rows)
    return mean


def confusions(
    utterances: Iterable[Utterance], kind: str
) -> list[tuple[tuple[str | None, str | None], int]]:
    """Return (ref, hyp) pairs of one kind of error and how often each occurs, commonest first."""
    counter = Counter(
        (pair.ref, pair.hyp) for each in utterances for pair in each.pairs if pair.kind == kind
    )
    return sorted(counter.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))


def _as_it_is(units):
    return units


def _pairs(chunk, ref, hyp):
    """Turn one of jiwer's chunks into pairs."""
    r = ref[chunk.ref_start_idx : chunk.ref_end_idx]
    h = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
    if chunk.type == "delete":
        return [Pair("D", unit, None) for unit in r]
    if chunk.type == "insert":
        return [Pair("I", None, unit) for unit in h]
    kind = "C" if chunk.type == "equal" else "S"
    return [Pair(kind, a, b) for a, b in zip(r, h, strict=True)]


def _count(pairs):
    kinds = Counter(pair.kind for pair in pairs)
    return Counts(
        sentences=1,
        wrong_sentences=int(kinds["C"] < len(pairs)),
        units=len(pairs) - kinds["I"],
        correct=kinds["C"],
        substitutions=kinds["S"],
        deletions=kinds["D"],
        insertions=kinds["I"],
    )
