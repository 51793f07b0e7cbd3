"""Every recipe from stage 1 to 13, on a miniature of its corpus with a toy model."""

import importlib.util
import json
import os
import shutil

import corpora
import miniatures
import pytest
from forked import python_folder
from recipes import ROOT, call, environment

RECIPES = {path.parents[1].name: path.parent for path in sorted(ROOT.glob("egs/*/*/run.sh"))}
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lhotse") is None, reason="lhotse is not installed"
)


def copy_of(recipe, root):
    """Return a recipe's folder below ``root/egs``, without what was made in it."""
    source = RECIPES[recipe]
    folder = root / source.relative_to(ROOT)
    folder.mkdir(parents=True)
    (root / "egs/TEMPLATE").symlink_to(ROOT / "egs/TEMPLATE")
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
    assert RECIPES.keys() == {**miniatures.CORPORA, **miniatures.MADE}.keys()


@pytest.mark.slow
def test_bad_files_are_reported_and_harm_no_others(tmp_path):
    """A test set keeps what is missing or corrupt, the training set goes on without it."""
    folder = copy_of("librispeech_100", tmp_path)
    root = corpora.librispeech(tmp_path / "corpus", miniatures.ALL.split(), utterances=4)
    gone, spoilt, train = (
        next(root.glob(f"{part}/*/198/*-000{number}.flac"))
        for part, number in (("test-clean", 1), ("test-clean", 2), ("train-clean-100", 3))
    )
    gone.unlink()
    for path in (spoilt, train):
        path.write_bytes(path.read_bytes()[:60] + b"and no more")
    words = ["--test_sets", "test_clean test_other", "--score_normalizer", "spgispeech"]
    done = run(folder, {"LIBRISPEECH": str(root)}, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = {path.parts[-3]: json.loads(path.read_text()) for path in folder.rglob("score.json")}
    assert {name: score["wer"]["sentences"] for name, score in scores.items()} == {
        "test_clean": 4,
        "test_other": 4,
    }
    assert scores["test_clean"]["missing"] == [gone.stem, spoilt.stem]
    assert scores["test_clean"]["wer"]["deletions"] >= 8 and scores["test_other"]["missing"] == []
    assert scores["test_clean"]["normalized_wer"]["units"] == 16
    for name, paths in (("test_clean", [gone, spoilt]), ("org/train_clean_100", [train])):
        report = (folder / "dump/raw" / name / "report.tsv").read_text()
        assert all(str(path) in report for path in paths)
    assert len((folder / "dump/raw/train_clean_100/text").read_text().splitlines()) == 3
    (page,) = folder.glob("exp/*/RESULTS.md")
    assert "test_clean: 2 were left out by stage 3 (report.tsv)" in page.read_text()
    assert "normalized by spgispeech" in page.read_text()


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
    (page,) = folder.rglob("RESULTS.md")
    rows = [line for line in page.read_text().splitlines() if line.startswith("| toy_decode")]
    assert {row.split("|")[1].split()[0].split("/")[-1] for row in rows} >= set(expected)
