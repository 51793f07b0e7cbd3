"""Label-synchronous beam search over several utterances.

The search of Watanabe et al. (2017), section II-C-3, with ESPnet's pre-beam, end detection and
scores, so that it finds what ESPnet's exact search over one utterance finds. Axes: u utterances,
k hypotheses of each (``beam_size``, fewer where some have ended), v tokens, s candidates of a
hypothesis.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.layers.stateful import StatefulScorer
from mambaasr.ops import ctc_prefix
from mambaasr.search.data import (
    NOT_NUMBERS,
    Encoded,
    Found,
    Hypothesis,
    ctc_log_probs,
    prompt_tensor,
)
from mambaasr.search.scorers import next_log_probs

# Candidates of a hypothesis that CTC scores, to the beam's size.
PRE_BEAM = 1.5
# Eq. 50 of Watanabe et al. (2017): the search of an utterance ends when, of the hypotheses that
# ended in so many steps one after the other, each step's best is so much worse than the best.
END_STEPS, END_SCORE = 3, -10.0
DEAD = -math.inf


@dataclass(frozen=True)
class Options:
    """How to search.

    Attributes:
        beam_size: hypotheses that are kept at each step.
        ctc_weight: of the CTC prefix scores; 0 leaves them out.
        penalty: added for each token, <eos> too.
        maxlenratio: longest text to frames; 0: as many tokens as frames, unless the end is
            detected before; below 0: that many tokens.
        minlenratio: shortest text to frames; below 0: that many tokens.
        nbest: hypotheses to return.
        normalize_length: order them by the score for each token.

    Raises:
        ValueError: a size is below 1, ``nbest`` above the beam, or ``maxlenratio`` no bound.
    """

    beam_size: int = 20
    ctc_weight: float = 0.5
    penalty: float = 0.0
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1
    normalize_length: bool = False

    def __post_init__(self) -> None:
        if self.beam_size < 1 or self.nbest < 1:
            raise ValueError(
                f"beam_size is {self.beam_size} and nbest {self.nbest}; they must be at least 1"
            )
        if self.nbest > self.beam_size:
            raise ValueError(f"nbest is {self.nbest}, more than the beam_size {self.beam_size}")
        if -1 < self.maxlenratio < 0:
            raise ValueError(
                f"maxlenratio is {self.maxlenratio}; below 0 it is a number of tokens: -1, -2, ..."
            )

    def bounds(self, frames: int) -> tuple[int, int]:
        """Return the smallest and the largest number of tokens for so many frames."""
        shortest = int(self.minlenratio * frames) if self.minlenratio >= 0 else -self.minlenratio
        if self.maxlenratio == 0:
            return int(shortest), frames
        if self.maxlenratio < 0:
            return int(shortest), -int(self.maxlenratio)
        return int(shortest), max(1, int(self.maxlenratio * frames))


class _Ended(NamedTuple):
    """A hypothesis that has ended.

    Attributes:
        score, parts: see :class:`mambaasr.search.data.Hypothesis`; the parts in order.
        step: steps before the one that it ended with.
        parent: its place in the beam before that step.
        token: what that step has chosen: <eos>, or another where the text had to end.
    """

    score: float
    parts: list[float]
    step: int
    parent: int
    token: int


@dataclass(slots=True)
class _Utterance:
    """An utterance in the search.

    Attributes:
        shortest, longest: bounds of its number of tokens.
        steps: for each step (parents, tokens) of the hypotheses that lived on, lists (k).
        ended: hypotheses that have ended.
        best: score of the best one that ended at each step, where one did.
        broken: whether a score was no number.
    """

    key: object
    shortest: int
    longest: int
    steps: list[tuple[list[int], list[int]]] = field(default_factory=list)
    ended: list[_Ended] = field(default_factory=list)
    best: dict[int, float] = field(default_factory=dict)
    broken: bool = False

    def end(self, score: float, parts: list[float], parent: int, token: int) -> None:
        """Note a hypothesis that ends with the present step, unless it is too short."""
        step = len(self.steps)
        if step >= self.shortest:
            self.ended.append(_Ended(score, parts, step, parent, token))
            self.best[step] = max(score, self.best.get(step, DEAD))

    def end_detected(self) -> bool:
        """Whether what is still to come would be worse than what has ended."""
        # ESPnet looks at hypotheses with as many tokens as there were steps, <sos> and <eos>
        # included, so that the newest two steps do not count.
        last = len(self.steps) - 2
        best = max(self.best.values(), default=DEAD)
        return all(
            step in self.best and self.best[step] - best < END_SCORE
            for step in range(last, last - END_STEPS, -1)
        )

    def tokens(self, step: int, parent: int) -> list[int]:
        """Return the tokens of the hypothesis ``parent`` after so many steps."""
        found = []
        for parents, tokens in reversed(self.steps[:step]):
            found.append(tokens[parent])
            parent = parents[parent]
        return found[::-1]


class BeamSearch:
    """Searches texts for utterances that come and go.

    ``add`` takes further utterances in, ``step`` extends all hypotheses by a token and returns the
    utterances that are done; those leave at once. What an utterance gets does not depend on its
    companions.

    Args:
        scorers: name -> (scorer of hypothesis states, weight); those of weight 0 are left out.
        sos, eos: ids.
        options: see :class:`Options`.
        blank_id: of CTC.

    Raises:
        ValueError: there is nothing to score with.
    """

    def __init__(
        self,
        scorers: Mapping[str, tuple[StatefulScorer[Any], float]],
        sos: int,
        eos: int,
        options: Options = Options(),
        blank_id: int = 0,
    ) -> None:
        self.scorers = {name: pair for name, pair in scorers.items() if pair[1]}
        self.ctc = bool(options.ctc_weight)
        if not self.scorers and not self.ctc:
            raise ValueError("every scorer has the weight 0: nothing to search with")
        self.sos, self.eos, self.blank_id, self.options = sos, eos, blank_id, options
        self.names = [*self.scorers, *(["ctc"] if self.ctc else [])]
        self.utterances: list[_Utterance] = []
        # Of each scorer: its state, and one that is no longer needed, whose memory serves again.
        self._states: dict[str, Any] = {}
        self._spare: dict[str, Any] = {}

    @property
    def joins(self) -> bool:
        """Whether utterances may be added while others are in the search."""
        return all(getattr(model, "joins", True) for model, _ in self.scorers.values())

    def __len__(self) -> int:
        """Return how many utterances are in the search."""
        return len(self.utterances)

    @torch.no_grad()
    def add(self, encoded: Encoded, prompts: Sequence[Sequence[int]] = ()) -> list[Found]:
        """Take utterances in.

        Args:
            encoded: with the log-probabilities of CTC if it has a weight.
            prompts: for each utterance the tokens that its text begins with, equally many, or
                nothing for all. They are not scored, and are no part of what is found.

        Returns:
            The utterances that cannot be searched: no frames, or values that are not finite.

        Raises:
            ValueError: the prompts have different lengths; or others are in the search, and a
                scorer's states cannot be joined (:attr:`joins`).
        """
        first = prompt_tensor(prompts, encoded)
        bad = encoded.unusable()
        failed = [Found(encoded.keys[place], [], reason) for place, reason in bad.items()]
        if bad:
            good = [place for place in range(len(encoded.keys)) if place not in bad]
            encoded, first = encoded.select(good), first[good]
        if encoded.keys:
            other = BeamSearch(self.scorers, self.sos, self.eos, self.options, self.blank_id)
            other._start(encoded, F.pad(first, (1, 0), value=self.sos))
            self._join(other)
        return failed

    def _start(self, encoded: Encoded, first: Tensor) -> None:
        """Begin with one hypothesis an utterance, <sos> and its prompt: first (u, 1 + p)."""
        count, device = len(encoded.keys), encoded.frames.device
        self.utterances = [
            _Utterance(key, *self.options.bounds(frames))
            for key, frames in zip(encoded.keys, encoded.lengths.tolist(), strict=True)
        ]
        for name, (model, _) in self.scorers.items():
            self._states[name] = model.start(encoded.frames, encoded.lengths)
        *read, self._tokens = first[:, None].unbind(-1)
        for token in read:
            for name, (model, _) in self.scorers.items():
                _, self._states[name] = model.step(token, self._states[name])
        self._score = torch.zeros(count, 1, dtype=torch.float64, device=device)
        self._parts = self._score.expand(len(self.names), count, 1)
        if self.ctc:
            log_probs = ctc_log_probs(encoded)
            self._frames = ctc_prefix.prepare(log_probs, encoded.lengths, self.blank_id)
            self._prefixes = ctc_prefix.start(self._frames)
            self._before = torch.zeros_like(self._score)
            for token in [*read, self._tokens][1:]:
                at = self._frames, self._prefixes
                self._before = ctc_prefix.scores(*at, token[..., None]).squeeze(-1)
                self._prefixes = ctc_prefix.advance(*at, torch.zeros_like(token), token)

    def _join(self, other: "BeamSearch") -> None:
        """Take in the utterances of another search with these scorers."""
        if not self.utterances:
            for name in ("utterances", "_states", "_tokens", "_score", "_parts"):
                setattr(self, name, getattr(other, name))
            if self.ctc:
                self._frames, self._prefixes = other._frames, other._prefixes
                self._before = other._before
            self._spare = {}
            return
        if not self.joins:
            raise ValueError("a scorer's states cannot be joined; let the search run empty first")
        k = max(self._tokens.shape[1], other._tokens.shape[1])
        sides = [self, other]
        # All is made before anything is changed: it may not fit into memory.
        states = {
            name: model.join([side._wide_state(name, k) for side in sides])
            for name, (model, _) in self.scorers.items()
        }
        tokens = torch.cat([_wide(side._tokens, k, 0) for side in sides])
        score = torch.cat([_wide(side._score, k, DEAD) for side in sides])
        parts = torch.cat([_wide(side._parts, k, 0.0) for side in sides], dim=1)
        if self.ctc:
            prefixes = ctc_prefix.Prefixes.join([side._prefixes for side in sides])
            frames = ctc_prefix.Frames.join([side._frames for side in sides])
            before = torch.cat([side._before for side in sides])
            self._prefixes, self._frames, self._before = prefixes, frames, before
        self._states, self._spare = states, {}
        self._tokens, self._score, self._parts = tokens, score, parts
        self.utterances = self.utterances + other.utterances

    def _wide_state(self, name: str, k: int) -> Any:
        """Return a scorer's state of k hypotheses an utterance: the first one stands for more."""
        u, own = self._tokens.shape
        if own == k:
            return self._states[name]
        index = torch.arange(k, device=self._tokens.device)
        index = torch.where(index < own, index, 0).expand(u, k)
        return self.scorers[name][0].reorder(self._states[name], index)

    @torch.no_grad()
    def step(self) -> list[Found]:
        """Extend the hypotheses of all utterances by a token; return the utterances done."""
        full = self._score_all()
        candidates, gains = self._candidates(full)
        total = self._score[..., None] + gains[0]
        u, k, s = total.shape
        best, index = total.flatten(1).topk(min(self.options.beam_size, k * s))
        parents, tokens = index // s, candidates.flatten(1).gather(1, index)
        parts = self._parts.gather(2, parents.expand(len(self.names), u, -1))
        parts = parts + gains[1:].flatten(2).gather(2, index.expand(len(self.names), u, -1))
        return self._advance(best, parents, tokens, parts)

    def _score_all(self) -> dict[str, Tensor]:
        """Let every scorer but CTC read the newest tokens: log-probabilities (u, k, v)."""
        scores = {}
        for name, (model, _) in self.scorers.items():
            logits, self._states[name] = model.step(self._tokens, self._states[name])
            scores[name] = next_log_probs(model, logits)
        return scores

    def _candidates(self, full: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Choose the next tokens of each hypothesis that are worth a place in the beam.

        Args:
            full: (u, k, v) of each scorer.

        Returns:
            tokens (u, k, s), and what they add to the score and to each part of it
            (1 + parts, u, k, s).
        """
        weighted: Tensor | None = None
        for name, (_, weight) in self.scorers.items():
            part = full[name] * weight
            weighted = part if weighted is None else weighted + part
        beam, weight = self.options.beam_size, self.options.ctc_weight
        gained: Tensor | None = None
        if not self.ctc:
            assert weighted is not None
            chosen = weighted.topk(min(beam, weighted.shape[-1])).indices
        else:
            # CTC scores whole prefixes: less that of the prompt, and of the hypothesis so far.
            before = (self._before + self._parts[-1])[..., None]
            ends = ctc_prefix.end(self._frames, self._prefixes)
            frames, prefixes, size = self._frames, self._prefixes, int(PRE_BEAM * beam)
            # Where CTC alone decides, other scorers choose no candidates for it, as in ESPnet.
            every = weighted is not None and (weight == 1.0 or size >= weighted.shape[-1])
            if weighted is not None and every:
                gained = ctc_prefix.scores(frames, prefixes) - before
                gained[..., self.eos] = ends - before[..., 0]
                chosen = (weight * gained + weighted).topk(min(beam, gained.shape[-1])).indices
                gained = gained.gather(-1, chosen)
            else:
                if weighted is None:
                    size = min(beam + 1, frames.log_probs.shape[1])
                    scored, chosen = ctc_prefix.best(frames, prefixes, size)
                else:
                    chosen = weighted.topk(size).indices
                    scored = ctc_prefix.scores(frames, prefixes, chosen)
                # The end is always among them, once, and scored otherwise.
                scored = scored.masked_fill(chosen == self.eos, DEAD)
                chosen = torch.cat([chosen, torch.full_like(chosen[..., :1], self.eos)], dim=-1)
                gained = torch.cat([scored, ends[..., None]], dim=-1) - before
        parts = [full[name].gather(-1, chosen).double() for name in self.scorers]
        total = torch.full_like(chosen, self.options.penalty, dtype=torch.float64)
        for (_, each), part in zip(self.scorers.values(), parts, strict=True):
            total += each * part
        if gained is not None:
            parts.append(gained)
            total += weight * gained
        return chosen, torch.stack([total, *parts])

    def _advance(
        self, score: Tensor, parents: Tensor, tokens: Tensor, parts: Tensor
    ) -> list[Found]:
        """Go on with the chosen hypotheses that have not ended, of utterances that are not done.

        Args:
            score, parents, tokens: (u, k), by falling score.
            parts: (parts, u, k).
        """
        alive, broken = score > DEAD, score.isnan().any(1)
        ended = alive & (tokens == self.eos)
        last = [len(each.steps) == each.longest - 1 for each in self.utterances]
        if any(last):
            ended |= alive & torch.tensor(last, device=score.device)[:, None]
        self._note_ends(ended, score, parents, tokens, parts)
        live = alive & ~ended
        counts = live.sum(1).tolist()
        # Those that live come first, in their order.
        order = (~live).byte().argsort(dim=1, stable=True)[:, : max(counts)]
        score = score.masked_fill(~live, DEAD).gather(1, order)
        parents, tokens = parents.gather(1, order), tokens.gather(1, order)
        stay, found = [], []
        detect = self.options.maxlenratio == 0
        rows = zip(self.utterances, parents.tolist(), tokens.tolist(), broken.tolist(), strict=True)
        for index, (utterance, chosen, read, utterance.broken) in enumerate(rows):
            done = not counts[index] or last[index] or utterance.broken
            done = done or (detect and utterance.end_detected())
            utterance.steps.append((chosen, read))
            if done:
                found.append(self._found(utterance))
            else:
                stay.append(index)
        kept: Tensor | None = None
        if found:
            self.utterances = [self.utterances[index] for index in stay]
            if not stay:
                self._states, self._spare = {}, {}
                return found
            kept = torch.tensor(stay, device=score.device)
            width = max(counts[index] for index in stay)
            score, parents, tokens = (x[kept, :width] for x in (score, parents, tokens))
            parts, order = parts[:, kept], order[kept, :width]
        self._score, self._tokens = score, tokens
        self._parts = parts.gather(2, order.expand(len(parts), *order.shape))
        for name, (model, _) in self.scorers.items():
            old = self._states[name]
            self._states[name] = model.reorder(old, parents, kept, self._spare.get(name))
            self._spare[name] = old
        if self.ctc:
            if kept is not None:
                self._frames = self._frames.select(kept)
                self._prefixes = self._prefixes.reorder(None, kept)
                self._before = self._before[kept]
            self._prefixes = ctc_prefix.advance(self._frames, self._prefixes, parents, tokens)
        return found

    def _note_ends(
        self,
        ended: Tensor,
        score: Tensor,
        parents: Tensor,
        tokens: Tensor,
        parts: Tensor,
    ) -> None:
        """Keep the hypotheses that end with this step."""
        where = ended.nonzero()
        if not len(where):
            return
        u, k = where.T
        columns = (u, score[u, k], parts[:, u, k].T, parents[u, k], tokens[u, k])
        for index, *rest in zip(*(each.tolist() for each in columns), strict=True):
            self.utterances[index].end(*rest)

    def _found(self, utterance: _Utterance) -> Found:
        """Return an utterance's best hypotheses."""

        def value(ended: _Ended) -> float:
            length = ended.step + (ended.token != self.eos) + 1
            return ended.score / length if self.options.normalize_length else ended.score

        hypotheses = []
        for ended in sorted(utterance.ended, key=value, reverse=True)[: self.options.nbest]:
            tokens = utterance.tokens(ended.step, ended.parent)
            if ended.token != self.eos:
                tokens.append(ended.token)
            parts = dict(zip(self.names, ended.parts, strict=True))
            if self.options.penalty:
                parts["length_bonus"] = float(ended.step + 1)
            hypotheses.append(Hypothesis(tokens, ended.score, parts))
        reason = None
        if utterance.broken:
            reason, hypotheses = NOT_NUMBERS, []
        elif not hypotheses:
            reason = "no hypothesis has ended: lower minlenratio"
        return Found(utterance.key, hypotheses, reason)


def _wide(x: Tensor, k: int, fill: float) -> Tensor:
    """Pad (..., hypothesis) to k hypotheses."""
    return F.pad(x, (0, k - x.shape[-1]), value=fill)
