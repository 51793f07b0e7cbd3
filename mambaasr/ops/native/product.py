"""The product of a linear layer with few rows, which takes the time of reading its weight."""

import torch
from torch import Tensor

from mambaasr.ops.native import call


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows with a weight as it lies.

    Args:
        x: (m, k) float32, the elements of a row side by side.
        weight: (n, k) float32, contiguous.
        bias: (n) float32, contiguous, or None.

    Returns:
        (m, n): x weight^T + bias. A row's result does not depend on m.
    """
    (rows, depth), outputs = x.shape, len(weight)
    out = torch.empty(rows, outputs, device=x.device)
    threads = call.threads(rows * outputs)
    # More tasks than threads, so that one that is held up does not hold up the others.
    block = outputs if threads == 1 else -(-outputs // (16 * threads)) * 4
    record = (threads, rows, outputs, depth, block)
    address = (call.pointer(x), x.stride(0), call.pointer(weight), call.pointer(bias))
    call.call("product", *record, *address, call.pointer(out))
    return out
