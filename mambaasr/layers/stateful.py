"""Hypothesis states: what a search asks of a model that scores texts token by token.

Axes: u utterances, k hypotheses of each, v tokens. A search is the same with any such model::

    state = model.start(speech, lengths)
    logits, state = model.step(first, state)            # (u, 1) -> (u, 1, v)
    while ...:
        # choose parents and tokens (u, k) from the logits
        state = model.reorder(state, parents)
        logits, state = model.step(tokens, state)       # (u, k) -> (u, k, v)

Utterances never see each other: what a hypothesis scores does not depend on its companions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.lengths import valid_mask


class StatefulScorer[State](Protocol):
    """What a search over several utterances and hypotheses needs; the state is opaque to it."""

    def start(self, speech: Tensor, lengths: Tensor | None = None) -> State:
        """Return the state before the first token, one hypothesis an utterance.

        Args:
            speech: (u, time, width) of the encoder; a language model looks at u alone.
            lengths: (u) valid frames, none allowed; None if all are.
        """
        ...

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one token of each hypothesis.

        Args:
            tokens: (u, k).
            state: consumed, as its memory serves the next one; :meth:`reorder` makes a copy of
                what is still needed.

        Returns:
            logits of the next token (u, k, v), and the next state.
        """
        ...

    def reorder(
        self,
        state: State,
        index: Tensor | None = None,
        utterances: Tensor | None = None,
        out: State | None = None,
    ) -> State:
        """Return the state of hypotheses that continue others; ``state`` stays as it is.

        Args:
            state: of u utterances and k hypotheses of each.
            index: (u', k') the parent of each hypothesis, within 0 ... k - 1; None: every one
                continues itself.
            utterances: (u') the utterances that stay, in their new order; one that is not named
                leaves, one may be named several times. None: all stay.
            out: a state that nobody needs any more, whose memory may be overwritten: in a search
                the one before ``state``. Large states take longer to allocate than to copy.
        """
        ...

    def join(self, states: Sequence[State]) -> State:
        """Put utterances of several states, of equally many hypotheses, side by side."""
        ...


@dataclass(slots=True)
class RecurrentState:
    """State of recurrent models: the recurrent part has the same size at any length of the text.

    Attributes:
        recurrent: for each tensor of a mixer's state one of all mixers (mixer, u, k, ...),
            contiguous.
        position: (u) tokens that the hypotheses of an utterance have read.
        memory: keys and values (u, heads, time, width / heads), one an utterance, shared by its
            hypotheses and never written to; none without attention.
        mask: (u, time), true at frames to attend to; None if all are.
    """

    recurrent: tuple[Tensor, ...]
    position: Tensor
    memory: tuple[Tensor, ...] = ()
    mask: Tensor | None = None

    @classmethod
    def of_mixers(
        cls,
        states: Sequence[tuple[Tensor, ...]],
        memory: Sequence[Tensor] = (),
        mask: Tensor | None = None,
    ) -> Self:
        """Make the state before the first token.

        Args:
            states: of every mixer, tensors (u, ...), all mixers alike.
            memory, mask: see the attributes.
        """
        recurrent = tuple(torch.stack(part).unsqueeze(2) for part in zip(*states, strict=True))
        position = torch.zeros(recurrent[0].shape[1], dtype=torch.long, device=recurrent[0].device)
        return cls(recurrent, position, tuple(memory), mask)

    @property
    def utterances(self) -> int:
        """How many there are (u)."""
        return self.recurrent[0].shape[1]

    @property
    def hypotheses(self) -> int:
        """How many an utterance has (k)."""
        return self.recurrent[0].shape[2]

    @property
    def nbytes(self) -> int:
        """Memory of the recurrent part."""
        return sum(part.nbytes for part in self.recurrent)

    def of_each_mixer(self) -> list[tuple[Tensor, ...]]:
        """Return the state of every mixer, tensors (u * k, ...), for updates in place."""
        return list(zip(*(_rows(part).unbind() for part in self.recurrent), strict=True))

    def reorder(
        self,
        index: Tensor | None = None,
        utterances: Tensor | None = None,
        out: Self | None = None,
    ) -> "RecurrentState":
        """See :meth:`StatefulScorer.reorder`.

        Raises:
            ValueError: ``out`` is this state.
        """
        if out is self:
            raise ValueError("reorder cannot write a state over itself; give another as out")
        u, k = self.utterances, self.hypotheses
        device = self.position.device
        if index is None:
            index = torch.arange(k, device=device).expand(
                u if utterances is None else len(utterances), -1
            )
        owners = torch.arange(u, device=device) if utterances is None else utterances
        parents = (owners[:, None] * k + index).flatten()
        recurrent = []
        for number, part in enumerate(self.recurrent):
            shape = (len(part), *index.shape, *part.shape[3:])
            new = _memory(part, shape, None if out is None else out.recurrent[number])
            torch.index_select(_rows(part), 1, parents, out=_rows(new))
            recurrent.append(new)
        position, memory, mask = self.position, self.memory, self.mask
        if utterances is not None:
            position = position[utterances]
            memory, mask = _choose(memory, mask, utterances)
        return RecurrentState(tuple(recurrent), position, memory, mask)

    @staticmethod
    def join(states: Sequence["RecurrentState"]) -> "RecurrentState":
        """See :meth:`StatefulScorer.join`.

        Raises:
            ValueError: the states have different numbers of hypotheses.
        """
        counts = sorted({state.hypotheses for state in states})
        if len(counts) > 1:
            raise ValueError(f"states of {counts} hypotheses cannot be joined; make them equal")
        recurrent = tuple(
            torch.cat(parts, dim=1) for parts in zip(*(s.recurrent for s in states), strict=True)
        )
        position = torch.cat([state.position for state in states])
        if not states[0].memory:
            return RecurrentState(recurrent, position)
        times = [state.memory[0].shape[-2] for state in states]
        longest, mask = max(times), None
        if min(times) < longest or any(state.mask is not None for state in states):
            mask = torch.cat(
                [
                    valid_mask(position.new_full((state.utterances,), time), longest)
                    if state.mask is None
                    else F.pad(state.mask, (0, longest - time))
                    for state, time in zip(states, times, strict=True)
                ]
            )
        memory = tuple(
            torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[-2])) for part in parts])
            for parts in zip(*(state.memory for state in states), strict=True)
        )
        return RecurrentState(recurrent, position, memory, mask)


class RecurrentScorer:
    """The half of :class:`StatefulScorer` that recurrent models share."""

    def start(self, speech: Any, lengths: Tensor | None = None) -> RecurrentState:
        """See :meth:`StatefulScorer.start`."""
        raise NotImplementedError

    def step(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """See :meth:`StatefulScorer.step`."""
        raise NotImplementedError

    def reorder(
        self,
        state: RecurrentState,
        index: Tensor | None = None,
        utterances: Tensor | None = None,
        out: RecurrentState | None = None,
    ) -> RecurrentState:
        """See :meth:`StatefulScorer.reorder`; keys and values are copied for ``utterances`` only.

        Raises:
            ValueError: ``out`` is the state itself.
        """
        return state.reorder(index, utterances, out)

    def join(self, states: Sequence[RecurrentState]) -> RecurrentState:
        """See :meth:`StatefulScorer.join`.

        Raises:
            ValueError: the states have different numbers of hypotheses.
        """
        return RecurrentState.join(states)


def _rows(part: Tensor) -> Tensor:
    """(mixer, u, k, ...) -> (mixer, u * k, ...), a view."""
    return part.view(len(part), part.shape[1] * part.shape[2], *part.shape[3:])


def _memory(part: Tensor, shape: tuple[int, ...], spare: Tensor | None) -> Tensor:
    """Return an uninitialised tensor like ``part``, in the memory of ``spare`` if that suffices."""
    size = torch.Size(shape).numel()
    if spare is None or spare.numel() < size:
        return part.new_empty(shape)
    return spare.view(-1)[:size].view(shape)


def _choose(
    memory: tuple[Tensor, ...], mask: Tensor | None, utterances: Tensor
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Take utterances out of keys, values and mask, no longer than the longest of them."""
    memory = tuple(part.index_select(0, utterances) for part in memory)
    if mask is None or not len(utterances):
        return memory, mask
    mask = mask.index_select(0, utterances)
    longest = int(mask.sum(1).max())
    mask = mask[:, :longest]
    return tuple(part[..., :longest, :] for part in memory), None if mask.all() else mask
