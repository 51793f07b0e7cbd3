"""Modules are called, not read: wrappers, hooks, LoRA and quantisation work in every class."""

import numpy as np
import pytest
import tiny_asr
import tiny_lm
import torch
from torch import nn

from mambaasr.decode.load import load_speech2text
from mambaasr.registry import CLASSES, load

VOCABULARY, WIDTH, FRAMES = 13, 16, torch.tensor([97, 61])
ENCODER = dict(output_size=WIDTH, num_blocks=2)
MAMBA2 = dict(mixer_conf=dict(mixer="mamba2", headdim=8))
# slot, name -> options beside the sizes
CASES = [
    ("encoder", "mamba", dict(linear_units=32, direction="inner", merge="concat")),
    ("encoder", "mamba", dict(input_layer="linear", **MAMBA2)),
    ("encoder", "conmamba", dict(linear_units=32, direction="outer", merge="concat")),
    ("encoder", "conmamba", dict(linear_units=32, input_layer="conv1d4")),
    ("encoder", "speech_mamba", dict(input_layer="conv2d")),
    ("encoder", "mamba_ebranchformer", dict(linear_units=32, cgmlp_linear_units=24)
     | dict(branches=["attention", "mamba", "cgmlp"], use_linear_after_conv=True)),
    ("postencoder", "uma", dict(num_blocks=1, linear_units=32)),
    ("decoder", "mamba", dict(linear_units=32)),
    ("decoder", "speech_mamba", dict(d_state=8, **MAMBA2)),
    ("decoder", "cross_mamba", dict(linear_units=32)),
    ("decoder", "madeon", {}),
    ("lm", "mamba", dict(linear_units=32, tie_weights=False)),
]  # fmt: skip


class Wrapped(nn.Module):
    """Calls a layer and shows nothing of it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def build(slot, name, options):
    """Return a module, and a function that runs it whole and, where it has steps, by steps."""
    torch.manual_seed(0)
    make, x = load(CLASSES[slot][name]), torch.randn(2, 97, 80)
    text = torch.randint(0, VOCABULARY, (2, 4))
    if slot == "encoder":
        return make(80, **ENCODER, **options), lambda module: [module(x, FRAMES)[0]]
    if slot == "postencoder":
        speech = x[..., :WIDTH]
        return make(WIDTH, **options), lambda module: [module(speech, FRAMES)[0]]
    if slot == "lm":
        made, speech = make(VOCABULARY, unit=WIDTH, num_blocks=2, **options), 2
        whole = lambda module: module(text, None)[0]  # noqa: E731
    else:
        made, speech = make(VOCABULARY, WIDTH, num_blocks=2, **options), x[..., :WIDTH]
        whole = lambda module: module(speech, FRAMES, text, torch.tensor([4, 4]))[0]  # noqa: E731

    def run(module):
        lengths = () if slot == "lm" else (FRAMES,)
        step, _ = module.step(text[:, :1], module.start(speech, *lengths))
        return [whole(module), step]

    return made, run


def linears(module):
    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def test_every_class_is_tested():
    modules = {slot: set(CLASSES[slot]) for slot in ("encoder", "postencoder", "decoder", "lm")}
    assert {(slot, name) for slot, name, _ in CASES} == {
        (slot, name) for slot, names in modules.items() for name in names
    }


@pytest.mark.parametrize("slot, name, options", CASES)
@torch.no_grad()
def test_hooks_fire_and_wrapped_layers_serve(slot, name, options):
    module, run = build(slot, name, options)
    module.eval()
    plain, seen = run(module), set()
    hooks = [
        part.register_forward_hook(lambda *_, name=name: seen.add(name))
        for name, part in linears(module).items()
    ]
    again = run(module)
    assert seen == linears(module).keys()
    for hook in hooks:
        hook.remove()
    for name in linears(module):
        parent, _, child = name.rpartition(".")
        parent = module.get_submodule(parent)
        setattr(parent, child, Wrapped(getattr(parent, child)))
    for others in (again, run(module)):
        for one, other in zip(plain, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slot, name, options", CASES)
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:torch.ao.quantization")
def test_dynamic_quantisation_takes_the_linear_layers(slot, name, options):
    module, run = build(slot, name, options)
    module.eval()
    weights = sum(part.weight.numel() for part in linears(module).values())
    small = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, torch.qint8)
    taken = sum(
        part.weight().numel()
        for part in small.modules()
        if isinstance(part, torch.ao.nn.quantized.dynamic.Linear)
    )
    assert taken >= 0.9 * weights
    for one, other in zip(run(module), run(small), strict=True):
        assert torch.isfinite(other).all() and not torch.equal(one, other)
        if slot != "postencoder":  # which cuts elsewhere for a change as small as this
            assert float((one - other).norm() / one.norm()) < 0.2


@pytest.mark.filterwarnings("ignore:torch.ao.quantization")
@pytest.mark.parametrize("opened_by", ["ESPnet", "us"])
def test_speech2text_quantises_model_and_language_model(tmp_path, opened_by, monkeypatch):
    from mambaasr.espnet_compat import Speech2Text

    files = list(map(str, tiny_asr.make_experiment(tmp_path / "asr", **tiny_asr.OURS)))
    lm = tiny_lm.make_lm_experiment(tmp_path / "lm", lm_conf=dict(unit=16, tie_weights=False))
    options = dict(lm_train_config=str(lm[0]), lm_file=str(lm[1]), beam_size=2)
    options |= dict(quantize_asr_model=True, quantize_lm=True)
    if opened_by == "ESPnet":
        opened = Speech2Text(*files, **options)
    else:
        opened = load_speech2text(*files, **options)
    scorers = opened.beam_search.full_scorers
    for module in (opened.asr_model, scorers["decoder"], scorers["lm"]):
        assert not linears(module)
    speech = np.random.default_rng(0).standard_normal(16000).astype("float32")
    assert opened(speech)[0][3].score.isfinite()


class LoRA(nn.Module):
    """What ``loralib.Linear`` computes in training, for where the package is not there."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.layer = layer
        self.lora_A = nn.Parameter(torch.randn(rank, layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x):
        return self.layer(x) + x @ self.lora_A.t() @ self.lora_B.t()


@pytest.mark.parametrize("slot, name, options", CASES)
def test_low_rank_adapters_are_trained(slot, name, options):
    module, run = build(slot, name, options)
    for key in linears(module):
        parent, _, child = key.rpartition(".")
        parent = module.get_submodule(parent)
        setattr(parent, child, LoRA(getattr(parent, child)))
    run(module)[0].square().sum().backward()
    for key, parameter in module.named_parameters():
        if key.endswith("lora_B"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
