"""Configs and commands are checked before ESPnet is imported."""

import subprocess
import sys

import pytest

from mambaasr.errors import UserError
from mambaasr.registry import CLASSES, of_task
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
    names = [
        (task, slot, name)
        for task in signatures.TASKS
        for slot, classes in of_task(task).items()
        for name in classes
    ]
    assert {("asr", "encoder", "conmamba"), ("asr", "frontend", "fbank")} <= set(names)
    assert ("lm", "lm", "mamba") in names and ("lm", "model", "multilingual") not in names
    assert {slot for _, slot, _ in names} == set(CLASSES)
    for task, slot, name in names:
        assert name in signatures.slots(task)[slot].classes
        assert signatures.class_options(slot, name, task).parameters
        assert not signatures.class_options(slot, name, task).open
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
        ("seed: 1\nencoder: [mamba]\n", 2, ["encoder `['mamba']` is unknown"]),
        ("encoder: {mamba: 1}\n", 1, ["is unknown"]),
        ("seed: 1\nx: 2024-13-45\n", 2, ["not valid yaml", "`2024-13-45` is no timestamp"]),
        ("x: !!int many\n", 1, ["not valid yaml", "`many` is no int"]),
        ("x: !!bool many\n", 1, ["not valid yaml", "`many` is no bool"]),
        ("x: !!timestamp many\n", 1, ["not valid yaml", "`many` is no timestamp"]),
        ("seed: 1\nx: &a\n- *a\n", 2, ["`x` holds itself"]),
        ("seed: 1\nx: &a\n  y: *a\n", 2, ["`x` holds itself"]),
        ("max_epoch: [1]\n", 1, ["max_epoch", "must be int", "[1]"]),
        ("use_amp: [true]\n", 1, ["true or false"]),
        ("token_type: {char: 1}\n", 1, ["token_type", "char"]),
        ("max_epoch: 1e2\n", 1, ["write 1.0e2"]),
        ("specaug_conf:\n  x:\n  - 1e2\n", 3, ["write 1.0e2"]),
        ("encoder_conf:\n  x: None\n", 2, ["write null"]),
    ],
)
def test_mistakes_name_file_and_line(written, text, line, parts):
    path = written(text)
    refused(["--config", path], f"{path}: line {line}: ", *parts)


def test_tokens_may_look_like_numbers(written):
    """ESPnet's config.yaml of an experiment writes such tokens without quotes."""
    import yaml

    path = written(yaml.safe_dump({"token_list": ["<blank>", "1e5", "None", "2E-3"]}))
    assert "- 1e5\n" in path.read_text()
    assert config.read(path)["token_list"] == ["<blank>", "1e5", "None", "2E-3"]
    config.check_command(["--config", str(path)])


def test_deep_nesting(written):
    refused(["--config", written("a: " + "[" * 5000)], "train.yaml: ", "nested too deeply")


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
    for yes in ("true", "y", "ON", "1"):
        config.check_command(["--collect_stats", yes, "--normalize", "global_mvn"])
    refused(["--collect_stats", "off", "--normalize", "global_mvn"], "stats_file")


@pytest.mark.parametrize("word", ["y", "YES", "t", "on", "1", "n", "no", "f", "false", "0"])
def test_truth_is_espnets(written, word):
    from espnet2.utils.types import str2bool

    path = written(f"collect_stats: {word}\n")
    given = config.check_command(["--config", str(path)])
    assert config.collects_statistics(given) == str2bool(word)
    given = config.check_command(["--config", str(path), "--collect_stats", "no"])
    assert not config.collects_statistics(given)


@pytest.mark.parametrize(
    "text, keys, value",
    [
        ("lr=0.1", ["lr"], 0.1),
        ("a.b={c: true}", ["a", "b"], {"c": True}),
        ("a=", ["a"], ""),
        ("{'a': 1, \"b\": [x]}", [], {"a": 1, "b": ["x"]}),
        ("{a: 'x=y'}", [], {"a": "x=y"}),
        ("a: 34.5", [], {"a": 34.5}),
    ],
)
def test_forms_of_a_conf(text, keys, value):
    assert config.read_conf("encoder_conf", text) == (keys, value)


@pytest.mark.parametrize(
    "text, part",
    [
        ("lr=1e-3", "write 1.0e-3"),
        ("{'lr': 1e-3}", "write 1.0e-3"),
        ("{'lr': None}", "write null"),
        ("a.b=!!python/object/apply:os.system ['false']", "not valid yaml"),
        ("lr=[", "not valid yaml"),
        ("lr=&a [*a]", "holds itself"),
        ("lr", "write key=value"),
    ],
)
def test_mistakes_in_a_conf(text, part):
    assert "\n" not in refused(["--optim", "adam", "--optim_conf", text], "--optim_conf ", part)


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
    from mambaasr.task.lm import LMTask

    for name, task in (("asr", ASRTask), ("lm", LMTask)):
        theirs = {action.dest for action in task.get_parser()._actions}
        assert set(signatures.options(name)) == theirs
        slots = signatures.slots(name)
        for choice in task.class_choices_list:
            assert set(slots[choice.name].classes) == set(choice.classes)
            assert slots[choice.name].default == choice.default


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
            true = list(inspect.signature(definition.__init__).parameters.values())[1:]
            if true and true[-1].kind is inspect.Parameter.VAR_KEYWORD:  # all goes to the base
                above = inspect.signature(definition.__base__.__init__).parameters
                true[-1:] = [above[key] for key in list(above)[1:]]
            assert set(read.parameters) == {parameter.name for parameter in true}, (slot, name)
            checked += 1
    assert checked > 50
