"""The LM task: ESPnet's, with our names, safe checkpoints and errors that name the config.

Importing this module registers our names, as :mod:`mambaasr.task.asr` does.
"""

from mambaasr import espnet_compat, register
from mambaasr.task.common import SafeTask

_espnet_lm = espnet_compat.import_quietly("espnet2.tasks.lm")
register()


class LMTask(SafeTask, _espnet_lm.LMTask):
    """ESPnet's LM task; options, config files and experiment folder stay its own."""
