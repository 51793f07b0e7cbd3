"""Tests of mambaasr.decode.asr."""

import errno
import json
import logging
import os

import numpy
import pytest
import soundfile
import torch
import yaml
from tiny_asr import TOKENS, make_experiment
from weak import Weakness, decode_weakly

from mambaasr.decode import asr
from mambaasr.decode import chunks as chunks_of
from mambaasr.decode import outputs as outputs_of
from mambaasr.decode.options import SEARCHES
from mambaasr.decode.recogniser import Recogniser
from mambaasr.errors import TransientError, UserError, may_pass
from mambaasr.search.ways import WAYS

OPTIONS = {"beam_size": 2, "ctc_weight": 0.5, "maxlenratio": 0.1, "nbest": 1}
HYPOTHESES = ("text", "token", "token_int", "score")


@pytest.fixture
def model(experiment):
    config, weights = map(str, experiment)
    return asr.Model(config, weights, options=tuple(sorted(OPTIONS.items())))


def read(folder, names=HYPOTHESES):
    if names is HYPOTHESES:
        folder = folder / "1best_recog"
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


@pytest.mark.parametrize("espnet_search", [False, True])
def test_outputs_are_espnets(espnet_search, model, speech, tmp_path, monkeypatch):
    """The files hold what Speech2Text itself says."""
    from mambaasr.decode.load import load_speech2text

    monkeypatch.setattr(asr.provenance, "git_commit", lambda: "0123456789ab")

    model = model._replace(espnet_search=espnet_search)
    summary = asr.decode_set(model, speech, speech, tmp_path, chunk_size=4)
    speech2text = load_speech2text(
        model.train_config, model.model_file, ctc_window_margin=0, **OPTIONS
    )
    lines, scores = {"text": [], "token": [], "token_int": []}, {}
    for utt, path in speech.items():
        samples, _ = soundfile.read(path, dtype="float32")
        ((text, token, token_int, hypothesis),) = speech2text(samples)
        lines["text"].append(f"{utt} {' '.join(text.split())}")
        lines["token"].append(f"{utt} {' '.join(token)}")
        lines["token_int"].append(f"{utt} {' '.join(map(str, token_int))}")
        scores[utt] = pytest.approx(float(hypothesis.score), abs=1e-3)
    said = read(tmp_path)
    assert {
        utt: float(score) for utt, score in map(str.split, said["score"].splitlines())
    } == scores
    assert {name: said[name].splitlines() for name in lines} == lines
    best = ("text", "token", "token_int")
    assert read(tmp_path, best) == read(tmp_path / "1best_recog", best)
    assert read(tmp_path, ["failed.tsv"]) == {"failed.tsv": "utt\tpath\treason\n"}
    assert summary == json.loads((tmp_path / "decode.json").read_text())
    seconds = sum(soundfile.info(path).duration for path in speech.values())
    assert summary["audio_seconds"] == pytest.approx(seconds, abs=0.01)
    assert summary["rtf"] == pytest.approx(summary["decoding_seconds"] / seconds, rel=0.01)
    assert summary["commit"] == "0123456789ab"
    assert summary["parameters"] == sum(p.numel() for p in speech2text.asr_model.parameters())


@pytest.mark.slow
def test_in_parallel_it_is_the_same(model, speech, tmp_path):
    one = asr.decode_set(model, speech, speech, tmp_path / "one", nj=1)
    two = asr.decode_set(model, speech, speech, tmp_path / "two", nj=2)
    names = ["text", "token", "token_int"]
    assert read(tmp_path / "one", names) == read(tmp_path / "two", names)
    assert one["utterances"] == two["utterances"] == len(speech)


def test_finished_chunks_are_kept_and_others_are_not(model, speech, tmp_path, monkeypatch):
    decoded = []
    decode = Recogniser._encode

    def spy(self, batch):
        decoded.extend(each.key for each in batch)
        return decode(self, batch)

    monkeypatch.setattr(Recogniser, "_encode", spy)
    asr.decode_set(model, speech, speech, tmp_path, chunk_size=2)
    whole = read(tmp_path)
    chunks = sorted((tmp_path / "chunks").iterdir())
    assert len(chunks) == 3 and sorted(decoded) == sorted(speech)

    decoded.clear()
    chunks[0].unlink()
    (tmp_path / "chunks" / ".left_by_a_kill").write_text("half")
    asr.decode_set(model, speech, speech, tmp_path, chunk_size=2)
    assert len(decoded) == 2
    assert read(tmp_path) == whole
    assert sorted((tmp_path / "chunks").iterdir()) == chunks

    decoded.clear()
    other = model._replace(options=tuple(sorted({**OPTIONS, "ctc_weight": 0.9}.items())))
    asr.decode_set(other, speech, speech, tmp_path, chunk_size=2)
    assert sorted(decoded) == sorted(speech)
    assert len(list((tmp_path / "chunks").iterdir())) == 3

    decoded.clear()
    copies = {}
    for utt, path in speech.items():
        copies[utt] = str(tmp_path / f"{utt}.wav")
        soundfile.write(copies[utt], *soundfile.read(path))
    asr.decode_set(other, copies, copies, tmp_path, chunk_size=2)
    assert sorted(decoded) == sorted(speech), "the audio files are not those of before"


def test_another_checkpoint_is_decoded_anew(model, speech, tmp_path):
    from tiny_asr import make_experiment

    keys = list(speech)[:2]
    asr.decode_set(model, speech, keys, tmp_path / "dec")
    before = read(tmp_path / "dec")
    config, weights = make_experiment(tmp_path / "exp", seed=1)
    other = model._replace(train_config=str(config), model_file=str(weights))
    asr.decode_set(other, speech, keys, tmp_path / "dec")
    assert read(tmp_path / "dec")["score"] != before["score"]


def test_failures_are_reported_and_empty(model, speech, tmp_path, caplog):
    wavs = dict(list(speech.items())[:1])
    files = {
        "bad_empty": b"",
        "bad_text": b"no audio",
        "bad_torn": open(next(iter(speech.values())), "rb").read()[:3000],
    }
    for utt, content in files.items():
        (tmp_path / f"{utt}.wav").write_bytes(content)
    for utt, samples in {
        "bad_nan": numpy.full(8000, numpy.nan),
        "bad_none": numpy.zeros(0),
        "bad_short": numpy.zeros(700),
    }.items():
        soundfile.write(tmp_path / f"{utt}.wav", samples, 16000, subtype="FLOAT")
    wavs |= {utt: str(tmp_path / f"{utt}.wav") for utt in (*files, "bad_nan", "bad_none")}
    wavs |= {"bad_short": str(tmp_path / "bad_short.wav"), "bad_gone": str(tmp_path / "gone")}
    with caplog.at_level(logging.WARNING):
        summary = asr.decode_set(model, wavs, [*wavs, "bad_unlisted"], tmp_path / "out")
    good, *bad = (tmp_path / "out" / "text").read_text().splitlines()
    assert good.split()[0] in speech and len(good.split()) > 1
    assert bad == [*(utt for utt in wavs if utt.startswith("bad")), "bad_unlisted"]
    assert summary["failed"] == len(bad)
    rows = [r.split("\t") for r in (tmp_path / "out" / "failed.tsv").read_text().splitlines()[1:]]
    reasons = {utt: reason for utt, _, reason in rows}
    assert set(reasons) == set(bad)
    assert "NaN" in reasons["bad_nan"]
    assert "too short" in reasons["bad_short"]
    assert "no such file" in reasons["bad_gone"]
    assert "no audio" in reasons["bad_unlisted"]
    assert all(f"{utt} is not decoded" in caplog.text for utt in bad)


@pytest.fixture
def weak(monkeypatch, tmp_path):
    """Return a function that arranges which utterances end how."""
    monkeypatch.setenv("WEAK", "")
    monkeypatch.setattr(asr, "decode_chunk", decode_weakly)
    return lambda **ends: Weakness(tmp_path / "tries", **ends)


def test_what_may_pass_is_tried_again_alone(model, speech, tmp_path, weak):
    first, second, *_ = speech
    tried = weak(**{first: "memory once", second: "memory"})
    summary = asr.decode_set(model, speech, speech, tmp_path / "out", chunk_size=3)
    assert (summary["failed"], summary["again"]) == (1, 1)
    assert "MemoryError: no memory left" in (tmp_path / "out" / "failed.tsv").read_text()
    pids = tried.tries()
    twice = {first: 2, second: 2}
    assert {utt: len(each) for utt, each in pids.items()} == dict.fromkeys(speech, 1) | twice
    assert len(set(pids[first])) == 2, "the second try has a process of its own"
    before = read(tmp_path / "out")["text"].splitlines()

    weak()
    summary = asr.decode_set(model, speech, speech, tmp_path / "out", chunk_size=3)
    assert (summary["failed"], summary["again"]) == (0, 0)
    again = {utt: len(each) for utt, each in tried.tries().items()}
    assert again == dict.fromkeys(speech, 1) | {first: 2, second: 3}, "no other is tried again"
    after = read(tmp_path / "out")["text"].splitlines()
    assert [a == b for a, b in zip(before, after, strict=True)] == [u != second for u in speech]


def test_a_killed_worker_costs_its_own_utterance_only(model, speech, tmp_path, weak):
    """Its chunk kills two processes, itself a third; the others of the chunk are decoded."""
    utts = list(speech)[:5]
    weak(**{utts[0]: "kill"})
    summary = asr.decode_set(model, speech, utts, tmp_path / "out", 2, chunk_size=3)
    assert (summary["failed"], summary["again"]) == (1, 1)
    (row,) = (tmp_path / "out" / "failed.tsv").read_text().splitlines()[1:]
    assert row.split("\t")[0] == utts[0] and "the worker process died on it" in row
    lines = read(tmp_path / "out")["text"].splitlines()
    assert [len(line.split()) > 1 for line in lines] == [utt != utts[0] for utt in utts]


def test_an_error_of_cuda_costs_its_own_utterance_only(model, speech, tmp_path, weak):
    """Its process decodes nothing more, and is never the command's own."""
    utts = list(speech)[:5]
    tried = weak(**{utts[1]: "cuda"})
    gpu = model._replace(ngpu=1)
    summary = asr.decode_set(gpu, speech, utts, tmp_path / "out", chunk_size=3)
    assert (summary["failed"], summary["again"]) == (1, 1)
    (row,) = (tmp_path / "out" / "failed.tsv").read_text().splitlines()[1:]
    assert row.split("\t")[0] == utts[1] and "CUDA error: device-side assert" in row
    lines = read(tmp_path / "out")["text"].splitlines()
    assert [len(line.split()) > 1 for line in lines] == [utt != utts[1] for utt in utts]
    pids = tried.tries()
    assert [len(pids[utt]) for utt in utts] == [1, 2, 1, 1, 1]
    assert str(os.getpid()) not in sum(pids.values(), [])


def test_a_set_that_fails_for_now_is_no_mistake(model, speech, tmp_path, weak):
    keys = list(speech)[:2]
    weak(**dict.fromkeys(keys, "memory"))
    with pytest.raises(TransientError, match="not one of 2 .* MemoryError"):
        asr.decode_set(model, speech, keys, tmp_path / "out")


def test_a_model_that_finds_no_memory_is_loaded_again(model, speech, tmp_path, monkeypatch):
    def refuse(_):
        raise MemoryError("no room")

    refuse.cache_clear = lambda: None
    monkeypatch.setattr(asr, "_load", refuse)
    summary = asr.decode_set(model, speech, list(speech)[:2], tmp_path)
    assert summary["failed"] == 0


def test_audio_that_cannot_be_read_for_now_is_tried_again(model, speech, tmp_path, monkeypatch):
    """The other try is in a process of its own, where nothing is replaced."""

    def stale(*args, **kwargs):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(soundfile.SoundFile, "read", stale)
    summary = asr.decode_set(model, speech, list(speech)[:2], tmp_path)
    assert (summary["failed"], summary["again"]) == (0, 0)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (MemoryError(), True),
        (OSError(5, "Input/output error"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_failures_may_pass(error, again):
    assert may_pass(error) == again


def test_a_text_where_ctc_hears_nothing_is_reported(model, speech, tmp_path):
    """The decoder speaks on; with the CTC's own best path as it was, nothing is reported."""
    alone = model._replace(options=tuple(sorted({**OPTIONS, "ctc_weight": 0.0}.items())))
    utts = list(speech)[:2]
    summary = asr.decode_set(alone, speech, utts, tmp_path / "heard")
    assert summary["no_speech"] == 0
    weights = torch.load(model.model_file, weights_only=True)
    weights["ctc.ctc_lo.bias"][0] += 1e4
    torch.save(weights, tmp_path / "silent.pth")
    silent = alone._replace(model_file=str(tmp_path / "silent.pth"))
    summary = asr.decode_set(silent, speech, utts, tmp_path / "silent")
    assert (summary["no_speech"], summary["failed"]) == (2, 0)
    _, *rows = (tmp_path / "silent" / "no_speech.tsv").read_text().splitlines()
    texts = (tmp_path / "silent" / "text").read_text().splitlines()
    assert [row.split("\t")[::2] for row in rows] == [line.split(" ", 1) for line in texts]


def test_silence_without_any_hypothesis_is_a_failure_alone(tmp_path):
    result = asr._result("a", "a.wav") | {"no_speech": True, "reason": "no hypothesis"}
    outputs_of.write_reports(tmp_path, [result])
    assert (tmp_path / "no_speech.tsv").read_text() == "utt\tpath\ttext\n"
    assert (tmp_path / "failed.tsv").read_text().endswith("a\ta.wav\tno hypothesis\n")


OUTPUTS = ["1best_recog", "chunks", "ctm", "decode.json", "failed.tsv", "no_speech.tsv"]
OUTPUTS += ["text", "token", "token_ctm", "token_int"]


def outputs(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("search", SEARCHES)
def test_every_way_to_search(search, model, speech, tmp_path):
    summary = asr.decode_set(model._replace(search=search), speech, speech, tmp_path)
    assert summary["failed"] == 0
    assert len((tmp_path / "text").read_text().splitlines()) == len(speech)
    assert SEARCHES == WAYS


def test_no_results_of_before_beside_a_failure(model, speech, tmp_path):
    keys = list(speech)[:2]
    asr.decode_set(model, speech, keys, tmp_path / "out")
    assert outputs(tmp_path / "out") == OUTPUTS
    gone = {key: str(tmp_path / "gone.wav") for key in keys}
    with pytest.raises(UserError, match="not one of 2"):
        asr.decode_set(model, gone, keys, tmp_path / "out")
    assert outputs(tmp_path / "out") == ["chunks", "failed.tsv", "no_speech.tsv"]


def test_no_results_of_before_beside_a_killed_run(model, speech, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(chunk):
        raise Killed

    keys = list(speech)[:2]
    asr.decode_set(model, speech, keys, tmp_path)
    other = model._replace(options=tuple(sorted({**OPTIONS, "ctc_weight": 0.9}.items())))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(asr, "decode_chunk", kill)
        asr.decode_set(other, speech, keys, tmp_path)
    assert outputs(tmp_path) == ["chunks"]
    asr.decode_set(model, speech, keys, tmp_path)
    assert outputs(tmp_path) == OUTPUTS


def test_other_rates_and_channels(model, speech, tmp_path):
    utt, path = next(iter(speech.items()))
    samples, rate = soundfile.read(path)
    soundfile.write(tmp_path / "stereo.wav", numpy.stack([samples, samples], 1), rate)
    soundfile.write(tmp_path / "fast.wav", samples.repeat(3), 3 * rate)
    wavs = {"a": path, "b": str(tmp_path / "stereo.wav"), "c": str(tmp_path / "fast.wav")}
    summary = asr.decode_set(model, wavs, wavs, tmp_path / "out")
    one, two, _ = (tmp_path / "out" / "text").read_text().splitlines()
    assert one.removeprefix("a") == two.removeprefix("b")
    assert summary["audio_seconds"] == pytest.approx(3 * len(samples) / rate, abs=0.01)


def test_a_hypothesis_that_cannot_be_written_costs_itself_alone(
    model, speech, tmp_path, monkeypatch
):
    plain, spelled = Recogniser.plain, []

    def stumble(self, hypothesis):
        spelled.append(hypothesis)
        if len(spelled) == 1:
            raise IndexError("list index out of range")
        return plain(self, hypothesis)

    monkeypatch.setattr(Recogniser, "plain", stumble)
    summary = asr.decode_set(model, speech, speech, tmp_path)
    assert (summary["failed"], summary["again"]) == (1, 0)
    (row,) = (tmp_path / "failed.tsv").read_text().splitlines()[1:]
    assert "IndexError: list index" in row
    timed = {line.split()[0] for line in (tmp_path / "ctm").read_text().splitlines()}
    assert row.split("\t")[0] not in timed and timed


def test_times_of_words(model, speech, tmp_path):
    """Each word of the text, in order, within its utterance; nothing of it changes the text."""
    summary = asr.decode_set(model, speech, speech, tmp_path)
    said = dict(line.split(" ", 1) for line in (tmp_path / "text").read_text().splitlines())
    rows = [line.split() for line in (tmp_path / "ctm").read_text().splitlines()]
    assert rows and summary["failed"] == 0
    for utt in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == utt]
        assert " ".join(word for *_, word, _ in own) == said[utt]
        starts = [float(row[2]) for row in own]
        assert starts == sorted(starts)
        assert starts[-1] + float(own[-1][3]) <= soundfile.info(speech[utt]).duration + 1e-3
        assert all(0 <= float(row[-1]) <= 1 for row in own)


def test_times_of_tokens(model, speech, tmp_path):
    """Each token of the text, <space> too, and the words begin with theirs."""
    asr.decode_set(model, speech, speech, tmp_path)
    tokens = dict(line.split(" ", 1) for line in (tmp_path / "token").read_text().splitlines())
    rows = [line.split() for line in (tmp_path / "token_ctm").read_text().splitlines()]
    words = [line.split() for line in (tmp_path / "ctm").read_text().splitlines()]
    assert rows and {row[0] for row in rows} == {word[0] for word in words}
    for utt in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == utt]
        assert " ".join(token for *_, token, _ in own) == tokens[utt]
        assert {word[2] for word in words if word[0] == utt} <= {row[2] for row in own}


@pytest.mark.parametrize("encoder", ["conformer", "conmamba"])
def test_what_intermediate_ctc_finds(encoder, speech, tmp_path):
    """The file that ESPnet's own decoding writes, by our search and by ESPnet's."""
    options = dict(output_size=16, num_blocks=2, linear_units=16, interctc_layer_idx=[1])
    options |= {"interctc_use_conditioning": True}
    config, weights = make_experiment(
        tmp_path / "exp", encoder=encoder, encoder_conf=options, model_conf={"interctc_weight": 0.3}
    )
    model = asr.Model(str(config), str(weights), options=tuple(sorted(OPTIONS.items())))
    found = []
    for name in ("ours", "espnet"):
        asr.decode_set(
            model._replace(espnet_search=name == "espnet"), speech, speech, tmp_path / name
        )
        found.append((tmp_path / name / "1best_recog/encoder_interctc_layer1.txt").read_text())
    assert found[0] == found[1]
    lines = dict(line.partition(" ")[::2] for line in found[0].splitlines())
    assert list(lines) == list(speech) and any(lines.values())
    assert set(" ".join(lines.values()).split()) <= set(TOKENS)


def test_nbest(model, speech, tmp_path):
    nbest = model._replace(options=tuple(sorted({**OPTIONS, "nbest": 2}.items())))
    asr.decode_set(nbest, speech, speech, tmp_path)
    scores = [
        [float(line.split()[1]) for line in path.read_text().splitlines()]
        for path in (tmp_path / "1best_recog" / "score", tmp_path / "2best_recog" / "score")
    ]
    assert all(first >= second for first, second in zip(*scores, strict=True))
    lines = (tmp_path / "1best_recog/score_parts").read_text().splitlines()
    for line, score in zip(lines, scores[0], strict=True):
        parts = dict(word.split("=") for word in line.split()[1:])
        assert 0.5 * float(parts["ctc"]) + 0.5 * float(parts["decoder"]) == pytest.approx(
            score, abs=1e-3
        )
    asr.decode_set(model, speech, list(speech)[:1], tmp_path)
    assert outputs(tmp_path) == OUTPUTS, "2best_recog is not of this run"


def test_what_names_a_chunk(model, speech, tmp_path, monkeypatch):
    """Versions, backend and the config's sentencepiece model, but not the commit."""
    config = yaml.safe_load(open(model.train_config))
    bpemodel, train_config = tmp_path / "bpe.model", tmp_path / "config.yaml"
    bpemodel.write_bytes(b"one")
    train_config.write_text(yaml.safe_dump(config | {"bpemodel": str(bpemodel)}))
    model = model._replace(train_config=str(train_config))

    def name(model=model):
        return chunks_of.plan(model, speech, list(speech)[:1], tmp_path)[0].file

    def of_bpe(**options):
        return model._replace(options=tuple(sorted({"token_type": "bpe", **options}.items())))

    names = [name(), name(of_bpe())]
    with monkeypatch.context() as patch:
        patch.setattr(asr.provenance, "git_commit", lambda: "another")
        assert [name(), name(of_bpe())] == names
    for part in ("torch", "mambaasr/search/beam.py", "mambaasr/encoder/conmamba.py"):
        with monkeypatch.context() as patch:
            of_before = chunks_of.code_of([asr.__name__], configs=[train_config]) | {
                part: "changed"
            }
            patch.setattr(chunks_of, "code_of", lambda *_, made=of_before, **__: made)
            names.append(name())
    with monkeypatch.context() as patch:
        patch.setenv("MAMBAASR_BACKEND", "naive")
        names.append(name())
    bpemodel.write_bytes(b"two")
    assert name() == names[0], "a model of characters reads no bpemodel"
    names.append(name(of_bpe()))
    bpemodel.rename(tmp_path / "elsewhere")
    assert name(of_bpe(bpemodel=str(tmp_path / "elsewhere"))) == names[-1]
    assert len(set(names)) == len(names)
    with pytest.raises(UserError, match="bpe.model: cannot be read: No such file"):
        name(of_bpe())
