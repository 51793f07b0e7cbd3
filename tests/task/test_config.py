"""Configs and commands are checked before ESPnet is imported."""

import subprocess
import sys

import pytest

from mambaasr.errors import UserError
from mambaasr.task import config, signatures


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "train.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refused(argv, *parts):
    with pytest.raises(UserError) as caught:
        config.check_command([str(word) for word in argv])
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    return str(caught.value)


def test_good_config(written):
    path = written(
        "encoder: conformer\nencoder_conf:\n  num_blocks: 2\n  dropout_rate: 0\n"
        "decoder: transformer\noptim: adam\noptim_conf:\n  lr: 1.0e-3\n"
        "scheduler: warmuplr\nscheduler_conf:\n  warmup_steps: 10\nspecaug: null\n"
        "best_model_criterion:\n- - valid\n  - acc\n  - max\nmax_epoch: 3\nbatch_type: numel\n"
    )
    given = config.check_command(["--config", str(path), "--ngpu", "0", "--optim_conf", "lr=0.1"])
    assert given["ngpu"] == ["0"]


def test_our_classes_are_known():
    for slot in ("encoder", "decoder", "frontend"):
        for name in ("mamba", "fbank"):
            if name in signatures.slots()[slot].classes:
                assert signatures.class_options(slot, name).parameters
    assert "input_size" not in signatures.class_options("encoder", "conmamba").parameters


@pytest.mark.parametrize(
    "text, line, parts",
    [
        ("encoder: conformer\nencoder_conf:\n  num_block: 3\n", 3, ["num_block`", "`num_blocks`"]),
        ("max_epoch: 3\nencodr: conformer\n", 2, ["`encodr`", "did you mean `encoder`"]),
        ("encoder: conmanba\n", 1, ["conmanba", "`conmamba`"]),
        ("optim: adamm\n", 1, ["adamm", "`adam`"]),
        ("optim: adam\noptim_conf:\n  lr: 1e-3\n", 3, ["1e-3", "1.0e-3"]),
        ("encoder: conformer\nencoder_conf:\n  num_blocks: two\n", 3, ["must be int", "'two'"]),
        ("encoder: conformer\nencoder_conf:\n  num_blocks: true\n", 3, ["must be int"]),
        ("encoder: conformer\nencoder_conf: 3\n", 2, ["encoder_conf holds"]),
        ("encoder: conformer\nencoder_conf:\n  input_size: 80\n", 3, ["input_size"]),
        ("ctc_conf:\n  dropout: 0.1\n", 2, ["dropout_rate"]),
        ("seed: 1\nseed: 2\n", 2, ["`seed` is given twice", "line 1"]),
        ("max_epoch: many\n", 1, ["max_epoch", "int"]),
        ("use_amp: perhaps\n", 1, ["true or false"]),
        ("token_type: letters\n", 1, ["token_type", "char"]),
        ("encoder: conformer\n bad indentation: x\n", 2, ["not valid yaml"]),
        ("a: !!python/object/apply:os.system [false]\n", 1, ["not valid yaml"]),
    ],
)
def test_mistakes_name_file_and_line(written, text, line, parts):
    path = written(text)
    refused(["--config", path], f"{path}: line {line}: ", *parts)


def test_unreadable_configs(written, tmp_path):
    refused(["--config", tmp_path / "none.yaml"], "none.yaml: no such config file")
    refused(["--config", tmp_path], "cannot be read")
    refused(["--config", written(b"encoder: \xff\xfe\n")], "cannot be read")
    refused(["--config", written("- a\n- b\n")], "option: value")


def test_empty_config_is_espnets_defaults(written):
    config.check_command(["--config", str(written(""))])


def test_mistakes_on_the_command_line():
    refused(["--encodr", "mamba"], "no option --encodr", "`--encoder`")
    refused(["mamba"], "`mamba`")
    refused(["--encoder", "conmanba"], "--encoder: ", "conmamba")
    refused(["--encoder", "conformer", "--encoder_conf", "blocks=2"], "--encoder_conf: ", "blocks")
    refused(["--encoder_conf", "output_size=x", "--encoder", "conformer"], "must be int")
    refused(["--normalize", "global_mvn"], "`global_mvn` needs normalize_conf: `stats_file`")


def test_command_line_goes_over_the_config(written):
    path = written("encoder: conformer\ndecoder: transformer\n")
    refused(["--config", path, "--encoder", "rnn", "--encoder_conf", "num_blocks=1"], "num_blocks")
    config.check_command(["--config", str(path), "--encoder_conf", "num_blocks=1"])


def test_statistics_need_no_statistics():
    config.check_command(["--collect_stats", "true", "--normalize", "global_mvn"])


def test_nothing_heavy_is_imported(written):
    path = written("encoder: conmamba\nencoder_conf:\n  no_such_option: 3\n")
    code = (
        "import sys\nfrom mambaasr.task import config\n"
        f"try:\n    config.check_command(['--config', {str(path)!r}])\n"
        "except config.UserError as error:\n    print(error)\n"
        "assert not {'torch', 'espnet2', 'numpy'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "line 3: encoder_conf has no option `no_such_option`" in result.stdout


def test_options_are_espnets_own():
    from mambaasr.task.asr import ASRTask

    theirs = {action.dest for action in ASRTask.get_parser()._actions}
    assert set(signatures.options()) == theirs
    for choice in ASRTask.class_choices_list:
        assert set(signatures.slots()[choice.name].classes) == set(choice.classes)
        assert signatures.slots()[choice.name].default == choice.default


def test_signatures_are_pythons_own():
    """What is read from the sources agrees with what the imported classes take."""
    import inspect

    from mambaasr import espnet_compat

    checked = 0
    for slot in ("encoder", "decoder", "frontend", "model", "optim", "scheduler"):
        for name, definition in espnet_compat.choices(slot).items():
            read = signatures.signature(*signatures.slots()[slot].classes[name])
            if read.open:
                continue
            true = list(inspect.signature(definition.__init__).parameters)[1:]
            assert list(read.parameters) == true, (slot, name)
            checked += 1
    assert checked > 50
