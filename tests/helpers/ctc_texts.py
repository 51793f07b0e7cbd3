"""CTC outputs to search, and every text that they can stand for."""

import itertools
import math

import torch

from mambaasr.search.data import Encoded


def encode(lengths, vocabulary=4, seed=0, width=6, sharp=1.0):
    """Return Encoded with random frames and log-probabilities.

    Token 0 is the blank, 3 <sos/eos>, which CTC never gives. Padding holds NaN, which no search may
    look at.
    """
    random = torch.Generator().manual_seed(seed)
    shape = len(lengths), max(lengths)
    frames = torch.randn(*shape, width, generator=random)
    logits = torch.randn(*shape, vocabulary, generator=random) * sharp
    logits[..., 3:4] = -torch.inf
    log_probs = logits.log_softmax(-1)
    for place, length in enumerate(lengths):
        frames[place, length:] = torch.nan
        log_probs[place, length:] = torch.nan
    keys = [f"utterance {place}" for place in range(len(lengths))]
    return Encoded(keys, frames, torch.tensor(lengths), log_probs)


def every_text(log_probs, blank_id=0):
    """(time, v) -> {tokens: log-probability of all its paths}, by going through the paths."""
    time, vocabulary = log_probs.shape
    log_probs, found = log_probs.tolist(), {}
    for path in itertools.product(range(vocabulary), repeat=time):
        labels = [label for label, _ in itertools.groupby(path)]
        text = tuple(label for label in labels if label != blank_id)
        score = sum(log_probs[t][label] for t, label in enumerate(path))
        if score > -math.inf:
            found.setdefault(text, []).append(score)
    return {
        text: float(torch.tensor(scores, dtype=torch.float64).logsumexp(0))
        for text, scores in found.items()
    }
