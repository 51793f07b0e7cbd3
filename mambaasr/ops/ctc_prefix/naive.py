"""CTC prefix scores in plain torch, in float64: the truth for every other backend.

phi_c(t) are the paths over the frames 0..t after which label c may follow: all that give the
prefix, but only those that end in blank where c is its last label.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.ctc_prefix.state import (
    LOG_ZERO,
    Frames,
    Prefixes,
    check_candidates,
    check_steps,
)
from mambaasr.ops.lengths import valid_mask


def unavailable(tensor: Tensor) -> str | None:
    """Pure torch runs anywhere."""
    return None


def _dead(x):
    """Exactly LOG_ZERO where there is no path; sums and products of nothing come near it."""
    return x.masked_fill(x < LOG_ZERO / 2, LOG_ZERO)


def _phi(prefixes, tokens):
    """phi(t - 1) of each frame t before tokens (u, k, s): (u, k, s, time), without the shift."""
    n, b = prefixes.forward.double().unbind(2)  # (u, k, time)
    repeats = tokens == prefixes.last[..., None]
    phi = torch.where(repeats[..., None], b[:, :, None], torch.logaddexp(n, b)[:, :, None])
    first = torch.where(prefixes.last == -1, 0.0, LOG_ZERO)[..., None, None]
    return torch.cat([first.expand(*phi.shape[:3], 1), phi], dim=3)[..., : phi.shape[3]]


def _labels(frames, tokens):
    """The log-probabilities of tokens (u, k, s): (u, k, s, time)."""
    utterance = torch.arange(len(tokens), device=tokens.device)[:, None, None]
    return frames.log_probs[utterance, tokens].double()


def scores(frames: Frames, prefixes: Prefixes, candidates: Tensor | None) -> Tensor:
    """See :func:`mambaasr.ops.ctc_prefix.scores`; arguments are checked there."""
    if candidates is None:
        tokens = torch.arange(frames.log_probs.shape[1], device=frames.log_probs.device)
        candidates = tokens.expand(*prefixes.last.shape, -1)
    check_candidates(frames, candidates)
    time = frames.base.shape[1]
    paths = _phi(prefixes, candidates) + _labels(frames, candidates) + frames.base[:, None, None]
    paths = torch.where(valid_mask(frames.lengths, time)[:, None, None], paths, -torch.inf)
    out = _dead(paths.logsumexp(3) + prefixes.shift[..., None])
    return out.masked_fill(candidates == frames.blank_id, LOG_ZERO)


def end(frames: Frames, prefixes: Prefixes) -> Tensor:
    """See :func:`mambaasr.ops.ctc_prefix.end`; arguments are checked there."""
    out = torch.where(prefixes.last == -1, 0.0, LOG_ZERO)
    if frames.base.shape[1] == 0:
        return out.double()
    at = (frames.lengths - 1).clamp(min=0)
    final = prefixes.forward[torch.arange(len(at), device=at.device), ..., at].double()  # (u, k, 2)
    final = final.logsumexp(2) + frames.base.gather(1, at[:, None]) + prefixes.shift
    return torch.where((frames.lengths > 0)[:, None], _dead(final), out)


def advance(frames: Frames, prefixes: Prefixes, parents: Tensor, tokens: Tensor) -> Prefixes:
    """See :func:`mambaasr.ops.ctc_prefix.advance`; arguments are checked there."""
    check_steps(frames, prefixes, parents, tokens)
    prefixes = prefixes.reorder(parents)
    alive = (tokens >= 0) & (tokens != frames.blank_id)
    tokens = torch.where(alive, tokens, frames.blank_id)
    time = frames.base.shape[1]
    mask = valid_mask(frames.lengths, time)[:, None]
    x = _labels(frames, tokens[..., None]).squeeze(2)
    blank = frames.log_probs[:, None, frames.blank_id].double()
    # The most probable end of the parent becomes 0.
    best = F.pad(prefixes.forward.double().flatten(2), (0, 1), value=LOG_ZERO).amax(2)
    best = torch.where((prefixes.last == -1) | (best < LOG_ZERO / 2), 0.0, best)
    phi = _phi(prefixes, tokens[..., None]).squeeze(2) - best[..., None]
    n = b = torch.full_like(prefixes.shift, LOG_ZERO)
    out = prefixes.forward.new_full((*tokens.shape, 2, time), LOG_ZERO)
    for t in range(time):
        # Both from the frame before.
        n, b = torch.logaddexp(n, phi[..., t]) + x[..., t], torch.logaddexp(b, n) + blank[..., t]
        n, b = _dead(n), _dead(b)
        out[..., t] = torch.stack([n, b], dim=2)
    out = torch.where(mask[..., None, :] & alive[..., None, None], out, LOG_ZERO)
    shift = torch.where(alive, prefixes.shift + best, 0.0)
    return Prefixes(out, shift, tokens)
