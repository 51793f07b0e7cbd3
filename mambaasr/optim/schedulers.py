"""Warm-up, then a decay that ends: by half a cosine or by a straight line.

Both step at every update, as ESPnet's ``warmuplr`` does. With t the number of the update (from
1), W ``warmup_steps``, T ``total_steps``, m ``min_lr_ratio`` and lr the optimiser's own rate,

    lr(t) = lr * t / W                                     up to t = W,
    lr(t) = lr * (m + (1 - m) * shape((t - W) / (T - W)))  up to t = T,
    lr(t) = lr * m                                         beyond,

    shape(p) = (1 + cos(pi p)) / 2   for warmup_cosine,
    shape(p) = 1 - p                 for warmup_linear.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mambaasr.espnet_compat import AbsBatchStepScheduler

# What a training resumes from; all else is the config's, also when that has been changed since.
_PLACE = ("last_epoch", "_step_count", "_last_lr")


class _WarmupDecay(LRScheduler, AbsBatchStepScheduler):
    """Linear warm-up to the optimiser's rate, then a decay to its ``min_lr_ratio``.

    Args:
        optimizer: its groups' rates are the peak.
        warmup_steps: updates of the warm-up; 0 for none.
        total_steps: updates until the decay has ended. None: mambaasr's trainer counts them
            (batches of an epoch over ``accum_grad``, times ``max_epoch``); ESPnet's own cannot.
        min_lr_ratio: the last rate, as a share of the peak.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int | None = None,
        min_lr_ratio: float = 0.0,
    ) -> None:
        self._check("warmup_steps", warmup_steps, _is_count(warmup_steps), "a whole number from 0")
        fits = not isinstance(min_lr_ratio, bool) and isinstance(min_lr_ratio, (int, float))
        fits = fits and 0.0 <= min_lr_ratio <= 1.0
        self._check("min_lr_ratio", min_lr_ratio, fits, "a number from 0 to 1")
        self.warmup_steps, self.min_lr_ratio = warmup_steps, min_lr_ratio
        self.total_steps = None
        if total_steps is not None:
            self._check_total(total_steps)
            self.total_steps = total_steps
        super().__init__(optimizer)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(warmup_steps={self.warmup_steps}, "
            f"total_steps={self.total_steps}, min_lr_ratio={self.min_lr_ratio})"
        )

    def set_total_steps(self, total_steps: int) -> None:
        """Give the number of updates that the config left open.

        Raises:
            ValueError: the warm-up alone takes as many.
        """
        self._check_total(total_steps)
        self.total_steps = total_steps
        self._apply()

    def get_lr(self) -> list[float]:
        """Return each group's rate at the next update."""
        return [lr * self._factor(self.last_epoch + 1) for lr in self.base_lrs]

    def state_dict(self) -> dict[str, object]:
        """Return the place in the schedule, not its shape."""
        return {name: getattr(self, name) for name in _PLACE}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Resume at a place; the shape stays the config's."""
        for name in _PLACE:
            setattr(self, name, state_dict[name])
        if self.total_steps is not None:
            self._apply()

    def _apply(self):
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _factor(self, update):
        if self.total_steps is None and self.last_epoch > 0:
            raise ValueError(
                f"{self._name}: total_steps is not known; write it into scheduler_conf, as only "
                "mambaasr's own training counts the updates"
            )
        if update < self.warmup_steps:
            return update / self.warmup_steps
        if self.total_steps is None:  # while it is made, nobody can have said it yet
            return 1.0
        progress = (update - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        shape = self._shape(min(1.0, max(0.0, progress)))
        return self.min_lr_ratio + (1.0 - self.min_lr_ratio) * shape

    def _check_total(self, total_steps):
        fits = _is_count(total_steps) and total_steps > self.warmup_steps
        allowed = f"a whole number above warmup_steps ({self.warmup_steps})"
        self._check("total_steps", total_steps, fits, allowed)

    def _check(self, option, value, fits, allowed):
        if not fits:
            raise ValueError(f"{self._name}: {option} is {value!r}; it must be {allowed}")


class WarmupCosine(_WarmupDecay):
    """Linear warm-up, then half a cosine (Loshchilov and Hutter, arXiv 1608.03983, eq. 5).

    Without their restarts; see the module for the formula, and the base class for options.
    """

    _name = "warmup_cosine"

    def _shape(self, progress):
        return 0.5 * (1.0 + math.cos(math.pi * progress))


class WarmupLinear(_WarmupDecay):
    """Linear warm-up, then a straight line down, as Samba-ASR's "linear decay" (arXiv 2501.02832).

    See the module for the formula, and the base class for options.
    """

    _name = "warmup_linear"

    def _shape(self, progress):
        return 1.0 - progress


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
