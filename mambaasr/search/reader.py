"""Hypotheses that grow at different times, before a language model."""

from typing import Any

import torch
from torch import Tensor

from mambaasr.layers.stateful import StatefulScorer
from mambaasr.search.scorers import next_log_probs

# States that hypotheses may be spread over before they are copied into one.
MOST_STATES = 8


class Reader:
    """What a language model gives for the next token of hypotheses, one a row.

    In the states each hypothesis stands as an utterance of its own, since they differ in length.
    Those that grow at one frame make a state; the others' are not copied.

    Args:
        name: for messages.
        speech: (u, time, width); only u is looked at.
        sos: id.
        tokens: of CTC, which must be as many.
        rows: how many there may be; the first u are those before the first token.

    Attributes:
        scores: (row, v) log-probabilities.
        states: by number.
        state, place: (row) the number of the state that a row is in, and its place there.
        length: (row) tokens that were read, where a model (``joins`` is false) takes only
            hypotheses that are equally long; else 0.
    """

    def __init__(
        self,
        name: str,
        model: StatefulScorer[Any],
        speech: Tensor,
        sos: int,
        tokens: int,
        rows: int,
    ) -> None:
        self.model, self.growth = model, 0 if getattr(model, "joins", True) else 1
        state = model.start(speech[:, :1], torch.ones(len(speech), dtype=torch.long))
        start = torch.full((len(speech), 1), sos, device=speech.device)
        logits, state = model.step(start, state)
        scores = next_log_probs(model, logits)[:, 0]
        if scores.shape[-1] != tokens:
            raise ValueError(
                f"the {name} has {scores.shape[-1]} tokens and CTC {tokens};"
                " they must have the same token list"
            )
        self.scores = scores.new_zeros(rows, tokens)
        self.scores[: len(scores)] = scores
        self.states, self.next = {0: state}, 1
        self.place = torch.arange(rows, device=scores.device)
        self.state, self.length = torch.zeros_like(self.place), torch.zeros_like(self.place)

    def read(self, parents: Tensor, tokens: Tensor, free: Tensor, kept: Tensor) -> None:
        """Put rows ``parents``, continued by ``tokens``, into the rows ``free``; keep others."""
        new = []
        for rows, state in self._gathered(parents):
            logits, state = self.model.step(tokens[rows, None], state)
            new.append((free[rows], self.length[parents[rows]] + self.growth, state))
            # Of parents nothing but the states is asked for any more.
            self.scores[free[rows]] = next_log_probs(self.model, logits)[:, 0]
        for rows, length, state in new:
            self._put(rows, length, state)
        live = torch.cat([kept, free])
        numbers = self.state[live].unique().tolist()
        if len(numbers) > MOST_STATES:
            for rows, state in self._gathered(live):
                self._put(live[rows], self.length[live[rows]], state)
            numbers = self.state[live].unique().tolist()
        self.states = {number: self.states[number] for number in numbers}

    def _gathered(self, rows: Tensor) -> list[tuple[Tensor, Any]]:
        """Return the states of some rows that stand in one, with their places among them."""
        found = []
        for length in self.length[rows].unique().tolist():
            own = (self.length[rows] == length).nonzero()[:, 0]
            own = own[self.state[rows[own]].argsort(stable=True)]
            parts = []
            for number in self.state[rows[own]].unique().tolist():
                place = self.place[rows[own]][self.state[rows[own]] == number]
                index = torch.zeros_like(place)[:, None]
                parts.append(self.model.reorder(self.states[number], index, place))
            found.append((own, parts[0] if len(parts) == 1 else self.model.join(parts)))
        return found

    def _put(self, rows: Tensor, length: Tensor, state: Any) -> None:
        """Take in a state, of these rows."""
        self.states[self.next] = state
        self.state[rows], self.length[rows] = self.next, length
        self.place[rows] = torch.arange(len(rows), device=rows.device)
        self.next += 1
