"""The training loss as a list of parts: ESPnet's own to the last bit, and further ones."""

import copy

import pytest
import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from output_layers import Halves
from tiny_asr import OURS, TOKENS

from mambaasr import register
from mambaasr.configurable import configurable
from mambaasr.espnet_compat import choices, import_quietly
from mambaasr.model.base import ASRModel, LossPart
from mambaasr.registry import CLASSES, load

DEEP = {"encoder_conf": dict(output_size=16, num_blocks=3, linear_units=16)}
DEEP["encoder_conf"] |= dict(interctc_layer_idx=[1, 2], interctc_use_conditioning=True)


def power_loss(model, batch):
    power = model.head(batch.frames).square().mean()
    return power, {"power_seen": float(len(batch.text)), "power_none": None}


@configurable()
class WithPower(ASRModel):
    def __init__(self, *, encoder, power_weight: float = 0.5, **options: object) -> None:
        super().__init__(encoder=encoder, **options)
        self.head = torch.nn.Linear(encoder.output_size(), 2)
        if power_weight:
            self.losses.append(LossPart("power", power_weight, power_loss))


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Build a model of a class with ESPnet's task."""
    register()
    task = import_quietly("espnet2.tasks.asr").ASRTask

    def run(model, model_conf, **options):
        monkeypatch.setitem(choices("model"), "tried", model)
        args = task.get_parser().parse_args(["--output_dir", str(tmp_path)])
        vars(args).update(OURS | dict(token_type="char", token_list=TOKENS, model="tried"))
        vars(args).update(dict(specaug=None, normalize="utterance_mvn") | options)
        args.model_conf = model_conf
        torch.manual_seed(0)
        return task.build_model(args)

    return run


def batch(**more):
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(3, 20, (3, 4), generator=generator)
    text[1, 3:], text[2, 2:] = -1, -1
    return dict(
        speech=torch.randn(3, 16000, generator=generator) * 0.1,
        speech_lengths=torch.tensor([16000, 12000, 9000]),
        text=text,
        text_lengths=torch.tensor([4, 3, 2]),
        **more,
    )


def result(model, **more):
    """Loss, statistics that are reported, weight and gradients."""
    torch.manual_seed(1)
    loss, statistics, weight = model(**batch(**more))
    loss.sum().backward()
    gradients = {key: value.grad for key, value in model.named_parameters()}
    kept = {key: value for key, value in statistics.items() if value is not None}
    return {"loss": loss, "weight": weight, **kept}, gradients


@pytest.mark.parametrize("name", list(CLASSES["model"]))
@pytest.mark.parametrize(
    "conf, options",
    [
        (dict(ctc_weight=0.3, lsm_weight=0.1), {}),
        (dict(ctc_weight=0.0), {}),
        (dict(ctc_weight=0.3, lang_token_id=5), {}),
        (dict(ctc_weight=1.0), dict(decoder=None)),
        (dict(ctc_weight=0.3, interctc_weight=0.4), DEEP),
        (dict(ctc_weight=0.3, interctc_weight=0.4, aux_ctc={"2": "phones"}), DEEP),
    ],
)
def test_its_parts_are_espnets_loss_bit_for_bit(build, name, conf, options):
    more = {}
    if "aux_ctc" in conf:
        more = dict(phones=torch.tensor([[3], [4], [5]]), phones_lengths=torch.ones(3).long())
    for training in (True, False):
        theirs, ours = (
            result(build(cls, conf, **options).train(training), **more)
            for cls in (ESPnetASRModel, load(CLASSES["model"][name]))
        )
        for want, got in zip(theirs, ours, strict=True):
            assert want.keys() == got.keys()
            for key in want:
                assert torch.equal(want[key], got[key]), key


@pytest.mark.parametrize("name", list(CLASSES["model"]))
@torch.no_grad()
def test_a_padded_batch_loses_what_its_utterances_lose_alone(build, name):
    model = build(load(CLASSES["model"][name]), dict(ctc_weight=0.3, lsm_weight=0.1)).eval()
    data = batch()
    _, together, _ = model(**batch())
    alone = []
    for row, (samples, tokens) in enumerate(zip([16000, 12000, 9000], [4, 3, 2], strict=True)):
        one = {key: value[row : row + 1] for key, value in data.items()}
        one |= dict(speech=one["speech"][:, :samples], text=one["text"][:, :tokens])
        alone.append(model(**one)[1])
    for key in ("loss", "loss_ctc", "loss_att"):
        mean = sum(each[key] for each in alone) / 3
        torch.testing.assert_close(together[key], mean, rtol=1e-4, atol=1e-4)


def test_a_further_part_is_weighted_reported_and_trained(build):
    model = build(WithPower, dict(ctc_weight=0.3, power_weight=2.0))
    assert [(part.name, part.weight) for part in model.losses] == [
        ("ctc", 0.3),
        ("att", 0.7),
        ("power", 2.0),
    ]
    seen, gradients = result(model)
    total = 0.3 * seen["loss_ctc"] + 0.7 * seen["loss_att"] + 2.0 * seen["loss_power"]
    torch.testing.assert_close(seen["loss"], total)
    assert seen["power_seen"] == 3 and "power_none" not in seen
    assert gradients["head.weight"].abs().sum() > 0
    assert len(build(WithPower, dict(ctc_weight=1.0, power_weight=0.0), decoder=None).losses) == 1


def test_a_decoder_trains_by_the_loss_of_its_own_output_layer(build):
    model = build(ASRModel, dict(ctc_weight=0.3))
    model.decoder.output_layer = layer = Halves(16, len(TOKENS))
    seen, gradients = result(model)
    assert layer.losses == 1 and "acc" not in seen
    assert all(gradients[f"decoder.output_layer.{name}.weight"].any() for name in layer._modules)
    own, _ = result(model.eval())
    # Without smoothing it is what ESPnet's criterion makes of the same logits.
    model.decoder.output_layer = torch.nn.Module()
    model.decoder.output_layer.forward = layer.logits
    theirs, _ = result(model)
    assert layer.losses == 2 and own.keys() == theirs.keys() and "acc" in own and "cer" in own
    for name, value in own.items():
        torch.testing.assert_close(value, theirs[name])


def test_a_copy_computes_its_parts_with_its_own_weights(build):
    model = build(WithPower, dict(ctc_weight=0.3)).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.weight.mul_(3), other.head.bias.mul_(3)
        losses = [each(**batch())[1]["loss_power"] for each in (model, other)]
    torch.testing.assert_close(losses[1], 9 * losses[0])


def test_data_of_aux_ctc_that_is_missing_is_named(build):
    conf = dict(ctc_weight=0.3, interctc_weight=0.4, aux_ctc={"1": "phones"})
    with pytest.raises(ValueError, match="aux_ctc takes phones for block 1"):
        build(ASRModel, conf, **DEEP)(**batch())
