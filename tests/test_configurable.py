"""Constructors that a yaml calls: what they take, what they show, what they refuse."""

import inspect

import pytest
from espnet2.utils.get_default_kwargs import get_default_kwargs

from mambaasr.configurable import NOT_GIVEN, configurable
from mambaasr.layers.mixer_conf import CausalMixerConf, MixerConf


class Base:
    def __init__(self, size, blocks, /, rate=0.1, *, layer="conv2d"):
        self.base = dict(size=size, blocks=blocks, rate=rate, layer=layer)


@configurable(layer="linear")
class Stack(Base):
    def __init__(self, size, count=2, mixer_conf=MixerConf(direction="outer"), **rest):
        super().__init__(size, "x" * count, **rest)
        self.mixer = mixer_conf


@configurable(count=3, mixer_conf=MixerConf(direction="inner", merge="mean"))
class Other(Stack):
    pass


class Heir(Other):
    pass


@configurable()
class Causal:
    def __init__(self, size, mixer_conf=CausalMixerConf(expand=4)):
        self.mixer = mixer_conf


def test_options_reach_their_constructors():
    made = Stack(5, rate=0.3)
    assert made.base == dict(size=5, blocks="xx", rate=0.3, layer="linear")
    assert made.mixer == MixerConf(direction="outer")
    assert Stack(5, 1, layer="conv1d").base == dict(size=5, blocks="x", rate=0.1, layer="conv1d")


@pytest.mark.parametrize("cls", [Other, Heir])
def test_a_class_may_have_other_defaults(cls):
    made = cls(size=5)
    assert made.base == dict(size=5, blocks="xxx", rate=0.1, layer="linear")
    assert made.mixer == MixerConf(direction="inner", merge="mean")
    assert cls(5, 1).base["blocks"] == "x"


@pytest.mark.parametrize(
    "given",
    [
        dict(mixer_conf=dict(d_state=8, merge="sum", dropout_rate=0.2, dt_rank=3)),
        dict(d_state=8, merge="sum", mixer_dropout_rate=0.2, mixer_conf=dict(dt_rank=3)),
        dict(d_state=8, mixer_conf=dict(merge="sum", dropout_rate=0.2, dt_rank=3)),
    ],
)
def test_the_mixers_options_may_stand_inside_or_beside(given):
    want = dict(direction="inner", merge="sum", d_state=8, dropout_rate=0.2)
    assert Other(5, **given).mixer == MixerConf(**want, options={"dt_rank": 3})


def test_null_beside_mixer_conf_is_a_value():
    sized = configurable(mixer_conf=CausalMixerConf(d_state=256))(type("Sized", (Causal,), {}))
    assert sized(1).mixer.d_state == 256
    assert sized(1, d_state=None).mixer.d_state is None
    assert Causal(1).mixer.expand == 4


@pytest.mark.parametrize(
    "cls, given, error",
    [
        (Other, dict(size=5, laier="linear"), "Other: got an unexpected keyword argument 'laier'"),
        (Other, dict(), "missing 1 required positional argument: 'size'"),
        (Causal, dict(size=5, direction="uni"), "unexpected keyword argument 'direction'"),
        (Stack, dict(size=5, blocks="x"), "unexpected keyword argument 'blocks'"),
    ],
)
def test_other_arguments_are_refused(cls, given, error):
    with pytest.raises(TypeError, match=error):
        cls(**given)


def test_the_signature_shows_all_options_and_defaults():
    shown = inspect.signature(Heir).parameters
    flat = ["mixer", "d_state", "d_conv", "expand", "mixer_dropout_rate", "direction", "merge"]
    assert set(shown) == {"size", "count", "mixer_conf", "rate", "layer", *flat}
    assert all(shown[name].default is NOT_GIVEN for name in flat)
    assert shown["size"].default is inspect.Parameter.empty and shown["count"].default == 3
    assert inspect.signature(Stack).parameters["count"].default == 2
    assert "direction" not in inspect.signature(Causal).parameters


def test_the_defaults_that_espnet_prints_can_be_given_back():
    printed = get_default_kwargs(Other)
    conf = dict(mixer="mamba1", d_state=None, d_conv=4, expand=2, dropout_rate=0.0)
    conf |= dict(direction="inner", merge="mean")
    assert printed == dict(count=3, mixer_conf=conf, rate=0.1, layer="linear")
    assert vars(Other(5, **printed)) == vars(Other(5))
