"""CTC prefix scores by our own Triton kernels."""

import functools
import importlib

import torch
from torch import Tensor

from mambaasr.ops.ctc_prefix import naive
from mambaasr.ops.ctc_prefix.state import Frames, Prefixes
from mambaasr.ops.gpu import triton_unavailable

__all__ = ["advance", "end", "scores", "unavailable"]

unavailable = triton_unavailable

CANDIDATES, FRAMES = 16, 128  # of a tile of scores
ROWS = 8  # of a program of advance

end = naive.end  # a handful of numbers


@functools.cache
def _kernels():
    return importlib.import_module("mambaasr.ops.ctc_prefix.triton_kernels")


def scores(frames: Frames, prefixes: Prefixes, candidates: Tensor | None) -> Tensor:
    """See :func:`mambaasr.ops.ctc_prefix.scores`; tokens out of range are clamped."""
    x, (batch, hypotheses) = frames.log_probs, prefixes.last.shape
    _, tokens, time = x.shape
    count = tokens if candidates is None else candidates.shape[2]
    out = torch.empty(batch, hypotheses, count, dtype=torch.float64, device=x.device)
    if out.numel():
        with torch.cuda.device_of(x):
            _kernels().scores[(batch * hypotheses * -(-count // CANDIDATES),)](
                *(x, frames.base, frames.lengths, prefixes.forward, prefixes.shift, prefixes.last),
                *(candidates, out, hypotheses, tokens, count, time),
                BLANK=frames.blank_id,
                BS=CANDIDATES,
                BT=FRAMES,
            )
    return out


def advance(frames: Frames, prefixes: Prefixes, parents: Tensor, tokens: Tensor) -> Prefixes:
    """See :func:`mambaasr.ops.ctc_prefix.advance`; what is out of range is clamped."""
    x, (batch, rows) = frames.log_probs, tokens.shape
    _, labels, time = x.shape
    out = Prefixes(
        torch.empty(batch, rows, 2, time, device=x.device),
        torch.empty(batch, rows, dtype=torch.float64, device=x.device),
        torch.empty_like(tokens),
    )
    if tokens.numel():
        with torch.cuda.device_of(x):
            _kernels().advance[(-(-batch * rows // ROWS),)](
                *(x, frames.lengths, prefixes.forward, prefixes.shift, prefixes.last),
                *(parents, tokens, out.forward, out.shift, out.last),
                *(prefixes.last.shape[1], rows, labels, time, batch * rows),
                BLANK=frames.blank_id,
                BR=ROWS,
                BT=FRAMES,
                num_warps=1,
            )
    return out
