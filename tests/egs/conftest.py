"""A recipe for the driver."""

from recipes import recipe

__all__ = ["recipe"]
