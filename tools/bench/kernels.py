"""The kernels and everything in plain torch that computes the same on a CPU."""

import os
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from bench import peers
from bench.compare import Family, Shape, case
from mambaasr.layers.mamba import Mamba
from mambaasr.ops import causal_conv1d_fn, mamba_chunk_scan_combined, selective_scan_fn

CONV_WIDTH, SSD_CHUNK = 4, 64


def randn() -> Callable[..., torch.Tensor]:
    """Return torch.randn with a generator of its own, seeded."""
    return partial(torch.randn, generator=torch.Generator().manual_seed(0))


def kernel(
    inputs: Callable[[Shape], list[torch.Tensor]],
    function: Callable[..., torch.Tensor],
    shape: Shape,
    backward: bool,
    by_time: bool = True,
) -> Callable[[], list[torch.Tensor]]:
    """Make a case of ``function(*inputs(shape))``, with gradients of all inputs.

    Inputs of (batch, channel, time) have time before channels in memory if ``by_time``.
    """
    leaves = inputs(shape)
    if by_time:
        leaves = [x.mT.contiguous().mT if x.dim() == 3 else x for x in leaves]
    leaves = [x.requires_grad_() for x in leaves]
    return case(lambda: function(*leaves), leaves, backward)


def scan_inputs(shape: Shape) -> list[torch.Tensor]:
    """Draw u, delta, A, B, C, D, z, delta_bias as an initialised Mamba would meet them."""
    batch, time, channels, states = shape
    draw = randn()
    # log of 0.001 to 0.1
    step = torch.exp(torch.linspace(-6.9, -2.3, channels))
    numbers = torch.arange(1, states + 1, dtype=torch.float32).log()
    return [
        draw(batch, channels, time),
        0.5 * draw(batch, channels, time),
        # S4D-real, moved a little as training does
        -torch.exp(numbers + 0.05 * draw(channels, states)),
        draw(batch, states, time),
        draw(batch, states, time),
        draw(channels),
        draw(batch, channels, time),
        step + torch.log(-torch.expm1(-step)),
    ]


def our_scan(*inputs, backend="cpu"):
    """Our op with a backend."""
    return selective_scan_fn(*inputs, delta_softplus=True, backend=backend)


def our_scan_on(threads, *inputs):
    """Our op with so many threads, or all."""
    torch.set_num_threads(threads or int(os.environ["OMP_NUM_THREADS"]))
    return our_scan(*inputs)


def unbound_loop(u, delta, A, B, C, D, z, delta_bias):
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


def mambapy_scan(u, delta, A, B, C, D, z, delta_bias):
    """mambapy's parallel scan, with around it what its mixer has."""
    pscan = peers.load("mambapy.pscan").pscan
    u, delta, z, B, C = (x.transpose(1, 2) for x in (u, delta, z, B, C))
    delta = F.softplus(delta + delta_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A)  # (b, t, d, n)
    drive = (delta.unsqueeze(-1) * B.unsqueeze(2)) * u.unsqueeze(-1)
    y = (pscan(decay, drive) @ C.unsqueeze(-1)).squeeze(3) + D * u
    return (y * F.silu(z)).transpose(1, 2)


def transformers_scan(*inputs):
    """The scan of transformers in plain torch."""
    module = peers.load("transformers.models.mamba.modeling_mamba")
    return module.mamba_selective_scan(*inputs, delta_softplus=True)


def reference_scan(*inputs):
    """mamba_ssm's own reference."""
    return peers.selective_scan_ref()(*inputs, delta_softplus=True)


def our_mixer(channels: int, states: int) -> torch.nn.Module:
    """Our mixer."""
    return Mamba(channels // 2, d_state=states)


def transformers_mixer(channels: int, states: int, use_mambapy: bool) -> torch.nn.Module:
    """The mixer of transformers: its loop, or mambapy's scan in its place."""
    if use_mambapy:
        peers.load("mambapy.pscan")
    module = peers.load("transformers.models.mamba.modeling_mamba")
    config = module.MambaConfig(
        hidden_size=channels // 2,
        state_size=states,
        num_hidden_layers=1,
        use_mambapy=use_mambapy,
    )
    return module.MambaMixer(config, layer_idx=0)


def mixer(
    make: Callable[[int, int], torch.nn.Module], shape: Shape, backward: bool
) -> Callable[[], list[torch.Tensor]]:
    """Make a case of a mixer with our weights; gradients of the input and of every weight."""
    batch, time, channels, states = shape
    torch.manual_seed(0)
    state = our_mixer(channels, states).state_dict()
    hidden = torch.randn(batch, time, channels // 2, requires_grad=True)
    module = make(channels, states)
    module.load_state_dict(state)
    named = dict(module.named_parameters())
    return case(
        lambda: module(hidden), [hidden, *(named[name] for name in sorted(named))], backward
    )


def conv_inputs(shape: Shape) -> list[torch.Tensor]:
    """Draw x (batch, channel, time), weight and bias."""
    batch, time, channels = shape
    draw = randn()
    return [draw(batch, channels, time), draw(channels, CONV_WIDTH), draw(channels)]


def our_conv(x, weight, bias):
    """Our op."""
    return causal_conv1d_fn(x, weight, bias, activation="silu", backend="cpu")


def torch_conv(x, weight, bias):
    """torch's convolution with one group a channel, as every Mamba in plain torch has it."""
    padded = F.conv1d(x, weight.unsqueeze(1), bias, padding=CONV_WIDTH - 1, groups=x.shape[1])
    return F.silu(padded[..., : x.shape[2]])


def ssd_inputs(shape: Shape) -> list[torch.Tensor]:
    """Draw x, dt, A, B, C; dt is the step size itself."""
    batch, time, heads, channels, states = shape
    draw = randn()
    return [
        draw(batch, time, heads, channels),
        0.05 + 0.02 * torch.tanh(draw(batch, time, heads)),
        -torch.exp(draw(heads)),
        draw(batch, time, 1, states),
        draw(batch, time, 1, states),
    ]


def our_ssd(x, dt, A, B, C, backend="cpu"):
    """Our op with a backend."""
    return mamba_chunk_scan_combined(x, dt, A, B, C, SSD_CHUNK, backend=backend)


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
SCAN_QUICK = (2, 20, 32, 8)
SCAN = partial(partial, kernel, scan_inputs)
CONV = partial(partial, kernel, conv_inputs)
SSD = partial(partial, kernel, ssd_inputs, by_time=False)
FAMILIES = {
    "scan": Family(
        f"Selective scan, {SCAN_AXES}",
        {
            "mambaasr cpu": SCAN(our_scan),
            "mambaasr naive": SCAN(partial(our_scan, backend="naive")),
            "reference loop, unbind": SCAN(unbound_loop),
            "mambapy pscan": SCAN(mambapy_scan),
            "transformers slow path": SCAN(transformers_scan, by_time=False),
            "mamba_ssm selective_scan_ref": SCAN(reference_scan, by_time=False),
        },
        SCAN_SHAPES,
        SCAN_QUICK,
        dict(zip(SCAN_SHAPES, ((25, 15), (40, 25), (40, 25), (40, 25), (20, 10)), strict=True)),
    ),
    "mixer": Family(
        f"Whole Mamba mixer, {SCAN_AXES}, same weights",
        {
            "mambaasr Mamba": partial(mixer, our_mixer),
            "transformers MambaMixer, its loop": partial(
                mixer, partial(transformers_mixer, use_mambapy=False)
            ),
            "transformers MambaMixer, mambapy": partial(
                mixer, partial(transformers_mixer, use_mambapy=True)
            ),
        },
        SCAN_SHAPES,
        SCAN_QUICK,
    ),
    "scaling": Family(
        f"Selective scan over length and threads, {SCAN_AXES}",
        {
            "all threads": SCAN(partial(our_scan_on, None)),
            "1 thread": SCAN(partial(our_scan_on, 1)),
        },
        # 15 s to 10 minutes, then an hour, at 25 frames a second
        tuple((1, length, 512, 16) for length in (375, 750, 1500, 3750, 7500, 15000, 90000)),
        SCAN_QUICK,
    ),
    "conv": Family(
        f"Causal depthwise convolution, width {CONV_WIDTH}, (batch, frames, channels)",
        {
            "mambaasr cpu": CONV(our_conv),
            "torch conv1d + silu": CONV(torch_conv, by_time=False),
            "torch conv1d + silu, time major": CONV(torch_conv),
        },
        ((1, 375, 512), (8, 500, 512), (16, 400, 1024), (1, 15000, 512)),
        (2, 20, 32),
    ),
    "ssd": Family(
        "Mamba-2 (SSD), (batch, frames, heads, channels a head, states)",
        {
            "mambaasr cpu": SSD(our_ssd),
            "mambaasr torch": SSD(partial(our_ssd, backend="torch")),
            "mambaasr selective_scan": SSD(as_selective_scan),
            "recurrence in torch": SSD(recurrence),
        },
        ((1, 375, 8, 64, 64), (8, 500, 8, 64, 64), (4, 400, 16, 64, 128), (1, 15000, 8, 64, 64)),
        (2, 20, 2, 8, 16),
    ),
}
