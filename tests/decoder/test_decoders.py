"""What holds for every decoder that a yaml can name."""

import io

import pytest
import torch

from mambaasr.registry import CLASSES, load

VOCABULARY, WIDTH = 13, 16
VARIANTS = {"mamba": [dict(linear_units=32), dict(linear_units=0, attention_heads=1)]}
CASES = [(name, options) for name, several in VARIANTS.items() for options in several]
SPEECH = torch.tensor([11, 4, 7])
TEXT = torch.tensor([6, 9, 3])


def build(name, options):
    torch.manual_seed(0)
    options = dict(num_blocks=2) | options
    return load(CLASSES["decoder"][name])(VOCABULARY, WIDTH, **options)


def batch():
    torch.manual_seed(1)
    return torch.randn(3, 11, WIDTH), torch.randint(0, VOCABULARY, (3, 9))


def test_every_registered_decoder_is_tested():
    assert set(VARIANTS) == set(CLASSES["decoder"])


@pytest.mark.parametrize("name, options", CASES)
def test_padded_batch_equals_single_utterance(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    padded = speech.clone()
    for b, length in enumerate(SPEECH.tolist()):
        padded[b, length:] = float("nan")
    together, lengths = decoder(padded, SPEECH, text, TEXT)
    assert torch.equal(lengths, TEXT)
    for b in range(3):
        alone, _ = decoder(
            speech[b : b + 1, : SPEECH[b]],
            SPEECH[b : b + 1],
            text[b : b + 1, : TEXT[b]],
            TEXT[b : b + 1],
        )
        assert torch.allclose(together[b, : TEXT[b]], alone[0], atol=1e-5)
        assert (together[b, TEXT[b] :] == 0).all()


@pytest.mark.parametrize("name, options", CASES)
def test_forward_and_backward_reach_every_parameter(name, options):
    decoder, (speech, text) = build(name, options), batch()
    speech.requires_grad_()
    decoder(speech, SPEECH, text, TEXT)[0].square().sum().backward()
    assert (speech.grad[1, 4:] == 0).all() and speech.grad[1, :4].abs().sum() > 0
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name, options", CASES)
def test_step_equals_the_whole(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    logits, _ = decoder(speech, SPEECH, text, TEXT)
    want = logits.log_softmax(-1)
    for b in range(3):
        x = speech[b, : SPEECH[b]]
        state = decoder.init_state(x)
        for t in range(int(TEXT[b])):
            scores, state = decoder.score(text[b, : t + 1], state, x)
            assert torch.allclose(scores, want[b, t], atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_beams_that_change_places_equal_the_whole(name, options):
    decoder, (speech, _) = build(name, options).eval(), batch()
    x = speech[0]
    xs = x.expand(4, -1, -1)
    random = torch.Generator().manual_seed(2)
    prefixes = torch.full((4, 1), VOCABULARY - 1)
    states = [decoder.init_state(x)] * 4
    for _ in range(8):
        scores, states = decoder.batch_score(prefixes, states, xs)
        whole, _ = decoder(xs, torch.full((4,), 11), prefixes, torch.full((4,), prefixes.shape[1]))
        assert torch.allclose(scores, whole[:, -1].log_softmax(-1), atol=1e-5)
        # Each survivor continues some earlier hypothesis; several may continue the same one.
        parents = torch.randint(0, 4, (4,), generator=random)
        states = [decoder.select_state(states, int(parent)) for parent in parents]
        tokens = torch.randint(0, VOCABULARY, (4, 1), generator=random)
        prefixes = torch.cat([prefixes[parents], tokens], dim=1)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_scoring_leaves_earlier_states_alone(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    start = decoder.init_state(speech[0])
    first, _ = decoder.score(text[0, :1], start, speech[0])
    second, _ = decoder.score(text[0, :1], start, speech[0])
    assert torch.equal(first, second)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_hypotheses_of_several_utterances_of_equal_length(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    states = [decoder.init_state(x) for x in speech]
    scores, _ = decoder.batch_score(text[:, :1], states, speech)
    for b in range(3):
        alone, _ = decoder.score(text[b, :1], None, speech[b])
        assert torch.allclose(scores[b], alone, atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
def test_save_and_load(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    stream = io.BytesIO()
    torch.save(decoder.state_dict(), stream)
    stream.seek(0)
    again = build(name, options).eval()
    for parameter in again.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    again.load_state_dict(torch.load(stream, weights_only=True))
    got, _ = again(speech, SPEECH, text, TEXT)
    assert torch.equal(got, decoder(speech, SPEECH, text, TEXT)[0])


@torch.no_grad()
def test_an_empty_utterance_gives_the_same_finite_scores_in_every_form():
    decoder, (speech, text) = build("mamba", {}).eval(), batch()
    together, _ = decoder(speech, torch.tensor([0, 4, 7]), text, TEXT)
    nothing = speech[:1, :0]
    alone, _ = decoder(nothing, torch.tensor([0]), text[:1], TEXT[:1])
    assert torch.isfinite(together).all()
    assert torch.allclose(alone[0, : TEXT[0]], together[0, : TEXT[0]], atol=1e-5)
    scores, _ = decoder.score(text[0, :1], decoder.init_state(nothing[0]), nothing[0])
    assert torch.allclose(scores, alone[0, 0].log_softmax(-1), atol=1e-5)


def test_impossible_options_are_named():
    for options, message in (
        (dict(num_blocks=0), "num_blocks is 0"),
        (dict(linear_units=-1), "linear_units is -1"),
        (dict(attention_heads=3), "attention_heads is 3; it must divide the width 16"),
    ):
        with pytest.raises(ValueError, match=message):
            build("mamba", options)
