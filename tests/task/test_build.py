"""An impossible size is named with its file, line and option before anything runs."""

import pytest

from mambaasr.config import check_training, merge, read
from mambaasr.errors import UserError
from mambaasr.task.build import build_classes

BASE = """\
frontend: fbank
frontend_conf:
  n_mels: 40
encoder: conmamba
encoder_conf:
  output_size: 16
  num_blocks: 1
  linear_units: 16
decoder: mamba
decoder_conf:
  num_blocks: 1
  attention_heads: 4
model_conf:
  ctc_weight: 0.3
"""


@pytest.fixture
def build(tmp_path):
    """Check a base with one block and a command line over it."""

    def run(block="", options=()):
        parts = []
        for name, text in (("base.yaml", BASE), ("block.yaml", block)):
            path = tmp_path / name
            path.write_text(text, encoding="utf-8")
            parts += [read(path)] if text else []
        config = check_training(merge(parts[0], parts[1:]), list(options))
        build_classes(config)
        return config

    return run


def test_what_fits_passes(build):
    assert build()["encoder"] == "conmamba"
    build("decoder: transformer\n")
    build("encoder: conformer\nencoder_conf:\n  output_size: 8\n", ["--decoder_conf", "d_conv=2"])
    # Its width is not 256; ESPnet will see whether the decoder fits.
    build("encoder: rnn\nencoder_conf: {}\n", ["--decoder_conf", "attention_heads=5"])
    build("model: multilingual\nmodel_conf:\n  lid_weight: 0.3\n")
    build("scheduler: warmup_linear\nscheduler_conf:\n  warmup_steps: 5\n")
    # An option inside a mapping leaves the others there.
    mixer = "{output_size: 24, mixer: mamba2, mixer_conf: {headdim: 16}}"
    build(f"encoder_conf: {mixer}\n", ["--encoder_conf", "mixer_conf.ngroups=1"])


@pytest.mark.parametrize(
    "block, place, message",
    [
        (
            "encoder: mamba\nencoder_conf:\n  d_state: 0\n",
            "block.yaml: line 3: encoder_conf: ",
            "d_state is 0; it must be positive",
        ),
        (
            "encoder: speech_mamba\nencoder_conf:\n  output_size: 16\n  attention_heads: 3\n",
            "block.yaml: line 4: encoder_conf: ",
            "attention_heads is 3; it must divide the width 16",
        ),
        (
            "encoder: mamba\nencoder_conf:\n  mixer_conf: {headdim: 1}\n",
            "block.yaml: line 3: encoder_conf: ",
            "'headdim' is no option of mamba1",
        ),
        (
            "encoder_conf:\n  output_size: 16\n  mixer: mamba2\n  mixer_conf:\n    headdim: 5\n",
            "block.yaml: line 5: encoder_conf: ",
            "headdim is 5; it must divide",
        ),
        # What is not given is still at fault where its mapping is.
        (
            "encoder_conf:\n  output_size: 24\n  mixer: mamba2\n",
            "block.yaml: line 1: encoder_conf: ",
            "headdim is 64; it must divide d_ssm, 48",
        ),
        (
            "model: multilingual\nmodel_conf:\n  lid_weight: -3\n",
            "block.yaml: line 3: model_conf: ",
            "lid_weight is -3",
        ),
        (
            "scheduler: warmup_cosine\nscheduler_conf:\n  warmup_steps: -5\n",
            "block.yaml: line 3: scheduler_conf: ",
            "warmup_steps is -5",
        ),
        # The width comes from the encoder, the mistake is the decoder's.
        (
            "encoder: mamba\nencoder_conf:\n  output_size: 18\n",
            "base.yaml: line 12: decoder_conf: ",
            "attention_heads is 4; it must divide the width 18",
        ),
        (
            "encoder: conformer\nencoder_conf:\n  output_size: 18\n  attention_heads: 2\n",
            "base.yaml: line 12: decoder_conf: ",
            "attention_heads is 4; it must divide the width 18",
        ),
        # ESPnet's classes, some of which assert without a word.
        (
            "encoder: conformer\nencoder_conf:\n  attention_heads: 3\n",
            "block.yaml: line 2: encoder_conf: ",
            "n_feat % n_head == 0 must hold",
        ),
        (
            "decoder: transformer\ndecoder_conf:\n  attention_heads: 3\n",
            "block.yaml: line 2: decoder_conf: ",
            "n_feat % n_head == 0 must hold",
        ),
        ("model_conf:\n  ctc_weight: 3.0\n", "block.yaml: line 2: model_conf: ", "ctc_weight"),
        ("optim: adam\noptim_conf:\n  lr: -1.0\n", "block.yaml: line 2: optim_conf: ", "-1.0"),
        (
            "model: multilingual\nmodel_conf:\n  ctc_weight: 3.0\n",
            "block.yaml: line 3: model_conf: ",
            "ctc_weight <= 1.0 must hold: 3.0",
        ),
    ],
)
def test_what_does_not_is_named_with_file_line_and_option(build, block, place, message):
    with pytest.raises(UserError) as error:
        build(block)
    assert place in str(error.value) and message in str(error.value)


def test_the_command_line_is_named_where_it_is_at_fault(build):
    with pytest.raises(UserError, match="^--encoder_conf: .*d_conv is 0; it must be positive"):
        build(options=["--encoder_conf", "d_conv=0"])
    for given in ("mixer_conf.headdim=5", "{mixer_conf: {headdim: 5}}"):
        with pytest.raises(UserError, match="^--encoder_conf: .*headdim is 5; it must divide"):
            build(options=["--encoder_conf", "mixer=mamba2", "--encoder_conf", given])


def test_language_models_too(tmp_path):
    path = tmp_path / "lm.yaml"
    path.write_text("lm: mamba\nlm_conf:\n  num_blocks: 0\n", encoding="utf-8")
    with pytest.raises(UserError, match="lm.yaml: line 3: lm_conf: .*num_blocks is 0"):
        build_classes(check_training(read(path), [], "lm"), "lm")
