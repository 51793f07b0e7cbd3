"""Output layers behind one interface: a linear one, and ESPnet's CTC."""

import pytest
import torch

from mambaasr.espnet_compat import CTC
from mambaasr.layers.output import CTCOutput, SoftmaxOutput

WIDTH, VOCABULARY = 6, 5
LENGTHS, TARGETS = torch.tensor([7, 4]), torch.tensor([3, 1])


def make(kind):
    torch.manual_seed(0)
    if kind == "ctc":
        return CTCOutput(CTC(odim=VOCABULARY, encoder_output_size=WIDTH))
    return SoftmaxOutput(torch.nn.Linear(WIDTH, VOCABULARY))


@pytest.mark.parametrize("kind", ["linear", "ctc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_log_probabilities_are_those_of_the_logits(kind, dtype):
    layer, x = make(kind), torch.randn(2, 7, WIDTH, dtype=dtype)
    (layer.ctc if kind == "ctc" else layer.layer).to(dtype)
    found = layer.log_probs(layer.logits(x))
    assert found.dtype == (dtype if dtype == torch.float64 else torch.float32)
    assert torch.allclose(found, layer.logits(x).to(found.dtype).log_softmax(-1))
    assert torch.allclose(found.exp().sum(-1), torch.ones((), dtype=found.dtype))


def test_the_linear_layers_loss_is_the_mean_over_sequences_of_sums_over_tokens():
    layer, x = make("linear"), torch.randn(2, 7, WIDTH)
    targets = torch.randint(0, VOCABULARY, (2, 7))
    want = torch.nn.functional.cross_entropy(
        torch.cat([layer.layer(x)[0], layer.layer(x)[1, :4]]),
        torch.cat([targets[0], targets[1, :4]]),
        reduction="sum",
    )
    targets[1, 4:] = -1  # ESPnet's padding
    assert torch.allclose(layer.loss(x, LENGTHS, targets, LENGTHS), want / 2)
    with pytest.raises(ValueError, match=r"targets have shape \(2, 3\), expected \(2, 7\)"):
        layer.loss(x, LENGTHS, targets[:, :3], TARGETS)


def test_espnets_ctc():
    layer, x = make("ctc"), torch.randn(2, 7, WIDTH)
    targets = torch.tensor([[1, 2, 2], [4, -1, -1]])
    assert torch.equal(layer.logits(x), layer.ctc.ctc_lo(x))
    assert torch.equal(layer.log_probs(layer.logits(x)), layer.ctc.log_softmax(x))
    loss = layer.loss(x, LENGTHS, targets, TARGETS)
    assert torch.equal(loss, layer.ctc(x, LENGTHS, targets, TARGETS))
    want = torch.nn.functional.ctc_loss(
        layer.logits(x).log_softmax(-1).transpose(0, 1),
        targets.clamp(min=0),
        LENGTHS,
        TARGETS,
        reduction="none",
    )
    assert torch.allclose(loss, want.mean())
