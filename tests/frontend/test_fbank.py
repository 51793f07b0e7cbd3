"""fbank against Kaldi's and Whisper's conventions, on real speech, alone and in batches."""

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from mambaasr.errors import UserError
from mambaasr.frontend.fbank import Fbank


@pytest.fixture(scope="module")
def waves(test_data):
    folder = test_data / "an4" / "wav" / "an4test_clstk"
    files = sorted(folder.glob("*/*.wav"))[:6]
    assert len(files) == 6
    return [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]


def pad(waves, value):
    lengths = torch.tensor([len(wave) for wave in waves])
    batch = torch.full((len(waves), int(lengths.max())), value)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    return batch, lengths


@pytest.mark.parametrize("convention", ["kaldi", "whisper"])
@pytest.mark.parametrize("garbage", [0.0, 0.5, float("nan")])
def test_frames_do_not_depend_on_the_batch(waves, convention, garbage):
    frontend = Fbank(convention=convention)
    batch, lengths = pad(waves, garbage)
    feats, frames = frontend(batch, lengths)
    for b, wave in enumerate(waves):
        alone, single = frontend(wave.unsqueeze(0), lengths[b : b + 1])
        assert single[0] == frames[b]
        assert alone.std() > 0.1
        assert torch.allclose(feats[b, : frames[b]], alone[0], atol=1e-5)
        assert (feats[b, frames[b] :] == 0).all()


@pytest.mark.parametrize("fs, n_mels", [(16000, 80), (8000, 40), ("16k", 23)])
def test_kaldi_convention(waves, fs, n_mels):
    frontend = Fbank(fs=fs, n_mels=n_mels)
    rate = 16000 if fs == "16k" else fs
    for wave in waves[:2]:
        feats, _ = frontend(wave.unsqueeze(0), torch.tensor([len(wave)]))
        want = torchaudio.compliance.kaldi.fbank(
            wave.unsqueeze(0) * 32768, num_mel_bins=n_mels, dither=0.0, sample_frequency=rate
        )
        assert feats.shape == (1, *want.shape)
        assert torch.allclose(feats[0], want, atol=1e-3)


def test_whisper_convention(waves):
    wave = waves[0]
    # Whisper pads to 30 s, takes a centred transform and drops its last frame.
    padded = torch.nn.functional.pad(wave, (0, 30 * 16000 - len(wave)))
    spectrum = torch.stft(padded, 400, 160, window=torch.hann_window(400), return_complex=True)
    mel = torchaudio.functional.melscale_fbanks(
        201, 0.0, 8000.0, 80, 16000, norm="slaney", mel_scale="slaney"
    )
    log = (mel.T @ spectrum[:, :-1].abs().square()).clamp(min=1e-10).log10()
    want = ((torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0).T
    feats, frames = Fbank(convention="whisper")(wave.unsqueeze(0), torch.tensor([len(wave)]))
    assert frames[0] == len(wave) // 160
    assert torch.allclose(feats[0], want[: frames[0]], atol=1e-4)


def test_whispers_filters_are_librosas():
    librosa = pytest.importorskip("librosa")
    want = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)).T
    mel = Fbank(convention="whisper").mel
    assert mel.shape == want.shape and torch.allclose(mel, want, atol=1e-6)


def test_silence_and_very_short_audio_are_finite():
    for convention in ("kaldi", "whisper"):
        frontend = Fbank(convention=convention)
        feats, frames = frontend(torch.zeros(2, 1600), torch.tensor([1600, 150]))
        assert torch.isfinite(feats).all()
        assert frames[0] > 0 and frames[1] == 0
        feats, frames = frontend(torch.zeros(1, 100), torch.tensor([100]))
        assert feats.shape == (1, 0, 80) and frames.tolist() == [0]


def test_a_long_recording_in_blocks_equals_the_whole(monkeypatch, waves):
    wave = torch.cat(waves).unsqueeze(0)
    lengths = torch.tensor([wave.shape[1]])
    whole, _ = Fbank()(wave, lengths)
    monkeypatch.setattr("mambaasr.frontend.fbank.BLOCK", 100)
    assert torch.allclose(Fbank()(wave, lengths)[0], whole, atol=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="fs is 'fast'"):
        Fbank(fs="fast")
    with pytest.raises(UserError, match="mix the channels down"):
        Fbank()(torch.zeros(1, 1600, 2), torch.tensor([1600]))


def test_features_stay_fp32_under_autocast(waves):
    batch, lengths = pad(waves[:2], 0.0)
    want, _ = Fbank()(batch, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = Fbank()(batch, lengths)
    assert got.dtype == torch.float32 and torch.equal(got, want)
    assert np.isfinite(got.numpy()).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_model_of_another_type_gets_features_of_its_type(waves, dtype):
    batch, lengths = pad(waves[:2], 0.0)
    want, _ = Fbank()(batch, lengths)
    got, _ = Fbank().to(dtype)(batch.to(dtype), lengths)
    assert got.dtype == dtype
    if dtype == torch.float64:
        assert torch.allclose(got.float(), want, atol=1e-3)
