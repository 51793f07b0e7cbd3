"""What all tests share: one thread a process, and real speech."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported: workers of xdist and the processes that tests start share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def test_data():
    """The folder of real speech: MAMBAASR_TEST_DATA, or shared/data beside the repository."""
    named = os.environ.get("MAMBAASR_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        if named:
            pytest.fail(f"MAMBAASR_TEST_DATA={named} is no folder")
        pytest.skip(
            f"no real speech in {folder}: set MAMBAASR_TEST_DATA to a folder that holds an4/ (a "
            "clone of https://github.com/cmusphinx/an4), such as egs/an4/asr1/downloads"
        )
    return folder
