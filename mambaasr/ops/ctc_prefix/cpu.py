"""CTC prefix scores by the compiled CPU kernel."""

import torch
from torch import Tensor

from mambaasr.ops.ctc_prefix.state import Frames, Prefixes, check_candidates, check_steps
from mambaasr.ops.native import call
from mambaasr.ops.native.call import pointer


def unavailable(tensor: Tensor) -> str | None:
    """Say why the kernel cannot run on ``tensor``, or None where it can."""
    if tensor.dtype == torch.bfloat16:
        return "it takes float32, as prepare() makes it"
    return call.unavailable(tensor)


def _scores(function, threads, frames, prefixes, candidates, count, out, *more):
    batch, tokens, time = frames.log_probs.shape
    # Tasks enough for the threads where all tokens are candidates.
    slices = -(-2 * threads // max(batch, 1)) if threads > 1 else 1
    call.call(
        function,
        *(threads, batch, prefixes.last.shape[1], tokens, time, frames.blank_id),
        *(pointer(frames.lengths), pointer(frames.log_probs), pointer(frames.base)),
        *(pointer(prefixes.forward), pointer(prefixes.shift), pointer(prefixes.last)),
        *(pointer(candidates), count, slices, pointer(out), *map(pointer, more)),
    )
    return out


def scores(frames: Frames, prefixes: Prefixes, candidates: Tensor | None) -> Tensor:
    """See :func:`mambaasr.ops.ctc_prefix.scores`; arguments are checked there."""
    (batch, hypotheses), (_, tokens, time) = prefixes.last.shape, frames.log_probs.shape
    count = tokens if candidates is None else candidates.shape[2]
    out = torch.empty(batch, hypotheses, count, dtype=torch.float64)
    if out.numel():
        threads = call.threads(out.numel() * time)
        try:
            _scores("ctc_scores", threads, frames, prefixes, candidates, count, out)
        except IndexError:
            if candidates is not None:
                check_candidates(frames, candidates)
            raise
    return out


def best(frames: Frames, prefixes: Prefixes, count: int) -> tuple[Tensor, Tensor]:
    """See :func:`mambaasr.ops.ctc_prefix.best`; arguments are checked there."""
    peaks = frames.find_peaks()
    out = torch.empty(*prefixes.last.shape, count, dtype=torch.float64)
    tokens = torch.empty_like(out, dtype=torch.int64)
    if out.numel():
        threads = call.threads(prefixes.last.numel() * peaks[0].numel())
        _scores("ctc_best", threads, frames, prefixes, None, count, out, peaks, tokens)
    return out, tokens


def end(frames: Frames, prefixes: Prefixes) -> Tensor:
    """See :func:`mambaasr.ops.ctc_prefix.end`; arguments are checked there."""
    out = torch.empty(prefixes.last.shape, dtype=torch.float64)
    return _scores("ctc_end", 1, frames, prefixes, None, 0, out)


def advance(frames: Frames, prefixes: Prefixes, parents: Tensor, tokens: Tensor) -> Prefixes:
    """See :func:`mambaasr.ops.ctc_prefix.advance`; arguments are checked there."""
    (batch, rows), (_, labels, time) = tokens.shape, frames.log_probs.shape
    forward = torch.empty(batch, rows, 2, time)
    shift, last = torch.empty(batch, rows, dtype=torch.float64), torch.empty_like(tokens)
    try:
        call.call(
            "ctc_advance",
            *(call.threads(batch * rows * time), batch, prefixes.last.shape[1], rows, labels),
            *(time, frames.blank_id, pointer(frames.lengths), pointer(frames.log_probs)),
            *(pointer(prefixes.forward), pointer(prefixes.shift), pointer(prefixes.last)),
            *(pointer(parents), pointer(tokens), pointer(forward), pointer(shift), pointer(last)),
        )
    except IndexError:
        check_steps(frames, prefixes, parents, tokens)
        raise
    return Prefixes(forward, shift, last)
