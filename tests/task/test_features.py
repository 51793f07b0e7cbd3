"""Statistics of features: those of ESPnet's pass, in pieces, for any front end."""

import numpy as np
import pytest
import soundfile

from mambaasr.errors import UserError
from mambaasr.task import features

FBANK = {"frontend": "fbank", "frontend_conf": {"fs": 16000}}


@pytest.fixture(scope="module")
def scp(tmp_path_factory):
    """Some noises of different lengths."""
    folder = tmp_path_factory.mktemp("audio")
    random = np.random.default_rng(0)
    lines = []
    for number in range(70):
        path = folder / f"{number:02d}.flac"
        soundfile.write(path, random.uniform(-0.5, 0.5, 2000 + 80 * number), 16000)
        lines.append(f"{path.stem} {path}\n")
    (folder / "wav.scp").write_text("".join(lines))
    return str(folder / "wav.scp")


def read(folder):
    with np.load(folder / "train/feats_stats.npz") as found:
        arrays = {name: found[name] for name in found}
    names = ("speech_shape", "feats_lengths")
    return {name: (folder / "train" / name).read_text() for name in names}, arrays


def test_pieces_equal_the_whole(scp, tmp_path, monkeypatch):
    features.feature_statistics(FBANK, {"train": scp}, tmp_path / "one")
    features.feature_statistics(FBANK, {"train": scp}, tmp_path / "two", nj=2)
    monkeypatch.setattr(features, "_CHUNK", 1000)
    features.feature_statistics(FBANK, {"train": scp}, tmp_path / "whole")
    files, arrays = read(tmp_path / "one")
    for other in ("two", "whole"):
        more_files, more = read(tmp_path / other)
        assert more_files == files
        for name in arrays:
            np.testing.assert_allclose(more[name], arrays[name], rtol=1e-6)
    # 25 ms every 10 ms
    frames = [1 + (2000 + 80 * number - 400) // 160 for number in range(70)]
    assert [int(line.split()[1]) for line in files["feats_lengths"].splitlines()] == frames
    assert files["speech_shape"].startswith("00 2000\n01 2080\n")
    assert arrays["count"] == sum(frames) and arrays["sum"].shape == (80,)


def test_any_front_end(scp, tmp_path):
    """ESPnet's own, and none: the features are the samples."""
    from mambaasr.espnet_compat import choices

    conf = {"fs": 16000, "n_mels": 12}
    features.feature_statistics(
        {"frontend": "default", "frontend_conf": conf}, {"train": scp}, tmp_path / "espnet"
    )
    assert choices("frontend")["default"](**conf).output_size() == 12
    assert read(tmp_path / "espnet")[1]["sum"].shape == (12,)
    features.feature_statistics({"frontend": None}, {"train": scp}, tmp_path / "none")
    files, arrays = read(tmp_path / "none")
    assert files["feats_lengths"] == files["speech_shape"] and arrays["sum"].shape == ()
    quiet = arrays["sum_square"]
    loud = {"frontend": None, "speech_volume_normalize": 1.0}
    features.feature_statistics(loud, {"train": scp}, tmp_path / "loud")
    assert read(tmp_path / "loud")[1]["sum_square"] == pytest.approx(4 * quiet, rel=0.01)


def test_a_file_that_is_gone(scp, tmp_path):
    (tmp_path / "wav.scp").write_text(f"a {tmp_path}/a.wav\n")
    with pytest.raises(UserError, match="a.wav: no such file"):
        features.feature_statistics(FBANK, {"train": str(tmp_path / "wav.scp")}, tmp_path)
