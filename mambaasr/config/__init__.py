"""Training configs: read, merge, check. Light: neither torch nor ESPnet is imported.

The options of a decoding are checked by :func:`mambaasr.decode.options.check_decoding`.
"""

from mambaasr.config.check import check_command, check_training, is_true
from mambaasr.config.criteria import has_decoder, model_file
from mambaasr.config.merge import differences, dump, merge, same_config
from mambaasr.config.read import Config, read

__all__ = [
    "Config", "check_command", "check_training", "differences", "dump", "has_decoder", "is_true",
    "merge", "model_file", "read", "same_config",
]  # fmt: skip
