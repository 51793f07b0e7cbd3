"""Time-synchronous CTC prefix beam search over several utterances.

The search of Hannun et al. (2014, arXiv 1408.2873) as Galvez et al. batch it: frame by frame, with
one top-k for all utterances and hypotheses, and hypotheses of equal tokens merged by a hash of the
tokens. Axes: n utterances that still have frames, k hypotheses of each (``beam_size``), c tokens
that a frame may append, v tokens in all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mambaasr.layers.stateful import StatefulScorer
from mambaasr.ops.lengths import valid_mask
from mambaasr.search.data import Encoded, Found, Hypothesis, ctc_log_probs, of_usable, prompt_tensor
from mambaasr.search.reader import Reader

DEAD = -math.inf
# The hash of a text is a polynomial in its tokens modulo 2**64; of the empty text it is 1, of a
# hypothesis that is dead 0. Two texts share one with a probability of about 2**-64.
HASH_BASE = 6364136223846793005
# What stands for the last token of the empty text.
NONE = -1


@dataclass(frozen=True)
class PrefixOptions:
    """How to search.

    Attributes:
        beam_size: hypotheses that are kept at each frame.
        frame_tokens: a frame appends only its so many most probable tokens, the blank not counted.
        blank_skip: frames whose blank has at least this probability are taken for blank alone:
            nothing is appended there and no label goes on. With 1 (to rounding, in fp32) that is
            exact; below, such as 0.999, it is an approximation that saves frames where CTC is sure.
        penalty: added for each token, <eos> too.
        nbest: hypotheses to return.

    Raises:
        ValueError: a size is below 1, or ``nbest`` above the beam.
    """

    beam_size: int = 20
    frame_tokens: int = 40
    blank_skip: float = 1.0
    penalty: float = 0.0
    nbest: int = 1

    def __post_init__(self) -> None:
        for name in ("beam_size", "frame_tokens", "nbest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.blank_skip <= 0:
            raise ValueError(f"blank_skip is {self.blank_skip}; it must be above 0")
        if self.nbest > self.beam_size:
            raise ValueError(f"nbest is {self.nbest}, more than the beam_size {self.beam_size}")


@torch.no_grad()
def ctc_prefix_search(
    encoded: Encoded,
    scorers: Mapping[str, tuple[StatefulScorer[Any], float]],
    sos: int,
    eos: int,
    options: PrefixOptions = PrefixOptions(),
    prompts: Sequence[Sequence[int]] = (),
    blank_id: int = 0,
) -> list[Found]:
    """Find the texts whose CTC paths, and language models, have the highest probability.

    The score of a text is the log-probability of all its paths that the beam has kept, plus the
    weighted log-probabilities of the language models, the end of the sentence included, plus the
    penalty for each token: the joint search's with a CTC weight of 1.

    Args:
        encoded: with the log-probabilities of CTC.
        scorers: name -> (language model, weight); those of weight 0 are left out.
        sos, eos: ids; no text has them.
        options: see :class:`PrefixOptions`.
        prompts: for each utterance the tokens that its text begins with, equally many, or nothing
            for all. They are no part of what is found; language models read them unscored. CTC's
            part has their probability in it.
        blank_id: of CTC.

    Returns:
        The utterances in their order, with the hypotheses best first, all different.

    Raises:
        ValueError: there are no log-probabilities of CTC; a language model has other tokens; the
            prompts differ in length.
    """
    first = prompt_tensor(prompts, encoded)
    place = {key: index for index, key in enumerate(encoded.keys)}

    def search(usable: Encoded) -> list[Found]:
        own = first[[place[key] for key in usable.keys]]
        return _Search(usable, scorers, sos, eos, options, own, blank_id).run()

    return of_usable(encoded, search)


class _Search:
    """The search over the frames; its tensors are of all utterances, those with most frames first.

    Attributes:
        blank, label: (u, k) log-probabilities of the paths of each hypothesis that end in blank,
            and of those that end in its last token; float64.
        last: (u, k) the last token.
        hash, parent_hash: (u, k) of the tokens, and of the tokens but the last.
        parts: (scorer, u, k) log-probabilities of the language models.
        extra: (u, k) what is added to CTC's: the weighted parts and the penalty.
        rows: (u, k) the row of each hypothesis in the states of the language models.
        length: (u, k) tokens so far.
        steps: for each frame (parents, tokens), (n, k), the token NONE where none is appended.
    """

    def __init__(
        self,
        encoded: Encoded,
        scorers: Mapping[str, tuple[StatefulScorer[Any], float]],
        sos: int,
        eos: int,
        options: PrefixOptions,
        prompts: Tensor,
        blank_id: int,
    ) -> None:
        self.options, self.eos, self.blank_id = options, eos, blank_id
        log_probs = ctc_log_probs(encoded)
        device = log_probs.device
        self._set_frames(log_probs, encoded.lengths.to(device))
        self._set_prompts(prompts[self.order])
        u, _, v = self.frames.shape
        self.keys = [encoded.keys[place] for place in self.order.tolist()]
        self.names = [name for name, (_, weight) in scorers.items() if weight]
        self.weights = [scorers[name][1] for name in self.names]
        k = options.beam_size
        self.readers = [
            Reader(name, scorers[name][0], encoded.frames, sos, v, u * k) for name in self.names
        ]
        self.label = torch.full((u, k), DEAD, dtype=torch.float64, device=device)
        self.blank = self.label.clone()
        self.blank[:, 0] = 0.0
        self.extra = torch.zeros_like(self.blank)
        self.parts = self.extra.expand(len(self.names), u, k).clone()
        self.last = torch.full((u, k), NONE, device=device)
        self.hash = torch.zeros_like(self.last)
        self.hash[:, 0] = 1
        self.parent_hash = torch.full_like(self.last, -1)
        self.rows = torch.arange(u, device=device)[:, None].repeat(1, k)
        self.length = torch.zeros_like(self.last)
        self.steps: list[tuple[Tensor, Tensor]] = []

    def _set_frames(self, log_probs: Tensor, lengths: Tensor) -> None:
        """Leave out the frames of blank alone, and order the utterances by the rest.

        Sets ``order`` (u), the places where the utterances were; ``frames`` (u, time, v), with
        nothing for the blank and <eos>, and ``blanks`` (u, time); ``tokens`` (u, time, c);
        ``counts``, the utterances of each frame; ``skipped`` (u, time + 1), the log-probability of
        the blanks that were left out before each frame and after the last one; and ``gaps``
        (u, time), whether there were any.
        """
        time, v = log_probs.shape[1:]
        valid = valid_mask(lengths, time)
        blank = log_probs[..., self.blank_id].double()
        skip = valid & (blank >= math.log(self.options.blank_skip))
        counts = (valid & ~skip).sum(1)
        self.order = counts.argsort(descending=True, stable=True)
        counts, skip, valid, blank = (x[self.order] for x in (counts, skip, valid, blank))
        # The frames that stay come first, in their order.
        index = (~valid | skip).byte().argsort(dim=1, stable=True)[:, : int(counts.max())]
        self.frames = log_probs[self.order[:, None], index]
        self.frames[..., [self.blank_id, self.eos]] = DEAD
        self.blanks = blank.gather(1, index)
        self.tokens = self.frames.topk(min(self.options.frame_tokens, v - 1)).indices
        own = valid_mask(counts, index.shape[1] + 1)
        self.counts = own[:, :-1].sum(0).tolist()
        self.gaps = own[:, :-1] & (index.diff(prepend=torch.full_like(index[:, :1], -1)) > 1)
        self.any_gap = self.gaps.any(0).tolist()
        total = blank.masked_fill(~skip, 0.0).cumsum(1)
        before = torch.cat([total.gather(1, index), total[:, -1:]], dim=1)
        before = torch.where(own, before, total[:, -1:])
        self.skipped = before.diff(prepend=torch.zeros_like(before[:, :1]))
        self.after = self.skipped.gather(1, counts[:, None])

    def _set_prompts(self, prompts: Tensor) -> None:
        """Let every frame append the tokens of the prompts (u, p) too.

        Sets ``prompts`` (u, p + 1), with NONE at the end, and ``double`` (u, time, c), where a
        token stands among those of a frame already.
        """
        self.prompts = torch.nn.functional.pad(prompts, (0, 1), value=NONE)
        count, more = self.tokens.shape[2], prompts[:, None].expand(-1, self.tokens.shape[1], -1)
        self.tokens = torch.cat([self.tokens, more], dim=2)
        self.double = torch.zeros_like(self.tokens, dtype=torch.bool)
        for c in range(count, self.tokens.shape[2]):
            self.double[..., c] = (self.tokens[..., :c] == self.tokens[..., c, None]).any(2)

    def run(self) -> list[Found]:
        """Search all frames; return the utterances in the order that they came in."""
        for frame, n in enumerate(self.counts):
            if self.any_gap[frame]:
                self._skip(n, frame)
            self._step(n, frame)
        found = self._found()
        return [found[place] for place in self.order.argsort().tolist()]

    def _skip(self, n: int, frame: int) -> None:
        """Let all paths go through the blanks that were left out before a frame."""
        gap, skipped = self.gaps[:n, frame, None], self.skipped[:n, frame, None]
        blank, label = self.blank[:n], self.label[:n]
        total = torch.logaddexp(blank, label) + skipped
        self.blank[:n] = torch.where(gap, total, blank)
        self.label[:n] = torch.where(gap, DEAD, label)

    def _step(self, n: int, frame: int) -> None:
        """Let all hypotheses of the first n utterances stay or grow by a token."""
        x, tokens = self.frames[:n, frame], self.tokens[:n, frame]  # (n, v), (n, c)
        blank, label, last, extra = self.blank[:n], self.label[:n], self.last[:n], self.extra[:n]
        hashes, parent_hash, parts = self.hash[:n], self.parent_hash[:n], self.parts[:, :n]
        k, c = self.options.beam_size, tokens.shape[1]
        total = torch.logaddexp(blank, label)
        # Where one grows into another one of the beam, its paths are added to those of the other.
        meets = parent_hash[:, :, None] == hashes[:, None, :]  # (n, k, parent)
        met, parent = meets.max(2)
        repeated = last.gather(1, parent) == last
        arriving = torch.where(repeated, blank.gather(1, parent), total.gather(1, parent))
        label = torch.logaddexp(label, arriving.masked_fill(~met, DEAD))
        label = label + x.gather(1, last.clamp(min=0))
        stayed = total + self.blanks[:n, frame, None]
        # A repeated token needs a blank between.
        repeats = tokens[:, None, :] == last[:, :, None]  # (n, k, c)
        grown = torch.where(repeats, blank[..., None], total[..., None])
        grown = grown + x.gather(1, tokens)[:, None]
        there = torch.bmm(meets.mT.float(), repeats.float()) > 0
        grown = grown.masked_fill(there | self.double[:n, frame, None], DEAD)
        penalty, length = extra.new_tensor(self.options.penalty), self.length[:n]
        rows = self.rows[:n, :, None]
        gains = [each.scores[rows, tokens[:, None]].double() for each in self.readers]
        if self.prompts.shape[1] > 1:
            forced = self.prompts[:n].gather(1, length.clamp(max=self.prompts.shape[1] - 1))
            forced = forced[..., None]
            grown = grown.masked_fill((forced != NONE) & (tokens[:, None] != forced), DEAD)
            penalty = torch.where(forced == NONE, penalty, 0.0)
            gains = [torch.where(forced == NONE, gain, 0.0) for gain in gains]
        more = extra[..., None] + penalty
        for weight, gain in zip(self.weights, gains, strict=True):
            more = more + weight * gain
        ranked = torch.cat(
            [torch.logaddexp(stayed, label) + extra, (grown + more).flatten(1)], dim=1
        )
        score, best = ranked.topk(k)
        stays, place = best < k, (best - k).clamp(min=0)
        parents = torch.where(stays, best, place // c)
        appended = torch.where(stays, NONE, tokens.gather(1, place % c))
        if self.readers:
            rises = torch.stack([(parts[i][..., None] + x).flatten(1) for i, x in enumerate(gains)])
            self.parts[:, :n] = torch.cat([parts, rises], dim=2).gather(
                2, best.expand(len(parts), n, k)
            )
            self._read(parents, appended, score > DEAD)
        more = more.expand_as(grown).flatten(1)
        self.extra[:n] = torch.cat([extra, more], dim=1).gather(1, best)
        self.label[:n] = torch.cat([label, grown.flatten(1)], dim=1).gather(1, best)
        self.blank[:n] = torch.where(stays, stayed.gather(1, parents), DEAD)
        self.last[:n] = torch.where(stays, last.gather(1, parents), appended)
        self.length[:n] = length.gather(1, parents) + ~stays
        # What is dead meets nobody.
        dead, grew_from = score == DEAD, hashes.gather(1, parents)
        parent_hash = torch.where(stays, parent_hash.gather(1, parents), grew_from)
        hashes = torch.where(stays, grew_from, grew_from * HASH_BASE + appended + 1)
        self.hash[:n] = hashes.masked_fill(dead, 0)
        self.parent_hash[:n] = parent_hash.masked_fill(dead, -1)
        self.steps.append((parents, appended))

    def _read(self, parents: Tensor, appended: Tensor, alive: Tensor) -> None:
        """Let the language models read what was appended to the first n utterances."""
        rows = self.rows.clone()
        rows[: len(parents)] = rows[: len(parents)].gather(1, parents)
        grew = torch.zeros_like(rows, dtype=torch.bool)
        grew[: len(parents)] = alive & (appended != NONE)
        before, tokens = rows[grew], appended[grew[: len(parents)]]
        if len(tokens):
            kept = rows[~grew].unique()
            unused = torch.ones(rows.numel(), dtype=torch.bool, device=rows.device)
            unused[kept] = False
            free = unused.nonzero()[: len(tokens), 0]
            for reader in self.readers:
                reader.read(before, tokens, free, kept)
            rows[grew] = free
        self.rows = rows

    def _found(self) -> list[Found]:
        """Return the best hypotheses, the ends of their sentences scored, in the search's order."""
        ctc = torch.logaddexp(self.blank, self.label) + self.after
        score = ctc + self.extra + self.options.penalty
        first = self.prompts.shape[1] - 1
        score = score.masked_fill(self.length < first, DEAD)
        for part, weight, reader in zip(self.parts, self.weights, self.readers, strict=True):
            end = reader.scores[self.rows, self.eos]
            part += end
            score += weight * end
        score, best = score.topk(self.options.nbest)
        parts = [x.gather(1, best).tolist() for x in (*self.parts, ctc)]
        names = [*self.names, "ctc"]
        found = []
        for u, (key, texts) in enumerate(zip(self.keys, self._texts(best), strict=True)):
            hypotheses = []
            for i, text in enumerate(texts):
                tokens = text[first:]
                own = {name: part[u][i] for name, part in zip(names, parts, strict=True)}
                if self.options.penalty:
                    own["length_bonus"] = len(tokens) + 1.0
                if (value := float(score[u, i])) > DEAD:
                    hypotheses.append(Hypothesis(tokens, value, own))
            reason = None if hypotheses else "no text has a probability above 0"
            found.append(Found(key, hypotheses, reason))
        return found

    def _texts(self, place: Tensor) -> list[list[list[int]]]:
        """Return the tokens of hypotheses (u, nbest), by their places in the beam at the end."""
        place = place.clone()
        tokens = torch.full((len(self.steps), *place.shape), NONE, device=place.device)
        for frame in range(len(self.steps) - 1, -1, -1):
            parents, appended = self.steps[frame]
            n = len(parents)
            tokens[frame, :n] = appended.gather(1, place[:n])
            place[:n] = parents.gather(1, place[:n])
        return [
            [[token for token in text if token != NONE] for text in texts]
            for texts in tokens.permute(1, 2, 0).tolist()
        ]
