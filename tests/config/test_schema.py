"""What trainings accept is ESPnet's own answer, asked for once."""

import subprocess
import sys

import pytest

from mambaasr.config import schema as module
from mambaasr.config.schema import schema
from mambaasr.errors import UserError
from mambaasr.registry import CLASSES, of_task

ANSWER = {"asr": {"options": {}, "slots": {}}, "lm": {}}


def test_our_classes_are_known():
    named = set()
    for task in ("asr", "lm"):
        for slot, classes in of_task(task).items():
            for name in classes:
                found = schema(task)["slots"][slot]["classes"][name]
                assert found and "**" not in found
                named.add(slot)
    assert named == set(CLASSES)
    encoder = schema("asr")["slots"]["encoder"]["classes"]["conmamba"]
    assert "num_blocks" in encoder and "input_size" not in encoder


def test_options_are_those_of_the_parser():
    """A slot's options, ours beyond ESPnet's and their types."""
    options = schema("asr")["options"]
    assert options["grad_clip_value"] == {"kinds": ["float", "none"]}
    assert options["token_type"]["choices"][0] == "bpe"
    assert options["encoder_conf"] == {"several": True}
    assert options["keep_nbest_models"] == {"several": True, "kinds": ["int"], "least": 1}
    assert options["max_epoch"] == {"kinds": ["int"], "least": 1}
    assert options["use_amp"] == {"kinds": ["bool"]}
    assert {"encoder", "encoder_conf", "ctc_conf", "config"} <= options.keys()
    assert "encoder" not in schema("lm")["options"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; returns a function that reads what is accepted, and how often was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(module, "_ask", lambda: asked.append(1) or ANSWER)

    def look():
        module._schemas.cache_clear()
        found = module.schema("asr")
        return found, len(asked)

    yield look
    module._schemas.cache_clear()


def test_it_is_asked_once_for_the_same_versions(cache, tmp_path, monkeypatch):
    assert cache() == cache() == (ANSWER["asr"], 1)
    monkeypatch.setattr(module.metadata, "version", lambda package: "another")
    assert cache() == cache() == (ANSWER["asr"], 2)
    (file,) = (tmp_path / "mambaasr").iterdir()
    file.write_text(file.read_text()[:-9])
    assert cache() == cache() == (ANSWER["asr"], 3)
    file.write_text("[]")
    assert cache() == (ANSWER["asr"], 4)


def test_a_change_of_our_sources_is_seen(cache, tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "encoder").mkdir(parents=True)
    monkeypatch.setattr(module, "_PACKAGE", package)
    assert cache() == cache() == (ANSWER["asr"], 1)
    (package / "encoder/new.py").write_text("x = 1\n")
    assert cache() == cache() == (ANSWER["asr"], 2)


def test_a_home_that_cannot_be_written_is_no_error(cache, tmp_path, caplog):
    (tmp_path / "mambaasr").write_text("a file where the folder would be")
    assert cache() == (ANSWER["asr"], 1)
    assert "XDG_CACHE_HOME" in caplog.text


def test_what_cannot_be_imported_is_one_line(monkeypatch):
    monkeypatch.setattr(module, "_ANSWER", "mambaasr.task.nothing")
    with pytest.raises(UserError, match="cannot be asked .*ModuleNotFoundError.*mambaasr"):
        module._ask()


def test_nothing_heavy_is_imported(tmp_path):
    schema("asr")
    path = tmp_path / "train.yaml"
    path.write_text("encoder: conmamba\nencoder_conf:\n  no_such_option: 3\n")
    code = (
        "import sys\nfrom mambaasr.config import check_command\n"
        f"try:\n    check_command(['--config', {str(path)!r}])\n"
        "except Exception as error:\n    print(error)\n"
        "assert not {'torch', 'espnet2', 'numpy'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "line 3: encoder_conf has no option `no_such_option`" in result.stdout
