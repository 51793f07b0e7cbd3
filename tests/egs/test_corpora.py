"""Stage 1 of the big recipes, on small trees with their corpora's layouts."""

import importlib.util
import subprocess
from pathlib import Path

import corpora
import pytest
from recipes import environment

from mambaasr.data.folder import DataFolder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lhotse") is None, reason="lhotse is not installed"
)
EGS = Path(__file__).resolve().parents[2] / "egs"
ALL = "train-clean-100 train-clean-360 train-other-500 dev-clean dev-other test-clean test-other"
SIX = "dutch french german italian polish spanish"
# recipe -> (variable, how the tree is made, sets and their utterances)
RECIPES = {
    "librispeech": (
        "LIBRISPEECH",
        lambda root: corpora.librispeech(root, ALL.split()),
        dict(train_960=6, dev=4, dev_clean=2, dev_other=2, test_clean=2, test_other=2),
    ),
    "librispeech_100": (
        "LIBRISPEECH",
        lambda root: corpora.librispeech(root, ALL.split()),
        dict(train_clean_100=2, dev=4, dev_clean=2, dev_other=2, test_clean=2, test_other=2),
    ),
    "aishell": ("AISHELL", corpora.aishell, dict(train=2, dev=2, test=2)),
    "tedlium3": ("TEDLIUM3", corpora.tedlium, dict(train=2, dev=2, test=2)),
    "mls": ("MLS", lambda root: corpora.mls(root, SIX.split()), dict(train=6, dev=6, test=6)),
}


def prepare(recipe, tmp_path, **variables):
    line = [
        str(EGS / recipe / "asr1/local/data.sh"),
        "--nj=2",
        "--data_dir",
        str(tmp_path / "data"),
    ]
    env = environment() | variables
    return subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("recipe", RECIPES)
def test_data_sh(recipe, tmp_path):
    variable, make, sets = RECIPES[recipe]
    done = prepare(recipe, tmp_path, **{variable: str(make(tmp_path / "the corpus"))})
    assert done.returncode == 0, done.stderr
    found = {name: DataFolder.read(tmp_path / "data" / name) for name in sets}
    assert {name: len(folder.utterances) for name, folder in found.items()} == sets
    assert all(folder.missing_audio() == [] for folder in found.values())


@pytest.mark.parametrize("recipe, variable", [("librispeech", "LIBRISPEECH"), ("csj", "CSJ")])
def test_without_the_corpus_it_says_how_to_get_it(recipe, variable, tmp_path):
    done = prepare(recipe, tmp_path, **{variable: str(tmp_path / "nowhere")})
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert f"{variable}=FOLDER ./run.sh" in done.stderr and done.stderr.count("\n") == 1
