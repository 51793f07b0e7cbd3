"""Norms over channels."""

import pytest
import torch
from torch import nn

from mambaasr.layers.norm import RMSNorm, make_norm


def test_rms_norm_is_its_formula_and_keeps_zeros_and_dtype():
    torch.manual_seed(0)
    norm, x = RMSNorm(6), torch.randn(2, 3, 6)
    nn.init.normal_(norm.weight)
    want = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    assert torch.allclose(norm(x), want, atol=1e-6)
    assert (norm(torch.zeros(1, 6)) == 0).all()
    low = norm(x.bfloat16())
    assert low.dtype == torch.bfloat16
    # Computed in fp32: only what goes in and comes out is rounded.
    assert torch.equal(low, norm(x.bfloat16().float()).bfloat16())


def test_rms_norm_takes_no_weight_decay():
    assert RMSNorm(4).weight._no_weight_decay


def test_norms_by_name():
    assert type(make_norm("layer_norm", 4)) is nn.LayerNorm
    assert type(make_norm("rms_norm", 4)) is RMSNorm
    with pytest.raises(ValueError, match="norm is 'batch'; choose one of layer_norm, rms_norm"):
        make_norm("batch", 4)
