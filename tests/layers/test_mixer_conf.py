"""Every mixer in every direction: padding, pieces, steps, gradients, names, wrong options."""

import loops
import pytest
import torch
import torch.nn.functional as F
from sequences import in_pieces, poisoned

from mambaasr.layers.bidirectional import OuterBiMamba
from mambaasr.layers.mixer_conf import DIRECTIONS, MIXERS, CausalMixerConf, MixerConf

MERGES = ["sum", "mean", "concat"]
LENGTHS = torch.tensor([17, 5, 0, 9])
# kind -> variant -> options beyond the size
VARIANTS = {
    "mamba1": {"plain": {}, "biases": dict(bias=True, conv_bias=False, dt_rank=3)},
    "mamba2": {
        "plain": dict(headdim=8),
        "no norm": dict(headdim=16, rmsnorm=False, D_has_hdim=True),
        "partly": dict(headdim=4, d_ssm=32, ngroups=2, bias=True, norm_before_gate=True),
    },
}
CASES = [(mixer, variant) for mixer in VARIANTS for variant in VARIANTS[mixer]]


def conf_of(mixer, direction, **options):
    return MixerConf(direction=direction).over({"mixer": mixer} | options)


def make(mixer, direction, variant="plain", merge="sum", **options):
    torch.manual_seed(1)
    options = dict(d_state=8) | VARIANTS[mixer][variant] | options
    made = conf_of(mixer, direction, merge=merge, **options).make(24)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "D" in name or "norm" in name or "bias" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def batch(time=17):
    torch.manual_seed(0)
    return torch.randn(4, time, 24)


@pytest.mark.parametrize("mixer, variant", CASES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("merge", MERGES)
def test_padded_batch_equals_single_utterance(mixer, variant, direction, merge):
    made, x = make(mixer, direction, variant, merge), batch()
    padded = poisoned(x, LENGTHS)
    together = made(padded, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = made(x[b : b + 1, :length])
        assert alone.shape == (1, length, 24)
        assert torch.allclose(together[b, :length], alone[0], atol=2e-6)
        assert (together[b, length:] == 0).all()
    assert together[0].abs().max() > 1e-4


@pytest.mark.parametrize("mixer, variant", CASES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("merge", MERGES)
def test_every_parameter_learns_and_padding_does_not(mixer, variant, direction, merge):
    made, x = make(mixer, direction, variant, merge), batch().requires_grad_()
    made(x, LENGTHS).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
    for b, length in enumerate(LENGTHS.tolist()):
        assert (x.grad[b, length:] == 0).all()
        assert (x.grad[b, :length].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_causal_sees_no_later_frame_and_the_others_do(mixer, direction):
    made, x = make(mixer, direction), batch()
    later = x.clone()
    later[:, 10:] += 1
    change = (made(x) - made(later)).abs().amax((0, 2))
    assert made.causal == (direction == "uni")
    assert (change[:10] < 1e-6).all() if made.causal else (change[9] > 1e-4)
    assert (change[10:] > 1e-4).all()


@pytest.mark.parametrize("mixer, variant", CASES)
@pytest.mark.parametrize("direction", ["inner", "outer"])
@pytest.mark.parametrize("merge", MERGES)
def test_a_turned_mixer_gives_what_its_directions_swapped_give(mixer, variant, direction, merge):
    """Time reversed and the parameters of both directions swapped: the output is reversed."""
    one, x = make(mixer, direction, variant, merge), batch()
    two = make(mixer, direction, variant, merge)
    swap_directions(one, two)
    assert not torch.allclose(one(x), two(x), atol=1e-4)
    assert torch.allclose(one(x).flip(1), two(x.flip(1)), atol=2e-6)


def other_direction(name):
    """The name that a parameter has in the other direction."""
    module, dot, leaf = name.partition(".")
    twins = {"forward_mixer": "backward_mixer", "A_log": "A_b_log"}
    twins |= {b: a for a, b in twins.items()}
    if module in ("in_proj", "out_proj", "linear"):
        return name
    twin = module.removesuffix("_b") if module.endswith("_b") else f"{module}_b"
    return twins.get(module, twin) + dot + leaf


def swap_directions(source, target):
    """Copy the parameters with those of the two directions exchanged."""
    swapped = {other_direction(name): value for name, value in source.state_dict().items()}
    if source.merge == "concat":
        outer = isinstance(source, OuterBiMamba)
        joint, width = ("linear.weight", 24) if outer else ("out_proj.weight", source.d_ssm)
        rest = swapped[joint].shape[1] - 2 * width
        kept, first, second = swapped[joint].split([rest, width, width], dim=1)
        swapped[joint] = torch.cat([kept, second, first], dim=1)
    target.load_state_dict(swapped)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("direction", ["inner", "outer"])
def test_the_mean_is_half_of_the_sum(mixer, direction):
    total, mean = (make(mixer, direction, merge=merge) for merge in ("sum", "mean"))
    assert torch.allclose(mean(batch()), 0.5 * total(batch()), atol=1e-6)


@pytest.mark.parametrize("mixer, variant", CASES)
def test_pieces_and_steps_equal_the_whole_gradients_too(mixer, variant):
    made, x = make(mixer, "uni", variant), batch()
    whole = made(x)
    pieces, state = in_pieces(made, x, [1, 2, 9, 5])
    assert torch.allclose(pieces, whole, atol=1e-6)
    want = torch.autograd.grad(whole.square().sum(), list(made.parameters()))
    got = torch.autograd.grad(pieces.square().sum(), list(made.parameters()))
    assert all(loops.close(a, b, 1e-4) for a, b in zip(got, want, strict=True))
    stepped = made.initial_state(4, x.device, x.dtype)
    steps = torch.stack([made.step(frame, stepped) for frame in x.unbind(1)], dim=1)
    assert torch.allclose(steps, whole, atol=1e-6)
    for a, b in zip(stepped, state, strict=True):
        assert len(a) == 4 and torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("direction", ["inner", "outer"])
def test_a_mixer_that_looks_both_ways_refuses_pieces(mixer, direction):
    made = make(mixer, direction)
    for call in (
        lambda: made.initial_state(4),
        lambda: made.forward_chunk(batch(), None),
        lambda: made.step(batch()[:, 0], None),
    ):
        with pytest.raises(ValueError, match="looks both ways.*direction: uni"):
            call()


def test_names_of_the_second_direction():
    added = {
        kind: set(conf_of(kind, "inner").make(64).state_dict())
        - set(conf_of(kind, "uni").make(64).state_dict())
        for kind in MIXERS
    }
    assert added["mamba1"] == {
        "A_b_log",
        "D_b",
        "conv1d_b.weight",
        "conv1d_b.bias",
        "x_proj_b.weight",
        "dt_proj_b.weight",
        "dt_proj_b.bias",
    }
    assert added["mamba2"] == {
        "A_b_log",
        "D_b",
        "conv1d_b.weight",
        "conv1d_b.bias",
        "dt_bias_b",
        "norm_b.weight",
    }
    outer = {name.partition(".")[0] for name in make("mamba2", "outer").state_dict()}
    assert outer == {"forward_mixer", "backward_mixer"}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_takes_no_weight_decay_and_what_espnets_initialiser_spares(mixer, direction):
    from espnet2.torch_utils.initialize import initialize

    made = conf_of(mixer, direction, d_state=8, **VARIANTS[mixer]["plain"]).make(24)
    initialize(made, "xavier_uniform")
    for name, parameter in made.named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf.endswith("_log"):
            assert parameter._no_weight_decay
            assert (parameter >= 0).all() and (parameter <= 2.773).all(), name  # 1 to 16
            assert parameter.abs().max() > 0.1, name
        elif leaf in ("D", "D_b"):
            assert parameter._no_weight_decay and (parameter == 1).all(), name
        elif leaf.startswith("dt_bias") or "dt_proj" in name and leaf == "bias":
            step = F.softplus(parameter)
            assert (step > 9e-4).all() and (step < 0.11).all(), name
        elif "conv1d" in name and leaf == "weight":
            assert 0.4 < parameter.abs().max() <= 0.5, name  # 1 / sqrt(d_conv)
        elif "norm" in name:
            assert (parameter == 1).all(), name


def test_the_default_state_is_that_of_the_mixer():
    assert MixerConf(d_state=8).over({"d_state": None}).make(64).d_state == 16
    assert CausalMixerConf(mixer="mamba2").make(64).d_state == 128


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mixer", MIXERS)
def test_dropout_acts_in_training_alone(mixer, direction):
    made, x = make(mixer, direction, dropout_rate=0.5), batch()
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


def test_impossible_options_are_named():
    for mixer, options, message in (
        ("mamba3", {}, "mixer is 'mamba3'; choose one of mamba1, mamba2"),
        ("mamba1", dict(d_state=2.5), "d_state is 2.5; it must be a whole number"),
        ("mamba2", dict(expand=-1), "expand is -1"),
        ("mamba1", dict(dropout_rate=1.5), r"dropout_rate is 1.5; it must lie in \[0, 1\)"),
        ("mamba2", dict(headdim=8, dt_limit=3), r"dt_limit is 3; it must be \[lowest, highest\]$"),
        ("mamba2", dict(headdim=8, A_init_range=[0, 1]), r"A_init_range is \[0, 1\]; .* above 0$"),
        ("mamba2", dict(dt_rank=8), "'dt_rank' is no option of mamba2; choose among .*headdim"),
        ("mamba2", dict(headdim=7), "headdim is 7; it must divide d_ssm, 48"),
    ):
        with pytest.raises(ValueError, match=message):
            conf_of(mixer, "uni", **options).make(24)


def test_a_yaml_is_laid_over_defaults():
    default = MixerConf(direction="inner", merge="mean", d_state=32)
    new = default.over({"direction": "outer", "d_state": 8, "dt_rank": 3})
    assert new == MixerConf(direction="outer", merge="mean", d_state=8, options={"dt_rank": 3})
    old = default.over({"dt_rank": 3}, direction="outer", d_state=8)
    assert old == new and default.over(None) == default.over(default) == default
    assert default.over(default, mixer_dropout_rate=0.2).dropout_rate == 0.2
    assert MixerConf().over(new.as_mapping()) == new


@pytest.mark.parametrize(
    "conf, beside, message",
    [
        (5, {}, "mixer_conf is 5; it must be a mapping"),
        ({"d_state": 8}, {"d_state": 16}, r"'d_state' is 8, and d_state beside it is 16; .*once"),
        ({"direction": "both"}, {}, "direction is 'both'; choose one of uni, inner, outer"),
    ],
)
def test_what_a_mixer_conf_cannot_hold_is_named(conf, beside, message):
    with pytest.raises(ValueError, match=message):
        MixerConf().over(conf, **beside)
