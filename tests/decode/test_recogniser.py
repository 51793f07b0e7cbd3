"""Recognising waveforms: failures, memory, prompts, languages of what is found."""

import weakref

import pytest
import torch
from tiny_asr import OURS, TOKENS, make_experiment

from mambaasr.data.audio import read_audio
from mambaasr.decode import recogniser
from mambaasr.decode.load import load_speech2text
from mambaasr.decode.recogniser import ESPnetRecogniser, Recogniser, Utterance, search
from mambaasr.errors import UserError
from mambaasr.lm.phrases import load_phrases
from mambaasr.search.beam import BeamSearch
from mambaasr.search.data import NOT_NUMBERS, Encoded
from mambaasr.search.scorers import NotSearchable
from mambaasr.search.ways import WAYS


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("exp"), **OURS)


@pytest.fixture(scope="module")
def speech2text(files):
    return load_speech2text(*files, beam_size=3, ctc_weight=0.3, ctc_window_margin=0)


@pytest.fixture(scope="module")
def waves(speech):
    whole = [torch.as_tensor(read_audio(path, rate=16000)[0]) for path in speech.values()]
    return [wave[: 12000 + 1600 * place] for place, wave in enumerate(whole)]


def texts(found):
    return [each.hypotheses[0].tokens for each in found]


def test_waveforms_in_texts_out(speech2text, waves):
    """As ESPnet's search finds them, in their order, from numpy's arrays too."""
    found = search(Recogniser(speech2text), [wave.numpy() for wave in waves])
    assert [each.reason for each in found] == [None] * len(waves)
    theirs = search(ESPnetRecogniser(speech2text), waves)
    eos = speech2text.asr_model.eos
    assert texts(found) == [[token for token in text if token != eos] for text in texts(theirs)]
    plain = Recogniser(speech2text).plain(found[0].hypotheses[0])
    assert plain["token_int"] == " ".join(map(str, found[0].hypotheses[0].tokens))
    assert set(plain["parts"]) == {"decoder", "ctc"}


def test_one_bad_utterance_costs_itself_alone(speech2text, waves, caplog):
    bad = [waves[0], waves[1].new_zeros(300), waves[2] * torch.nan, *waves[3:]]
    good = texts(search(Recogniser(speech2text), waves))
    found = search(Recogniser(speech2text), bad)
    assert [bool(each.reason) for each in found] == [False, True, True, *[False] * (len(bad) - 3)]
    assert "too short" in found[1].reason and "not finite" in found[2].reason
    assert texts([found[0], *found[3:]]) == [good[0], *good[3:]]


@pytest.mark.parametrize("where", ["step", "add"])
def test_what_does_not_fit_into_memory_is_tried_in_halves(where, speech2text, waves, monkeypatch):
    """Two fit and three do not, whether together at once or by joining."""
    good, sizes = texts(search(Recogniser(speech2text), waves)), []
    ours = getattr(BeamSearch, where)

    def full(self, *args):
        size = len(self) + (len(args[0].keys) if args else 0)
        sizes.append(size)
        if size > 2:
            raise MemoryError("no room")
        return ours(self, *args)

    monkeypatch.setattr(BeamSearch, where, full)
    found = search(Recogniser(speech2text, 6), waves)
    assert [each.reason for each in found] == [None] * len(waves)
    assert texts(found) == good and max(sizes) > 2


def test_halves_have_the_memory_of_what_failed(speech2text, waves, monkeypatch):
    """Nothing of a failed search is alive while its utterances are encoded again."""
    step, encode, failed, alive = BeamSearch.step, Recogniser._encode_together, [], []

    def full(self):
        if len(self) > 2:
            failed.append(weakref.ref(self._parts))
            raise MemoryError("no room")
        return step(self)

    def spy(self, batch):
        alive.append(sum(each() is not None for each in failed))
        return encode(self, batch)

    monkeypatch.setattr(BeamSearch, "step", full)
    monkeypatch.setattr(Recogniser, "_encode_together", spy)
    assert not any(each.reason for each in search(Recogniser(speech2text, 6), waves))
    assert failed and sum(alive) == 0


def test_memory_is_full_beside_the_search(speech2text, waves, monkeypatch):
    """Where what is kept of each utterance does not fit, nobody is lost in the search."""
    good, ours, calls = texts(search(Recogniser(speech2text), waves)), Encoded.log_probs_of, []

    def full(self, place):
        calls.append(place)
        if len(calls) == 2:
            raise MemoryError("no room")
        return ours(self, place)

    monkeypatch.setattr(Encoded, "log_probs_of", full)
    found = search(Recogniser(speech2text, 4), waves)
    assert [each.reason for each in found] == [None] * len(waves) and texts(found) == good


@pytest.mark.parametrize("way", WAYS)
def test_broken_weights_are_named(way, files, waves):
    """Whichever way meets them; one that does not ask the decoder finds its text."""
    model = load_speech2text(*files, beam_size=3, ctc_weight=0.3, ctc_window_margin=0)
    with torch.no_grad():
        model.asr_model.decoder.after_norm.weight.fill_(torch.nan)
    found = search(Recogniser(model, 2, way), waves[:2])
    asked = way in ("joint", "attention", "rescore")
    assert [each.reason == NOT_NUMBERS for each in found] == [asked] * 2
    assert [bool(each.hypotheses) for each in found] == [not asked] * 2


def test_a_broken_language_model_is_named_frame_by_frame_too(files, waves, tmp_path):
    model = load_speech2text(*files, beam_size=3, ctc_weight=0.3, ctc_window_margin=0)
    (tmp_path / "phrases").write_text("AB\n")
    scorer = load_phrases(tmp_path / "phrases", lambda text: [3, 4], TOKENS)
    scorer.log_prob.fill_(torch.nan)
    model.beam_search.full_scorers["phrases"] = scorer
    model.beam_search.weights["phrases"] = 1.0
    for way in ("joint", "ctc_prefix"):
        found = search(Recogniser(model, 2, way), waves[:2])
        assert [each.reason for each in found] == [NOT_NUMBERS] * 2


def test_what_does_not_fit_alone_is_named(speech2text, waves, monkeypatch):
    encode = Recogniser._encode_together

    def full(self, batch):
        if any(each.key == 1 for each in batch):
            raise MemoryError("no room")
        return encode(self, batch)

    monkeypatch.setattr(Recogniser, "_encode_together", full)
    found = search(Recogniser(speech2text), waves)
    assert [each.key for each in found if each.reason] == [1]
    assert isinstance(found[1].error, MemoryError)


def test_a_lost_gpu_ends_it(speech2text, waves, monkeypatch):
    """What was not reached is left to another process."""

    def lost(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(BeamSearch, "step", lost)
    utterances = [Utterance(place, wave) for place, wave in enumerate(waves)]
    found = list(Recogniser(speech2text, 2)(utterances))
    assert len(found) == 2 and all("CUDA error" in str(each.error) for each in found)


def test_a_prompt_is_spelled_as_in_training(tmp_path, speech2text):
    """Of characters its words stay whole, and a <space> follows; it stands in no hypothesis."""
    tokens = [*TOKENS[:-1], "<|en|>", "<|transcribe|>", TOKENS[-1]]
    files = make_experiment(tmp_path, **OURS, token_list=tokens)
    model = Recogniser(load_speech2text(*files, beam_size=2, ctc_weight=0.3))
    space = tokens.index("<space>")
    ids = model.prompt("<|en|> <|transcribe|>")
    assert ids == (tokens.index("<|en|>"), space, tokens.index("<|transcribe|>"), space)
    with pytest.raises(UserError, match="cannot spell"):
        model.prompt("<|xx|>")


def test_a_prompt_of_bpe_ends_where_the_text_begins(tmp_path):
    import sentencepiece

    texts = tmp_path / "texts"
    texts.write_text("<|en|> <|transcribe|> hello world\n<|en|> <|transcribe|> how low\n" * 20)
    sentencepiece.SentencePieceTrainer.Train(
        f"--input={texts} --model_prefix={tmp_path / 'bpe'} --vocab_size=16 "
        "--user_defined_symbols=<|en|>,<|transcribe|>"
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "bpe.model"))
    units = [pieces.IdToPiece(i) for i in range(3, pieces.GetPieceSize())]
    tokens = ["<blank>", "<unk>", *units, "<sos/eos>"]
    own = dict(token_list=tokens, token_type="bpe", bpemodel=str(tmp_path / "bpe.model"))
    files = make_experiment(tmp_path / "exp", **OURS, **own)
    model = Recogniser(load_speech2text(*files, beam_size=2, ctc_weight=0.3))
    ids = model.prompt("<|en|> <|transcribe|>")
    whole = [tokens.index(piece) for piece in pieces.EncodeAsPieces("<|en|> <|transcribe|> hello")]
    assert list(ids) == whole[: len(ids)]
    assert tokens[ids[-1]] in ("<|transcribe|>", "\u2581")


def test_a_prompt_of_words(tmp_path):
    tokens = ["<blank>", "<unk>", "<|en|>", "THE", "CAT", "<sos/eos>"]
    own = dict(token_list=tokens, token_type="word")
    files = make_experiment(tmp_path, **OURS, **own)
    model = Recogniser(load_speech2text(*files, beam_size=2, ctc_weight=0.3))
    assert model.prompt("<|en|>") == (2,)


def test_the_time_of_a_batch_is_bounded_and_others_join(speech2text, waves, monkeypatch):
    """With room for two of the longest, no more than two are ever in the search."""
    sizes, joined = [], []
    step, add = BeamSearch.step, BeamSearch.add
    monkeypatch.setattr(recogniser, "AUTO_SECONDS", 2 * len(waves[-1]) / 16000)
    monkeypatch.setattr(BeamSearch, "step", lambda self: (sizes.append(len(self)), step(self))[1])
    monkeypatch.setattr(
        BeamSearch, "add", lambda self, *new: (joined.append(len(self)), add(self, *new))[1]
    )
    assert not any(each.reason for each in search(Recogniser(speech2text), waves))
    assert max(sizes) in (2, 3) and sizes[0] == 2 and max(joined) > 0


def test_a_quantised_model_takes_one_at_a_time(files, waves, monkeypatch):
    """Its activations have one scale for a whole batch."""
    model = load_speech2text(*files, beam_size=2, ctc_weight=0.3, quantize_asr_model=True)
    alone = texts(search(Recogniser(model, 1), waves))
    assert texts(search(Recogniser(model, 6), waves)) == alone


def test_attention_is_the_joint_search_without_ctc(files, waves):
    models = [
        Recogniser(load_speech2text(*files, beam_size=3, ctc_weight=weight, penalty=0.5), 6, way)
        for weight, way in ((0.3, "attention"), (0.0, "joint"))
    ]
    one, other = (search(model, waves) for model in models)
    assert texts(one) == texts(other)
    assert [x.hypotheses[0].score for x in one] == [x.hypotheses[0].score for x in other]


def test_what_a_way_needs(files):
    alone = load_speech2text(*files, beam_size=2, ctc_weight=1.0)
    for way in ("attention", "rescore"):
        with pytest.raises(UserError, match="no decoder"):
            Recogniser(alone, search=way)
    speech2text = load_speech2text(*files, beam_size=2, ctc_weight=0.3)
    speech2text.asr_model.ctc = None
    for way in ("joint", "ctc_greedy", "ctc_prefix", "rescore"):
        with pytest.raises(UserError, match="no CTC"):
            Recogniser(speech2text, search=way)
    Recogniser(speech2text, search="attention")


def test_phrases_are_preferred(files, speech2text, waves, tmp_path):
    before = Recogniser(speech2text).plain(search(Recogniser(speech2text), waves)[0].hypotheses[0])
    phrase = "QXZ"
    assert phrase not in before["text"]
    (tmp_path / "phrases").write_text(phrase + "\n")
    options = dict(beam_size=3, ctc_weight=0.0, phrases=tmp_path / "phrases", phrase_weight=30.0)
    model = Recogniser(load_speech2text(*files, **options))
    after = search(model, waves)[0].hypotheses[0]
    assert phrase in model.plain(after)["text"].replace(" ", "")
    assert after.parts["phrases"] >= len(phrase) - 1e-3


def test_a_transducer_is_espnets(speech2text, monkeypatch):
    monkeypatch.setattr(speech2text, "beam_search", None)
    with pytest.raises(NotSearchable, match="transducer"):
        Recogniser(speech2text)
