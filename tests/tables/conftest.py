"""A recipe with blocks, a table, and a run.sh that knows its options and does what a row asks."""

import json

import pytest

from mambaasr.recipe.options import OPTIONS

# A row says with --nbpe what becomes of its run: 7 fails, 8 waits until it is stopped.
RUN_SH = """#!/bin/sh
cd "$(dirname "$0")" || exit
if [ "$1" = --print_options ]; then exec cat options.json; fi
echo "$@" >> calls
case " $* " in
    *" --nbpe 7 "*) exit 3 ;;
    *" --nbpe 8 "*)
        sleep 60 &
        trap 'kill $!; echo orderly > stopped; exit 143' TERM
        touch waiting
        wait ;;
esac
"""
TABLE = """title: Encoders
source: "[notes]"
columns: [test WER, dev CER, "test WER, lm", RTF]
decodings:
  lm: {use_lm: true}
options: {asr_args: --max_epoch 3}
scale:
  full: {needs: a GPU}
  small:
    needs: a laptop
    options: {asr_args: --max_epoch 1}
rows:
  - key: conformer
    label: Conformer
    options: {encoder: conf/encoder/conformer.yaml}
    seeds: [1, 2]
    published: {parameters: 34, test WER: 6.3, dev CER: unknown, "test WER, lm": 5.00, RTF: unknown}
  - key: mamba
    options: {encoder: mamba}
  - key: whisper
    label: Whisper
    published: {test WER: 5.1, dev CER: unknown, "test WER, lm": unknown, RTF: unknown}
    source: table 7
    note: Not ours.
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {name: option.default for name, option in OPTIONS.items()}
    options |= {"test_sets": "dev test", "asr_config": "conf/train_asr.yaml"}
    options |= {"inference_config": "conf/decode_asr.yaml"}
    for name, text in {
        "run.sh": RUN_SH,
        "options.json": json.dumps(options),
        "tables/x.yaml": TABLE,
        "conf/train_asr.yaml": "encoder: conmamba\ndecoder: mamba\nmax_epoch: 1\n",
        "conf/encoder/conformer.yaml": "encoder: conformer\nencoder_conf:\n  num_blocks: 2\n",
        "conf/encoder/mamba.yaml": "encoder: mamba\n",
        "conf/decode_asr.yaml": "beam_size: 2\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "run.sh").chmod(0o755)
    return tmp_path


@pytest.fixture
def edit(recipe):
    """Replace a text of the recipe's table."""

    def replace(old, new):
        path = recipe / "tables/x.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return replace
