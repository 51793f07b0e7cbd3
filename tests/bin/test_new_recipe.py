"""A new recipe, inside the clone and outside, up to the token list of a corpus put into it."""

import os
import shutil

import pytest
from corpora import write_audio
from recipes import ROOT, call, steps_of

from mambaasr.bin.new_recipe import main
from mambaasr.errors import UserError
from mambaasr.recipe.new import new_recipe

SKELETON = ROOT / "egs/TEMPLATE/asr1/skeleton"


def files(folder):
    """Return path -> content of all files below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {str(path.relative_to(folder)): path.read_text() for path in found}


@pytest.fixture
def egs(tmp_path):
    """A folder of recipes outside the clone, under a name that would hurt a careless shell."""
    return tmp_path / "my 'recipes' $(touch pwned)"


def test_inside_a_clone(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(SKELETON, clone / "egs/TEMPLATE/asr1/skeleton")
    shutil.copy(ROOT / "egs/TEMPLATE/asr1/asr.sh", clone / "egs/TEMPLATE/asr1")
    (clone / "egs/TEMPLATE/asr1/skeleton/run.sh").chmod(0o644)
    monkeypatch.chdir(clone / "egs")
    recipe = new_recipe("mine", repository=clone)
    assert recipe == clone / "egs/mine/asr1"
    assert files(recipe) == files(SKELETON)
    assert os.access(recipe / "run.sh", os.X_OK) and os.access(recipe / "local/data.sh", os.X_OK)
    assert not (clone / "egs/TEMPLATE").is_symlink()
    assert sorted(path.name for path in recipe.parent.iterdir()) == ["asr1"]


def test_outside_the_clone(egs, capsys):
    assert main(["mine", "--egs", str(egs)]) == 0
    assert str(egs / "mine/asr1") in capsys.readouterr().out
    assert (egs / "TEMPLATE").resolve() == ROOT / "egs/TEMPLATE"
    assert new_recipe("other", egs) == egs / "other/asr1"
    helped = call(egs / "mine/asr1", "--help", script="./run.sh")
    assert helped.returncode == 0, helped.stderr
    assert "--asr_config" in helped.stdout and "[train_small]" in helped.stdout


def test_outside_the_clone_nothing_is_written_into_it(egs, monkeypatch):
    egs.mkdir()
    monkeypatch.chdir(egs)
    assert new_recipe("mine") == egs / "mine/asr1"
    assert (egs / "TEMPLATE").is_symlink() and not (ROOT / "egs/mine").exists()


def test_nothing_is_overwritten(egs):
    recipe = new_recipe("mine", egs)
    (recipe / "run.sh").write_text("mine\n")
    with pytest.raises(UserError, match="is there already"):
        new_recipe("mine", egs)
    assert (recipe / "run.sh").read_text() == "mine\n"


def test_a_name_that_is_no_folder_is_refused(egs):
    for name in ("", "a/b", "..", "-x", "a b", "TEMPLATE"):
        with pytest.raises(UserError, match="no name for a recipe"):
            new_recipe(name, egs)
    assert not egs.exists()


def test_three_utterances_pass_the_data_stages(egs, tmp_path):
    corpus = tmp_path / "the corpus"
    for seed, name in enumerate(("anna_1", "bob_1", "eve_1")):
        write_audio(corpus / "wavs" / f"{name}.wav", seed=seed)
    (corpus / "text.txt").write_text("anna_1 Turn it on.\nbob_1 what’s the time?\neve_1.wav yes\n")
    recipe = new_recipe("mine", egs)
    options = ["--stop_stage", "5", "--nj", "1", "--local_data_opts", f"--corpus '{corpus}'"]
    done = call(recipe, *options, script="./run.sh")
    assert [title.partition(":")[0] for title in steps_of(done)] == list("13334455")
    texts = [(recipe / f"data/{name}/text").read_text() for name in ("train", "dev", "test")]
    assert sorted(texts) == ["anna_1 TURN IT ON\n", "bob_1 WHAT'S THE TIME\n", "eve_1 YES\n"]
    for name in ("train", "dev", "test"):
        assert (recipe / "dump/raw" / name / "wav.scp").is_file()
    assert "<space>" in (recipe / "data/token_list/char/tokens.txt").read_text().split()
