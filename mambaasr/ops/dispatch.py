"""Backend selection: by name, or the best that can run, which the log names once."""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

BACKENDS = ("auto", "cpu", "triton", "cuda", "torch", "naive")
# What `auto` tries, best first, for tensors on each kind of device.
PREFERENCE = {"cpu": ("cpu", "naive"), "cuda": ("cuda", "triton", "torch", "naive")}


def _log_selection(op, backend, device, reasons):
    if not torch.compiler.is_compiling():  # a compiler cannot trace a log
        _log_once(op, backend, device, reasons)


@functools.cache
def _log_once(op, backend, device, reasons):
    logger = logging.getLogger("mambaasr.ops")
    logger.info("%s runs on %s by backend '%s'", op, device, backend)
    if reasons and backend == "naive":
        logger.warning("%s: no fast backend: %s", op, "; ".join(reasons))


def _reason(implementation, tensor, call):
    """Why ``implementation`` cannot do this call, or None."""
    reason = implementation.unavailable(tensor)
    if reason is None and call and hasattr(implementation, "refuses"):
        reason = implementation.refuses(**call)
    return reason


def choose(
    op: str,
    tensor: Tensor,
    implementations: Mapping[str, Any],
    backend: str | None = None,
    **call: Any,
) -> Any:
    """Return the implementation of ``op`` that ``backend`` names.

    Args:
        op: the op's name, for messages.
        tensor: any input of the call; its device and dtype decide for ``auto``.
        implementations: name -> module with ``unavailable(tensor)``, which returns None where
            it can run, or a sentence that says why not and how to get it. A module that runs
            but does not know every option also has ``refuses(**call)``, which returns None or
            a sentence that names the option and a backend that knows it.
        backend: one of :data:`BACKENDS`; None takes ``MAMBAASR_BACKEND``, then ``auto``.
        call: the op's arguments by name, for ``refuses``.

    Raises:
        ValueError: the name is unknown.
        RuntimeError: the named backend cannot run; there is no silent fallback from a name.
    """
    name = backend or os.environ.get("MAMBAASR_BACKEND") or "auto"
    if name not in BACKENDS:
        raise ValueError(f"{op}: backend is '{name}'; choose one of {', '.join(BACKENDS)}")
    device = tensor.device.type
    if name != "auto":
        if name not in implementations:
            raise RuntimeError(
                f"{op}: it has no backend '{name}'; choose auto or {', '.join(implementations)}"
            )
        reason = _reason(implementations[name], tensor, call)
        if reason is not None:
            raise RuntimeError(f"{op}: backend '{name}' cannot run: {reason}")
        _log_selection(op, name, device, ())
        return implementations[name]
    reasons: list[str] = []
    for name in PREFERENCE.get(device, ("naive",)):
        if name not in implementations:
            continue
        reason = _reason(implementations[name], tensor, call)
        if reason is None:
            _log_selection(op, name, device, tuple(reasons))
            return implementations[name]
        reasons.append(f"'{name}': {reason}")
    raise RuntimeError(f"{op}: no backend for {device}: {'; '.join(reasons)}")


def check_shape(op: str, name: str, tensor: Tensor, shape: Sequence[int | None]) -> None:
    """Raise a ValueError naming the argument unless ``tensor`` has ``shape`` (None: any)."""
    actual = tuple(tensor.shape)
    if len(actual) != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, actual, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{op}: {name} has shape {actual}, expected ({wanted})")


def check_tensor(
    op: str,
    name: str,
    tensor: Tensor | None,
    shape: Sequence[int | None],
    device: torch.device,
    optional: bool = False,
) -> None:
    """Raise a ValueError naming the argument unless it is real and has this shape and device.

    An ``optional`` argument may be None.
    """
    if tensor is None and optional:
        return
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{op}: {name} is {type(tensor).__name__}, expected a tensor")
    check_shape(op, name, tensor, shape)
    if tensor.is_complex():
        raise ValueError(f"{op}: {name} is complex; only real tensors are supported")
    if not tensor.is_floating_point():
        raise ValueError(f"{op}: {name} has dtype {tensor.dtype}, expected a floating-point type")
    if tensor.device != device:
        raise ValueError(f"{op}: {name} is on {tensor.device}, expected {device}")


def check_lengths(
    op: str, lengths: Tensor | None, batch: int, time: int, device: torch.device
) -> Tensor | None:
    """Return ``lengths`` as contiguous int64 on ``device``, checked to be (batch,) within 0..time.

    On a GPU, where reading values back would stall every call, the values are clamped instead;
    under a compiler, which cannot trace the check, nothing is.

    Raises:
        ValueError: the shape, the type or a value does not fit.
    """
    if lengths is None:
        return None
    if not isinstance(lengths, torch.Tensor):
        raise ValueError(f"{op}: lengths is {type(lengths).__name__}, expected a tensor")
    check_shape(op, "lengths", lengths, (batch,))
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise ValueError(f"{op}: lengths has dtype {lengths.dtype}, expected integers")
    # torch has no minimum of unsigned integers.
    lengths = lengths.to(torch.int64)
    if lengths.device.type == "cuda":
        lengths = lengths.clamp(0, time)
    elif lengths.device.type == "cpu" and batch > 0 and not torch.compiler.is_compiling():
        values = lengths.tolist()
        low, high = min(values), max(values)
        if low < 0 or high > time:
            raise ValueError(f"{op}: lengths reaches from {low} to {high}, expected 0 to {time}")
    return lengths.to(device=device).contiguous()
