"""CER and WER of the validation, on the texts that tokens stand for."""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from rapidfuzz.distance import Levenshtein
from torch import Tensor

# What a token adds to the text: ESPnet's symbol for the space, sentencepiece's.
_SPACES = {"char": "<space>", "bpe": "▁"}


class ErrorRates:
    """Takes the place of ESPnet's ``ErrorCalculator`` in a model.

    ESPnet's joins tokens without the spaces that sentencepiece's and whole words stand for, so
    that an utterance is one word, and its WER the sentence error rate. Here a text is what the
    tokens' own tokenizer makes of them; for token types whose text is not known the WER is None.
    As in ESPnet, the attention decoder's hypothesis is what it predicts after each token of the
    reference, and a set's rate is the mean over its batches.

    Args:
        tokens: the token list.
        token_type: "char", "bpe", "word" or another of ESPnet's.
        silent: indices of tokens that are no text: blank, end of sentence.
    """

    def __init__(
        self, tokens: Sequence[str], token_type: str | None, silent: Collection[int]
    ) -> None:
        self.token_type = token_type
        self._text = [
            "" if index in silent else self._text_of(token) for index, token in enumerate(tokens)
        ]

    def _text_of(self, token: str) -> str:
        if self.token_type == "word":
            return f" {token}"
        space = _SPACES.get(self.token_type or "")
        return token.replace(space, " ") if space else token

    def __call__(
        self, hypotheses: Tensor, references: Tensor, is_ctc: bool = False
    ) -> float | None | tuple[float | None, float | None]:
        """Return the CER of CTC's best path, or CER and WER of the attention decoder's tokens.

        Args:
            hypotheses: (batch, frames) labels of the best path, or (batch, tokens).
            references: (batch, tokens), padded with -1.

        Returns:
            Rates as fractions; None where the references have no character or word.
        """
        pairs = []
        for found, true in zip(hypotheses.tolist(), references.tolist(), strict=True):
            true = [index for index in true if index != -1]
            found = [label for label, _ in groupby(found)] if is_ctc else found[: len(true)]
            pairs.append((self._join(found), self._join(true)))
        cer = _rate((found.replace(" ", ""), true.replace(" ", "")) for found, true in pairs)
        if is_ctc:
            return cer
        if self.token_type not in (*_SPACES, "word"):
            return cer, None
        return cer, _rate((found.split(), true.split()) for found, true in pairs)

    def _join(self, indices: Iterable[int]) -> str:
        return "".join(self._text[index] for index in indices if index != -1)


def _rate(pairs: Iterable[tuple[Sequence, Sequence]]) -> float | None:
    counts = [(Levenshtein.distance(found, true), len(true)) for found, true in pairs]
    units = sum(length for _, length in counts)
    return sum(errors for errors, _ in counts) / units if units else None
