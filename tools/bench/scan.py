"""The selective scan: ours, and everything in plain torch that computes it on a CPU."""

import functools

import torch
import torch.nn.functional as F

from bench import peers
from bench.compare import Case

SHAPES = (
    (1, 375, 512, 16),
    (8, 500, 512, 16),
    (16, 400, 1024, 16),
    (1, 15000, 512, 16),
    (4, 400, 1024, 256),
)
# (forward, forward + backward) times faster than the best peer
TARGETS = dict(zip(SHAPES, ((25, 15), (40, 25), (40, 25), (40, 25), (20, 10)), strict=True))


def describe(shape):
    """Name a shape."""
    return f"({', '.join(map(str, shape))})"


def work(shape):
    """What linear and quadratic forms cost, up to a factor."""
    batch, time, channels, states = shape
    return batch * time * channels * states, batch * time * time * channels * states


def warm_up(shape):
    """A shape for a first call."""
    return (1, 8, 16, shape[3])


@functools.lru_cache(maxsize=1)
def inputs(shape):
    """Inputs as an initialised Mamba would meet them, in (batch, channel, time)."""
    batch, time, channels, states = shape
    generator = torch.Generator().manual_seed(0)

    def randn(*size):
        return torch.randn(*size, generator=generator)

    step = torch.rand(channels, generator=generator) * 4.6 - 6.9  # log of 0.001 to 0.1
    step = torch.exp(step)
    numbers = torch.arange(1, states + 1, dtype=torch.float32).log()
    return {
        "u": randn(batch, channels, time),
        "delta": 0.5 * randn(batch, channels, time),
        # S4D-real, moved a little as training does
        "A": -torch.exp(numbers + 0.05 * randn(channels, states)),
        "B": randn(batch, states, time),
        "C": randn(batch, states, time),
        "D": randn(channels),
        "z": randn(batch, channels, time),
        "delta_bias": step + torch.log(-torch.expm1(-step)),
    }


def leaves(shape, time_major):
    """Copies of the inputs that take gradients, with the axes in memory as a side likes them."""
    made = {}
    for name, tensor in inputs(shape).items():
        if time_major and tensor.dim() == 3:
            tensor = tensor.transpose(1, 2).contiguous().transpose(1, 2)
        else:
            tensor = tensor.clone()
        made[name] = tensor.requires_grad_()
    return made


def scan_case(function, time_major, shape):
    """Make a case of a function with mamba_ssm's signature."""
    given = leaves(shape, time_major)
    return Case(lambda: function(**given, delta_softplus=True), list(given.values()))


def ours(backend):
    """Our op with a backend."""
    from mambaasr.ops import selective_scan_fn

    return functools.partial(selective_scan_fn, backend=backend)


def unbound_loop(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """The reference's loop with ``unbind`` in the place of indexing, time first in memory."""
    u, z = (x.permute(2, 0, 1) for x in (u, z))
    B, C = (x.permute(2, 0, 1) for x in (B, C))
    delta = (delta.permute(2, 0, 1) + delta_bias).contiguous()
    delta = F.softplus(delta) if delta_softplus else delta
    decay = torch.exp(delta.unsqueeze(-1) * A)  # (t, b, d, n)
    drive = (delta * u).unsqueeze(-1) * B.unsqueeze(2)
    h = torch.zeros_like(decay[0])
    out = []
    for a, b, c in zip(decay.unbind(0), drive.unbind(0), C.unbind(0), strict=True):
        h = torch.addcmul(b, a, h)
        out.append(torch.matmul(h, c.unsqueeze(-1)).squeeze(-1))
    return ((torch.stack(out) + D * u) * F.silu(z)).permute(1, 2, 0)


def mambapy_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """mambapy's parallel scan, with around it what its mixer has."""
    pscan = peers.load("mambapy.pscan").pscan
    u, delta, z, B, C = (x.transpose(1, 2) for x in (u, delta, z, B, C))
    delta = delta + delta_bias
    delta = F.softplus(delta) if delta_softplus else delta
    decay = torch.exp(delta.unsqueeze(-1) * A)  # (b, t, d, n)
    drive = (delta.unsqueeze(-1) * B.unsqueeze(2)) * u.unsqueeze(-1)
    y = (pscan(decay, drive) @ C.unsqueeze(-1)).squeeze(3) + D * u
    return (y * F.silu(z)).transpose(1, 2)


def _mambapy(shape):
    peers.load("mambapy.pscan")
    return scan_case(mambapy_scan, True, shape)


def _transformers(shape):
    scan = peers.load("transformers.models.mamba.modeling_mamba").mamba_selective_scan

    def function(u, delta, A, B, C, **rest):
        return scan(u, delta, A, B, C, **rest)

    return scan_case(function, False, shape)


SIDES = {
    "mambaasr cpu": lambda shape: scan_case(ours("cpu"), True, shape),
    "mambaasr naive": lambda shape: scan_case(ours("naive"), True, shape),
    "reference loop, unbind": lambda shape: scan_case(unbound_loop, True, shape),
    "mambapy pscan": _mambapy,
    "transformers slow path": _transformers,
    "mamba_ssm selective_scan_ref": lambda shape: scan_case(
        peers.selective_scan_ref(), False, shape
    ),
}
