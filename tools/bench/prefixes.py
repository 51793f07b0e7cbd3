"""CTC prefix scores: a step of a search, and its two halves."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench import peers
from bench.compare import Family, Shape
from mambaasr.ops import ctc_prefix

AXES = "(utterances, hypotheses, frames, tokens, candidates; 0: all tokens)"
LABELS = 5  # of the prefixes

Run = Callable[[], list[Tensor]]


class Case:
    """Outputs that are mostly blank, prefixes of a few labels, and what a search asks for next."""

    def __init__(self, shape: Shape) -> None:
        utterances, hypotheses, time, tokens, candidates = shape
        draw = torch.Generator().manual_seed(0)
        x = 3 * torch.randn(utterances, time, tokens, generator=draw)
        x[..., 0] += 8.0
        self.log_probs = x.log_softmax(2)
        self.tokens = tokens

        def some(*sizes):
            return torch.randint(1, tokens - 1, (utterances, *sizes), generator=draw)

        self.labels = [some(hypotheses) for _ in range(LABELS)]
        self.candidates = some(hypotheses, candidates) if candidates else None
        self.parents = torch.randint(hypotheses, (utterances, hypotheses), generator=draw)
        chosen = self.candidates if candidates else some(hypotheses, 1)
        self.chosen = chosen[torch.arange(utterances)[:, None], self.parents, 0]

    def prefixes(self) -> tuple[ctc_prefix.Frames, ctc_prefix.Prefixes]:
        """Prepare ours."""
        frames = ctc_prefix.prepare(self.log_probs)
        prefixes, stay = ctc_prefix.start(frames), torch.zeros_like(self.parents)
        for label in self.labels:
            prefixes = ctc_prefix.advance(frames, prefixes, stay, label)
            stay = torch.arange(label.shape[1]).expand_as(label)
        return frames, prefixes


def our_step(what: str, backend: str, shape: Shape, backward: bool) -> Run:
    """Make a case of "scores", "advance" or "both"."""
    case = Case(shape)
    frames, prefixes = case.prefixes()

    def run():
        out = []
        if what != "advance":
            scores = ctc_prefix.scores(frames, prefixes, case.candidates, backend=backend)
            out.append(scores.clamp(min=ctc_prefix.LOG_ZERO / 2).float())
        if what == "both":
            ctc_prefix.end(frames, prefixes, backend=backend)
        if what != "scores":
            new = ctc_prefix.advance(frames, prefixes, case.parents, case.chosen, backend=backend)
            out += [] if what == "both" else [new.forward]
        return out

    return run


def logaddexp(what: str, shape: Shape, backward: bool) -> Run:
    """Make a case of one ``logaddexp`` on as many numbers; it computes something else."""
    utterances, hypotheses, time, tokens, candidates = shape
    count = utterances * hypotheses * (1 if what == "advance" else candidates or tokens)
    x, y = torch.randn(count, time), torch.randn(count, time)

    def run():
        torch.logaddexp(x, y)
        return []

    return run


def espnet_step(shape: Shape, backward: bool) -> Run:
    """Make a case of ESPnet's exact prefix scores (no window)."""
    module = peers.load("espnet2.legacy.nets.ctc_prefix_score")
    case = Case(shape)
    (utterances, time, tokens), hypotheses = case.log_probs.shape, shape[1]
    eos, scorer_lengths = tokens - 1, [time] * utterances
    scorer = module.CTCPrefixScoreTH(case.log_probs.clone(), scorer_lengths, 0, eos, 0)
    texts, state = torch.full((utterances * hypotheses, 1), eos), None
    stay = torch.arange(hypotheses).expand(utterances, hypotheses)
    for label in case.labels:
        _, state = scorer(texts, state, label.reshape(-1, 1))
        state = scorer.index_select_state(state, stay * tokens + label)
        texts = torch.cat([texts, label.reshape(-1, 1)], 1)
    given = None if case.candidates is None else case.candidates.flatten(0, 1)

    def run():
        _, new = scorer(texts, state, given)
        scorer.index_select_state(new, case.parents * tokens + case.chosen)
        out = new[1].view(utterances, hypotheses, tokens)
        if case.candidates is not None:
            return [out.gather(2, case.candidates).clamp(min=ctc_prefix.LOG_ZERO / 2)]
        out = out.clone()
        # Where it has the end of the text.
        out[..., eos] = our_step("scores", "cpu", shape, False)()[0][..., eos]
        return [out.clamp(min=ctc_prefix.LOG_ZERO / 2)]

    return run


def family(what: str, title: str, sides: dict, shapes: tuple[Shape, ...]) -> Family:
    """Make a family whose first side is ours."""
    ours = {"mambaasr cpu": partial(our_step, what, "cpu")}
    return Family(f"{title}, {AXES}", ours | sides, shapes, (1, 2, 20, 8, 3), modes=(False,))


SHORT, LONG, BATCH, HOUR = (
    (1, 10, 70, 30, 15),
    (1, 10, 775, 30, 15),
    (16, 10, 775, 30, 15),
    (1, 10, 90_000, 30, 15),
)
PIECES, WHOLE = (1, 10, 775, 5000, 15), (1, 10, 775, 5000, 0)
FAMILIES = {
    f"ctc {what}": family(
        what,
        f"CTC prefixes, {what} beside one logaddexp on as many numbers",
        {"torch logaddexp": partial(logaddexp, what)},
        shapes,
    )
    for what, shapes in (
        ("advance", (SHORT, LONG, BATCH, HOUR)),
        ("scores", (SHORT, LONG, BATCH, WHOLE, HOUR)),
    )
} | {
    "ctc step": family(
        "both",
        "A step of CTC prefix scores",
        {
            "mambaasr naive": partial(our_step, "both", "naive"),
            "ESPnet CTCPrefixScoreTH": espnet_step,
        },
        (SHORT, LONG, BATCH, PIECES, WHOLE),
    )
}
