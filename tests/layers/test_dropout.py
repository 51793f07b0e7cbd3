"""Dropout keeps the rate, the mean and the gradient."""

import pytest
import torch

from mambaasr.layers.dropout import Dropout


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
