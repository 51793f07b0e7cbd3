"""CTC's best path."""

import torch
from torch import Tensor

from mambaasr.ops.lengths import valid_mask
from mambaasr.search.data import Encoded, Found, Hypothesis, ctc_log_probs, of_usable


@torch.no_grad()
def ctc_greedy(encoded: Encoded, blank_id: int = 0) -> list[Found]:
    """Collapse the most probable label of each frame; no search and no language model.

    Args:
        encoded: with the log-probabilities of CTC.
        blank_id: of CTC.

    Returns:
        One hypothesis an utterance, in their order; its score is the log-probability of that one
        path, less than that of the text. A path may have <sos/eos> in it, as any other label.

    Raises:
        ValueError: there are no log-probabilities.
    """

    def search(usable: Encoded) -> list[Found]:
        best, path = ctc_log_probs(usable).max(-1)
        lengths = usable.lengths.to(path.device)
        best = best.double().masked_fill(~valid_mask(lengths, path.shape[1]), 0.0)
        # Summed frame by frame, so that the padding does not change the rounding.
        scores = best.cumsum(1)[:, -1].tolist()
        texts = collapse(path, lengths, blank_id)
        return [
            Found(key, [Hypothesis(tokens, score, {"ctc": score})])
            for key, tokens, score in zip(usable.keys, texts, scores, strict=True)
        ]

    return of_usable(encoded, search)


def collapse(paths: Tensor, lengths: Tensor, blank_id: int = 0) -> list[list[int]]:
    """Return the tokens that CTC paths (u, time) of valid frames (u) stand for."""
    keep = valid_mask(lengths.to(paths.device), paths.shape[1]) & (paths != blank_id)
    keep[:, 1:] &= paths[:, 1:] != paths[:, :-1]
    return [path[mask].tolist() for path, mask in zip(paths.cpu(), keep.cpu(), strict=True)]
