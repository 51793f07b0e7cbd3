"""Checkpoints that survive a kill: written whole, read as plain values, mended at a resume."""

import contextlib
import logging
import os
import pickle
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from mambaasr import espnet_compat
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

CHECKPOINT = "checkpoint.pth"
PREVIOUS = "checkpoint.prev.pth"


def save(value: Any, path: str | Path) -> None:
    """Save like ``torch.save``, but whole or not at all; the checkpoint before is kept.

    Args:
        value: what to save.
        path: a file. ``checkpoint.pth`` first becomes ``checkpoint.prev.pth``.

    Raises:
        UserError: the disk is full or the folder cannot be written; the old files are untouched.
    """
    path = Path(path)
    advice = "earlier checkpoints are whole: make room, then run the same command to resume"
    try:
        with atomic_write(path, "wb") as stream:
            torch.save(value, stream)
            stream.flush()
            if path.name == CHECKPOINT and path.exists():
                _replace_by_link(path, path.with_name(PREVIOUS))
    except UserError as error:
        raise UserError(f"{error}; {advice}") from error
    except RuntimeError as error:
        # torch's zip writer turns a failing write into an error of its own.
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise
        raise UserError(f"{path}: cannot be written (is the disk full?); {advice}") from error


def load(path: str | Path, map_location: str | torch.device = "cpu") -> Any:
    """Load a checkpoint as plain values; no code in it is run.

    Args:
        path: the file.
        map_location: as in ``torch.load``.

    Raises:
        OSError, RuntimeError, EOFError: the file is missing or torn.
        UserError: it is whole but holds more than plain values and tensors.
    """
    if not zipfile.is_zipfile(path):
        raise EOFError(f"{path} is missing or its end is")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a plain checkpoint, so it is not opened: {reason}") from error


def guarded() -> contextlib.AbstractContextManager[None]:
    """Let ESPnet's trainer save with :func:`save` and average as below inside the block."""
    return espnet_compat.averaging_and_saving_by(
        average_nbest_models, lambda value, path: save(value, path)
    )


def mend(folder: str | Path, criteria: Iterable[Sequence[str]]) -> int:
    """Make an experiment folder fit to resume from, whatever moment the last run was killed at.

    A torn or missing ``checkpoint.pth`` is replaced by the one before; the model file of the
    checkpoint's epoch and the links to the latest and best models are restored.

    Args:
        folder: the experiment's folder.
        criteria: ESPnet's ``best_model_criterion``, triples of phase, value and min or max.

    Returns:
        the last finished epoch, 0 where training starts from the beginning.

    Raises:
        UserError: a whole ``checkpoint.pth`` holds something else, such as a model's weights.
    """
    folder = Path(folder)
    for leftover in folder.glob(".*.pth.*"):
        leftover.unlink()
    state = None
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = load(path)
            _check_state(path, state)
            break
        except (OSError, RuntimeError, EOFError) as error:
            logging.warning(f"{path} is torn and not used: {str(error).splitlines()[0]}")
            os.replace(path, path.with_name(f"{name}.torn"))
    if state is None:
        if any(folder.glob("*epoch.pth")):
            logging.warning(f"{folder} has no whole checkpoint: training starts at epoch 1")
        return 0
    if name == PREVIOUS:
        epoch = state["reporter"]["epoch"]
        logging.warning(f"resuming from {path}, written after epoch {epoch}")
        _replace_by_link(path, folder / CHECKPOINT)
    return _mend_models(folder, state, criteria)


def _check_state(path, state):
    """Refuse what another program put under a checkpoint's name; it may be someone's only copy."""
    reporter = state.get("reporter") if isinstance(state, dict) else None
    good = (
        isinstance(reporter, dict)
        and isinstance(reporter.get("epoch"), int)
        and isinstance(reporter.get("stats"), dict)
        and isinstance(state.get("model"), dict)
        and isinstance(state.get("optimizers"), list)
        and isinstance(state.get("schedulers"), list)
        and "scaler" in state
    )
    if not good:
        raise UserError(
            f"{path}: not a trainer's checkpoint; move it away to train without it, or give "
            f"another --output_dir (weights to start from belong to --init_param)"
        )


def _mend_models(folder, state, criteria):
    reporter = espnet_compat.Reporter()
    reporter.load_state_dict(state["reporter"])
    epoch = reporter.get_epoch()
    if epoch == 0:
        return 0
    model = folder / f"{epoch}epoch.pth"
    if not zipfile.is_zipfile(model):
        logging.warning(f"{model} is missing or torn: restored from {CHECKPOINT}")
        save(state["model"], model)
    _link(folder / "latest.pth", model.name)
    for phase, value, mode in criteria:
        if reporter.has(phase, value):
            best = folder / f"{reporter.get_best_epoch(phase, value, mode)}epoch.pth"
            if best.exists():
                _link(folder / f"{phase}.{value}.best.pth", best.name)
    return epoch


@torch.no_grad()
def average_nbest_models(
    output_dir: str | Path,
    reporter: Any,
    best_model_criterion: Iterable[Sequence[str]],
    nbest: int | Iterable[int],
    suffix: str | None = None,
    use_deepspeed: bool = False,
) -> None:
    """Average the best models as ESPnet does, under its file names.

    An epoch whose file is missing or torn is left out with a warning, where ESPnet's own ends the
    training: when more models are to be averaged than an earlier run kept, some are gone.

    Args:
        output_dir: the experiment's folder.
        reporter: knows each epoch's values.
        best_model_criterion: triples of phase, value and min or max.
        nbest: how many models to average; an int or several.
        suffix: put before ``.pth`` in the file names.
        use_deepspeed: refused; ESPnet's own trainer for it does its own averaging.
    """
    if use_deepspeed:
        raise UserError("checkpoints of DeepSpeed are not averaged here")
    output_dir = Path(output_dir)
    ending = f"{suffix}.pth" if suffix else "pth"
    counts = sorted({nbest} if isinstance(nbest, int) else set(nbest)) or [1]
    for phase, value, mode in best_model_criterion:
        if not reporter.has(phase, value):
            continue
        epochs = reporter.sort_epochs(phase, value, mode)[: max(counts)]
        name = f"{phase}.{value}.ave"
        fitting = [count for count in counts if 0 < count <= len(epochs)] or [1]
        for count in fitting:
            target = output_dir / f"{name}_{count}best.{ending}"
            if count == 1:
                _link(target, f"{epochs[0]}epoch.pth")
                continue
            logging.info(f'Averaging {count}best models: criterion="{phase}.{value}": {target}')
            mean = _average([output_dir / f"{epoch}epoch.pth" for epoch in epochs[:count]])
            if mean is not None:
                save(mean, target)
        _link(output_dir / f"{name}.{ending}", f"{name}_{max(fitting)}best.{ending}")


def _average(paths):
    """Average state dicts; whole numbers (BatchNorm's count) are the first model's."""
    total, count = None, 0
    for path in paths:
        try:
            states = load(path)
        except (OSError, RuntimeError, EOFError) as error:
            logging.warning(f"{path} is left out of an average: {str(error).splitlines()[0]}")
            continue
        count += 1
        if total is None:
            total = states
            continue
        for key, tensor in total.items():
            if tensor.is_floating_point() or tensor.is_complex():
                # Not in place: tied weights share their memory and would be added twice.
                total[key] = tensor + states[key]
    for key, tensor in (total or {}).items():
        if tensor.is_floating_point() or tensor.is_complex():
            total[key] = tensor / count
    return total


def _link(path, target):
    """Point a symbolic link at a file beside it; the link is never absent on the way."""
    temporary = path.with_name(f".{path.name}.link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, path)


def _replace_by_link(source, target):
    """Give a file a second name without copying it; where links are impossible, rename it."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        temporary = source
    os.replace(temporary, target)
    if temporary != source:  # renaming one name of a file over another of its names does nothing
        temporary.unlink(missing_ok=True)
