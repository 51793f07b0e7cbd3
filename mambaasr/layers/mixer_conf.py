"""The mixers that a yaml can name, by kind and direction."""

import inspect

from mambaasr.checks import check_choice
from mambaasr.layers.bidirectional import MERGES, InnerBiMamba, InnerBiMamba2, OuterBiMamba
from mambaasr.layers.mamba import Mamba
from mambaasr.layers.mamba2 import Mamba2

MIXERS = {"mamba1": Mamba, "mamba2": Mamba2}
INNER = {"mamba1": InnerBiMamba, "mamba2": InnerBiMamba2}
DIRECTIONS = ("uni", "inner", "outer")
# What make_mixer takes by name, and what is a module's own.
_NAMED = ("self", "d_model", "d_state", "d_conv", "expand", "dropout_rate")


def make_mixer(
    mixer,
    direction,
    d_model,
    merge="sum",
    d_state=None,
    d_conv=4,
    expand=2,
    dropout_rate=0.0,
    **conf,
):
    """Make the mixer that a yaml's ``mixer`` and ``direction`` name.

    Args:
        mixer: "mamba1" (:class:`Mamba`) or "mamba2" (:class:`Mamba2`).
        direction: "uni" (causal), "inner" (shared projections) or "outer" (two whole mixers).
        d_model: width of input and output.
        merge: how two directions meet, "sum", "mean" or "concat"; unused by "uni".
        d_state: states of each channel; None for the mixer's own default, 16 or 128.
        d_conv: width of the causal convolution.
        expand: inner width / d_model.
        dropout_rate: after the input and before the output leaves.
        **conf: further options of the mixer's class.

    Returns:
        a module with ``causal`` and ``forward(x (b, t, e), lengths=None) -> (b, t, e)``, zero
        beyond the lengths. If it is causal, also with ``initial_state``, ``forward_chunk`` and
        ``step``, see :class:`Mamba`.

    Raises:
        ValueError: an option is unknown, or its value impossible.
    """
    check_choice("mixer", mixer, MIXERS)
    check_choice("direction", direction, DIRECTIONS)
    check_choice("merge", merge, MERGES)
    made = MIXERS[mixer]
    allowed = [name for name in inspect.signature(made).parameters if name not in _NAMED]
    for name in conf:
        if name not in allowed:
            raise ValueError(
                f"mixer_conf: {name!r} is no option of {mixer}; choose among {', '.join(allowed)}"
            )
    options = dict(d_conv=d_conv, expand=expand, dropout_rate=dropout_rate, **conf)
    if d_state is not None:
        options["d_state"] = d_state
    if direction == "uni":
        return made(d_model, **options)
    if direction == "outer":
        return OuterBiMamba(made, d_model, merge, **options)
    return INNER[mixer](d_model, merge, **options)


def mixer_options(conf):
    """Check the mapping that a yaml gives as ``mixer_conf``, for :func:`make_mixer`'s ``conf``.

    Args:
        conf: a mapping, or None.

    Returns:
        dict.

    Raises:
        ValueError: it is no mapping, or names an option that has its place beside it.
    """
    if conf is None:
        return {}
    if not isinstance(conf, dict):
        raise ValueError(f"mixer_conf is {conf!r}; it must be a mapping of a mixer's options")
    for name in conf:
        if name in inspect.signature(make_mixer).parameters and name != "conf":
            place = "mixer_dropout_rate" if name == "dropout_rate" else name
            raise ValueError(f"mixer_conf: {name!r} has its place beside mixer_conf, as {place}")
    return dict(conf)
