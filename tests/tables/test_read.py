"""Tables from yaml: the runs that rows stand for, and how mistakes are named."""

import re

import pytest

from mambaasr.errors import UserError
from mambaasr.tables.read import read_table


def runs(table, key):
    return next(row for row in table.rows if row.key == key).runs


def test_a_row_is_a_run_for_each_seed_and_decoding(recipe):
    found = runs(read_table("tables/x.yaml"), "conformer")
    made = [(run.seed, run.decoding) for run in found]
    assert made == [(1, None), (1, "lm"), (2, None), (2, "lm")]
    first, with_lm = found[:2]
    assert first.options == {
        "encoder": "conf/encoder/conformer.yaml",
        "asr_args": "--max_epoch 3 --seed 1",
        "asr_tag": "train_asr_enc_conformer_max_epoch3_seed1",
        "inference_tag": "decode_asr",
    }
    assert first.exp == with_lm.exp and with_lm.inference_tag == "decode_asr_use_lm_true"
    config = {"encoder": "conformer", "encoder_conf": {"num_blocks": 2}, "max_epoch": 1}
    assert first.config == config | {"decoder": "mamba"}
    assert str(first.exp) == "exp/asr_train_asr_enc_conformer_max_epoch3_seed1"


def test_a_row_with_seeds_alone_is_trained_by_the_table_s_options(recipe, edit):
    edit("options: {encoder: mamba}", "seeds: [3]")
    (found, _) = runs(read_table("tables/x.yaml"), "mamba")
    assert found.options["asr_args"] == "--max_epoch 3 --seed 3"


def test_a_block_may_be_named_without_its_folder(recipe):
    (run, _) = runs(read_table("tables/x.yaml"), "mamba")
    assert run.options["encoder"] == "conf/encoder/mamba.yaml"
    assert run.options["asr_tag"] == "train_asr_enc_mamba_max_epoch3"


def test_names_hold_what_decides_and_stay_short(recipe, edit):
    edit("{encoder: mamba}", "{encoder: mamba, decoder: '', nj: 3, lang: a b, nbpe: 30}")
    given = {"inference_args": "--beam_size 3", "inference_nj": "5"}
    (run, _) = runs(read_table("tables/x.yaml", given=given), "mamba")
    assert run.options["asr_tag"] == "train_asr_enc_mamba_lang_a-b_max_epoch3"
    assert run.inference_tag == "decode_asr_beam_size3"
    given = {"asr_args": " ".join(f"--option_{number} 1" for number in range(20))}
    (run, _) = runs(read_table("tables/x.yaml", given=given), "mamba")
    assert re.fullmatch("asr_train_asr_enc_mamba_lang.*_[0-9a-f]{12}", run.exp.name)
    assert len(run.exp.name) < 150


def test_scale_and_command_line_come_behind(recipe):
    table = read_table("tables/x.yaml", scale="small", given={"asr_args": "--x 1", "nbpe": "7"})
    options = runs(table, "mamba")[0].options
    assert options["asr_args"] == "--max_epoch 3 --max_epoch 1 --x 1"
    assert options["asr_tag"] == "train_asr_enc_mamba_nbpe_7_max_epoch3_max_epoch1_x1"
    assert table.scale == "small"
    table = read_table("tables/x.yaml", given={"expdir": "elsewhere", "stage": "11"})
    run = runs(table, "mamba")[0]
    assert run.exp.parts == ("elsewhere", "asr_train_asr_enc_mamba_max_epoch3")
    assert run.options["stage"] == "11"


def test_a_table_of_published_figures_may_name_other_sets(recipe, edit):
    for key in ("encoder: conf/encoder/conformer.yaml", "encoder: mamba"):
        edit(f"    options: {{{key}}}\n", "")
    edit("dev CER", "elsewhere CER")
    for _ in range(2):
        edit("dev CER", "elsewhere CER")
    assert read_table("tables/x.yaml").columns[2].set == "elsewhere"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Enc", "titel: Enc", "line 1: unknown key `titel` (did you mean title?); there"),
        ("title: Encoders", "title: [a]", "line 1: `title` must be a text or number, found ['a']"),
        ("rows:", "rows: 3\nnote:", "line 12: `rows` must be a list, found 3"),
        ("  - key: mamba", "  - mamba\n  - key: mamba", "line 12: each of `rows` must be `key"),
        ("[test WER", "[test WRE, test WER", "line 3: column `test WRE`: write `SET METRIC`"),
        ("[test WER", "[WER, test WER", "line 3: column `WER`: write `SET METRIC`"),
        ("[test WER", "[tset WER, test WER", "column `tset WER`: there is no test set `tset` (did"),
        ("test WER, lm\"", "test WER, ln\"", "there is no decoding `ln`; there are: lm"),
        ("encoder: mamba}", "encoder: mambo}", "line 19: --encoder mambo: no such file (did you"),
        ("encoder: mamba}", "encoder: [mamba]}", "line 19: `encoder` must be a text or number"),
        ("encoder: mamba}", "asr_tag: x}", "line 19: unknown key `asr_tag`"),
        ("encoder: mamba}", "asr_args: --seed 3}", "line 19: --asr_args '--seed 3': write `seeds"),
        ("use_lm: true", "use_lm: maybe", "line 5: --use_lm takes true or false, not 'maybe'"),
        ("use_lm: true", "encoder: mamba", "line 5: unknown key `encoder`"),
        ("needs: a GPU", "wants: a GPU", "line 8: unknown key `wants`"),
        ("encoder: mamba}", "encoder: conformer}\n    seeds: [2]",
         "line 18: row `mamba` has the same experiment exp/asr_"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "line 13: row `conformer` has the same experiment"),
        ("key: mamba", "key: conformer", "line 18: row `conformer` has the same key `conformer`"),
        ("test WER: 6.3", "test WER: five", "line 17: `test WER` must be a number from 0 or unk"),
        ("test WER: 6.3", "test WER: -5", "line 17: `test WER` must be a number from 0 or unk"),
        ("seeds: [1, 2]", "seeds: [-3]", "line 16: a seed is a whole number from 0"),
        ("encoder: mamba}", "token_type: phn}", "line 19: --token_type 'phn': choose one of"),
        ("test WER: 6.3, ", "", "line 17: published lacks `test WER`: write a number or unknown"),
        ("source: \"[notes]\"\n", "", "line 16: `parameters`: 34 has no source"),
    ],
)  # fmt: skip
def test_mistakes_are_named(edit, old, new, message):
    edit(old, new)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_table("tables/x.yaml")
    assert str(caught.value).startswith("tables/x.yaml")


def test_a_recipe_that_cannot_say_its_options_is_named(recipe):
    with pytest.raises(UserError, match="nowhere/run.sh: no such file"):
        read_table("tables/x.yaml", recipe="nowhere")
    (recipe / "options.json").unlink()
    with pytest.raises(UserError, match="run.sh --print_options true: cat: .*options.json"):
        read_table("tables/x.yaml")
