"""ESPnet's searches over a model with hypothesis states: what they ask for, made of start and step.

ESPnet holds an object for the state of every hypothesis, of ended ones too, and hands whole
prefixes in. Such an object is here a row of a batch of states, and the batches of some tokens ago
are evicted: a row of one of them is replayed from its prefix, should a search come back to it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mambaasr.layers.output import OutputLayer
from mambaasr.layers.stateful import RecurrentScorer, RecurrentState

# Batches of the newest tokens stay: ESPnet's search over blocks of speech goes back by two. Others
# stay as long as all together are not larger than this.
KEPT_TOKENS = 3
KEPT_BYTES = 1 << 24


@dataclass(slots=True, eq=False)
class Batch:
    """States of hypotheses that were scored together.

    Attributes:
        state: of u utterances and k hypotheses of each; None once it is evicted.
        utterances: the number in the search of each of the u.
        hypotheses: k.
        length: tokens that the hypotheses have read.
    """

    state: RecurrentState | None
    utterances: list[int]
    hypotheses: int
    length: int = 0

    @property
    def live(self) -> RecurrentState:
        """The state of a batch that is not evicted."""
        assert self.state is not None
        return self.state


class Search:
    """What the hypotheses of one search share.

    Args:
        state: of its utterances before the first token.
        frames: of each utterance's speech; None where none was heard.
    """

    def __init__(self, state: RecurrentState, frames: list[int | None]) -> None:
        self.first = Batch(state, list(range(len(frames))), 1)
        self.frames = frames
        self._kept: deque[Batch] = deque()
        self._bytes = 0

    def rows(self) -> list["HypothesisRow"]:
        """Return the states before the first token, one an utterance."""
        return [HypothesisRow(self, self.first, index) for index in range(len(self.frames))]

    def keep(self, batch: Batch) -> None:
        """Remember a new batch until it is evicted."""
        self._kept.append(batch)
        self._bytes += batch.live.nbytes

    def evict(self, length: int) -> RecurrentState | None:
        """Evict old batches before hypotheses read their next token.

        Args:
            length: tokens that they will have read.

        Returns:
            a state that was evicted, whose memory may serve again, or None.
        """
        evicted: RecurrentState | None = None
        while self._bytes > KEPT_BYTES and self._kept[0].length <= length - KEPT_TOKENS:
            batch = self._kept.popleft()
            evicted, batch.state = batch.live, None
            self._bytes -= evicted.nbytes
        return evicted


@dataclass(frozen=True, slots=True, eq=False)
class HypothesisRow:
    """The state of one hypothesis: a row of a batch.

    No tuple: of those ESPnet's search makes copies, item by item.
    """

    search: Search
    batch: Batch
    index: int

    @property
    def utterance(self) -> int:
        """Number of the hypothesis' utterance in the search."""
        return self.batch.utterances[self.index // self.batch.hypotheses]

    @property
    def evicted(self) -> bool:
        """Whether the state has to be replayed."""
        return self.batch.state is None


type States = Sequence[HypothesisRow | list[HypothesisRow] | None]


class ESPnetScorer(RecurrentScorer):
    """ESPnet's ``BatchScorerInterface`` for a recurrent :class:`StatefulScorer`.

    To be inherited before ESPnet's own class. Serves ``BeamSearch``, ``BatchBeamSearch`` over one
    utterance and over several, and the search over blocks of speech.

    Attributes:
        hears_speech: whether the states depend on the speech, so that longer speech asks for new
            ones.
    """

    hears_speech = True

    @property
    def output(self) -> OutputLayer:
        """What gives the logits of :meth:`step`, and makes log-probabilities of them."""
        raise NotImplementedError

    @torch.no_grad()
    def init_state(self, x: Tensor | None = None) -> HypothesisRow:
        """Return the state before the first token of an utterance x (time, width)."""
        return self._begin(None if x is None else x.unsqueeze(0))[0]

    @torch.no_grad()
    def batch_init_state(
        self, x: Tensor | None, xs_lengths: Tensor | None = None
    ) -> HypothesisRow | list[HypothesisRow]:
        """Return the states before the first token of a batch of utterances.

        Args:
            x: speech (utterance, time, width), or that of one utterance (time, width).
            xs_lengths: (utterance) valid frames; None if all are.

        Returns:
            one row, or a list with one for each utterance; the search gives the list to
            :meth:`batch_score` for each hypothesis.
        """
        if x is None or x.dim() == 2:
            return self.init_state(x)
        return self._begin(x, xs_lengths)

    @torch.no_grad()
    def batch_score(
        self, ys: Tensor, states: States, xs: Tensor | None = None, xs_mask: Tensor | None = None
    ) -> tuple[Tensor, list[HypothesisRow]]:
        """Score the next token of hypotheses.

        Args:
            ys: whole prefixes (hypothesis, length). The last token is read, the others where a
                state has not read just these: the first one of a search that begins with several
                tokens (``hyp_primer``), one of a longer text, one that was evicted.
            states: a :class:`HypothesisRow` each, as :meth:`init_state` or an earlier call gave
                it, or None, or for each the same list of rows, one an utterance, as ESPnet's
                search over several begins; not changed, so that hypotheses may share one.
            xs: speech (hypothesis, time, width); a language model needs none. It is looked at
                where a state is None, or comes from speech of another length: ESPnet's search
                over blocks of speech is given more of it.
            xs_mask: (hypothesis, 1, time), true at valid frames; None if all are.

        Returns:
            log-probabilities (hypothesis, vocab_size), and the list of next states.
        """
        rows, length = self._rows(states, xs, xs_mask), ys.shape[1]
        search, old = rows[0].search, rows[0].batch
        fits = old.state is not None and old.length == length - 1
        if fits and all(row.batch is old for row in rows):
            batch = self._pick(old, [row.index for row in rows], search.evict(length))
        else:
            search, batch = self._replay(rows, ys[:, :-1])
        tokens = ys[:, -1].view(len(batch.utterances), batch.hypotheses)
        logits, batch.state = self.step(tokens, batch.live)
        batch.length = length
        search.keep(batch)
        scores = self.output.log_probs(logits.flatten(0, 1))
        return scores, [HypothesisRow(search, batch, index) for index in range(len(rows))]

    def score(
        self, y: Tensor, state: HypothesisRow | None, x: Tensor | None = None
    ) -> tuple[Tensor, HypothesisRow]:
        """Score the next token of one hypothesis: y (length), x (time, width)."""
        speech = None if x is None else x.unsqueeze(0)
        scores, states = self.batch_score(y.unsqueeze(0), [state], speech)
        return scores[0], states[0]

    def _begin(self, speech: Tensor | None, lengths: Tensor | None = None) -> list[HypothesisRow]:
        """Start a search over utterances (u, time, width); return a row for each."""
        if speech is None or not self.hears_speech:
            count = 1 if speech is None else len(speech)
            return Search(self.start(count), [None] * count).rows()
        count = len(speech)
        frames = [speech.shape[1]] * count if lengths is None else lengths.tolist()
        return Search(self.start(speech, lengths), frames).rows()

    def _rows(
        self, states: States, xs: Tensor | None, xs_mask: Tensor | None
    ) -> list[HypothesisRow]:
        """Find a row for each hypothesis, a new one where there is none or for other speech."""
        count = len(states)
        new: dict[Any, HypothesisRow] = {}
        frames: list[int | None] = [None] * count
        if xs is not None and self.hears_speech:
            frames = [xs.shape[1]] * count
            if xs_mask is not None:
                frames = xs_mask.sum(dim=(1, 2)).tolist()
        rows = []
        for index, (row, time) in enumerate(zip(states, frames, strict=True)):
            if isinstance(row, list):
                row = row[index * len(row) // count]
            if row is None or (time is not None and time != row.search.frames[row.utterance]):
                # Hypotheses of one utterance share its new state.
                speech = None if xs is None or time is None else xs[index : index + 1, :time]
                key: Any = (row.search, row.utterance) if row is not None else time
                if row is None and speech is not None:
                    key = time, speech.data_ptr()
                if key not in new:
                    new[key] = self._begin(speech)[0]
                row = new[key]
            rows.append(row)
        return rows

    def _pick(self, batch: Batch, rows: list[int], out: RecurrentState | None = None) -> Batch:
        """Put rows of a batch into a new one, whose states are free to be updated in place.

        Rows utterance by utterance, of each as many, share keys and values; else each hypothesis
        gets its own.
        """
        k = batch.hypotheses
        owners = [row // k for row in rows]
        chosen = [o for i, o in enumerate(owners) if i == 0 or o != owners[i - 1]]
        each = len(rows) // len(chosen)
        if owners != [owner for owner in chosen for _ in range(each)]:
            chosen, each = owners, 1
        device = batch.live.position.device
        index = torch.tensor([row % k for row in rows], device=device).view(len(chosen), each)
        utterances = None
        if chosen != list(range(len(batch.utterances))):
            utterances = torch.tensor(chosen, device=device)
        state = self.reorder(batch.live, index, utterances, out)
        return Batch(state, [batch.utterances[owner] for owner in chosen], each, batch.length)

    def _replay(self, rows: list[HypothesisRow], prefixes: Tensor) -> tuple[Search, Batch]:
        """Compute the states of rows anew, from the beginning; put searches together."""
        searches = list(dict.fromkeys(row.search for row in rows))
        search = searches[0]
        if len(searches) > 1:
            state = self.join([each.first.live for each in searches])
            search = Search(state, [frames for each in searches for frames in each.frames])
        offsets = dict.fromkeys(searches, 0)
        for before, after in zip(searches, searches[1:], strict=False):
            offsets[after] = offsets[before] + len(before.frames)
        batch = self._pick(search.first, [offsets[row.search] + row.utterance for row in rows])
        for tokens in prefixes.T:
            tokens = tokens.view(len(batch.utterances), batch.hypotheses)
            _, batch.state = self.step(tokens, batch.live)
        return search, batch
