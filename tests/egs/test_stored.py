"""A recipe from its corpus to its error rates, for each way to store its sets."""

import os
import re
import shutil

import pytest
from forked import python_folder
from recipes import call, environment, small_recipe, steps_of

pytestmark = pytest.mark.slow
SPEEDS = ["--speed_perturb_factors", "0.9 1.0"]
DATA = "exp/asr_train_asr_{}_char{}"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, test_data):
    return small_recipe(test_data, tmp_path_factory.mktemp("recipe"))


def run(recipe, *options):
    """Run stages of the recipe, whose commands need not import ESPnet again."""
    path = {"PATH": f"{python_folder()}:{os.environ['PATH']}"}
    return call(recipe, *options, script="./run.sh", env=environment() | path)


def said_of(recipe, experiment):
    """Return what the training says of its epoch, and the transcripts."""
    log = (recipe / experiment / "train.log").read_text()
    losses = re.findall(r"\bloss=([\d.]+)", log.rpartition("epoch results:")[2])
    (text,) = (recipe / experiment).glob("decode_*/test/text")
    return [float(loss) for loss in losses], text.read_text()


def test_archives_and_features_give_what_files_do(recipe):
    steps_of(run(recipe, *SPEEDS))
    expected = said_of(recipe, DATA.format("raw", "_sp"))
    arks = ["--audio_format", "flac.ark", "--dumpdir", "dump_ark", "--expdir", "exp_ark"]
    steps_of(run(recipe, *SPEEDS, *arks))
    assert not list((recipe / "dump_ark").rglob("*.flac"))
    assert len(list((recipe / "data/train_sp").rglob("*.ark"))) == 1
    losses, text = said_of(recipe, DATA.format("raw", "_sp").replace("exp", "exp_ark", 1))
    assert losses == pytest.approx(expected[0], rel=1e-3) and text == expected[1]
    steps_of(run(recipe, *SPEEDS, "--feats_type", "fbank"))
    losses, text = said_of(recipe, DATA.format("fbank", "_sp"))
    assert losses == pytest.approx(expected[0], rel=1e-3) and text == expected[1]
    done = run(recipe, *SPEEDS, "--feats_type", "fbank")
    assert set(steps_of(done).values()) == {"done already"}


def test_features_of_a_users_own(recipe):
    """Those that the package computed, named by data folders that have no audio."""
    run(recipe, "--feats_type", "fbank", "--stop_stage", "3")
    script = recipe / "local/data.sh"
    script.write_text(script.read_text().replace("prepared/", "own/"))
    for name in ("train", "dev", "test"):
        stored = recipe / "dump/fbank" / ("" if name == "test" else "org") / name
        (recipe / "own" / name).mkdir(parents=True)
        for file in ("feats.scp", "text", "utt2spk"):
            shutil.copy(stored / file, recipe / "own" / name)
    # local/data.sh copies into the folders that are there.
    shutil.rmtree(recipe / "data")
    done = run(recipe, "--feats_type", "extracted")
    steps = steps_of(done)
    assert steps["3: features of train"] == "it was not done yet"
    losses, text = said_of(recipe, DATA.format("extracted", ""))
    assert len(losses) == 2 and len(text.splitlines()) == 3
