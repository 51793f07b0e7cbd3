"""ESPnet's own joint search over our decoders: incremental state against the whole prefix."""

import pytest
import torch
from tiny_asr import DECODERS, OURS, an4, make_experiment

from mambaasr.data.audio import read_audio
from mambaasr.espnet_compat import BatchScorerInterface
from mambaasr.registry import CLASSES


class WholePrefix(torch.nn.Module, BatchScorerInterface):
    """Scores every prefix afresh through the decoder's parallel form; keeps no state."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def batch_score(self, ys, states, xs):
        lengths = torch.full((len(ys),), ys.shape[1])
        frames = torch.full((len(xs),), xs.shape[1])
        logits, _ = self.decoder(xs, frames, ys, lengths)
        return logits[:, -1].log_softmax(-1), [None] * len(ys)


# Decoder-only: the encoder is an input layer alone.
INPUT_LAYER = dict(encoder="mamba", encoder_conf=dict(output_size=16, num_blocks=0))


@pytest.fixture
def make_search(tmp_path):
    """Return a function decoder name -> Speech2Text of a tiny model with random weights."""

    def make(name, encoder, **options):
        from mambaasr.decode.load import load_speech2text

        # make_experiment sharpens the weights, so that hypotheses compete.
        decoder = dict(decoder=name, decoder_conf=DECODERS[name])
        files = make_experiment(tmp_path, **(OURS | encoder | decoder))
        return load_speech2text(*files, beam_size=5, ctc_weight=0.3, nbest=5, **options)

    return make


EVERY = pytest.mark.parametrize(
    "name, encoder", [*((name, {}) for name in CLASSES["decoder"]), ("madeon", INPUT_LAYER)]
)


@EVERY
@torch.no_grad()
def test_espnets_search_over_several_utterances_finds_what_it_finds_one_by_one(
    name, encoder, make_search, test_data, caplog
):
    speech2text = make_search(name, encoder, maxlenratio=0.5, ctc_window_margin=0)
    waves = [read_audio(path)[0] for path in an4(test_data, 4).values()]
    alone = [speech2text(wave) for wave in waves]
    together = speech2text.batch_decode(waves)
    assert len({len(wave) for wave in waves}) == 4
    assert len({found[0][0] for found in alone}) > 1
    for few, many in zip(alone, together, strict=True):
        assert [text for text, *_ in few] == [text for text, *_ in many]
        for one, other in zip(few, many, strict=True):
            assert float(one[3].score) == pytest.approx(float(other[3].score), rel=1e-4)
    assert "xs_mask" not in caplog.text


@EVERY
@torch.no_grad()
def test_incremental_search_finds_what_rescoring_every_prefix_finds(name, encoder, make_search):
    speech2text = make_search(name, encoder)
    search = speech2text.beam_search
    torch.manual_seed(3)
    for samples in (8000, 24000):
        speech = torch.randn(samples).mul(0.1).cumsum(0).clamp(-1, 1)
        encoded, lengths = speech2text.asr_model.encode(
            speech.unsqueeze(0), torch.tensor([samples])
        )
        decoder = speech2text.asr_model.decoder
        # A search may begin with more than <sos/eos>: ESPnet's prompts.
        for primer in (None, [search.sos, 3, 2]):
            search.set_hyp_primer(primer)
            results = []
            for scorer in (decoder, WholePrefix(decoder)):
                search.full_scorers["decoder"] = scorer
                results.append(search(encoded[0, : lengths[0]], maxlenratio=0.8)[:5])
            assert len(results[0]) >= 2
            for fast, slow in zip(*results, strict=True):
                assert primer is None or fast.yseq[:3].tolist() == primer
                assert torch.equal(fast.yseq, slow.yseq)
                assert float(fast.score) == pytest.approx(float(slow.score), rel=1e-4)
