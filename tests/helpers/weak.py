"""Decoding that dies or runs out of memory on chosen utterances, in whatever process it runs."""

import json
import os
import signal
from pathlib import Path

from mambaasr.decode import asr

DECODE_CHUNK, DECODE_UTTERANCE, LOAD = asr.decode_chunk, asr._decode_utterance, asr._load


class Weakness:
    """Ends of utterances, which worker processes read from the environment.

    Args:
        folder: where every try is noted.
        ends: utterance -> "memory" (a MemoryError), "memory once" (so the first try ends), or
            "kill": whoever takes a chunk with it gets a SIGKILL, before a model is loaded, or
            "cuda": it and all that its process decodes later ends with an error of CUDA's.
    """

    def __init__(self, folder, **ends):
        self.folder, self.ends = Path(folder), ends
        self.folder.mkdir(exist_ok=True)
        os.environ["WEAK"] = json.dumps([str(folder), ends])

    def tries(self):
        """Utterance -> the processes that tried it."""
        return {path.name: path.read_text().split() for path in self.folder.iterdir()}


def decode_weakly(chunk):
    """``asr.decode_chunk``, with the ends of :class:`Weakness` and without a GPU."""
    folder, ends = json.loads(os.environ["WEAK"])
    if "kill" in (ends.get(utt) for utt, *_ in chunk.utterances):
        os.kill(os.getpid(), signal.SIGKILL)

    def stumble(speech2text, rate, utt, *more):
        end, path = ends.get(utt, ""), Path(folder, utt)
        first = not path.exists()
        with path.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        if end == "memory" or (end == "memory once" and first):
            speech2text = _fail
        if end == "cuda":
            _lost_gpu.append(utt)
        if _lost_gpu:
            speech2text = _fail_on_gpu
        return DECODE_UTTERANCE(speech2text, rate, utt, *more)

    asr._decode_utterance = stumble
    asr._load = lambda model: LOAD(model._replace(ngpu=0))
    try:
        return DECODE_CHUNK(chunk)
    finally:
        asr._decode_utterance, asr._load = DECODE_UTTERANCE, LOAD


_lost_gpu: list[str] = []  # on what, in this process


def _fail(samples):
    raise MemoryError("no memory left")


class _Model:
    encode = None


def _fail_on_gpu(samples):
    raise RuntimeError("CUDA error: device-side assert triggered")


_fail.asr_model = _fail_on_gpu.asr_model = _Model()
