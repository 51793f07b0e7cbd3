"""The optimiser blocks: checked, built by ESPnet's own code, and of the published rates."""

from pathlib import Path

import pytest
import torch

from mambaasr.config import check_training, merge, read

EGS = Path(__file__).resolve().parents[2] / "egs"
BLOCKS = sorted((EGS / "TEMPLATE/asr1/conf/optim").glob("*.yaml"))

# block: optimiser, peak, at which update, weight decay, betas, eps; as the papers' files have them.
PUBLISHED = {
    "speech_mamba": ("Adam", 1e-3, 25000, 0.0, (0.9, 0.98), 1e-9),
    "slytherin_s": ("Adam", 1e-3, 25000, 0.0, (0.9, 0.98), 1e-9),
    "slytherin_l": ("AdamW", 8e-4, 30000 // 8, 0.01, (0.9, 0.98), 1e-9),
    "slytherin_ctc": ("AdamW", 1e-3, 7500, 5e-4, (0.9, 0.98), 1e-9),
    "mamba_in_speech": ("Adam", 2.5e-3, 40000, 1e-6, (0.9, 0.999), 1e-8),
    "madeon": ("AdamW", 6e-3, 5000, 0.01, (0.9, 0.999), 1e-8),
    "uma_aishell": ("AdamW", 1e-3, 25000, 0.01, (0.9, 0.999), 1e-8),
    "samba": ("AdamW", 1e-4, None, 0.01, (0.9, 0.999), 1e-8),
}


def build(block, model):
    """Return the optimiser and the schedule that ESPnet builds of a block."""
    from mambaasr.espnet_compat import choices
    from mambaasr.task.asr import ASRTask

    args = ASRTask.get_parser().parse_args(["--config", str(block)])
    (optim,) = ASRTask.build_optimizers(args, model)
    return optim, choices("scheduler")[args.scheduler](optim, **args.scheduler_conf)


def rate_at(optim, scheduler, update):
    scheduler.last_epoch = update - 1
    return scheduler.get_lr()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning")
def test_a_block_is_known_and_builds_what_it_says(block):
    base = EGS / "an4/asr1/conf/train_asr.yaml"
    check_training(merge(read(base), [read(block)]))

    optim, scheduler = build(block, torch.nn.Linear(2, 2))
    weight, bias = optim.param_groups
    assert bias["weight_decay"] == 0.0
    counted = hasattr(scheduler, "set_total_steps")
    if counted:
        scheduler.set_total_steps(100000)
    if block.stem not in PUBLISHED:
        return
    name, peak, where, decay, betas, eps = PUBLISHED[block.stem]
    assert type(optim).__name__ == name
    assert (weight["weight_decay"], tuple(weight["betas"]), weight["eps"]) == (decay, betas, eps)
    where = where or scheduler.warmup_steps
    later = 1 - where / (100000 - where) if counted else 2**-0.5
    for update, share in ((where / 2, 0.5), (where, 1.0), (2 * where, later)):
        assert rate_at(optim, scheduler, update) == pytest.approx([peak * share] * 2)


def test_every_published_block_is_there():
    assert set(PUBLISHED) <= {block.stem for block in BLOCKS}
