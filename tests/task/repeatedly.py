"""Train again and again in children of one process, which imports ESPnet only once.

Run in a workspace: ``python repeatedly.py KILLS EPOCHS -- ARGUMENTS``. Each child trains from
nothing and is killed (SIGKILL) at its n-th file operation, or at a random moment; a second child
resumes it. One json line a kill says what then lies in the folder.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from mambaasr.task import checkpoints
from mambaasr.task.asr import ASRTask

OPERATIONS = ("replace", "fsync", "link", "unlink", "symlink")


def train(arguments, kill_at=None):
    """Train in a child; return True unless it was killed."""
    child = os.fork()
    if child == 0:
        sys.stderr = open(os.devnull, "w")
        if kill_at is not None:
            count_down(kill_at)
        code = 1
        try:
            ASRTask.main(cmd=arguments)
            code = 0
        except BaseException as error:
            print(f"FAILED {error!r}", flush=True)
        os._exit(code)
    return child


def count_down(left):
    """Kill this process before its ``left``-th operation on a file."""

    def counted(operation):
        def run(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        return run

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))


def look(folder, epochs):
    state = torch.load(folder / "checkpoint.pth", weights_only=True)
    models = [torch.load(folder / f"{n}epoch.pth", weights_only=True) for n in epochs]
    return {
        "epoch": state["reporter"]["epoch"],
        "sum": sum(float(tensor.double().abs().sum()) for tensor in models[-1].values()),
        "average": sum(
            float(tensor.double().abs().sum())
            for tensor in torch.load(folder / "valid.loss.ave.pth", weights_only=True).values()
        ),
        "links": sorted(p.name for p in folder.glob("*.pth") if p.is_symlink() and p.exists()),
        "dangling": [p.name for p in folder.glob("*.pth") if p.is_symlink() and not p.exists()],
        "leftovers": [p.name for p in folder.glob(".*")],
    }


def main():
    kills, last = json.loads(sys.argv[1]), int(sys.argv[2])
    arguments = sys.argv[4:]
    folder = Path(arguments[arguments.index("--output_dir") + 1])
    assert checkpoints.CHECKPOINT == "checkpoint.pth"
    random.seed(7)
    for kill in kills:
        shutil.rmtree(folder, ignore_errors=True)
        child = train(arguments, kill if isinstance(kill, int) and kill >= 0 else None)
        if isinstance(kill, float):
            time.sleep(random.uniform(0.2, 2.0) * kill)
            os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if killed:
            resumed = train(arguments)
            assert os.waitpid(resumed, 0)[1] == 0, f"the resume after kill {kill} failed"
        print(json.dumps({"kill": kill, "killed": killed, **look(folder, range(1, last + 1))}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
