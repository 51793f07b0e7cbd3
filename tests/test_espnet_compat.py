"""One file knows ESPnet."""

import ast
import importlib
from pathlib import Path

import pytest

import mambaasr
from mambaasr import espnet_compat

PACKAGE = Path(mambaasr.__file__).parent


def imported(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_no_other_file_imports_from_espnet():
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] in ("espnet", "espnet2") for name in imported(path))
    ]
    assert found == ["espnet_compat.py"]


def test_ops_and_layers_need_no_espnet():
    for folder in ("ops", "layers"):
        for path in (PACKAGE / folder).rglob("*.py"):
            assert "mambaasr.espnet_compat" not in imported(path), path


def test_names_come_when_they_are_asked_for():
    for name, module in espnet_compat._LATER.items():
        assert getattr(espnet_compat, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute 'Trainee'"):
        espnet_compat.Trainee  # noqa: B018


def test_patches_end_with_their_block():
    module = importlib.import_module("espnet2.tasks.abs_task")
    before, seen = module.load_pretrained_model, []
    with pytest.raises(ZeroDivisionError):
        with espnet_compat.initial_weights_loaded_by(lambda *args, **_: seen.append(args)):
            module.load_pretrained_model(init_param="x", model=None)
            raise ZeroDivisionError
    assert seen == [(before,)] and module.load_pretrained_model is before
