"""What our tasks add to ESPnet's optimisers: no decay of some weights, a clip, early errors."""

import argparse
from collections.abc import Sequence

import torch

from mambaasr.espnet_compat import choices, float_or_none


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add our options to a task's parser, and exclude weights from the decay by default.

    A and D of a state-space model, norms, biases and embeddings take no weight decay
    (``exclude_weight_decay``, ESPnet's own option).
    """
    parser.set_defaults(exclude_weight_decay=True)
    parser.add_argument(
        "--grad_clip_value",
        type=float_or_none,
        default=None,
        help="clip each element of the gradients to [-value, value], after ESPnet's grad_clip "
        "(by the norm of all) and before every update",
    )


def prepare(args: argparse.Namespace, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Try the schedule that will be built, and clip gradients by value where that is wanted.

    ESPnet builds the schedule itself, later; here what its class refuses can still be named.

    Args:
        args: the task's options.
        optimizers: what ESPnet built of them.

    Raises:
        ValueError: an option is out of range.
    """
    limit = args.grad_clip_value
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
            raise ValueError(f"grad_clip_value is {limit!r}; it must be a number above 0, or null")
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(lambda each, *_: _clip(each, limit))
    if args.scheduler is not None:
        trial = type(optimizers[0])([torch.nn.Parameter(torch.zeros(1))], **args.optim_conf)
        choices("scheduler")[args.scheduler](trial, **args.scheduler_conf)


def _clip(optimizer, limit):
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    torch.nn.utils.clip_grad_value_(parameters, limit)
