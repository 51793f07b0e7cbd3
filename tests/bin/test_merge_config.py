"""The command that merges and checks configs."""

import pytest
import yaml

from mambaasr.bin.merge_config import main
from mambaasr.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_text("encoder: conmamba\nencoder_conf:\n  output_size: 144\n")
    (tmp_path / "mamba.yaml").write_text("encoder: mamba\nencoder_conf:\n  num_blocks: 2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_the_merged_config(folder, capsys):
    line = "--base base.yaml --block mamba.yaml --output exp/train.yaml --check".split()
    assert main([*line, "--max_epoch 3"]) == 0
    expected = {"encoder": "mamba", "encoder_conf": {"num_blocks": 2}}
    assert yaml.safe_load((folder / "exp/train.yaml").read_text()) == expected
    assert capsys.readouterr().out == ""


def test_it_prints_what_a_result_depends_on(folder, capsys):
    line = "--base base.yaml --drop max* encoder_conf.* --keep encoder_conf.input_layer".split()
    options = "--max_epoch 3 --seed 1 --encoder_conf dropout_rate=0 --encoder_conf input_layer=x"
    assert main([*line, "--check", options]) == 0
    expected = {"encoder": "conmamba", "encoder_conf.input_layer": "x", "seed": "1"}
    assert yaml.safe_load(capsys.readouterr().out) == expected


def test_it_shows_facts(folder, capsys):
    line = ["--base", "base.yaml", "--check", "", "--show", "model", "model_file"]
    main(line)
    assert capsys.readouterr().out == "espnet\nvalid.acc.ave.pth\n"
    (folder / "ctc.yaml").write_text(
        "decoder: none\nmodel_conf:\n  ctc_weight: 1.0\n"
        "best_model_criterion:\n- [valid, cer_ctc, min]\n"
    )
    main([*line, "--block", "ctc.yaml"])
    assert capsys.readouterr().out == "espnet\nvalid.cer_ctc.ave.pth\n"


def test_mistakes(folder):
    with pytest.raises(UserError, match="no option --max_epochs; did you mean `--max_epoch`"):
        main(["--base", "base.yaml", "--check=--max_epochs 3"])
    with pytest.raises(UserError, match="no option `beam_sise`"):
        (folder / "decode.yaml").write_text("beam_sise: 3\n")
        main("--base base.yaml --check_decoding= --decoding_config decode.yaml".split())
