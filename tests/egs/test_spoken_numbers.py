"""The synthetic corpus: words, disjoint splits, noise, and speech that never differs."""

import importlib
import itertools
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mambaasr.data.audio import read_audio
from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

LOCAL = Path(__file__).resolve().parents[2] / "egs/spoken_numbers/asr1/local"
SNRS = (None, 20.0, 5.0)


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.syspath_prepend(LOCAL)


def module_of(name):
    """Return a fixture: a module of the recipe."""

    @pytest.fixture
    def load(local):
        if name in ("corpus", "espeak"):
            pytest.importorskip("espeakng_loader", reason="pip install espeakng-loader")
        return importlib.import_module(f"spoken.{name}")

    return load


words, sentences, noise = module_of("words"), module_of("sentences"), module_of("noise")
corpus, espeak = module_of("corpus"), module_of("espeak")


def request(espeak, text="twenty one", base="en-us", variant="m3", **changes):
    values = {"rate": 170, "pitch": 50, "pitch_range": 50, **changes}
    return espeak.Request(text=text, base=base, variant=variant, **values)


@pytest.mark.parametrize(
    "lang, spelled",
    [
        ("en", {21: "twenty one", 9_999: "nine thousand nine hundred ninety nine"}),
        ("de", {1: "eins", 101: "einhunderteins", 2345: "zweitausenddreihundertfünfundvierzig"}),
        ("es", {22: "veintidós", 101: "ciento uno", 1994: "mil novecientos noventa y cuatro"}),
        ("fr", {71: "soixante et onze", 80: "quatre vingts", 201: "deux cent un"}),
        ("it", {28: "ventotto", 103: "centotré", 108: "centootto", 3003: "tremilatré"}),
    ],
)
def test_numbers_in_words(words, lang, spelled):
    assert {n: words.number(n, lang) for n in spelled} == spelled


@pytest.mark.parametrize("lang", ["en", "de", "es", "fr", "it"])
def test_every_number_has_its_own_words(words, lang):
    spelled = [words.number(n, lang) for n in range(10_000)]
    assert len(set(spelled)) == len(spelled)
    for n in (-1, 10_000):
        with pytest.raises(ValueError):
            words.number(n, lang)


@pytest.mark.parametrize("lang", ["en", "de", "es", "fr", "it"])
def test_texts_are_plain_words(sentences, lang):
    rng = random.Random(1)
    texts = {sentences.sentence(lang, rng) for _ in range(3000)}
    assert len(texts) > 1200
    for text in texts:
        assert text == unicodedata.normalize("NFC", text.lower())
        assert all(word.isalpha() for word in text.split(" ")), text


def test_years_and_ordinals_are_read_as_people_say_them(words):
    spoken = {
        ("en", 1905, "year"): "nineteen oh five",
        ("en", 2005, "year"): "two thousand five",
        ("de", 1994, "year"): "neunzehnhundertvierundneunzig",
        ("en", 22, "ordinal"): "twenty second",
        ("de", 31, "ordinal"): "einunddreißigste",
    }
    assert {each: words.number(each[1], each[0], each[2]) for each in spoken} == spoken


@pytest.mark.parametrize("lang", ["en", "de", "es", "fr", "it"])
def test_splits_share_no_text_and_no_voice(corpus, lang):
    sizes = {"train": 1000, "dev": 50, "test": 100}
    plans = {split: corpus.plan(lang, split, size, seed=1) for split, size in sizes.items()}
    texts = {split: {utt.request.text for utt in plan} for split, plan in plans.items()}
    variants = {split: {utt.request.variant for utt in plan} for split, plan in plans.items()}
    for one, other in itertools.combinations(sizes, 2):
        assert not texts[one] & texts[other]
        assert not variants[one] & variants[other]
    known = {word for text in texts["train"] for word in text.split()}
    if lang in ("en", "es", "fr"):
        # German and Italian write a number as one word, so words of the test may be new there.
        assert {word for text in texts["test"] for word in text.split()} <= known
    assert {c for text in texts["test"] for c in text} <= {
        c for text in texts["train"] for c in text
    }
    assert len({utt.id for plan in plans.values() for utt in plan}) == sum(sizes.values())


def test_other_seeds_share_no_text_between_splits_either(corpus):
    train = {utt.request.text for utt in corpus.plan("en", "train", 800, seed=1)}
    test = {utt.request.text for utt in corpus.plan("en", "test", 800, seed=2)}
    assert not train & test


def test_a_larger_corpus_begins_like_a_smaller_one(corpus):
    small = corpus.plan("en", "train", 20, 1, SNRS)
    assert corpus.plan("en", "train", 40, 1, SNRS)[:20] == small
    assert corpus.plan("en", "train", 20, 2, SNRS) != small


def test_every_voice_of_the_plan_exists(corpus, espeak):
    variants = [variant for names in corpus.VARIANTS.values() for variant in names]
    bases = [base for names in corpus.BASES.values() for base in names]
    assert len(set(variants)) == len(variants)
    requests = [request(espeak, "one", "en-us", variant) for variant in variants]
    requests += [request(espeak, "one", base, "m3") for base in bases]
    spoken, rate = espeak.speak(requests)
    assert all(len(samples) > rate / 10 and np.abs(samples).max() > 1000 for samples in spoken)


def test_voices_sound_different(espeak):
    spoken, _ = espeak.speak(
        [request(espeak), request(espeak, variant="f2"), request(espeak, base="en-gb-scotland")]
        + [request(espeak, rate=120), request(espeak, pitch=70), request(espeak, pitch_range=90)]
    )
    assert len({samples.tobytes() for samples in spoken}) == 6


def test_what_was_said_before_changes_nothing(espeak):
    """espeak-ng itself fails this: it keeps echo, flutter and random numbers."""
    wanted = [request(espeak, variant=variant) for variant in ("m3", "f2", "m2", "Reed", "f3")]
    others = [
        request(espeak, "quatre vingt", "fr", "f1", rate=200),
        request(espeak, "no", "it", "m1"),
    ]
    alone = [espeak.speak([one])[0][0].tobytes() for one in wanted]
    together = [samples.tobytes() for samples in espeak.speak(others + wanted[::-1] + wanted)[0]]
    assert together[2:7] == alone[::-1]
    assert together[7:] == alone


def test_a_missing_wheel_names_the_pip_command(tmp_path):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError('not installed')\n")
    python_path = os.pathsep.join([str(tmp_path), str(LOCAL.parents[3])])
    done = subprocess.run(
        [sys.executable, LOCAL / "data.py", "--data_dir", tmp_path / "data"],
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "pip install espeakng-loader" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
@pytest.mark.parametrize("snr", [20.0, 5.0, -5.0])
def test_the_ratio_is_the_stated_one(noise, kind, snr):
    rng = np.random.default_rng(1)
    voices = [rng.standard_normal(size) for size in (500, 900, 700, 3000, 20_000, 900, 800)]
    signal = np.concatenate([np.zeros(1600), np.sin(np.arange(16_000) / 9), np.zeros(800)])
    spoken = slice(1600, 17_600)
    sound = noise.make_noise(kind, len(signal), rng, voices)
    mixed = noise.add_noise(signal, sound, snr, spoken)
    left = (mixed - signal)[spoken]
    assert 10 * np.log10(np.mean(signal[spoken] ** 2) / np.mean(left**2)) == pytest.approx(snr)


def test_pink_noise_falls_by_three_decibels_an_octave(noise):
    spectrum = np.abs(np.fft.rfft(noise.make_noise("pink", 1 << 17, np.random.default_rng(1)))) ** 2
    powers = [spectrum[1 << k : 1 << (k + 1)].mean() for k in range(8, 16)]
    steps = -np.diff(10 * np.log10(powers))
    assert np.allclose(steps, 3.01, atol=0.6)
    with pytest.raises(ValueError, match="brown"):
        noise.make_noise("brown", 10, np.random.default_rng(1))


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.flac")}


def test_audio_is_the_same_bit_for_bit_and_is_made_once(corpus, tmp_path):
    sizes = {"train": 12, "dev": 3, "test": 4}
    names = corpus.generate(["en", "de"], sizes, 1, SNRS, tmp_path / "a")
    assert names == {"train": 24, "dev": 6, "test_en": 4, "test_de": 4}
    # Larger sizes, other languages and other chunks leave an utterance as it is.
    corpus.generate(["de", "en"], {"train": 15, "dev": 3, "test": 4}, 1, SNRS, tmp_path / "b")
    first, second = files(tmp_path / "a/audio"), files(tmp_path / "b/audio")
    assert len(first) == 38 and len(second) == 44
    assert all(second[name] == content for name, content in first.items())

    folder = DataFolder.read(tmp_path / "a/train")
    assert not folder.missing_audio()
    assert set(folder.utt2lang.values()) == {"en", "de"}
    noises = (tmp_path / "a/train/utt2noise").read_text().split("\n")
    assert len({line.split(" ", 1)[1] for line in noises if line}) > 3
    for utt in folder.utterances:
        samples, rate = read_audio(folder.wav[utt])
        assert rate == 16_000 and 0.3 < len(samples) / rate < 8
        assert 0.01 < np.abs(samples).max() < 1

    lost, kept = sorted((tmp_path / "a/audio").rglob("*.flac"))[:2]
    written = kept.stat().st_mtime_ns
    lost.write_bytes(lost.read_bytes()[:-500])
    corpus.generate(["en", "de"], sizes, 1, SNRS, tmp_path / "a")
    assert files(tmp_path / "a/audio") == first
    assert kept.stat().st_mtime_ns == written
    corpus.generate(["en"], sizes, 2, SNRS, tmp_path / "a")
    assert set(files(tmp_path / "a/audio")) != set(first)


def test_pieces_without_speech_have_empty_texts(corpus, tmp_path):
    sizes = {"train": 4, "dev": 2, "test": 2}
    names = corpus.generate(["en"], sizes, 1, SNRS, tmp_path / "a", non_speech=0.5)
    assert names == {"train": 6, "dev": 3, "test_en": 3}
    corpus.generate(["en"], sizes, 1, SNRS, tmp_path / "b", non_speech=0.5)
    assert files(tmp_path / "a/audio") == files(tmp_path / "b/audio")
    folder = DataFolder.read(tmp_path / "a/train")
    silent = [utt for utt in folder.utterances if not folder.text[utt]]
    assert silent == ["non_speech_en-train000000", "non_speech_en-train000001"]
    assert not folder.missing_audio()


def test_worker_processes_give_the_same(corpus, tmp_path):
    sizes = {"train": 4, "dev": 2, "test": 2}
    corpus.generate(["it"], sizes, 1, SNRS, tmp_path / "one", nj=1)
    command = [sys.executable, LOCAL / "data.py", "--langs", "it", "--nj", "2", "--snrs"]
    command += ["clean", "20 5", "--num_train", "4", "--num_dev", "2", "--num_test", "2"]
    environment = {**os.environ, "PYTHONPATH": str(LOCAL.parents[3])}
    done = subprocess.run(
        [*command, "--data_dir", tmp_path / "two"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "one/audio") == files(tmp_path / "two/audio")


def test_wrong_options_are_refused(corpus, tmp_path):
    with pytest.raises(UserError, match="xx"):
        corpus.generate(["en", "xx"], {"train": 1, "dev": 1, "test": 1}, data_dir=tmp_path)
    command = [sys.executable, LOCAL / "data.py", "--snrs", "nan", "--data_dir", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(LOCAL.parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "--snrs" in done.stderr
    assert list(tmp_path.iterdir()) == []
