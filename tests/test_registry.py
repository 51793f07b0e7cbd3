"""ESPnet's own commands and classes know our names after register()."""

import pytest

import mambaasr
from mambaasr import espnet_compat
from mambaasr.registry import CLASSES, load, of_task


@pytest.fixture(scope="module")
def task():
    mambaasr.register()
    return espnet_compat.import_quietly("espnet2.tasks.asr").ASRTask


def test_register_may_be_called_twice_and_keeps_espnets_names():
    mambaasr.register()
    before = {slot: dict(espnet_compat.choices(slot)) for slot in CLASSES}
    mambaasr.register()
    for slot, classes in CLASSES.items():
        assert dict(espnet_compat.choices(slot)) == before[slot]
        assert set(classes) <= set(before[slot])
        assert all(before[slot][name] is load(target) for name, target in classes.items())
    assert "conformer" in before["encoder"] and "transformer" in before["decoder"]


@pytest.mark.parametrize("kind, name", [("asr", "ASRTask"), ("lm", "LMTask")])
def test_espnets_parsers_take_every_name(kind, name):
    mambaasr.register()
    task = getattr(espnet_compat.import_quietly(f"espnet2.tasks.{kind}"), name)
    for slot, classes in of_task(kind).items():
        for name in classes:
            args = task.get_parser().parse_args(["--output_dir", "x", f"--{slot}", name])
            assert getattr(args, slot) == name


def test_espnets_own_task_builds_the_model(task):
    args = task.get_parser().parse_args(["--output_dir", "x", "--token_type", "char"])
    args.token_list = ["<blank>", "<unk>", "a", "<sos/eos>"]
    args.frontend, args.encoder, args.decoder = "fbank", "conmamba", "mamba"
    args.encoder_conf = dict(output_size=16, num_blocks=1, linear_units=16)
    args.decoder_conf = dict(num_blocks=1, linear_units=16)
    model = task.build_model(args)
    assert type(model.encoder) is load(CLASSES["encoder"]["conmamba"])
    assert type(model.decoder) is load(CLASSES["decoder"]["mamba"])
