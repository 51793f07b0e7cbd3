"""ESPnet's trainer with safe checkpoints and a progress bar."""

import argparse
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mambaasr import provenance
from mambaasr.config.read import sampling_rate
from mambaasr.data.lengths import quantiles, quantiles_of
from mambaasr.data.splits import files_of
from mambaasr.errors import UserError
from mambaasr.espnet_compat import Trainer as EspnetTrainer
from mambaasr.task import checkpoints
from mambaasr.task.sampling import EpochSampler


class Progress:
    """Draw a progress bar while an iterable is read; silent where stderr is no terminal."""

    def __init__(self, iterable: Iterable, title: str, reporter: Any = None) -> None:
        self.iterable = iterable
        self.title = title
        self.reporter = reporter

    def __len__(self) -> int:
        return len(self.iterable)

    def __iter__(self) -> Iterator:
        try:
            total = len(self.iterable)
        except TypeError:
            total = None
        with tqdm(
            total=total, desc=self.title, unit="batch", dynamic_ncols=True, leave=False,
            mininterval=0.5, disable=not sys.stderr.isatty(),
        ) as bar:  # fmt: skip
            for item in self.iterable:
                yield item
                bar.set_postfix(self._latest(), refresh=False)
                bar.update()

    def _latest(self):
        shown = {}
        for name in ("loss", "loss_ctc", "acc"):
            values = self.reporter.stats.get(name) if self.reporter else None
            value = values[-1].value if values else math.nan
            if math.isfinite(value):
                shown[name] = f"{float(value):.3f}"
        return shown


class Trainer(EspnetTrainer):
    """Save whole files only, mend the folder before a resume, and show progress."""

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> Any:
        """Return ESPnet's options of a training, and what is noted of its data."""
        options = super().build_options(args)
        shapes = args.train_shape_file
        options.statistics = Path(shapes[0]).parent.parent if shapes else None
        options.speech_shapes, options.rate = None, sampling_rate(getattr(args, "frontend_conf", 0))
        if shapes:
            options.speech_shapes = files_of(shapes[0])
        return options

    @classmethod
    def run(cls, *, trainer_options: Any, distributed_option: Any, **kwargs: Any) -> None:
        """Train as ESPnet does, from the last whole epoch where that is wanted."""
        options = trainer_options
        count_updates(kwargs["schedulers"], kwargs["train_iter_factory"], options)
        first = not distributed_option.distributed or distributed_option.dist_rank == 0
        with checkpoints.guarded():
            if first:
                epoch = 0
                if options.resume:
                    epoch = checkpoints.mend(options.output_dir, options.best_model_criterion)
                if epoch < options.max_epoch:
                    entry = provenance.record_start(
                        options.output_dir, options.seed, options.ngpu, epoch + 1,
                        options.statistics, _seconds(kwargs["train_iter_factory"], options),
                    )  # fmt: skip
                    tell_start(entry)
                if epoch:
                    said = f"resuming after epoch {epoch} of {options.max_epoch}"
                    logging.info(said)
                    tqdm.write(said, file=sys.stderr)
            if distributed_option.distributed:
                torch.distributed.barrier()
            super().run(trainer_options=options, distributed_option=distributed_option, **kwargs)

    @staticmethod
    def resume(checkpoint: str | Path, **kwargs: Any) -> None:
        """Load a checkpoint into model, optimizers and the rest, as ESPnet does.

        Raises:
            UserError: its weights do not fit the model that the config describes.
        """
        try:
            EspnetTrainer.resume(checkpoint, **kwargs)
        except (RuntimeError, ValueError, KeyError) as error:
            folder = Path(checkpoint).parent
            raise UserError(
                f"{checkpoint} does not fit this config: {brief(error)}; "
                f"give another --output_dir, or remove {folder} to train anew"
            ) from error

    @classmethod
    def train_one_epoch(
        cls, iterator: Iterable, reporter: Any, options: Any, **kwargs: Any
    ) -> bool:
        """Train as ESPnet does, with a progress bar.

        Returns:
            Whether no update was made.

        Raises:
            UserError: no update was made in the first epoch, so the model is untrained.
        """
        # Those of an epoch's last, incomplete accumulation are no part of this epoch's.
        for optimizer in kwargs["optimizers"]:
            optimizer.zero_grad()
        epoch = reporter.get_epoch()
        progress = Progress(iterator, f"epoch {epoch}/{options.max_epoch}", reporter)
        invalid = super().train_one_epoch(
            iterator=progress, reporter=reporter, options=options, **kwargs
        )
        if invalid and epoch == 1:
            raise UserError(
                "the first epoch made no update: either its batches are fewer than accum_grad "
                f"({options.accum_grad}), or loss or gradients were not finite in any; try a "
                "smaller accum_grad or batch_bins, a lower learning rate, a longer warm-up"
            )
        return invalid

    @classmethod
    def validate_one_epoch(
        cls, iterator: Iterable, reporter: Any, options: Any, **kwargs: Any
    ) -> None:
        """Validate as ESPnet does, with a progress bar."""
        title = f"epoch {reporter.get_epoch()}/{options.max_epoch} valid"
        return super().validate_one_epoch(
            iterator=Progress(iterator, title, reporter), reporter=reporter, options=options,
            **kwargs,
        )  # fmt: skip


def _seconds(factory: Any, options: Any) -> dict[str, float] | None:
    """Return how long the training's utterances are, joined ones where they are joined."""
    sampler = getattr(factory, "sampler", None)
    if isinstance(sampler, EpochSampler) and sampler.of_audio:
        return quantiles(sampler.lengths(), options.rate)
    return quantiles_of(options.speech_shapes, options.rate) if options.speech_shapes else None


def tell_start(entry: dict) -> None:
    """Print an entry of :func:`mambaasr.provenance.record_start` in a line."""
    said = f"commit {provenance.commit_of(entry)}; {provenance.versions(entry['environment'])}"
    tqdm.write(f"{said}; {entry['device']}; seed {entry['seed']}", file=sys.stderr)


def count_updates(schedulers: Sequence, factory: Any, options: Any) -> None:
    """Give schedules whose ``total_steps`` is open the number of updates of the training.

    Of others, a warm-up that is longer than the training is reported.

    Args:
        schedulers: the training's; those of other kinds, and None, are left alone.
        factory: ESPnet's of the training's batches.
        options: the trainer's.

    Raises:
        UserError: the batches of an epoch cannot be counted, or are too few for the warm-up.
    """
    for scheduler in schedulers:
        counts = hasattr(scheduler, "set_total_steps") and scheduler.total_steps is None
        warm_up = getattr(scheduler, "warmup_steps", None)
        if not counts and warm_up is None:
            continue
        batches = getattr(factory, "num_iters_per_epoch", None)
        if batches is None:
            try:
                batches = len(factory.sampler)
            except (AttributeError, TypeError):
                if not counts:
                    continue
                raise UserError(
                    f"scheduler_conf: total_steps cannot be counted with this iterator "
                    f"({type(factory).__name__}); write it, or give --num_iters_per_epoch"
                ) from None
        # An epoch's last, incomplete accumulation makes no update.
        total = batches // options.accum_grad * options.max_epoch
        made = (
            f"{batches} batches an epoch, accum_grad {options.accum_grad} and "
            f"max_epoch {options.max_epoch} make {total} updates"
        )
        if not counts:
            if warm_up > total:
                logging.warning(
                    f"scheduler_conf: warmup_steps {warm_up}: the learning rate will not reach "
                    f"its peak: {made}"
                )
            continue
        try:
            scheduler.set_total_steps(total)
        except ValueError as error:
            raise UserError(f"{error}; {made}") from error
        logging.info(f"{total} updates in all: {scheduler}")


def brief(error: BaseException, lines: int = 4) -> str:
    """Return the first lines of an exception's message as one line."""
    found = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(found[:lines]) + (" ..." if len(found) > lines else "")
