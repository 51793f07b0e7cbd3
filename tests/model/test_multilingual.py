"""The multilingual model: ESPnet's own with neither option, and what each option adds."""

import logging

import pytest
import torch
from tiny_asr import OURS, make_experiment

from mambaasr.decode.load import load_speech2text, read_weights
from mambaasr.layers import cpu
from mambaasr.model.multilingual import MultilingualModel
from mambaasr.registry import CLASSES

CTC = {"decoder": None, "ctc_conf": {}}
BASIC = {"ctc_weight": 1.0, "report_wer": False}
LANGUAGES = {"languages": ["de", "en", "es"]}
FAMILIES = {"families": {"de": "germanic", "en": "germanic", "es": "romance", "it": "romance"}}
SMALL = {"output_size": 16, "num_blocks": 2}
RNN = {"encoder": "rnn", "encoder_conf": {"hidden_size": 8, "output_size": 8}}


def load(folder, conf=(), **options):
    """Return a CTC model with random weights, in ESPnet's Speech2Text."""
    options = OURS | CTC | {"model": "multilingual", "normalize": None} | options
    files = make_experiment(folder, model_conf=BASIC | dict(conf), **options)
    return load_speech2text(*files, ctc_weight=1.0, beam_size=2)


def batch(lengths=(16000, 12000, 9000), lang=(0, 1, 2)):
    generator = torch.Generator().manual_seed(0)
    return {
        "speech": torch.randn(3, max(lengths), generator=generator) * 0.1,
        "speech_lengths": torch.tensor(lengths),
        "text": torch.randint(3, 20, (3, 4), generator=generator),
        "text_lengths": torch.tensor([4, 3, 2]),
    } | ({"lang": torch.tensor(lang)[:, None]} if lang else {})


CASES = {
    "language": LANGUAGES | {"conditioning": "language"},
    "family": LANGUAGES | FAMILIES | {"conditioning": "family"},
    "lid": LANGUAGES | {"lid_weight": 0.3},
    "family_and_lid": LANGUAGES | FAMILIES | {"conditioning": "family", "lid_weight": 1},
}


def test_with_neither_it_is_espnets_model(tmp_path):
    theirs = load(tmp_path / "theirs", model="espnet").asr_model.train()
    ours = load(tmp_path / "ours").asr_model.train()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    losses = []
    for model in (theirs, ours):
        torch.manual_seed(1)
        loss, stats, weight = model(**batch(lang=None))
        losses.append((loss.item(), {k: v for k, v in stats.items() if v is not None}, weight))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("conf", CASES.values(), ids=CASES)
def test_every_parameter_gets_a_gradient_and_statistics_are_finite(tmp_path, conf):
    model = load(tmp_path, conf).asr_model.train()
    loss, stats, _ = model(**batch())
    loss.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if model.language_embedding is not None:
        assert model.language_embedding.weight.grad.abs().sum(1).min() > 0
    if model.lid is not None:
        assert 0 <= stats["lid_acc"].item() <= 1
        both = stats["loss_ctc"] + conf["lid_weight"] * stats["loss_lid"]
        torch.testing.assert_close(stats["loss"], both)
        torch.testing.assert_close(loss.detach(), both)


@pytest.mark.parametrize("encoder", ["conmamba", "conformer", "e_branchformer", "transformer"])
def test_an_utterances_own_vector_is_added_to_its_frames(tmp_path, encoder):
    options = {"encoder": encoder}
    if encoder != "conmamba":
        options["encoder_conf"] = {"output_size": 16, "num_blocks": 1, "linear_units": 16}
    if encoder == "e_branchformer":
        options["encoder_conf"] |= {"cgmlp_linear_units": 16, "cgmlp_conv_kernel": 3}
    model = load(tmp_path, CASES["language"], **options).asr_model.eval()
    inputs = {key: batch(lang=None)[key] for key in ("speech", "speech_lengths")}
    with torch.no_grad():
        before, lengths = model.encode(**inputs)
        model.set_languages(["es", "de", "de"])
        assert torch.equal(model.encode(**inputs)[0], before)  # vectors start from zero
        model.language_embedding.weight[0] = torch.randn(16) * 3
        after, _ = model.encode(**inputs)
    differs = [
        not torch.allclose(a[:n], b[:n]) for a, b, n in zip(before, after, lengths, strict=True)
    ]
    assert differs == [False, True, True]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("encoder", sorted(CLASSES["encoder"]))
def test_told_in_a_batch_or_alone_it_is_the_same(tmp_path, encoder, dtype, atol, monkeypatch):
    """By one kind of product: in fp32 this untrained model makes 2e-4 of the rounding of two."""
    monkeypatch.setattr(cpu, "_enabled", False)
    model = load(tmp_path, CASES["language"], encoder=encoder, encoder_conf=SMALL).asr_model.eval()
    model.to(dtype)
    data = batch(lang=None)
    speech = data["speech"].to(dtype)
    codes = ["es", "de", "en"]
    with torch.no_grad():
        model.language_embedding.weight.normal_(0, 3)
        model.set_languages(codes)
        together, lengths = model.encode(speech, data["speech_lengths"])
        for row, (code, length) in enumerate(zip(codes, data["speech_lengths"], strict=True)):
            model.set_languages([code])
            alone, _ = model.encode(speech[row : row + 1, :length], length[None])
            assert alone.size(1) == lengths[row]
            torch.testing.assert_close(alone[0], together[row, : lengths[row]], atol=atol, rtol=0)


@pytest.mark.parametrize("lookahead", [0, 5])
def test_pieces_of_a_conditioned_model_give_what_the_whole_gives(tmp_path, lookahead):
    causal = SMALL | {"mixer_conf": {"direction": "uni"}, "lookahead_kernel": lookahead}
    model = load(tmp_path, CASES["language"], encoder="mamba", encoder_conf=causal).asr_model.eval()
    encoder, speech = model.encoder, batch()["speech"][:2, :9000]
    lengths = torch.tensor([9000, 9000])
    with torch.no_grad():
        unknown, _ = model.encode(speech, lengths)
        model.language_embedding.weight.normal_(0, 3)
        model.set_languages(["es", "de"])
        whole, _ = model.encode(speech, lengths)
        feats, _ = model.frontend(speech, lengths)
        pieces, state = [], encoder.initial_state(2)
        for piece in feats.split(10, dim=1):
            last = len(pieces) == (feats.shape[1] - 1) // 10
            y, state = encoder.forward_chunk(piece, state, last, condition=model.condition())
            pieces.append(y)
        by_itself, *_ = encoder(
            feats, torch.full((2,), feats.shape[1]), condition=model.condition()
        )
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-4, rtol=0)
    assert torch.equal(by_itself, whole)
    assert not torch.allclose(unknown, whole, atol=0.1)
    assert not encoder._forward_pre_hooks and not encoder._forward_hooks


def test_languages_of_a_family_share_a_vector(tmp_path):
    model = load(tmp_path, CASES["family"]).asr_model.eval()
    assert model.language_embedding.num_embeddings == 2
    speech = batch(lang=None)["speech"][:1]
    outs = []
    with torch.no_grad():
        model.language_embedding.weight.normal_(0, 3)
        for code in ("de", "en", "es"):
            model.set_languages([code])
            outs.append(model.encode(speech, torch.tensor([speech.size(1)]))[0])
    assert torch.equal(outs[0], outs[1]) and not torch.allclose(outs[0], outs[2])


@pytest.mark.parametrize("init", ["xavier_uniform", "kaiming_normal"])
def test_vectors_start_from_zero_whatever_espnet_initialises(tmp_path, init):
    from espnet2.torch_utils.initialize import initialize

    model = load(tmp_path, CASES["language"]).asr_model
    model.language_embedding.reset_parameters()
    initialize(model, init)
    assert model.language_embedding.weight.abs().max() == 0


def test_the_head_does_not_see_padding_and_finds_what_it_was_taught(tmp_path):
    model = load(tmp_path, CASES["lid"]).asr_model.eval()
    data = batch(lang=None)
    with torch.no_grad():
        together = model.language_logits(*model.encode(data["speech"], data["speech_lengths"]))
        found = model.found_languages()
        for row, length in enumerate(data["speech_lengths"]):
            alone = model.encode(data["speech"][row : row + 1, :length], length[None])
            logits = model.language_logits(*alone)[0]
            torch.testing.assert_close(logits, together[row], atol=1e-5, rtol=1e-4)
            assert model.found_languages() == [found[row]]
        model.lid.weight.zero_()
        model.lid.bias.copy_(torch.tensor([0.0, 2.0, 1.0]))
        model.encode(data["speech"], data["speech_lengths"])
    assert model.found_languages() == ["en"] * 3


def test_espnets_speech2text_opens_it_and_says_that_no_language_is_known(tmp_path, caplog):
    from mambaasr.espnet_compat import import_quietly
    from mambaasr.model import multilingual

    files = make_experiment(
        tmp_path, **OURS | CTC, model="multilingual", model_conf=BASIC | CASES["language"]
    )
    opened = import_quietly("espnet2.bin.asr_inference").Speech2Text(
        *map(str, files), ctc_weight=1.0, beam_size=2
    )
    state = opened.asr_model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in read_weights(files[1]).items())
    multilingual._warned.clear()
    speech = batch()["speech"][0].numpy()
    with caplog.at_level(logging.WARNING):
        unknown = [opened(speech)[0][2] for _ in range(2)]
    assert sum("no language is given" in text for text in caplog.messages) == 1
    opened.asr_model.set_languages(["en"])
    known = opened(speech)[0][2]
    assert unknown[0] == unknown[1] and isinstance(known, list)


def test_training_without_languages_is_refused(tmp_path):
    for name in ("language", "lid"):
        model = load(tmp_path / name, CASES[name]).asr_model
        with pytest.raises(ValueError, match="utt2lang,lang,text"):
            model(**batch(lang=None))


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"conditioning": "dialect"}, "conditioning is 'dialect'; choose one of none, language"),
        ({"lid_weight": 0.3}, "languages is not given"),
        ({"languages": ["de", False]}, "languages holds False; .*write 'no'"),
        (CASES["family"] | {"families": {"de": "germanic"}}, "families names no family of en, es"),
        (CASES["language"] | {"lid_weight": 0.3}, "choose one of them"),
    ],
)
def test_impossible_options_are_named(conf, message):
    with pytest.raises(ValueError, match=message):
        MultilingualModel(encoder=None, ctc=None, **conf)


def test_an_encoder_without_a_place_and_an_unknown_language(tmp_path):
    from mambaasr.errors import UserError

    with pytest.raises((ValueError, UserError), match="no place in RNNEncoder"):
        load(tmp_path / "rnn", CASES["language"], **RNN)
    model = load(tmp_path / "known", CASES["lid"]).asr_model
    with pytest.raises(ValueError, match="'fr' is none of the model's languages: de, en, es"):
        model.set_languages(["fr"])
