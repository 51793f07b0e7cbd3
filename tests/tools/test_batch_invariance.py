"""tools/batch_invariance.py tells a model that leaks padding from one that does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_asr import OURS, an4, make_experiment

from mambaasr.data.folder import DataFolder

TOOL = Path(__file__).resolve().parents[2] / "tools" / "batch_invariance.py"


@pytest.mark.slow
@pytest.mark.parametrize("leaks, options", [(False, OURS), (True, {})])
def test_differences(test_data, tmp_path, leaks, options):
    files = make_experiment(tmp_path / "exp", **options)
    wavs = an4(test_data, 5)
    folder = DataFolder(wav=wavs, text=dict.fromkeys(wavs, "A"), utt2spk={u: u for u in wavs})
    folder.write(tmp_path / "data")
    command = [sys.executable, TOOL, *files, tmp_path / "data", "--batch_sizes", "2", "5"]
    command += ["--beam_size", "3"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = re.findall(r"batches of (\d+): 5 utterances, largest difference (\S+),", result.stdout)
    assert [size for size, _ in found] == ["2", "5"]
    for _, difference in found:
        assert (float(difference) > 1e-2) == leaks
        assert (float(difference) < 1e-4) != leaks
    # What leaks is ESPnet's encoder: our decoding gives it one utterance at a time.
    assert result.stdout.count("our search: 5 of 5 texts are those of ESPnet's search alone") == 2
    if not leaks:
        assert result.stdout.count("0 of another length, 0 greedy") == 2
        assert result.stdout.count("ESPnet's: 5 of 5 texts are those of ESPnet's search alone") == 2
