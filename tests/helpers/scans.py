"""Inputs of the selective scan and of the convolution, and gradients of what comes out."""

import loops
import torch


def scan_inputs(batch=3, channels=5, time=17, states=4, groups=(0, 0), time_major=False):
    """Return random arguments of ``selective_scan_fn`` in fp64, in its order."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        x = torch.randn(*shape, generator=random, dtype=torch.float64)
        return x.mT.contiguous().mT if time_major and len(shape) > 2 else x

    def matrix(count):
        return normal(*((batch, count) if count else (batch,)), states, time)

    return dict(
        u=normal(batch, channels, time),
        delta=normal(batch, channels, time) - 1,
        A=-torch.exp(normal(channels, states) * 0.5),
        B=matrix(groups[0]),
        C=matrix(groups[1]),
        D=normal(channels),
        z=normal(batch, channels, time),
        delta_bias=normal(channels) * 0.3,
        initial_state=normal(batch, channels, states),
    )


def conv_inputs(batch=3, channels=5, time=17, width=4):
    """Return random arguments of ``causal_conv1d_fn`` in fp64."""
    random = torch.Generator().manual_seed(0)
    shapes = dict(
        x=(batch, channels, time),
        weight=(channels, width),
        bias=(channels,),
        initial_states=(batch, channels, width - 1),
    )
    return {
        name: torch.randn(*shape, generator=random, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def with_gradients(function, inputs, dtype=torch.float32):
    """Return, by name, the outputs of a function and the gradients of a fixed sum of them."""
    leaves = {
        name: value.to(dtype).detach().requires_grad_()
        for name, value in inputs.items()
        if value is not None
    }
    outs = function(**(inputs | leaves))
    random = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=random, dtype=torch.float64) for x in outs]
    total = sum((x.double() * weight).sum() for x, weight in zip(outs, weights, strict=True))
    grads = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    names = [*("out", "last")[: len(outs)], *(f"d{name}" for name in leaves)]
    return dict(zip(names, [*outs, *grads], strict=True))


def agree(got, want, tolerance=1e-5):
    """Assert that every named tensor is close to the one that is wanted."""
    for name, x in want.items():
        assert loops.close(got[name], x, tolerance), name
