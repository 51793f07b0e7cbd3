"""Speech for small corpora: espeak-ng, as the recipe of spoken numbers has it."""

import functools
import importlib.util
import json
import struct
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soxr

ESPEAK = Path(__file__).resolve().parents[2] / "egs/spoken_numbers/asr1/local/spoken/espeak.py"
VOICES = "m1 f1 m3 f2 m8 f4".split()
RATE = 16000


@functools.cache
def _espeak():
    spec = importlib.util.spec_from_file_location("espeak_of_the_tests", ESPEAK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


@functools.cache
def _server():
    """Return a process that answers requests as they come, and its sampling rate [Hz].

    It ends when this one does, which closes its stdin.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, str(ESPEAK)], **pipes)
    return process, struct.unpack("<I", process.stdout.read(4))[0]


@functools.cache
def say(text, language="en-us", voice=0):
    """Return ``(time,)`` samples at 16 kHz of a text; each ``voice`` is another speaker."""
    process, rate = _server()
    request = _espeak().Request(text, language, VOICES[voice % len(VOICES)], 180, 50, 50)
    process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
    process.stdin.flush()
    (size,) = struct.unpack("<I", process.stdout.read(4))
    samples = np.frombuffer(process.stdout.read(size), "<i2") / 32768
    return soxr.resample(samples, rate, RATE)
