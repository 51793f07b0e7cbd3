"""tools/bench: each part runs and prints ratios; what a peer may do wrong is said. No times."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "tools" / "bench" / "run.py"

# A family of sides with stubs; the child processes import it by name.
STUBS = """
import time

import torch
from bench.compare import Case
from bench.peers import Missing

def describe(shape):
    return f"{shape}"


def work(shape):
    return (shape[0],)


def warm_up(shape):
    return (1,)


def case(function, shape):
    x = torch.arange(1.0, 1.0 + shape[0]).requires_grad_()
    return Case(lambda: function(x), [x])


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2.1 * grad


def sleeping(x):
    if len(x) > 1:
        time.sleep(0.4 if len(x) < 100 else 60)
    return 2 * x


def hungry(x):
    if len(x) > 1:
        torch.ones(1 << 50)
    return 2 * x


def dying(x):
    import os

    if len(x) > 1:
        os.kill(os.getpid(), 9)
    return 2 * x


def missing(shape):
    raise Missing("absent: No module named 'absent'")


SIDES = {
    "ours": lambda shape: case(lambda x: x + x, shape),
    "good": lambda shape: case(lambda x: 2 * x, shape),
    "wrong": lambda shape: case(lambda x: 2.1 * x, shape),
    "nan": lambda shape: case(lambda x: x * float("nan"), shape),
    "wrong gradient": lambda shape: case(WrongGradient.apply, shape),
    "sleeping": lambda shape: case(sleeping, shape),
    "hungry": lambda shape: case(hungry, shape),
    "dying": lambda shape: case(dying, shape),
    "missing": missing,
}
"""


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Make the bench and a family of stubs importable, here and in child processes."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stub_family.py").write_text(STUBS, encoding="utf-8")
    yield
    sys.modules.pop("stub_family", None)


@pytest.fixture
def compare(bench):
    """Make comparisons of stubs."""
    from bench.compare import Comparison

    made = []

    def make(*sides, limit):
        sides = sides or None
        made.append(Comparison("stub_family", sides=sides, threads=1, limit=limit, budget=0.01))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_what_peers_do_wrong_is_named(compare):
    comparison = compare(limit=0.2)
    cell = comparison.cell((10,), False)
    reasons = {side: one["skipped"] for side, one in cell.items() if "skipped" in one}
    assert set(cell) - set(reasons) == {"ours", "good", "wrong gradient"}
    assert reasons["wrong"] == "wrong does not agree with ours: output is off by 5.0e-02"
    assert reasons["nan"].startswith("nan does not agree with ours")
    assert reasons["missing"] == "absent: No module named 'absent'"
    assert reasons["sleeping"] == "more than 0.2 s for one run"
    assert re.match(r"out of memory \(cap [\d.]+ GB\)", reasons["hungry"])
    assert re.match(r"out of memory \(cap [\d.]+ GB; killed\)", reasons["dying"])
    assert all(cell[side]["runs"] >= 3 for side in ("ours", "good"))


def test_what_was_given_up_is_not_tried_with_more_work(compare):
    comparison = compare("ours", "wrong gradient", "sleeping", limit=0.2)
    limit = "more than 0.2 s for one run"
    assert comparison.cell((10,), False)["sleeping"]["skipped"] == limit
    cell = comparison.cell((20,), True)
    assert cell["sleeping"]["skipped"] == limit  # a limit of one pass says nothing of the other
    assert "gradient 1 is off by 5.0e-02" in cell["wrong gradient"]["skipped"]
    more = comparison.cell((200,), False)["sleeping"]["skipped"]  # it would sleep for a minute
    assert more == "not tried: more than 0.2 s at (10,), which is less work"


def test_a_peer_that_hangs_is_ended(compare):
    cell = compare("ours", "sleeping", limit=0.2).cell((200,), False)
    assert cell["sleeping"]["skipped"] == "more than 0.2 s for one run"
    assert "median" in cell["ours"]


def test_ours_must_run(compare):
    from bench.worker import Failed

    with pytest.raises(Failed, match="missing: absent"):
        compare("missing", "good", limit=1).cell((10,), False)


def test_peers_that_cannot_be_installed_are_named(bench, tmp_path):
    from bench import peers

    said = []
    nowhere = {"nothing": ["--offline", "--no-index", "mambaasr-no-such-peer==1"]}
    assert peers.install(tmp_path / "peers", nowhere, said.append) == ["nothing"]
    assert said[0].startswith("missing peer: nothing: cannot be installed: ")
    with pytest.raises(peers.Missing, match="mamba_ssm"):
        peers.selective_scan_ref(tmp_path / "peers")
    with pytest.raises(peers.Missing, match="mambaasr_no_such_peer"):
        peers.load("mambaasr_no_such_peer", tmp_path / "peers")


def test_mamba_ssm_is_loaded_without_its_compiled_code(bench, tmp_path):
    from bench import peers

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


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run every part with tiny sizes, without the network; (folder of the JSON, what it said)."""
    folder = tmp_path_factory.mktemp("bench")
    return folder, run("--quick", "--no_install", "--threads", "1", "--folder", folder)


def run(*arguments):
    result = subprocess.run(
        [sys.executable, RUN, *arguments], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_each_part_prints_ratios(measured):
    folder, said = measured
    for line in ("cpu: ", "threads: 1", "isa: ", "torch: ", "commit: ", "date: "):
        assert re.search(f"^{line}", said, re.MULTILINE)
    sections = dict(
        re.findall(r"^== (\w+), .*?==\n(.*?)(?=^== |\Z)", said, re.DOTALL | re.MULTILINE)
    )
    assert list(sections) == ["scan", "floor", "scaling", "conv", "ssd", "models"]
    for part, text in sections.items():
        assert re.search(r"\d x\b", text), part
        assert json.loads((folder / f"{part}.json").read_text())["cells"]
    assert "reference loop, unbind" in sections["scan"]
    assert "conformer" in sections["models"]


def test_what_is_there_is_not_measured_again(bench, monkeypatch, tmp_path):
    from bench import parts
    from bench.store import Store
    from bench.worker import Failed

    ran = []

    def cells(settings):
        def run(key):
            ran.append(key)
            if key == "b" and len(ran) < 3:
                raise Failed("error", "killed")
            return {"key": key}

        yield from ((key, lambda key=key: run(key)) for key in "abc")

    monkeypatch.setitem(parts.CELLS, "fake", cells)

    def measure():
        return parts.measure("fake", None, Store(tmp_path, "fake", {}, "code"), lambda text: None)

    assert measure() == ["b: killed"]
    assert measure() == []
    assert ran == ["a", "b", "c", "b"]  # what failed is measured again, and nothing else
    assert set(Store(tmp_path, "fake", {}, "code").cells) == set("abc")


def test_other_code_or_settings_start_afresh(bench, tmp_path):
    from bench.store import Store

    header = {"cpu": "a", "date": "1"}
    Store(tmp_path, "scan", header, "code").add("cell", {"x": 1})
    assert Store(tmp_path, "scan", header | {"date": "2"}, "code").cells == {"cell": {"x": 1}}
    assert Store(tmp_path, "scan", header | {"cpu": "b"}, "code").cells == {}
    assert Store(tmp_path, "scan", header, "other").cells == {}
    assert Store(tmp_path, "scan", header, "code", anew=True).cells == {}


def test_documents_hold_what_the_json_holds(measured, tmp_path):
    folder, _ = measured
    copies = tmp_path / "json"
    copies.mkdir()
    for path in folder.glob("*.json"):
        (copies / path.name).write_text(path.read_text())
    run("docs", "--folder", copies, "--docs", tmp_path / "docs")
    page = (tmp_path / "docs/benchmarks.md").read_text()
    first = (tmp_path / "docs/encoder_speed.svg").read_text()
    assert "</svg>" in first and "(encoder_speed.svg)" in page

    data = json.loads((copies / "conv.json").read_text())
    cell = next(iter(data["cells"].values()))
    for side, seconds in zip(cell["sides"].values(), (1.0, 123.0, 246.0), strict=True):
        side["median"] = seconds
    data["header"]["cpu"] = "an abacus"
    (copies / "conv.json").write_text(json.dumps(data))
    run("docs", "--folder", copies, "--docs", tmp_path / "docs")
    changed = (tmp_path / "docs/benchmarks.md").read_text()
    assert changed != page and "an abacus" in changed
    assert "| 1 s | 123 s | 246 s | torch conv1d + silu | 123 x |" in changed
    assert (tmp_path / "docs/encoder_speed.svg").read_text() == first


def test_documents_want_measurements(tmp_path):
    command = [sys.executable, RUN, "docs", "--folder", tmp_path, "--docs", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert "no measurements" in result.stderr


def test_encoders_have_equal_parameters(bench):
    from bench.models import LABELS, SIZES, make_encoder

    for size in ("10M", "30M"):
        counts = [
            sum(p.numel() for p in make_encoder(label, *SIZES[size][label]).parameters())
            for label in LABELS
        ]
        assert max(counts) / min(counts) < 1.03
        assert counts[0] / 1e6 == pytest.approx(float(size.rstrip("M")), rel=0.05)
