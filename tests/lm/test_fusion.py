"""Language models in ESPnet's joint search over speech: ours and ESPnet's Transformer."""

import random
from itertools import pairwise

import pytest
import tiny_asr
import torch
from output_layers import Halves
from tiny_asr import make_experiment
from tiny_lm import ESPNETS, OURS, make_lm_experiment

from mambaasr.decode.load import load_speech2text
from mambaasr.errors import UserError
from mambaasr.espnet_compat import BatchScorerInterface
from mambaasr.lm.kneser_ney import estimate
from mambaasr.lm.ngram import NGram


class WholePrefix(torch.nn.Module, BatchScorerInterface):
    """Scores every prefix afresh through the model's parallel form; keeps no state."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm

    def batch_score(self, ys, states, xs):
        logits, _ = self.lm(ys, None)
        return logits[:, -1].log_softmax(-1), [None] * len(ys)


@pytest.fixture(scope="module")
def asr(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("asr"), **tiny_asr.OURS)


@pytest.fixture(scope="module")
def lms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    return {
        options["lm"]: make_lm_experiment(folder / options["lm"], **options)
        for options in (OURS, ESPNETS)
    }


def load(asr, lm=None, **options):
    config, weights = lm or (None, None)
    options = dict(beam_size=5, ctc_weight=0.3, nbest=5) | options
    return load_speech2text(*asr, lm_train_config=config, lm_file=weights, **options)


def encoded(speech2text, samples=16000):
    torch.manual_seed(3)
    speech = torch.randn(1, samples).mul(0.1).cumsum(1).clamp(-1, 1)
    frames, lengths = speech2text.asr_model.encode(speech, torch.tensor([samples]))
    return frames[0, : lengths[0]]


@pytest.mark.parametrize("name", ["mamba", "transformer"])
@torch.no_grad()
def test_search_with_a_language_model(asr, lms, name):
    """Its share is in the scores, and state by state it is what the whole text gives."""
    speech2text = load(asr, lms[name], lm_weight=0.6)
    search = speech2text.beam_search
    frames = encoded(speech2text)
    found = search(frames, maxlenratio=0.8)[:5]
    lm = search.full_scorers["lm"]
    for hypothesis in found:
        # At the length limit ESPnet adds <sos/eos> without a score.
        tokens = hypothesis.yseq[: int(0.8 * len(frames)) + 1]
        want = lm(tokens[None, :-1], None)[0][0].log_softmax(-1)
        want = want.gather(1, tokens[1:, None]).sum()
        assert float(hypothesis.scores["lm"]) == pytest.approx(float(want), rel=1e-4)
    plain = load(asr).beam_search(frames, maxlenratio=0.8)[:5]
    assert [h.yseq.tolist() for h in plain] != [h.yseq.tolist() for h in found]


def test_another_output_layer_in_decoder_and_language_model(asr, lms):
    """With the three methods of the interface alone, trained as ESPnet trains and in its search."""
    from espnet2.lm.espnet_model import ESPnetLanguageModel

    speech2text = load(asr, lms["mamba"], lm_weight=0.6)
    scorers = speech2text.beam_search.full_scorers
    decoder, lm = scorers["decoder"], scorers["lm"]
    torch.manual_seed(0)
    for part in (decoder, lm):
        part.output_layer = Halves(part.embed.embedding_dim, len(tiny_asr.TOKENS))
        torch.nn.init.normal_(part.output_layer.tokens.weight)
    loss, _, _ = ESPnetLanguageModel(lm, len(tiny_asr.TOKENS))(
        torch.tensor([[5, 6, 7]]), torch.tensor([3])
    )
    loss.backward()
    assert all(each.grad.abs().sum() > 0 for each in lm.output_layer.parameters())
    with torch.no_grad():
        frames = encoded(speech2text)
        for hypothesis in speech2text.beam_search(frames, maxlenratio=0.8)[:5]:
            tokens = hypothesis.yseq[: int(0.8 * len(frames)) + 1]
            read, length = tokens[None, :-1], torch.tensor([len(tokens) - 1])
            whole = {
                "lm": lm(read, None)[0],
                "decoder": decoder(frames[None], torch.tensor([len(frames)]), read, length)[0],
            }
            for name, logits in whole.items():
                want = logits[0].gather(1, tokens[1:, None]).sum()
                assert float(hypothesis.scores[name]) == pytest.approx(float(want), rel=1e-4)


@torch.no_grad()
def test_incremental_search_finds_what_rescoring_every_prefix_finds(asr, lms):
    speech2text = load(asr, lms["mamba"], lm_weight=0.6)
    search = speech2text.beam_search
    lm = search.full_scorers["lm"]
    for samples in (8000, 24000):
        frames, results = encoded(speech2text, samples), []
        for scorer in (lm, WholePrefix(lm)):
            search.full_scorers["lm"] = scorer
            results.append(search(frames, maxlenratio=0.8)[:5])
        assert len(results[0]) >= 2
        for fast, slow in zip(*results, strict=True):
            assert torch.equal(fast.yseq, slow.yseq)
            assert float(fast.score) == pytest.approx(float(slow.score), rel=1e-4)


@torch.no_grad()
def test_an_ngram_model_in_espnets_search(asr):
    """By its stateless interface, with the scores that it gives token by token."""
    speech2text = load(asr)
    search, frames = speech2text.beam_search, encoded(speech2text)
    plain = search(frames, maxlenratio=0.8)[:5]
    size, draw = len(tiny_asr.TOKENS), random.Random(0)
    texts = [draw.choices(range(1, size - 1), k=6) for _ in range(40)]
    ngram = NGram(estimate(texts, 3, size), tiny_asr.TOKENS)
    search.scorers["ngram"] = search.full_scorers["ngram"] = ngram
    search.weights["ngram"] = 2.0
    found = search(frames, maxlenratio=0.8)[:5]
    for hypothesis in found:
        tokens = hypothesis.yseq[: int(0.8 * len(frames)) + 1]
        state, want = ngram.start(1), 0.0
        for token, following in pairwise(tokens.tolist()):
            scores, state = ngram.step(torch.tensor([[token]]), state)
            want += float(scores[0, 0, following])
        assert float(hypothesis.scores["ngram"]) == pytest.approx(want, rel=1e-4)
    assert [h.yseq.tolist() for h in plain] != [h.yseq.tolist() for h in found]


def test_tokens_of_another_model_are_refused(asr, tmp_path):
    """Lists of equal length but another order would decode nonsense without a word."""
    tokens = [*tiny_asr.TOKENS[:3], *reversed(tiny_asr.TOKENS[3:-1]), tiny_asr.TOKENS[-1]]
    lm = make_lm_experiment(tmp_path, tokens=tokens)
    with pytest.raises(UserError, match="config.yaml: its token_list is not that of"):
        load(asr, lm)
