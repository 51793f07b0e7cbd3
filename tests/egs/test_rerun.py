"""What a rerun does again, and why: after other code, devices, files and epochs."""

import json
import re

import pytest
from recipes import call, small_recipe, steps_of

pytestmark = pytest.mark.slow
TAG = "exp/asr_train_asr_raw_char"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, test_data):
    """A recipe that was run once, from its corpus to its error rates."""
    folder = small_recipe(test_data, tmp_path_factory.mktemp("recipe"))
    first = steps_of(run(folder))
    assert len(first) == 13 and set(first.values()) == {"it was not done yet"}
    return folder


def run(recipe, *options):
    return call(recipe, *options, script="./run.sh")


def redone(recipe, *options):
    """Return the steps that a rerun does again, with the reasons."""
    return {
        step: said
        for step, said in steps_of(run(recipe, *options)).items()
        if said != "done already"
    }


def pull(recipe, file):
    """Let every step have been done by another version of a file of the package."""
    for marker in recipe.rglob(".stages/*.json"):
        made = json.loads(marker.read_text())
        if file in made["code"]:
            made["code"][file] = "another"
            marker.write_text(json.dumps(made))


def test_nothing_changed(recipe):
    assert redone(recipe) == {}


def test_a_deleted_average_is_made_again(recipe):
    average = recipe / TAG / "valid.acc.ave.pth"
    content = average.read_bytes()
    average.resolve().unlink()
    assert redone(recipe) == {"11: training": f"{TAG}/valid.acc.ave.pth is missing"}
    assert average.read_bytes() == content


def test_a_change_in_scoring_scores_again_and_no_more(recipe):
    pull(recipe, "mambaasr/score/error_rate.py")
    why = "its code changed (mambaasr/score/error_rate.py)"
    assert redone(recipe) == {"13: scoring of test": why}
    assert redone(recipe) == {}


def test_a_change_in_preparation_goes_as_far_as_it_changes_something(recipe):
    """What is done anew comes out the same, so that neither token list nor model is touched."""
    pull(recipe, "mambaasr/data/format.py")
    why = "its code changed (mambaasr/data/format.py)"
    steps = [f"3: format audio of {name}" for name in ("train", "dev", "test")]
    steps += [f"4: filter {name}" for name in ("train", "dev")]
    assert redone(recipe, "--stop_stage", "11") == dict.fromkeys(steps, why)
    assert redone(recipe, "--stop_stage", "11") == {}


def test_a_change_in_the_model_is_told_of_a_training_and_decodes_again(recipe):
    pull(recipe, "mambaasr/encoder/conmamba.py")
    weights = (recipe / TAG / "1epoch.pth").stat().st_mtime_ns
    done = run(recipe, "--stage", "10")
    why = "its code changed (mambaasr/encoder/conmamba.py)"
    assert f"stage 11: training: stays as it is, though {why}; to train anew" in done.stdout
    steps = steps_of(done)
    assert steps["10: statistics"] == steps["12: decoding of test"] == why
    assert steps["13: scoring of test"] == "done already"
    assert (recipe / TAG / "1epoch.pth").stat().st_mtime_ns == weights
    assert redone(recipe, "--stage", "10") == {}


def test_the_number_of_devices_decides_nothing(recipe):
    assert redone(recipe, "--stage", "11", "--ngpu", "2", "--gpu_inference", "true") == {}


def test_files_inside_of_options_count(recipe):
    """In what is passed on to the training, to the decoding and to local/data.sh."""
    (recipe / "conf/other.yaml").write_text("beam_size: 1\n")
    (recipe / "own.txt").write_text("one")
    for stage, options, step in (
        ("1", ["--local_data_opts", "--own own.txt"], "1: data"),
        ("12", ["--inference_args", "--config conf/other.yaml"], "12: decoding of test"),
    ):
        options = ["--stage", stage, "--stop_stage", stage, *options]
        assert step in redone(recipe, *options)
        assert redone(recipe, *options) == {}
        for file in ("conf/other.yaml", "own.txt"):
            with open(recipe / file, "a") as stream:
                stream.write("# changed\n")
        assert re.fullmatch(r"(conf/other.yaml|own.txt) changed", redone(recipe, *options)[step])


def test_more_epochs(recipe):
    """Another folder by default, which is said; the same one when asked for, with its history."""
    more = ["--stage", "11", "--stop_stage", "11", "--asr_args", "--max_epoch 2"]
    done = run(recipe, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    said = f"{TAG} is the same training but for 1 epochs instead of 2"
    assert said in done.stdout
    (recommended,) = re.findall(r"add\n  (--asr_exp .*)", done.stdout)
    done = run(recipe, *more, *recommended.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming after epoch 1 of 2" in done.stdout and "the same training" not in done.stdout
    assert (recipe / TAG / "2epoch.pth").exists()
    found = starts(recipe / TAG)
    assert [start["epoch"] for start in found] == [1, 2]
    assert "--max_epoch 2" in found[1]["command"] and found[1]["folder"] == str(recipe)


def starts(folder):
    return json.loads((folder / "provenance.json").read_text())
