"""What is the compiled CPU kernels' own: borders of blocks and chunks, layouts, instruction sets,
threads, memory, the build and what goes wrong with it.

Against the equations, test_selective_scan.py, test_causal_conv1d.py and test_ctc_prefix.py run
every backend.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from memory import LargestTensor

from mambaasr.ops import causal_conv1d_fn, selective_scan_fn, selective_state_update
from mambaasr.ops.native import build, call
from mambaasr.ops.native.product import product
from mambaasr.ops.selective_scan import cpu as scan_cpu

# A compiler that is there must build them: sources that do not compile fail, nothing is skipped.
COMPILERS = [os.environ["CXX"]] if os.environ.get("CXX") else build.COMPILERS
pytestmark = pytest.mark.skipif(
    build.load()[0] is None and not any(map(shutil.which, COMPILERS)), reason=str(build.load()[1])
)
TOLERANCE = 1e-5  # of each tensor's maximum


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors, and often a busy machine: a second thread would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(generator, batch, channels, time, time_major):
    if time_major:
        return torch.randn(batch, time, channels, generator=generator).transpose(1, 2)
    return torch.randn(batch, channels, time, generator=generator)


def scan_inputs(batch, channels, time, states, time_major=True, groups=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (batch, states, time) if groups is None else (batch, groups, states, time)
    return {
        "u": rows(g, batch, channels, time, time_major),
        "delta": rows(g, batch, channels, time, time_major),
        "A": -3 * torch.rand(channels, states, generator=g) - 0.01,
        "B": torch.randn(shape, generator=g),
        "C": torch.randn(shape, generator=g).transpose(-1, -2).contiguous().transpose(-1, -2),
        "D": torch.randn(channels, generator=g),
        "z": rows(g, batch, channels, time, time_major),
        "delta_bias": torch.randn(channels, generator=g) - 2,
        "initial_state": torch.randn(batch, channels, states, generator=g),
    }


def with_gradients(function, inputs, dtype=None):
    """Outputs of ``function`` and the gradients of a fixed random sum of them."""
    leaves = {
        name: (x if dtype is None else x.to(dtype)).detach().requires_grad_()
        for name, x in inputs.items()
    }
    outputs = function(**leaves)
    g = torch.Generator().manual_seed(1)
    loss = sum((x * torch.randn(x.shape, generator=g).to(x.dtype)).sum() for x in outputs)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    names = ["out", "last", *(f"d{name}" for name in leaves)]
    return dict(zip(names, [*outputs, *gradients], strict=True))


def assert_close(got, want, tolerance=TOLERANCE):
    for name, x in want.items():
        assert got[name].shape == x.shape, name
        error = (got[name].double() - x.double()).abs().max()
        assert error <= tolerance * x.double().abs().max() + 1e-12, (name, error.item())


def agree(run, inputs, **options):
    """Values and gradients of the kernel against the pure-torch form in fp64."""
    want = with_gradients(run(**options, backend="naive"), inputs, torch.float64)
    assert_close(with_gradients(run(**options), inputs), want)


def run_scan(lengths=None, reverse=False, softplus=True, backend="cpu"):
    return lambda **x: selective_scan_fn(
        **x,
        delta_softplus=softplus,
        return_last_state=True,
        lengths=lengths,
        reverse=reverse,
        backend=backend,
    )


def run_conv(lengths=None, reverse=False, activation=None, backend="cpu"):
    return lambda **x: causal_conv1d_fn(
        **x,
        activation=activation,
        return_final_states=True,
        lengths=lengths,
        reverse=reverse,
        backend=backend,
    )


# batch, channels, time, states: odd lengths, chunks that just fit, blocks that are not full.
SCAN_SHAPES = [
    (1, 1, 1, 1),
    (2, 5, 67, 3),
    (2, 16, 64, 8),
    (3, 33, 71, 16),
    (2, 33, 129, 16),
    (1, 70, 65, 64),
    (1, 130, 37, 70),
    (1, 5, 131, 256),
    (8, 257, 45, 5),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time_major", [True, False])
@pytest.mark.parametrize("shape", SCAN_SHAPES, ids=str)
def test_scan_matches_truth(shape, time_major, reverse):
    lengths = torch.tensor(([shape[2], shape[2] // 2, 0] * 3)[: shape[0]])
    agree(run_scan, scan_inputs(*shape, time_major), lengths=lengths, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_scan_matches_truth_in_groups(groups, reverse):
    agree(run_scan, scan_inputs(2, 30, 66, 9, groups=groups), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("segments", [2, 3, 50])
def test_scan_in_segments_of_time(segments, reverse, monkeypatch):
    """Pieces side by side: some end in the middle of a sequence, some are empty."""
    monkeypatch.setattr(scan_cpu, "_segments", lambda *_: segments)
    inputs = scan_inputs(3, 37, 230, 13)
    agree(run_scan, inputs, lengths=torch.tensor([230, 65, 0]), reverse=reverse)


def test_segments_on_two_threads(monkeypatch):
    monkeypatch.setattr(scan_cpu, "_segments", lambda *_: 5)
    inputs = scan_inputs(2, 64, 700, 16)  # enough for the second thread to be used
    lengths = torch.tensor([700, 333])
    torch.set_num_threads(2)
    want = with_gradients(run_scan(lengths, backend="naive"), inputs, torch.float64)
    first = with_gradients(run_scan(lengths), inputs)
    assert_close(first, want)
    for name, x in with_gradients(run_scan(lengths), inputs).items():
        assert torch.equal(x, first[name]), name


@pytest.mark.parametrize("shift", [-12.0, 1000.0])
def test_scan_matches_truth_at_extreme_steps(shift):
    """Steps of e^-12 (next to nothing happens) and 1000 (everything is forgotten at once)."""
    inputs = scan_inputs(2, 17, 70, 6)
    inputs["delta"] = inputs["delta"] + shift
    agree(run_scan, inputs)


def test_scan_b_in_one_group_and_c_in_two():
    inputs = scan_inputs(2, 12, 20, 4, groups=2)
    inputs["B"] = inputs["B"][:, 0].contiguous()
    agree(run_scan, inputs)


def test_scan_of_expanded_and_strided_inputs():
    inputs = scan_inputs(2, 10, 21, 4)
    inputs["u"] = torch.randn(2, 10, 1).expand(2, 10, 21)
    inputs["delta"] = torch.randn(2, 42, 20)[:, ::2, ::2].transpose(1, 2)
    inputs["z"] = torch.randn(2, 1, 21).expand(2, 10, 21)
    agree(run_scan, inputs, lengths=torch.tensor([7, 0, 21, 0])[::2])


def test_exp_is_accurate_over_its_whole_range():
    """One frame without input leaves exp(A) of the state."""
    exponents = torch.cat([-torch.logspace(-8, 3, 251), torch.tensor([0.0, -87.3, -1e30, -3e38])])
    A = exponents.repeat(16, 1)
    one, matrix = torch.ones(1, 16, 1), torch.zeros(1, A.shape[1], 1)
    state = torch.ones(1, *A.shape)
    run = run_scan(softplus=False)
    _, last = run(u=one, delta=one, A=A, B=matrix, C=matrix, initial_state=state)
    want = torch.exp(exponents.double())
    error = (last[0].double() - want).abs()
    # The exponent itself is rounded to fp32 twice. Below the normal numbers, zero is right.
    assert (error <= want * (2e-7 + 1.2e-7 * exponents.double().abs()) + 1.2e-38).all()
    assert (last[0, :, exponents == 0] == 1).all()
    assert (last[0, :, exponents < -1e3] == 0).all()


def test_slow_decay_over_a_long_time():
    """Each frame forgets a thousandth: an error of the decay adds up over the thousands."""
    inputs = scan_inputs(1, 16, 15000, 1)
    inputs["A"] = torch.full((16, 1), -1.0)
    inputs["delta"] = 0.1 * inputs["delta"]
    inputs["delta_bias"] = torch.full((16,), -6.9)
    want = with_gradients(run_scan(backend="naive"), inputs, torch.float64)
    assert_close(with_gradients(run_scan(), inputs), want)


def test_uninitialised_memory_is_never_read():
    """Torch fills what it allocates with NaN in this mode."""
    lengths = torch.tensor([70, 9])
    scan, conv = scan_inputs(2, 20, 70, 5), conv_inputs(2, 20, 70, 4)
    torch.use_deterministic_algorithms(True)
    try:
        results = [
            with_gradients(run_scan(lengths), scan),
            with_gradients(run_conv(lengths, activation="silu"), conv),
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for result in results for x in result.values())


def test_scan_in_bf16():
    inputs = scan_inputs(2, 40, 70, 8)
    low = {k: v.bfloat16() if k in ("u", "delta", "z", "B", "C") else v for k, v in inputs.items()}
    got = with_gradients(run_scan(), low)
    assert got["out"].dtype == got["du"].dtype == got["dB"].dtype == torch.bfloat16
    assert got["last"].dtype == got["dA"].dtype == torch.float32
    exact = with_gradients(run_scan(), {k: v.float() for k, v in low.items()})
    assert_close(got, exact, tolerance=2**-7)
    assert torch.equal(got["last"], exact["last"])
    assert torch.equal(got["out"].detach(), exact["out"].detach().bfloat16())


def test_library_checks_lengths_itself():
    x = list(scan_inputs(1, 4, 5, 2).values())
    for length in (-1, 6):
        with pytest.raises(ValueError, match="length"):
            torch.ops.mambaasr.selective_scan(*x, torch.tensor([length]), True, False, False)


@pytest.mark.parametrize("numbers", [5, 7])
def test_library_refuses_a_record_of_another_size(numbers):
    with pytest.raises(RuntimeError, match=r"args\.h"):
        call.call("sum", *[0] * numbers)


# rows, inputs, outputs: tiles that are not full, sums in several pieces, a task's last outputs
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 67, 5), (7, 64, 9), (13, 1030, 6), (29, 2049, 22)]
)
@pytest.mark.parametrize("biased", [False, True])
def test_product_matches_truth(shape, biased, monkeypatch):
    rows, inputs, outputs = shape
    g = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2 * inputs, generator=g)[:, :inputs]
    weight = torch.randn(outputs, inputs, generator=g)
    bias = torch.randn(outputs, generator=g) if biased else None
    want = x.double() @ weight.double().t() + (bias.double() if biased else 0)
    whole = product(x, weight, bias)
    assert torch.allclose(whole.double(), want, atol=1e-6 * inputs**0.5 * 4)
    monkeypatch.setattr(call, "SMALL", 0)
    torch.set_num_threads(3)
    assert torch.equal(product(x, weight, bias), whole)
    assert torch.equal(product(x[rows // 2 :], weight, bias), whole[rows // 2 :])


@pytest.mark.parametrize("size", ["batch", "channels", "time"])
def test_scan_of_nothing(size):
    shape = {"batch": 2, "channels": 4, "time": 5} | {size: 0}
    inputs = scan_inputs(**shape, states=3)
    got = with_gradients(run_scan(), inputs)
    assert got["out"].shape == inputs["u"].shape
    assert torch.equal(got["last"], inputs["initial_state"]) or size != "time"
    assert all(got[f"d{k}"].shape == v.shape for k, v in inputs.items())
    assert not got["dA"].any()


def test_results_do_not_depend_on_threads():
    """Bitwise equal from run to run and, where no thread is idle, for any number of threads."""
    scan, conv = scan_inputs(2, 300, 150, 16), conv_inputs(2, 300, 150, 4)
    results = []
    for n in (1, 2, 2, 3):
        torch.set_num_threads(n)
        results.append(
            with_gradients(run_scan(), scan)
            | {f"conv {k}": v for k, v in with_gradients(run_conv(), conv).items()}
        )
    for result in results[1:]:
        for name, x in results[0].items():
            assert torch.equal(result[name], x), name


@pytest.mark.parametrize("states", [16, 256])
def test_scan_memory_is_proportional_to_the_input(states):
    """No tensor of batch x time x channel x state, in neither pass."""
    u, *rest = scan_inputs(2, 512, 1000, states).values()
    inputs = (u, *rest, None, True, False)  # no lengths, softplus, not reversed
    with LargestTensor() as watch:  # inside the op, which the mode cannot look into
        out, last, saved = scan_cpu._forward(*inputs, True)
        scan_cpu._backward(out, last, saved, *inputs)
    assert u.nbytes <= watch.largest <= 4.2 * u.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_update_in_place_of_a_view(dtype):
    inputs = scan_inputs(2, 8, 1, 4)
    memory = torch.randn(5, 8, 4).to(dtype)
    want, untouched = memory.clone(), memory[[0, 3, 4]].clone()
    x = [inputs[k].squeeze(-1) for k in ("u", "delta")]
    args = (*x, inputs["A"], *(inputs[k].squeeze(-1) for k in ("B", "C")))
    selective_state_update(memory[1:3], *args, backend="cpu")
    state = want[1:3].float()
    selective_state_update(state, *args, backend="naive")
    assert_close({"state": memory[1:3]}, {"state": state.to(dtype)})
    assert torch.equal(memory[[0, 3, 4]], untouched)


def conv_inputs(batch, channels, time, width, time_major=True):
    g = torch.Generator().manual_seed(0)
    return {
        "x": rows(g, batch, channels, time, time_major),
        "weight": torch.randn(channels, width, generator=g),
        "bias": torch.randn(channels, generator=g),
        "initial_states": torch.randn(batch, channels, width - 1, generator=g),
    }


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time_major", [True, False])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(
    "shape", [(3, 33, 71, 4), (2, 70, 128, 2), (2, 5, 2, 5), (1, 16, 65, 3), (2, 1, 9, 8)], ids=str
)
def test_conv_matches_truth(shape, activation, time_major, reverse):
    inputs = conv_inputs(*shape, time_major)
    lengths = torch.tensor([shape[2], 1, 0][: shape[0]])
    agree(run_conv, inputs, lengths=lengths, reverse=reverse, activation=activation)


def test_conv_in_bf16():
    inputs = conv_inputs(2, 40, 70, 4)
    inputs["x"] = inputs["x"].bfloat16()
    got = with_gradients(run_conv(activation="silu"), inputs)
    assert got["out"].dtype == got["dx"].dtype == torch.bfloat16
    exact = with_gradients(run_conv(activation="silu"), inputs | {"x": inputs["x"].float()})
    assert_close(got, exact, tolerance=2**-7)


@pytest.mark.parametrize("op", ["scan", "conv"])
def test_torch_knows_the_op(op):
    """Schema, autograd registration, shapes and strides without data, and AOT dispatch."""
    if op == "scan":
        x = [v.requires_grad_() for v in scan_inputs(2, 6, 9, 3).values()]
        args = (*x, torch.tensor([9, 4]), True, False, True)
        torch.library.opcheck(torch.ops.mambaasr.selective_scan.default, args)
    else:
        x = [v.requires_grad_() for v in conv_inputs(2, 6, 9, 3).values()]
        args = (*x, torch.tensor([9, 4]), True, False)
        torch.library.opcheck(torch.ops.mambaasr.causal_conv1d.default, args)


def test_export_keeps_the_op():
    class Model(torch.nn.Module):
        def forward(self, u, delta, A, B, C):
            return selective_scan_fn(u, delta, A, B, C, delta_softplus=True, backend="cpu")

    inputs = tuple(scan_inputs(2, 6, 9, 3).values())[:5]
    program = torch.export.export(Model(), inputs)
    assert "mambaasr.selective_scan" in program.graph_module.code
    assert torch.equal(program.module()(*inputs), Model()(*inputs))


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx512", "avx2", "scalar"])
def test_every_instruction_set(isa):
    """The comparisons above, in a process that is held to one instruction set."""
    env = {**os.environ, "MAMBAASR_ISA": isa}
    probe = "from mambaasr.ops.native import build; print(build.load()[0].mambaasr_isa().decode())"
    said = subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, text=True)
    if "cannot run" in said.stderr:
        pytest.skip(said.stderr.splitlines()[-1])
    assert said.stdout.strip() == isa
    names = ("native", "selective_scan", "causal_conv1d", "ctc_prefix")
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in names]
    selected = "(cpu or product or scan or conv or ctc or exp_is or uninit or bf16 or threads)"
    selected += " and not (naive or absent)"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    result = subprocess.run([*command, "-k", selected], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """No library yet; new ones go to a folder of the test's own."""
    monkeypatch.setattr(build, "directories", lambda: [tmp_path])
    return tmp_path


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)


def test_no_compiler(elsewhere, no_compiler, monkeypatch):
    library, reason = build.load.__wrapped__()
    assert library is None
    assert "no C++ compiler" in reason and "install" in reason
    monkeypatch.setattr(build, "load", lambda: (None, reason))
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run: no C\+\+ compiler"):
        run_scan()(**scan_inputs(1, 4, 5, 2))
    out, _ = run_scan(backend="auto")(**scan_inputs(1, 4, 5, 2))
    assert torch.equal(out, run_scan(backend="naive")(**scan_inputs(1, 4, 5, 2))[0])


def test_compiler_that_fails(elsewhere, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    library, reason = build.load.__wrapped__()
    assert library is None and "false: exit status 1" in reason
    monkeypatch.setenv("CXX", "no-such-compiler --fast")
    assert "no-such-compiler" in build.load.__wrapped__()[1]
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_broken_library_is_built_anew(elsewhere):
    whole = build.build()
    content = whole.read_bytes()
    assert build.find_library() == whole
    for damaged in (content[: len(content) // 2], b"", content[:-1] + b"?"):
        whole.write_bytes(damaged)
        assert build.find_library() is None
    library, reason = build.load.__wrapped__()
    assert reason is None and library.mambaasr_isa()
    assert whole.read_bytes() == content


def test_library_needs_no_torch():
    """A plain C interface: it loads in a Python that knows nothing of torch."""
    script = (
        "import ctypes, sys; lib = ctypes.CDLL(sys.argv[1]); "
        "assert lib.mambaasr_init(b'') == 0 and 'torch' not in sys.modules"
    )
    command = [sys.executable, "-I", "-c", script, str(build.find_library())]
    subprocess.run(command, check=True)
