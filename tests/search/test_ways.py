"""The ways to search on speech, with models as the recogniser opens them."""

import pytest
import torch
import torch.nn.functional as F

from mambaasr.decode.align import align, words
from mambaasr.decode.recogniser import Recogniser
from mambaasr.search.beam import BeamSearch, Options
from mambaasr.search.data import Found
from mambaasr.search.greedy import ctc_greedy
from mambaasr.search.prefix import PrefixOptions, ctc_prefix_search
from mambaasr.search.rescore import rescore
from mambaasr.search.scorers import BatchScorer


@torch.no_grad()
def encoded_by(speech2text, utterances):
    """Return the utterances behind the encoder, and what a search needs: scorers, sos, eos."""
    batch, _ = Recogniser(speech2text)._encode(utterances)
    search = speech2text.beam_search
    scorers = {}
    for name in ("decoder", "lm"):
        scorer = search.full_scorers[name]
        if not hasattr(scorer, "start"):
            scorer = BatchScorer(scorer, hears_speech=name == "decoder")
        scorers[name] = scorer, search.weights[name]
    return batch, scorers, search.sos, search.eos


@pytest.mark.parametrize("decoder, lm", [("mamba", "mamba"), ("transformer", "transformer")])
def test_from_the_best_path_to_times(decoder, lm, opened, utterances):
    speech2text = opened(decoder, lm=lm, lm_weight=0.4)
    encoded, scorers, sos, eos = encoded_by(speech2text, utterances[:3])
    tokens = speech2text.asr_model.token_list
    lm_alone = {"lm": scorers["lm"]}
    best = ctc_greedy(encoded)
    wide = PrefixOptions(beam_size=8, nbest=8)
    found = ctc_prefix_search(encoded, lm_alone, sos, eos, wide)
    # A text's paths are at least as probable together as the best one; <eos> is in no text.
    plain = ctc_prefix_search(encoded, {}, sos, eos, PrefixOptions(beam_size=8))
    for one, other in zip(best, plain, strict=True):
        if eos not in one.hypotheses[0].tokens:
            assert one.hypotheses[0].score <= other.hypotheses[0].score + 1e-6
    options = Options(ctc_weight=0.3, nbest=8)
    better = rescore(encoded, found, scorers, sos, eos, options)
    for u, each in enumerate(better):
        assert each.key == utterances[u].key
        assert {tuple(h.tokens) for h in each.hypotheses} == {
            tuple(h.tokens) for h in found[u].hypotheses
        }
        log_probs = encoded.log_probs[u, : encoded.lengths[u]]
        for hypothesis in each.hypotheses:
            text = torch.tensor(hypothesis.tokens)
            loss = F.ctc_loss(log_probs, text, (len(log_probs),), (len(text),), reduction="sum")
            assert hypothesis.parts["ctc"] <= -float(loss) + 1e-3
            spans = align(log_probs, hypothesis.tokens)
            assert len(spans) == len(text)
            assert all(one.end <= two.start for one, two in zip(spans, spans[1:], strict=False))
            spelled = [tokens[token] for token in hypothesis.tokens]
            text = speech2text.tokenizer.tokens2text(spelled)
            assert [word.text for word in words(spans, spelled, "char")] == text.split()


@pytest.mark.parametrize("decoder, lm", [("mamba", "mamba"), ("transformer", "transformer")])
def test_rescoring_what_the_joint_search_has_found_changes_nothing(decoder, lm, opened, utterances):
    speech2text = opened(decoder, lm=lm, lm_weight=0.4, penalty=0.5)
    encoded, scorers, sos, eos = encoded_by(speech2text, utterances[:3])
    options = Options(beam_size=4, ctc_weight=0.3, penalty=0.5, nbest=4)
    joint, found = BeamSearch(scorers, sos, eos, options), []
    assert not joint.add(encoded)
    while joint:
        found += joint.step()
    # Without the scores of all but CTC.
    bare = [
        Found(
            each.key,
            [type(h)(h.tokens, 0.0, {"ctc": h.parts["ctc"]}) for h in each.hypotheses[::-1]],
        )
        for each in found
    ]
    compared = 0
    for one, two in zip(rescore(encoded, bare, scorers, sos, eos, options), found, strict=True):
        mine = {tuple(h.tokens): h for h in one.hypotheses}
        for other in two.hypotheses:
            # Not of those that end without <eos>, as long as may be.
            if other.parts["length_bonus"] == len(other.tokens) + 1:
                each = mine[tuple(other.tokens)]
                assert each.score == pytest.approx(other.score, abs=1e-3)
                assert each.parts == pytest.approx(dict(other.parts), abs=1e-3)
                compared += 1
    assert compared > 2
