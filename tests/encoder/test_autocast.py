"""Whole encoders under bf16 autocast: finite, close to fp32, and padding never leaks."""

import itertools

import pytest
import torch

from mambaasr.registry import CLASSES, load

# What a small encoder of each name needs beside its defaults.
SMALL = {
    "mamba": dict(linear_units=32),
    "conmamba": dict(linear_units=32),
    "speech_mamba": dict(),
    "mamba_ebranchformer": dict(linear_units=32, cgmlp_linear_units=24),
}
MIXERS = {"mamba1": dict(d_state=8), "mamba2": dict(d_state=8, mixer_conf=dict(headdim=8))}
CASES = list(itertools.product(SMALL, MIXERS, ("outer", "uni")))
# Distance from fp32; that of Speech-Mamba is 0.06 too when fp32 is rounded behind every layer.
CLOSE = dict.fromkeys(SMALL, 0.02) | {"speech_mamba": 0.12}
LENGTHS = torch.tensor([97, 40, 61])


def build(name, mixer, direction):
    torch.manual_seed(0)
    options = SMALL[name] | MIXERS[mixer] | dict(direction=direction, dropout_rate=0.0)
    made = load(CLASSES["encoder"][name])
    return made(80, output_size=16, num_blocks=2, mixer=mixer, **options)


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def far(actual, expected):
    """Return the distance of two tensors relative to the size of the second."""
    with torch.no_grad():
        return float((actual.float() - expected).norm() / expected.norm())


def gradients(encoder, x):
    """Return output and gradients of every parameter for one input (b, t, e)."""
    encoder.zero_grad()
    y, _, _ = encoder(x, LENGTHS)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y)
    (y.float() * weights).sum().backward()
    return y, {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}


def test_every_encoder_is_tried():
    assert set(SMALL) == set(CLASSES["encoder"])


@pytest.mark.parametrize("name, mixer, direction", CASES)
def test_a_training_step_is_close_to_fp32(name, mixer, direction):
    encoder = build(name, mixer, direction)
    x = torch.randn(3, 97, 80)
    want, exact = gradients(encoder, x)
    with autocast():
        got, rough = gradients(encoder, x)
    assert 0 < far(got, want) < CLOSE[name], "0 would be no autocast at all"
    for key, grad in rough.items():
        assert grad.dtype == torch.float32 and torch.isfinite(grad).all(), key
    together = [torch.cat([grad.flatten() for grad in some.values()]) for some in (rough, exact)]
    assert far(*together) < 3 * CLOSE[name]


@pytest.mark.parametrize("name, mixer, direction", CASES)
def test_padding_never_leaks(name, mixer, direction):
    encoder = build(name, mixer, direction).eval()
    x = torch.randn(3, 97, 80)
    for b, length in enumerate(LENGTHS.tolist()):
        x[b, length:] = 0
    outputs = []
    with autocast(), torch.no_grad():
        for filling in (0.0, 1e4, float("nan")):
            filled = x.clone()
            for b, length in enumerate(LENGTHS.tolist()):
                filled[b, length:] = filling
            outputs.append(encoder(filled, LENGTHS)[0])
        for b, length in enumerate(LENGTHS.tolist()):
            alone, lengths, _ = encoder(x[b : b + 1, :length], LENGTHS[b : b + 1])
            assert far(outputs[0][b, : lengths[0]], alone[0].float()) < CLOSE[name]
            assert (outputs[0][b, lengths[0] :] == 0).all()
    assert all(torch.equal(each, outputs[0]) for each in outputs)
