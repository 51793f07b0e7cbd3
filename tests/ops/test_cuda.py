"""The backend `cuda` with stand-ins for the compiled packages.

They compute what mamba_ssm and causal_conv1d document, take their arguments alone, and run on a
CPU: what is ours (padding, direction, states, refusals, broken installations) needs no GPU.
"""

import types

import loops
import pytest
import scans
import torch
from scans import agree, with_gradients
from sequences import poisoned

from mambaasr.ops import causal_conv1d_fn, dispatch, gpu, selective_scan_fn
from mambaasr.ops.causal_conv1d import cuda as conv_cuda
from mambaasr.ops.causal_conv1d import naive as conv_naive
from mambaasr.ops.selective_scan import cuda as scan_cuda
from mambaasr.ops.selective_scan import naive as scan_naive


def scan_stand_in(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
    return_last_state=False,
):  # fmt: skip
    assert {x.dtype for x in (u, delta, B, C, z) if x is not None} == {u.dtype}
    assert all(x.dtype == torch.float32 for x in (A, D, delta_bias) if x is not None)
    assert B.shape[:-2] == C.shape[:-2]
    out, last = scan_naive.selective_scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, None, False, None
    )
    return (out, last.detach()) if return_last_state else out


def conv_stand_in(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
    final_states_out=None, activation=None,
):  # fmt: skip
    assert seq_idx is None and initial_states is None and not return_final_states
    assert 2 <= weight.shape[1] <= 4 and (bias is None or bias.dtype == weight.dtype)
    assert x.stride(2) == 1 or (x.stride(1) == 1 and x.shape[1] % 8 == 0)
    return conv_naive.causal_conv1d(x, weight, bias, activation, None, False, None)[0]


def update_stand_in(x, conv_state, weight, bias=None, activation=None):
    assert conv_state.dtype == x.dtype
    return conv_naive.causal_conv1d_update(x, conv_state, weight, bias, activation)


@pytest.fixture
def installed(monkeypatch):
    """Both packages are there, and a CPU passes for their device."""
    packages = {
        scan_cuda.EXTENSION: types.SimpleNamespace(),
        scan_cuda.INTERFACE: types.SimpleNamespace(selective_scan_fn=scan_stand_in),
        conv_cuda.EXTENSION: types.SimpleNamespace(),
        conv_cuda.PACKAGE: types.SimpleNamespace(
            causal_conv1d_fn=conv_stand_in, causal_conv1d_update=update_stand_in
        ),
    }
    for module in (scan_cuda, conv_cuda):
        monkeypatch.setattr(module, "attempt", lambda name: (packages[name], None))
        monkeypatch.setattr(module, "unfit", lambda tensor: None)


def scan_inputs(groups=(0, 0), time=13):
    inputs = scans.scan_inputs(3, 6, time, 2, groups)
    return {name: x.float() for name, x in inputs.items() if name != "initial_state"}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("lengths", [None, [13, 0, 4], [1, 13, 12]])
@pytest.mark.parametrize("groups", [(0, 0), (2, 2), (2, 3)])
def test_scan_by_masking_and_gathering(installed, reverse, softplus, lengths, groups):
    inputs = scan_inputs(groups)
    if not softplus:
        inputs["delta"] = inputs["delta"].abs() * 0.1
        inputs["delta_bias"] = inputs["delta_bias"].abs()
    lengths = None if lengths is None else torch.tensor(lengths)
    options = dict(delta_softplus=softplus, reverse=reverse, lengths=lengths)
    truth = dict(**options, initial_state=None)
    exact = {name: x.double() for name, x in inputs.items()}
    want = with_gradients(lambda **x: loops.scan(**x, **truth)[:1], inputs, torch.float64)
    if lengths is not None:
        for name in ("u", "delta", "B", "C", "z"):
            inputs[name] = poisoned(inputs[name], lengths, time=-1)
    agree(
        with_gradients(lambda **x: [selective_scan_fn(**x, **options, backend="cuda")], inputs),
        want,
    )
    with torch.no_grad():
        state = selective_scan_fn(**inputs, **options, return_last_state=True, backend="cuda")[1]
    assert loops.close(state, loops.scan(**exact, **truth)[1])


def test_scan_of_several_dtypes_takes_the_most_precise(installed):
    inputs = scan_inputs()
    mixed = inputs | {"u": inputs["u"].bfloat16(), "A": inputs["A"].bfloat16()}
    out = selective_scan_fn(**mixed, delta_softplus=True, backend="cuda")
    assert out.dtype == torch.bfloat16
    exact = {k: v.float() for k, v in mixed.items()}
    want = selective_scan_fn(**exact, delta_softplus=True, backend="naive")
    assert torch.equal(out, want.bfloat16())


@pytest.mark.parametrize("lengths", [None, [0, 0, 0]])
def test_nothing_to_scan(installed, lengths):
    lengths = None if lengths is None else torch.tensor(lengths)
    out = selective_scan_fn(**scan_inputs(time=0), lengths=lengths, backend="cuda")
    assert out.shape == (3, 6, 0)
    x, weight = torch.zeros(3, 6, 0), torch.zeros(6, 4)
    out, final = causal_conv1d_fn(x, weight, return_final_states=True, backend="cuda")
    assert out.shape == x.shape and torch.equal(final, torch.zeros(3, 6, 3))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"initial_state": torch.zeros(3, 6, 2)}, "initial_state; backend='triton'"),
        ({"u": torch.zeros(3, 6, 13, dtype=torch.float64)}, "float64; backend='triton'"),
        ({"A": torch.zeros(6, 300), **dict.fromkeys("BC", torch.zeros(3, 300, 13))}, "256.*triton"),
        (
            {"return_last_state": True, "u": torch.zeros(3, 6, 13, requires_grad=True)},
            "return_last_state.*backend='triton'",
        ),
    ],
)
def test_scan_refuses_and_auto_goes_elsewhere(installed, monkeypatch, change, message):
    call = scan_inputs() | change
    with pytest.raises(RuntimeError, match=f"'cuda' cannot run: .*{message}"):
        selective_scan_fn(**call, backend="cuda")
    monkeypatch.setitem(dispatch.PREFERENCE, "cpu", ("cuda", "naive"))
    dispatch._log_once.cache_clear()
    got, want = (selective_scan_fn(**call, backend=name) for name in ("auto", "naive"))
    for x, y in zip(*((r if isinstance(r, tuple) else (r,)) for r in (got, want)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [13, 0, 2]])
@pytest.mark.parametrize("channels, width", [(5, 4), (8, 2)])
@pytest.mark.parametrize("states", [False, True])
def test_conv_by_masking_and_gathering(installed, reverse, lengths, channels, width, states):
    inputs = {k: x.float() for k, x in scans.conv_inputs(3, channels, 13, width).items()}
    inputs["x"] = inputs["x"].mT.contiguous().mT
    inputs["initial_states"] = inputs["initial_states"] if states else None
    lengths = None if lengths is None else torch.tensor(lengths)
    options = dict(activation="silu", reverse=reverse, lengths=lengths)
    want = with_gradients(lambda **x: loops.conv(**x, **options), inputs, torch.float64)
    if lengths is not None:
        inputs["x"] = poisoned(inputs["x"], lengths, time=-1)
    options |= dict(return_final_states=True, backend="cuda")
    agree(with_gradients(lambda **x: causal_conv1d_fn(**x, **options), inputs), want)


@pytest.mark.parametrize("module", [scan_cuda, conv_cuda])
@pytest.mark.parametrize(
    "source, said",
    [
        ("raise ImportError('x.so: undefined symbol: _ZN3c10')", "undefined symbol: _ZN3c10"),
        ("raise OSError('libcudart.so.12: cannot open')", "OSError: libcudart.so.12"),
    ],
)
def test_a_broken_installation_is_told_with_its_remedy(module, source, said, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "unfit", lambda tensor: None)
    monkeypatch.setattr(module, "attempt", gpu.attempt.__wrapped__)
    (tmp_path / f"{module.EXTENSION}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    reason = module.unavailable(torch.zeros(1))
    assert module.EXTENSION in reason and said in reason
    assert "pip install --no-build-isolation" in reason and "backend='triton'" in reason
