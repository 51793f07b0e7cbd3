"""Configs made of a base and blocks."""

import subprocess
import sys

import pytest
import yaml

from mambaasr.config import drop, dump, flatten, merge
from mambaasr.errors import UserError

BASE = {"encoder": "conmamba", "encoder_conf": {"output_size": 144}, "max_epoch": 50}


def test_block_replaces_whole_keys():
    block = {"encoder": "mamba", "encoder_conf": {"num_blocks": 2}}
    assert merge(BASE, [("b", block)]) == {**BASE, **block}
    assert BASE["encoder_conf"] == {"output_size": 144}


def test_options_of_the_old_class_go_with_it():
    assert merge(BASE, [("b", {"encoder": "mamba"})]) == {"encoder": "mamba", "max_epoch": 50}
    assert merge(BASE, [("b", {"encoder": "conmamba"})]) == BASE


def test_options_of_one_block_survive_the_class_of_another():
    merged = merge(BASE, [("a", {"encoder_conf": {"x": 1}}), ("b", {"encoder": "mamba"})])
    assert merged["encoder_conf"] == {"x": 1}


def test_blocks_must_not_disagree():
    agree = [("a", {"max_epoch": 3}), ("b", {"max_epoch": 3})]
    assert merge(BASE, agree)["max_epoch"] == 3
    with pytest.raises(UserError, match="b and a both set 'max_epoch'"):
        merge(BASE, [("a", {"max_epoch": 3}), ("b", {"max_epoch": 4})])


def test_drop():
    flat = flatten(BASE | {"encoder_conf": {"output_size": 144, "input_layer": "conv2d"}})
    kept = {"encoder": "conmamba", "encoder_conf.input_layer": "conv2d", "max_epoch": 50}
    assert drop(flat, ["encoder_conf.*"], ["encoder_conf.input_layer"]) == kept
    assert drop(kept, ["max*", "encoder_*"]) == {"encoder": "conmamba"}


def test_dump_reads_back():
    config = {"lr": 1e-5, "text": "1e-5", "grüße": [1, None, True], "long": "x y " * 100}
    assert yaml.safe_load(dump(config)) == config
    assert list(yaml.safe_load(dump(config))) == list(config)


def merge_config(folder, *options):
    line = [sys.executable, "-m", "mambaasr.bin.merge_config", *options]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def configs(tmp_path):
    (tmp_path / "base.yaml").write_text("encoder: conmamba\nencoder_conf:\n  output_size: 144\n")
    (tmp_path / "mamba.yaml").write_text("encoder: mamba\nencoder_conf:\n  num_blocks: 2\n")
    return tmp_path


def test_command_writes_the_merged_config(configs):
    line = ("--base", "base.yaml", "--block", "mamba.yaml", "--check", "--max_epoch 3")
    done = merge_config(configs, *line, "--output", "exp/train.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    expected = {"encoder": "mamba", "encoder_conf": {"num_blocks": 2}}
    assert yaml.safe_load((configs / "exp/train.yaml").read_text()) == expected


def test_command_drops_keys_and_options(configs):
    line = ["--base", "base.yaml", "--drop", "max*", "encoder_conf.*", "--check"]
    line += [
        "--max_epoch 3 --seed 1 --encoder_conf dropout_rate=0 --encoder_conf input_layer=linear"
    ]
    part = merge_config(configs, *line, "--keep", "encoder_conf.input_layer")
    expected = {"encoder": "conmamba", "--encoder_conf.input_layer": ["input_layer=linear"]}
    assert yaml.safe_load(part.stdout) == expected | {"--seed": ["1"]}


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("beam_sise: 3\n", "", "decode.yaml: there is no option `beam_sise`"),
        ("beam_size: many\n", "", "decode.yaml: beam_size: 'many' is no such value"),
        ("{}\n", "--beam_sise 3", "decoding: unrecognized arguments: --beam_sise 3"),
        ("{}\n", "--beam_size many", "argument --beam_size: invalid int value: 'many'"),
        ("{}\n", "--help", "decoding: --help"),
        ("beam_size: 3\n", "--ctc_weight 0.3", None),
    ],
)
def test_decoding_options_are_checked(configs, config, options, message):
    (configs / "decode.yaml").write_text(config)
    line = [
        "--base",
        "base.yaml",
        "--decoding_config",
        "decode.yaml",
        f"--check_decoding={options}",
    ]
    done = merge_config(configs, *line)
    assert (done.returncode == 0) == (message is None)
    if message:
        assert done.stderr.startswith("error: ") and message in done.stderr
        assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


@pytest.mark.parametrize(
    ("block", "check", "message"),
    [
        ("encoder: [mamba\n", None, "block.yaml: line 2: not valid yaml"),
        ("- encoder\n", None, "block.yaml"),
        ("encoder: a\nencoder: b\n", None, "block.yaml: line 2: `encoder` is given twice"),
        (None, None, "block.yaml: no such config file"),
        ("encoder: mambo\n", "", "block.yaml: line 1: encoder `mambo` is unknown"),
        ("encoder: mamba\nencoder_conf:\n  blocks: 2\n", "", "block.yaml: line 3"),
        ("encoder_conf:\n  blocks: 2\n", "", "base.yaml + block.yaml: encoder_conf has no option"),
        ("{}\n", "--max_epochs 3", "there is no option --max_epochs; did you mean `--max_epoch`"),
    ],
)
def test_mistakes_are_named(configs, block, check, message):
    if block is not None:
        (configs / "block.yaml").write_text(block)
    options = () if check is None else ("--check", check)
    done = merge_config(configs, "--base", "base.yaml", "--block", "block.yaml", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
