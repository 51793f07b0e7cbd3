"""espeak-ng through the library and voices of the ``espeakng-loader`` wheel.

espeak-ng carries state (filters, echo, flutter, random numbers) from one utterance into the next.
So each utterance is spoken by a fork of a process that has loaded the library and said nothing
yet: its samples depend on nothing but the request, whatever was said before and wherever it runs.
The process is this file run as a script; it has no threads, which makes forking it safe.
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mambaasr.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
CHARS_UTF8 = 1
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
SEED = 1


@dataclass(frozen=True)
class Request:
    """What to say and how.

    Attributes:
        text: words, UTF-8.
        base: espeak-ng's language or accent, such as en-us.
        variant: one of its voice variants, such as f2.
        rate: speed in words a minute, 80 to 450; 175 is espeak-ng's own.
        pitch: base pitch, 0 to 99; 50 is the voice's own.
        pitch_range: 0 (monotonous) to 99.
    """

    text: str
    base: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int


def speak(requests: Sequence[Request]) -> "tuple[list[np.ndarray], int]":
    """Say each request.

    Args:
        requests: list of :class:`Request`.

    Returns:
        A list of int16 arrays ``(time,)``, and their sampling rate [Hz].

    Raises:
        UserError: espeakng-loader is missing, or a voice or variant is unknown.
    """
    import numpy as np

    lines = "".join(json.dumps(asdict(request)) + "\n" for request in requests)
    done = subprocess.run([sys.executable, __file__], input=lines.encode(), capture_output=True)
    if done.returncode:
        raise UserError(done.stderr.decode(errors="replace").strip() or "espeak-ng crashed")
    (rate,), at, spoken = struct.unpack_from("<I", done.stdout), 4, []
    for _ in requests:
        (size,) = struct.unpack_from("<I", done.stdout, at)
        at += 4
        spoken.append(np.frombuffer(done.stdout, "<i2", size // 2, at))
        at += size
    return spoken, rate


def version() -> str:
    """Return espeak-ng's version.

    Raises:
        UserError: espeakng-loader is missing or does not work here.
    """
    library = _loader()[0]
    library.espeak_Info.restype = ctypes.c_char_p
    return library.espeak_Info(None).decode()


class Espeak:
    """The library, ready to speak; what it says depends on what it has said."""

    def __init__(self) -> None:
        self.library, self.data = _loader()
        uint, pointer = ctypes.c_uint, ctypes.c_void_p
        kinds = [ctypes.c_char_p, ctypes.c_size_t, uint, ctypes.c_int, uint, uint]
        self.library.espeak_Synth.argtypes = [*kinds, pointer, pointer]
        self.library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self.rate = self.library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self.data).encode(), INITIALIZE_DONT_EXIT
        )
        if self.rate <= 0:
            raise UserError(f"{self.data}: espeak-ng does not find its voices; {_INSTALL}")
        self._blocks = []
        # ctypes keeps no reference to a callback, so this object must.
        self._callback = CALLBACK(self._collect)
        self.library.espeak_SetSynthCallback(self._callback)

    def say(self, request: Request) -> bytes:
        """Return a request's samples as int16 bytes at ``self.rate``.

        Raises:
            UserError: unknown voice or variant, or espeak-ng refuses the text.
        """
        # espeak-ng takes an unknown variant for the plain voice without a word.
        if not (self.data / "voices" / "!v" / request.variant).is_file():
            raise UserError(f"espeak-ng has no voice variant {request.variant!r}")
        voice = f"{request.base}+{request.variant}"
        if self.library.espeak_SetVoiceByName(voice.encode()):
            raise UserError(f"espeak-ng has no voice {request.base!r}")
        self.library.espeak_ng_SetRandSeed(SEED)
        ctypes.CDLL(None).srand(SEED)
        self.library.espeak_SetParameter(RATE, request.rate, 0)
        self.library.espeak_SetParameter(VOLUME, 100, 0)
        self.library.espeak_SetParameter(PITCH, request.pitch, 0)
        self.library.espeak_SetParameter(RANGE, request.pitch_range, 0)
        text = request.text.encode() + b"\0"
        self._blocks.clear()
        status = self.library.espeak_Synth(text, len(text), 0, 0, 0, CHARS_UTF8, None, None)
        if status or not self._blocks:
            raise UserError(f"espeak-ng cannot say {request.text!r} (status {status})")
        return b"".join(self._blocks)

    def _collect(self, samples, count, events):
        if samples and count > 0:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        return 0


_INSTALL = "reinstall it: pip install --force-reinstall espeakng-loader"


def _loader():
    """Return the library and the folder of its voices."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "this recipe makes its speech with espeak-ng, and the wheel espeakng-loader, which "
            "carries it, is not installed: pip install espeakng-loader"
        ) from error
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        return library, Path(espeakng_loader.get_data_path())
    except (OSError, RuntimeError) as error:
        raise UserError(f"espeak-ng cannot be loaded: {error}; {_INSTALL}") from error


def _serve():
    """Read requests from stdin, and write the rate and each one's samples to stdout."""
    espeak = Espeak()
    os.write(1, struct.pack("<I", espeak.rate))
    for line in sys.stdin:
        request = Request(**json.loads(line))
        child = os.fork()
        if child == 0:
            os._exit(_answer(espeak, request))
        status = os.waitpid(child, 0)[1]
        if status:
            # A voice that crashes the library leaves no message of its own.
            if os.WIFSIGNALED(status):
                sys.stderr.write(f"espeak-ng died on {request}")
            return 1
    return 0


def _answer(espeak, request):
    """Say one request on stdout, in the fork; return its exit code."""
    try:
        samples = espeak.say(request)
        left = memoryview(struct.pack("<I", len(samples)) + samples)
        while left:
            left = left[os.write(1, left) :]
        return 0
    except UserError as error:
        sys.stderr.write(str(error))
        sys.stderr.flush()
    except BaseException as error:
        sys.stderr.write(repr(error))
        sys.stderr.flush()
    return 1


if __name__ == "__main__":
    try:
        sys.exit(_serve())
    except UserError as error:
        sys.exit(str(error))
