"""tools/bench: each part runs and prints ratios; what a peer does wrong is named. No times."""

import functools
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


class WrongGradient(torch.autograd.Function):
    """Doubles, with a gradient of 2.1."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2.1 * grad


def family():
    """Sides that double a vector, one of them rightly."""

    def side(function):
        def make(shape):
            x = torch.arange(1.0, 1.0 + shape[0]).requires_grad_()
            return compare.Case(lambda: function(x), [x])

        return make

    def sleeping(x):
        time.sleep(0.3 if len(x) > 1 else 0)
        return 2 * x

    def missing(shape):
        raise peers.Missing("absent: No module named 'absent'")

    functions = {
        "ours": lambda x: x + x,
        "good": lambda x: 2 * x,
        "wrong": lambda x: 2.1 * x,
        "nan": lambda x: x * float("nan"),
        "wrong gradient": WrongGradient.apply,
        "sleeping": sleeping,
        "hungry": lambda x: 2 * x if len(x) == 1 else torch.ones(1 << 50),
    }
    sides = {name: side(function) for name, function in functions.items()}
    return compare.Family("double", sides | {"missing": missing}, ((10,), (20,)), (1,))


def test_what_peers_do_wrong_is_named():
    worker = compare.Worker(1, inline=True)
    comparison = compare.Comparison(family, worker, limit=0.2, budget=0.01)
    cell = comparison.cell((10,), False)
    reasons = {side: one["skipped"] for side, one in cell.items() if "skipped" in one}
    assert set(cell) - set(reasons) == {"ours", "good", "wrong gradient"}
    assert reasons["wrong"] == "wrong does not agree with ours: output, 5.0e-02"
    assert reasons["nan"].startswith("nan does not agree with ours")
    assert reasons["missing"] == "absent: No module named 'absent'"
    assert reasons["sleeping"] == "more than 0.2 s for one run"
    assert reasons["hungry"] == "out of memory"
    assert all(cell[side]["runs"] >= 3 for side in ("ours", "good"))
    more = comparison.cell((20,), False)
    assert more["sleeping"]["skipped"].startswith("not tried: more than 0.2 s at (10,)")
    backward = comparison.cell((20,), True)
    assert "gradient 1, 5.0e-02" in backward["wrong gradient"]["skipped"]
    assert backward["sleeping"]["skipped"] == "more than 0.2 s for one run"


def test_ours_must_run():
    def broken():
        sides = family().sides
        return compare.Family("double", {"missing": sides["missing"]}, ((10,),), (1,))

    comparison = compare.Comparison(broken, compare.Worker(1, inline=True), 1, 0.01)
    with pytest.raises(compare.Skipped, match="absent"):
        comparison.cell((10,), False)


def test_a_child_that_hangs_dies_or_eats_is_ended():
    worker = compare.Worker(1)
    try:
        for function, argument, kind in (
            (bytearray, 1 << 50, "memory"),
            (int, "x", "error"),
            (time.sleep, 60, "limit"),
            (os._exit, 9, "memory"),
        ):
            with pytest.raises(compare.Skipped) as skipped:
                worker.call(function, argument, limit=2)
            assert skipped.value.kind == kind
    finally:
        worker.close()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run every part with tiny sizes in this process; the folder of the JSON."""
    folder = tmp_path_factory.mktemp("bench")
    before = os.environ.get("OMP_NUM_THREADS")
    threads = torch.get_num_threads()
    try:
        assert run.main(f"--quick --no_install --threads 1 --folder {folder}".split()) == 0
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return folder


def test_documents_hold_what_was_measured(measured, tmp_path):
    write = functools.partial(
        run.main, ["docs", "--folder", str(measured), "--docs", str(tmp_path)]
    )
    write()
    page, plot = ((tmp_path / name).read_text() for name in ("benchmarks.md", "encoder_speed.svg"))
    assert "</svg>" in plot and "(encoder_speed.svg)" in page
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    assert list(sections) == list(run.PARTS)
    for part in sections.keys() - {"mixer"}:  # all of its peers must be installed
        assert re.search(r"\d x\b", sections[part]), part
    path = measured / "conv.json"
    data = json.loads(path.read_text())
    for side, seconds in zip(data["cells"][0]["sides"].values(), (1, 123, 246), strict=True):
        side["seconds"] = seconds
    data["header"]["cpu"] = "an abacus"
    path.write_text(json.dumps(data))
    write()
    changed = (tmp_path / "benchmarks.md").read_text()
    assert "an abacus" in changed
    row = r"1 s \| +123 s \| +246 s \| +torch conv1d \+ silu \| +123 x \|"
    assert re.search(row, changed) and not re.search(row, page)
    assert (tmp_path / "encoder_speed.svg").read_text() == plot


def test_documents_want_measurements(tmp_path):
    with pytest.raises(UserError, match="no measurements"):
        run.main(["docs", "--folder", str(tmp_path), "--docs", str(tmp_path)])


@pytest.mark.parametrize("size", ["10M", "30M"])
def test_encoders_have_equal_parameters(size):
    counts = [
        sum(p.numel() for p in models.make_encoder(label, *models.SIZES[size][label]).parameters())
        for label in models.LABELS
    ]
    assert max(counts) / min(counts) < 1.03
    assert counts[0] / 1e6 == pytest.approx(float(size.rstrip("M")), rel=0.05)


def test_peers_that_cannot_be_installed_are_named(tmp_path):
    said = []
    nowhere = {"nothing": ["--offline", "--no-index", "mambaasr-no-such-peer==1"]}
    assert peers.install(tmp_path / "peers", nowhere, said.append) == ["nothing"]
    assert said[0].startswith("missing peer: nothing: cannot be installed: ")
    with pytest.raises(peers.Missing, match="mamba_ssm"):
        peers.selective_scan_ref(tmp_path / "peers")
    with pytest.raises(peers.Missing, match="mambaasr_no_such_peer"):
        peers.load("mambaasr_no_such_peer", tmp_path / "peers")


def test_mamba_ssm_is_loaded_without_its_compiled_code(tmp_path):
    files = {
        "__init__.py": "raise RuntimeError('it imports everything')\n",
        "utils/torch.py": "custom_fwd = None\n",
        "ops/triton/kernels.py": (
            "import triton\nimport triton.language as tl\n"
            "@triton.autotune(configs=[triton.Config({'SIZE': 1}, num_warps=4)], key=[])\n"
            "@triton.jit\n"
            "def kernel(x, SIZE: tl.constexpr):\n    pass\n"
            "SMALLEST = min(config.kwargs['SIZE'] for config in kernel.configs)\n"
        ),
        "ops/selective_scan_interface.py": (
            "from mamba_ssm.utils.torch import custom_fwd\n"
            "from mamba_ssm.ops.triton.kernels import kernel\n"
            "from mamba_ssm.ops.triton.layer_norm import _layer_norm_fwd\n"
            "import selective_scan_cuda\n"
            "try:\n    from causal_conv1d import causal_conv1d_fn\n"
            "except ImportError:\n    causal_conv1d_fn = None\n"
            "def selective_scan_ref(x):\n    return 2 * x\n"
        ),
    }
    for name, text in files.items():
        path = tmp_path / "mamba_ssm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = dict(sys.modules)
    assert peers.selective_scan_ref(tmp_path)(3) == 6
    assert sys.modules == before
    with peers.sources(tmp_path) as source:
        assert source("mamba_ssm.ops.selective_scan_interface").causal_conv1d_fn is None
        with pytest.raises(peers.Missing, match="causal_conv1d: there is none in"):
            source("causal_conv1d.causal_conv1d_interface")
        with pytest.raises(peers.Missing, match="mamba_ssm: No module named 'mamba_ssm.modules'"):
            source("mamba_ssm.modules.mamba2")
