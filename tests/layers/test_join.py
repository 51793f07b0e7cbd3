"""Joint sequences of speech and text."""

import pytest
import torch

from mambaasr.layers.join import join, reverse_speech, text_of

SPEECH = torch.tensor([5, 0, 3, 7])
TEXT = torch.tensor([2, 4, 0, 4])


def batch():
    torch.manual_seed(0)
    return torch.randn(4, 7, 3), torch.randn(4, 4, 3)


def test_text_follows_the_last_frame_of_speech():
    speech, text = batch()
    joint, lengths = join(speech, SPEECH, text, TEXT)
    assert joint.shape == (4, 11, 3)
    for b, (spoken, written) in enumerate(zip(SPEECH.tolist(), TEXT.tolist(), strict=True)):
        assert lengths[b] == spoken + written
        assert torch.equal(joint[b, :spoken], speech[b, :spoken])
        assert torch.equal(joint[b, spoken : spoken + written], text[b, :written])
        assert (joint[b, spoken + written :] == 0).all()


def test_the_text_comes_out_as_it_went_in():
    speech, text = batch()
    joint, _ = join(speech, SPEECH, text, TEXT)
    out = text_of(joint, SPEECH, TEXT, 4)
    for b, written in enumerate(TEXT.tolist()):
        assert torch.equal(out[b, :written], text[b, :written])
        assert (out[b, written:] == 0).all()


def test_padding_has_no_effect_and_gets_no_gradient():
    speech, text = batch()
    want, _ = join(speech, SPEECH, text, TEXT)
    for x, lengths in ((speech, SPEECH), (text, TEXT)):
        for b, length in enumerate(lengths.tolist()):
            x[b, length:] = float("nan")
        x.requires_grad_()
    joint, _ = join(speech, SPEECH, text, TEXT)
    assert torch.equal(joint, want)
    joint.sum().backward()
    for x, lengths in ((speech, SPEECH), (text, TEXT)):
        for b, length in enumerate(lengths.tolist()):
            assert (x.grad[b, :length] == 1).all() and (x.grad[b, length:] == 0).all()


def test_speech_turns_round_and_text_stays():
    speech, text = batch()
    joint, _ = join(speech, SPEECH, text, TEXT)
    turned = reverse_speech(joint, SPEECH)
    for b, spoken in enumerate(SPEECH.tolist()):
        assert torch.equal(turned[b, :spoken], joint[b, :spoken].flip(0))
        assert torch.equal(turned[b, spoken:], joint[b, spoken:])
    assert torch.equal(reverse_speech(turned, SPEECH), joint)


@pytest.mark.parametrize("time, tokens", [(0, 3), (4, 0)])
def test_one_of_both_may_be_absent(time, tokens):
    speech, text = torch.randn(2, time, 3), torch.randn(2, tokens, 3)
    joint, lengths = join(speech, torch.tensor([time] * 2), text, torch.tensor([tokens] * 2))
    assert torch.equal(joint, torch.cat([speech, text], dim=1))
    assert lengths.tolist() == [time + tokens] * 2
