"""Every backend of Mamba-2's scan against the equations, values and gradients."""

import itertools
import sys
import types

import loops
import memory
import pytest
import torch
from scans import agree
from scans import with_gradients as run
from sequences import poisoned
from torch._subclasses import FakeTensorMode

from mambaasr.ops import dispatch, mamba_chunk_scan_combined
from mambaasr.ops.gpu import attempt
from mambaasr.ops.native import build as native
from mambaasr.ops.ssd import IMPLEMENTATIONS, chunks, cpu, cuda, products

BACKENDS = [
    name for name, module in IMPLEMENTATIONS.items() if module.unavailable(torch.zeros(1)) is None
]
# What `cpu` does where it does not take the Mamba-1 kernel.
BACKENDS.append("cpu by products")
SEQUENCES = ("x", "dt", "B", "C", "z")
UNLIMITED = (0.0, float("inf"))


def make(batch=3, time=17, heads=4, headdim=3, states=5, groups=2, seed=0, wide=False):
    """Random inputs in fp64, by the names of ``mamba_chunk_scan_combined``."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return dict(
        x=normal(batch, time, heads, headdim),
        dt=normal(batch, time, heads) - 1,
        A=-torch.exp(normal(heads) * 0.7),
        B=normal(batch, time, groups, states),
        C=normal(batch, time, groups, states),
        D=normal(heads, headdim) if wide else normal(heads),
        z=normal(batch, time, heads, headdim),
        dt_bias=normal(heads) * 0.3,
        initial_states=normal(batch, heads, headdim, states),
    )


def scan(backend, chunk_size=64, softplus=True, limit=UNLIMITED, **options):
    name, _, by_products = backend.partition(" by ")

    def function(**inputs):
        with pytest.MonkeyPatch.context() as patch:
            if by_products:
                patch.setattr(cpu, "_kernel_is_faster", lambda *_: False)
            return mamba_chunk_scan_combined(
                **inputs,
                chunk_size=chunk_size,
                dt_softplus=softplus,
                dt_limit=limit,
                return_final_states=True,
                backend=name,
                **options,
            )

    return function


def truth(softplus=True, limit=UNLIMITED, lengths=None, reverse=False):
    options = dict(softplus=softplus, limit=limit, lengths=lengths, reverse=reverse)
    return lambda **inputs: loops.ssd(**inputs, **options)


def check(backend, inputs, tolerance=1e-5, **options):
    expected = run(truth(**options), inputs, torch.float64)
    agree(run(scan(backend, **options), inputs), expected, tolerance)


@pytest.fixture
def small_pieces(monkeypatch):
    """Chunks and tiles so small that short sequences have several of both."""

    def sizes(batch, time, *_):
        return chunks.Sizes(4, 2, 2)

    monkeypatch.setattr(cpu, "_sizes", sizes)
    monkeypatch.setattr(products, "_sizes", sizes)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [17, 5, 9], [0, 1, 17], [8, 16, 12]])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_values_and_gradients(backend, reverse, lengths, groups, small_pieces):
    lengths = None if lengths is None else torch.tensor(lengths)
    check(backend, make(groups=groups), lengths=lengths, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [1, 4, 7, 8, 9, 12, 16])
def test_boundaries_of_chunks_and_tiles(reverse, time, small_pieces):
    check("cpu by products", make(time=time), reverse=reverse)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "absent",
    [
        c
        for n in range(5)
        for c in itertools.combinations(["D", "z", "dt_bias", "initial_states"], n)
    ],
)
def test_every_option_may_be_absent(backend, absent):
    inputs = make(time=7, wide=True) | dict.fromkeys(absent)
    inputs["dt"] = inputs["dt"].abs() * 0.1 + 1
    check(backend, inputs, softplus=False)


@pytest.fixture(scope="module")
def long_inputs():
    """Inputs and the equations' answer at lengths that no chunk divides; slow, so made once."""
    made = {}

    def get(time, reverse):
        if (time, reverse) not in made:
            inputs = make(2, time, 2, 5, 6, 1)
            lengths = torch.tensor([time, time - time // 3])
            options = dict(lengths=lengths, reverse=reverse)
            made[time, reverse] = (
                inputs,
                options,
                run(truth(**options), inputs, torch.float64),
            )
        return made[time, reverse]

    return get


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("time, reverse", [(63, False), (64, True), (129, True), (500, False)])
def test_odd_lengths(backend, time, reverse, long_inputs):
    inputs, options, expected = long_inputs(time, reverse)
    agree(run(scan(backend, **options), inputs), expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 300, 8, 64, 64, 1), (9, 70, 6, 16, 128, 3)])
def test_real_sizes_equal_the_naive_form(shape, reverse):
    inputs = make(*shape)
    expected = run(scan("naive", reverse=reverse), inputs, torch.float64)
    for backend in ("cpu", "cpu by products", "torch"):
        agree(run(scan(backend, reverse=reverse), inputs), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [-30.0, 25.0, 400.0])
def test_extreme_step_sizes(backend, shift):
    inputs = make()
    inputs["dt"] = inputs["dt"] + shift
    expected, actual = run(truth(), inputs, torch.float64), run(scan(backend), inputs)
    if shift == 400.0:  # all is forgotten at once
        assert expected.pop("dA").abs().max() < actual.pop("dA").abs().max() + 1e-25 < 1e-20
    agree(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("A", [-1e-8, -1e4])
def test_extreme_decays(backend, A):
    inputs = make()
    inputs["A"] = torch.full_like(inputs["A"], A)
    expected = run(truth(), inputs, torch.float64)
    actual = run(scan(backend), inputs)
    if A < -1:
        # The gradient of A is below 1e-40 where all is forgotten at once.
        assert actual.pop("dA").abs().max() < 1e-30
        assert expected.pop("dA").abs().max() < 1e-30
    agree(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_frame_that_forgets_all_leaves_the_others_exact(backend, reverse):
    inputs = make(1, 60, 2, 4, 4, 1)
    inputs["dt"][:, ::7] += 3000
    check(backend, inputs, reverse=reverse)


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_sizes_are_limited(backend):
    limit = (0.2, 0.5)
    inputs = make()
    unlimited, limited = (run(scan(backend, limit=each), inputs) for each in (UNLIMITED, limit))
    assert not torch.allclose(limited["out"], unlimited["out"], atol=1e-2)
    check(backend, inputs, limit=limit)
    inputs["dt"][0] = -1.0
    check(backend, inputs | {"dt_bias": None}, softplus=False)  # negative steps become 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_garbage_in_padding_has_no_effect(backend, reverse, small_pieces):
    lengths = torch.tensor([17, 0, 6])
    clean, dirty = make(), make()
    for name in SEQUENCES:
        dirty[name] = poisoned(dirty[name], lengths)
    options = dict(lengths=lengths, reverse=reverse)
    want, got = (run(scan(backend, **options), inputs) for inputs in (clean, dirty))
    for name, x in got.items():
        assert torch.equal(x, want[name]), name
        if name in ("out", *(f"d{each}" for each in SEQUENCES)):
            for b, length in enumerate(lengths.tolist()):
                assert (x[b, length:] == 0).all(), name
    assert torch.equal(got["last"][1], make()["initial_states"][1].float())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_at_padding_has_no_effect(backend):
    inputs = {name: value.float().requires_grad_() for name, value in make().items()}
    out, _ = scan(backend, lengths=torch.tensor([17, 0, 6]))(**inputs)
    weight = torch.ones_like(out)
    clean = torch.autograd.grad(out, list(inputs.values()), weight, retain_graph=True)
    weight[1], weight[2, 6:] = float("nan"), float("nan")
    for a, b in zip(clean, torch.autograd.grad(out, list(inputs.values()), weight), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_frames_no_sequences(backend):
    inputs = make(time=0)
    got = run(scan(backend), inputs)
    assert got["out"].shape == (3, 0, 4, 3)
    assert torch.equal(got["last"], inputs["initial_states"].float())
    assert got["dinitial_states"].abs().min() > 0 and (got["dA"] == 0).all()
    got = run(scan(backend), inputs | {"initial_states": None})
    assert (got["last"] == 0).all() and (got["dD"] == 0).all()
    got = run(scan(backend), make(batch=0))
    assert got["out"].shape == (0, 17, 4, 3) and got["last"].shape == (0, 4, 3, 5)
    assert (got["dD"] == 0).all() and (got["dA"] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts_agree(backend):
    inputs = {name: value.float() for name, value in make(time=40).items()}
    plain, state = scan(backend)(**inputs)
    for name in SEQUENCES:
        value = inputs[name]
        inputs[name] = torch.cat([value, torch.full_like(value, 7)], -1)[..., : value.shape[-1]]
    inputs["x"] = inputs["x"].transpose(1, 2).contiguous().transpose(1, 2)
    again, again_state = scan(backend)(**inputs)
    assert torch.allclose(plain, again, atol=1e-6)
    assert torch.allclose(state, again_state, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_result_depends_on_sizes_by_rounding_alone(reverse, monkeypatch):
    inputs, results = make(time=50), []
    for sizes in ((50, 1, 3), (1, 50, 1), (16, 2, 2), (7, 1, 3)):
        monkeypatch.setattr(cpu, "_sizes", lambda *_, sizes=sizes: chunks.Sizes(*sizes))
        results.append(run(scan("cpu by products", reverse=reverse), inputs))
    for result in results[1:]:
        agree(result, results[0])
    monkeypatch.undo()
    first = run(scan("cpu by products", 8, reverse=reverse), inputs)
    agree(run(scan("cpu by products", 256, reverse=reverse), inputs), first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_are_bitwise_equal(backend):
    inputs = make(4, 200, 4, 32, 32, 1)
    first, second = (run(scan(backend), inputs) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_equal_the_whole_gradients_too(backend, reverse):
    inputs = {name: value.float().requires_grad_() for name, value in make(time=23).items()}
    function = scan(backend, reverse=reverse)
    whole, last = function(**inputs)
    expected = torch.autograd.grad(whole.sum() + last.sum(), list(inputs.values()))
    bounds = [(0, 1), (1, 9), (9, 23)]
    state, outs = inputs["initial_states"], {}
    for low, high in reversed(bounds) if reverse else bounds:
        piece = {
            name: value[:, low:high] if name in SEQUENCES else value
            for name, value in inputs.items()
        }
        outs[low], state = function(**(piece | {"initial_states": state}))
    pieces = torch.cat([outs[low] for low, _ in bounds], dim=1)
    assert torch.allclose(pieces, whole, atol=1e-5)
    assert torch.allclose(state, last, atol=1e-5)
    grads = torch.autograd.grad(pieces.sum() + state.sum(), list(inputs.values()))
    for name, grad, want in zip(inputs, grads, expected, strict=True):
        assert loops.close(grad, want), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gate", [False, True])
def test_bf16_input_keeps_an_fp32_state(backend, gate):
    inputs = {name: value.float() for name, value in make(time=70).items()}
    for name in SEQUENCES:
        inputs[name] = inputs[name].bfloat16()
    if not gate:
        inputs["z"] = None
    wide = {name: None if value is None else value.double() for name, value in inputs.items()}
    expected = run(truth(), wide, torch.float64)
    leaves = {n: v.requires_grad_() for n, v in inputs.items() if v is not None}
    out, state = scan(backend)(**inputs)
    assert out.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert loops.close(out, expected["out"], 4e-3)  # a rounding to bf16
    assert loops.close(state, expected["last"], 1e-5)
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=random, dtype=torch.float64) for x in (out, state)]
    total = (out.double() * weights[0]).sum() + (state.double() * weights[1]).sum()
    for name, grad in zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True):
        assert grad.dtype == leaves[name].dtype
        assert loops.close(grad, expected[f"d{name}"], 1e-2), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend, small_pieces):
    inputs = make(2, 9, 2, 2, 2, 1)
    leaves = [value.requires_grad_() for value in inputs.values()]
    function = scan(backend, lengths=torch.tensor([9, 5]), reverse=True)
    assert torch.autograd.gradcheck(
        lambda *values: function(**dict(zip(inputs, values, strict=True))), leaves
    )


@pytest.mark.parametrize("lengths", [None, [17, 5, 0]])
@pytest.mark.parametrize("absent", [[], ["D", "z", "initial_states"]])
def test_the_op_is_well_formed(lengths, absent, small_pieces):
    inputs = make() | dict.fromkeys(absent)
    tensors = {
        name: None if inputs[name] is None else inputs[name].float().requires_grad_()
        for name in ("x", "dt", "A", "B", "C", "D", "z", "initial_states")
    }
    tensors["A"] = torch.randn(3, 17, 4, requires_grad=True)
    lengths = None if lengths is None else torch.tensor(lengths)
    arguments = (*tensors.values(), lengths, False, [4, 2, 2], True)
    torch.library.opcheck(torch.ops.mambaasr.ssd.default, arguments)


def test_fewer_states_or_frames_go_through_the_mamba_1_kernel(monkeypatch):
    taken = []
    kernel = cpu._by_kernel
    monkeypatch.setattr(cpu, "_by_kernel", lambda *a: taken.append(1) or kernel(*a))
    for time, states, wide in ((200, 64, 0), (200, 65, 0), (30, 65, 0), (30, 4, 1)):
        inputs = make(1, time, 2, 4, states, 1)
        x = {name: value if wide else value.float() for name, value in inputs.items()}
        mamba_chunk_scan_combined(**x, chunk_size=64)
        taken.append(0)
    assert taken == ([1, 0, 0, 1, 0, 0] if native.load()[0] else [0] * 4)


def test_on_a_gpu_without_mamba_ssm_it_goes_in_chunks():
    """Shapes and devices without a GPU: all that is made lies where the inputs do."""
    with FakeTensorMode(), torch.device("cuda"):
        inputs = dict(
            x=torch.empty(3, 150, 4, 8),
            dt=torch.empty(3, 150, 4),
            A=torch.empty(4),
            B=torch.empty(3, 150, 2, 6),
            C=torch.empty(3, 150, 2, 6),
            D=torch.empty(4),
            z=torch.empty(3, 150, 4, 8),
        )
        lengths = torch.empty(3, dtype=torch.int64)
        assert dispatch.choose("ssd", inputs["x"], IMPLEMENTATIONS) is products
        out, last = mamba_chunk_scan_combined(
            **inputs, chunk_size=64, lengths=lengths, return_final_states=True
        )
        assert out.device.type == last.device.type == "cuda" and out.shape == (3, 150, 4, 8)
        # The op as torch sees it has shapes alone; here is what it runs.
        x, dt, A, B, C, D, z = inputs.values()
        op = (x, dt, dt * A, B, C, D, z, None, None, True, list(products._sizes(*x.shape)))
        out, last, y, saved = products._forward(*op, True)
        grads = products._backward(out, last, y, saved, *op)
        assert all(g.device.type == "cuda" for g in (out, last, *grads))


@pytest.mark.parametrize("backend, op", [("torch", "ssd"), ("cpu", "selective_scan")])
def test_export_sees_one_op(backend, op):
    inputs = {name: value.float() for name, value in make(time=70).items()}

    class Model(torch.nn.Module):
        def forward(self, **inputs):
            return mamba_chunk_scan_combined(
                **inputs, chunk_size=64, return_final_states=True, backend=backend
            )

    program = torch.export.export(Model(), (), inputs)
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count(f"mambaasr.{op}.default") == 1
    assert torch.allclose(program.module()(**inputs)[0], Model()(**inputs)[0])


@pytest.mark.parametrize("training", [False, True])
def test_memory_is_no_tensor_of_time_by_channel_by_state(training):
    """No single allocation is near batch x time x head x headdim x state, in neither pass."""
    inputs = make(1, 3000, 8, 16, 128, 1)
    x, A, B, C, D, z = (inputs[name].float() for name in ("x", "A", "B", "C", "D", "z"))
    dt = inputs["dt"].float().exp()
    tensors = (x, dt, dt * A, B, C, D, z, None, None)  # no first state, no lengths
    sizes = list(cpu._sizes(*x.shape, B.shape[3], None))
    with memory.LargestTensor() as watch:  # inside the op, which the mode cannot look into
        out, _, y, saved = products._forward(*tensors, False, sizes, training)
        if training:
            products._backward(torch.ones_like(out), None, y, saved, *tensors, False, sizes)
    assert x.nbytes <= watch.largest <= 2 * x.nbytes


@pytest.fixture
def forget_imports():
    """What a test puts into sys.modules is looked for anew, and forgotten after it."""
    attempt.cache_clear()
    yield
    attempt.cache_clear()


class StandIn(types.ModuleType):
    """What mamba_ssm would offer: no lengths, no direction; computes by the naive form."""

    def __init__(self, calls):
        super().__init__(cuda.MODULE)
        self.calls = calls

    def mamba_chunk_scan_combined(self, x, dt, A, B, C, chunk_size, **options):
        assert set(options) <= {
            *("D", "z", "dt_bias", "initial_states", "seq_idx", "cu_seqlens", "dt_softplus"),
            *("dt_limit", "return_final_states", "return_varlen_states"),
        }
        for tensor in (x, dt, B, C, options["z"]):
            assert tensor is None or torch.isfinite(tensor).all()
        self.calls.append(chunk_size)
        return mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, backend="naive", **options)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [17, 0, 6]])
@pytest.mark.parametrize("absent", [[], ["D", "z", "dt_bias", "initial_states"]])
def test_lengths_and_direction_of_mamba_ssm(reverse, lengths, absent, monkeypatch, forget_imports):
    calls = []
    monkeypatch.setitem(sys.modules, cuda.MODULE, StandIn(calls))
    monkeypatch.setattr(cuda, "unavailable", lambda tensor: None)
    inputs = make() | dict.fromkeys(absent)
    lengths = None if lengths is None else torch.tensor(lengths)
    expected = run(truth(lengths=lengths, reverse=reverse), inputs, torch.float64)
    if lengths is not None:
        for name in SEQUENCES:
            if inputs[name] is not None:
                inputs[name] = poisoned(inputs[name], lengths)
    agree(run(scan("cuda", 32, lengths=lengths, reverse=reverse), inputs), expected)
    assert calls == [32]


def test_bad_arguments_are_named():
    good = {name: value.float() for name, value in make().items()}
    for name, value, message in (
        ("dt", torch.zeros(3, 16, 4), r"dt has shape \(3, 16, 4\), expected \(3, 17, 4\)"),
        ("B", torch.zeros(3, 17, 3, 5), "B has 3 groups, which do not divide 4 heads"),
        ("chunk_size", 0, "chunk_size is 0"),
        ("dt_limit", (1.0, 0.5), "the lowest must not exceed"),
        ("seq_idx", torch.zeros(3, 17, dtype=torch.int32), "give their lengths"),
        ("backend", "fast", "backend is 'fast'"),
    ):
        with pytest.raises(ValueError, match=message):
            mamba_chunk_scan_combined(**({"chunk_size": 64} | good | {name: value}))
