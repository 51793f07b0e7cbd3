"""Recordings in, transcripts out: alone, in lists, cut, from several threads."""

import threading

import numpy as np
import pytest
import soundfile
import torch
from tiny_asr import OURS, make_experiment

from mambaasr import SpeechRecognizer
from mambaasr.data.audio import read_audio
from mambaasr.decode.asr import Model, decode_set
from mambaasr.decode.recordings import Clip, Recording
from mambaasr.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("ours"), **OURS)[1]


@pytest.fixture(scope="module")
def recognizer(weights):
    return SpeechRecognizer(weights, beam_size=3, ctc_weight=0.3, device="cpu")


@pytest.fixture(scope="module")
def waves(speech):
    return [read_audio(path, rate=16000)[0] for path in speech.values()]


def texts(found):
    return [each.text for each in found]


def test_what_the_set_decoder_says(recognizer, weights, speech, tmp_path):
    """The same model and options give the same texts, times and scores."""
    options = dict(beam_size=3, ctc_weight=0.3)
    model = Model(
        str(weights.with_name("config.yaml")), str(weights), options=tuple(options.items())
    )
    decode_set(model, speech, list(speech), tmp_path / "out")
    lines = (tmp_path / "out/text").read_text().splitlines()
    said = {utt: text for utt, _, text in (line.partition(" ") for line in lines)}
    found = recognizer.transcribe([str(path) for path in speech.values()])
    # Where CTC finds no speech a set's text is kept, and reported.
    for utt, each in zip(speech, found, strict=True):
        assert each.error is None and each.text in (said[utt], "")
        assert each.name == str(speech[utt])
        times = [(word.start, word.end) for word in each.words]
        assert times == sorted(times) and all(0 <= a <= b <= each.duration for a, b in times)
        assert " ".join(word.word for word in each.words) == each.text
    assert any(texts(found))


def test_samples_paths_and_rates(recognizer, speech, waves, tmp_path):
    path = next(iter(speech.values()))
    one = recognizer.transcribe(path)
    assert one.text == recognizer.transcribe(waves[0], 16000).text
    assert recognizer.transcribe(waves[0].astype("float64"), 16000).text == one.text
    assert one.duration == pytest.approx(len(waves[0]) / 16000) and one.rtf > 0
    stereo = np.stack([np.zeros_like(waves[0]), waves[0]], 1)
    soundfile.write(tmp_path / "two.wav", stereo, 16000)
    second = recognizer.transcribe(Recording(tmp_path / "two.wav", "two", channel=2))
    assert second.name == "two" and second.text == one.text


def test_a_list_an_iterator_and_one_after_the_other(recognizer, waves):
    alone = [recognizer.transcribe(wave, 16000).text for wave in waves]
    assert texts(recognizer.transcribe(waves, 16000)) == alone
    lazily = recognizer.transcribe(iter(waves), 16000)
    assert not isinstance(lazily, list) and texts(lazily) == alone


def test_a_fault_is_its_recordings_alone(recognizer, speech, tmp_path):
    path = next(iter(speech.values()))
    (tmp_path / "junk.wav").write_text("no audio")
    good, junk, gone, again = recognizer.transcribe(
        [path, tmp_path / "junk.wav", tmp_path / "gone.wav", path]
    )
    assert good.error is None and good.text == again.text
    assert "junk.wav: not readable" in junk.error and junk.text == ""
    assert "gone.wav: no such file" in gone.error
    with pytest.raises(UserError, match="gone.wav: no such file"):
        recognizer.transcribe(tmp_path / "gone.wav")
    for samples, rate, message in (
        (np.zeros(100), None, "samples need their rate"),
        (np.zeros((2, 100)), 16000, r"are \(time,\), not \(2, 100\)"),
        (np.full(9000, np.nan), 16000, "NaN"),
        (np.zeros(30), 16000, "too short"),
    ):
        with pytest.raises(UserError, match=message):
            recognizer.transcribe(samples, rate)


def test_what_the_search_did_not_reach_is_an_error(recognizer, waves, monkeypatch):
    """After the loss of a GPU; it would look like silence."""
    inner = recognizer._recogniser

    class Lost:
        def __call__(self, utterances):
            return inner(utterances[:1])

        def __getattr__(self, name):
            return getattr(inner, name)

    monkeypatch.setattr(recognizer, "_recogniser", Lost())
    first, second = recognizer.transcribe(waves[:2], 16000)
    assert first.error is None and "not reached: the GPU was lost" in second.error


def test_a_long_recording_is_cut(weights, waves):
    """As told or by itself; times are the recording's, and nothing depends on who is beside it."""
    long = np.concatenate([np.zeros(16000, np.float32), *waves * 12])
    seconds = len(long) / 16000
    assert seconds > 60
    for how in ("windows", "vad"):
        recognizer = SpeechRecognizer(weights, beam_size=2, ctc_weight=0.3, long=how, longest=4)
        one = recognizer.transcribe(long, 16000)
        assert one.long == how and one.duration == pytest.approx(seconds)
        assert len(one.segments) > 10
        ends = [0.0]
        for segment in one.segments:
            assert segment.start >= ends[-1] - 1e-6 and segment.end - segment.start <= 4.001
            ends.append(segment.end)
            for word in segment.words:
                assert segment.start - 1e-3 <= word.start <= word.end <= segment.end + 1e-3
        assert ends[-1] <= seconds + 1e-6
        several = recognizer.transcribe([waves[0], long, waves[1]], 16000)
        assert several[1].text == one.text
        for mine, other in zip(several[1].words, one.words, strict=True):
            assert mine.word == other.word and mine[1:] == pytest.approx(other[1:], abs=1e-5)


def test_auto_cuts_what_is_longer_than_the_training(recognizer, waves):
    longest = recognizer._cutting.longest
    few = np.resize(np.concatenate(waves), int(longest * 16000))
    assert recognizer.transcribe(few, 16000).long == "one_pass"
    assert recognizer.transcribe(np.resize(few, len(few) + 1), 16000).long == "windows"


def test_silence_is_no_segment(recognizer):
    """What CTC hears nothing in has neither text nor segment, whatever the decoder says of it."""
    with torch.no_grad():
        bias = recognizer._recogniser.model.ctc.ctc_lo.bias
        before = bias.clone()
        bias[0] += 1000  # a model that hears nothing at all
    try:
        for seconds in (1, 70):
            found = recognizer.transcribe(np.zeros(16000 * seconds), 16000)
            assert found.segments == [] and found.text == "" and found.error is None
            assert found.duration == seconds
    finally:
        with torch.no_grad():
            bias.copy_(before)


def test_integers_are_samples_too(recognizer, waves):
    expected = recognizer.transcribe(waves[0], 16000).text
    scaled = waves[0].astype("float64")
    for dtype, half in (("int16", 2**15), ("int32", 2**31)):
        assert recognizer.transcribe((scaled * half).astype(dtype), 16000).text == expected
    eight = (np.round(scaled * 128) + 128).astype("uint8")
    assert recognizer.transcribe(eight, 16000).text == (
        recognizer.transcribe(np.round(scaled * 128) / 128, 16000).text
    )


def test_a_language_that_nobody_is_told(recognizer, waves, speech, caplog):
    path = next(iter(speech.values()))
    found = recognizer.transcribe(Recording(path, "a", language="de"))
    assert found.language is None and "the language 'de' is not used" in caplog.text
    with pytest.raises(TypeError, match="not None"):
        recognizer.transcribe(None)


def test_fewer_samples_than_one(recognizer, tmp_path):
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 48000)
    for audio, rate, message in (
        (tmp_path / "one.wav", None, "no samples are left at 16000 Hz"),
        (np.zeros(0), 16000, "there are no samples"),
        (np.full(9000, 30000.0), 16000, "must lie within -1..1"),
    ):
        with pytest.raises(UserError, match=message):
            recognizer.transcribe(audio, rate)
    (found,) = recognizer.transcribe([np.zeros(0)], 16000)
    assert found.error == "there are no samples"


def test_too_short_to_be_cut(weights):
    recognizer = SpeechRecognizer(weights, beam_size=2, ctc_weight=0.3, long="windows")
    with pytest.raises(UserError, match="too short"):
        recognizer.transcribe(np.zeros(300), 16000)


def test_clips(recognizer, speech, waves, tmp_path):
    long = np.concatenate(waves)
    soundfile.write(tmp_path / "long.flac", long, 16000)
    first = len(waves[0]) / 16000
    clips = (Clip(0.0, first), Clip(first, first + len(waves[1]) / 16000))
    found = recognizer.transcribe(Recording(tmp_path / "long.flac", "long", clips))
    assert [each.start for each in found.segments] == pytest.approx([0.0, first])
    assert texts(found.segments) == texts(recognizer.transcribe(waves[:2], 16000))
    with pytest.raises(UserError, match="leaves the recording"):
        recognizer.transcribe(Recording(tmp_path / "long.flac", "long", (Clip(9999.0, None),)))


def test_from_several_threads(recognizer, waves):
    expected = texts(recognizer.transcribe(waves, 16000))
    found = {}

    def work(number):
        found[number] = texts(recognizer.transcribe(waves, 16000))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 4


def test_nbest_and_what_does_not_go(weights, waves, tmp_path):
    recognizer = SpeechRecognizer(weights, beam_size=4, ctc_weight=0.3, nbest=3)
    found = recognizer.transcribe(np.concatenate(waves[:2]), 16000)
    assert len(found.segments[0].nbest) == 3
    scores = [score for _, score in found.segments[0].nbest]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(ValueError, match="long"):
        SpeechRecognizer(weights, long="never")
    with pytest.raises(UserError, match="no such model"):
        SpeechRecognizer(tmp_path / "nowhere")


def test_times_of_a_known_text(recognizer, waves, tmp_path):
    """Of a clip they are the recording's."""
    soundfile.write(tmp_path / "two.wav", np.concatenate(waves[:2]), 16000)
    first = len(waves[0]) / 16000
    clip = Recording(tmp_path / "two.wav", "two", (Clip(first, None),))
    aligned = recognizer.align(clip, "A BE")
    alone = recognizer.align(tmp_path / "two.wav", "A BE")
    assert [word.word for word in aligned] == ["A", "BE"] and aligned != alone
    for mine, other in zip(aligned, recognizer.align(waves[1], "A BE", 16000), strict=True):
        assert mine.start == pytest.approx(first + other.start, abs=1e-3)
        assert mine.confidence == pytest.approx(other.confidence, rel=1e-2)
    with pytest.raises(UserError, match="more than 600 s"):
        recognizer.align(np.zeros(16000 * 601, np.float32), "A", 16000)
