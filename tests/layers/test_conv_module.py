"""The convolution module and its norms count valid frames only."""

import pytest
import torch

from mambaasr.layers.conv_module import ConvolutionModule, LookAhead, MaskedBatchNorm

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


def test_batch_norm_trains_on_a_single_frame():
    norm = MaskedBatchNorm(8).train()
    out = norm(torch.randn(1, 3, 8), torch.tensor([1]))
    assert torch.isfinite(out).all() and out[0, 0].std() > 0


def in_pieces(module, x, size, **last):
    state, pieces = module.initial_state(len(x)), []
    for piece in x.split(size, dim=1):
        y, state = module.forward_chunk(piece, state)
        pieces.append(y)
    if last:
        pieces.append(module.forward_chunk(x[:, :0], state, **last)[0])
    return torch.cat(pieces, dim=1)


def gradients(y, tensors, seed=1):
    torch.manual_seed(seed)
    return torch.autograd.grad(y, tensors, torch.randn_like(y))


@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize("kernel", [1, 2, 5, 31])
@pytest.mark.parametrize("size", [1, 3, 20])
def test_causal_pieces_of_any_size_give_what_the_whole_gives(norm, kernel, size):
    torch.manual_seed(0)
    module, x = ConvolutionModule(8, kernel, norm, causal=True), torch.randn(2, 20, 8)
    if norm == "batch_norm":
        module(x, torch.tensor([20, 20]))  # statistics that are not trivial
    module.eval()
    tensors = [x.requires_grad_(), *module.parameters()]
    whole, pieces = module(x, torch.tensor([20, 20])), in_pieces(module, x, size)
    assert torch.allclose(pieces, whole, atol=1e-6)
    for a, b in zip(gradients(pieces, tensors), gradients(whole, tensors), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_what_cannot_run_in_pieces_says_so():
    x = torch.randn(1, 4, 8)
    module = ConvolutionModule(8, 5)
    with pytest.raises(ValueError, match="looks ahead cannot run in pieces"):
        module.forward_chunk(x, module.initial_state(1))
    module = ConvolutionModule(8, 5, "batch_norm", causal=True).train()
    with pytest.raises(ValueError, match="batch_norm takes pieces in evaluation only"):
        module.forward_chunk(x, module.initial_state(1))


@pytest.mark.parametrize("kernel", [1, 5, 17])
def test_look_ahead_is_a_padded_convolution_blind_to_padding(kernel):
    torch.manual_seed(0)
    module, x = LookAhead(8, kernel, 0.0), torch.randn(2, 12, 8)
    x[1, 4:] = 0
    together = module(x, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = x[b : b + 1, :length].transpose(1, 2)
        alone = torch.nn.functional.conv1d(
            alone, module.conv.weight, module.conv.bias, padding=kernel // 2
        )
        alone = module.norm(torch.nn.functional.silu(alone.transpose(1, 2)))
        assert torch.allclose(together[b, :length], alone[0], atol=1e-6)
        assert (together[b, length:] == 0).all()


@pytest.mark.parametrize("kernel", [1, 5, 17])
@pytest.mark.parametrize("size", [1, 3, 20])
@pytest.mark.parametrize("time", [0, 1, 2, 20])
def test_look_ahead_in_pieces_comes_late_and_is_whole_at_the_end(kernel, size, time):
    torch.manual_seed(0)
    module, x = LookAhead(8, kernel, 0.0), torch.randn(2, time, 8)
    x.requires_grad_()
    whole = module(x, torch.tensor([time, time])) if time else x
    assert in_pieces(module, x, size).shape[1] == max(time - kernel // 2, 0)
    pieces = in_pieces(module, x, size, last=True)
    assert pieces.shape == whole.shape and torch.allclose(pieces, whole, atol=1e-6)
    if time:
        tensors = [x, *module.parameters()]
        for a, b in zip(gradients(pieces, tensors), gradients(whole, tensors), strict=True):
            assert torch.allclose(a, b, atol=1e-4)
