"""Decoding that dies or runs out of memory on chosen utterances, in whatever process it runs."""

import json
import os
import signal
from pathlib import Path

from mambaasr.decode import asr
from mambaasr.decode.recogniser import Recogniser

DECODE_CHUNK, ENCODE, LOAD = asr.decode_chunk, Recogniser._encode, asr._load


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

    def note(utt):
        first = not Path(folder, utt).exists()
        with Path(folder, utt).open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        return first

    def stumble(self, batch):
        """Fail on a batch with a weak utterance; a try is noted where it says something."""
        weak = {each.key: ends[each.key] for each in batch if each.key in ends}
        _lost_gpu.extend(utt for utt, end in weak.items() if end == "cuda")
        if _lost_gpu:
            for utt in weak:
                note(utt)
            raise RuntimeError("CUDA error: device-side assert triggered")
        if weak and len(batch) > 1:
            raise MemoryError("no memory left")
        for utt in (each.key for each in batch):
            first = note(utt)
            if weak.get(utt) == "memory" or (weak.get(utt) == "memory once" and first):
                raise MemoryError("no memory left")
        return ENCODE(self, batch)

    Recogniser._encode = stumble
    asr._load = lambda model: LOAD(model._replace(ngpu=0))
    try:
        return DECODE_CHUNK(chunk)
    finally:
        Recogniser._encode, asr._load = ENCODE, LOAD


_lost_gpu: list[str] = []  # on what, in this process
