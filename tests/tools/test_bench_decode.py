"""tools/bench/decode.py measures all sides of the searches over a model."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from tiny_asr import OURS, an4, make_experiment

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
TOOL = ROOT / "tools/bench/decode.py"


@pytest.fixture
def bench():
    spec = importlib.util.spec_from_file_location("bench_decode", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_side_is_measured(bench, test_data, tmp_path, capsys):
    _, weights = make_experiment(tmp_path, **OURS)
    (tmp_path / "espnet").mkdir()
    _, other = make_experiment(tmp_path / "espnet")
    wavs = an4(test_data, 3)
    (tmp_path / "wav.scp").write_text("".join(f"{utt} {path}\n" for utt, path in wavs.items()))
    words = ["--asr_model_file", str(weights), "--wav_scp", str(tmp_path / "wav.scp")]
    words += ["--seconds", "0", "2", "--batch_sizes", "1", "2", "--margins", "0", "--rounds", "1"]
    words += ["--beam_size", "3", "--steps", "2", "30", "--json", str(tmp_path / "figures.json")]
    words += ["--steps_of", str(other), "--plot", str(tmp_path / "steps.png")]
    bench.main(words)
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "figures.json").read_text())
    sides = {row["search"] for row in found["rows"]}
    assert sides == {
        "encoder alone",
        *(f"ESPnet, batch {size}, margin 0" for size in (1, 2)),
        *(f"ours, batch {size}" for size in (1, 2)),
    }
    assert len(found["rows"]) == 2 * len(sides) and all(row["RTF"] > 0 for row in found["rows"])
    assert {row["texts"] for row in found["rows"] if row["seconds"] != 2} >= {"-", "3 of 3"}
    assert all(row["MB"] is None or row["MB"] >= 0 for row in found["rows"])
    assert [set(each) for each in found["steps"].values()] == [{"2", "30"}] * 2
    assert any("TransformerDecoder (espnet)" in name for name in found["steps"])
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")
    assert "| ours, batch 2" in said.replace("  ", " ") and "ms a step" in said
