"""tools/bench: each part runs and prints ratios; what a peer does wrong is named. No times."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from bench import compare, models, peers, run  # noqa: E402

from mambaasr.errors import UserError  # noqa: E402


def side(forward):
    def make(shape, backward):
        x = torch.arange(1.0, 1.0 + shape[0]).requires_grad_()
        return compare.case(lambda: forward(x), [x], backward)

    return make


def missing(x):
    raise peers.Missing("absent: No module named 'absent'")


def sleeping(x):
    time.sleep(0.3 if len(x) > 1 else 0)
    return 2 * x


DOUBLES = {
    "ours": lambda x: x + x,
    "good": lambda x: 2 * x,
    "wrong": lambda x: 2.1 * x,
    "nan": lambda x: x * float("nan"),
    "wrong gradient": lambda x: 2.1 * x - 0.1 * x.detach(),
    "sleeping": sleeping,
    "hungry": lambda x: 2 * x if len(x) == 1 else torch.ones(1 << 50),
    "missing": missing,
}


def skipped(shape, backward, too_slow):
    """Measure all sides; return the cell, and why some of them have no figures."""
    family = compare.Family("double", {name: side(f) for name, f in DOUBLES.items()}, (), (1,))
    worker = compare.Worker(1, inline=True)
    cell = compare.measure(family, worker, shape, backward, 0.2, 0.01, too_slow)
    return cell, {name: one["skipped"] for name, one in cell.items() if "skipped" in one}


def test_what_peers_do_wrong_is_named():
    too_slow = {}
    cell, why = skipped((10,), False, too_slow)
    assert set(cell) - set(why) == {"ours", "good", "wrong gradient"}
    assert all(cell[name]["runs"] >= 3 for name in ("ours", "good"))
    assert why["wrong"] == "disagrees: output differs from ours by 5.0e-02"
    assert why["nan"].startswith("disagrees")
    assert why["missing"] == "missing: absent: No module named 'absent'"
    assert why["sleeping"] == "over the limit: more than 0.2 s for one run"
    assert why["hungry"].startswith("out of memory: ")
    assert skipped((20,), False, too_slow)[1]["sleeping"].endswith("as it is at (10,)")
    backward = skipped((20,), True, too_slow)[1]
    assert "gradient 1 differs from ours by 5.0e-02" in backward["wrong gradient"]
    assert backward["sleeping"] == "over the limit: more than 0.2 s for one run"


@pytest.mark.parametrize(
    ("function", "argument", "kind"),
    [
        (bytearray, 1 << 50, "out of memory"),
        (int, "x", "ValueError"),
        (time.sleep, 60, "over the limit"),
        (os._exit, 9, "out of memory"),
    ],
)
def test_a_child_that_hangs_dies_or_eats_is_ended(child, function, argument, kind):
    with pytest.raises(compare.Skipped, match=f"^{kind}:"):
        child.call(function, argument, limit=2)


@pytest.fixture(scope="module")
def child():
    worker = compare.Worker(1)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run every part with tiny sizes in this process, without peers; the folder of the JSON."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # which the run sets as well
        patch.setattr(peers, "load", missing)  # transformers takes seconds to import
        assert run.main(f"--quick --no_install --threads 1 --folder {folder}".split()) == 0
    return folder


def test_documents_hold_what_was_measured(measured, tmp_path):
    write = ["docs", "--folder", str(measured), "--docs", str(tmp_path)]
    run.main(write)
    page, plot = ((tmp_path / name).read_text() for name in ("benchmarks.md", "encoder_speed.svg"))
    assert "</svg>" in plot and "(encoder_speed.svg)" in page
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert list(sections) == list(run.PARTS)
    for part in sections.keys() - {"mixer"}:  # it has no side in plain torch of ours
        assert re.search(r"\d x\b", sections[part]), part
    path = measured / "conv.json"
    data = json.loads(path.read_text())
    for one, seconds in zip(data["cells"][0]["sides"].values(), (1, 123, 246), strict=True):
        one["seconds"] = seconds
    path.write_text(json.dumps(data | {"failures": ["conv (8, 500): gone"]}))
    run.main(write)
    changed = (tmp_path / "benchmarks.md").read_text()
    row = r"1 s \| +123 s \| +246 s \| +torch conv1d \+ silu \| +123 x \|"
    assert re.search(row, changed) and not re.search(row, page)
    assert "Failed: conv (8, 500): gone." in changed
    assert (tmp_path / "encoder_speed.svg").read_text() == plot


def test_cells_that_fail_or_stand_alone_replace_no_figures(tmp_path, monkeypatch):
    family = compare.Family("double", {"ours": side(missing)}, (), (7,), modes=(False,))
    monkeypatch.setattr(run, "families", lambda part, quick: {part: family})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "ssd.json").write_text("old")
    command = f"ssd --quick --no_install --threads 1 --folder {tmp_path}".split()
    assert run.main([*command, "--only", "(7"]) == 1
    assert (tmp_path / "ssd.json").read_text() == "old"
    assert run.main(command) == 1
    data = json.loads((tmp_path / "ssd.json").read_text())
    assert data["cells"] == [] and "absent" in data["failures"][0]
    assert (tmp_path / "only" / "ssd.json").exists()


def test_documents_want_measurements(tmp_path):
    with pytest.raises(UserError, match="no measurements"):
        run.main(["docs", "--folder", str(tmp_path), "--docs", str(tmp_path)])


@pytest.mark.parametrize("size", ["10M", "30M"])
def test_encoders_have_equal_parameters(size):
    with torch.device("meta"):
        encoders = [models.make_encoder(size, label) for label in models.LABELS]
    counts = [sum(p.numel() for p in encoder.parameters()) for encoder in encoders]
    assert max(counts) / min(counts) < 1.03
    assert counts[0] / 1e6 == pytest.approx(float(size.rstrip("M")), rel=0.05)


def test_peers_that_cannot_be_installed_are_named(tmp_path):
    pins = tmp_path / "pins.txt"
    pins.write_text("--no-index\nmambaasr-no-such-peer==1\n")
    [message] = peers.install(tmp_path / "peers", [pins])
    assert message.startswith("missing peers: pins.txt: cannot be installed: ")
    with pytest.raises(peers.Missing, match="mamba_ssm"):
        peers.selective_scan_ref(tmp_path / "peers")
    with pytest.raises(peers.Missing, match="mambaasr_no_such_peer"):
        peers.load("mambaasr_no_such_peer", tmp_path / "peers")


def test_mamba_ssm_is_loaded_without_its_compiled_code(tmp_path):
    package = tmp_path / "mamba_ssm"
    (package / "ops").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it imports everything')\n")
    (package / "ops" / "kernels.py").write_text(
        "import triton\nimport triton.language as tl\n"
        "@triton.autotune(configs=[triton.Config({'SIZE': 1}, num_warps=4)], key=[])\n"
        "@triton.jit\n"
        "def kernel(x, SIZE: tl.constexpr):\n    pass\n"
        "SMALLEST = min(config.kwargs['SIZE'] for config in kernel.configs)\n"
    )
    (package / "ops" / "selective_scan_interface.py").write_text(
        "from mamba_ssm.ops.kernels import kernel\n"
        "from mamba_ssm.ops.triton.layer_norm import _layer_norm_fwd\n"
        "import selective_scan_cuda\n"
        "def selective_scan_ref(x):\n    return 2 * x\n"
    )
    before = dict(sys.modules)
    assert peers.selective_scan_ref(tmp_path)(3) == 6
    assert sys.modules == before
