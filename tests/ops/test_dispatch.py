"""Backends are named; a named one never falls back."""

import logging
import subprocess
import sys

import pytest
import torch

from mambaasr.ops import dispatch
from mambaasr.ops.selective_scan import naive


class Missing:
    """A backend that cannot run."""

    @staticmethod
    def unavailable(tensor):
        return "it is not built; run `make env`"


def test_auto_takes_the_best_that_runs_and_says_why_not_the_others(caplog):
    dispatch._log_once.cache_clear()
    with caplog.at_level(logging.INFO, "mambaasr.ops"):
        chosen = dispatch.choose("scan", torch.zeros(1), {"cpu": Missing, "naive": naive}, "auto")
    assert chosen is naive
    assert "backend 'naive'" in caplog.text and "run `make env`" in caplog.text


def test_a_named_backend_that_is_missing_is_an_error():
    with pytest.raises(RuntimeError, match="backend 'cpu' cannot run: it is not built"):
        dispatch.choose("scan", torch.zeros(1), {"cpu": Missing, "naive": naive}, "cpu")
    with pytest.raises(RuntimeError, match="it has no backend 'triton'; choose auto or"):
        dispatch.choose("scan", torch.zeros(1), {"naive": naive}, "triton")


def test_an_unknown_name_is_an_error(monkeypatch):
    monkeypatch.setenv("MAMBAASR_BACKEND", "gpu")
    with pytest.raises(ValueError, match="backend is 'gpu'; choose one of auto, cpu"):
        dispatch.choose("scan", torch.zeros(1), {"naive": naive})


def test_the_environment_names_a_backend(monkeypatch):
    monkeypatch.setenv("MAMBAASR_BACKEND", "naive")
    assert dispatch.choose("scan", torch.zeros(1), {"cpu": Missing, "naive": naive}) is naive


def test_ops_and_layers_import_torch_alone():
    code = (
        "import torch, sys; before = {m.split('.')[0] for m in sys.modules};"
        "import mambaasr.ops, mambaasr.layers.mamba, mambaasr.layers.block;"
        "new = {m.split('.')[0] for m in sys.modules} - before;"
        "sys.exit(str(new & {'espnet', 'espnet2', 'dask', 'triton'} or '') or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class Choosy:
    """A backend that runs, but not with every option."""

    @staticmethod
    def unavailable(tensor):
        return None

    @staticmethod
    def refuses(*, initial_state):
        return None if initial_state is None else "it has no initial_state; 'naive' has"


def test_auto_looks_at_what_the_call_asks_for():
    both = {"cpu": Choosy, "naive": naive}
    assert dispatch.choose("scan", torch.zeros(1), both, initial_state=None) is Choosy
    assert dispatch.choose("scan", torch.zeros(1), both, initial_state=1) is naive
    with pytest.raises(RuntimeError, match="'cpu' cannot run: it has no initial_state; 'naive'"):
        dispatch.choose("scan", torch.zeros(1), both, "cpu", initial_state=1)
