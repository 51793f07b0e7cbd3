"""Every backend of the selective scan against the equations, values and gradients."""

import itertools

import loops
import pytest
import torch
from scans import agree, scan_inputs, with_gradients
from sequences import poisoned

from mambaasr.ops import selective_scan_fn, selective_state_update
from mambaasr.ops.selective_scan import IMPLEMENTATIONS

BACKENDS = [
    name for name, module in IMPLEMENTATIONS.items() if module.unavailable(torch.zeros(1)) is None
]


def make(*shape, groups=0, **sizes):
    return scan_inputs(*shape, groups=(groups, groups), **sizes)


def run(backend, **options):
    return lambda **x: selective_scan_fn(**x, return_last_state=True, backend=backend, **options)


def compare(backend, inputs, **options):
    want = with_gradients(lambda **x: loops.scan(**x, **options), inputs, torch.float64)
    agree(with_gradients(run(backend, **options), inputs), want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [17, 5, 9], [0, 1, 17]])
@pytest.mark.parametrize("groups", [0, 1, 5])
def test_values_and_gradients(backend, reverse, lengths, groups):
    lengths = None if lengths is None else torch.tensor(lengths)
    compare(backend, make(groups=groups), delta_softplus=True, lengths=lengths, reverse=reverse)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "absent",
    [
        c
        for n in range(5)
        for c in itertools.combinations(["D", "z", "delta_bias", "initial_state"], n)
    ],
)
def test_every_option_may_be_absent(backend, absent):
    inputs = make(time=7) | dict.fromkeys(absent)
    inputs["delta"] = inputs["delta"].abs() * 0.1
    compare(backend, inputs, delta_softplus=False, lengths=None, reverse=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 33, 63, 16), (1, 16, 131, 3), (2, 7, 1, 64), (1, 3, 5, 256)]
)
def test_odd_sizes(backend, shape):
    compare(backend, make(*shape), delta_softplus=True, lengths=None, reverse=False)
    compare(backend, make(*shape), delta_softplus=True, lengths=None, reverse=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [-30.0, 25.0])
def test_extreme_step_sizes(backend, shift):
    inputs = make()
    inputs["delta"] = inputs["delta"] + shift
    compare(backend, inputs, delta_softplus=True, lengths=None, reverse=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_garbage_in_padding_has_no_effect(backend, reverse):
    lengths = torch.tensor([17, 0, 6])
    clean, dirty = make(), make()
    for name in ("u", "delta", "z", "B", "C"):
        dirty[name] = poisoned(dirty[name], lengths, time=-1)
    function = run(backend, delta_softplus=True, lengths=lengths, reverse=reverse)
    want, got = (with_gradients(function, each) for each in (clean, dirty))
    for name, x in got.items():
        assert torch.equal(x, want[name]), name
        if name in ("out", "du", "ddelta", "dz", "dB", "dC"):
            for b, length in enumerate(lengths.tolist()):
                assert (x[b, ..., length:] == 0).all(), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("time_major", [False, True])
def test_layouts_agree(backend, time_major):
    inputs = {name: value.float() for name, value in make(channels=33, time=40).items()}
    plain = selective_scan_fn(**inputs, delta_softplus=True, backend=backend)
    for name in ("u", "delta", "z", "B", "C"):
        if time_major:
            inputs[name] = inputs[name].transpose(-1, -2).contiguous().transpose(-1, -2)
        else:
            inputs[name] = torch.stack([inputs[name]] * 2, dim=-1)[..., 1]
    again = selective_scan_fn(**inputs, delta_softplus=True, backend=backend)
    assert torch.allclose(plain, again, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_equal_the_whole_gradients_too(backend, reverse):
    inputs = {name: value.float().requires_grad_() for name, value in make(time=23).items()}
    options = dict(delta_softplus=True, return_last_state=True, reverse=reverse, backend=backend)
    whole, last = selective_scan_fn(**inputs, **options)
    expected = torch.autograd.grad(whole.sum() + last.sum(), list(inputs.values()))
    bounds = [(0, 1), (1, 9), (9, 23)]
    state, outs = inputs["initial_state"], {}
    for low, high in reversed(bounds) if reverse else bounds:
        piece = {
            name: inputs[name][..., low:high] if name in ("u", "delta", "z", "B", "C") else value
            for name, value in inputs.items()
        }
        outs[low], state = selective_scan_fn(**(piece | {"initial_state": state}), **options)
    pieces = torch.cat([outs[low] for low, _ in bounds], dim=2)
    assert torch.allclose(pieces, whole, atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)
    grads = torch.autograd.grad(pieces.sum() + state.sum(), list(inputs.values()))
    for name, grad, want in zip(inputs, grads, expected, strict=True):
        assert loops.close(grad, want), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_input_keeps_an_fp32_state(backend):
    inputs = {name: value.float() for name, value in make(channels=16).items()}
    for name in ("u", "delta", "z", "B", "C"):
        inputs[name] = inputs[name].bfloat16()
    expected = selective_scan_fn(
        **{name: value.float() for name, value in inputs.items()}, delta_softplus=True
    )
    out, state = selective_scan_fn(
        **inputs, delta_softplus=True, return_last_state=True, backend=backend
    )
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert torch.allclose(out.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [0, 5])
def test_step_equals_the_whole(backend, groups):
    inputs = {name: value.float() for name, value in make(groups=groups).items()}
    whole, last = selective_scan_fn(
        **inputs, delta_softplus=True, return_last_state=True, backend=backend
    )
    state = inputs["initial_state"].clone()
    for t in range(17):
        y = selective_state_update(
            state,
            inputs["u"][..., t],
            inputs["delta"][..., t],
            inputs["A"],
            inputs["B"][..., t],
            inputs["C"][..., t],
            inputs["D"],
            inputs["z"][..., t],
            inputs["delta_bias"],
            dt_softplus=True,
            backend=backend,
        )
        assert torch.allclose(y, whole[..., t], atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)


def test_gradcheck_of_the_truth():
    inputs = make(2, 3, 5, 2)
    leaves = [value.requires_grad_() for value in inputs.values()]

    def function(*values):
        return selective_scan_fn(
            **dict(zip(inputs, values, strict=True)),
            delta_softplus=True,
            return_last_state=True,
            lengths=torch.tensor([5, 3]),
            reverse=True,
            backend="naive",
        )

    assert torch.autograd.gradcheck(function, leaves)


def test_bad_arguments_are_named():
    good = {name: value.float() for name, value in make().items()}
    for name, value, message in (
        ("delta", torch.zeros(3, 5, 16), r"delta has shape \(3, 5, 16\), expected \(3, 5, 17\)"),
        ("delta", torch.zeros(3, 5, 17, device="meta"), "delta is on meta, expected cpu"),
        ("delta", None, "delta is NoneType, expected a tensor"),
        ("A", torch.zeros(5, 4, dtype=torch.complex64), "A is complex"),
        ("B", torch.zeros(5, 4), "constant matrices are not supported"),
        ("C", torch.zeros(3, 2, 4, 17), "2 groups, which do not divide 5"),
        ("lengths", torch.tensor([1, 2, -1]), "lengths reaches from -1"),
        ("lengths", torch.tensor([1.0, 2.0, 3.0]), "expected integers"),
    ):
        with pytest.raises(ValueError, match=message):
            selective_scan_fn(**(good | {name: value}))
    with pytest.raises(ValueError, match="x has shape"):
        selective_state_update(
            *(torch.zeros(2, 8, 4), torch.zeros(2, 7), torch.zeros(2, 8), torch.zeros(8, 4)),
            *(torch.zeros(2, 4), torch.zeros(2, 4)),
        )
