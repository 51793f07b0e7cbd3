"""The kernels and everything in plain torch that computes the same on a CPU."""

import functools
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench import peers
from bench.compare import Case, Family, Shape
from mambaasr.layers.mamba import Mamba
from mambaasr.ops import causal_conv1d_fn, mamba_chunk_scan_combined, selective_scan_fn

CONV_WIDTH, SSD_CHUNK = 4, 64


@functools.lru_cache(maxsize=1)
def scan_inputs(shape: Shape) -> dict[str, torch.Tensor]:
    """Inputs as an initialised Mamba would meet them, in (batch, channel, time)."""
    batch, time, channels, states = shape
    generator = torch.Generator().manual_seed(0)
    randn = functools.partial(torch.randn, generator=generator)
    # log of 0.001 to 0.1
    step = torch.exp(torch.rand(channels, generator=generator) * 4.6 - 6.9)
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


def time_major(x: torch.Tensor) -> torch.Tensor:
    """Return a copy of x (batch, channel, time) with time before channels in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def scan_case(function: Callable, shape: Shape, by_time: bool = True) -> Case:
    """Make a case of a function with mamba_ssm's signature."""
    given = {
        name: (time_major(x) if by_time and x.dim() == 3 else x.clone()).requires_grad_()
        for name, x in scan_inputs(shape).items()
    }
    return Case(lambda: function(**given, delta_softplus=True), list(given.values()))


def our_scan(backend: str) -> Callable:
    """Our op with a backend."""
    return functools.partial(selective_scan_fn, backend=backend)


def unbound_loop(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """The reference's loop with ``unbind`` in the place of indexing, time first in memory."""
    u, z, B, C = (x.permute(2, 0, 1) for x in (u, z, B, C))
    delta = F.softplus((delta.permute(2, 0, 1) + delta_bias).contiguous())
    decay = torch.exp(delta.unsqueeze(-1) * A)  # (t, b, d, n)
    drive = (delta * u).unsqueeze(-1) * B.unsqueeze(2)
    h = torch.zeros_like(decay[0])
    out = []
    for a, b, c in zip(decay.unbind(0), drive.unbind(0), C.unbind(0), strict=True):
        h = torch.addcmul(b, a, h)
        out.append(torch.matmul(h, c.unsqueeze(-1)).squeeze(-1))
    return ((torch.stack(out) + D * u) * F.silu(z)).permute(1, 2, 0)


def mambapy_scan(shape: Shape) -> Case:
    """mambapy's parallel scan, with around it what its mixer has."""
    pscan = peers.load("mambapy.pscan").pscan

    def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
        u, delta, z, B, C = (x.transpose(1, 2) for x in (u, delta, z, B, C))
        delta = F.softplus(delta + delta_bias)
        decay = torch.exp(delta.unsqueeze(-1) * A)  # (b, t, d, n)
        drive = (delta.unsqueeze(-1) * B.unsqueeze(2)) * u.unsqueeze(-1)
        y = (pscan(decay, drive) @ C.unsqueeze(-1)).squeeze(3) + D * u
        return (y * F.silu(z)).transpose(1, 2)

    return scan_case(scan, shape)


def transformers_scan(shape: Shape) -> Case:
    """The scan of transformers in plain torch."""
    scan = peers.load("transformers.models.mamba.modeling_mamba").mamba_selective_scan
    return scan_case(
        lambda u, delta, A, B, C, **rest: scan(u, delta, A, B, C, **rest), shape, False
    )


def on_threads(threads: int, shape: Shape) -> Case:
    """Our scan with so many threads."""
    case = SCAN_OURS(shape)

    def forward() -> torch.Tensor:
        torch.set_num_threads(threads)
        return case.forward()

    return Case(forward, case.leaves)


def mixer_case(make: Callable[[], torch.nn.Module], shape: Shape) -> Case:
    """Make a case of a mixer with our weights; gradients of the input and of every weight."""
    batch, time, channels, states = shape
    torch.manual_seed(0)
    state = Mamba(channels // 2, d_state=states).state_dict()
    hidden = torch.randn(batch, time, channels // 2, requires_grad=True)
    mixer = make()
    mixer.load_state_dict(state)
    named = dict(mixer.named_parameters())
    return Case(lambda: mixer(hidden), [hidden, *(named[name] for name in sorted(named))])


def our_mixer(shape: Shape) -> Case:
    """Our mixer."""
    return mixer_case(lambda: Mamba(shape[2] // 2, d_state=shape[3]), shape)


def transformers_mixer(shape: Shape, use_mambapy: bool) -> Case:
    """The mixer of transformers: its loop, or mambapy's scan in its place."""
    if use_mambapy:
        peers.load("mambapy.pscan")
    module = peers.load("transformers.models.mamba.modeling_mamba")
    config = module.MambaConfig(
        hidden_size=shape[2] // 2,
        state_size=shape[3],
        num_hidden_layers=1,
        use_mambapy=use_mambapy,
    )
    return mixer_case(lambda: module.MambaMixer(config, layer_idx=0), shape)


def conv_case(function: Callable, shape: Shape, by_time: bool = True) -> Case:
    """Make a case of function(x, weight, bias)."""
    batch, time, channels = shape
    randn = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    x = randn(batch, channels, time)
    leaves = [time_major(x) if by_time else x, randn(channels, CONV_WIDTH), randn(channels)]
    leaves = [tensor.requires_grad_() for tensor in leaves]
    return Case(lambda: function(*leaves), leaves)


def our_conv(x, weight, bias):
    """Our op."""
    return causal_conv1d_fn(x, weight, bias, activation="silu", backend="cpu")


def torch_conv(x, weight, bias):
    """torch's convolution with one group a channel, as every Mamba in plain torch has it."""
    padded = F.conv1d(x, weight.unsqueeze(1), bias, padding=CONV_WIDTH - 1, groups=x.shape[1])
    return F.silu(padded[..., : x.shape[2]])


def ssd_case(function: Callable, shape: Shape) -> Case:
    """Make a case of function(x, dt, A, B, C); dt is the step size itself."""
    batch, time, heads, channels, states = shape
    randn = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
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
    return mamba_chunk_scan_combined(x, dt, A, B, C, SSD_CHUNK)


def as_selective_scan(x, dt, A, B, C):
    """Our selective scan on the same recurrence: a head's dt and A for each of its channels."""
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


SCAN_SHAPES = (
    (1, 375, 512, 16),
    (8, 500, 512, 16),
    (16, 400, 1024, 16),
    (1, 15000, 512, 16),
    (4, 400, 1024, 256),
)
SCAN_AXES = "(batch, frames, channels, states)"
SCAN_OURS = functools.partial(scan_case, our_scan("cpu"))
FAMILIES = {
    "scan": Family(
        f"Selective scan, {SCAN_AXES}",
        {
            "mambaasr cpu": SCAN_OURS,
            "mambaasr naive": lambda shape: scan_case(our_scan("naive"), shape),
            "reference loop, unbind": lambda shape: scan_case(unbound_loop, shape),
            "mambapy pscan": mambapy_scan,
            "transformers slow path": transformers_scan,
            "mamba_ssm selective_scan_ref": lambda shape: scan_case(
                peers.selective_scan_ref(), shape, False
            ),
        },
        SCAN_SHAPES,
        (2, 20, 32, 8),
        dict(zip(SCAN_SHAPES, ((25, 15), (40, 25), (40, 25), (40, 25), (20, 10)), strict=True)),
    ),
    "scaling": Family(
        f"Selective scan over length and threads, {SCAN_AXES}",
        {
            "all threads": lambda shape: on_threads(int(os.environ["OMP_NUM_THREADS"]), shape),
            "1 thread": lambda shape: on_threads(1, shape),
        },
        # 15 s to 10 minutes, then an hour, at 25 frames a second
        tuple((1, length, 512, 16) for length in (375, 750, 1500, 3750, 7500, 15000, 90000)),
        (2, 20, 32, 8),
    ),
    "mixer": Family(
        f"Whole Mamba mixer, {SCAN_AXES}, same weights",
        {
            "mambaasr Mamba": our_mixer,
            "transformers MambaMixer, its loop": lambda shape: transformers_mixer(shape, False),
            "transformers MambaMixer, mambapy": lambda shape: transformers_mixer(shape, True),
        },
        SCAN_SHAPES,
        (2, 20, 32, 8),
    ),
    "conv": Family(
        f"Causal depthwise convolution, width {CONV_WIDTH}, (batch, frames, channels)",
        {
            "mambaasr cpu": lambda shape: conv_case(our_conv, shape),
            "torch conv1d + silu": lambda shape: conv_case(torch_conv, shape, False),
            "torch conv1d + silu, time major": lambda shape: conv_case(torch_conv, shape),
        },
        ((1, 375, 512), (8, 500, 512), (16, 400, 1024), (1, 15000, 512)),
        (2, 20, 32),
    ),
    "ssd": Family(
        "Mamba-2 (SSD), (batch, frames, heads, channels a head, states)",
        {
            "mambaasr ssd": lambda shape: ssd_case(chunked, shape),
            "mambaasr selective_scan": lambda shape: ssd_case(as_selective_scan, shape),
            "recurrence in torch": lambda shape: ssd_case(recurrence, shape),
        },
        ((1, 375, 8, 64, 64), (8, 500, 8, 64, 64), (1, 15000, 8, 64, 64), (4, 400, 16, 64, 128)),
        (2, 20, 2, 8, 16),
    ),
}
