"""A list of phrases that a search shall prefer: names, places, terms.

Each token that goes on with a phrase adds 1 to the score. Where the text leaves it before its end,
what was added is taken away again, so that in the end each whole phrase has gained its tokens, also
where phrases overlap. That is a back-off n-gram model whose n-grams are the beginnings of the
phrases: its weights say how much is taken away.
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
    nodes = sorted({phrase[:n] for phrase in whole for n in range(1, len(phrase) + 1)}, key=len)
    # Of each beginning: the tokens behind the last phrase that ends within it, which will be taken
    # away unless it goes on; and the tokens of all phrases that end with it.
    at_risk: dict[tuple[int, ...], int] = {(): 0}
    ends: dict[tuple[int, ...], int] = {(): 0}
    for node in nodes:
        ends[node] = sum(len(node) - i for i in range(len(node)) if node[i:] in whole)
        at_risk[node] = 0 if ends[node] else at_risk[node[:-1]] + 1
    size = len(token_list)
    orders = [Grams(np.arange(size)[:, None], np.zeros(size), np.zeros(size))]
    for n in range(1, max(map(len, nodes)) + 1):
        own = [node for node in nodes if len(node) == n]
        gains = [at_risk[node] - at_risk[node[:-1]] + ends[node] for node in own]
        shorter = [next(node[i:] for i in range(1, n + 1) if node[i:] in at_risk) for node in own]
        losses = [at_risk[end] - at_risk[node] for node, end in zip(own, shorter, strict=True)]
        # In natural logarithms a token counts 1.
        values = (np.array(each) / math.log(10) for each in (gains, losses))
        if n > 1:
            orders.append(Grams(np.array(own), *values))
        else:
            first = [node[0] for node in own]
            orders[0].log_prob[first], orders[0].backoff[first] = values
    # Whole phrases are contexts too: the longest ones have to be shorter than the longest n-grams.
    nothing = np.zeros(0)
    orders.append(Grams(np.zeros((0, len(orders) + 1), dtype=np.int64), nothing, nothing))
    return NGram(orders, token_list)
