"""Every recipe from stage 1 to 13, on a miniature of its corpus with a toy model."""

import importlib.util
import json
import os
import shutil

import miniatures
import pytest
from forked import python_folder
from recipes import ROOT, call, environment

RECIPES = sorted(path.parents[1].name for path in ROOT.glob("egs/*/asr1/run.sh"))
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lhotse") is None, reason="lhotse is not installed"
)


def copy_of(recipe, root):
    """Return a recipe's folder below ``root/egs``, without what was made in it."""
    folder = root / "egs" / recipe / "asr1"
    folder.mkdir(parents=True)
    (root / "egs/TEMPLATE").symlink_to(ROOT / "egs/TEMPLATE")
    source = ROOT / "egs" / recipe / "asr1"
    shutil.copy(source / "run.sh", folder)
    for name in ("local", "conf"):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)
    for name, text in miniatures.CONFIGS.items():
        (folder / "conf").mkdir(exist_ok=True)
        (folder / f"conf/{name}.yaml").write_text(text)
    return folder


def run(folder, variables, *words):
    """Run stages of a copy's ``run.sh``, whose commands need not import ESPnet again."""
    recipe = folder.parent.name
    path = {"PATH": f"{python_folder()}:{os.environ['PATH']}"}
    words = [*miniatures.options(recipe), *words]
    env = environment() | variables | path
    return call(folder, *words, script=folder / "run.sh", env=env)


def test_every_recipe_has_a_miniature():
    assert RECIPES == sorted({**miniatures.CORPORA, **miniatures.MADE})


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_all_stages(recipe, tmp_path):
    folder = copy_of(recipe, tmp_path)
    if recipe in miniatures.MADE:
        variables, sets = {}, miniatures.MADE[recipe]
    else:
        variables = miniatures.make(recipe, tmp_path / "corpus")
        sets = miniatures.CORPORA[recipe][2]
    done = run(folder, variables, "--stage", "1", "--stop_stage", "13")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = json.loads(run(folder, variables, "--print_options", "true").stdout)
    found = {path.parts[-3]: json.loads(path.read_text()) for path in folder.rglob("score.json")}
    expected = {name: sets[name] for name in asked["test_sets"].split()}
    assert {name: score["wer"]["sentences"] for name, score in found.items()} == expected
    for score in found.values():
        assert score["missing"] == [] and score["wer"]["units"] > 0
        assert ("ter" in score) == (asked["token_type"] == "bpe")
    (page,) = folder.glob("exp/*/RESULTS.md")
    rows = [line for line in page.read_text().splitlines() if line.startswith("| toy_decode")]
    assert {row.split("|")[1].split()[0].split("/")[-1] for row in rows} >= set(expected)
