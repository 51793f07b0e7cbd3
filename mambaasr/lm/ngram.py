"""A back-off n-gram model as a scorer of many hypotheses at once.

The model is a trie over contexts: node 0 is the empty one, and each n-gram that is shorter than the
longest ones is a node, the child of its first words. A hypothesis' state is the node of the longest
end of its text that the model knows as a context. The tensors of the trie are its n-grams sorted
by context and word, so that the children of a node lie side by side.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mambaasr.errors import UserError
from mambaasr.espnet_compat import BatchScorerInterface
from mambaasr.lm.arpa import UNK, ZERO, Grams, read_arpa

# Log-probability of a token that the model does not know, where it has no <unk>.
FLOOR = ZERO * math.log(10)


def load(path: str | Path, token_list: Sequence[str]) -> "NGram":
    """Load an ARPA file as a scorer of a recogniser's tokens, on the CPU.

    Args:
        path: the file.
        token_list: the recogniser's tokens by number, <sos/eos> last.

    Raises:
        UserError: see :func:`mambaasr.lm.arpa.read_arpa`; or an n-gram stands twice in the file,
            or its first words are none.
    """
    return NGram(read_arpa(path, token_list), token_list)


class _LogProbs:
    """The part of an :class:`mambaasr.layers.output.OutputLayer` that a search asks for."""

    @staticmethod
    def log_probs(logits: Tensor) -> Tensor:
        """Return what :meth:`NGram.step` gives as it is: a softmax would change it."""
        return logits


class NGram(nn.Module, BatchScorerInterface):
    """Log-probabilities of tokens after texts, by explicit n-grams and back-off weights.

    A :class:`mambaasr.layers.stateful.StatefulScorer`; its state is a tensor of nodes (u, k).
    <sos/eos> that is read begins a text anew; as the next token it is the end of the text. The
    blank and other tokens that the model does not know are its <unk>; without one they have the
    log-probability :data:`FLOOR` and no context.

    Args:
        orders: the n-grams of order 1, 2, ...
        token_list: tokens by number, <sos/eos> last.

    Attributes:
        order: length of the longest n-grams.
        vocab_size: tokens of the list.
        output: says that the logits are log-probabilities. Those of all tokens need not sum to 1,
            as several may share the probability of <unk>.

    Raises:
        UserError: an n-gram stands twice, or its first words are none.
    """

    output = _LogProbs()
    keys: Tensor  # (n-gram) context node * vocab_size + token, sorted
    log_prob: Tensor  # (n-gram)
    first: Tensor  # (node) its first child among the n-grams
    count: Tensor  # (node) of its children; 0 for the root, whose children are all tokens
    suffix: Tensor  # (node) that of its text without the first word
    backoff: Tensor  # (node)
    reads: Tensor  # (token) what it is as part of a context
    unknown: Tensor  # tokens that the model does not know

    def __init__(self, orders: Sequence[Grams], token_list: Sequence[str]) -> None:
        super().__init__()
        self.order = len(orders)
        self.vocab_size = size = len(token_list)
        known = torch.from_numpy(orders[0].log_prob).isfinite()
        unk = token_list.index(UNK) if UNK in token_list else 0
        self.unk = unk if known[unk] else None
        self.register_buffer("unknown", (~known).nonzero().flatten())
        reads = torch.arange(size)
        if self.unk is not None:
            reads[:-1][~known[:-1]] = self.unk
        self.register_buffer("reads", reads)
        keys, log_prob = torch.empty(0, dtype=torch.long), torch.empty(0)
        suffix, backoff = torch.zeros(1, dtype=torch.long), torch.zeros(1)
        for n, grams in enumerate(orders, 1):
            words = torch.from_numpy(grams.words)
            parents = self._contexts(keys, grams, words)
            own, sort = (parents * size + words[:, -1]).sort()
            if len(twice := (own.diff() == 0).nonzero()):
                raise UserError(f"{grams.where(int(sort[twice[0] + 1]))}: the n-gram stands twice")
            keys = torch.cat([keys, own])
            log_prob = torch.cat([log_prob, _natural(grams.log_prob)[sort]])
            if n == self.order:
                break
            shorter = torch.zeros_like(own)
            if n > 1:  # those of single words are the root
                shorter = _descend(keys, suffix, suffix[parents[sort]], own % size, n - 1, size)
            suffix = torch.cat([suffix, shorter])
            backoff = torch.cat([backoff, _natural(grams.backoff)[sort]])
        nodes = torch.arange(len(suffix) + 1)
        first = torch.searchsorted(keys, nodes * size)
        count = first.diff()
        count[0] = 0
        self.register_buffer("keys", keys)
        self.register_buffer("log_prob", log_prob)
        self.register_buffer("first", first[:-1])
        self.register_buffer("count", count)
        self.register_buffer("suffix", suffix)
        self.register_buffer("backoff", backoff)
        missing = len(self.unknown) - 1
        if missing > 0:
            logging.info("%d of %d tokens are unknown to the n-gram model", missing, len(known))

    def _contexts(self, keys: Tensor, grams: Grams, words: Tensor) -> Tensor:
        """Return the node of each n-gram's first words."""
        nodes = torch.zeros(len(words), dtype=torch.long)
        for column in words[:, :-1].T:
            hit, index = _find(keys, nodes * self.vocab_size + column)
            if not hit.all():
                wrong = int((~hit).nonzero()[0])
                raise UserError(
                    f"{grams.where(wrong)}: an n-gram whose first words are none: no ARPA file"
                )
            nodes = index + 1
        return nodes

    def start(self, speech: Tensor | int, lengths: Tensor | None = None) -> Tensor:
        """Return the state before the first token (u, 1).

        Args:
            speech: the number of utterances u, or their speech (u, ...), which is not looked at.
            lengths: not looked at.
        """
        count = speech if isinstance(speech, int) else len(speech)
        return self.suffix.new_zeros(count, 1)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read one token of each hypothesis.

        Args:
            tokens: (u, k).
            state: (u, k).

        Returns:
            log-probabilities of the next token (u, k, vocab_size), and the next state.
        """
        nodes = self._read(state.flatten(), tokens.flatten())
        return self._log_probs(nodes).unflatten(0, tokens.shape), nodes.view(tokens.shape)

    def reorder(
        self,
        state: Tensor,
        index: Tensor | None = None,
        utterances: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`mambaasr.layers.stateful.StatefulScorer.reorder`; needs no ``out``."""
        if utterances is not None:
            state = state[utterances]
        return state if index is None else state.gather(1, index)

    def join(self, states: Sequence[Tensor]) -> Tensor:
        """See :meth:`mambaasr.layers.stateful.StatefulScorer.join`.

        Raises:
            ValueError: the states have different numbers of hypotheses.
        """
        counts = sorted({state.shape[1] for state in states})
        if len(counts) > 1:
            raise ValueError(f"states of {counts} hypotheses cannot be joined; make them equal")
        return torch.cat(list(states))

    def batch_score(
        self, ys: Tensor, states: Sequence[Any], xs: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Score the next token for ESPnet's searches, which need no state: the last tokens say all.

        Args:
            ys: whole prefixes (hypothesis, length).
            states: anything.
            xs: not looked at.

        Returns:
            log-probabilities (hypothesis, vocab_size), and the states.
        """
        nodes = ys.new_zeros(len(ys))
        for tokens in ys[:, max(0, ys.shape[1] - self.order + 1) :].T:
            nodes = self._read(nodes, tokens)
        return self._log_probs(nodes), list(states)

    def score(self, y: Tensor, state: Any, x: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score the next token of one hypothesis: y (length)."""
        scores, states = self.batch_score(y.unsqueeze(0), [state])
        return scores[0], states[0]

    def _read(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """Return the nodes (r) after tokens (r)."""
        if self.order == 1:
            return torch.zeros_like(nodes)
        size = self.vocab_size
        nodes = _descend(self.keys, self.suffix, nodes, self.reads[tokens], self.order, size)
        return nodes.masked_fill(tokens == size - 1, size)  # the node of <s>

    def _log_probs(self, nodes: Tensor) -> Tensor:
        """Return what follows contexts: nodes (r) -> (r, vocab_size).

        The log-probability of a token is that of the longest n-gram there is, and the back-off
        weights of the longer contexts: beginning with single tokens, each longer context overwrites
        the tokens that follow it.
        """
        weight = self.backoff.new_zeros(len(nodes))
        contexts = []
        for _ in range(self.order - 1):
            contexts.append((nodes, weight))
            weight = weight + self.backoff[nodes]
            nodes = self.suffix[nodes]
        scores = self.log_prob[: self.vocab_size] + weight[:, None]
        scores = scores.flatten()
        every = torch.arange(len(nodes), device=nodes.device)
        for context, weight in reversed(contexts):
            count = self.count[context]
            row = every.repeat_interleave(count)
            shift = self.first[context] - (count.cumsum(0) - count)
            entry = torch.arange(len(row), device=row.device) + shift.index_select(0, row)
            # A key is its context's number times vocab_size, and the token.
            shift = (every - context) * self.vocab_size
            place = self.keys.index_select(0, entry) + shift.index_select(0, row)
            explicit = self.log_prob.index_select(0, entry) + weight.index_select(0, row)
            scores.scatter_(0, place, explicit)
        scores = scores.view(-1, self.vocab_size)
        scores[:, self.unknown] = FLOOR if self.unk is None else scores[:, [self.unk]]
        return scores


def _natural(values: Any) -> Tensor:
    """Return natural logarithms of such of base 10, none of them infinite."""
    return (torch.from_numpy(values) * math.log(10)).clamp(min=FLOOR).float()


def _find(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether keys are there, and where."""
    index = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return keys[index] == wanted, index


def _descend(
    keys: Tensor, suffix: Tensor, nodes: Tensor, words: Tensor, depth: int, vocab_size: int
) -> Tensor:
    """Return the nodes of the longest known ends of contexts with one more word.

    Args:
        keys: of the trie.
        suffix: for each node that of its text without its first word.
        nodes: (r) contexts.
        words: (r)
        depth: of words, from those of the longest context to none.
        vocab_size: of the keys.
    """
    keys = keys[: len(suffix) - 1]  # the longest n-grams are no contexts
    found = torch.zeros_like(nodes)
    for _ in range(depth):
        hit, index = _find(keys, nodes * vocab_size + words)
        found = torch.where((found == 0) & hit, index + 1, found)
        nodes = suffix[nodes]
    return found
