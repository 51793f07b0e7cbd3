"""The convolution module and its norms count valid frames only."""

import pytest
import torch

from mambaasr.layers.conv_module import ConvolutionModule, MaskedBatchNorm

LENGTHS = torch.tensor([12, 4])


@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize("causal", [False, True])
def test_padded_batch_equals_single_utterance(norm, causal):
    torch.manual_seed(0)
    module, x = ConvolutionModule(8, 5, norm, causal).eval(), torch.randn(2, 12, 8)
    together = module(x, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = module(x[b : b + 1, :length], LENGTHS[b : b + 1])
        assert torch.allclose(together[b, :length], alone[0], atol=1e-6)
        assert (together[b, length:] == 0).all()


def test_causal_sees_no_later_frame():
    torch.manual_seed(0)
    x = torch.randn(1, 12, 8)
    later = x.clone()
    later[:, 6:] += 1
    module = ConvolutionModule(8, 5, causal=True)
    lengths = torch.tensor([12])
    assert torch.allclose(module(x, lengths)[:, :6], module(later, lengths)[:, :6], atol=1e-6)


def test_batch_norm_statistics_ignore_padding():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 8)
    masked, plain = MaskedBatchNorm(8).train(), torch.nn.BatchNorm1d(8).train()
    dirty = x.clone()
    dirty[1, 4:] = 1000.0
    out = masked(dirty, LENGTHS)
    valid = torch.cat([x[0], x[1, :4]])
    assert torch.allclose(torch.cat([out[0], out[1, :4]]), plain(valid), atol=1e-6)
    assert torch.allclose(masked.running_var, plain.running_var)
    assert (out[1, 4:] == 0).all()


def test_impossible_options_are_named():
    with pytest.raises(ValueError, match="cnn_module_kernel is 4"):
        ConvolutionModule(8, 4)
    with pytest.raises(ValueError, match="cnn_module_norm is 'group'"):
        ConvolutionModule(8, 5, "group")


def test_batch_norm_trains_on_a_single_frame():
    norm = MaskedBatchNorm(8).train()
    out = norm(torch.randn(1, 3, 8), torch.tensor([1]))
    assert torch.isfinite(out).all() and out[0, 0].std() > 0


@pytest.mark.parametrize("kernel, causal", [(31, False), (5, True), (1, False)])
@pytest.mark.parametrize("time", [1, 2, 40])
def test_depthwise_convolution_and_its_gradients_are_torchs(kernel, causal, time):
    torch.manual_seed(0)
    module, x = ConvolutionModule(20, kernel, causal=causal), torch.randn(2, 20, time)
    x, conv = x.requires_grad_(), module.depthwise
    margins = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
    got, want = module._convolve(x), conv(torch.nn.functional.pad(x, margins))
    assert got.shape == want.shape and torch.allclose(got, want, atol=1e-5)
    tensors, grad = [x, conv.weight, conv.bias], torch.randn_like(want)
    pairs = zip(
        torch.autograd.grad(got, tensors, grad),
        torch.autograd.grad(want, tensors, grad),
        strict=True,
    )
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
