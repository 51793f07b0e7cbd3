"""Checkpoints are whole or absent, hold plain values, and are mended at a resume."""

import datetime
import os
import random
import signal
import subprocess
import sys
import time
from collections import OrderedDict

import numpy
import pytest
import torch
from espnet2.train.reporter import Reporter

from mambaasr.errors import UserError
from mambaasr.task import checkpoints

CRITERIA = [("valid", "loss", "min"), ("valid", "acc", "max")]


def reporter_of(losses):
    """A reporter after some epochs, with the numpy values and times that ESPnet puts there."""
    reporter = Reporter()
    for epoch, loss in enumerate(losses, 1):
        reporter.set_epoch(epoch)
        values = {"loss": numpy.float64(loss), "time": datetime.timedelta(seconds=1)}
        reporter.stats[epoch] = {"valid": values}
    return reporter


def weights(value):
    return OrderedDict(w=torch.full((3,), float(value)), n=torch.tensor(int(value)))


def state_of(losses):
    return {
        "model": weights(len(losses)),
        "reporter": reporter_of(losses).state_dict(),
        "optimizers": [{}],
        "schedulers": [None],
        "scaler": None,
    }


def experiment(folder, losses):
    for epoch in range(1, len(losses) + 1):
        checkpoints.save(state_of(losses[:epoch]), folder / "checkpoint.pth")
        checkpoints.save(weights(epoch), folder / f"{epoch}epoch.pth")
    return folder


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_what_espnets_reporter_holds_comes_back(tmp_path):
    path = tmp_path / "checkpoint.pth"
    checkpoints.save(state_of([3.0, 2.0]), path)
    reporter = Reporter()
    reporter.load_state_dict(checkpoints.load(path)["reporter"])
    assert reporter.stats[2]["valid"] == {"loss": 2.0, "time": datetime.timedelta(seconds=1)}


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    path = tmp_path / "checkpoint.pth"
    torch.save({"model": Evil()}, path)
    with pytest.raises(UserError, match="checkpoint.pth: not a plain checkpoint"):
        checkpoints.load(path)
    assert not (tmp_path / "harm").exists()


def test_previous_checkpoint_is_kept(tmp_path):
    experiment(tmp_path, [3.0, 2.0])
    assert checkpoints.load(tmp_path / checkpoints.PREVIOUS)["reporter"]["epoch"] == 1
    assert checkpoints.load(tmp_path / checkpoints.CHECKPOINT)["reporter"]["epoch"] == 2


@pytest.mark.parametrize("damage", ["torn", "missing", "empty", "zeros"])
def test_damaged_checkpoint_falls_back(tmp_path, caplog, damage):
    path = experiment(tmp_path, [3.0, 2.0]) / "checkpoint.pth"
    if damage == "torn":
        tear(path)
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else bytes(path.stat().st_size))
    assert checkpoints.mend(tmp_path, CRITERIA) == 1
    assert checkpoints.load(path)["reporter"]["epoch"] == 1
    assert "checkpoint.prev.pth, written after epoch 1" in caplog.text
    # The next save goes on as ever, although both names meant one file.
    checkpoints.save(state_of([3.0, 2.5]), path)
    assert checkpoints.load(path)["reporter"]["epoch"] == 2
    assert checkpoints.load(tmp_path / checkpoints.PREVIOUS)["reporter"]["epoch"] == 1
    assert not list(tmp_path.glob(".*"))


def test_no_whole_checkpoint_starts_anew(tmp_path, caplog):
    experiment(tmp_path, [3.0, 2.0])
    tear(tmp_path / "checkpoint.pth")
    tear(tmp_path / "checkpoint.prev.pth")
    assert checkpoints.mend(tmp_path, CRITERIA) == 0
    assert not (tmp_path / "checkpoint.pth").exists()
    assert "training starts at epoch 1" in caplog.text


@pytest.mark.parametrize("name", [checkpoints.CHECKPOINT, checkpoints.PREVIOUS])
@pytest.mark.parametrize(
    "content",
    [
        {"a": torch.zeros(1)},
        weights(1),
        [torch.zeros(1)],
        torch.zeros(1),
        {**state_of([1.0]), "reporter": {"epoch": torch.zeros(1), "stats": {}}},
        {**state_of([1.0]), "model": None},
        {key: value for key, value in state_of([1.0]).items() if key != "optimizers"},
    ],
)
def test_something_else_under_the_name(tmp_path, name, content):
    torch.save(content, tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(UserError, match=f"{name}: not a trainer's checkpoint; move it away"):
        checkpoints.mend(tmp_path, CRITERIA)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_lost_epoch_is_restored(tmp_path, damage):
    experiment(tmp_path, [3.0, 2.0])
    model = tmp_path / "2epoch.pth"
    model.unlink() if damage == "missing" else tear(model)
    (tmp_path / ".2epoch.pth.abc").write_bytes(b"half")
    assert checkpoints.mend(tmp_path, CRITERIA) == 2
    assert torch.load(model, weights_only=True)["w"].tolist() == [2.0] * 3
    assert os.readlink(tmp_path / "latest.pth") == "2epoch.pth"
    assert os.readlink(tmp_path / "valid.loss.best.pth") == "2epoch.pth"
    assert not list(tmp_path.glob(".*"))


def test_empty_folder_needs_no_mending(tmp_path):
    assert checkpoints.mend(tmp_path, CRITERIA) == 0
    assert not list(tmp_path.iterdir())


def test_averages(tmp_path):
    experiment(tmp_path, [4.0, 3.0, 2.0, 1.0])
    reporter = reporter_of([4.0, 3.0, 2.0, 1.0])
    for epoch, stats in reporter.stats.items():
        stats["valid"]["acc"] = -epoch  # the best by accuracy is the worst by loss
    checkpoints.average_nbest_models(tmp_path, reporter, CRITERIA, [1, 2, 3], suffix=None)
    mean = {
        name: torch.load(tmp_path / f"valid.{name}.pth", weights_only=True)["w"].tolist()
        for name in ("loss.ave", "loss.ave_2best", "loss.ave_1best", "acc.ave_3best", "acc.ave")
    }
    assert mean == {
        "loss.ave": [3.0] * 3,
        "loss.ave_2best": [3.5] * 3,
        "loss.ave_1best": [4.0] * 3,
        "acc.ave_3best": [2.0] * 3,
        "acc.ave": [2.0] * 3,
    }


def test_average_agrees_with_espnets_for_one_criterion(tmp_path):
    from espnet2.main_funcs.average_nbest_models import average_nbest_models

    experiment(tmp_path, [4.0, 3.0, 2.0])
    reporter = reporter_of([4.0, 3.0, 2.0])
    names = []
    for average in (average_nbest_models, checkpoints.average_nbest_models):
        average(
            output_dir=tmp_path, reporter=reporter, best_model_criterion=CRITERIA, nbest=[2],
            suffix="till3epoch",
        )  # fmt: skip
        path = tmp_path / "valid.loss.ave.till3epoch.pth"
        names.append(os.readlink(path))
        assert torch.load(path, weights_only=True)["w"].tolist() == [2.5] * 3
    assert names[0] == names[1]


def test_average_of_tied_weights(tmp_path):
    for epoch in (1, 2):
        tensor = torch.full((2,), float(epoch))
        checkpoints.save(OrderedDict(a=tensor, b=tensor), tmp_path / f"{epoch}epoch.pth")
    checkpoints.average_nbest_models(tmp_path, reporter_of([2.0, 1.0]), CRITERIA, 2)
    mean = torch.load(tmp_path / "valid.loss.ave.pth", weights_only=True)
    assert mean["a"].tolist() == mean["b"].tolist() == [1.5, 1.5]


def test_average_leaves_out_what_is_lost(tmp_path, caplog):
    experiment(tmp_path, [3.0, 2.0, 1.0])
    tear(tmp_path / "2epoch.pth")
    checkpoints.average_nbest_models(tmp_path, reporter_of([3.0, 2.0, 1.0]), CRITERIA, 3)
    mean = torch.load(tmp_path / "valid.loss.ave.pth", weights_only=True)
    assert mean["w"].tolist() == [2.0] * 3
    assert "2epoch.pth is left out" in caplog.text


FULL = """
import resource, sys
from pathlib import Path
import torch
from mambaasr.errors import UserError
from mambaasr.task import checkpoints

path = Path(sys.argv[1], "checkpoint.pth")
checkpoints.save({"epoch": 1}, path)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for room in (0, 1000, 100000, 399000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        checkpoints.save({"epoch": 2, "w": torch.zeros(100000)}, path)
        sys.exit(f"{room} bytes were enough")
    except UserError as error:
        text = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "checkpoint.pth: cannot be written" in text and "make room" in text, text
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [name.name for name in path.parent.iterdir() if name.name[0] == "."] == []
"""


def test_no_room_on_the_disk(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_espnets_modules_get_their_torch_back():
    import espnet2.train.trainer as module

    average = module.average_nbest_models
    with pytest.raises(ZeroDivisionError), checkpoints.guarded():
        assert module.torch.save is not torch.save
        assert module.torch.nn is torch.nn
        raise ZeroDivisionError
    assert module.torch is torch and module.average_nbest_models is average


def look(folder):
    """Return what a training left in its folder."""
    names = ("1epoch.pth", "2epoch.pth", "valid.loss.ave.pth")
    models = [torch.load(folder / name, weights_only=True) for name in names]
    return {
        "epoch": checkpoints.load(folder / "checkpoint.pth")["reporter"]["epoch"],
        "sums": [sum(float(x.double().abs().sum()) for x in model.values()) for model in models],
        "links": {path.name: path.exists() for path in folder.glob("*.pth") if path.is_symlink()},
        "leftovers": list(folder.glob(".*")),
    }


def test_every_kill_can_be_resumed(workspace):
    """SIGKILL before each of many file operations, and at random: the end is always the same."""

    def train(output, **how):
        options = ("--resume", "true", "--keep_nbest_models", "2")
        return workspace.start(workspace.arguments(output, *options), **how)

    code, printed = train("whole").wait()
    assert code == 0, printed
    want = look(workspace.folder / "whole")
    assert want["epoch"] == 2 and all(want["links"].values()) and want["leftovers"] == []
    killed = 0
    for kill in (2, 7, 12, 17, 22, None):
        output = f"killed at {kill}"
        process = train(output, kill_at=kill)
        if kill is None:
            time.sleep(random.Random(7).uniform(0.1, 1.0))
            process.send_signal(signal.SIGKILL)
        killed += process.wait()[0] == -signal.SIGKILL
        code, printed = train(output).wait()
        assert code == 0, printed
        assert look(workspace.folder / output) == want, output
    assert killed > 3
