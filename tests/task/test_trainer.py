"""The progress bar shows an epoch's way and the latest loss, on a terminal only."""

import io
import sys
from types import SimpleNamespace

import pytest
import torch

from mambaasr.task import trainer
from mambaasr.task.trainer import Progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    values = {"loss": [SimpleNamespace(value=1.25)], "acc": [SimpleNamespace(value=float("nan"))]}
    progress = Progress(["a", "b"], "epoch 3/50", SimpleNamespace(stats=values))
    assert len(progress) == 2
    assert list(progress) == ["a", "b"]
    assert ("epoch 3/50:   0%" in screen.getvalue()) == terminal
    assert progress._latest() == {"loss": "1.250"}


def test_an_epoch_begins_without_the_gradients_of_the_one_before(monkeypatch):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)  # of an accumulation that the epoch's end cut short
    seen = []

    def train(cls, **kwargs):
        seen.append(weight.grad)
        return False

    monkeypatch.setattr(trainer.EspnetTrainer, "train_one_epoch", classmethod(train))
    reporter = SimpleNamespace(get_epoch=lambda: 2)
    optimizers = [torch.optim.SGD([weight], lr=0.1)]
    trainer.Trainer.train_one_epoch(
        iterator=[], reporter=reporter, options=SimpleNamespace(max_epoch=3), optimizers=optimizers
    )
    assert seen == [None]


@pytest.mark.parametrize("options", [["--accum_grad", "50"], ["--init_param", "nan.pth"]])
def test_a_training_without_an_update_fails(workspace, options):
    """More batches to accumulate than there are, or a loss that is not finite."""
    bias = torch.full((workspace.vocabulary,), torch.nan)
    torch.save({"ctc.ctc_lo.bias": bias}, workspace.folder / "nan.pth")
    code, printed = workspace.run(workspace.arguments("idle", "--max_epoch", "1", *options))
    assert code == 2 and "the first epoch made no update" in printed
    assert not list((workspace.folder / "idle").glob("*.pth"))
