"""Speech recognition with state-space models, as a plugin of ESPnet."""

__version__ = "0.2.0.dev0"


def register() -> None:
    """Make ESPnet know every class of this package by its yaml name. May be called twice."""
    from mambaasr.registry import register as register_with_espnet

    register_with_espnet()
