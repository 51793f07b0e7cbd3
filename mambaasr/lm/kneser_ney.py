"""Estimate n-gram models by modified Kneser-Ney smoothing, interpolated.

Chen and Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling",
TR-10-98, with the choices of kenlm's ``lmplz`` (Heafield et al., 2013, "Scalable Modified
Kneser-Ney Language Model Estimation"), so that both give the same model of one text.

An n-gram w1 ... wn is a key, the number w1 V^(n-1) + ... + wn of V tokens.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from mambaasr.errors import UserError
from mambaasr.lm.arpa import ZERO, Grams

# Discounts of n-grams seen once, twice, more often, where a small text leaves them open.
FALLBACK = (0.0, 0.5, 1.0, 1.5)
# Tokens that are counted at once.
CHUNK = 1 << 20

type Counts = tuple[np.ndarray, np.ndarray]


def estimate(sentences: Iterable[Sequence[int]], order: int, vocab_size: int) -> list[Grams]:
    """Estimate a model.

    Memory is that of the different n-grams, besides that of a million tokens.

    Args:
        sentences: numbers of tokens, without blank (0) and <sos/eos> (``vocab_size - 1``).
        order: longest n-grams, at least 1.
        vocab_size: tokens of the list. All but the blank get a probability.

    Returns:
        the n-grams of order 1, 2, ...; fewer orders where no sentence is long enough.

    Raises:
        UserError: there is no sentence, or the order is impossible.
    """
    if order < 1:
        raise UserError(f"an n-gram model of order {order}: give 1 or more")
    if vocab_size**order >= 2**63:
        raise UserError(
            f"n-grams of order {order} of {vocab_size} tokens are too many to be numbered: give a "
            "lower order, or install kenlm's lmplz"
        )
    levels = adjust(count(sentences, order, vocab_size), order, vocab_size)
    if not levels:
        raise UserError("no text to estimate an n-gram model on")
    counts = np.zeros(vocab_size, dtype=np.int64)
    counts[levels[0][0]] = levels[0][1]
    levels[0] = np.arange(1, vocab_size), counts[1:]
    probs: list[np.ndarray] = []
    backoffs: list[np.ndarray] = []
    lower = np.full(1, 1 / (vocab_size - 1))  # of any token, before a text is seen
    for n, (keys, counts) in enumerate(levels, 1):
        discount = discounts(counts)[np.minimum(counts, 3)]
        contexts, first = np.unique(keys // vocab_size, return_index=True)
        total = np.add.reduceat(counts, first)
        left = np.add.reduceat(discount, first) / total
        own = np.repeat(np.arange(len(first)), np.diff(first, append=len(keys)))
        if n > 1:
            shorter = levels[n - 2][0]
            lower = probs[-1][np.searchsorted(shorter, keys % vocab_size ** (n - 1))]
            backoffs[-1][np.searchsorted(shorter, contexts)] = left
        probs.append((counts - discount) / total[own] + left[own] * lower)
        backoffs.append(np.ones(len(keys)))
    orders = []
    for n, (keys, _) in enumerate(levels, 1):
        words, log_prob = _words(keys, n, vocab_size), _log10(probs[n - 1])
        backoff = _log10(backoffs[n - 1])
        if n == 1:  # the blank has no probability
            words = np.arange(vocab_size).reshape(-1, 1)
            log_prob, backoff = np.insert(log_prob, 0, -np.inf), np.insert(backoff, 0, 0)
        orders.append(Grams(words, log_prob, backoff))
    return orders


def count(sentences: Iterable[Sequence[int]], order: int, vocab_size: int) -> Counts:
    """Return the keys of all n-grams of one order, sorted, and how often they occur.

    Before each sentence there are ``order - 1`` times <s>, so that shorter n-grams at its
    beginning are among them; after it there is </s>.
    """
    merged: Counts = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    waiting: list[Counts] = []
    stream: list[int] = []
    for sentence in sentences:
        stream += [-1] * (order - 1)
        stream += sentence
        stream.append(vocab_size - 1)
        if len(stream) >= CHUNK:
            waiting.append(_windows(stream, order, vocab_size))
            stream.clear()
            # Rarely, or the merges of a large text would take the longest.
            if sum(len(keys) for keys, _ in waiting) > max(CHUNK, len(merged[0])):
                merged = _merge([merged, *waiting])
                waiting.clear()
    if stream:
        waiting.append(_windows(stream, order, vocab_size))
    return _merge([merged, *waiting]) if waiting else merged


def _windows(stream: Sequence[int], order: int, vocab_size: int) -> Counts:
    """Count the n-grams of sentences one after the other; -1 is <s>."""
    words = np.array(stream, dtype=np.int64)
    ends = words[order - 1 :] >= 0  # <s> is never predicted, so none reaches into the next one
    words[words < 0] = vocab_size - 1
    keys = np.zeros(len(ends), dtype=np.int64)
    for start in range(order):
        keys = keys * vocab_size + words[start : start + len(ends)]
    return np.unique(keys[ends], return_counts=True)


def _merge(parts: Sequence[Counts]) -> Counts:
    """Add counts of keys up."""
    keys = np.concatenate([part[0] for part in parts])
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], np.concatenate([part[1] for part in parts])[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.add.reduceat(counts, first)


def adjust(counted: Counts, order: int, vocab_size: int) -> list[Counts]:
    """Return the adjusted counts of each order, 1 first, without empty ones at the end.

    Those of the highest order are the numbers of occurrences, and so are those of n-grams that
    begin with <s>; those of others are the numbers of different words before them.

    Args:
        counted: of :func:`count`.
        order, vocab_size: see :func:`estimate`.
    """
    keys, counts = counted
    levels: list[Counts] = []
    for n in range(order, 0, -1):
        shorter = vocab_size ** (n - 1)
        padded = np.zeros(len(keys), dtype=bool)
        if n > 2:  # <s> <s> ... is a shorter one
            padded = keys // (shorter // vocab_size) == vocab_size**2 - 1
        levels.insert(0, (keys[~padded], counts[~padded]))
        rest, times = np.unique(keys[~padded] % shorter, return_counts=True)
        keys = np.concatenate([rest, keys[padded] % shorter])
        counts = np.concatenate([times, counts[padded]])
        sort = np.argsort(keys)
        keys, counts = keys[sort], counts[sort]
    while levels and not len(levels[-1][0]):
        levels.pop()
    return levels


def discounts(counts: np.ndarray) -> np.ndarray:
    """Return what is taken from adjusted counts of 0, 1, 2, and 3 or more (equation 26)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5]
    if n[:3].all():
        j = np.arange(1, 4)
        found = j - (j + 1) * n[0] / (n[0] + 2 * n[1]) * n[1:] / n[:3]
        if (found >= 0).all():
            return np.array([0.0, *found])
    return np.array(FALLBACK)


def _words(keys: np.ndarray, n: int, vocab_size: int) -> np.ndarray:
    return np.stack([keys // vocab_size**i % vocab_size for i in range(n - 1, -1, -1)], axis=1)


def _log10(values: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(values, 10**ZERO))
