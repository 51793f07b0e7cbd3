"""Our Triton kernels, run by Triton's interpreter on the CPU, with tiles of a few elements.

The interpreter is chosen where a kernel is decorated, so the checks run in a process of their own:
this file names them, runs itself there, and is the plain test file inside.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import loops
import pytest
import scans
import torch
from prefixes import close, doubled, outputs, search
from scans import agree, with_gradients
from sequences import poisoned

from mambaasr.ops import (
    causal_conv1d_fn,
    causal_conv1d_update,
    ctc_prefix,
    gpu,
    selective_scan_fn,
    selective_state_update,
)
from mambaasr.ops.causal_conv1d import triton as conv_triton
from mambaasr.ops.ctc_prefix import triton as prefix_triton
from mambaasr.ops.selective_scan import triton as scan_triton

HERE = gpu.interpreted()
GPU_CHECK = Path(__file__).parents[2] / "tools/gpu_check.py"
inside = pytest.mark.skipif(not HERE, reason="runs within test_in_the_interpreter")
outside = pytest.mark.skipif(HERE, reason="runs without the interpreter")
has_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton here")


FEW = "True-True-odd or True-True-groups or 16_bit or uninitialised or silu-lengths1 or in_place"
FEW += " or scores-few"


@outside
@has_triton
@pytest.mark.parametrize(
    "chosen", [pytest.param(FEW, id="few"), pytest.param("", id="all", marks=pytest.mark.slow)]
)
def test_in_the_interpreter(chosen):
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    command += ["-k", chosen]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout


@outside
def test_without_gpu_and_interpreter_it_says_what_to_do():
    x = torch.zeros(1, 2, 3)
    with pytest.raises(RuntimeError, match="'triton' cannot run.*CUDA device.*TRITON_INTERPRET=1"):
        causal_conv1d_fn(x, torch.zeros(2, 4), backend="triton")


@pytest.fixture
def tiles(monkeypatch):
    """Chunks of 4 frames, blocks of 2 channels, so that short inputs have many of each."""
    monkeypatch.setattr(scan_triton, "_plan", lambda per_group, time, states: (4, 2, 1))
    monkeypatch.setattr(scan_triton, "PASSING_BLOCK", 4)
    monkeypatch.setattr(conv_triton, "FRAMES", 4)
    monkeypatch.setattr(conv_triton, "CHANNELS", 2)
    monkeypatch.setattr(prefix_triton, "CANDIDATES", 4)
    monkeypatch.setattr(prefix_triton, "FRAMES", 8)
    monkeypatch.setattr(prefix_triton, "ROWS", 4)


def scan_inputs(batch=2, channels=3, time=9, states=2, **options):
    return scans.scan_inputs(batch, channels, time, states, **options)


def conv_inputs(width=4, batch=2, channels=3, time=9):
    return scans.conv_inputs(batch, channels, time, width)


def scan(**options):
    return lambda **x: selective_scan_fn(**x, **options, return_last_state=True, backend="triton")


def conv(**options):
    return lambda **x: causal_conv1d_fn(**x, **options, return_final_states=True, backend="triton")


def poison(inputs, lengths):
    """NaN in all padding; what comes out must not change."""
    for name in ("u", "delta", "z", "B", "C", "x"):
        if lengths is not None and inputs.get(name) is not None:
            inputs[name] = poisoned(inputs[name], lengths, time=-1)
    return inputs


SCANS = {
    "plain": {},
    "time major": {"time_major": True},
    "one frame": {"time": 1},
    "one of all": {"batch": 1, "channels": 1, "time": 1, "states": 1},
    "full chunks": {"time": 8, "channels": 2, "states": 1},
    "odd states": {"states": 3, "time": 5},
    "groups": {"channels": 4, "groups": (2, 2), "time": 3},
    "other groups": {"channels": 6, "groups": (2, 3), "time": 3},
}


@inside
@pytest.mark.parametrize("shape", SCANS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_scan(tiles, shape, reverse, padded):
    inputs = scan_inputs(**SCANS[shape])
    batch, _, time = inputs["u"].shape
    lengths = torch.tensor([time, time // 2][:batch]) if padded else None
    options = dict(delta_softplus=True, lengths=lengths, reverse=reverse)
    want = with_gradients(lambda **x: loops.scan(**x, **options), inputs, torch.float64)
    got = with_gradients(scan(**options), poison(inputs, lengths), torch.float32)
    agree(got, want)
    if padded:
        for name in ("out", "du", "ddelta", "dz", "dB", "dC"):
            for b, length in enumerate(lengths.tolist()):
                assert (got[name][b, ..., length:] == 0).all(), name


@inside
@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "initial_state", "all"])
def test_scan_without_options(tiles, absent):
    names = ("D", "z", "delta_bias", "initial_state") if absent == "all" else (absent,)
    inputs = scan_inputs(time=6) | dict.fromkeys(names)
    inputs["delta"] = inputs["delta"].abs() * 0.1
    options = dict(delta_softplus=False, lengths=None, reverse=False)
    want = with_gradients(lambda **x: loops.scan(**x, **options), inputs, torch.float64)
    agree(with_gradients(scan(**options), inputs, torch.float32), want)


@inside
@pytest.mark.parametrize("shift", [-30.0, 25.0, 1000.0])
def test_scan_at_extreme_steps(tiles, shift):
    inputs = scan_inputs(time=6)
    inputs["delta"] = inputs["delta"] + shift
    options = dict(delta_softplus=True, lengths=None, reverse=False)
    want = with_gradients(lambda **x: loops.scan(**x, **options), inputs, torch.float64)
    agree(with_gradients(scan(**options), inputs, torch.float32), want)


@inside
@pytest.mark.parametrize("channels, time, states", [(1, 35, 1), (1, 2, 256)])
def test_scan_with_the_tiles_of_a_gpu(channels, time, states):
    inputs = scan_inputs(1, channels, time, states)
    options = dict(delta_softplus=True, lengths=None, reverse=False)
    want = with_gradients(lambda **x: loops.scan(**x, **options), inputs, torch.float64)
    agree(with_gradients(scan(**options), inputs, torch.float32), want)


@inside
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_keep_an_fp32_state(tiles, dtype):
    inputs = {k: v.float() for k, v in scan_inputs(time=6).items()}
    for name in ("u", "delta", "z", "B", "C"):
        inputs[name] = inputs[name].to(dtype)
    out, last = scan(delta_softplus=True)(**inputs)
    want, state = scan(delta_softplus=True)(**{k: v.float() for k, v in inputs.items()})
    assert out.dtype == dtype and last.dtype == torch.float32
    # The interpreter cuts bf16 where a GPU rounds.
    assert torch.allclose(out.float(), want, rtol=2**-7, atol=1e-6)
    assert torch.equal(last, state)


@inside
def test_scan_over_nothing(tiles):
    inputs = {k: v.float() for k, v in scan_inputs(time=0).items()}
    out, last = scan(delta_softplus=True)(**inputs)
    assert out.shape == (2, 3, 0) and torch.equal(last, inputs["initial_state"])


@inside
def test_uninitialised_memory_is_never_read(tiles):
    lengths = torch.tensor([6, 3])
    u, x = scan_inputs(time=6, states=1), conv_inputs(2, time=6)
    torch.use_deterministic_algorithms(True)
    try:
        results = [
            with_gradients(scan(delta_softplus=True, lengths=lengths), u, torch.float32),
            with_gradients(conv(activation="silu", lengths=lengths), x, torch.float32),
            with_gradients(conv(lengths=lengths), x, torch.float32),
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for result in results for x in result.values())


@inside
def test_lengths_out_of_range_touch_nothing_outside(tiles):
    """On a GPU nobody reads lengths back to check them."""
    inputs = [x.float() for x in scan_inputs(time=5, states=1).values()]
    run = torch.ops.mambaasr.selective_scan_triton
    for bad, good in (([-3, 99], [0, 5]),):
        a, b = (run(*inputs, torch.tensor(n), True, True, False)[:2] for n in (bad, good))
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@inside
@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [9, 2], [0, 5]])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_conv(tiles, width, reverse, lengths, activation):
    inputs = conv_inputs(width)
    options = dict(
        activation=activation,
        reverse=reverse,
        lengths=None if lengths is None else torch.tensor(lengths),
    )
    want = with_gradients(lambda **x: loops.conv(**x, **options), inputs, torch.float64)
    got = with_gradients(conv(**options), poison(inputs, options["lengths"]), torch.float32)
    agree(got, want)


@inside
@pytest.mark.parametrize("absent", ["bias", "initial_states"])
def test_conv_without_options(tiles, absent):
    inputs = conv_inputs() | {absent: None}
    options = dict(activation="silu", reverse=False, lengths=None)
    want = with_gradients(lambda **x: loops.conv(**x, **options), inputs, torch.float64)
    agree(with_gradients(conv(**options), inputs, torch.float32), want)


@inside
def test_conv_over_nothing():
    inputs = {k: v.float() for k, v in conv_inputs(time=0).items()}
    out, final = conv(activation="silu")(**inputs)
    assert out.shape == (2, 3, 0) and torch.equal(final, inputs["initial_states"])


@inside
@pytest.mark.parametrize("groups", [(0, 0), (3, 1)])
def test_one_step_in_place_of_a_view(groups):
    inputs = {k: v.float() for k, v in scan_inputs(time=1, states=3, groups=groups).items()}
    rows = [inputs[k].squeeze(-1) for k in ("u", "delta")]
    rest = [inputs["A"], inputs["B"].squeeze(-1), inputs["C"].squeeze(-1), inputs["D"]]
    rest += [inputs["z"].squeeze(-1), inputs["delta_bias"], True]
    memory = torch.zeros(4, 3, 3)
    memory[1:3] = inputs["initial_state"]
    state = inputs["initial_state"].clone()
    got = selective_state_update(memory[1:3], *rows, *rest, backend="triton")
    want = selective_state_update(state, *rows, *rest, backend="naive")
    assert torch.allclose(got, want, atol=1e-6) and torch.allclose(memory[1:3], state, atol=1e-6)
    assert (memory[[0, 3]] == 0).all()
    window = torch.randn(2, 3, 4)
    other = window.clone()
    x, weight = rows[0], torch.randn(3, 4)
    got = causal_conv1d_update(x, window, weight, backend="triton")
    assert torch.equal(got, causal_conv1d_update(x, other, weight, backend="naive"))
    assert torch.equal(window, other)


@inside
@pytest.mark.parametrize("op", ["scan", "conv"])
def test_torch_knows_the_op(tiles, op):
    if op == "scan":
        x = [v.float().requires_grad_() for v in scan_inputs(1, 1, 3, 1).values()]
        args = (*x, torch.tensor([2]), True, False, True)
        torch.library.opcheck(torch.ops.mambaasr.selective_scan_triton.default, args)
    else:
        x = [v.float().requires_grad_() for v in conv_inputs(2, 1, 1, 3).values()]
        args = (*x, torch.tensor([2]), True, False)
        torch.library.opcheck(torch.ops.mambaasr.causal_conv1d_triton.default, args)


@inside
@pytest.mark.parametrize(
    "candidates", [pytest.param(None, id="scores-all"), pytest.param(3, id="scores-few")]
)
def test_prefix_scores(tiles, candidates):
    frames = ctc_prefix.prepare(outputs(3, 19, 5), torch.tensor([19, 0, 8]), blank_id=1)
    options = dict(steps=3, beam=2, candidates=candidates)
    want, last = search(doubled(frames), "naive", **options)
    got, prefixes = search(frames, "triton", **options)
    for one, other in zip(got, want, strict=True):
        close(one, other)
    assert torch.equal(prefixes.last, last.last)


@inside
def test_gpu_check(tiles, monkeypatch, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("gpu_check", GPU_CHECK)
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    monkeypatch.setattr(check, "SMALL", [(1, 5, 1, 1)])
    assert check.main(["--small", "--output", str(tmp_path / "out")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {(r["op"], r["way"]) for r in rows} == {
        ("ctc_prefix", "a step, 15 candidates"),
        *((op, way) for op in ("scan", "conv") for way, *_ in check.WAYS),
    }
    assert set(rows[-1]["errors"]) == {"scores", "end", "scores of all"}
    assert "| scan | triton | 1, 5, 1, 1 | padded |" in (tmp_path / "out.md").read_text()
    monkeypatch.setattr(check, "LOG_TOLERANCE", -1.0)
    assert check.main(["--small"]) == 1
    assert capsys.readouterr().out.count("| NO |") == 1
    monkeypatch.setattr(check, "TOLERANCE", 0.0)
    assert check.main(["--small"]) == 1
    assert "| NO |" in capsys.readouterr().out
