"""Scores of whole texts: attention decoders and language models over the n-best of another search.

Axes: u utterances, k hypotheses of each, v tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.layers.stateful import StatefulScorer
from mambaasr.ops.lengths import valid_mask, zero_padding
from mambaasr.search.beam import Options
from mambaasr.search.data import NOT_NUMBERS, Encoded, Found, Hypothesis, prompt_tensor
from mambaasr.search.scorers import BatchScorer, next_log_probs

# Numbers (256 MiB of them) that a pass of an ESPnet model may hold: of each hypothesis, so many
# times its frames and its tokens, logits, and so many heads of attention between the two.
MOST_NUMBERS, COPIES, LOGITS, HEADS = 2**26, 4, 5000, 8


@torch.no_grad()
def rescore(
    encoded: Encoded,
    found: Sequence[Found],
    scorers: Mapping[str, tuple[StatefulScorer[Any], float]],
    sos: int,
    eos: int,
    options: Options,
    prompts: Sequence[Sequence[int]] = (),
) -> list[Found]:
    """Order hypotheses by the joint search's score of their whole texts.

    That is: the weighted log-probabilities of the scorers, the end of the sentence included, plus
    ``ctc_weight`` times the part "ctc" that the hypotheses bring along, plus the penalty for each
    token, <eos> too.

    Args:
        encoded: the utterances; their log-probabilities of CTC are not looked at.
        found: of :func:`mambaasr.search.prefix.ctc_prefix_search`, for example; the keys must be
            among those of ``encoded``. What a scorer's name stands for among the parts already is
            not scored again.
        scorers: name -> (decoder or language model, weight); those of weight 0 are left out.
        sos, eos: ids.
        options: ``ctc_weight``, ``penalty``, ``nbest`` and ``normalize_length`` are taken.
        prompts: for each utterance of ``encoded`` the tokens that decoders and language models
            read first, after <sos>, unscored; equally many, or nothing for all.

    Returns:
        The utterances of ``found`` in their order; those without hypotheses as they are.

    Raises:
        ValueError: the prompts differ in length.
    """
    names = [name for name, (_, weight) in scorers.items() if weight]
    usable = [each for each in found if each.hypotheses]
    if not usable:
        return list(found)
    place = {key: index for index, key in enumerate(encoded.keys)}
    index = [place[each.key] for each in usable]
    first = F.pad(prompt_tensor(prompts, encoded)[index], (1, 0), value=sos)
    encoded = replace(encoded, log_probs=None).select(index)
    texts = _Texts([[h.tokens for h in each.hypotheses] for each in usable], first, eos)
    parts = {}
    for name in names:
        if not all(name in h.parts for each in usable for h in each.hypotheses):
            parts[name] = texts.score(scorers[name][0], encoded).tolist()
    better = iter(
        [
            _ordered(each, {name: part[u] for name, part in parts.items()}, scorers, options)
            for u, each in enumerate(usable)
        ]
    )
    return [next(better) if each.hypotheses else each for each in found]


def _ordered(
    found: Found,
    new: Mapping[str, list[float]],
    scorers: Mapping[str, tuple[StatefulScorer[Any], float]],
    options: Options,
) -> Found:
    """Return an utterance with the parts of each hypothesis that are new."""
    weights = {name: weight for name, (_, weight) in scorers.items() if weight}
    weights |= {"ctc": options.ctc_weight, "length_bonus": options.penalty}
    weights = {name: weight for name, weight in weights.items() if weight}
    hypotheses = []
    for k, old in enumerate(found.hypotheses):
        parts = {**old.parts, "length_bonus": len(old.tokens) + 1.0}
        parts |= {name: part[k] for name, part in new.items()}
        parts = {name: parts[name] for name in weights}
        score = sum(weight * parts[name] for name, weight in weights.items())
        hypotheses.append(Hypothesis(old.tokens, score, parts))
    if any(math.isnan(each.score) for each in hypotheses):
        return Found(found.key, [], NOT_NUMBERS)

    def value(each: Hypothesis) -> float:
        return each.score / (len(each.tokens) + 1 if options.normalize_length else 1)

    hypotheses.sort(key=value, reverse=True)
    return Found(found.key, hypotheses[: options.nbest])


class _Texts:
    """Texts to score as a whole.

    Args:
        texts: of u utterances, up to k of each.
        first: (u, 1 + p) <sos> and prompt, which are read before and not scored.
        eos: id.

    Attributes:
        tokens: (u, k, length) with <eos> at the end, and from there on.
        lengths: (u, k), <eos> counted; 0 where an utterance has fewer hypotheses than others.
    """

    def __init__(self, texts: Sequence[Sequence[Sequence[int]]], first: Tensor, eos: int) -> None:
        lengths = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
        for u, row in enumerate(texts):
            lengths[u, : len(row)] = torch.tensor([len(text) + 1 for text in row])
        tokens = torch.full((*lengths.shape, int(lengths.max())), eos)
        for u, row in enumerate(texts):
            for k, text in enumerate(row):
                tokens[u, k, : len(text)] = torch.tensor(text, dtype=torch.long)
        self.longest = lengths.amax(1).tolist()
        self.tokens, self.lengths = tokens.to(first.device), lengths.to(first.device)
        self.first = first

    def score(self, model: StatefulScorer[Any], encoded: Encoded) -> Tensor:
        """Return the log-probabilities of the texts (u, k), float64.

        A scorer of hypothesis states reads all texts together, token by token: so the speech, and
        what is computed from it, is there once an utterance, not once a hypothesis, and n-gram
        models need no other form. ESPnet's models, whose steps compute keys and values of the
        speech over and over, get whole texts.
        """
        if isinstance(model, BatchScorer) and isinstance(model.scorer, nn.Module):
            return self._whole(model.scorer, encoded, model.hears_speech)
        return self._by_steps(model, encoded)

    def _by_steps(self, model: StatefulScorer[Any], encoded: Encoded) -> Tensor:
        state = model.start(encoded.frames, encoded.lengths)
        u, k, length = self.tokens.shape
        *read, last = self.first[:, None].unbind(2)
        for token in read:
            _, state = model.step(token, state)
        rows = list(range(u))
        state = model.reorder(state, torch.zeros_like(self.lengths))
        tokens, texts, lengths = last.repeat(1, k), self.tokens, self.lengths
        total = torch.zeros(u, k, dtype=torch.float64, device=tokens.device)
        for step in range(length):
            live = [row for row in rows if self.longest[row] > step]
            # Those that are done leave when it is worth copying the others' states.
            if len(live) <= 0.75 * len(rows):
                stay = tokens.new_tensor([rows.index(row) for row in live])
                state, rows = model.reorder(state, None, stay), live
                tokens, texts, lengths = (x[stay] for x in (tokens, texts, lengths))
            logits, state = model.step(tokens, state)
            tokens = texts[..., step]
            gained = next_log_probs(model, logits).gather(-1, tokens[..., None]).squeeze(-1)
            total[rows] += torch.where(step < lengths, gained.double(), 0.0)
        return total

    def _whole(self, module: nn.Module, encoded: Encoded, hears_speech: bool) -> Tensor:
        owners, places = self.lengths.nonzero().T
        lengths = self.lengths[owners, places]
        texts = self.tokens[owners, places]
        read = torch.cat([self.first[owners], texts[:, :-1]], dim=1)
        before = self.first.shape[1] - 1
        frames, valid = zero_padding(encoded.frames, encoded.lengths), encoded.lengths
        total = torch.zeros(self.lengths.shape, dtype=torch.float64, device=texts.device)
        time, width, length = *frames.shape[1:], texts.shape[1]
        numbers = COPIES * (time * width + length * (width + LOGITS)) + HEADS * time * length
        size = max(1, MOST_NUMBERS // numbers)
        for some in torch.arange(len(texts), device=texts.device).split(size):
            length = int(lengths[some].max())
            inputs, wanted = read[some, : before + length], texts[some, :length]
            if hears_speech:
                own = owners[some]
                heard = valid.to(own.device)[own]
                counts = lengths[some] + before
                logits, _ = module(frames[own, : int(heard.max())], heard, inputs, counts)
            else:
                logits, _ = module(inputs, None)
            scores = next_log_probs(module, logits[:, before:])
            gained = scores.gather(-1, wanted[..., None]).squeeze(-1).double()
            gained = gained.masked_fill(~valid_mask(lengths[some], length), 0.0)
            total[owners[some], places[some]] = gained.sum(1)
        return total
