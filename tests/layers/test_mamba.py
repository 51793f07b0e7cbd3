"""Mixers: padding, pieces, steps, initialisation."""

import pytest
import torch

from mambaasr.layers.bidirectional import InnerBiMamba
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.mixer import make_mixer

DIRECTIONS = ["uni", "inner", "outer"]
MERGES = ["sum", "mean", "concat"]
LENGTHS = torch.tensor([17, 5, 9])


def batch():
    torch.manual_seed(0)
    return torch.randn(3, 17, 24)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("bias", [False, True])
def test_padded_batch_equals_single_utterance(direction, merge, bias):
    torch.manual_seed(1)
    mixer, x = make_mixer("mamba1", direction, 24, merge, bias=bias), batch()
    padded = x.clone()
    for b, length in enumerate(LENGTHS.tolist()):
        padded[b, length:] = float("nan")
    together = mixer(padded, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = mixer(x[b : b + 1, :length])
        assert alone.abs().max() > 1e-4
        assert torch.allclose(together[b, :length], alone[0], atol=1e-6)
        assert (together[b, length:] == 0).all()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_padding_takes_and_gives_no_gradient(direction):
    torch.manual_seed(1)
    mixer, x = make_mixer("mamba1", direction, 24, "sum"), batch().requires_grad_()
    out = mixer(x, LENGTHS)
    out[:, :5].sum().backward()
    assert x.grad[0].abs().sum() > 0
    for b, length in enumerate(LENGTHS.tolist()):
        assert (x.grad[b, length:] == 0).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in mixer.parameters())


@pytest.mark.parametrize("direction", ["inner", "outer"])
def test_bidirectional_mixers_see_later_frames_and_uni_does_not(direction):
    x = batch()
    later = x.clone()
    later[:, 10:] += 1
    torch.manual_seed(1)
    both, one = make_mixer("mamba1", direction, 24, "mean"), make_mixer("mamba1", "uni", 24, "mean")
    assert not torch.allclose(both(x)[:, :10], both(later)[:, :10], atol=1e-4)
    assert torch.allclose(one(x)[:, :10], one(later)[:, :10], atol=1e-6)


def test_pieces_and_steps_equal_the_whole_gradients_too():
    torch.manual_seed(1)
    mixer, x = Mamba(24), batch()
    whole = mixer(x)
    state, pieces = mixer.initial_state(3), []
    for piece in x.split([1, 2, 9, 5], dim=1):
        out, state = mixer.forward_chunk(piece, state)
        pieces.append(out)
    pieces = torch.cat(pieces, dim=1)
    assert torch.allclose(pieces, whole, atol=1e-6)
    want = torch.autograd.grad(whole.square().sum(), list(mixer.parameters()))
    got = torch.autograd.grad(pieces.square().sum(), list(mixer.parameters()))
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    stepped = mixer.initial_state(3)
    steps = torch.stack([mixer.step(frame, stepped) for frame in x.unbind(1)], dim=1)
    assert torch.allclose(steps, whole, atol=1e-6)
    for a, b in zip(stepped, state, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_bidirectional_mixer_refuses_pieces():
    mixer = InnerBiMamba(24)
    with pytest.raises(ValueError, match="looks both ways"):
        mixer.forward_chunk(batch(), None)
    with pytest.raises(ValueError, match="looks both ways"):
        mixer.step(batch()[:, 0], None)


def test_initialisation_is_mamba_ssms():
    torch.manual_seed(0)
    mixer = Mamba(64, d_state=8)
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1.0, 9.0).expand(128, -1))
    assert (mixer.D == 1).all()
    step = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 0.1 * 1.001
    assert step.log().std() > 1.0  # log-uniform over two decades: 1.33
    assert mixer.A_log._no_weight_decay and mixer.D._no_weight_decay


def test_parameter_names_and_shapes_are_mamba_ssms():
    shapes = {name: tuple(p.shape) for name, p in Mamba(64).state_dict().items()}
    assert shapes == {
        "A_log": (128, 16),
        "D": (128,),
        "in_proj.weight": (256, 64),
        "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,),
        "x_proj.weight": (36, 128),
        "dt_proj.weight": (128, 4),
        "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }
    extra = set(InnerBiMamba(64).state_dict()) - set(shapes)
    assert extra == {
        "A_b_log",
        "D_b",
        "conv1d_b.weight",
        "conv1d_b.bias",
        "x_proj_b.weight",
        "dt_proj_b.weight",
        "dt_proj_b.bias",
    }


@pytest.mark.parametrize("init", ["chainer", "xavier_uniform"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_espnets_initialisers_spare_the_state_space_parameters(init, direction):
    from espnet2.torch_utils.initialize import initialize

    mixer = make_mixer("mamba1", direction, 24, "sum")
    initialize(mixer, init)
    for name, parameter in mixer.named_parameters():
        if name.split(".")[-1].startswith("A"):
            assert torch.allclose(parameter.exp()[:, -1], torch.tensor(16.0)), name
        if name.split(".")[-1].startswith("D"):
            assert (parameter == 1).all(), name
        if "dt_proj" in name and name.endswith("bias"):
            assert (torch.nn.functional.softplus(parameter) > 9e-4).all(), name


def test_impossible_options_are_named():
    for options, message in (
        (dict(d_state=0), "d_state is 0"),
        (dict(d_conv=-1), "d_conv is -1"),
        (dict(dt_rank=0), "dt_rank is 0"),
        (dict(dt_init="zero"), "dt_init is 'zero'"),
    ):
        with pytest.raises(ValueError, match=message):
            Mamba(24, **options)
    with pytest.raises(ValueError, match="direction is 'both'"):
        make_mixer("mamba1", "both", 24, "sum")
    with pytest.raises(ValueError, match="merge is 'max'"):
        make_mixer("mamba1", "inner", 24, "max")


@pytest.mark.parametrize("merge, factor", [("sum", 1.0), ("mean", 0.5)])
def test_merge(merge, factor):
    torch.manual_seed(1)
    mixer, x = make_mixer("mamba1", "outer", 24, merge), batch()
    total = mixer.forward_mixer(x) + mixer.backward_mixer(x.flip(1)).flip(1)
    assert torch.allclose(mixer(x), factor * total, atol=1e-6)
