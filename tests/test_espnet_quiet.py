"""ESPnet's tasks are imported without noise and without network access."""

import subprocess
import sys

QUIET = """
import sys, socket

def refuse(*args, **kwargs):
    raise AssertionError("network access")

socket.getaddrinfo = refuse
socket.create_connection = refuse
from mambaasr.espnet_compat import import_quietly
import_quietly("espnet2.bin.asr_inference")
"""

# ESPnet asks for editdistance in the middle of a training, where it is no dependency of its own.
ABSENT = """
from mambaasr.espnet_compat import import_quietly
rates = import_quietly("espnet2.legacy.nets.e2e_asr_common")
calculator = rates.ErrorCalculator(list("ab_c-"), "_", "-", report_cer=True, report_wer=True)
assert calculator.calculate_cer(["ab a"], ["bb a"]) == 1 / 3
assert calculator.calculate_wer(["ab a"], ["bb a"]) == 1 / 2
import importlib.util
assert importlib.util.find_spec("editdistance").name == "editdistance"
"""


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_import_is_silent_and_offline():
    result = _run(QUIET)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""


def test_error_rates_in_training_need_no_further_package():
    result = _run(ABSENT)
    assert result.returncode == 0, result.stderr
