"""warmup_cosine and warmup_linear: the formula, resuming, what they refuse."""

import copy
import math

import pytest
import torch

from mambaasr.errors import UserError
from mambaasr.espnet_compat import AbsBatchStepScheduler
from mambaasr.registry import CLASSES, load

NAMES = sorted(CLASSES["scheduler"])


def optimizer(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.AdamW(groups)


def make(name, optim, *options, **more):
    return load(CLASSES["scheduler"][name])(optim, *options, **more)


def rates(optim, scheduler, updates):
    """Return the rate of each group at each of the next updates."""
    found = []
    for _ in range(updates):
        found.append([group["lr"] for group in optim.param_groups])
        optim.step()
        scheduler.step()
    return found


def formula(name, update, warmup, total, ratio):
    if update <= warmup and warmup:
        return update / warmup
    share = (min(update, total) - warmup) / (total - warmup)
    left = 1 - share if name == "warmup_linear" else (1 + math.cos(math.pi * share)) / 2
    return ratio + (1 - ratio) * left


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("warmup, total, ratio", [(5, 20, 0.0), (1, 2, 0.5), (0, 7, 0.1)])
def test_every_group_follows_the_formula(name, warmup, total, ratio):
    optim = optimizer(2.0, 0.5)
    found = rates(optim, make(name, optim, warmup, total, ratio), total + 3)
    for update, (first, second) in enumerate(found, 1):
        assert first == pytest.approx(2.0 * formula(name, update, warmup, total, ratio), abs=1e-12)
        assert second == pytest.approx(first / 4)
    assert found[total - 1][0] == pytest.approx(2.0 * ratio) == pytest.approx(found[-1][0])
    if warmup:
        assert max(found)[0] == found[warmup - 1][0] == 2.0


@pytest.mark.parametrize("name", NAMES)
def test_it_rises_as_espnets_warmuplr(name):
    from espnet2.schedulers.warmup_lr import WarmupLR

    ours, theirs = optimizer(1.0), optimizer(1.0)
    first = rates(ours, make(name, ours, 6, 30), 6)
    second = rates(theirs, WarmupLR(theirs, warmup_steps=6), 6)
    assert torch.allclose(torch.tensor(first), torch.tensor(second))
    assert isinstance(make(name, ours, 6, 30), AbsBatchStepScheduler)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_training_that_stopped_goes_on_the_same_way(name, stop, tmp_path):
    optim = optimizer(1.0, 3.0)
    scheduler = make(name, optim, 5, 12)
    rates(optim, scheduler, stop)
    torch.save([optim.state_dict(), scheduler.state_dict()], tmp_path / "state.pth")
    want = rates(optim, scheduler, 10)

    again = optimizer(1.0, 3.0)
    resumed = make(name, again, 5, 12)
    states = torch.load(tmp_path / "state.pth", weights_only=True)
    again.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    assert rates(again, resumed, 10) == want


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_schedule_holds_from_the_place_where_it_goes_on(name):
    optim = optimizer(1.0)
    scheduler = make(name, optim, 2, 10)
    rates(optim, scheduler, 6)
    state = copy.deepcopy(scheduler.state_dict())
    longer = optimizer(1.0)
    resumed = make(name, longer, 2, 40)
    longer.load_state_dict(optim.state_dict())
    resumed.load_state_dict(state)
    (rate,) = rates(longer, resumed, 1)
    assert rate[0] == pytest.approx(formula(name, 7, 2, 40, 0.0))
    assert rate[0] > 1.5 * formula(name, 7, 2, 10, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_total_steps_may_come_later_but_not_too_late(name):
    optim = optimizer(1.0)
    scheduler = make(name, optim, 0)
    scheduler.set_total_steps(4)
    fixed = optimizer(1.0)
    assert rates(optim, scheduler, 5) == rates(fixed, make(name, fixed, 0, 4), 5)

    optim = optimizer(1.0)
    scheduler = make(name, optim, 3)
    optim.step()
    with pytest.raises(ValueError, match=f"{name}: total_steps is not known; write it"):
        scheduler.step()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options, message",
    [
        (dict(warmup_steps=2.5), "warmup_steps is 2.5"),
        (dict(warmup_steps=5, total_steps=5), r"total_steps is 5; .* above warmup_steps \(5\)"),
    ],
)
def test_what_is_refused(name, options, message):
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        make(name, optimizer(1.0), **options)


class _Factory:
    def __init__(self, batches, num_iters_per_epoch=None):
        self.sampler, self.num_iters_per_epoch = range(batches), num_iters_per_epoch


class _Options:
    accum_grad, max_epoch = 4, 3


def test_the_trainer_counts_the_updates():
    from mambaasr.task.trainer import count_updates

    for factory, total in ((_Factory(11), 6), (_Factory(11, 8), 6), (_Factory(8, 20), 15)):
        scheduler = make("warmup_cosine", optimizer(1.0), 2)
        count_updates([None, scheduler], factory, _Options)
        assert scheduler.total_steps == total
    written = make("warmup_linear", optimizer(1.0), 2, 100)
    count_updates([written], _Factory(11), _Options)
    assert written.total_steps == 100


def test_updates_that_cannot_be_counted_or_are_too_few():
    from mambaasr.task.trainer import count_updates

    with pytest.raises(UserError, match="total_steps is 6; .*11 batches an epoch, accum_grad 4"):
        count_updates([make("warmup_cosine", optimizer(1.0), 6)], _Factory(11), _Options)
    with pytest.raises(UserError, match="cannot be counted .*write it"):
        count_updates([make("warmup_cosine", optimizer(1.0), 6)], object(), _Options)


def test_a_warm_up_that_outlasts_another_schedules_training_is_reported(caplog):
    from types import SimpleNamespace

    from mambaasr.task.trainer import count_updates

    for steps, said in ((6, False), (7, True)):
        count_updates([SimpleNamespace(warmup_steps=steps)], _Factory(11), _Options)
        assert ("make 6 updates" in caplog.text) == said
