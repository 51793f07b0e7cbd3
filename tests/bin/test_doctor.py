"""The command `mambaasr doctor`."""

import subprocess
import sys

from mambaasr import doctor as rules
from mambaasr.bin import doctor

PROBE = """
import sys
from mambaasr.bin.doctor import main
code = main([])
print("imported:", *sorted(name for name in sys.modules if "." not in name))
"""


def test_answers_without_importing_torch():
    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    text, _, imported = result.stdout.rpartition("imported:")
    assert not {"torch", "espnet", "espnet2", "numpy"} & set(imported.split())
    for name in ("python", "torch", "backend naive", "backend cpu", "compiler", "disk"):
        assert f"  {name}" in text


def test_exit_code_tells_whether_the_basics_work(monkeypatch, capsys):
    monkeypatch.setattr(rules, "examine", lambda folder: [rules.Finding(rules.NOTE, "gpu", "no")])
    assert doctor.main([]) == 0
    broken = rules.Finding(rules.FAIL, "torch", "not installed", "make env")
    monkeypatch.setattr(rules, "examine", lambda folder: [broken])
    assert doctor.main([]) == 1
    assert "-> make env" in capsys.readouterr().out
