"""Time-synchronous CTC prefix beam search over several utterances.

The search of Hannun et al. (2014, arXiv 1408.2873) as Galvez et al. batch it: frame by frame, with
one top-k for all utterances and hypotheses, and hypotheses of equal tokens merged by a hash of the
tokens. Axes: n utterances that still have frames, k hypotheses of each (``beam_size``), c tokens
that a frame may append, v tokens in all.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.layers.stateful import StatefulScorer
from mambaasr.ops import ctc_prefix
from mambaasr.ops.lengths import valid_mask
from mambaasr.search.data import (
    NOT_NUMBERS,
    Encoded,
    Found,
    Hypothesis,
    ctc_log_probs,
    of_usable,
    prompt_tensor,
)
from mambaasr.search.reader import Reader

DEAD = -math.inf
# The hash of a text is a polynomial in its tokens modulo 2**64, 1 for the empty one. Two texts
# share one with a probability of about 2**-64.
HASH_BASE = 6364136223846793005
# No token: the last one of the empty text, what is appended to a hypothesis that stays.
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
            for all. They are no part of what is found and not scored: language models only read
            them, and CTC's part is that of the text given the prompt.
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


class _Beam(NamedTuple):
    """The hypotheses of n utterances.

    Attributes:
        blank, label: (n, k) log-probabilities of the paths of each hypothesis that end in blank,
            and of those that end in its last token; float64.
        texts: (3, n, k) the last token, the hash of the tokens, and that of the tokens but the
            last; -1 for all of them where a hypothesis is dead, which meets none that lives.
        added: (1 + scorers, n, k) what comes to the score beside CTC's, the weighted sum and the
            penalty; and the log-probabilities of each language model.
        rows: (n, k) the row of each hypothesis before the language models.
        length: (n, k) tokens so far.
    """

    blank: Tensor
    label: Tensor
    texts: Tensor
    added: Tensor
    rows: Tensor
    length: Tensor


class _Search:
    """The search over the frames.

    The utterances with most frames come first, and those without further frames leave the beam.
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
        self._set_tokens(prompts[self.order])
        self.before = _prefix_scores(log_probs, encoded.lengths.to(device), prompts, blank_id)
        u, _, v = self.frames.shape
        k, c = options.beam_size, self.tokens.shape[2] - 1
        self.keys = [encoded.keys[place] for place in self.order.tolist()]
        self.names = [name for name, (_, weight) in scorers.items() if weight]
        self.weights = [scorers[name][1] for name in self.names]
        self.readers = [
            Reader(name, scorers[name][0], encoded.frames, sos, v, u * k) for name in self.names
        ]
        dead = torch.full((u, k), DEAD, dtype=torch.float64, device=device)
        blank, texts = dead.clone(), torch.full((3, u, k), NONE, device=device)
        blank[:, 0], texts[1, :, 0] = 0.0, 1
        rows = torch.arange(u, device=device)[:, None].repeat(1, k)
        added = torch.zeros(1 + len(self.names), u, k, dtype=torch.float64, device=device)
        self.beam = _Beam(blank, dead, texts, added, rows, torch.zeros_like(rows))
        self.ended: list[_Beam] = []
        # For each frame (parents, tokens), (n, k), the token NONE where none is appended.
        self.steps: list[tuple[Tensor, Tensor]] = []
        # Of k hypotheses that stay and k * c that grow: the parent, and which token of the frame's.
        own = torch.arange(k, device=device)
        self.parent = torch.cat([own, own.repeat_interleave(c)])
        self.column = torch.cat([torch.full_like(own, c), torch.arange(c, device=device).repeat(k)])

    def _set_frames(self, log_probs: Tensor, lengths: Tensor) -> None:
        """Leave out the frames of blank alone, and order the utterances by the rest.

        Sets ``order`` (u), the places where the utterances were; ``frames`` (u, time, v), with
        nothing for the blank and <eos>, and ``blanks`` (u, time, 1); ``counts``, the utterances of
        each frame; ``skipped`` (u, time + 1, 1), the log-probability of the blanks that were left
        out before each frame and after the last one; ``after`` (u, 1), the latter; and ``gaps``
        (u, time, 1), whether there were any.
        """
        time = log_probs.shape[1]
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
        self.blanks = blank.gather(1, index)[..., None]
        own = valid_mask(counts, index.shape[1] + 1)
        self.counts = own[:, :-1].sum(0).tolist()
        gaps = own[:, :-1] & (index.diff(prepend=torch.full_like(index[:, :1], -1)) > 1)
        self.gaps, self.any_gap = gaps[..., None], gaps.any(0).tolist()
        total = blank.masked_fill(~skip, 0.0).cumsum(1)
        before = torch.cat([total.gather(1, index), total[:, -1:]], dim=1)
        before = torch.where(own, before, total[:, -1:])
        skipped = before.diff(prepend=torch.zeros_like(before[:, :1]))
        self.skipped, self.after = skipped[..., None], skipped.gather(1, counts[:, None])

    def _set_tokens(self, prompts: Tensor) -> None:
        """Choose the tokens that each frame may append: its best, and those of the prompts (u, p).

        Sets ``tokens`` (u, time, c + 1), with NONE at the end; ``token_scores`` (u, time, c), DEAD
        where a token stands there already; and ``prompts`` (u, p + 1), with NONE at the end.
        """
        time, v = self.frames.shape[1:]
        best = self.frames.topk(min(self.options.frame_tokens, v - 1)).indices
        tokens = torch.cat([best, prompts[:, None].expand(-1, time, -1)], dim=2)
        self.token_scores = self.frames.gather(2, tokens).double()
        for c in range(best.shape[2], tokens.shape[2]):
            double = (tokens[..., :c] == tokens[..., c, None]).any(2)
            self.token_scores[..., c].masked_fill_(double, DEAD)
        self.tokens, self.prompts = (F.pad(x, (0, 1), value=NONE) for x in (tokens, prompts))

    def run(self) -> list[Found]:
        """Search all frames; return the utterances in the order that they came in."""
        frames = zip(
            *(x.unbind(1) for x in (self.frames, self.blanks, self.tokens, self.token_scores)),
            strict=True,
        )
        for frame, (n, each) in enumerate(zip(self.counts, frames, strict=True)):
            if n < len(self.beam.rows):
                self.ended.append(_Beam(*(x[..., n:, :] for x in self.beam)))
                self.beam = _Beam(*(x[..., :n, :] for x in self.beam))
            if self.any_gap[frame]:
                self._skip(self.gaps[:n, frame], self.skipped[:n, frame])
            self._step(*(x if n == len(x) else x[:n] for x in each))
        found = self._found()
        return [found[place] for place in self.order.argsort().tolist()]

    def _skip(self, gap: Tensor, skipped: Tensor) -> None:
        """Let all paths go through the blanks that were left out before a frame, (n, 1)."""
        blank, label = self.beam.blank, self.beam.label
        blank = torch.where(gap, torch.logaddexp(blank, label) + skipped, blank)
        self.beam = self.beam._replace(blank=blank, label=label.masked_fill(gap, DEAD))

    def _step(self, x: Tensor, x_blank: Tensor, tokens: Tensor, x_tokens: Tensor) -> None:
        """Let all hypotheses stay or grow by a token.

        Args:
            x: (n, v) log-probabilities of the frame.
            x_blank: (n, 1) that of the blank.
            tokens: (n, c + 1) that may be appended, and NONE.
            x_tokens: (n, c) their log-probabilities.
        """
        blank, label, texts, added, rows, length = self.beam
        last, hashes, parent_hash = texts
        total = torch.logaddexp(blank, label)
        # Where one grows into another one of the beam, its paths are added to those of the other.
        meets = parent_hash[:, :, None] == hashes[:, None, :]  # (n, k, parent)
        met, parent = meets.max(2)
        repeated = last.gather(1, parent) == last
        arriving = torch.where(repeated, blank.gather(1, parent), total.gather(1, parent))
        label = torch.logaddexp(label, torch.where(met, arriving, DEAD))
        label = label + x.gather(1, last.clamp(min=0))
        stayed = total + x_blank
        # A repeated token needs a blank between.
        repeats = tokens[:, None, :-1] == last[:, :, None]  # (n, k, c)
        grown = torch.where(repeats, blank[..., None], total[..., None]) + x_tokens[:, None]
        there = torch.bmm(meets.mT.float(), repeats.float()).bool()
        grown = grown.masked_fill_(there, DEAD)
        wide: Tensor | None = None
        if self.readers or self.options.penalty or self.prompts.shape[1] > 1:
            wide = torch.cat([added, self._added(tokens[:, None, :-1], grown).flatten(2)], dim=2)
        ranked = torch.cat([torch.logaddexp(stayed, label), grown.flatten(1)], dim=1)
        score, best = (ranked if wide is None else ranked + wide[0]).topk(self.options.beam_size)
        parents, appended = self.parent[best], tokens.gather(1, self.column[best])
        stays = appended == NONE
        self.steps.append((parents, appended))
        if wide is not None:
            added = wide.gather(2, best.expand(len(added), *best.shape))
            rows, length = rows.gather(1, parents), length.gather(1, parents) + ~stays
        old = texts.gather(2, parents.expand(3, *best.shape))
        grew = torch.stack([appended, torch.add(appended, old[1], alpha=HASH_BASE), old[1]])
        dead = score == DEAD
        self.beam = _Beam(
            torch.where(stays, stayed.gather(1, parents), DEAD),
            torch.cat([label, ranked[:, label.shape[1] :]], dim=1).gather(1, best),
            torch.where(stays, old, grew).masked_fill_(dead, NONE),
            added,
            rows,
            length,
        )
        if self.readers:
            self._read(appended, ~stays & ~dead)

    def _added(self, tokens: Tensor, grown: Tensor) -> Tensor:
        """Return what comes to the score of hypotheses that grow (1 + scorers, n, k, c).

        Args:
            tokens: (n, 1, c).
            grown: (n, k, c) their CTC scores; DEAD is put in where the prompt has another token.
        """
        added, rows, length = self.beam.added, self.beam.rows[..., None], self.beam.length
        gains = [reader.scores[rows, tokens].double() for reader in self.readers]
        weighted = torch.full_like(grown, self.options.penalty)
        for weight, gain in zip(self.weights, gains, strict=True):
            weighted += weight * gain
        rises = torch.stack([weighted, *gains])
        last = self.prompts.shape[1] - 1
        if last:
            forced = self.prompts[: len(length)].gather(1, length.clamp(max=last))[..., None]
            grown.masked_fill_((forced != NONE) & (tokens != forced), DEAD)
            rises = torch.where(forced == NONE, rises, 0.0)
        return added[..., None] + rises

    def _read(self, appended: Tensor, grew: Tensor) -> None:
        """Let the language models read what was appended (n, k) to some hypotheses (n, k)."""
        rows = self.beam.rows
        before, tokens = rows[grew], appended[grew]
        if not len(tokens):
            return
        kept = torch.cat([rows[~grew], *(each.rows.flatten() for each in self.ended)]).unique()
        unused = torch.ones(len(self.readers[0].scores), dtype=torch.bool, device=rows.device)
        unused[kept] = False
        free = unused.nonzero()[: len(tokens), 0]
        for reader in self.readers:
            reader.read(before, tokens, free, kept)
        self.beam = self.beam._replace(rows=rows.masked_scatter(grew, free))

    def _found(self) -> list[Found]:
        """Return the best hypotheses, the ends of their sentences scored, in the search's order."""
        beams = zip(self.beam, *reversed(self.ended), strict=True)
        beam = _Beam(*(torch.cat(parts, dim=-2) for parts in beams))
        ctc = torch.logaddexp(beam.blank, beam.label) + self.after - self.before[self.order]
        score, parts = ctc + beam.added[0] + self.options.penalty, []
        for part, weight, reader in zip(beam.added[1:], self.weights, self.readers, strict=True):
            end = reader.scores[beam.rows, self.eos]
            parts.append(part + end)
            score = score + weight * end
        first = self.prompts.shape[1] - 1
        if first:
            score = score.masked_fill(beam.length < first, DEAD)
        score, best = score.topk(self.options.nbest)
        columns = [x.gather(1, best).tolist() for x in (*parts, ctc)]
        broken = score.isnan().any(1).tolist()
        names = [*self.names, "ctc"]
        found = []
        for u, (key, texts) in enumerate(zip(self.keys, self._texts(best), strict=True)):
            hypotheses = []
            for i, text in enumerate(texts):
                tokens = text[first:]
                own = {name: column[u][i] for name, column in zip(names, columns, strict=True)}
                if self.options.penalty:
                    own["length_bonus"] = len(tokens) + 1.0
                if (value := float(score[u, i])) > DEAD:
                    hypotheses.append(Hypothesis(tokens, value, own))
            reason = None if hypotheses else "no text has a probability above 0"
            if broken[u]:
                hypotheses, reason = [], NOT_NUMBERS
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


def _prefix_scores(log_probs: Tensor, lengths: Tensor, prompts: Tensor, blank_id: int) -> Tensor:
    """Return log p(the text begins with the prompt | speech) (u, 1); 0 for prompts of no token."""
    score = log_probs.new_zeros(len(prompts), 1, dtype=torch.float64)
    if prompts.shape[1]:
        frames = ctc_prefix.prepare(log_probs, lengths, blank_id)
        prefixes = ctc_prefix.start(frames)
        for token in prompts.split(1, dim=1):
            score = ctc_prefix.scores(frames, prefixes, token[..., None])[..., 0]
            prefixes = ctc_prefix.advance(frames, prefixes, torch.zeros_like(token), token)
    return score
