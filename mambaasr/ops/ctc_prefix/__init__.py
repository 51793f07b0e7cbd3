"""CTC prefix scores (Watanabe et al., 2017, "Hybrid CTC/attention architecture", algorithm 2).

The score of a candidate needs only the forward variables of the prefix that it follows. So a step
of a search is :func:`scores`, for all candidates, and :func:`advance`, for those that were chosen.
Shapes: u utterances, k hypotheses, s candidates, v tokens.
"""

import torch
from torch import Tensor

from mambaasr.ops.ctc_prefix import cpu, naive, triton
from mambaasr.ops.ctc_prefix.state import LOG_ZERO, TILE, Frames, Prefixes, prepare, start
from mambaasr.ops.dispatch import check_shape, choose

__all__ = ["LOG_ZERO", "Frames", "Prefixes", "advance", "best", "end", "prepare", "scores", "start"]

IMPLEMENTATIONS = {"cpu": cpu, "triton": triton, "naive": naive}


def _fit(op, frames, prefixes):
    """Return prefixes with the time of the frames, after checking that they belong together."""
    x, forward, last = frames.log_probs, prefixes.forward, prefixes.last
    batch, _, time = x.shape
    if time % TILE:
        raise ValueError(f"{op}: frames are not made by prepare(): their time is {time}")
    if last.dim() != 2 or len(last) != batch:
        raise ValueError(
            f"{op}: prefixes of {len(last)} utterances, frames of {batch}; select both alike"
        )
    if (forward.dtype, forward.device) != (x.dtype, x.device):
        raise ValueError(f"{op}: prefixes and frames differ in dtype or device")
    if forward.shape == (*last.shape, 2, time) and forward.is_contiguous():
        return prefixes
    check_shape(op, "prefixes.forward", forward, (*last.shape, 2, None))
    if forward.shape[3] < time:
        raise ValueError(f"{op}: prefixes reach over {forward.shape[3]} frames of {time}")
    return Prefixes(forward[..., :time].contiguous(), prefixes.shift, last)


def _index(op, name, index, shape, device):
    """Return ``index`` as contiguous int64. Backends check its range, see state.check_range."""
    check_shape(op, name, index, shape)
    if index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{op}: {name} has dtype {index.dtype}, expected int64")
    if index.device != device:
        raise ValueError(f"{op}: {name} is on {index.device}, expected {device}")
    return index.to(torch.int64).contiguous()


def scores(
    frames: Frames,
    prefixes: Prefixes,
    candidates: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Score each prefix with one token more: log p(the text begins with it | speech).

    Args:
        frames: of u utterances.
        prefixes: k of each.
        candidates: (u, k, s) int64 tokens; None: all v.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        (u, k, s) float64, log psi of algorithm 2, of the whole prefix, not of the token alone.
        LOG_ZERO for the blank, and where no path is left.

    Raises:
        ValueError: an argument's shape or value does not fit; the message names it.
        RuntimeError: the named backend cannot run here.
    """
    op = "ctc_prefix.scores"
    prefixes = _fit(op, frames, prefixes)
    x = frames.log_probs
    if candidates is not None:
        shape = (*prefixes.last.shape, None)
        candidates = _index(op, "candidates", candidates, shape, x.device)
    implementation = choose(op, x, IMPLEMENTATIONS, backend)
    return implementation.scores(frames, prefixes, candidates)


def best(
    frames: Frames, prefixes: Prefixes, count: int, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """Find the best candidates of each prefix among all tokens, as :func:`scores` scores them.

    With thousands of tokens this takes a fraction of the time of scoring them all.

    Args:
        frames: of u utterances.
        prefixes: k of each.
        count: candidates of a prefix, s.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        scores (u, k, s) float64, the best first, and tokens (u, k, s). Where fewer have a path,
        LOG_ZERO and the blank follow.

    Raises:
        ValueError, RuntimeError: as :func:`scores`.
    """
    op = "ctc_prefix.best"
    prefixes, tokens = _fit(op, frames, prefixes), frames.log_probs.shape[1]
    if not 0 <= count <= tokens:
        raise ValueError(f"{op}: count is {count}, there are {tokens} tokens")
    implementation = choose(op, frames.log_probs, IMPLEMENTATIONS, backend)
    if hasattr(implementation, "best"):
        return implementation.best(frames, prefixes, count)
    values, found = implementation.scores(frames, prefixes, None).topk(count, dim=2)
    return values, found.masked_fill(values == LOG_ZERO, frames.blank_id)


def end(frames: Frames, prefixes: Prefixes, *, backend: str | None = None) -> Tensor:
    """Return log p(the text is just the prefix | speech): (u, k) float64.

    Raises:
        ValueError, RuntimeError: as :func:`scores`.
    """
    op = "ctc_prefix.end"
    prefixes = _fit(op, frames, prefixes)
    return choose(op, frames.log_probs, IMPLEMENTATIONS, backend).end(frames, prefixes)


def advance(
    frames: Frames,
    prefixes: Prefixes,
    parents: Tensor,
    tokens: Tensor,
    *,
    backend: str | None = None,
) -> Prefixes:
    """Append a token to prefixes.

    Args:
        frames: of u utterances.
        prefixes: k of each.
        parents: (u, k') int64, which of the k each new prefix continues.
        tokens: (u, k') int64; -1 and the blank make a dead prefix.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        k' prefixes of each utterance.

    Raises:
        ValueError, RuntimeError: as :func:`scores`.
    """
    op = "ctc_prefix.advance"
    prefixes = _fit(op, frames, prefixes)
    x = frames.log_probs
    parents = _index(op, "parents", parents, (len(x), None), x.device)
    tokens = _index(op, "tokens", tokens, parents.shape, x.device)
    implementation = choose(op, x, IMPLEMENTATIONS, backend)
    return implementation.advance(frames, prefixes, parents, tokens)
