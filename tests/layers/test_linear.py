"""Linear layers on oneDNN compute what torch computes."""

import pytest
import torch
import torch.nn.functional as F

import mambaasr.layers.linear as module
from mambaasr.layers.linear import Linear, linear

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


def test_no_frames_other_dtypes_and_autocast(sizes):
    layer = Linear(8, 4)
    assert layer(torch.zeros(2, 0, 8)).shape == (2, 0, 4)
    assert layer(torch.zeros(0, 3, 8)).shape == (0, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 3, 8)).dtype == torch.bfloat16
    assert Linear(8, 4).double()(torch.randn(2, 3, 8).double()).dtype == torch.float64


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
    assert Linear(256, 1024)(torch.randn(1, 100, 256)).shape == (1, 100, 1024)


def test_a_single_row_without_a_batch(sizes):
    torch.manual_seed(0)
    layer = Linear(2048, 1100)
    x = torch.randn(2048)
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-4)
