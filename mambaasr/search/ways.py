"""The ways to search, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mambaasr.layers.stateful import StatefulScorer
from mambaasr.search.beam import BeamSearch, Options
from mambaasr.search.data import Encoded, Found
from mambaasr.search.greedy import ctc_greedy
from mambaasr.search.prefix import PrefixOptions, ctc_prefix_search
from mambaasr.search.rescore import rescore

# Decoder, CTC and language models token by token; the same without CTC; CTC's best path; CTC and
# language models frame by frame; what that finds, put in order by the decoder.
WAYS = ("joint", "attention", "ctc_greedy", "ctc_prefix", "rescore")


class AtOnce:
    """A search that finds all hypotheses of a batch in one call, with :class:`BeamSearch`'s face.

    Args:
        find: a function of a batch and its prompts that returns what it finds.
    """

    joins = True

    def __init__(self, find: Callable[[Encoded, Sequence[Sequence[int]]], list[Found]]) -> None:
        self._find = find

    def __len__(self) -> int:
        """Return how many utterances are in the search: none ever stays."""
        return 0

    def add(self, encoded: Encoded, prompts: Sequence[Sequence[int]] = ()) -> list[Found]:
        """Find the texts of utterances; see :meth:`BeamSearch.add`."""
        return self._find(encoded, list(prompts) or [()] * len(encoded.keys))

    def step(self) -> list[Found]:
        """Nothing is left to do."""
        return []


def start_search(
    way: str,
    scorers: Mapping[str, tuple[StatefulScorer[Any], float]],
    sos: int,
    eos: int,
    options: Options,
) -> BeamSearch | AtOnce:
    """Return a search without utterances.

    Args:
        way: one of :data:`WAYS`.
        scorers: name -> (scorer, weight); the one named "decoder" is left out where CTC goes first,
            and has the weight 1 where CTC is left out.
        sos, eos: ids.
        options: see :class:`Options`; CTC alone scores fully, whatever its weight.
    """
    if way == "joint":
        return BeamSearch(scorers, sos, eos, options)
    if way == "attention":
        alone = {name: (model, 1.0) for name, (model, _) in scorers.items() if name == "decoder"}
        return BeamSearch({**scorers, **alone}, sos, eos, replace(options, ctc_weight=0.0))
    if way == "ctc_greedy":
        return AtOnce(lambda encoded, prompts: _texts(ctc_greedy(encoded), prompts, eos))
    models = {name: pair for name, pair in scorers.items() if name != "decoder"}
    nbest = options.beam_size if way == "rescore" else options.nbest
    prefix = PrefixOptions(options.beam_size, penalty=options.penalty, nbest=nbest)

    def search(encoded: Encoded, prompts: Sequence[Sequence[int]]) -> list[Found]:
        found = ctc_prefix_search(encoded, models, sos, eos, prefix, prompts)
        if way == "ctc_prefix":
            return found
        return rescore(encoded, found, scorers, sos, eos, options, prompts)

    return AtOnce(search)


def _texts(found: list[Found], prompts: Sequence[Sequence[int]], eos: int) -> list[Found]:
    """Take <sos/eos> out of the texts of paths, and prompts off those that have them."""
    for each, prompt in zip(found, prompts, strict=True):
        for hypothesis in each.hypotheses:
            tokens = [token for token in hypothesis.tokens if token != eos]
            has = tokens[: len(prompt)] == list(prompt)
            hypothesis.tokens = tokens[len(prompt) :] if has else tokens
    return found
