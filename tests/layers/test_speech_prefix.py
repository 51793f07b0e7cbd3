"""Mixers over speech and text: what looks both ways, what does not, and resuming by steps."""

import re

import pytest
import torch

from mambaasr.layers.join import join, text_of
from mambaasr.layers.mixer_conf import CausalMixerConf
from mambaasr.layers.speech_prefix import PrefixMixer

WIDTH = 8
MIXERS = {"mamba1": dict(d_state=4), "mamba2": dict(d_state=4, headdim=8)}
ORDERS = ("forward", "reversed", "both")
SPEECH, TEXT = torch.tensor([7, 3, 0]), torch.tensor([4, 1, 5])
ALL = [(mixer, order) for mixer in MIXERS for order in ORDERS]


def build(mixer, order):
    torch.manual_seed(0)
    made = CausalMixerConf(mixer).over(MIXERS[mixer]).make(WIDTH)
    layer = PrefixMixer(made, order)
    with torch.no_grad():
        made.out_proj.weight.mul_(10)  # outputs that a tolerance does not hide
    return layer.eval()


def batch():
    torch.manual_seed(1)
    return torch.randn(3, 7, WIDTH), torch.randn(3, 5, WIDTH)


def run(layer, speech, text, tokens=None):
    joint, lengths = join(speech, SPEECH, text, TEXT)
    return layer(joint, lengths, SPEECH, tokens)


@pytest.mark.parametrize("mixer, order", ALL)
@torch.no_grad()
def test_speech_at_once_and_text_by_steps_equal_the_whole(mixer, order):
    layer, (speech, text) = build(mixer, order), batch()
    whole = run(layer, speech, text)
    together, states = layer.start(speech, SPEECH)
    for b, (spoken, written) in enumerate(zip(SPEECH.tolist(), TEXT.tolist(), strict=True)):
        y, state = layer.start(speech[b : b + 1, :spoken])
        assert torch.allclose(y[0], whole[b, :spoken], atol=1e-5)
        assert torch.allclose(together[b, :spoken], y[0], atol=1e-5)
        assert (together[b, spoken:] == 0).all()
        for one, all_ in zip(state, states, strict=True):
            assert torch.allclose(one[0], all_[b], atol=1e-5)
        for t in range(written):
            y = layer.step(text[b : b + 1, t], state)
            assert torch.allclose(y[0], whole[b, spoken + t], atol=1e-5)
        assert (whole[b, spoken + written :] == 0).all()


@pytest.mark.parametrize("mixer, order", ALL)
@torch.no_grad()
def test_the_text_alone_is_the_texts_part_of_the_whole(mixer, order):
    layer, (speech, text) = build(mixer, order), batch()
    want = text_of(run(layer, speech, text), SPEECH, TEXT, 5)
    assert torch.allclose(run(layer, speech, text, tokens=5), want, atol=1e-6)


@pytest.mark.parametrize("mixer, order", ALL)
@torch.no_grad()
def test_who_sees_what(mixer, order):
    layer, (speech, text) = build(mixer, order), batch()
    before = run(layer, speech, text)[0]
    later_frame, later_token = speech.clone(), text.clone()
    later_frame[0, 5] += 1
    later_token[0, 2] += 1
    frames = (run(layer, later_frame, text)[0] - before).abs().sum(-1) > 1e-5
    tokens = (run(layer, speech, later_token)[0] - before).abs().sum(-1) > 1e-5
    # Frame 5 of 7: those after it hear of it, or those before it, or all; the text always.
    assert (
        frames[:7].tolist()
        == {
            "forward": [False] * 5 + [True] * 2,
            "reversed": [True] * 6 + [False],
            "both": [True] * 7,
        }[order]
    )
    assert frames[7:11].all()
    assert tokens[:11].tolist() == [False] * 9 + [True] * 2


@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_both_orders_of_one_frame_are_twice_one_order_with_equal_parameters(mixer):
    both, single = build(mixer, "both"), build(mixer, "forward")
    own = both.mixer.state_dict()
    for name, value in own.items():
        value.copy_(own[re.sub(r"_b(?=[._]|$)", "", name)])
    single.mixer.load_state_dict({name: own[name] for name in single.mixer.state_dict()})
    speech = torch.randn(1, 1, WIDTH)
    assert torch.allclose(both.start(speech)[0], 2 * single.start(speech)[0], atol=1e-5)
