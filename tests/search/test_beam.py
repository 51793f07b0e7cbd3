"""The joint search: what ESPnet's exact search over one utterance finds, in any company."""

import random

import pytest
import torch
from tiny_asr import DECODERS

from mambaasr.decode.recogniser import ESPnetRecogniser, Recogniser, Utterance
from mambaasr.search.beam import BeamSearch, Options
from mambaasr.search.data import Encoded


def found_by(recogniser, utterances):
    """Return utterance -> [(tokens, score, parts), ...], having checked that none failed.

    Where the length is at its bound, ESPnet puts <eos> behind a text that has ended already.
    """
    eos = recogniser.model.eos
    results = {each.key: each for each in recogniser(utterances)}
    assert sorted(results) == sorted(each.key for each in utterances)
    assert [each.reason for each in results.values() if each.reason] == []
    return {
        key: [
            (
                [token for token in hypothesis.tokens if token not in (0, eos)],
                hypothesis.score,
                hypothesis.parts,
            )
            for hypothesis in result.hypotheses
        ]
        for key, result in results.items()
    }


def assert_same(some, others, least=1):
    """Compare n-best lists: tokens exactly, scores and their parts within 1e-3."""
    for key, hypotheses in others.items():
        assert len(some[key]) >= least
        for one, other in zip(some[key], hypotheses, strict=True):
            assert one[0] == other[0], key
            assert one[1] == pytest.approx(other[1], abs=1e-3)
            for name, part in one[2].items():
                assert part == pytest.approx(other[2][name], abs=1e-3), name


WAYS = [
    dict(),
    dict(ctc_weight=0.0, penalty=2.0),
    dict(ctc_weight=1.0),
    dict(ctc_weight=1.0, lm="mamba", lm_weight=0.3),
    dict(lm="mamba", lm_weight=0.4, penalty=0.7),
    dict(lm="transformer", lm_weight=0.4),
    dict(beam_size=25),  # no pre-beam: more candidates than tokens
    dict(beam_size=1, nbest=1),
    dict(maxlenratio=0.05),
    dict(maxlenratio=-3.0),
    dict(minlenratio=0.2, maxlenratio=0.3),
]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("decoder", ["mamba", "transformer"])
def test_it_finds_what_espnet_finds(decoder, options, opened, utterances):
    """Among companions, with each of the options: texts, scores, and the scores' parts."""
    speech2text = opened(decoder, **options)
    some = utterances[:3]
    if "beam_size" in options:
        speech2text.nbest = 1
    theirs = found_by(ESPnetRecogniser(speech2text), some)
    assert_same(found_by(Recogniser(speech2text, 3), some), theirs)
    assert len({str(each[0][0]) for each in theirs.values()}) > 1


@pytest.mark.parametrize("decoder", [*DECODERS, "transformer"])
def test_companions_and_order_change_nothing(decoder, opened, utterances):
    speech2text = opened(decoder, lm="mamba", lm_weight=0.3)
    alone = found_by(Recogniser(speech2text, 1), utterances)
    generator = random.Random(0)
    for size in (2, 5, 32, "auto"):
        shuffled = generator.sample(utterances, len(utterances))
        assert_same(found_by(Recogniser(speech2text, size), shuffled), alone, least=4)


def test_espnets_encoders_encode_alone(opened, utterances):
    """What a Conformer of ESPnet gives depends on the padding, so it gets none."""
    speech2text = opened("transformer", ours=False)
    alone = found_by(Recogniser(speech2text, 1), utterances[:5])
    assert_same(found_by(Recogniser(speech2text, 5), utterances[:5]), alone)


def test_who_has_ended_makes_room(opened, utterances, monkeypatch):
    """Others join those under way, never more than the limit."""
    sizes, joined = [], []
    step, add = BeamSearch.step, BeamSearch.add
    monkeypatch.setattr(BeamSearch, "step", lambda self: (sizes.append(len(self)), step(self))[1])
    monkeypatch.setattr(
        BeamSearch, "add", lambda self, *new: (joined.append(len(self)), add(self, *new))[1]
    )
    found_by(Recogniser(opened("mamba"), 4), utterances)
    assert max(sizes) == 4
    assert joined[0] == 0 and 0 < max(joined) < 4


def test_a_prompt_is_read_and_not_scored(opened, utterances):
    """As ESPnet's primers for the decoder; CTC was trained on the tokens, so it follows them."""
    speech2text = opened("mamba", ctc_weight=0.0)
    prompt = (7, 3)
    some = [Utterance(each.key, each.samples, prompt=prompt) for each in utterances[:3]]
    speech2text.beam_search.set_hyp_primer([speech2text.beam_search.sos, *prompt])
    theirs = found_by(ESPnetRecogniser(speech2text), some)
    assert_same(found_by(Recogniser(speech2text, 3), some), theirs)


def test_ctc_follows_a_prompt(opened, utterances):
    """Its score of a text is that of prompt and text, less that of the prompt."""
    speech2text = opened("mamba", ctc_weight=1.0, beam_size=30)
    plain = found_by(Recogniser(speech2text, 1), utterances[:1])
    ((tokens, score, _), *_) = plain[utterances[0].key]
    prompt = tuple(tokens[:1])
    some = [Utterance(each.key, each.samples, prompt=prompt) for each in utterances[:1]]
    found = found_by(Recogniser(speech2text, 1), some)[utterances[0].key]
    rest = {str(text): value for text, value, _ in found}
    # log p(text) = log psi(prompt) + log p(rest | prompt): one constant for all texts.
    offsets = [
        value - rest[str(text[1:])]
        for text, value, _ in plain[utterances[0].key]
        if text[:1] == tokens[:1] and str(text[1:]) in rest
    ]
    assert len(offsets) > 1
    assert offsets == pytest.approx([offsets[0]] * len(offsets), abs=1e-3)


def test_prompts_of_different_lengths_in_one_batch(opened, utterances):
    speech2text = opened("mamba")
    some = [
        Utterance(each.key, each.samples, prompt=(5, 6)[:length])
        for length, each in enumerate(utterances[:3])
    ]
    alone = found_by(Recogniser(speech2text, 1), some)
    assert_same(found_by(Recogniser(speech2text, 3), some), alone)


class Fixed:
    """A scorer without states that prefers some tokens; hypotheses of any model will do."""

    def __init__(self, *scores):
        self.scores = torch.tensor(scores)

    def start(self, speech, lengths=None):
        return torch.zeros(len(speech), 1)

    def step(self, tokens, state):
        return self.scores.expand(*tokens.shape, -1), state

    def reorder(self, state, index=None, utterances=None, out=None):
        return state

    def join(self, states):
        return states[0]


def encoded(frames, tokens=4, keys=None):
    torch.manual_seed(1)
    time = max(frames)
    return Encoded(
        keys or list(range(len(frames))),
        torch.randn(len(frames), time, 2),
        torch.tensor(frames),
        torch.randn(len(frames), time, tokens).log_softmax(-1),
    )


def run(search, batch):
    found = {each.key: each for each in search.add(batch)}
    while len(search):
        found |= {each.key: each for each in search.step()}
    return found


def test_scores_for_each_token_prefer_longer_texts():
    fixed = {"lm": (Fixed(0.0, 1.0, 2.0, 1.0), 0.5)}
    orders = []
    for normalize in (False, True):
        options = Options(6, 0.5, nbest=6, normalize_length=normalize)
        found = run(BeamSearch(fixed, 3, 3, options), encoded([5]))[0].hypotheses
        orders.append([len(each.tokens) for each in found])
        values = [each.score / (len(each.tokens) + 1 if normalize else 1) for each in found]
        assert values == sorted(values, reverse=True)
    assert sum(orders[0]) < sum(orders[1])


def test_a_beam_wider_than_the_vocabulary():
    search = BeamSearch({"lm": (Fixed(0.0, 1.0, 2.0, 1.0), 1.0)}, 3, 3, Options(50, 0.5, nbest=50))
    found = run(search, encoded([5, 3]))
    for each in found.values():
        texts = [tuple(hypothesis.tokens) for hypothesis in each.hypotheses]
        assert len(texts) == len(set(texts)) > 10
        scores = [hypothesis.score for hypothesis in each.hypotheses]
        assert scores == sorted(scores, reverse=True)


def test_what_cannot_be_searched_is_named_and_the_others_are_found():
    whole = encoded([5, 4, 3, 6])
    search = BeamSearch({}, 3, 3, Options(3, 1.0))
    good = run(search, whole.select([0, 3]))
    whole.lengths[1] = 0
    whole.frames[2, 1] = torch.nan
    whole.log_probs[2] = torch.nan
    whole.frames[0, 5:] = torch.nan  # padding
    found = run(search, whole)
    assert "no frame" in found[1].reason and "not finite" in found[2].reason
    for key in (0, 3):
        assert found[key].hypotheses == good[key].hypotheses and not found[key].reason


def test_a_scorer_that_breaks_costs_its_utterance_alone():
    class Broken(Fixed):
        """Gives NaN for the second utterance from the third token on; its state counts."""

        def start(self, speech, lengths=None):
            return speech.new_zeros(len(speech), 1).index_fill_(0, torch.tensor([1]), 1.0)

        def step(self, tokens, state):
            state = torch.where(state > 0, state + 1, state)
            scores = self.scores.expand(*tokens.shape, -1)
            return torch.where((state > 3)[..., None], torch.nan, scores), state

        def reorder(self, state, index=None, utterances=None, out=None):
            state = state if utterances is None else state[utterances]
            return state[:, :1].expand_as(index)

    batch = encoded([6, 6, 5])
    found = run(BeamSearch({"lm": (Broken(0.0, 1.0, 2.0, 1.0), 0.5)}, 3, 3, Options(3)), batch)
    assert "not numbers" in found[1].reason and not found[1].hypotheses
    fixed = {"lm": (Fixed(0.0, 1.0, 2.0, 1.0), 0.5)}
    for key in (0, 2):
        alone = run(BeamSearch(fixed, 3, 3, Options(3)), batch.select([key]))[key]
        assert found[key].hypotheses == alone.hypotheses and alone.hypotheses


def test_a_shortest_text_above_the_longest_has_no_hypothesis():
    found = run(BeamSearch({}, 3, 3, Options(3, 1.0, 0.0, -2.0, -4.0)), encoded([5]))
    assert "minlenratio" in found[0].reason and found[0].hypotheses == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(beam_size=2, nbest=3), "nbest is 3, more than the beam_size 2"),
        (dict(beam_size=0), "beam_size is 0"),
        (dict(maxlenratio=-0.5), "a number of tokens"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_nothing_to_search_with():
    with pytest.raises(ValueError, match="weight 0"):
        BeamSearch({"lm": (Fixed(0.0), 0.0)}, 3, 3, Options(ctc_weight=0.0))
