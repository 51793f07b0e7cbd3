"""Which devices this machine has, asked without importing torch."""

import os
import subprocess


def count_gpus() -> int:
    """Return how many GPUs the driver names, of those that CUDA_VISIBLE_DEVICES leaves."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return 0
    count = len(done.stdout.splitlines()) if done.returncode == 0 else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return count if visible is None else min(count, len(visible.replace(",", " ").split()))
