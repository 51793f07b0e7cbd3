"""The states of hypotheses: rows of batches, gathered in one go when a beam goes on."""

import weakref
from typing import NamedTuple

import torch

# States of an utterance that may lie in memory; beyond, old ones are computed again if asked for.
KEPT_BYTES = 1 << 28


class Speech:
    """What the hypotheses of one utterance share.

    Attributes:
        start: the recurrent state before the first token, as :attr:`Batch.parts` of one row.
        memory: tensors that do not change from token to token, such as keys and values
            (1, ...); never copied for a beam.
    """

    def __init__(self, start, memory):
        self.start, self.memory = start, memory
        self._batches = []  # weak references, the oldest first

    def first_state(self):
        """The :class:`DecoderState` before the first token."""
        return DecoderState(Batch(self.start, (self,), self.memory), 0)

    def keep(self, batch):
        """Remember a new batch, and let go of old ones when they are too large together.

        ESPnet's search holds on to the state of every hypothesis that has ended, and a row
        holds its whole batch: memory would grow with the text.
        """
        self._batches.append(weakref.ref(batch))
        alive = [old for ref in self._batches if (old := ref()) is not None and old.parts]
        room = KEPT_BYTES - sum(old.bytes() for old in alive[-2:])
        kept = alive[-2:]
        for old in reversed(alive[:-2]):
            room -= old.bytes()
            if room < 0:
                old.parts = None
            else:
                kept.insert(0, old)
        self._batches = [weakref.ref(old) for old in kept]


class Batch:
    """Recurrent states of hypotheses that were scored together.

    Attributes:
        parts: for each part of a mixer's state a tensor (mixer, hypothesis, ...); None after they
            were let go.
        speech: the :class:`Speech` of each hypothesis.
        memory: tensors of the speech: (1, ...) if all share one, else (hypothesis, ...).
    """

    def __init__(self, parts, speech, memory):
        self.parts, self.speech, self.memory = parts, speech, memory

    def bytes(self):
        """What the states take."""
        return sum(part.numel() * part.element_size() for part in self.parts)


class DecoderState(NamedTuple):
    """The state of one hypothesis, of fixed size: a row of a batch."""

    batch: Batch
    row: int

    @property
    def speech(self):
        """The :class:`Speech` that the hypothesis belongs to."""
        return self.batch.speech[self.row]


def gather(states):
    """Put the states of hypotheses into one new batch, free to be updated in place.

    Rows of one batch, in whatever order, take one copy for each part; keys and values none, as
    long as all hypotheses belong to one utterance.

    Args:
        states: :class:`DecoderState` each, none of a batch that was let go.
    """
    first = states[0].batch
    rows = [state.row for state in states]
    if all(state.batch is first for state in states):
        index = torch.tensor(rows, device=first.parts[0].device)
        parts = [part.index_select(1, index) for part in first.parts]
    else:
        several = [[part[:, row : row + 1] for part in batch.parts] for batch, row in states]
        parts = [torch.cat(each, dim=1) for each in zip(*several, strict=True)]
    speech = tuple(state.speech for state in states)
    if all(each is speech[0] for each in speech):
        memory = speech[0].memory
    elif speech == first.speech:
        memory = first.memory
    else:
        several = [each.memory for each in speech]
        memory = [torch.cat(each) for each in zip(*several, strict=True)]
    return Batch(parts, speech, memory)
