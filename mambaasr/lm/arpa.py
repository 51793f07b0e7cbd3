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

type Lines = Iterator[tuple[int, str]]


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
    lines: np.ndarray | None = None

    def where(self, index: int) -> str:
        """Return ``file:line`` of an n-gram."""
        return f"{self.path}:{self.lines[index]}" if self.lines is not None else self.path


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
                        yield number, line

            return _read(str(path), lines(), token_list)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number + 1}: no text, so no ARPA file; of a binary model give the ARPA file "
            "that it was made of"
        ) from error


def _read(path: str, lines: Lines, token_list: Sequence[str]) -> list[Grams]:
    if not any(line == "\\data\\" for _, line in lines):
        raise UserError(f"{path}:1: no ARPA file: it has no line \\data\\")
    counts: list[int] = []
    number, line = 1, ""
    for number, line in lines:
        if not (found := re.fullmatch(r"ngram +(\d+) *= *(\d+)", line)):
            break
        if int(found[1]) != len(counts) + 1:
            raise UserError(
                f"{path}:{number}: ngram {found[1]} where {len(counts) + 1} was expected"
            )
        counts.append(int(found[2]))
    if not counts:
        raise UserError(f"{path}:{number}: no ARPA file: no line 'ngram 1=...' after \\data\\")
    orders = []
    for order, count in enumerate(counts, 1):
        _expect(f"\\{order}-grams:", path, number, line)
        orders.append(_section(path, lines, order, count, token_list))
        number, line = next(lines, (0, ""))
    _expect("\\end\\", path, number, line)
    return orders


def _expect(wanted: str, path: str, number: int, line: str) -> None:
    if not line:
        raise UserError(f"{path}: expected {wanted}, but the file ends: it is torn")
    if line != wanted:
        raise UserError(f"{path}:{number}: expected {wanted}, found {line[:60]!r}: no ARPA file")


def _section(path: str, lines: Lines, order: int, count: int, token_list: Sequence[str]) -> Grams:
    """Read the n-grams of one order; those with words of no token are left out."""
    begin, end = len(token_list) - 1, len(token_list)
    known = {token: index for index, token in enumerate(token_list[:-1])}
    if UNK in known:
        known.setdefault("<UNK>", known[UNK])
    known |= {BEGIN: begin, END: end}
    tokens, numbers = array("q"), array("q")
    logs, weights = array("d"), array("d")
    for number, line in islice(lines, count):
        fields = line.replace("\t", " ").split(" ")
        if "" in fields:
            fields = [field for field in fields if field]
        try:
            if not order + 1 <= len(fields) <= order + 2:
                raise ValueError
            log_prob = float(fields[0])
            weight = float(fields[-1]) if len(fields) == order + 2 else 0.0
            # A sum of rounded numbers may be a little above 0.
            if not log_prob < 0.01 or not math.isfinite(weight):
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}:{number}: {line[:60]!r} is no {order}-gram, of which {count} were to "
                "come: the file is torn, or no ARPA file"
            ) from None
        tokens.extend([known.get(word, -1) for word in fields[1 : order + 1]])
        logs.append(log_prob)
        weights.append(weight)
        numbers.append(number)
    if len(numbers) < count:
        raise UserError(
            f"{path}: the file ends after {len(numbers)} of {count} {order}-grams: it is torn"
        )
    words = np.array(tokens).reshape(-1, order)
    log_probs, backoffs = np.array(logs), np.array(weights)
    usable = (words >= 0).all(1)
    if order == 1:
        return _unigrams(path, words[usable, 0], log_probs, backoffs, usable, len(token_list))
    # <s> is only first in an n-gram, </s> only last.
    usable &= (words[:, 1:] != begin).all(1) & (words[:, :-1] != end).all(1)
    return Grams(
        np.minimum(words, begin)[usable],
        log_probs[usable],
        backoffs[usable],
        path,
        np.array(numbers)[usable],
    )


def _unigrams(
    path: str,
    words: np.ndarray,
    log_probs: np.ndarray,
    backoffs: np.ndarray,
    usable: np.ndarray,
    vocab_size: int,
) -> Grams:
    """Lay the n-grams of order 1 over those of all tokens.

    Args:
        path: of the file.
        words: numbers of tokens, <s> before </s> as the last ones.
        log_probs, backoffs: of these and of words that are no tokens.
        usable: which these are.
        vocab_size: tokens of the list.
    """
    foreign = (10 ** log_probs[~usable]).sum()
    if foreign > 0.5:
        raise UserError(
            f"{path}: {foreign:.0%} of its probability is that of words that the token list does "
            "not have: a model of other tokens? Stage 9 (--use_ngram true) makes one of the "
            "list's"
        )
    every = np.full(vocab_size + 1, -np.inf)
    weights = np.zeros(vocab_size + 1)
    every[words], weights[words] = log_probs[usable], backoffs[usable]
    every[-2] = every[-1]
    return Grams(np.arange(vocab_size).reshape(-1, 1), every[:-1], weights[:-1], path)


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
