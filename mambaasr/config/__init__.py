"""Training configs: read, merge, check. Light: neither torch nor ESPnet is imported.

:func:`read` a yaml file, :func:`merge` blocks over it, :func:`write` the result;
:func:`check_training` checks a config with a command line laid over it and returns the
:class:`Facts` that a recipe needs, :func:`check_command` a training's own arguments;
:func:`relevant` says on what of a config a result depends. The options of a decoding are checked
by :func:`mambaasr.decode.options.check_decoding`.
"""

from mambaasr.config.check import Facts, check_command, check_training, is_true
from mambaasr.config.criteria import has_decoder
from mambaasr.config.merge import dump, merge, relevant, write
from mambaasr.config.read import Config, read

__all__ = [
    "Config", "Facts", "check_command", "check_training", "dump", "has_decoder", "is_true",
    "merge", "read", "relevant", "write",
]  # fmt: skip
