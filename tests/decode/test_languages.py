"""Decoding of a multilingual model: told the language, or finding it; CTC alone."""

import json

import pytest
from tiny_asr import OURS, make_experiment

from mambaasr import SpeechRecognizer
from mambaasr.bin.asr_inference import main
from mambaasr.decode.load import load_speech2text
from mambaasr.decode.recordings import Recording
from mambaasr.errors import UserError

CODES = ("de", "en")


def experiment(folder, **conf):
    """Return the checkpoint of a tiny CTC model, and config.yaml beside it."""
    conf = {"ctc_weight": 1.0, "languages": list(CODES)} | conf
    options = OURS | {"decoder": None, "model": "multilingual", "model_conf": conf}
    config, weights = make_experiment(folder, **options)
    if conf.get("conditioning"):
        import torch

        state = torch.load(weights, weights_only=True)
        state["language_embedding.weight"] = torch.randn(2, 16) * 5
        torch.save(state, weights)
    return config, weights


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return experiment(tmp_path_factory.mktemp("told"), conditioning="language")


@pytest.fixture
def decode(speech, tmp_path):
    """A function that decodes and returns the folder of the results."""
    scp = tmp_path / "wav.scp"
    scp.write_text("".join(f"{utt} {path}\n" for utt, path in speech.items()))

    def run(weights, name, languages=None, *options):
        out = tmp_path / name
        command = [
            "--asr_model_file",
            str(weights),
            "--output_dir",
            str(out),
            "--nj",
            "1",
            *options,
        ]
        command += ["--data_path_and_name_and_type", f"{scp},speech,sound", "--beam_size", "2"]
        if languages is not None:
            path = tmp_path / f"{name}.utt2lang"
            path.write_text("".join(f"{utt} {code}\n" for utt, code in languages.items()))
            command += ["--utt2lang", str(path)]
        assert main(command) == 0
        return out

    return run


def test_each_utterance_has_its_own_language(told, decode, speech):
    from mambaasr.data.audio import read_audio

    languages = {utt: CODES[i % 2] for i, utt in enumerate(speech)}
    out = decode(told[1], "out", languages)
    assert json.loads((out / "decode.json").read_text())["options"]["ctc_weight"] == 1.0
    assert not (out / "lang").exists()
    model = load_speech2text(*told, beam_size=2, ctc_weight=1.0)
    said = dict(line.rstrip("\n").split(" ", 1) for line in (out / "token_int").open())
    other = 0
    for utt, path in speech.items():
        samples, _ = read_audio(path, rate=16000)
        found = {}
        for code in CODES:
            model.asr_model.set_languages([code])
            tokens = model(samples)[0][2]
            # Where the length is at its bound, ESPnet puts <eos> behind <eos>.
            eos = model.asr_model.eos
            found[code] = " ".join(str(token) for token in tokens if token != eos)
        assert said[utt] == found[languages[utt]]
        other += found["de"] != found["en"]
    assert other, "the language made no difference"
    # Another language is another chunk: nothing of the first run is taken.
    swapped = {utt: CODES[CODES[0] == code] for utt, code in languages.items()}
    before = (out / "token_int").read_text()
    assert (decode(told[1], "out", swapped) / "token_int").read_text() != before


def test_an_unknown_language_is_not_that_of_the_utterance_before(told, speech, tmp_path):
    """The command line refuses it; who calls the function need not know every language."""
    from mambaasr.decode.asr import Model, decode_set

    options = (("beam_size", 2), ("ctc_weight", 1.0))
    model = Model(str(told[0]), str(told[1]), options=options)
    *_, (utt, path) = speech.items()
    wavs = {"a": str(path), "b": str(path)}
    said = {}
    for language in (None, *CODES):
        out = tmp_path / str(language)
        languages = {"a": language} if language else {}
        decode_set(model, wavs, wavs, out, chunk_size=2, languages=languages)
        said[language] = dict(
            line.rstrip("\n").split(" ", 1) for line in (out / "token_int").open()
        )
    assert len({said[language]["a"] for language in said}) > 1
    assert len({said[language]["b"] for language in said}) == 1


def test_a_head_writes_what_it_found(decode, speech, tmp_path):
    _, weights = experiment(tmp_path / "lid", lid_weight=0.5)
    some = dict.fromkeys(list(speech)[:1], "xx")  # not used: any language, or none, will do
    out = decode(weights, "out", some, "--nj", "1")
    lines = [line.split() for line in (out / "lang").read_text().splitlines()]
    assert [utt for utt, _ in lines] == list(speech)
    assert {code for _, code in lines} <= set(CODES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "was trained with the language of each utterance: give --utt2lang"),
        (lambda table: table.update({next(iter(table)): "fr"}), r"utt2lang:1: .* is in 'fr', .* "
         "none of the model's languages: de, en"),
    ],
)  # fmt: skip
def test_a_missing_or_unknown_language_is_named_before_anything_is_decoded(
    told, decode, speech, tmp_path, change, message
):
    languages = None
    if change is not None:
        languages = dict.fromkeys(speech, "de")
        change(languages)
    with pytest.raises(UserError, match=message):
        decode(told[1], "out", languages)
    assert not (tmp_path / "out").exists()


def test_a_recogniser_of_recordings_is_told_the_language(told, speech):
    """By each recording or for all; without it, or with another, nothing is guessed."""
    paths = list(speech.values())
    recognizer = SpeechRecognizer(told[1], beam_size=2)
    texts = {}
    for code in CODES:
        found = [recognizer.transcribe(Recording(path, "a", language=code)) for path in paths]
        assert {each.language for each in found} == {code}
        texts[code] = [each.text for each in found]
    assert texts["de"] != texts["en"]
    always = SpeechRecognizer(told[1], beam_size=2, language="de")
    assert [each.text for each in always.transcribe(paths)] == texts["de"]
    with pytest.raises(UserError, match="give the language, one of de, en: the model is told it"):
        recognizer.transcribe(paths[0])
    with pytest.raises(UserError, match="one of de, en: not 'fr'"):
        recognizer.transcribe(Recording(paths[0], "a", language="fr"))


def test_a_recogniser_of_recordings_finds_the_language(tmp_path, speech):
    _, weights = experiment(tmp_path / "lid", lid_weight=0.5)
    path = next(iter(speech.values()))
    recognizer = SpeechRecognizer(weights, beam_size=2)
    found = recognizer.transcribe(path)
    assert found.language in CODES and found.segments[0].language == found.language
    # What it is told besides is not its business.
    again = recognizer.transcribe(Recording(path, "a", language="xx"))
    assert again.language == found.language and again.text == found.text
