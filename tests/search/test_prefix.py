"""CTC prefix beam search: against every path, the CTC loss, every text, and itself."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from ctc_texts import encode, every_text

from mambaasr.espnet_compat import import_quietly
from mambaasr.lm.mamba import MambaLM
from mambaasr.search import reader
from mambaasr.search.beam import BeamSearch, Options
from mambaasr.search.data import Encoded
from mambaasr.search.prefix import HASH_BASE, PrefixOptions, ctc_prefix_search
from mambaasr.search.scorers import BatchScorer

SOS = EOS = 3
WIDE = PrefixOptions(beam_size=100, nbest=100, blank_skip=2)


def search(encoded, options, scorers=None, prompts=()):
    return ctc_prefix_search(encoded, scorers or {}, SOS, EOS, options, prompts)


@pytest.fixture
def make_lm():
    def make(vocabulary=4, seed=1):
        torch.manual_seed(seed)
        lm = MambaLM(vocabulary, unit=16, num_blocks=2).eval()
        with torch.no_grad():
            for parameter in lm.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(5)
        return lm

    return make


def espnets_lm():
    torch.manual_seed(5)
    made = import_quietly("espnet2.lm.transformer_lm").TransformerLM
    return made(5, None, att_unit=8, embed_unit=8, head=2, unit=16, layer=1).eval()


@torch.no_grad()
def lm_score(lm, tokens, prompt=()):
    """log P(tokens, the end | prompt) by the model's parallel form."""
    logits, _ = lm(torch.tensor([[SOS, *prompt, *tokens]]), None)
    wanted = torch.tensor([*tokens, EOS])[:, None]
    return float(logits[0, len(prompt) :].log_softmax(-1).gather(1, wanted).sum())


def assert_same(found, other):
    assert [each.key for each in found] == [each.key for each in other]
    for one, two in zip(found, other, strict=True):
        assert [h.tokens for h in one.hypotheses] == [h.tokens for h in two.hypotheses]
        for a, b in zip(one.hypotheses, two.hypotheses, strict=True):
            assert a.score == pytest.approx(b.score, rel=1e-6)
            assert a.parts == pytest.approx(b.parts, rel=1e-6)


@pytest.mark.parametrize("lengths", [[4, 1, 3], [5, 2]])
def test_a_wide_beam_sums_every_path(lengths):
    """Paths that part and meet again are among them: a text's, with and without a blank."""
    encoded = encode(lengths)
    for each, log_probs in zip(search(encoded, WIDE), encoded.log_probs, strict=True):
        true = every_text(log_probs[: lengths[encoded.keys.index(each.key)]])
        best = sorted(true, key=true.get, reverse=True)[:100]
        assert [tuple(h.tokens) for h in each.hypotheses] == best
        for hypothesis in each.hypotheses:
            want = true[tuple(hypothesis.tokens)]
            assert hypothesis.score == hypothesis.parts["ctc"] == pytest.approx(want, rel=1e-6)


def test_the_best_text_of_a_longer_utterance_has_its_ctc_loss():
    encoded = encode([40, 25], vocabulary=8, sharp=6.0)
    options = PrefixOptions(beam_size=60, nbest=60, blank_skip=2)
    for each, log_probs, length in zip(
        search(encoded, options), encoded.log_probs, encoded.lengths, strict=True
    ):
        texts = [tuple(h.tokens) for h in each.hypotheses]
        scores = [h.score for h in each.hypotheses]
        assert len(set(texts)) == 60 and scores == sorted(scores, reverse=True)
        for hypothesis in each.hypotheses[:3]:
            tokens = torch.tensor([hypothesis.tokens])
            want = -F.ctc_loss(
                log_probs[:length, None].double(), tokens, (int(length),), (tokens.shape[1],),
                reduction="sum",
            )  # fmt: skip
            assert hypothesis.score <= want + 1e-6
            assert hypothesis.score == pytest.approx(float(want), abs=0.1)


def reference(log_probs, beam, blank_id=0):
    """The same search over one utterance with a dictionary of texts."""
    hypotheses = {(): (0.0, -math.inf)}

    def add(*values):
        return float(torch.tensor(values, dtype=torch.float64).logsumexp(0))

    for x in log_probs.double():
        new = {}
        for text, (blank, label) in hypotheses.items():
            total = add(blank, label)
            old = new.get(text, (-math.inf, -math.inf))
            stay = label + float(x[text[-1]]) if text else -math.inf
            new[text] = (add(old[0], total + float(x[blank_id])), add(old[1], stay))
            for token in range(len(x)):
                if token != blank_id:
                    longer = (*text, token)
                    old = new.get(longer, (-math.inf, -math.inf))
                    source = blank if text and text[-1] == token else total
                    new[longer] = (old[0], add(old[1], source + float(x[token])))
        best = sorted(new, key=lambda text: add(*new[text]), reverse=True)[:beam]
        hypotheses = {text: new[text] for text in best}
    return {text: add(*both) for text, both in hypotheses.items()}


@pytest.mark.parametrize("beam", [1, 3, 10])
def test_a_narrow_beam_is_the_one_of_a_dictionary_of_texts(beam):
    """Hypotheses leave the beam, come back, and meet what others have grown into."""
    lengths = [30, 17, 30, 5]
    encoded = encode(lengths, vocabulary=5, seed=3)
    options = PrefixOptions(beam_size=beam, nbest=beam, blank_skip=2)
    for each, log_probs, length in zip(
        search(encoded, options), encoded.log_probs, lengths, strict=True
    ):
        want = reference(log_probs[:length], beam)
        assert [tuple(h.tokens) for h in each.hypotheses] == list(want)
        assert [h.score for h in each.hypotheses] == pytest.approx(list(want.values()), rel=1e-9)


def test_only_the_best_tokens_of_a_frame_are_appended():
    encoded = encode([12, 9], vocabulary=7, seed=5)
    encoded.log_probs[1, 0, 3] = 0.0  # <sos/eos> is none that could be
    options = PrefixOptions(beam_size=8, nbest=8, frame_tokens=1, blank_skip=2)
    best = encoded.log_probs[..., [1, 2, 4, 5, 6]].argmax(-1)
    best = torch.tensor([1, 2, 4, 5, 6])[best]
    for each, labels, length in zip(search(encoded, options), best, [12, 9], strict=True):
        for hypothesis in each.hypotheses:
            rest = iter(labels[:length].tolist())
            assert all(token in rest for token in hypothesis.tokens)
    assert_same(search(encoded, PrefixOptions()), search(encoded, PrefixOptions(frame_tokens=6)))


@pytest.mark.parametrize("blank", [0.95, 1.0])
def test_frames_of_blank_alone_are_left_out(blank):
    """At the beginning, between and at the end; exact, as no label is possible there."""
    encoded = encode([14, 9, 20, 3], vocabulary=5, seed=7)
    places = ([0, 1, 4, 5, 12, 13], [3], [0, 7, 8, 9, 18, 19], [0, 1, 2])
    for log_probs, blanks in zip(encoded.log_probs, places, strict=True):
        log_probs[blanks] = -math.inf
        log_probs[blanks, 0] = math.log(blank)
    exact = search(encoded, PrefixOptions(beam_size=6, nbest=6, blank_skip=2))
    assert_same(exact, search(encoded, PrefixOptions(beam_size=6, nbest=6, blank_skip=0.9)))
    assert [h.tokens for h in exact[3].hypotheses] == [[]]
    # It is exact without being asked for where the blank is certain, and an approximation else.
    default = search(encoded, PrefixOptions(beam_size=6, nbest=6))
    assert_same(default, exact)
    few = search(encoded, PrefixOptions(beam_size=6, nbest=6, blank_skip=1e-9))
    assert [h.tokens for h in few[0].hypotheses] == [[]]


def test_a_language_model_against_every_text(make_lm):
    """Also with two of them, a penalty, and the end of the sentence."""
    encoded, lm, other = encode([4, 3, 1]), make_lm(), make_lm(seed=2)
    options = PrefixOptions(beam_size=150, nbest=150, penalty=0.7, blank_skip=2)
    scorers = {"lm": (lm, 0.8), "ngram": (other, 0.3), "none": (None, 0.0)}
    for each, log_probs, length in zip(
        search(encoded, options, scorers), encoded.log_probs, [4, 3, 1], strict=True
    ):
        ctc = every_text(log_probs[:length])
        scores = {
            text: value + 0.8 * lm_score(lm, text) + 0.3 * lm_score(other, text)
            + 0.7 * (len(text) + 1)
            for text, value in ctc.items()
        }  # fmt: skip
        best = sorted(scores, key=scores.get, reverse=True)
        assert [tuple(h.tokens) for h in each.hypotheses] == best
        for hypothesis in each.hypotheses:
            text = tuple(hypothesis.tokens)
            assert hypothesis.score == pytest.approx(scores[text], rel=1e-5)
            assert hypothesis.parts == pytest.approx(
                {
                    "lm": lm_score(lm, text),
                    "ngram": lm_score(other, text),
                    "ctc": ctc[text],
                    "length_bonus": len(text) + 1,
                },
                rel=1e-5,
            )


@pytest.mark.parametrize("most", [1, 8])
@pytest.mark.parametrize("kind", ["ours", "espnet"])
def test_states_of_hypotheses_that_grow_at_different_times(kind, most, make_lm, monkeypatch):
    """Spread over several states, and copied into one again and again."""
    monkeypatch.setattr(reader, "MOST_STATES", most)
    lm = make_lm(5) if kind == "ours" else espnets_lm()
    scorer = lm if kind == "ours" else BatchScorer(lm, hears_speech=False)
    encoded = encode([40, 18, 26], vocabulary=5, seed=6, sharp=2.0)
    options = PrefixOptions(beam_size=6, nbest=6)
    for each in search(encoded, options, {"lm": (scorer, 0.8)}):
        assert len({len(h.tokens) for h in each.hypotheses}) > 1
        for hypothesis in each.hypotheses:
            want = lm_score(lm, hypothesis.tokens)
            assert hypothesis.parts["lm"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("frame_tokens", [1, 40])
def test_texts_that_begin_with_a_prompt(frame_tokens, make_lm):
    """Though CTC would rather have other tokens there."""
    encoded, lm = encode([5, 3, 1, 0], vocabulary=5, seed=9), make_lm(5)
    prompts = [(1, 1), (4, 2), (2, 1), (1, 2)]
    options = PrefixOptions(150, frame_tokens, penalty=0.3, nbest=150)
    found = search(encoded, options, {"lm": (lm, 0.5)}, prompts)
    assert found[2].hypotheses == found[3].hypotheses == []  # too short for it
    for u, length in enumerate([5, 3]):
        ctc = {
            text[2:]: value
            for text, value in every_text(encoded.log_probs[u, :length]).items()
            if text[:2] == prompts[u]
        }
        prompt = float(torch.tensor([*ctc.values()]).logsumexp(0))
        scores = {
            text: value - prompt + 0.5 * lm_score(lm, text, prompts[u]) + 0.3 * (len(text) + 1)
            for text, value in ctc.items()
        }
        texts = [tuple(h.tokens) for h in found[u].hypotheses]
        if frame_tokens == 40:
            assert texts == sorted(scores, key=scores.get, reverse=True)[:150]
        for hypothesis in found[u].hypotheses:
            want = scores[tuple(hypothesis.tokens)]
            if frame_tokens == 40:
                assert hypothesis.score == pytest.approx(want, rel=1e-5)
            assert hypothesis.score <= want + 1e-5
        assert texts and len(set(texts)) == len(texts)
    with pytest.raises(ValueError, match="prompts"):
        search(encoded, options, {}, [(1,), (1, 2), (1,), (1,)])


def test_espnets_language_model():
    """It takes only hypotheses that are equally long; these grow at different frames."""
    lm = espnets_lm()
    encoded = encode([3, 5, 1], vocabulary=5, seed=6)
    options = PrefixOptions(beam_size=150, nbest=150)
    scorers = {"lm": (BatchScorer(lm, hears_speech=False), 0.8)}
    for each, log_probs, length in zip(
        search(encoded, options, scorers), encoded.log_probs, [3, 5, 1], strict=True
    ):
        ctc = every_text(log_probs[:length])
        scores = {text: value + 0.8 * lm_score(lm, text) for text, value in ctc.items()}
        best = sorted(scores, key=scores.get, reverse=True)[:150]
        assert [tuple(h.tokens) for h in each.hypotheses[:20]] == best[:20]
        for hypothesis in each.hypotheses[:20]:
            assert hypothesis.score == pytest.approx(scores[tuple(hypothesis.tokens)], rel=1e-5)


@pytest.mark.parametrize("prompts", [(), ((2,), (1,))])
def test_the_joint_search_with_ctc_alone_finds_the_same(prompts, make_lm):
    encoded, lm = encode([5, 4], seed=11), make_lm()
    found = search(encoded, WIDE, {"lm": (lm, 0.5)}, prompts)
    joint = BeamSearch({"lm": (lm, 0.5)}, SOS, EOS, Options(beam_size=300, ctc_weight=1.0, nbest=5))
    assert not joint.add(encoded, prompts)
    ended = []
    while joint:
        ended += joint.step()
    for each in ended:
        mine = found[encoded.keys.index(each.key)].hypotheses[:5]
        assert [h.tokens for h in mine] == [h.tokens for h in each.hypotheses]
        for one, two in zip(mine, each.hypotheses, strict=True):
            assert one.score == pytest.approx(two.score, rel=1e-4)
            assert one.parts == pytest.approx(two.parts, rel=1e-4)


@pytest.mark.parametrize("with_lm", [False, True])
@pytest.mark.parametrize("skip", [2, 0.5])
def test_companions_change_nothing(with_lm, skip, make_lm):
    encoded = encode([25, 3, 40, 11, 25], vocabulary=6, seed=2, sharp=2.0)
    options = PrefixOptions(beam_size=7, nbest=7, penalty=0.1, blank_skip=skip)
    scorers = {"lm": (make_lm(6), 0.6)} if with_lm else {}
    found = search(encoded, options, scorers)
    for order in ([2, 4, 0, 3, 1], [1, 3], [0], [1], [2], [3], [4]):
        some = search(encoded.select(order), options, scorers)
        assert_same(some, [found[place] for place in order])


def test_what_cannot_be_searched_is_named(make_lm):
    bad = encode([6, 0, 5, 3])
    bad.log_probs[2, 4, 1] = torch.nan
    bad.frames[3, 0] = torch.inf
    found = search(bad, PrefixOptions(), {"lm": (make_lm(), 0.5)})
    assert [bool(each.hypotheses) for each in found] == [True, False, False, False]
    assert "no frame" in found[1].reason and "not finite" in found[2].reason
    assert_same(found[:1], search(bad.select([0]), PrefixOptions(), {"lm": (make_lm(), 0.5)}))
    assert search(bad.select([1]), PrefixOptions())[0].reason == found[1].reason
    nothing = encode([3])
    nothing.log_probs[:] = -math.inf
    assert "probability" in search(nothing, PrefixOptions())[0].reason


def test_a_beam_wider_than_there_are_texts():
    encoded = encode([2, 1])
    options = PrefixOptions(beam_size=50, nbest=50, blank_skip=2)
    for each, log_probs, length in zip(
        search(encoded, options), encoded.log_probs, [2, 1], strict=True
    ):
        assert {tuple(h.tokens) for h in each.hypotheses} == set(every_text(log_probs[:length]))


def test_what_cannot_be_asked_for(make_lm):
    with pytest.raises(ValueError, match="nbest is 5"):
        PrefixOptions(beam_size=4, nbest=5)
    with pytest.raises(ValueError, match="blank_skip"):
        PrefixOptions(blank_skip=0)
    encoded = encode([3])
    with pytest.raises(ValueError, match="token list"):
        search(encoded, PrefixOptions(), {"lm": (make_lm(7), 0.5)})
    with pytest.raises(ValueError, match="CTC"):
        search(Encoded(["a"], torch.zeros(1, 2, 3), torch.tensor([2])), PrefixOptions())


def test_hashes_of_texts_that_are_much_alike():
    """Permutations and runs: the search takes equal hashes for equal texts."""
    hashes = []
    for length in range(8):
        value = torch.ones(3**length, dtype=torch.long)
        texts = torch.tensor(list(itertools.product([1, 2, 5000], repeat=length)))
        for token in texts.T:
            value = value * HASH_BASE + token
        hashes += value.tolist()
    assert len(set(hashes)) == len(hashes) == sum(3**length for length in range(8))
