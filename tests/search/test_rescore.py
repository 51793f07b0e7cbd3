"""Rescoring of the CTC n-best: against each text scored by itself, and the joint search's score."""

import math

import pytest
import torch
from ctc_texts import encode
from torch import nn

from mambaasr.decoder.cross_mamba import CrossMambaDecoder
from mambaasr.decoder.madeon import MadeonDecoder
from mambaasr.decoder.mamba import MambaDecoder
from mambaasr.decoder.speech_mamba import SpeechMambaDecoder
from mambaasr.espnet_compat import import_quietly
from mambaasr.lm.mamba import MambaLM
from mambaasr.search import rescore as module
from mambaasr.search.beam import BeamSearch, Options
from mambaasr.search.data import Found, Hypothesis
from mambaasr.search.prefix import PrefixOptions, ctc_prefix_search
from mambaasr.search.rescore import rescore
from mambaasr.search.scorers import BatchScorer

SOS = EOS = 3
VOCABULARY, WIDTH = 6, 8


def sharpened(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not getattr(parameter, "_no_weight_decay", False):
                parameter.mul_(3)
    return model.eval()


def espnets_decoder():
    made = import_quietly("espnet2.asr.decoder.transformer_decoder").TransformerDecoder
    return made(VOCABULARY, WIDTH, attention_heads=2, linear_units=16, num_blocks=1)


def espnets_lm():
    made = import_quietly("espnet2.lm.transformer_lm").TransformerLM
    return made(VOCABULARY, None, att_unit=8, embed_unit=8, head=2, unit=16, layer=1)


MODELS = {
    "mamba": lambda: MambaDecoder(VOCABULARY, WIDTH, num_blocks=1, linear_units=16),
    "cross_mamba": lambda: CrossMambaDecoder(VOCABULARY, WIDTH, num_blocks=1, linear_units=16),
    "speech_mamba": lambda: SpeechMambaDecoder(VOCABULARY, WIDTH, num_blocks=1),
    "madeon": lambda: MadeonDecoder(VOCABULARY, WIDTH, num_blocks=1),
    "transformer": espnets_decoder,
}
LMS = {
    "mamba": lambda: MambaLM(VOCABULARY, unit=16, num_blocks=1),
    "transformer": espnets_lm,
}


def make(models, name, seed=0):
    torch.manual_seed(seed)
    return sharpened(models[name]())


def scorer(model, hears_speech=True):
    return model if hasattr(model, "start") else BatchScorer(model, hears_speech)


@torch.no_grad()
def alone(model, tokens, prompt=(), frames=None):
    """log P(tokens, the end) by the model's own forward, of one text."""
    read = torch.tensor([[SOS, *prompt, *tokens]])
    if frames is None:
        logits, _ = model(read, None)
    else:
        lengths = torch.tensor([len(frames)])
        logits, _ = model(frames[None], lengths, read, torch.tensor([read.shape[1]]))
    wanted = torch.tensor([*tokens, EOS])[:, None]
    return float(logits[0, len(prompt) :].log_softmax(-1).gather(1, wanted).sum())


@pytest.fixture
def nbest():
    """Utterances of which one is without frames, and their CTC n-best."""
    encoded = encode([12, 4, 0, 9], vocabulary=VOCABULARY, seed=4, width=WIDTH)
    options = PrefixOptions(beam_size=6, nbest=6, blank_skip=2)
    found = ctc_prefix_search(encoded, {}, SOS, EOS, options)
    # As many hypotheses as others only the first one has.
    found[1].hypotheses = found[1].hypotheses[:2]
    return encoded, found


@pytest.mark.parametrize("prompts", [(), ((2, 5), (1, 4), (2, 2), (5, 1))])
@pytest.mark.parametrize("name", MODELS)
def test_every_decoder_scores_each_text_as_alone(name, prompts, nbest):
    encoded, found = nbest
    decoder = make(MODELS, name)
    lm = make(LMS, "transformer" if name == "transformer" else "mamba")
    options = Options(beam_size=6, ctc_weight=0.3, penalty=0.2, nbest=6)
    scorers = {"decoder": (scorer(decoder), 0.7), "lm": (scorer(lm, False), 0.5)}
    better = rescore(encoded, found, scorers, SOS, EOS, options, prompts)
    assert better[2] == found[2] and better[2].reason
    for u in (0, 1, 3):
        frames = encoded.frames[u, : encoded.lengths[u]]
        prompt, want = prompts[u] if prompts else (), {}
        for old in found[u].hypotheses:
            parts = {
                "decoder": alone(decoder, old.tokens, prompt, frames),
                "lm": alone(lm, old.tokens, prompt),
                "ctc": old.parts["ctc"],
                "length_bonus": len(old.tokens) + 1,
            }
            score = 0.7 * parts["decoder"] + 0.5 * parts["lm"]
            score += 0.3 * parts["ctc"] + 0.2 * parts["length_bonus"]
            want[tuple(old.tokens)] = score, parts
        best = sorted(want, key=lambda text: want[text][0], reverse=True)
        assert [tuple(h.tokens) for h in better[u].hypotheses] == best
        for each in better[u].hypotheses:
            score, parts = want[tuple(each.tokens)]
            assert each.parts == pytest.approx(parts, rel=1e-4)
            assert each.score == pytest.approx(score, rel=1e-4)
    assert [h.tokens for h in better[0].hypotheses] != [h.tokens for h in found[0].hypotheses]


@pytest.mark.parametrize("name", ["mamba", "transformer"])
def test_companions_change_nothing(name, nbest, monkeypatch):
    encoded, found = nbest
    scorers = {"decoder": (scorer(make(MODELS, name)), 0.7)}
    options = Options(ctc_weight=0.3, nbest=3)
    together = rescore(encoded, found, scorers, SOS, EOS, options)
    assert [len(each.hypotheses) for each in together] == [3, 2, 0, 3]
    # A batch of one hypothesis at a time.
    monkeypatch.setattr(module, "MOST_NUMBERS", 1)
    for order in ([3, 0, 2, 1], [1, 3], [0], [1]):
        some = rescore(encoded, [found[u] for u in order], scorers, SOS, EOS, options)
        for one, u in zip(some, order, strict=True):
            assert one.key == together[u].key
            for a, b in zip(one.hypotheses, together[u].hypotheses, strict=True):
                assert a.tokens == b.tokens and a.score == pytest.approx(b.score, rel=1e-5)


def test_the_joint_search_has_the_same_scores():
    """Of texts that both find: CTC's part is the sum over all paths in both."""
    encoded = encode([5, 4], vocabulary=VOCABULARY, seed=8, width=WIDTH)
    decoder = make(MODELS, "mamba")
    scorers = {"decoder": (decoder, 0.6)}
    options = Options(beam_size=60, ctc_weight=0.4, penalty=0.3, nbest=8)
    wide = PrefixOptions(beam_size=400, nbest=400, blank_skip=2)
    found = ctc_prefix_search(encoded, {}, SOS, EOS, wide)
    better = {each.key: each for each in rescore(encoded, found, scorers, SOS, EOS, options)}
    joint, ended = BeamSearch(scorers, SOS, EOS, options), []
    assert not joint.add(encoded)
    while joint:
        ended += joint.step()
    for each in ended:
        mine = {tuple(h.tokens): h for h in better[each.key].hypotheses}
        for other in each.hypotheses[:5]:
            if len(other.tokens) < 4:  # the longest end without the end's score
                assert mine[tuple(other.tokens)].parts == pytest.approx(other.parts, rel=1e-4)
                assert mine[tuple(other.tokens)].score == pytest.approx(other.score, rel=1e-4)


def test_scores_that_are_there_are_not_made_again(nbest):
    encoded, found = nbest
    lm = make(LMS, "mamba")
    options = PrefixOptions(beam_size=6, nbest=6)
    found = ctc_prefix_search(encoded, {"lm": (lm, 0.4)}, SOS, EOS, options)
    better = rescore(
        encoded, found, {"lm": (None, 0.4)}, SOS, EOS, Options(ctc_weight=1.0, nbest=6)
    )
    for one, two in zip(better, found, strict=True):
        assert [h.tokens for h in one.hypotheses] == [h.tokens for h in two.hypotheses]
        for a, b in zip(one.hypotheses, two.hypotheses, strict=True):
            assert a.score == pytest.approx(b.score) and a.parts == pytest.approx(b.parts)


def test_the_order_by_the_score_for_each_token():
    encoded = encode([3], vocabulary=VOCABULARY, width=WIDTH)
    texts = [Hypothesis([1], -2.0, {"ctc": -2.0}), Hypothesis([1, 2, 4], -3.0, {"ctc": -3.0})]
    found = [Found(encoded.keys[0], texts)]
    options = {"ctc_weight": 1.0, "nbest": 2}
    plain = rescore(encoded, found, {}, SOS, EOS, Options(**options))
    by_token = rescore(encoded, found, {}, SOS, EOS, Options(**options, normalize_length=True))
    assert [h.tokens for h in plain[0].hypotheses] == [[1], [1, 2, 4]]
    assert [h.tokens for h in by_token[0].hypotheses] == [[1, 2, 4], [1]]
    assert by_token[0].hypotheses[0].score == -3.0


def test_nothing_to_rescore():
    encoded = encode([0, 0], width=WIDTH)
    found = [Found(key, [], "too short") for key in encoded.keys]
    assert rescore(encoded, found, {"decoder": (None, 1.0)}, SOS, EOS, Options()) == found


def test_an_empty_text_among_others(nbest):
    encoded, _ = nbest
    decoder = make(MODELS, "mamba")
    found = [Found(encoded.keys[1], [Hypothesis([], -1.0, {"ctc": -1.0})])]
    [better] = rescore(encoded, found, {"decoder": (decoder, 1.0)}, SOS, EOS, Options(ctc_weight=0))
    want = alone(decoder, [], (), encoded.frames[1, :4])
    assert better.hypotheses[0].score == pytest.approx(want, rel=1e-5)
    assert math.isfinite(want) and list(better.hypotheses[0].parts) == ["decoder"]


def test_espnets_scorer_without_a_form_for_whole_texts(nbest):
    """By its steps."""
    encoded, found = nbest
    lm = make(LMS, "transformer")

    class Wrapped:
        batch_init_state, batch_score = lm.batch_init_state, lm.batch_score

    assert not isinstance(Wrapped(), nn.Module)
    results = [
        rescore(
            encoded, found, {"lm": (BatchScorer(each, False), 1.0)}, SOS, EOS, Options(ctc_weight=0)
        )
        for each in (lm, Wrapped())
    ]
    for one, two in zip(*results, strict=True):
        assert [h.tokens for h in one.hypotheses] == [h.tokens for h in two.hypotheses]
        for a, b in zip(one.hypotheses, two.hypotheses, strict=True):
            assert a.score == pytest.approx(b.score, rel=1e-5)
