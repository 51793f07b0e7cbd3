"""Which code a command runs: found by reading, and true of what really runs."""

import os
import subprocess
import sys

import pytest
from commands import loaded

from mambaasr import source
from mambaasr.source import code_of


def modules(command, folder=None):
    return {name for name in code_of(command, folder) if "/" in name}


def test_a_commands_code_is_its_own():
    score = modules(["python", "-m", "mambaasr.bin.score", "--ref", "x"])
    assert {"mambaasr/bin/score.py", "mambaasr/score/error_rate.py"} <= score
    assert "mambaasr/bin/__init__.py" in score
    assert not {name for name in score if name.startswith(("mambaasr/task", "mambaasr/layers"))}
    train = modules(["python", "-m", "torch.distributed.run", "-m", "mambaasr.bin.asr_train"])
    assert not {name for name in train if name.startswith("mambaasr/score")}
    assert not {name for name in train if name.startswith(("mambaasr/encoder", "mambaasr/layers"))}


def test_it_is_the_same_in_every_process():
    code = "from mambaasr.source import code_of; print(code_of(['mambaasr.bin.score']))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1


def test_classes_are_those_that_are_chosen(tmp_path):
    """One that nobody chooses may change, and new ones may come, without an effect."""
    config = tmp_path / "config.yaml"
    config.write_text("encoder: conmamba\ndecoder: transformer\n--frontend: [fbank, default]\n")
    line = ["python", "-m", "mambaasr.bin.asr_train"]
    chosen = {name for name in code_of(line, configs=[config]) if "/" in name}
    assert {"mambaasr/encoder/conmamba.py", "mambaasr/ops/native/kernels.cpp"} <= chosen
    assert {"mambaasr/frontend/fbank.py", "mambaasr/layers/mamba.py"} <= chosen
    assert "mambaasr/ops/selective_scan/triton_kernels.py" in chosen
    assert not {name for name in chosen if "decoder" in name or "madeon" in name}
    assert "mambaasr/decoder/madeon.py" in modules([*line, "--decoder", "madeon"])
    assert "mambaasr/lm/mamba.py" in modules(["-m", "mambaasr.bin.lm_train", "--lm", "mamba"])
    assert "mambaasr/registry.py" not in chosen and "mambaasr/__init__.py" not in chosen


def test_releases_of_others_where_they_are_used():
    def releases(module):
        return code_of(["-m", module]).keys() & set(source.OTHERS.values())

    assert releases("mambaasr.bin.asr_train") == {"torch", "espnet", "soundfile", "av", "soxr"}
    assert releases("mambaasr.bin.make_tokens") == {"sentencepiece"}
    assert releases("mambaasr.bin.prepare_corpus") == {"lhotse"}
    assert releases("mambaasr.bin.format_audio") == {"av", "soundfile", "soxr"}
    assert releases("mambaasr.bin.join_texts") == set()
    assert code_of(["-m", "mambaasr.bin.asr_train"])["espnet"].startswith("2026")


def test_programs_of_a_recipe_say_what_they_call(tmp_path):
    (tmp_path / "data.sh").write_text(
        "python -m mambaasr.bin.prepare_corpus x\nmambaasr  filter_data y\n"
    )
    (tmp_path / "torn.py").write_text("def f(:")
    (tmp_path / "own.py").write_text("import os\nfrom mambaasr.data.audio import read_audio\n")
    found = modules(["local/data.sh", "--nj=2"], tmp_path)
    assert {"mambaasr/data/corpora.py", "mambaasr/bin/filter_data.py"} <= found
    assert "mambaasr/data/audio.py" in found and not any("own.py" in name for name in found)
    assert modules(["local/data.sh", "--nj=2"]) == set()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in the place of this one; a function that rewrites a module of it."""
    monkeypatch.setattr(source, "ROOT", tmp_path)
    (tmp_path / "mambaasr/bin").mkdir(parents=True)
    (tmp_path / "mambaasr/bin/__init__.py").touch()

    def write(name, text):
        (tmp_path / "mambaasr" / name).write_text(text)
        return code_of(["python", "-m", "mambaasr.bin.x"])

    write("__init__.py", "")
    write("bin/x.py", "from mambaasr.y import f\n")
    return write


def test_comments_and_docstrings_are_no_code(package):
    first = package("y.py", "def f(x):\n    return x + 1\n")
    same = package(
        "y.py", '"""Doc."""\n\n\ndef f( x ):  # why\n    """Doc."""\n    return (x + 1)\n'
    )
    assert same == first
    other = package("y.py", "def f(x):\n    return x + 2\n")
    assert {name for name in first if first[name] != other[name]} == {"mambaasr/y.py"}


def test_imports_of_every_kind_are_followed(package):
    for name in "abcd":
        package(f"{name}.py", "")
    (source.ROOT / "mambaasr/k").mkdir()
    package("k/__init__.py", "")
    package("k/kernel.cpp", "int x;")
    text = "import mambaasr.a\n\ndef f():\n    from mambaasr import b, k\n    load('mambaasr.c')\n"
    found = package("y.py", text)
    assert {f"mambaasr/{name}.py" for name in "abc"} <= found.keys()
    text += "if TYPE_CHECKING:\n    from mambaasr import d\n"
    assert package("y.py", text).keys() == found.keys()
    assert "mambaasr/d.py" not in found and "mambaasr/k/kernel.cpp" in found
    assert package("k/kernel.cpp", "int y;") != found


def test_a_class_that_only_documents_itself(package):
    package("y.py", 'class Error(Exception):\n    """What went wrong."""\n')


def test_nothing_runs_that_is_not_found(tmp_path):
    """A command run for real loads nothing of this package that was not read from its sources."""
    (tmp_path / "text").write_text("a HELLO WORLD\nb YES\n")
    score = ["--ref", "text", "--hyp", "text", "--token_type", "char", "--output_dir", "score"]
    tokens = ["--token_type", "char", "--text", "text", "--out", "tokens"]
    for name, arguments in (("score", score), ("make_tokens", tokens)):
        command = ["-m", f"mambaasr.bin.{name}", *arguments]
        assert len(loaded(command, tmp_path)) > 4
        assert loaded(command, tmp_path) <= modules(command) | source.UNCOUNTED
