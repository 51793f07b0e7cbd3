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
assert "g2p_en.g2p" not in sys.modules
from espnet2.text import phoneme_tokenizer
import importlib.util, inspect
assert importlib.util.find_spec("g2p_en").origin.endswith("__init__.py")
inspect.getmodule(refuse)
assert "g2p_en.g2p" not in sys.modules
"""

TRUE_MODULE = """
import sys, types
for name in ("nltk", "g2p_en.g2p"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["g2p_en.g2p"].G2p = "the class"
from mambaasr.espnet_compat import _postpone_g2p
_postpone_g2p()
import g2p_en
assert g2p_en.G2p == "the class"
assert sys.modules["g2p_en"].__file__.endswith("__init__.py")
assert g2p_en.G2p == "the class"
"""


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_import_is_silent_and_offline():
    result = _run(QUIET)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr == ""


def test_g2p_is_the_true_one_when_asked_for():
    result = _run(TRUE_MODULE)
    assert result.returncode == 0, result.stderr
