"""Scorers of ESPnet's ``BatchScorerInterface`` as scorers of hypothesis states."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.layers.stateful import StatefulScorer


class NotSearchable(ValueError):
    """What only ESPnet's own search can decode."""


@dataclass(slots=True)
class BatchScorerState:
    """State of a :class:`BatchScorer`.

    Attributes:
        prefixes: (u, k, length) tokens that were read.
        states: the wrapped scorer's own, one a hypothesis, utterance by utterance.
        speech: (u, time, width).
        lengths: (u) valid frames.
        expanded: the speech (u * k, time, width) of each hypothesis, and its mask
            (u * k, 1, time) or None, as they were made for the present u and k; or None.
    """

    prefixes: Tensor
    states: list[Any]
    speech: Tensor
    lengths: Tensor
    expanded: tuple[Tensor, Tensor | None] | None = None


class BatchScorer:
    """A decoder or language model of ESPnet: ``batch_score`` on whole prefixes, with its caches.

    Its hypotheses have to be equally long, so that no utterance can be added to others that are
    under way (``joins`` is false).

    Args:
        scorer: with ESPnet's ``batch_init_state`` and ``batch_score``.
        hears_speech: whether it looks at the speech: a decoder, not a language model.

    Attributes:
        batches: whether several utterances may be scored together: ESPnet's S4 and Whisper
            decoders would attend to the padding.
    """

    joins = False

    def __init__(self, scorer: Any, hears_speech: bool = True) -> None:
        self.scorer, self.hears_speech = scorer, hears_speech
        takes = inspect.signature(scorer.batch_score).parameters
        self.batches = not hears_speech or "xs_mask" in takes

    def start(self, speech: Tensor, lengths: Tensor | None = None) -> BatchScorerState:
        """See :meth:`mambaasr.layers.stateful.StatefulScorer.start`."""
        if lengths is None:
            lengths = torch.full((len(speech),), speech.shape[1])
        prefixes = torch.empty(len(speech), 1, 0, dtype=torch.long, device=speech.device)
        states = [self.scorer.batch_init_state(each) for each in speech]
        return BatchScorerState(prefixes, states, speech, lengths.to(speech.device))

    def step(self, tokens: Tensor, state: BatchScorerState) -> tuple[Tensor, BatchScorerState]:
        """See :meth:`mambaasr.layers.stateful.StatefulScorer.step`; gives log-probabilities."""
        prefixes = torch.cat([state.prefixes, tokens[..., None]], dim=-1)
        if state.expanded is None:
            state.expanded = self._expand(state, tokens.shape[1])
        speech, mask = state.expanded
        masked = {} if mask is None else {"xs_mask": mask}
        scores, states = self.scorer.batch_score(
            prefixes.flatten(0, 1), state.states, speech, **masked
        )
        new = BatchScorerState(prefixes, states, state.speech, state.lengths, state.expanded)
        return scores.unflatten(0, tokens.shape), new

    def _expand(self, state: BatchScorerState, k: int) -> tuple[Tensor, Tensor | None]:
        """Return speech and mask of each hypothesis."""
        time = state.speech.shape[1]
        if not self.hears_speech:
            return state.speech[:, :1].repeat_interleave(k, dim=0), None
        speech = state.speech.repeat_interleave(k, dim=0)
        if int(state.lengths.min()) == time:
            return speech, None
        mask = torch.arange(time, device=speech.device) < state.lengths[:, None, None]
        return speech, mask.repeat_interleave(k, dim=0)

    def reorder(
        self,
        state: BatchScorerState,
        index: Tensor | None = None,
        utterances: Tensor | None = None,
        out: BatchScorerState | None = None,
    ) -> BatchScorerState:
        """See :meth:`mambaasr.layers.stateful.StatefulScorer.reorder`; ``out`` is not used."""
        u, k, length = state.prefixes.shape
        device = state.prefixes.device
        owners = torch.arange(u, device=device) if utterances is None else utterances
        if index is None:
            index = torch.arange(k, device=device).expand(len(owners), k)
        rows = (owners[:, None] * k + index).flatten()
        prefixes = state.prefixes.view(u * k, length)[rows].view(*index.shape, length)
        states = [state.states[row] for row in rows.tolist()]
        speech, lengths, expanded = state.speech, state.lengths, state.expanded
        if utterances is not None:
            lengths = lengths[utterances]
            speech = speech[utterances, : int(lengths.max())]
        if utterances is not None or index.shape[1] != k:
            expanded = None
        return BatchScorerState(prefixes, states, speech, lengths, expanded)

    def join(self, states: Sequence[BatchScorerState]) -> BatchScorerState:
        """See :meth:`mambaasr.layers.stateful.StatefulScorer.join`.

        Raises:
            ValueError: the states have read different numbers of tokens.
        """
        if len({state.prefixes.shape[2] for state in states}) > 1:
            raise ValueError("hypotheses of ESPnet's scorers are equally long; start them together")
        time = max(state.speech.shape[1] for state in states)
        return BatchScorerState(
            torch.cat([state.prefixes for state in states]),
            [own for state in states for own in state.states],
            torch.cat([F.pad(x.speech, (0, 0, 0, time - x.speech.shape[1])) for x in states]),
            torch.cat([state.lengths for state in states]),
        )


def next_log_probs(model: Any, logits: Tensor) -> Tensor:
    """Return log-probabilities by the model's own output layer, or by a softmax."""
    output = getattr(model, "output", None)
    return torch.log_softmax(logits, dim=-1) if output is None else output.log_probs(logits)


def state_scorer(name: str, scorer: Any) -> StatefulScorer[Any]:
    """Return a scorer as one of hypothesis states.

    Args:
        name: "decoder", or another of which ESPnet's scorers do not look at the speech.
        scorer: of hypothesis states already, or with ESPnet's ``batch_score``.

    Raises:
        NotSearchable: it is neither.
    """
    if all(hasattr(scorer, each) for each in ("start", "step", "reorder", "join")):
        return scorer
    if not hasattr(scorer, "batch_score"):
        raise NotSearchable(f"the {name} cannot score several hypotheses at once")
    return BatchScorer(scorer, hears_speech=name == "decoder")
