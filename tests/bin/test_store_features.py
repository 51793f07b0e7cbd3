import pytest

from mambaasr.bin.store_features import main
from mambaasr.errors import UserError


@pytest.fixture
def folder(test_data, tmp_path):
    """A data folder of three recorded utterances."""
    files = sorted((test_data / "an4/wav/an4_clstk").rglob("*.wav"))[:3]
    path = tmp_path / "data"
    path.mkdir()
    for name, value in [("wav.scp", None), ("text", "WORD"), ("utt2spk", "speaker")]:
        (path / name).write_text("".join(f"{file.stem} {value or file}\n" for file in files))
    return path


def test_computed_and_then_extracted(folder, tmp_path, capsys):
    config = tmp_path / "train.yaml"
    config.write_text("frontend: fbank\nfrontend_conf: {n_mels: 23}\nencoder: conmamba\n")
    out = tmp_path / "fbank"
    assert main([str(folder), str(out), "--config", str(config), "--fs", "8000"]) == 0
    assert "3 utterances in, 3 kept" in capsys.readouterr().out
    again = tmp_path / "extracted"
    assert main([str(out), str(again), "--feats_type", "extracted"]) == 0
    assert (again / "feats.scp").read_text() == (out / "feats.scp").read_text()
    shapes = (again / "feats_shape").read_text()
    assert shapes == (out / "feats_shape").read_text()
    assert all(line.endswith(",23") for line in shapes.splitlines())


def test_what_is_wrong(folder, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match="give --config with the front end"):
        main([str(folder), out])
    with pytest.raises(UserError, match="feats.scp: no such file"):
        main([str(folder), out, "--feats_type", "extracted"])
    config = tmp_path / "train.yaml"
    config.write_text("frontend: fbank\n")
    with pytest.raises(UserError, match="--fs 0"):
        main([str(folder), out, "--config", str(config), "--fs", "0"])
