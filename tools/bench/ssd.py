"""Mamba-2's chunked matrix form against scans that compute the same."""

import torch

from bench import peers
from bench.compare import Case

CHUNK = 64
# (batch, time, heads, channels a head, d_state)
SHAPES = ((1, 375, 8, 64, 64), (8, 500, 8, 64, 64), (1, 15000, 8, 64, 64), (4, 400, 16, 64, 128))


def describe(shape):
    """Name a shape."""
    return f"({', '.join(map(str, shape))})"


def work(shape):
    """What a run costs, up to a factor."""
    batch, time, heads, channels, states = shape
    return (batch * time * heads * channels * states,)


def warm_up(shape):
    """A shape for a first call."""
    return (1, 8, 2, 8, shape[4])


def ssd_case(function, shape):
    """Make a case of function(x, dt, A, B, C); dt is the step size itself."""
    batch, time, heads, channels, states = shape
    generator = torch.Generator().manual_seed(0)

    def randn(*size):
        return torch.randn(*size, generator=generator)

    leaves = [
        randn(batch, time, heads, channels),
        0.05 + 0.02 * torch.tanh(randn(batch, time, heads)),
        -torch.exp(randn(heads)),
        randn(batch, time, 1, states),
        randn(batch, time, 1, states),
    ]
    leaves = [tensor.requires_grad_() for tensor in leaves]
    return Case(lambda: function(*leaves), leaves)


def chunked(x, dt, A, B, C):
    """Our op."""
    try:
        from mambaasr.ops import mamba_chunk_scan_combined
    except ImportError as error:
        raise peers.Missing(f"mambaasr: {error}") from error
    return mamba_chunk_scan_combined(x, dt, A, B, C, CHUNK)


def as_selective_scan(x, dt, A, B, C):
    """Our selective scan on the same recurrence: a head's dt and A for each of its channels."""
    from mambaasr.ops import selective_scan_fn

    channels, states = x.shape[3], B.shape[3]
    u = x.flatten(2).transpose(1, 2)
    delta = dt.repeat_interleave(channels, dim=2).transpose(1, 2)
    A = A.repeat_interleave(channels)[:, None].expand(-1, states)
    B, C = (m.squeeze(2).transpose(1, 2) for m in (B, C))
    y = selective_scan_fn(u, delta, A, B, C, backend="cpu")
    return y.transpose(1, 2).unflatten(2, x.shape[2:])


def recurrence(x, dt, A, B, C):
    """The recurrence frame by frame, in plain torch."""
    decay = torch.exp(dt * A)  # (b, t, h)
    drive = (dt.unsqueeze(-1) * x).unsqueeze(-1) * B.unsqueeze(3)  # (b, t, h, p, n)
    state = torch.zeros_like(drive[:, 0])
    out = []
    for a, b, c in zip(decay.unbind(1), drive.unbind(1), C.unbind(1), strict=True):
        state = torch.addcmul(b, a[..., None, None], state)
        out.append(torch.matmul(state, c.unsqueeze(-1)).squeeze(-1))
    return torch.stack(out, dim=1)


SIDES = {
    "mambaasr ssd": lambda shape: ssd_case(chunked, shape),
    "mambaasr selective_scan": lambda shape: ssd_case(as_selective_scan, shape),
    "recurrence in torch": lambda shape: ssd_case(recurrence, shape),
}
