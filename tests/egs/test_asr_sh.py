"""The staged driver: options, checks, and stages run for real on a few recordings."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from recipes import ASR, NEEDED, ROOT, call, environment, some_of_an4, steps_of

from mambaasr.config import check_training, merge, read
from mambaasr.recipe.options import find_yaml

RECIPES = sorted(ROOT.glob("egs/*/*/run.sh"))


def test_words_reach_local_data_sh_unharmed(recipe):
    words = ["--one", "two words", "$(touch pwned)", "`touch pwned`", ";touch pwned", "*", ""]
    text = " ".join(map(shlex.quote, words)) + " $(touch"
    call(recipe, *NEEDED, "--stop_stage", "1", "--local_data_opts", text)
    nj, *given = (recipe / "arguments").read_text().splitlines()
    assert nj.startswith("--nj=") and given == [*words, "$(touch"]


def test_stage_1_again_only_when_something_changed(recipe):
    options = [*NEEDED, "--stop_stage", "1"]
    assert "not done yet" in call(recipe, *options).stdout
    assert "stage 1: data: done already" in call(recipe, *options).stdout
    with open(recipe / "local/data.sh", "a") as stream:
        stream.write("# changed\n")
    assert "stage 1: data: local changed" in call(recipe, *options).stdout
    assert "stage 1: data: done already" in call(recipe, *options, "--nj", "1").stdout
    shutil.copytree(recipe / "data/dev", recipe / "data/more")
    more = call(recipe, *options, "--test_sets", "test more").stdout
    assert "stage 1: data: done already" in more
    shutil.rmtree(recipe / "data/more")
    more = call(recipe, *options, "--test_sets", "test more")
    assert more.returncode == 2 and "data/more/wav.scp is missing" in more.stdout
    call(recipe, *options)
    assert "asked for by --force" in call(recipe, *options, "--force", "true").stdout


def test_stage_1_again_when_its_corpus_lies_elsewhere(recipe):
    options = [*NEEDED, "--stop_stage", "1"]
    for corpus in ("/nowhere", "/a b,$(touch pwned)"):  # the recipe does not use AN4
        done = call(recipe, *options, env=environment() | {"AN4": corpus})
    assert "stage 1: data: done already" in done.stdout
    with open(recipe / "local/data.sh", "a") as stream:
        stream.write(': "${AN4-}"\n')
    call(recipe, *options)
    done = call(recipe, *options, env=environment() | {"AN4": corpus})
    assert f"stage 1: data: AN4: downloads, now '{corpus}'" in done.stdout
    done = call(recipe, *options, env=environment() | {"AN4": corpus})
    assert "stage 1: data: done already" in done.stdout


def test_stage_1_again_when_what_it_reads_from_the_environment_changed(recipe):
    options = [*NEEDED, "--stop_stage", "1"]
    with open(recipe / "local/data.sh", "a") as stream:
        stream.write(': "${MINE-}" "${OTHER-}"\n')
    (recipe / "local/more.py").write_text("import os\nos.environ.get('THIRD')\n")
    (recipe / "db.sh").write_text("MINE=${MINE:-/mine}\n")
    variables = environment()
    call(recipe, *options, env=variables)
    assert "stage 1: data: done already" in call(recipe, *options, env=variables).stdout
    for name, before in (("MINE", "/mine"), ("OTHER", "not given"), ("THIRD", "not given")):
        variables[name] = "/else"
        done = call(recipe, *options, env=variables)
        assert f"stage 1: data: {name}: {before}, now /else" in done.stdout
    # A corpus is what a db.sh lists; what else is read may be any folder, such as TMP.
    for name, again in (("OTHER", False), ("MINE", True)):
        (recipe / name).mkdir()
        variables[name] = str(recipe / name)
        call(recipe, *options, env=variables)
        (recipe / name / "new.wav").touch()
        done = call(recipe, *options, env=variables)
        assert ("done already" not in done.stdout) == again


def test_a_mended_data_folder_stays_mended(recipe, test_data):
    some_of_an4(test_data, recipe)
    wrong = recipe / "prepared/test/utt2spk"
    lines = wrong.read_text().splitlines()
    wrong.write_text("\n".join([*lines, "nobody nobody"]) + "\n")
    options = [*NEEDED, "--stop_stage", "3", "--nj", "1"]
    assert call(recipe, *options, "--stop_stage", "1").returncode == 0
    assert (recipe / "data/test/utt2spk").read_text() == wrong.read_text()
    line = ["-m", "mambaasr.bin.check_data", "data/test", "--fix"]
    assert call(recipe, *line, script=sys.executable).returncode == 0
    mended = (recipe / "data/test/utt2spk").read_text()
    assert mended.splitlines() == lines
    assert steps_of(call(recipe, *options))["1: data"] == "done already"
    assert (recipe / "data/test/utt2spk").read_text() == mended


def test_a_tested_set_keeps_its_bad_utterances(recipe, test_data):
    """Whether it is a pure test set or the validation or training set that is tested too."""
    some_of_an4(test_data, recipe)
    for name in ("train", "dev", "test"):
        first = (recipe / "prepared" / name / "text").read_text().split()[0]
        table = recipe / "prepared" / name / "wav.scp"
        table.write_text(re.sub(f"(?m)^{first} .*$", f"{first} gone.wav", table.read_text()))
    options = [*NEEDED, "--stop_stage", "4", "--nj", "1", "--test_sets", "test dev train"]
    steps = steps_of(call(recipe, *options))
    assert len(steps) == 6
    counts = {
        name: [
            len((recipe / "dump/raw" / name / file).read_text().splitlines())
            for file in ("text", "wav.scp")
        ]
        for name in ("org/train", "org/dev", "test", "train", "dev")
    }
    expected = {"org/train": [12, 11], "org/dev": [3, 2], "test": [3, 2]}
    assert counts == expected | {"train": [11, 11], "dev": [2, 2]}


def test_killed_stage_looks_unfinished(recipe):
    options = [*NEEDED, "--stop_stage", "1"]
    (recipe / "wait").touch()
    run = subprocess.Popen(
        [str(ASR), *options], cwd=recipe, env=environment(), stdout=subprocess.DEVNULL
    )
    for _ in range(100):
        if (recipe / "arguments").exists():
            break
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    (recipe / "wait").unlink()
    assert not (recipe / "data/.stages/1_data.json").exists()
    done = call(recipe, *options)
    assert done.returncode == 0 and "not done yet" in done.stdout


def test_failing_stage_stops_the_run(recipe):
    (recipe / "local/data.sh").write_text("#!/bin/sh\nexit 3\n")
    done = call(recipe, *NEEDED, "--stop_stage", "3")
    assert done.returncode == 3
    assert "stage 1: data: failed with exit status 3; log: data/log/1_data.log" in done.stdout
    assert "stage 3" not in done.stdout


def test_without_an_environment_it_says_how_to_get_one(tmp_path):
    template = tmp_path / "egs/TEMPLATE/asr1"
    shutil.copytree(ASR.parent, template)
    (tmp_path / "c.yaml").touch()
    done = subprocess.run(
        [str(template / "asr.sh"), *NEEDED, "--asr_config", "c.yaml"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert f'run "make env" in {tmp_path}' in done.stderr


@pytest.mark.parametrize("script", RECIPES, ids=lambda path: path.parts[-3])
def test_recipes(script, tmp_path):
    """run.sh is short, works from any folder, and its configs are there and right."""
    assert len(script.read_text().splitlines()) <= 25
    done = call(tmp_path, "--help", script=script)
    assert done.returncode == 0
    values = dict(re.findall(r"^  --(\w+) .*\[(.*)\]$", done.stdout, re.MULTILINE))
    assert values["train_set"] and values["valid_set"] and values["test_sets"]
    folder = script.parent
    find_yaml("inference_config", values["inference_config"], recipe=folder)
    base = read(folder / find_yaml("asr_config", values["asr_config"], recipe=folder))
    check_training(base)
    for block in [*folder.glob("conf/*coder/*.yaml"), *folder.glob("conf/optim/*")]:
        check_training(merge(base, [read(block)]))


def test_task_tokens_and_bytes_on_real_speech(recipe, test_data):
    some_of_an4(test_data, recipe)
    for name in ("train", "dev", "test"):
        text = (recipe / "prepared" / name / "text").read_text().splitlines()
        languages = "".join(f"{line.split()[0]} en\n" for line in text)
        (recipe / "prepared" / name / "utt2lang").write_text(languages)
    (recipe / "conf/symbols").write_text("<|en|>\n<|transcribe|>\n")
    options = [*NEEDED, "--stop_stage", "5", "--nj", "1", "--token_type", "bpe", "--nbpe", "290"]
    options += ["--bpe_byte_fallback", "true", "--bpemode", "bpe", "--bpe_nlsyms", "ENTER,RUBOUT"]
    options += ["--nlsyms_txt", "conf/symbols", "--text_prefix", "<|{lang}|> <|transcribe|>"]
    done = call(recipe, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("train", "dev"):
        for line in (recipe / f"dump/raw/{name}/text").read_text().splitlines():
            assert line.split()[1:3] == ["<|en|>", "<|transcribe|>"]
    assert "<|" not in (recipe / "dump/raw/test/text").read_text()
    tokens = (recipe / "data/token_list/bpe_bpe290/tokens.txt").read_text().splitlines()
    assert len(tokens) == 290
    assert {"▁<|en|>", "▁<|transcribe|>", "<0x00>", "ENTER", "RUBOUT"} <= set(tokens)
    again = steps_of(call(recipe, *options, "--text_prefix", "<|{lang}|>"))
    assert again["4: filter train"].startswith("--text_prefix: ")
    assert again["3: format audio of train"] == "done already"


def test_stages_1_to_5_on_real_speech(recipe, test_data):
    some_of_an4(test_data, recipe)
    options = [*NEEDED, "--stop_stage", "5", "--nj", "1", "--min_wav_duration", "0.2"]
    first = steps_of(call(recipe, *options))
    assert list(first) == [
        "1: data",
        *(f"3: format audio of {name}" for name in ("train", "dev", "test")),
        *(f"4: filter {name}" for name in ("train", "dev")),
        "5: token list char",
        "5: check of the sets with char",
    ]
    assert set(first.values()) == {"it was not done yet"}
    assert set(steps_of(call(recipe, *options)).values()) == {"done already"}

    longer = steps_of(call(recipe, *options, "--min_wav_duration", "1.5"))
    redone = {step for step, said in longer.items() if said != "done already"}
    again = ["5: token list char", "5: check of the sets with char"]
    assert redone == {"4: filter train", "4: filter dev", *again}
    assert longer["4: filter dev"] == "--min_wav_duration: 0.2, now 1.5"
    assert longer["5: token list char"] == "dump/raw/train/text changed"
    assert len((recipe / "dump/raw/test/text").read_text().splitlines()) == 3

    perturbed = call(recipe, *options, "--speed_perturb_factors", "0.9 1.0", "--stop_stage", "2")
    assert steps_of(perturbed)["2: speed perturbation of train"] == "it was not done yet"
    assert len((recipe / "data/train_sp/text").read_text().splitlines()) == 24
    skipped = call(recipe, *options, "--skip_stages", "1 3 5", "--skip_train", "true")
    assert [step[0] for step in steps_of(skipped)] == ["4", "4"]
