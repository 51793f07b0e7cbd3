"""A list of phrases that a search shall prefer: names, places, terms.

Each token that goes on with a phrase adds 1 to the score. Where the text leaves it before its end,
what was added is taken away again, so that only whole phrases gain, each of two that overlap. That
is a back-off n-gram model whose n-grams are the beginnings of the phrases: its weights say how
much is taken away.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mambaasr.errors import UserError
from mambaasr.lm.arpa import UNK, Grams
from mambaasr.lm.ngram import NGram


def load_phrases(
    path: str | Path, spell: Callable[[str], Sequence[int]], token_list: Sequence[str]
) -> NGram:
    """Return the scorer of a file with a phrase a line; empty lines are left out.

    Args:
        path: UTF-8.
        spell: from a phrase to its tokens.
        token_list: the recogniser's tokens by number, <sos/eos> last.

    Raises:
        UserError: the file cannot be read, has no phrase, or one that the tokens cannot spell.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of phrases: {error}") from error
    phrases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        tokens = tuple(spell(" ".join(line.split())))
        if UNK in token_list and token_list.index(UNK) in tokens:
            raise UserError(
                f"{path}:{number}: '{line}' has characters that no token of the model has"
            )
        phrases.append(tokens)
    if not phrases:
        raise UserError(f"{path}: there is no phrase; write one a line")
    return phrase_scorer(phrases, token_list)


def phrase_scorer(phrases: Iterable[Sequence[int]], token_list: Sequence[str]) -> NGram:
    """Return a scorer that prefers phrases, of which each token counts 1.

    Args:
        phrases: their tokens.
        token_list: the recogniser's tokens by number.
    """
    whole = {tuple(phrase) for phrase in phrases if len(phrase)}
    nodes = sorted({phrase[:n] for phrase in whole for n in range(1, len(phrase) + 1)})
    known = set(nodes)
    # What each beginning has gained that it will lose unless a phrase ends.
    at_risk: dict[tuple[int, ...], int] = {(): 0}
    for node in sorted(nodes, key=len):
        at_risk[node] = 0 if node in whole else at_risk[node[:-1]] + 1
    size = len(token_list)
    single = Grams(np.arange(size)[:, None], np.zeros(size), np.zeros(size))
    orders = [single]
    for n in range(1, max(map(len, nodes)) + 1):
        own = [node for node in nodes if len(node) == n]
        back = []
        for node in own:
            shorter = next(node[i:] for i in range(1, n + 1) if i == n or node[i:] in known)
            back.append(at_risk[shorter] - at_risk[node])
        # In natural logarithms a token counts 1.
        values = np.array(back) / math.log(10)
        if n == 1:
            for node, value in zip(own, values, strict=True):
                single.log_prob[node[0]], single.backoff[node[0]] = 1 / math.log(10), value
        else:
            ones = np.full(len(own), 1 / math.log(10))
            orders.append(Grams(np.array(own), ones, values))
    # Whole phrases are contexts too: the longest ones have to be shorter than the longest n-grams.
    nothing = np.zeros(0)
    orders.append(Grams(np.zeros((0, len(orders) + 1), dtype=np.int64), nothing, nothing))
    return NGram(orders, token_list)
