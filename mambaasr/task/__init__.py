"""ESPnet's tasks with our names registered, and checkpoints written safely.

``mambaasr.task.asr`` and ``mambaasr.task.lm`` register when they are imported, so that processes
which ESPnet spawns for several GPUs know our names too. This module
stays light.
"""
