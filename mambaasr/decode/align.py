"""When the tokens and words of a hypothesis are said, and how sure CTC is of them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchaudio.functional as AF
from torch import Tensor


class Span(NamedTuple):
    """A token or a word on the CTC path.

    Attributes:
        start, end: frames of the encoder's output, the end not counted.
        confidence: 0 ... 1. Of a token the mean of its posteriors in the frames that the path
            gives to it; of a word the lowest of its tokens'.
        text: of a word; :func:`align` leaves a token's empty.
    """

    start: int
    end: int
    confidence: float
    text: str = ""


def align(log_probs: Tensor, tokens: Sequence[int], blank_id: int = 0) -> list[Span] | None:
    """Return the span of each token on the most probable CTC path of a text.

    CTC's posteriors are peaks: a span is mostly a frame or two somewhere within the token, more
    often towards its beginning.

    Args:
        log_probs: (time, v) of CTC for one utterance, valid frames only.
        tokens: of the text.
        blank_id: of CTC.

    Returns:
        One span a token, in their order, none overlapping; None where CTC has no path for the
        text: more tokens than frames (and blanks between equal ones), a blank among them, or a
        probability of 0.
    """
    equal = sum(one == two for one, two in zip(tokens, tokens[1:], strict=False))
    if blank_id in tokens or len(tokens) + equal > len(log_probs):
        return None
    if not tokens:
        return []
    targets = torch.tensor([list(tokens)], dtype=torch.int32, device=log_probs.device)
    path, scores = AF.forced_align(log_probs.float()[None], targets, blank=blank_id)
    if not torch.isfinite(scores).all():
        return None
    spans = AF.merge_tokens(path[0], scores[0].exp(), blank_id)
    return [Span(each.start, each.end, each.score) for each in spans]


def words(
    spans: Sequence[Span], tokens: Sequence[str], token_type: str | None = "char"
) -> list[Span]:
    """Join the spans of tokens to those of words.

    Args:
        spans: of the tokens.
        tokens: their texts, as many.
        token_type: "char", where ``<space>`` parts words; "bpe", where sentencepiece's ``▁`` begins
            one; else each token is a word.

    Returns:
        One span a word: from the start of its first token to the end of its last one. ``<space>``
        counts neither for its times nor for its confidence. What is spelled in bytes may hold
        spaces; the words around them share one time.
    """
    groups: list[tuple[str, list[Span]]] = []
    new = True
    for span, token in zip(spans, tokens, strict=True):
        if token_type == "char" and token == "<space>":
            new = True
            continue
        if token_type == "bpe" and token.startswith("▁"):
            new, token = True, token[1:]
        if token_type not in ("char", "bpe"):
            new = True
        if new:
            groups.append(("", []))
        new = False
        text, own = groups[-1]
        groups[-1] = (text + token, [*own, span])
    return [
        Span(own[0].start, own[-1].end, min(each.confidence for each in own), word)
        for text, own in groups
        for word in _spelled(text).split()
    ]


def _spelled(text: str) -> str:
    """Return a word, of which sentencepiece may have spelled some in bytes: ``<0xC3><0xA9>``."""

    def decode(found: re.Match[str]) -> str:
        return bytes.fromhex(re.sub("[^0-9A-F]", "", found[0].replace("0x", ""))).decode(
            "utf-8", "replace"
        )

    return re.sub(r"(?:<0x[0-9A-F]{2}>)+", decode, text)
