"""Training configs: read, merge, check. Light: neither torch nor ESPnet is imported.

* :func:`read` a yaml file, :func:`merge` blocks over it, :func:`write` the result;
* :func:`check_training` checks a merged config with a command line laid over it and returns the
  :class:`Facts` that the driver needs; :func:`check_command` checks a training's own arguments;
* :func:`relevant` says what of a config a result depends on.

The options of a decoding are checked by :func:`mambaasr.decode.options.check_decoding`.
"""

from mambaasr.config.check import Facts, check_command, check_training, is_true
from mambaasr.config.criteria import has_decoder, model_file
from mambaasr.config.merge import dump, flatten, merge, relevant, write
from mambaasr.config.read import Config, read

__all__ = [
    "Config",
    "Facts",
    "check_command",
    "check_training",
    "dump",
    "flatten",
    "has_decoder",
    "is_true",
    "merge",
    "model_file",
    "read",
    "relevant",
    "write",
]
