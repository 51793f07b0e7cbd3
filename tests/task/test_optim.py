"""Our schedules and the clip by value in trainings, and what a config gets wrong about them."""

import re

import pytest
import torch

from mambaasr.config import check_command
from mambaasr.errors import UserError
from mambaasr.task import asr

COSINE = ["--scheduler", "warmup_cosine", "--scheduler_conf", "warmup_steps=1"]


@pytest.fixture
def train(workspace, monkeypatch):
    monkeypatch.chdir(workspace.folder)

    def run(output, *more):
        asr.ASRTask.main(cmd=workspace.arguments(output, *more))
        return workspace.folder / output

    return run


def state(folder):
    """Return the optimiser's rates and the schedule's state in a checkpoint."""
    checkpoint = torch.load(folder / "checkpoint.pth", weights_only=True)
    rates = [group["lr"] for group in checkpoint["optimizers"][0]["param_groups"]]
    return rates, checkpoint["schedulers"][0]


def test_a_counted_schedule_ends_with_the_training_and_resumes(train):
    conf = [*COSINE, "--scheduler_conf", "min_lr_ratio=0.25", "--max_epoch", "2"]
    folder = train("cosine", *conf)
    log = (folder / "train.log").read_text()
    (total,) = re.findall(r"(\d+) updates in all: WarmupCosine", log)
    rates, place = state(folder)
    assert place["last_epoch"] == int(total) == 4
    # The fifth update would have the last rate: a quarter of the config's 0.002.
    assert rates == pytest.approx([0.0005] * len(rates)) and len(rates) == 2

    stopped = ["--scheduler_conf", f"total_steps={total}"]
    folder = train("stopped", *conf[:-1], "1", *stopped)
    first = state(folder)
    assert first[1]["last_epoch"] == 2 and first[0] != rates
    train("stopped", *conf, *stopped, "--resume", "true")
    assert state(folder) == (rates, place)


def test_the_warm_up_is_longer_than_the_training(train):
    with pytest.raises(UserError, match="total_steps is 4; .* above warmup_steps .*max_epoch 2"):
        train("never", *COSINE, "--scheduler_conf", "warmup_steps=6", "--max_epoch", "2")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--scheduler_conf", "warmup_steps=-1"], "schedule cannot be built: .*steps is -1"),
        (["--scheduler_conf", "min_lr_ratio=2"], "schedule cannot be built: .*ratio is 2"),
        (["--scheduler_conf", "total_steps=1"], "schedule cannot be built: .*total_steps is 1"),
        (["--grad_clip_value", "0"], "grad_clip_value is 0.0; it must be a number above 0"),
        (["--grad_clip_value", "much"], "--grad_clip_value"),
    ],
)
def test_what_is_refused_before_a_training(train, workspace, words, message):
    with pytest.raises(UserError, match=message):
        train("never", *COSINE, *words)
    assert not (workspace.folder / "never/checkpoint.pth").exists()


@pytest.mark.parametrize(
    "lines, message",
    [
        ("scheduler: warmup_cosin", "did you mean `warmup_cosine`"),
        ("scheduler: warmup_linear", "needs scheduler_conf: `warmup_steps`"),
        ("scheduler: warmup_linear\nscheduler_conf: {warm_steps: 3}", "did you mean `warmup_st"),
        ("scheduler: warmup_linear\nscheduler_conf: {warmup_steps: 0.5}", "must be int, found 0.5"),
        ("grad_clip_value: much", "line 1: `grad_clip_value` must be float or none, found 'much'"),
    ],
)
def test_what_the_check_of_a_config_knows(tmp_path, lines, message):
    (tmp_path / "x.yaml").write_text(f"{lines}\n")
    with pytest.raises(UserError, match=message):
        check_command(["--config", str(tmp_path / "x.yaml")])


def test_good_configs_pass(tmp_path):
    for number, lines in enumerate(
        (
            "scheduler: warmup_linear\nscheduler_conf: {warmup_steps: 5, min_lr_ratio: 0}",
            "scheduler: warmup_cosine\nscheduler_conf: {warmup_steps: 5, total_steps: 9}",
            "grad_clip_value: null",
            "grad_clip_value: 1",
        )
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_text(f"{lines}\n")
        check_command(["--config", str(path)])


def test_every_element_is_clipped_before_an_update():
    arguments = ["--optim", "sgd", "--optim_conf", "lr=1.0", "--grad_clip_value", "0.5"]
    args = asr.ASRTask.get_parser().parse_args(["--output_dir", "x", *arguments])
    model = torch.nn.Linear(3, 1)
    (optimizer,) = asr.ASRTask.build_optimizers(args, model)
    before = model.weight.detach().clone(), model.bias.detach().clone()
    model.weight.grad = torch.tensor([[3.0, -0.25, -7.0]])
    model.bias.grad = torch.tensor([0.75])
    optimizer.step()
    moved = (before[0] - model.weight).flatten().tolist(), (before[1] - model.bias).tolist()
    assert moved[0] == pytest.approx([0.5, -0.25, -0.5]) and moved[1] == pytest.approx([0.5])
