"""The whole Mamba mixer: ours and that of transformers, with the same weights."""

import torch

from bench import peers
from bench.compare import Case
from bench.scan import SHAPES, describe, warm_up, work

__all__ = ["SHAPES", "SIDES", "describe", "warm_up", "work"]


def weights(shape):
    """A state dict and an input (batch, time, d_inner / 2)."""
    from mambaasr.layers.mamba import Mamba

    batch, time, channels, states = shape
    torch.manual_seed(0)
    mixer = Mamba(channels // 2, d_state=states)
    return mixer.state_dict(), torch.randn(batch, time, channels // 2)


def mixer_case(mixer, state, hidden):
    """Make a case; gradients of the input and of every weight, in the order of their names."""
    mixer.load_state_dict(state)
    mixer.train()
    hidden.requires_grad_()
    named = dict(mixer.named_parameters())
    return Case(lambda: mixer(hidden), [hidden, *(named[name] for name in sorted(named))])


def ours(shape):
    """Our mixer."""
    from mambaasr.layers.mamba import Mamba

    state, hidden = weights(shape)
    return mixer_case(Mamba(shape[2] // 2, d_state=shape[3]), state, hidden)


def transformers(shape, use_mambapy):
    """The mixer of transformers: its loop, or mambapy's scan in its place."""
    if use_mambapy:
        peers.load("mambapy.pscan")
    module = peers.load("transformers.models.mamba.modeling_mamba")
    state, hidden = weights(shape)
    config = module.MambaConfig(
        hidden_size=shape[2] // 2,
        state_size=shape[3],
        num_hidden_layers=1,
        use_mambapy=use_mambapy,
    )
    return mixer_case(module.MambaMixer(config, layer_idx=0), state, hidden)


SIDES = {
    "mambaasr Mamba": ours,
    "transformers MambaMixer, its loop": lambda shape: transformers(shape, False),
    "transformers MambaMixer, mambapy": lambda shape: transformers(shape, True),
}
