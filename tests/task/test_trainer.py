"""The progress bar shows an epoch's way and the latest loss, on a terminal only."""

import io
import sys
from types import SimpleNamespace

import pytest

from mambaasr.task.trainer import Progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    values = {"loss": [SimpleNamespace(value=1.25)], "acc": [SimpleNamespace(value=float("nan"))]}
    progress = Progress(["a", "b"], "epoch 3/50", SimpleNamespace(stats=values))
    assert len(progress) == 2
    assert list(progress) == ["a", "b"]
    assert ("epoch 3/50:   0%" in screen.getvalue()) == terminal
    assert progress._latest() == {"loss": "1.250"}
