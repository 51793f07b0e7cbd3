"""Mistakes in configs and on command lines are named before anything heavy is imported."""

import pytest

from mambaasr.config import check_command, check_training, is_true, merge, model_file, read
from mambaasr.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a yaml and returns its path."""

    def write(text, name="train.yaml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def refused(argv, *parts, task="asr"):
    with pytest.raises(UserError) as caught:
        check_command(argv, task)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_config(write):
    path = write(
        "encoder: conformer\nencoder_conf:\n  num_blocks: 2\n  dropout_rate: 0\n"
        "decoder: transformer\noptim: adam\noptim_conf:\n  lr: 1.0e-3\n"
        "scheduler: warmuplr\nscheduler_conf:\n  warmup_steps: 10\nspecaug: null\n"
        "best_model_criterion:\n- - valid\n  - acc\n  - max\nmax_epoch: 3\nbatch_type: numel\n"
        "grad_clip: 1e-3\nbatch_bins: 1.0e+6\ntoken_list: [1e5, a]\nspecaug_conf: null\n"
    )
    config = check_command(["--config", path, "--ngpu", "0", "--optim_conf", "lr=0.1"])
    assert config["ngpu"] == "0" and config["optim_conf"] == {"lr": 0.1}
    check_command(["--config", write("")])


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("encoder: conformer\nencoder_conf:\n  num_block: 3\n", 3, ["num_block`", "`num_blocks`"]),
        ("max_epoch: 3\nencodr: conformer\n", 2, ["`encodr`", "did you mean `encoder`"]),
        ("encoder: conmanba\n", 1, ["conmanba", "`conmamba`"]),
        ("seed: 1\nencoder: [mamba]\n", 2, ["encoder `['mamba']` is unknown"]),
        ("optim: adamm\n", 1, ["adamm", "`adam`"]),
        ("optim: adam\noptim_conf:\n  lr: 1e-3\n", 3, ["1e-3", "1.0e-3"]),
        ("encoder: conformer\nencoder_conf:\n  num_blocks: two\n", 3, ["must be int", "'two'"]),
        ("encoder: conformer\nencoder_conf:\n  num_blocks: true\n", 3, ["must be int"]),
        ("encoder: conformer\nencoder_conf: 3\n", 2, ["encoder_conf holds"]),
        ("encoder: conformer\nencoder_conf:\n  input_size: 80\n", 3, ["input_size"]),
        ("ctc_conf:\n  dropout: 0.1\n", 2, ["dropout_rate"]),
        ("seed: 1\nseed: 2\n", 2, ["`seed` is given twice", "line 1"]),
        ("max_epoch: many\n", 1, ["max_epoch", "int"]),
        ("max_epoch: 1e2\n", 1, ["max_epoch", "int"]),
        ("max_epoch: [1]\n", 1, ["max_epoch", "int"]),
        ("max_epoch: .inf\n", 1, ["max_epoch", "int"]),
        ("use_amp: perhaps\n", 1, ["true or false"]),
        ("token_type: letters\n", 1, ["token_type", "char"]),
        ("model: multilingual\nmodel_conf:\n  langs: [en]\n", 3, ["`langs`", "languages"]),
        ("model: multilingual\nmodel_conf:\n  lsm_weigth: 0.1\n", 3, ["lsm_weight"]),
        (
            "model: multilingual\nmodel_conf:\n  conditioning: dialect\n",
            3,
            ["conditioning `dialect` is unknown", "family, language, none"],
        ),
        (
            "encoder: conmamba\nencoder_conf:\n  mixer_conf:\n    mixer: mamba3\n",
            4,
            ["mixer `mamba3` is unknown", "allowed: mamba1, mamba2"],
        ),
        ("encoder: conmamba\nencoder_conf:\n  mixer: mamba3\n", 3, ["mixer `mamba3` is unknown"]),
        ("decoder: mamba\ndecoder_conf:\n  positions: rotary\n", 3, ["positions `rotary`"]),
        ("postencoder: uma\npostencoder_conf: {max_frame: 3}\n", 2, ["max_frames"]),
    ],
)
def test_mistakes_name_file_and_line(write, text, line, parts):
    path = write(text)
    refused(["--config", path], f"{path}: line {line}: ", *parts)


def test_mistakes_of_a_language_model(write):
    path = write("lm: mamba\nlm_conf:\n  num_block: 1\n")
    refused(["--config", path], "line 3: ", "`num_blocks`", task="lm")
    refused(["--encoder", "mamba"], "no option --encoder", task="lm")


def test_mistakes_on_the_command_line():
    refused(["--encodr", "mamba"], "no option --encodr", "`--encoder`")
    refused(["mamba"], "`mamba`")
    refused(["--encoder", "conmanba"], "--encoder: ", "conmamba")
    refused(["--max_epoch", "many"], "--max_epoch: ", "int")
    refused(["--accum_grad", "0"], "--accum_grad: ", "at least 1")
    refused(["--keep_nbest_models", "3", "x"], "--keep_nbest_models: ", "int")
    refused(["--encoder", "conformer", "--encoder_conf", "blocks=2"], "--encoder_conf: ", "blocks")
    refused(["--encoder_conf", "output_size=x", "--encoder", "conformer"], "must be int")
    refused(["--encoder", "none"], "--encoder: ", "allowed")
    refused(["--normalize", "global_mvn"], "`global_mvn` needs normalize_conf: `stats_file`")


def test_values_that_espnets_parser_takes():
    check_command(
        "--log_level info --encoder MAMBA --scheduler NIL --dist_launcher none --use_amp Y".split()
    )
    check_command("--specaug none --patience none --keep_nbest_models 3 5".split())


def test_command_line_goes_over_the_config(write):
    path = write("encoder: conformer\ndecoder: transformer\n")
    refused(["--config", path, "--encoder", "rnn", "--encoder_conf", "num_blocks=1"], "num_blocks")
    check_command(["--config", path, "--encoder_conf", "num_blocks=1"])


def test_statistics_need_no_statistics():
    for yes in ("true", "y", "ON", "1"):
        check_command(["--collect_stats", yes, "--normalize", "global_mvn"])
    refused(["--collect_stats", "off", "--normalize", "global_mvn"], "stats_file")


@pytest.mark.parametrize("word", ["y", "YES", "t", "on", "1", "n", "no", "f", "false", "0"])
def test_truth_is_espnets(word):
    from espnet2.utils.types import str2bool

    assert is_true(word) == str2bool(word)


def test_a_mistake_in_merged_configs_has_its_own_place(write):
    base = read(write("encoder: mamba\nencoder_conf: {num_blocks: 1}\nseed: one\n", "base.yaml"))
    block = read(write("encoder_conf:\n  blocks: 2\n", "block.yaml"))
    with pytest.raises(UserError, match="base.yaml: line 3: `seed` must be int"):
        check_training(merge(base, [block]))
    with pytest.raises(UserError, match="block.yaml: line 2: .*no option `blocks`"):
        check_training(merge(base, [block]), ["--seed", "1"])
    with pytest.raises(UserError, match="^--encoder_conf: .*no option `layers`"):
        check_training(merge(base, []), ["--seed", "1", "--encoder_conf", "layers=2"])


def test_command_line_is_laid_over_a_copy(write):
    config = read(write("encoder: mamba\nmodel_conf: {ctc_weight: 1.0}\nnormalize: global_mvn\n"))
    whole = check_training(config, ["--best_model_criterion", "valid,cer_ctc,min", "--seed", "1"])
    assert model_file(whole) == "valid.cer_ctc.ave.pth"
    assert whole == config | {
        "best_model_criterion": ["valid,cer_ctc,min"], "seed": "1",
    }  # fmt: skip
    assert "seed" not in config
    assert check_training(config, ["--model", "multilingual"])["model"] == "multilingual"
