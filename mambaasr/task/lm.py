"""The LM task: ESPnet's, with our names, safe checkpoints and errors that name the config.

Importing this module registers our names, as :mod:`mambaasr.task.asr` does.
"""

from mambaasr import register
from mambaasr.espnet_compat import LMTask as EspnetLMTask
from mambaasr.task.common import SafeTask

register()


class LMTask(SafeTask, EspnetLMTask):
    """ESPnet's LM task; options, config files and experiment folder stay its own."""
