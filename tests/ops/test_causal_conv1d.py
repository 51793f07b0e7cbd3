"""Every backend of the causal convolution against the equation, values and gradients."""

import loops
import pytest
import torch
from scans import agree, conv_inputs, with_gradients
from sequences import poisoned

from mambaasr.ops import causal_conv1d_fn, causal_conv1d_update
from mambaasr.ops.causal_conv1d import IMPLEMENTATIONS

BACKENDS = [
    name for name, module in IMPLEMENTATIONS.items() if module.unavailable(torch.zeros(1)) is None
]


def make(*shape, dtype=torch.float32, **sizes):
    return {name: x.to(dtype) for name, x in conv_inputs(*shape, **sizes).items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [17, 5, 9], [0, 1, 2]])
@pytest.mark.parametrize("width", [2, 3, 4, 8])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_values_and_gradients(backend, reverse, lengths, width, activation):
    options = dict(
        lengths=None if lengths is None else torch.tensor(lengths),
        reverse=reverse,
        activation=activation,
    )
    want = with_gradients(lambda **x: loops.conv(**x, **options), make(width=width), torch.float64)
    options |= dict(return_final_states=True, backend=backend)
    agree(with_gradients(lambda **x: causal_conv1d_fn(**x, **options), make(width=width)), want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_garbage_in_padding_has_no_effect(backend, reverse):
    lengths = torch.tensor([17, 0, 6])
    clean, dirty = make(), make()
    dirty["x"] = poisoned(dirty["x"], lengths, time=-1)
    options = dict(lengths=lengths, reverse=reverse, activation="silu", backend=backend)
    want, got = (
        with_gradients(lambda **x: causal_conv1d_fn(**x, return_final_states=True, **options), each)
        for each in (clean, dirty)
    )
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("state_length", [3, 4])
def test_step_equals_the_whole(backend, state_length):
    inputs = make()
    whole = causal_conv1d_fn(**inputs, activation="silu", backend=backend)
    state = torch.cat([torch.full((3, 5, state_length - 3), 9.0), inputs["initial_states"]], dim=2)
    for t in range(17):
        y = causal_conv1d_update(
            inputs["x"][..., t], state, inputs["weight"], inputs["bias"], "silu", backend=backend
        )
        assert torch.allclose(y, whole[..., t], atol=1e-6)
    assert torch.equal(state[..., -3:], inputs["x"][..., -3:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_frames_leave_the_state(backend):
    inputs = make(time=0)
    out, state = causal_conv1d_fn(**inputs, return_final_states=True, backend=backend)
    assert out.shape == (3, 5, 0)
    assert torch.equal(state, inputs["initial_states"])


def test_gradcheck_of_the_truth():
    inputs = {name: x.requires_grad_() for name, x in make(2, 3, 5, 3, dtype=torch.float64).items()}

    def function(*values):
        return causal_conv1d_fn(
            **dict(zip(inputs, values, strict=True)),
            activation="silu",
            return_final_states=True,
            lengths=torch.tensor([5, 2]),
            reverse=True,
            backend="naive",
        )

    assert torch.autograd.gradcheck(function, tuple(inputs.values()))


def test_bad_arguments_are_named():
    for name, value, message in (
        ("weight", torch.zeros(4, 4), "weight has shape"),
        ("activation", "relu", "activation is 'relu'"),
        ("lengths", torch.tensor([18, 1, 1]), "lengths reaches from 1 to 18"),
        ("x", torch.zeros(3, 5, 17, dtype=torch.int64), "x has dtype torch.int64"),
    ):
        with pytest.raises(ValueError, match=message):
            causal_conv1d_fn(**(make() | {name: value}))
    step = dict(x=torch.zeros(3, 5), conv_state=torch.zeros(3, 5, 2), weight=torch.zeros(5, 4))
    with pytest.raises(ValueError, match="conv_state holds 2 inputs, expected at least 3"):
        causal_conv1d_update(**step)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint64])
def test_lengths_of_any_integer_type(dtype):
    good = make()
    lengths = torch.tensor([17, 9, 0])
    want = causal_conv1d_fn(**(good | {"lengths": lengths}))
    assert torch.equal(causal_conv1d_fn(**(good | {"lengths": lengths.to(dtype)})), want)
