"""Activations by the names that a yaml gives them."""

from torch import nn

from mambaasr.checks import check_choice

ACTIVATIONS = {"swish": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}


def make_activation(name: str) -> nn.Module:
    """Make the activation that ``activation_type`` names: "swish", "gelu" or "relu".

    Raises:
        ValueError: the name is unknown.
    """
    check_choice("activation_type", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
