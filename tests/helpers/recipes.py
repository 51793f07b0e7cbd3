"""The staged driver, called on a recipe with a few recordings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASR = ROOT / "egs/TEMPLATE/asr1/asr.sh"
NEEDED = ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]
NEEDED += ["--asr_config", "conf/train_asr.yaml", "--token_type", "char"]

DATA_SH = """#!/usr/bin/env bash
set -euo pipefail
printf '%s\\n' "$@" > arguments
[[ ! -e wait ]] || exec sleep 60
for set in train dev test; do mkdir -p "data/${set}"; cp -r "prepared/${set}" data; done
"""


TINY = """frontend: fbank
encoder: conmamba
encoder_conf: {output_size: 16, num_blocks: 1, linear_units: 32}
decoder: mamba
decoder_conf: {num_blocks: 1, linear_units: 32}
max_epoch: 1
batch_type: numel
batch_bins: 640000
num_workers: 0
num_att_plot: 0
best_model_criterion:
  - [valid, acc, max]
"""
RUN_SH = """#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec ../../TEMPLATE/asr1/asr.sh --train_set train --valid_set dev --test_sets test \\
    --token_type char --nj 1 --inference_nj 1 --asr_config conf/train_asr.yaml \\
    --inference_config conf/decode_asr.yaml "$@"
"""


def small_recipe(test_data, folder):
    """Make egs/mini/asr1, a recipe whose training takes seconds, and return its folder."""
    recipe = folder / "egs/mini/asr1"
    for name, text in {
        "conf/train_asr.yaml": TINY,
        "conf/decode_asr.yaml": "beam_size: 2\nctc_weight: 0.5\nmaxlenratio: -10\n",
        "run.sh": RUN_SH,
        "local/data.sh": DATA_SH,
    }.items():
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe / name).write_text(text)
    for script in ("run.sh", "local/data.sh"):
        (recipe / script).chmod(0o755)
    for name in ("train", "dev", "test"):
        (recipe / "prepared" / name).mkdir(parents=True)
    if not (folder / "egs/TEMPLATE").exists():
        (folder / "egs/TEMPLATE").symlink_to(ROOT / "egs/TEMPLATE")
    some_of_an4(test_data, recipe)
    return recipe


def environment():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    package = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PATH": path, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": package}


def call(folder, *options, script=ASR, **more):
    line = [str(script), *options]
    more = {"env": environment()} | more
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, **more)


def some_of_an4(test_data, folder):
    """Write three small data folders of AN4's recordings."""
    corpus = test_data / "an4"
    lines = (corpus / "etc/an4_train.transcription").read_text().splitlines()
    texts = dict(re.findall(r"^<s> (.*) </s> \((.*)\)$", line)[0][::-1] for line in lines)
    files = {path.stem: path for path in sorted(corpus.glob("wav/an4_clstk/*/*"))}
    ids = sorted(texts.keys() & files.keys())
    for name, part in (("train", ids[:12]), ("dev", ids[12:15]), ("test", ids[15:18])):
        for file, values in (("text", texts), ("wav.scp", files), ("utt2spk", None)):
            lines = [f"{key} {values[key] if values else key}\n" for key in part]
            (folder / "prepared" / name / file).write_text("".join(lines))


def steps_of(done):
    """Return ``{step: what was said}`` of a run that went well."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^\S+ stage (\d+: [^:]*): (.*)$", done.stdout, re.MULTILINE)
    return {step: said for step, said in found if not re.fullmatch(r"\d+ s", said)}


@pytest.fixture
def recipe(tmp_path):
    """A recipe folder under a name that would hurt a careless shell; its corpus is empty."""
    folder = tmp_path / "a b,'c' \"d\" $(touch pwned) #e" / "asr1"
    (folder / "conf").mkdir(parents=True)
    (folder / "local").mkdir()
    (folder / "conf/train_asr.yaml").write_text("encoder: conmamba\ndecoder: mamba\nmax_epoch: 1\n")
    (folder / "conf/train_lm.yaml").write_text("lm: mamba\nmax_epoch: 1\n")
    script = folder / "local/data.sh"
    script.write_text(DATA_SH)
    script.chmod(0o755)
    for name in ("train", "dev", "test"):
        (folder / "prepared" / name).mkdir(parents=True)
        for file in ("wav.scp", "text", "utt2spk"):
            (folder / "prepared" / name / file).touch()
    yield folder
    assert not list(tmp_path.rglob("pwned")), "a name was executed"
