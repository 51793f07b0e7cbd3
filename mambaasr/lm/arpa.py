"""n-gram models as ARPA files, the text format of SRILM and kenlm, over the tokens of a list.

Of a list the last token, ``<sos/eos>``, is ``<s>`` where a text begins and ``</s>`` where it ends:
no n-gram can have one in the other's place.
"""

import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

BEGIN, END, UNK = "<s>", "</s>", "<unk>"
# What a file has for the logarithm of 0.
ZERO = -99.0
# Lines that are written at once.
_LINES = 1 << 16

type Lines = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of one order n, m of them.

    Those of order 1 are all tokens of the list in their order, with a probability of 0 where the
    model does not know them; the last one has the probability of ``</s>`` and the back-off weight
    of ``<s>``.

    Attributes:
        words: (m, n) numbers of tokens.
        log_prob: (m) base 10, of the last word after the others.
        backoff: (m) base 10, of the n-gram as a context; 0 where there is none.
        path: of the file.
        lines: (m) where in it they stand, beginning with 1; none for order 1.
    """

    words: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray
    path: str = ""
    lines: Sequence[int] = ()

    def where(self, index: int) -> str:
        """Return ``file:line`` of an n-gram."""
        return f"{self.path}:{self.lines[index]}" if self.lines else self.path


def read_arpa(path: str | Path, token_list: Sequence[str]) -> list[Grams]:
    """Read the n-grams whose words are tokens of a list.

    Args:
        path: the file.
        token_list: tokens by number, ``<sos/eos>`` last.

    Returns:
        those of order 1, 2, ...

    Raises:
        UserError: the file cannot be read, is torn or something else, or its words are not the
            list's tokens; names the line.
    """
    number = 0
    try:
        with open(path, encoding="utf-8") as stream:

            def lines() -> Lines:
                nonlocal number
                for number, line in enumerate(stream, 1):
                    if line := line.strip(" \t\r\n"):
                        yield f"{path}:{number}", line

            return _read(path, lines(), token_list)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number + 1}: no text, so no ARPA file; of a binary model give the ARPA file "
            "that it was made of"
        ) from error


def _read(path: str | Path, lines: Lines, token_list: Sequence[str]) -> list[Grams]:
    where = f"{path}:1"
    for _, line in lines:
        if line == "\\data\\":
            break
    else:
        raise UserError(f"{where}: no ARPA file: it has no line \\data\\")
    counts: list[int] = []
    line = ""
    for where, line in lines:
        if not (found := re.fullmatch(r"ngram +(\d+) *= *(\d+)", line)):
            break
        if int(found[1]) != len(counts) + 1:
            raise UserError(f"{where}: ngram {found[1]} where {len(counts) + 1} was expected")
        counts.append(int(found[2]))
    if not counts:
        raise UserError(f"{where}: no ARPA file: no line 'ngram 1=...' after \\data\\")
    orders = []
    for order, count in enumerate(counts, 1):
        _expect(f"\\{order}-grams:", where, line)
        orders.append(_section(path, lines, order, count, token_list))
        where, line = next(lines, (str(path), ""))
    _expect("\\end\\", where, line)
    return orders


def _expect(wanted: str, where: str, line: str) -> None:
    if line != wanted:
        found = f"found {line[:60]!r}" if line else "the file ends"
        raise UserError(f"{where}: expected {wanted}, {found}: the file is torn, or no ARPA file")


def _section(
    path: str | Path, lines: Lines, order: int, count: int, token_list: Sequence[str]
) -> Grams:
    """Read the n-grams of one order; those with words of no token are left out."""
    end = len(token_list) - 1
    known = {token: number for number, token in enumerate(token_list[:-1])}
    if UNK in known:
        known.setdefault("<UNK>", known[UNK])
    first, last = known | {BEGIN: end}, known | {END: end}
    vocabularies = [last] if order == 1 else [first, *[known] * (order - 2), last]
    words, numbers = array("q"), array("q")
    log_prob, backoff = array("d"), array("d")
    foreign, begin, read = 0.0, 0.0, 0
    for where, line in islice(lines, count):
        fields = line.replace("\t", " ").split(" ")
        if "" in fields:
            fields = [field for field in fields if field]
        try:
            probability = float(fields[0])
            weight = float(fields[order + 1]) if len(fields) == order + 2 else 0.0
            # A sum of rounded numbers may be a little above 0.
            if len(fields) < order + 1 or not probability < 0.01 or not math.isfinite(weight):
                raise ValueError
        except (ValueError, IndexError):
            raise UserError(
                f"{where}: {line[:60]!r} is no {order}-gram, of which {count} were to come: the "
                "file is torn, or no ARPA file"
            ) from None
        if len(fields) > order + 2:
            raise UserError(f"{where}: {line[:60]!r} has {len(fields) - 1} words for {order}")
        read += 1
        if order == 1 and fields[1] == BEGIN:
            begin = weight
            continue
        own = [
            vocabulary.get(word) for vocabulary, word in zip(vocabularies, fields[1:], strict=False)
        ]
        if None in own:
            foreign += 10**probability
            continue
        words.extend(own)  # type: ignore[arg-type]
        log_prob.append(probability)
        backoff.append(weight)
        numbers.append(int(where.rpartition(":")[2]))
    if read < count:
        raise UserError(f"{path}: the file ends after {read} of {count} {order}-grams: it is torn")
    grams = Grams(
        np.frombuffer(words, dtype=np.int64).reshape(-1, order),
        np.frombuffer(log_prob) if log_prob else np.empty(0),
        np.frombuffer(backoff) if backoff else np.empty(0),
        str(path),
        numbers,
    )
    if order > 1:
        return grams
    if foreign > 0.5:
        raise UserError(
            f"{path}: {foreign:.0%} of its probability is that of words that the token list does "
            "not have: a model of other tokens? Stage 9 (--use_ngram true) makes one of the "
            "list's"
        )
    every = Grams(
        np.arange(end + 1).reshape(-1, 1), np.full(end + 1, -np.inf), np.zeros(end + 1), str(path)
    )
    every.log_prob[grams.words[:, 0]] = grams.log_prob
    every.backoff[grams.words[:, 0]] = grams.backoff
    every.backoff[end] = begin
    return every


def write_arpa(path: str | Path, orders: Sequence[Grams], token_list: Sequence[str]) -> None:
    """Write a model atomically.

    Args:
        path: the file.
        orders: the n-grams of order 1, 2, ...
        token_list: see :func:`read_arpa`.
    """
    inner = np.array([*token_list[:-1], BEGIN], dtype=object)
    last = np.array([*token_list[:-1], END], dtype=object)
    known = np.flatnonzero(np.isfinite(orders[0].log_prob))
    with atomic_write(path) as stream:
        stream.write(f"\\data\\\nngram 1={len(known) + 1}\n")
        for order, grams in enumerate(orders[1:], 2):
            stream.write(f"ngram {order}={len(grams.words)}\n")
        for order, grams in enumerate(orders, 1):
            stream.write(f"\n\\{order}-grams:\n")
            if order == 1:
                stream.write(f"{ZERO:g}\t{BEGIN}\t{grams.backoff[-1]:.7g}\n")
            chosen = known if order == 1 else np.arange(len(grams.words))
            for start in range(0, len(chosen), _LINES):
                part = chosen[start : start + _LINES]
                columns = grams.words[part].T
                texts = map(" ".join, zip(*inner[columns[:-1]], last[columns[-1]], strict=True))
                values = zip(grams.log_prob[part].tolist(), texts, strict=True)
                if order == len(orders):
                    stream.writelines(f"{value:.7g}\t{text}\n" for value, text in values)
                    continue
                weights = grams.backoff[part]
                weights[columns[-1] == len(last) - 1] = 0  # no text continues after its end
                stream.writelines(
                    f"{value:.7g}\t{text}\t{weight:.7g}\n"
                    for (value, text), weight in zip(values, weights.tolist(), strict=True)
                )
        stream.write("\n\\end\\\n")
