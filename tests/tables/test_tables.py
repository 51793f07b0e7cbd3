"""Tables: what is read from yaml, how mistakes are named, what is measured and printed."""

import json
import re

import pytest
from mambaasr.score.table_file import read_table
from mambaasr.score.table_page import cpu_seconds, epoch_seconds, measure, table_page

from mambaasr.bin.table import main, plan, run_options
from mambaasr.config import dump
from mambaasr.errors import UserError
from mambaasr.fingerprint import fingerprint, fingerprint_bytes

# What run.sh --help prints of the options that matter here.
RUN_SH = """#!/bin/sh
cat <<'END'
  --stage                 first stage [1]
  --expdir                results [exp]
  --test_sets             sets [dev test]
  --asr_config            yaml [conf/train_asr.yaml]
  --encoder               block []
  --decoder               block []
  --optim                 block []
  --asr_args              more []
  --asr_tag               name []
  --nbpe                  tokens [30]
  --inference_config      yaml [conf/decode_asr.yaml]
  --inference_args        more []
  --inference_tag         name []
  --use_lm                with a language model [false]
  --lm_config             yaml []
END
"""
TABLE = """title: Encoders
source: "[notes]"
columns: [test WER, dev CER, "test WER, lm", RTF]
decodings:
  lm: {use_lm: true}
options: {asr_args: --max_epoch 3}
scale:
  full: {needs: a GPU}
  small:
    needs: a laptop
    options: {asr_args: --max_epoch 1}
rows:
  - key: conformer
    label: Conformer
    options: {encoder: conf/encoder/conformer.yaml}
    seeds: [1, 2]
    published: {parameters: 34, test WER: 6.3, dev CER: unknown, "test WER, lm": 5.00, RTF: unknown}
  - key: mamba
    options: {encoder: mamba}
  - key: whisper
    label: Whisper
    published: {test WER: 5.1, dev CER: unknown, "test WER, lm": unknown, RTF: unknown}
    source: table 7
    note: Not ours.
"""
EPOCHS = """2026 (trainer:394) INFO: 1epoch results: [train] loss=1.5, time=1 hour, 3 minutes and 1.5 seconds, total_count=9, [valid] loss=4.4, time=28.5 seconds, total_count=1
2026 (trainer:394) INFO: 2epoch results: [train] iter_time=0.5, time=30 minutes, [valid] time=30 seconds
2026 (trainer:394) INFO: 2epoch results: [train] iter_time=0.5, time=29 minutes, [valid] time=1 minute and 0.0 seconds
"""  # noqa: E501


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe with a run.sh that knows its options, and blocks."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "run.sh": RUN_SH,
        "tables/x.yaml": TABLE,
        "conf/train_asr.yaml": "encoder: conmamba\nmax_epoch: 1\n",
        "conf/encoder/conformer.yaml": "encoder: conformer\nencoder_conf:\n  num_blocks: 2\n",
        "conf/encoder/mamba.yaml": "encoder: mamba\n",
        "conf/decode_asr.yaml": "beam_size: 2\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


def runs(table, key):
    return table.runs(next(row for row in table.rows if row.key == key))


def pretend(run, rates, config=None):
    """Write what a finished training and decoding leave behind."""
    stages = run.exp / ".stages"
    stages.mkdir(parents=True, exist_ok=True)
    made = fingerprint_bytes(dump(config or run.config).encode())
    inputs = {str(stages / "train.yaml"): made}
    (stages / "11_training.json").write_text(json.dumps({"options": {}, "inputs": inputs}))
    (run.exp / "train.log").write_text(EPOCHS)
    starts = [{"commit": "abc", "clean": clean} for clean in (True, run.seed != 2)]
    (run.exp / "provenance.json").write_text(json.dumps(starts))
    for name, (wer, cer) in rates.items():
        place = run.exp / run.inference_tag / name
        (place / "score").mkdir(parents=True)
        (place / ".stages").mkdir()
        (run.exp / "valid.acc.ave.pth").write_text("weights")
        (place / "text").write_text("a b\n")
        for step, read in (
            ("12_decoding_of", run.exp / "valid.acc.ave.pth"),
            ("13_scoring_of", place / "text"),
        ):
            marker = {"options": {}, "inputs": {str(read): fingerprint(read), "dump/gone": "x"}}
            (place / f".stages/{step}_{name}.json").write_text(json.dumps(marker))
        score = {"wer": {"error_rate": wer}, "cer": {"error_rate": cer}}
        (place / "score/score.json").write_text(json.dumps(score))
        decoding = {"parameters": 34_000_000, "commit": "abc", "audio_seconds": 100.0}
        decoding["decoding_seconds"] = 5.0 if name == "test" else 15.0
        (place / "decode.json").write_text(json.dumps(decoding))


def test_a_row_is_a_run_for_each_seed_and_decoding(recipe):
    table = read_table("tables/x.yaml")
    assert [(run.seed, run.decoding) for run in runs(table, "conformer")] == [
        (1, None),
        (1, "lm"),
        (2, None),
        (2, "lm"),
    ]
    first, with_lm = runs(table, "conformer")[:2]
    assert dict(first.options) == {
        "encoder": "conf/encoder/conformer.yaml",
        "asr_args": "--max_epoch 3 --seed 1",
        "asr_tag": "train_asr_enc_conformer_max_epoch3_seed1",
        "inference_tag": "decode_asr",
    }
    assert first.exp == with_lm.exp and with_lm.inference_tag == "decode_asr_use_lm_true"
    assert first.config == {
        "encoder": "conformer",
        "encoder_conf": {"num_blocks": 2},
        "max_epoch": 1,
    }
    assert str(first.exp) == "exp/asr_train_asr_enc_conformer_max_epoch3_seed1"


def test_a_block_may_be_named_without_its_folder(recipe):
    table = read_table("tables/x.yaml")
    run = runs(table, "mamba")[0]
    assert dict(run.options)["encoder"] == "conf/encoder/mamba.yaml"
    assert dict(run.options)["asr_tag"] == "train_asr_enc_mamba_max_epoch3"


def test_scale_and_command_line_come_behind(recipe):
    table = read_table("tables/x.yaml", scale="small", given={"asr_args": "--x 1", "nbpe": "7"})
    options = dict(runs(table, "mamba")[0].options)
    assert options["asr_args"] == "--max_epoch 3 --max_epoch 1 --x 1"
    assert options["asr_tag"] == "train_asr_enc_mamba_nbpe_7_max_epoch3_max_epoch1_x1"
    assert table.needs == "a laptop"
    table = read_table("tables/x.yaml", given={"expdir": "elsewhere", "stage": "11"})
    run = runs(table, "mamba")[0]
    assert run.exp.parts == ("elsewhere", "asr_train_asr_enc_mamba_max_epoch3")
    assert dict(run.options)["stage"] == "11"


def test_nothing_measured_says_what_to_run(recipe):
    text = table_page(read_table("tables/x.yaml"), ["../table.sh", "tables/x.yaml"])
    assert "| Conformer | published |             34 |      6.3 | unknown |" in text
    assert "`../table.sh tables/x.yaml --rows conformer`" in text
    assert "seed 1: not run; seed 2: not run" in text
    assert "--rows whisper" not in text
    assert "- Whisper: Not ours." in text and "- Published figures: table 7 (Whisper)" in text


def test_published_measured_difference(recipe):
    table = read_table("tables/x.yaml")
    for run, wer in zip(runs(table, "conformer"), (6.0, 5.5, 7.0, 5.5), strict=True):
        pretend(run, {"test": (wer, 1.0), "dev": (9.0, 2.0)})
    found = measure(table, table.rows[0])
    assert found.values["test WER"] == [6.0, 7.0] and found.values["dev CER"] == [2.0, 2.0]
    assert found.values["parameters"] == [34.0, 34.0] and found.missing == []
    assert found.values["RTF"] == [0.1, 0.1]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table_page(table, ["t"]).splitlines()
        if line.startswith("|")
    ]
    assert lines[2][:7] == ["Conformer", "published", "34", "6.3", "unknown", "5.00", "unknown"]
    assert lines[3][1:7] == ["measured", "34.00", "6.50 ± 0.71", "2.00", "5.50", "0.100"]
    commits = "trained abc, abc (dirty); decoded abc"
    assert lines[3][7:] == ["93.5 min", "1, 2", commits]
    assert lines[4][1:7] == ["difference", "+0.00", "+0.20", "-", "+0.50", "-"]


def test_what_was_decoded_before_another_training_does_not_count(recipe):
    table = read_table("tables/x.yaml")
    plain, lm = runs(table, "mamba")
    for run in (plain, lm):
        pretend(run, {"test": (1.0, 1.0), "dev": (9.0, 2.0)})
    assert measure(table, table.rows[1]).missing == []
    (plain.exp / plain.inference_tag / "dev/text").write_text("c d\n")
    found = measure(table, table.rows[1])
    assert any("dev was decoded or scored before" in each for each in found.missing)
    assert "dev CER" not in found.values and found.values["test WER"] == [1.0]
    (plain.exp / "valid.acc.ave.pth").write_text("other weights")
    found = measure(table, table.rows[1])
    assert found.values == {}
    assert any("before" in each and "valid.acc.ave.pth changed" in each for each in found.missing)
    # A model that was removed says nothing against its figures.
    (plain.exp / "valid.acc.ave.pth").unlink()
    assert measure(table, table.rows[1]).values["test WER"] == [1.0]
    (plain.exp / plain.inference_tag / "test/.stages/13_scoring_of_test.json").unlink()
    found = measure(table, table.rows[1])
    assert "test is not scored" in found.missing and "test WER" not in found.values


def test_what_other_blocks_made_does_not_count(recipe):
    table = read_table("tables/x.yaml")
    for run in runs(table, "mamba"):
        pretend(run, {"test": (1.0, 1.0), "dev": (1.0, 1.0)}, config={"encoder": "conformer"})
    found = measure(table, table.rows[1])
    assert found.values == {} and "trained with other blocks" in found.missing[0]


def test_what_is_missing_of_a_row_is_named(recipe):
    table = read_table("tables/x.yaml")
    pretend(runs(table, "mamba")[0], {"test": (1.0, 1.0)})
    found = measure(table, table.rows[1])
    assert found.missing == ["no dev CER", "no test WER, lm"]


def test_the_mean_over_languages_is_a_column_of_its_own(recipe):
    path = recipe / "tables/x.yaml"
    path.write_text(TABLE.replace("dev CER", "test macro CER"))
    table = read_table(path)
    run = runs(table, "mamba")[0]
    pretend(run, {"test": (1.0, 2.0)})
    assert "no test macro CER" in measure(table, table.rows[1]).missing  # one language
    file = run.exp / run.inference_tag / "test/score/score.json"
    score = json.loads(file.read_text())
    score["cer"]["macro"] = {"error_rate": 3.0}
    file.write_text(json.dumps(score))
    assert measure(table, table.rows[1]).values["test macro CER"] == [3.0]


def test_times(recipe):
    (recipe / "train.log").write_text(EPOCHS)
    assert epoch_seconds(recipe / "train.log") == {1: 3810.0, 2: 1800.0}
    assert epoch_seconds(recipe / "none.log") == {}
    (recipe / "exp").mkdir()
    line = "stage 11: training\ta\tb\t9.0\t{}\t{}\tpython -m x --output_dir {} --y 'a b'\n"
    (recipe / "exp/timings.tsv").write_text(
        "step\tstart\tend\tseconds\tcpu_seconds\texit\tcommand\n"
        + line.format(60.0, 137, "exp/asr_x")
        + line.format(120.5, 0, "exp/asr_x")
        + line.format(7.0, 0, "exp/asr_xy")
    )
    assert cpu_seconds(recipe / "exp/asr_x") == 180.5
    assert cpu_seconds(recipe / "exp/asr_z") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Encoders", "titel: x", "line 1: unknown key `titel`; did you mean `title`?"),
        ("title: Encoders\n", "", "`title` must be a text, found None"),
        ("columns: [", "columns: [tset WER, ", "line 3: column `tset WER`: there is no test set"),
        ("columns: [", "columns: [test WRE, ", "line 3: column `test WRE`: write `SET METRIC`"),
        ("columns: [", "columns: [WER, ", "line 3: column `WER`: WER of which test set?"),
        ("columns: [", "columns: [test WER, ", "line 3: column `test WER` is given twice"),
        ("test WER, lm\"", "test WER, ln\"", "there is no decoding `ln`; allowed: lm"),
        ("conf/encoder/conformer", "conf/encoder/confromer",
         "line 15: encoder `conf/encoder/confromer.yaml`: no such block for .; did you mean "
         "`conf/encoder/conformer.yaml`?"),
        ("encoder: mamba}", "encoder: mambo}", "line 19: encoder `mambo`: no such block for .; did "
         "you mean `mamba`? allowed: conformer, mamba"),
        ("encoder: mamba}", "encodr: mamba}", "line 19: unknown key `encodr`; did you mean `enc"),
        ("encoder: mamba}", "asr_tag: x}", "line 19: unknown key `asr_tag`"),
        ("encoder: mamba}", "asr_args: --seed 3}", "line 19: asr_args `--seed 3`: write `seeds"),
        ("encoder: mamba}", "asr_args: \"'\"}", "line 19: asr_args `'`: No closing quotation"),
        ("encoder: mamba}", "encoder: [mamba]}", "line 19: `encoder` is one value, as for --enc"),
        ("encoder: mamba}", "encoder: conformer}\n    seeds: [2]",
         "row `mamba`: the same experiment as row `conformer`"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "line 16: `seeds` is a list such as [1, 2, 3]"),
        ("seeds: [1, 2]", "seeds: 3", "line 16: `seeds` is a list such as [1, 2, 3], found 3"),
        ("seeds: [1, 2]", "seeds: []", "line 16: `seeds` is a list"),
        ("seeds: [1, 2]", "seeds: [true]", "line 16: `seeds` is a list"),
        ("seeds: [1, 2]", "sedes: [1]", "line 16: unknown key `sedes`; did you mean `seeds`?"),
        ("key: mamba", "key: conformer", "line 18: row `conformer` is given twice"),
        ("key: mamba", "key: a b", "line 18: row `a b`: letters, digits"),
        ("test WER: 6.3", "test WER: 6..3", "line 17: `test WER` must be a number or unknown"),
        ("test WER: 6.3", "test WER: -1", "line 17: `test WER` cannot be -1"),
        ("test WER: 6.3", "test WER: .nan", "line 17: `test WER` cannot be nan"),
        ("test WER: 6.3, ", "", "line 17: published lacks `test WER`: write a number or unknown"),
        ("test WER: 6.3", "tset WER: 6.3", "line 17: unknown key `tset WER`; did you mean `test W"),
        ("source: \"[notes]\"\n", "", "line 16: `parameters`: 34 has no source"),
        ("needs: a GPU", "wants: a GPU", "line 8: unknown key `wants`"),
        ("use_lm: true", "encoder: mamba", "line 5: unknown key `encoder`"),
        ("rows:", "rows: 3\nnote:", "line 12: `rows` is a list of systems"),
        ("rows:", "rows: [1]\nnote:", "row 1 must be `key: value` lines, found 1"),
        ("source: \"[notes]\"", "source: [a]", "`source` of `parameters` must be a text"),
        ("source: table 7", "source: {a: b}", "`source` of `test WER` must be a text"),
        ("  - key: mamba", "  - mamba\n  - key: mamba", "row 2 must be `key: value` lines"),
    ],
)  # fmt: skip
def test_mistakes_are_named(recipe, old, new, message):
    assert TABLE.count(old) >= 1
    (recipe / "tables/x.yaml").write_text(TABLE.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_table("tables/x.yaml")
    assert str(caught.value).startswith("tables/x.yaml")


def test_mistakes_on_the_command_line_are_named(recipe, capsys):
    for words, message in (
        (["--rows", ","], "--rows names no row; tables/x.yaml has conformer, mamba, whisper"),
        (["--rows", ""], "--rows names no row"),
        (["--rows", "conformr"], "there is no row 'conformr'; did you mean `conformer`?"),
        (["--scale", "tiny"], "there is no scale 'tiny'; allowed: full, small"),
        (["--encodr", "x"], "there is no option --encodr; did you mean `encoder`?"),
        (["--asr_tag", "x"], "--asr_tag: the table names its experiments itself"),
        (["--nbpe"], "--nbpe needs a value"),
        (["three"], "what does `three` belong to?"),
        (["--recipe", "nowhere"], "nowhere/run.sh: no such file"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            main(["tables/x.yaml", *words])
    with pytest.raises(UserError, match="tables/y.yaml: no such config file"):
        main(["tables/y.yaml"])


def test_options_of_run_sh_in_both_forms():
    words = ["--nbpe", "3", "--asr-args=--a b", "--nbpe=4", "--encoder", ""]
    assert run_options(words) == {"nbpe": "4", "asr_args": "--a b", "encoder": ""}


def test_a_block_that_the_classes_refuse_is_named_before_anything_runs(recipe):
    (recipe / "conf/encoder/mamba.yaml").write_text("encoder: mamba\nencoder_conf:\n  widht: 3\n")
    with pytest.raises(UserError, match="row `mamba`: .*mamba.yaml: line 3.*no option `widht`"):
        plan(read_table("tables/x.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{use_lm: true}", "{inference_args: --ctc_wieght 0.3}", "row `conformer`: .*ctc_wieght"),
        ("{use_lm: true}", "{use_lm: true, lm_config: train_lm}", "train_lm.yaml.*`untis`"),
        (
            "{use_lm: true}",
            "{inference_config: train_asr}",
            "row `conformer`: .*no option `encoder`",
        ),
        ("lm: {use_lm: true}", "lm: {use_lm: maybe}", "line 5: `use_lm` is true or false"),
    ],
)
def test_a_mistake_of_any_part_is_named_before_anything_runs(recipe, old, new, message):
    (recipe / "conf/train_lm.yaml").write_text("lm: mamba\nlm_conf:\n  untis: 3\n")
    (recipe / "tables/x.yaml").write_text(TABLE.replace(old, new))
    with pytest.raises(UserError, match=message):
        plan(read_table("tables/x.yaml"))


def test_a_table_of_times_decodes_nothing(recipe):
    path = recipe / "tables/x.yaml"
    path.write_text(
        "title: Times\ncolumns: [training hours, parameters]\nrows:\n"
        "  - {key: mamba, options: {encoder: mamba}}\n"
    )
    table = read_table(path)
    ((_, words),) = plan(table)
    assert words[-2:] == ["--stop_stage", "11"]
    (run,) = runs(table, "mamba")
    pretend(run, {})
    with open(run.exp / "train.log", "a") as log:
        log.write("    Total Number of model parameters: 31.56 M\n")
    found = measure(table, table.rows[0])
    assert found.values == {"training hours": [5610 / 3600], "parameters": [31.56]}
    assert found.missing == []


def test_it_prints_and_writes(recipe, capsys):
    assert main(["tables/x.yaml", "--rows", "whisper", "--output", "t.md"]) == 0
    text = capsys.readouterr().out
    assert (recipe / "t.md").read_text() == text
    assert "# Encoders" in text and "Whisper" in text and "Conformer" not in text


def test_the_plan_is_read_back_word_by_word(recipe):
    words = ["tables/x.yaml", "--rows", "mamba", "--asr_args", "--init 'normal'", "--plan", "p"]
    assert main(words) == 0
    fields = (recipe / "p").read_bytes().decode().split("\0")
    name, count, words = fields[0], int(fields[1]) - 1, fields[3:]
    assert fields[2] == "./run.sh"
    options = dict(zip(words[:count:2], words[1:count:2], strict=True))
    assert name == "mamba"
    assert options["--encoder"] == "conf/encoder/mamba.yaml"
    assert options["--asr_args"] == "--max_epoch 3 --init 'normal'"
    assert words[count] == "mamba (lm)"
