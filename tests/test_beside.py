"""Tests of mambaasr.beside: a trained model's files are found wherever it lies."""

import shutil

from mambaasr.beside import keep_beside, resolve


def test_files_of_a_config_go_with_its_folder(tmp_path):
    for name in ("recipe/stats/feats.npz", "recipe/tokens/bpe.model"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    exp = tmp_path / "recipe/exp"
    exp.mkdir()
    config = {
        "normalize_conf": {"stats_file": f"{tmp_path}/recipe/stats/feats.npz", "eps": 1.0},
        "bpemodel": f"{tmp_path}/recipe/tokens/bpe.model",
        "non_linguistic_symbols": None,
    }
    kept = keep_beside(config, exp)
    assert kept["normalize_conf"] == {"stats_file": "feats.npz", "eps": 1.0}
    assert config["bpemodel"] == f"{tmp_path}/recipe/tokens/bpe.model"
    shutil.copytree(exp, tmp_path / "copy")
    shutil.rmtree(tmp_path / "recipe")
    resolve(kept, tmp_path / "copy")
    assert kept["normalize_conf"]["stats_file"] == f"{tmp_path}/copy/feats.npz"
    assert kept["bpemodel"] == f"{tmp_path}/copy/bpe.model"


def test_absolute_path_of_a_renamed_recipe(tmp_path):
    """Configs of before name the statistics so; there they are looked for from the experiment."""
    file = tmp_path / "new/exp/stats/feats.npz"
    file.parent.mkdir(parents=True)
    file.write_text("")
    config = {
        "output_dir": f"{tmp_path}/old/exp/asr",
        "normalize_conf": {"stats_file": f"{tmp_path}/old/exp/stats/feats.npz"},
        "bpemodel": "a_name_that_a_library_knows",
    }
    resolve(config, tmp_path / "new/exp/asr")
    assert config["normalize_conf"]["stats_file"] == str(file)
    assert config["bpemodel"] == "a_name_that_a_library_knows"
