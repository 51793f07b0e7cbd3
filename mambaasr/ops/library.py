"""Registers kernels as ops of ``torch.library``, so that torch.compile and export keep them whole.

Every scan and convolution has the same form, which :func:`register` knows: tensors, of which the
last one is the lengths, and options in; the output, the last state and what the backward pass needs
out; gradients for all tensors but the lengths.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("mambaasr", "FRAGMENT")


def register(
    name: str,
    tensors: str,
    options: str,
    forward: Callable[..., Any],
    backward: Callable[..., list[Tensor]],
    fake_forward: Callable[..., Any],
    fake_backward: Callable[..., list[Tensor]],
    saved: int = 0,
    devices: Sequence[str] = ("CPU",),
) -> Callable[..., tuple[Tensor, ...]]:
    """Register ``torch.ops.mambaasr.<name>`` with its gradient and the shapes of both.

    Args:
        name: of the op; its backward pass is ``<name>_backward``.
        tensors: schema of the tensors, such as ``"Tensor x, Tensor? lengths"``; the last one has
            no gradient.
        options: schema of what follows them.
        forward: ``(*tensors, *options) -> out, last state``; where ``saved`` is not 0, of
            ``(*tensors, *options, save)``, and it returns so many further tensors, for the
            backward pass.
        backward: ``(dout, dlast or None, *saved, *tensors, *options)`` -> a gradient for each
            tensor but the last; those of absent tensors may be anything.
        fake_forward, fake_backward: the same for tensors without values: shapes, strides, dtypes.
        saved: how many tensors ``forward`` returns for ``backward``.
        devices: dispatch keys that the op serves.

    Returns:
        ``(*tensors, *options) -> out, last state, ...``: the op, or ``forward`` itself where
        :func:`direct` says that nobody would miss the op.
    """
    inputs = f"{tensors}, {options}"
    outs = ", ".join(["Tensor"] * (2 + saved))
    kept = "".join(f"Tensor saved{i}, " for i in range(saved))
    save = ", bool save" if saved else ""
    _library.define(f"{name}({inputs}{save}) -> ({outs})")
    _library.define(f"{name}_backward(Tensor dout, Tensor? dlast, {kept}{inputs}) -> Tensor[]")
    count = tensors.count("Tensor")

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        given = inputs[:-1] if saved else inputs
        ctx.save_for_backward(*output[2:], *given[:count])
        ctx.options = given[count:]
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    def differentiate(
        ctx: Any, dout: Tensor | None, dlast: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if dout is None:
            dout = torch.zeros_like(ctx.saved_tensors[saved])  # the output is as the first input
        run = getattr(torch.ops.mambaasr, f"{name}_backward")
        grads = run(dout, dlast, *ctx.saved_tensors, *ctx.options)
        needed = ctx.needs_input_grad
        wanted = (g if need else None for g, need in zip(grads, needed, strict=False))
        return (*wanted, *[None] * (len(needed) - len(grads)))

    for device in devices:
        _library.impl(name, forward, device)
        _library.impl(f"{name}_backward", backward, device)
    full = f"mambaasr::{name}"
    torch.library.register_fake(full, fake_forward, lib=_library)
    torch.library.register_fake(f"{full}_backward", fake_backward, lib=_library)
    torch.library.register_autograd(full, differentiate, setup_context=setup_context, lib=_library)
    op = getattr(torch.ops.mambaasr, name).default

    def run(*arguments: Any) -> tuple[Tensor, ...]:
        tensors = arguments[:count]
        if direct(*tensors):
            return forward(*arguments, *((False,) if saved else ()))
        return op(*arguments, *((needs_gradient(*tensors),) if saved else ()))

    return run


def direct(*tensors: Tensor | None) -> bool:
    """Whether memory may be read without torch's dispatcher, which takes as long as a short scan.

    It must see the call where a gradient will be asked for, where the tensors are not plain ones,
    and where a compiler, an exporter or a mode looks on.
    """
    return not (
        torch.compiler.is_compiling()
        or needs_gradient(*tensors)
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(x is not None and type(x) not in (Tensor, torch.nn.Parameter) for x in tensors)
    )


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd will ask for a gradient by one of the tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
