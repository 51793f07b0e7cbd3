"""A training on the CPU keeps what it frees."""

import ctypes
import os
import subprocess
import sys

import pytest

# Page faults of a process that makes and drops a large tensor over and over.
REUSE = """
import resource, torch
from mambaasr.task.memory import keep_freed_memory
keep_freed_memory()
for count in (5, 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(10_000_000).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_freed_memory_is_kept():
    faults = []
    for tuning in "10":
        environment = os.environ | {"MAMBAASR_CPU_TUNING": tuning, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", REUSE], env=environment, capture_output=True, text=True
        )
        faults.append(int(done.stdout))
    if faults[1] < 5000:
        pytest.skip("pages are so large here that there is nothing to save")
    assert faults[0] < faults[1] / 2
