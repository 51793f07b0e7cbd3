"""The memory of a training on the CPU."""

import ctypes
import os
import sys

# Options of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees; for a training, which needs it again.

    Otherwise glibc hands large tensors back to the system, and each page of the next one costs a
    fault: 5 to 24 % of a step of a small model, as measured. It costs some more memory, as what is
    free does not always fit what comes next. It holds for the rest of the process. Without glibc,
    or with ``MAMBAASR_CPU_TUNING=0``, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if os.environ.get("MAMBAASR_CPU_TUNING", "1") != "0" and mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
