"""What classes accept, by their signatures."""

import inspect

from espnet2.asr.encoder.abs_encoder import AbsEncoder

from mambaasr.configurable import configurable
from mambaasr.layers.mixer_conf import CausalMixerConf, MixerConf
from mambaasr.model.multilingual import MultilingualModel
from mambaasr.task.describe import of_class


class Plain(AbsEncoder):
    def __init__(self, input_size: int, width: "int" = 3, rate: float | None = 0.1, more=()):
        pass


class Open(AbsEncoder):
    def __init__(self, input_size: int, **anything):
        pass


@configurable(width=4)
class Mixing:
    def __init__(self, input_size, width: int = 3, mixer_conf=MixerConf()):
        pass


@configurable()
class Causal:
    def __init__(self, input_size, mixer_conf=CausalMixerConf()):
        pass


def test_arguments_and_their_kinds():
    keys = {"width": {"kinds": ["int"]}, "rate": {"kinds": ["float"]}, "more": {}}
    assert of_class("encoder", Plain) == keys
    needed = of_class("frontend", Plain)["input_size"]
    assert needed == {"required": True, "kinds": ["int"]}


def test_a_class_that_takes_anything_is_open_unless_it_passes_it_on():
    assert of_class("encoder", Open) == {"**": {}}
    found = of_class("model", MultilingualModel)
    assert {"lid_weight", "ctc_weight"} <= found.keys()
    assert not {"token_list", "encoder", "**"} & found.keys()


def test_options_of_a_mixer_stand_in_mixer_conf_or_beside_it():
    keys = of_class("encoder", Mixing)
    below = keys["mixer_conf"]["below"]
    assert {"mixer", "direction", "d_state", "dt_rank", "headdim"} <= below.keys()
    assert not {"d_model", "options"} & below.keys()
    assert keys["mixer_dropout_rate"] == below["dropout_rate"] == {"kinds": ["float"]}
    assert keys["mixer"] == below["mixer"] == {"kinds": ["str"], "choices": ["mamba1", "mamba2"]}
    causal = of_class("decoder", Causal)
    assert "direction" not in causal and "direction" not in causal["mixer_conf"]["below"]
    assert set(inspect.signature(Mixing).parameters) - {"input_size"} == keys.keys()
