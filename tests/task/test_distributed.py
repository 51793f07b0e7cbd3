"""Two processes with gloo on the CPU, as torchrun starts them: one model, one set of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mambaasr import provenance

ROOT = Path(__file__).resolve().parents[2]
# Trains like the command, then writes down what each rank ended with.
RANK = """
import os, sys, torch
from mambaasr.task.asr import ASRTask

made, init = [], torch.nn.parallel.DistributedDataParallel.__init__

def remember(self, *args, **kwargs):
    init(self, *args, **kwargs)
    made.append(self)

torch.nn.parallel.DistributedDataParallel.__init__ = remember
ASRTask.main(cmd=sys.argv[1:])
(model,) = made
torch.save(model.module.state_dict(), f"rank{os.environ['RANK']}.pth")
"""


@pytest.mark.slow
def test_two_ranks_train_one_model(workspace):
    (workspace.folder / "rank.py").write_text(RANK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc_per_node", "2", "rank.py"]
    arguments = workspace.arguments("two", "--max_epoch", "1", "--batch_size", "4")
    arguments += ["--dist_backend", "gloo"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launcher, *arguments], cwd=workspace.folder, env=environment, capture_output=True,
        text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = workspace.folder / "two"
    states = [torch.load(workspace.folder / f"rank{n}.pth", weights_only=True) for n in (0, 1)]
    written = torch.load(folder / "1epoch.pth", weights_only=True)
    assert all(state.keys() == written.keys() for state in states)
    for name, value in written.items():
        assert torch.equal(states[0][name], value) and torch.equal(states[1][name], value), name
    (start,) = provenance.starts(folder)
    assert start["epoch"] == 1
    # One process resumes it.
    code, printed = workspace.run(
        workspace.arguments("two", "--resume", "true", "--max_epoch", "2")
    )
    assert code == 0 and "resuming after epoch 1 of 2" in printed, printed
