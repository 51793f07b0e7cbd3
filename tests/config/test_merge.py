"""Configs made of a base and blocks."""

import pytest
import yaml

from mambaasr.config import Config, differences, dump, merge, read, same_config
from mambaasr.errors import UserError

BASE = Config("base", {"encoder": "conmamba", "encoder_conf": {"size": 144}, "max_epoch": 50})


def laid(**blocks):
    return merge(BASE, [Config(name, block) for name, block in blocks.items()])


def test_block_replaces_whole_keys():
    block = {"encoder": "mamba", "encoder_conf": {"num_blocks": 2}}
    assert laid(b=block) == {**BASE, **block}
    assert BASE["encoder_conf"] == {"size": 144}


def test_options_of_the_old_class_go_with_it():
    assert laid(b={"encoder": "mamba"}) == {"encoder": "mamba", "max_epoch": 50}
    assert laid(b={"encoder": "conmamba"}) == BASE


def test_options_of_one_block_survive_the_class_of_another():
    assert laid(a={"encoder_conf": {"x": 1}}, b={"encoder": "mamba"})["encoder_conf"] == {"x": 1}


def test_blocks_must_not_disagree():
    assert laid(a={"max_epoch": 3}, b={"max_epoch": 3})["max_epoch"] == 3
    with pytest.raises(UserError, match="b and a both set 'max_epoch'"):
        laid(a={"max_epoch": 3}, b={"max_epoch": 4})


def test_places_are_those_of_the_winner(tmp_path):
    (tmp_path / "base").write_text("encoder: a\nencoder_conf:\n  x: 1\n  y: 1\nseed: 1\n")
    (tmp_path / "block").write_text("# comment\nencoder_conf:\n  x: 1\n")
    merged = merge(read(tmp_path / "base"), [read(tmp_path / "block")])
    assert merged.where("encoder_conf", "x") == f"{tmp_path}/block: line 3"
    assert merged.where("encoder_conf", "y") == f"{tmp_path}/block: line 2"
    assert merged.where("seed") == f"{tmp_path}/base: line 5"


def test_dump_reads_back():
    config = {"lr": 1e-5, "text": "1e-5", "grüße": [1, None, True], "long": "x y " * 100}
    assert yaml.safe_load(dump(Config("x", config))) == config
    assert list(yaml.safe_load(dump(config))) == list(config)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("{mixer: mamba2, mixer_dropout_rate: 0.1, mixer_conf: {headdim: 4}}",
         "{mixer_conf: {headdim: 4, dropout_rate: 0.1, mixer: mamba2}}", True),
        ("{mixer_conf: {}}", "{mixer_conf: null}", True),
        ("{dropout_rate: 0.1}", "{mixer_conf: {dropout_rate: 0.1}}", False),
        ("{d_state: 8}", "{mixer_conf: {d_state: 16}}", False),
        ("[", "{}", False),
        ("3", "{}", False),
    ],
)  # fmt: skip
def test_options_of_a_mixer_are_the_same_in_mixer_conf_and_beside_it(one, other, same):
    assert same_config(f"encoder_conf: {one}", f"encoder_conf: {other}") == same
    assert same_config(one, one)


def test_what_is_no_mapping_is_another_config():
    assert not same_config("- a", "a: 1")


def test_differences_are_named_with_both_values():
    one = "encoder_conf: {num_blocks: 6, input_layer: linear}\nseed: 1\nlm: null\n"
    other = "encoder_conf: {num_blocks: 8, input_layer: linear}\nseed: 1\noptim_conf: {lr: 1.0}\n"
    assert differences(one, one) == [] == differences("[", other)
    assert differences(one, other) == [
        "encoder_conf.num_blocks: 6, now 8",
        "lm: None, now not given",
        "optim_conf.lr: not given, now 1.0",
    ]
    assert differences(one, other, 1) == ["encoder_conf.num_blocks: 6, now 8", "2 more"]
