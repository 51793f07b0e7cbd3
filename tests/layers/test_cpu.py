"""The CPU's own forms compute what torch's do, and one switch turns them off."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

import mambaasr.layers.cpu as module
from mambaasr.layers.cpu import Dropout, call, conv2d, depthwise_conv, linear, set_cpu_tuning
from mambaasr.ops.native import build as native
from mambaasr.ops.native.product import product

SHAPES = [(3, 17, 5, 9), (1, 1, 7, 1), (2, 1, 1, 8), (2, 50, 96, 20), (1, 130, 24, 64)]


def check(x, weight, bias):
    tensors = [t for t in (x, weight, bias) if t is not None]
    got, want = linear(x, weight, bias), F.linear(*(t.double() for t in tensors))
    assert got.shape == want.shape and torch.allclose(got.double(), want, atol=1e-4)
    grad = torch.randn(*want.shape[:-1], 2 * want.shape[-1])[..., ::2]
    pairs = zip(
        torch.autograd.grad(got, tensors, grad),
        torch.autograd.grad(want, tensors, grad.double()),
        strict=True,
    )
    for a, b in pairs:
        assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=["every size", "its own choice"])
def sizes(request, monkeypatch):
    if request.param == "every size":
        monkeypatch.setattr(module, "SMALL", 0)


@pytest.mark.parametrize("batch, time, k, n", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_equal_torchs(sizes, batch, time, k, n, bias):
    torch.manual_seed(0)
    weight = torch.randn(n, k, requires_grad=True)
    bias = torch.randn(n, requires_grad=True) if bias else None
    whole = torch.randn(batch, time, 3 * k, requires_grad=True)
    check(whole[..., :k], weight, bias)  # rows that do not touch
    check(torch.randn(batch, k, time, requires_grad=True).transpose(1, 2), weight, bias)
    check(torch.randn(time, k, requires_grad=True), weight, bias)
    check(whole[..., :k], torch.randn(k, n, requires_grad=True).t(), bias)


def test_few_inputs(sizes):
    """The gradient of their weight goes another way, wherever it is wanted."""
    torch.manual_seed(0)
    x = torch.randn(2, 999, 7, requires_grad=True)
    weight, bias = torch.randn(224, 7, requires_grad=True), torch.randn(224, requires_grad=True)
    check(x, weight, bias)
    with torch.no_grad():
        assert not linear(x, weight, bias).requires_grad
    linear(x.detach(), weight.detach(), bias).sum().backward()
    assert torch.equal(bias.grad, torch.full((224,), 2.0 * 999))


@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_a_convolution(stride, bias):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 19, 11, requires_grad=True)
    weight = torch.randn(6, 5, 3, 3, requires_grad=True)
    tensors = [x, weight, *([torch.randn(6, requires_grad=True)] if bias else [])]
    ours = conv2d(
        x.contiguous(memory_format=torch.channels_last), *(tensors[1:] + [None])[:2], stride
    )
    want = F.conv2d(*(t.double() for t in tensors), stride=stride)
    assert torch.allclose(ours.double(), want, atol=1e-4)
    grad = torch.randn_like(ours)
    pairs = zip(
        torch.autograd.grad(ours, tensors, grad),
        torch.autograd.grad(want, tensors, grad.double()),
        strict=True,
    )
    assert all(torch.allclose(a.double(), b.double(), atol=1e-3) for a, b in pairs)


def test_no_frames_other_dtypes_and_autocast(sizes):
    layer = torch.nn.Linear(8, 4)
    assert call(layer, torch.zeros(2, 0, 8)).shape == (2, 0, 4)
    assert call(layer, torch.zeros(0, 3, 8)).shape == (0, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert call(layer, torch.randn(2, 3, 8)).dtype == torch.bfloat16
    assert call(layer.double(), torch.randn(2, 3, 8).double()).dtype == torch.float64


def test_gradients_of_gradients(monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    torch.manual_seed(0)
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)

    def second(function):
        (dx,) = torch.autograd.grad(function(x, weight).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(dx.pow(2).sum(), (x, weight))

    for a, b in zip(second(linear), second(F.linear), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_fast_path_is_taken_where_it_pays(monkeypatch):
    if not module.ONEDNN:
        pytest.skip("oneDNN is not the faster one on this processor")
    monkeypatch.setattr(F, "linear", lambda *_: pytest.fail("torch's own product was taken"))
    assert call(torch.nn.Linear(256, 1024), torch.randn(1, 100, 256)).shape == (1, 100, 1024)


def few_rows(layer, x):
    """The layer's output without gradients, and whether our own product made it."""
    taken = []
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(module, "product", lambda *a: taken.append(a) or product(*a))
        return call(layer, x), bool(taken)


@pytest.mark.skipif(native.load()[0] is None, reason="no CPU kernels")
def test_few_rows_without_gradients_are_multiplied_by_our_own_kernel(monkeypatch):
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(256, 300), torch.randn(2, 25, 512)[..., :256]
    got, taken = few_rows(layer, x)
    assert taken and torch.allclose(got, F.linear(x, layer.weight, layer.bias), atol=1e-5)
    with torch.no_grad():
        assert torch.equal(call(layer, x[1:, 3:7]), got[1:, 3:7])  # whatever is beside a row
    assert call(layer, x).requires_grad
    for other in (x.double(), x.bfloat16(), torch.randn(999, 256), torch.randn(1, 256)):
        assert not few_rows(layer.to(other.dtype), other)[1]
    layer.float()
    with torch.no_grad(), pytest.raises(RuntimeError, match="shape"):
        call(layer, torch.randn(5, 128))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert not few_rows(layer, torch.empty(3, 256))[1]
    assert torch.vmap(lambda row: few_rows(layer, row)[0])(x).shape == (2, 25, 300)
    with torch.autocast("cpu", torch.bfloat16):
        assert not few_rows(layer, x)[1]


def test_a_single_row_without_a_batch(sizes):
    torch.manual_seed(0)
    layer = torch.nn.Linear(2048, 1100)
    x = torch.randn(2048)
    assert torch.allclose(call(layer, x), F.linear(x, layer.weight, layer.bias), atol=1e-4)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.3])
@pytest.mark.parametrize("shape", [(1, 7, 13), (300, 1001)])
def test_rate_scale_and_gradient(p, shape):
    torch.manual_seed(0)
    x = torch.randn(shape).add(10).requires_grad_()
    y = Dropout(p)(x)
    kept = y != 0
    share = float(kept.double().mean())
    assert abs(share - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-5
    assert torch.allclose(y[kept], x[kept] / (1 - p), rtol=2e-5)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(grad, kept / (1 - p), rtol=2e-5)


def test_neighbours_are_independent():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(1 << 18)) != 0).double() - 0.5
    for lag in (1, 2, 3, 4, 5, 8):
        assert abs(float((kept[lag:] * kept[:-lag]).mean())) < 5 * 0.25 / 512


def test_the_seed_decides():
    layer, x = Dropout(0.2), torch.randn(4, 9, 8)
    torch.manual_seed(3)
    a, b = layer(x), layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), a) and not torch.equal(a, b)


def test_edges():
    x = torch.randn(2, 3)
    assert torch.equal(Dropout(0.3).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert (Dropout(1.0)(x) == 0).all()
    assert Dropout(0.5)(torch.zeros(0, 4)).shape == (0, 4)
    assert Dropout(0.5)(x.bfloat16()).dtype == torch.bfloat16


@pytest.fixture
def off():
    set_cpu_tuning(False)
    yield
    set_cpu_tuning(True)


def test_switched_off_everything_is_torchs(off, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    x, weight, bias = torch.randn(2, 9, 6), torch.randn(8, 6), torch.randn(8)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    torch.manual_seed(0)
    dropped = Dropout(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(dropped, torch.nn.Dropout(0.3)(x))
    image, kernel = torch.randn(1, 4, 9, 8), torch.randn(3, 4, 3, 3)
    want = F.conv2d(image, kernel, None, (2, 1))
    assert torch.allclose(conv2d(image, kernel, None, (2, 1)), want, atol=1e-5)
    taps = torch.randn(6, 1, 5)
    padded = F.pad(x.transpose(1, 2), (3, 1))
    want = F.conv1d(padded, taps, groups=6).transpose(1, 2)
    assert torch.equal(depthwise_conv(x, taps, None, 3, 1), want)
    set_cpu_tuning(True)
    assert torch.allclose(depthwise_conv(x, taps, None, 3, 1), want, atol=1e-5)


def test_the_environment_switches_it_off(monkeypatch):
    monkeypatch.setenv("MAMBAASR_CPU_TUNING", "0")
    spec = importlib.util.spec_from_file_location("cpu_again", module.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert not again.tuned(torch.zeros(1)) and module.tuned(torch.zeros(1))
