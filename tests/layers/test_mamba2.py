"""The Mamba-2 mixer: equations, padding, pieces, steps, initialisation, names."""

import loops
import pytest
import torch
import torch.nn.functional as F
from sequences import in_pieces, poisoned

from mambaasr.layers.mamba2 import GatedRMSNorm, Mamba2

LENGTHS = torch.tensor([70, 5, 9])
SMALL = dict(d_state=8, headdim=8)
VARIANTS = {
    "default": {},
    "no norm": dict(rmsnorm=False),
    "norm first": dict(norm_before_gate=True, ngroups=3, D_has_hdim=True),
    "partly": dict(d_ssm=32, bias=True, conv_bias=False, dt_limit=(0.005, 0.02), ngroups=2),
}


def make(variant="default", **options):
    torch.manual_seed(1)
    mixer = Mamba2(24, **(SMALL | VARIANTS[variant] | options))
    with torch.no_grad():
        for name in ("D", "dt_bias"):
            getattr(mixer, name).add_(torch.randn_like(getattr(mixer, name)) * 0.5)
    return mixer


def batch():
    torch.manual_seed(0)
    return torch.randn(3, 70, 24)


def by_hand(mixer, hidden):
    """One sequence (t, e) through the equations, frame by frame."""
    h, p, g, n, s = mixer.nheads, mixer.headdim, mixer.ngroups, mixer.d_state, mixer.d_ssm
    mlp = mixer.d_inner - s
    history = [torch.zeros(s + 2 * g * n, dtype=hidden.dtype)] * (mixer.d_conv - 1)
    state, outs = torch.zeros(h, p, n, dtype=hidden.dtype), []
    for frame in hidden:
        v = F.linear(frame, mixer.in_proj.weight, mixer.in_proj.bias)
        z0, x0, z, xBC, dt = v.split([mlp, mlp, s, s + 2 * g * n, h])
        history = [*history, xBC][-mixer.d_conv :]
        xBC = sum(w * u for w, u in zip(mixer.conv1d.weight[:, 0].unbind(1), history, strict=True))
        if mixer.conv1d.bias is not None:
            xBC = xBC + mixer.conv1d.bias
        x, B, C = F.silu(xBC).split([s, g * n, g * n])
        x, B, C = x.view(h, p), B.view(g, n), C.view(g, n)
        dt = F.softplus(dt + mixer.dt_bias).clamp(*mixer.dt_limit)
        D = mixer.D.view(h, -1)
        y = []
        for i in range(h):
            group = i // (h // g)
            decay = torch.exp(-dt[i] * mixer.A_log[i].exp())
            new = decay * state[i] + dt[i] * torch.outer(x[i], B[group])
            state = torch.cat([state[:i], new[None], state[i + 1 :]])
            y.append(new @ C[group] + D[i] * x[i])
        y = torch.cat(y)
        gate = z * torch.sigmoid(z)
        if mixer.norm is None:
            y = y * gate
        else:
            y = y if mixer.norm.norm_before_gate else y * gate
            parts = [u / (u.square().mean() + 1e-5).sqrt() for u in y.chunk(g)]
            y = torch.cat(parts) * mixer.norm.weight
            y = y * gate if mixer.norm.norm_before_gate else y
        y = torch.cat([z0 * torch.sigmoid(z0) * x0, y])
        outs.append(F.linear(y, mixer.out_proj.weight, mixer.out_proj.bias))
    return torch.stack(outs)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_equations(variant, reverse):
    mixer, x = make(variant), batch()[0, :19]
    out = mixer(x[None], reverse=reverse)[0]
    double = make(variant).double()
    x = x.double().flip(0) if reverse else x.double()
    expected = by_hand(double, x)
    expected = expected.flip(0) if reverse else expected
    assert torch.allclose(out.double(), expected, atol=1e-5)
    grads = torch.autograd.grad(out.square().sum(), list(mixer.parameters()))
    wanted = torch.autograd.grad(expected.square().sum(), list(double.parameters()))
    for (name, _), got, want in zip(mixer.named_parameters(), grads, wanted, strict=True):
        assert want.abs().max() > 0, name
        assert (got - want).abs().max() <= 1e-4 * want.abs().max(), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_padded_batch_equals_single_utterance(variant, reverse):
    mixer, x = make(variant), batch()
    padded = poisoned(x, LENGTHS)
    together = mixer(padded, LENGTHS, reverse=reverse)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = mixer(x[b : b + 1, :length], reverse=reverse)
        assert alone.abs().max() > 1e-4
        assert torch.allclose(together[b, :length], alone[0], atol=1e-6)
        assert (together[b, length:] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_pieces_and_steps_equal_the_whole_gradients_too(variant):
    mixer, x = make(variant), batch()
    whole = mixer(x)
    pieces, state = in_pieces(mixer, x, [1, 2, 9, 58])
    assert torch.allclose(pieces, whole, atol=1e-6)
    want = torch.autograd.grad(whole.square().sum(), list(mixer.parameters()))
    got = torch.autograd.grad(pieces.square().sum(), list(mixer.parameters()))
    for a, b in zip(got, want, strict=True):
        assert loops.close(a, b)
    stepped = mixer.initial_state(3)
    steps = torch.stack([mixer.step(frame, stepped) for frame in x.unbind(1)], dim=1)
    assert torch.allclose(steps, whole, atol=1e-6)
    for a, b in zip(stepped, state, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_empty_input():
    mixer = make()
    assert mixer(torch.zeros(2, 0, 24)).shape == (2, 0, 24)
    assert mixer(torch.zeros(0, 5, 24)).shape == (0, 5, 24)


def test_autocast_stays_close():
    mixer, x = make(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mixer(x, LENGTHS)
    assert out.dtype == torch.bfloat16
    expected = mixer(x, LENGTHS)
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_initialisation_is_mamba_ssms():
    torch.manual_seed(0)
    mixer = Mamba2(512, headdim=4, d_state=16)
    A = mixer.A_log.exp()
    assert A.min() >= 1 and A.max() <= 16 and 7.5 < A.mean() < 9.5
    assert (mixer.D == 1).all() and (mixer.norm.weight == 1).all()
    step = F.softplus(mixer.dt_bias)
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 0.1 * 1.001
    assert step.log().std() > 1.0  # log-uniform over two decades: 1.33
    for name in ("A_log", "D", "dt_bias"):
        assert getattr(mixer, name)._no_weight_decay
    assert Mamba2(24, **SMALL, conv_init=0.01).conv1d.weight.abs().max() <= 0.01


def test_parameter_names_and_shapes_are_mamba_ssms():
    shapes = {name: tuple(p.shape) for name, p in Mamba2(256).state_dict().items()}
    assert shapes == {
        "dt_bias": (8,),
        "A_log": (8,),
        "D": (8,),
        "in_proj.weight": (512 + 512 + 2 * 128 + 8, 256),
        "conv1d.weight": (512 + 2 * 128, 1, 4),
        "conv1d.bias": (512 + 2 * 128,),
        "norm.weight": (512,),
        "out_proj.weight": (256, 512),
    }
    assert set(shapes) - set(Mamba2(256, rmsnorm=False).state_dict()) == {"norm.weight"}
    # d_ssm 256 of 512, two groups: [z0, x0, z, x, B, C, dt]
    mixer = Mamba2(256, d_ssm=256, ngroups=2, D_has_hdim=True, d_state=64)
    assert mixer.in_proj.weight.shape == (2 * 256 + 2 * 256 + 2 * 2 * 64 + 4, 256)
    assert mixer.D.shape == (256,) and mixer.norm.weight.shape == (256,)
    assert mixer.norm.group_size == 128


def test_the_norm_of_zeros_is_zero_and_bf16_stays():
    norm = GatedRMSNorm(8, 4)
    assert (norm(torch.zeros(2, 8), torch.ones(2, 8)) == 0).all()
    ones = torch.ones(2, 8, dtype=torch.bfloat16)
    out = norm(3 * ones, ones)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), torch.ones(2, 8), atol=1e-2)
