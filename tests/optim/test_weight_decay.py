"""Which parameters of every registered class decay, through our tasks and ESPnet's own."""

import re

import pytest
import torch

from mambaasr.espnet_compat import import_quietly
from mambaasr.registry import CLASSES, load
from mambaasr.task.asr import ASRTask
from mambaasr.task.lm import LMTask

DECAY = 0.25
MIXERS = [
    dict(mixer="mamba1", d_state=4),
    dict(mixer="mamba2", d_state=4, mixer_conf=dict(headdim=8)),
]
ENCODERS = {
    "mamba": dict(num_blocks=1, linear_units=8, norm="rms_norm"),
    "conmamba": dict(num_blocks=1, linear_units=8, cnn_module_norm="batch_norm"),
    "speech_mamba": dict(num_blocks=1, attention_heads=2),
    "mamba_ebranchformer": dict(num_blocks=1, linear_units=8, cgmlp_linear_units=8),
}
DECODERS = {
    "mamba": dict(num_blocks=1, attention_heads=2, linear_units=8),
    "speech_mamba": dict(num_blocks=1, attention_heads=2),
    "cross_mamba": dict(num_blocks=1, linear_units=8),
    "madeon": dict(num_blocks=1),
}
# Matrices that are no maps from channels to channels.
SPARED = re.compile(r"(A_log|A_b_log|embed(ding)?(\.0)?\.weight)$")


def expected(model):
    """Names of the matrices and convolution kernels: all that should decay."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and not SPARED.search(name)
    }


def decaying(task, model, *options, optim="adamw"):
    """Names of the parameters that decay in the optimiser that a task builds."""
    args = task.get_parser().parse_args(
        ["--output_dir", "x", "--optim", optim, "--optim_conf", f"weight_decay={DECAY}", *options]
    )
    (optimizer,) = task.build_optimizers(args, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {
        names.pop(id(parameter)): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert not names, "parameters that the optimiser does not have"
    assert set(decays.values()) <= {0.0, DECAY}
    return {name for name, value in decays.items() if value == DECAY}


def with_ctc(**parts):
    from mambaasr.espnet_compat import CTC

    return torch.nn.ModuleDict({**parts, "ctc": CTC(7, 16)})


def test_every_registered_class_is_tested():
    assert set(ENCODERS) == set(CLASSES["encoder"])
    assert set(DECODERS) == set(CLASSES["decoder"])
    assert set(CLASSES["lm"]) == {"mamba"} and set(CLASSES["model"]) == {"asr", "multilingual"}
    assert set(CLASSES["postencoder"]) == {"uma"}


def check(model, task, optim, spared):
    found = decaying(task, model, optim=optim)
    assert found == expected(model)
    rest = {name for name, _ in model.named_parameters()} - found
    for ending in spared:
        assert any(name.endswith(ending) for name in rest), ending


@pytest.mark.parametrize("optim", ["adam", "adamw"])
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer["mixer"])
@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoders(name, mixer, optim):
    options = ENCODERS[name] | mixer
    encoder = load(CLASSES["encoder"][name])(20, output_size=16, input_layer="conv2d", **options)
    spared = ["A_log", ".D", "dt_bias" if mixer["mixer"] == "mamba2" else "dt_proj.bias"]
    check(with_ctc(encoder=encoder), ASRTask, optim, [*spared, "after_norm.weight", ".bias"])


@pytest.mark.parametrize("optim", ["adam", "adamw"])
@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer["mixer"])
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoders(name, mixer, optim):
    decoder = load(CLASSES["decoder"][name])(7, 16, **DECODERS[name] | mixer)
    check(with_ctc(decoder=decoder), ASRTask, optim, ["A_log", ".D", "embed.weight", ".bias"])


def test_unimodal_aggregation():
    part = load(CLASSES["postencoder"]["uma"])(16)
    check(with_ctc(postencoder=part), ASRTask, "adamw", [".bias"])


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer["mixer"])
@pytest.mark.parametrize("tied", [True, False])
def test_language_models(mixer, tied):
    lm = load(CLASSES["lm"]["mamba"])(7, unit=16, num_blocks=1, tie_weights=tied, **mixer)
    model = torch.nn.ModuleDict({"lm": lm})
    check(model, LMTask, "adamw", ["A_log", ".D", "embed.weight"])


def whole(task, *options):
    """Build the model of some options as a task does."""
    args = task.get_parser().parse_args(
        ["--output_dir", "x", "--token_type", "char", "--frontend", "fbank", *options]
    )
    args.token_list = ["<blank>", "<unk>", "a", "<sos/eos>"]
    return task.build_model(args)


OURS = ["--encoder", "conmamba", "--decoder", "mamba"]
OURS += ["--encoder_conf", "{output_size: 16, num_blocks: 1, linear_units: 8}"]
OURS += ["--decoder_conf", "{num_blocks: 1, attention_heads: 2, linear_units: 8}"]


@pytest.mark.parametrize(
    "more, spared",
    [("conditioning: language", "embedding.weight"), ("lid_weight: 0.1", "lid.bias")],
)
def test_the_multilingual_model(more, spared):
    conf = f"{{languages: [de, en], {more}}}"
    model = whole(ASRTask, "--model", "multilingual", "--model_conf", conf, *OURS)
    check(model, ASRTask, "adamw", [spared])


def test_the_model_of_named_losses():
    check(whole(ASRTask, "--model", "asr", *OURS), ASRTask, "adamw", [".bias"])


def test_espnets_own_task_does_the_same_when_the_config_asks_for_it():
    theirs = import_quietly("espnet2.tasks.asr").ASRTask
    model = whole(theirs, *OURS)
    assert decaying(theirs, model, "--exclude_weight_decay", "true") == expected(model)
    everything = {name for name, _ in model.named_parameters()}
    assert decaying(theirs, whole(theirs, *OURS)) == everything


def test_espnets_conformer():
    """Its two biases of the attention decay: ESPnet goes by names that end in `bias`."""
    conf = "{output_size: 16, attention_heads: 2, linear_units: 8, num_blocks: 1}"
    parts = ["--encoder", "conformer", "--encoder_conf", conf, "--decoder", "transformer"]
    model = whole(ASRTask, *parts, "--decoder_conf", "{num_blocks: 1, linear_units: 8}")
    found = decaying(ASRTask, model)
    assert found == expected(model)
    assert {name.rpartition(".")[2] for name in found} == {"weight", "pos_bias_u", "pos_bias_v"}
