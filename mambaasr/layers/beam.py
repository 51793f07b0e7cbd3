"""Recurrent states of hypotheses: rows of batches, gathered in one go when a beam goes on.

Hypotheses of several utterances may be scored together, whatever the lengths of their speech.
"""

import weakref
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mambaasr.ops.lengths import valid_mask

# States of one origin that may lie in memory; beyond, old ones are let go.
KEPT_BYTES = 1 << 26


class Origin:
    """What the hypotheses of one utterance come from and share.

    Args:
        states: of every mixer before the first token: tuples of tensors (1, ...), alike.
        memory: tensors that do not change from token to token, such as keys and values
            (1, ..., time, channel); never copied for a beam.
        frames: length of the utterance; None where none was heard.
    """

    def __init__(self, states, memory=(), frames=None):
        self.memory, self.frames = memory, frames
        self._start = [torch.stack(part) for part in zip(*states, strict=True)]
        self._batches = []  # weak references, the oldest first
        self._spare = None  # memory of a batch that is gone

    def first(self):
        """The :class:`Row` before the first token."""
        return Row(Batch(self._start, (self,), *_together((self,))), 0)

    def keep(self, batch):
        """Remember a new batch, and let go of old ones when they are too large together.

        ESPnet's search holds on to the state of every hypothesis that has ended, and a row
        holds its whole batch: memory would grow with the text.
        """
        self._batches.append(weakref.ref(batch))
        alive = [old for ref in self._batches if (old := ref()) is not None and old.parts]
        room, kept = KEPT_BYTES, []
        for old in reversed(alive):
            room -= old.bytes()
            # The new ones and those that they came from stay, however large.
            if old.length >= batch.length - 1 or room >= 0:
                kept.insert(0, weakref.ref(old))
            else:
                old.let_go()
        self._batches = kept


class Batch:
    """Recurrent states of hypotheses that were scored together.

    Attributes:
        parts: for each tensor of a mixer's state one of all mixers (mixer, hypothesis, ...); None
            after they were let go.
        origins: the :class:`Origin` of each hypothesis.
        memory: tensors (utterance, ..., time, channel), zero beyond an utterance's own time. If
            the hypotheses lie utterance by utterance, of each as many, an utterance has one row
            for all of its own; else each hypothesis has a row.
        mask: (utterance, time), true within the utterance's own time; None if all of it is.
        length: tokens that the states have seen, of each hypothesis as many.
    """

    def __init__(self, parts, origins, memory, mask=None, buffers=None, length=0):
        self.parts, self.origins, self.memory, self.mask = parts, origins, memory, mask
        self._buffers = buffers
        self.length = length

    def states(self):
        """The state of every mixer: tuples of tensors (hypothesis, ...), not copied."""
        return list(zip(*self.parts, strict=True))

    def bytes(self):
        """What the states take."""
        return sum(part.numel() * part.element_size() for part in self.parts)

    def let_go(self):
        """Forget the states; their memory serves the next batch."""
        if self._buffers is not None:
            self.origins[0]._spare = self._buffers
        self.parts = self._buffers = None

    # A batch of large states takes longer to get its memory from the system than to fill it.
    __del__ = let_go


@dataclass(frozen=True, slots=True)
class Row:
    """The state of one hypothesis, of fixed size: a row of a batch.

    No tuple: of those ESPnet's search makes copies, item by item.
    """

    batch: Batch
    row: int

    @property
    def origin(self):
        """The :class:`Origin` of the hypothesis."""
        return self.batch.origins[self.row]

    @property
    def alive(self):
        """Whether the state is there, and not let go."""
        return self.batch.parts is not None


def gather(rows):
    """Put the states of hypotheses into one new batch, free to be updated in place.

    Rows of one batch, in whatever order, take one copy for each part; keys and values none, as
    long as hypotheses stay among those of their utterance.

    Args:
        rows: a :class:`Row` each, all alive and of one length.
    """
    first = rows[0].batch
    origins = tuple(row.origin for row in rows)
    spare, origins[0]._spare = origins[0]._spare or [None] * len(first.parts), None
    buffers, parts = [], []
    for part, old in zip(first.parts, spare, strict=True):
        shape = torch.Size((len(part), len(rows), *part.shape[2:]))
        enough = old is not None and old.numel() >= shape.numel()
        buffers.append(old if enough else part.new_empty(shape.numel()))
        parts.append(buffers[-1][: shape.numel()].view(shape))
    if all(row.batch is first for row in rows):
        index = torch.tensor([row.row for row in rows], device=parts[0].device)
        for old, new in zip(first.parts, parts, strict=True):
            torch.index_select(old, 1, index, out=new)
    else:
        several = [[part[:, row.row : row.row + 1] for part in row.batch.parts] for row in rows]
        for old, new in zip(zip(*several, strict=True), parts, strict=True):
            torch.cat(old, dim=1, out=new)
    memory, mask = first.memory, first.mask
    if origins != first.origins:
        memory, mask = _together(origins)
    return Batch(parts, origins, memory, mask, buffers, first.length)


def _together(origins):
    """Put the memories of hypotheses together: tensors and mask as in :class:`Batch`."""
    # The first of each run of hypotheses of one utterance; all, if the runs are not alike.
    owners = [o for i, o in enumerate(origins) if i == 0 or o is not origins[i - 1]]
    each = len(origins) // len(owners)
    if origins != tuple(owner for owner in owners for _ in range(each)):
        owners = origins
    memories = [owner.memory for owner in owners]
    if len(memories) == 1 or not memories[0]:
        return memories[0], None
    times = [memory[0].shape[-2] for memory in memories]
    longest, mask = max(times), None
    if min(times) < longest:
        mask = valid_mask(torch.tensor(times, device=memories[0][0].device), longest)
    padded = (
        [F.pad(part, (0, 0, 0, longest - part.shape[-2])) for part in memory] for memory in memories
    )
    return [torch.cat(parts) for parts in zip(*padded, strict=True)], mask


class StepScorer:
    """ESPnet's ``BatchScorerInterface`` for a model with a step; to be inherited before it.

    A subclass gives two methods:

    - ``init_state(x)``: the :class:`Row` before the first token of an utterance x (time, width).
    - ``_step(tokens, batch)``: the next token of each hypothesis (hypothesis) -> logits
      (hypothesis, vocab_size); the states of the :class:`Batch` are updated in place.
    """

    @torch.no_grad()
    def batch_score(self, ys, states, xs=None, xs_mask=None):
        """Score the next token of hypotheses.

        Args:
            ys: whole prefixes (hypothesis, length). Only the last token is read, unless a state
                has not seen those before it, as the first one of a search that begins with
                several tokens (``hyp_primer``), or is so old that it was let go: then from ys.
            states: a :class:`Row` each, as :meth:`init_state` or an earlier call gave it, or None,
                or for each the same list of rows, one an utterance, as ESPnet's search over
                several begins; not changed, so that hypotheses may share one.
            xs: speech (hypothesis, time, width); a language model needs none. It is looked at
                where a state is None, or comes from speech of another length: ESPnet's search
                over blocks of speech goes on with more of it.
            xs_mask: (hypothesis, 1, time), true at valid frames; None if all are.

        Returns:
            log-probabilities (hypothesis, vocab_size), and the list of next states.
        """
        speeches = [None] * len(ys) if xs is None else xs
        if xs_mask is not None:
            frames = xs_mask.sum(dim=(1, 2)).tolist()
            speeches = [speech[:length] for speech, length in zip(xs, frames, strict=True)]
        rows, new = [], {}
        for index, (row, speech, prefix) in enumerate(zip(states, speeches, ys, strict=True)):
            if isinstance(row, list):
                row = row[index * len(row) // len(states)]
            if row is None:
                row = self.init_state(speech)
            elif speech is not None and row.origin.frames not in (None, len(speech)):
                if row.origin not in new:
                    new[row.origin] = self.init_state(speech)
                row = new[row.origin]
            rows.append(self._caught_up(row, prefix))
        batch = gather(rows)
        logits = self._go_on(ys[:, -1], batch)
        for origin in set(batch.origins):
            origin.keep(batch)
        scores = torch.log_softmax(logits.float(), dim=-1)
        return scores, [Row(batch, index) for index in range(len(rows))]

    def score(self, y, state, x=None):
        """Score the next token of one hypothesis: y (length), x (time, width)."""
        speech = None if x is None else x.unsqueeze(0)
        scores, states = self.batch_score(y.unsqueeze(0), [state], speech)
        return scores[0], states[0]

    def _go_on(self, tokens, batch):
        logits = self._step(tokens, batch)
        batch.length += 1
        return logits

    def _caught_up(self, row, prefix):
        """The row itself, or one like it that has seen all of the prefix (length) but its end."""
        seen = len(prefix) - 1
        if row.alive and row.batch.length == seen:
            return row
        batch = gather([row if row.alive and row.batch.length < seen else row.origin.first()])
        for token in prefix[batch.length : -1]:
            self._go_on(token.unsqueeze(0), batch)
        return Row(batch, 0)
