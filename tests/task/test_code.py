"""What a real training loads of this package is what it is known by."""

import pytest
import yaml
from commands import loaded

from mambaasr.source import UNCOUNTED, code_of

OURS = """
frontend: fbank
frontend_conf: {}
encoder: conmamba
encoder_conf: {output_size: 16, num_blocks: 1, linear_units: 16}
decoder: mamba
decoder_conf: {num_blocks: 1, linear_units: 16}
scheduler: warmup_cosine
scheduler_conf: {warmup_steps: 1}
max_epoch: 1
"""
# Whatever may be chosen is imported; of what was not chosen nothing runs.
OTHERS = "--encoder mamba --encoder speech_mamba --encoder mamba_ebranchformer --postencoder uma"
OTHERS += " --decoder speech_mamba --decoder cross_mamba --decoder madeon --model asr"
OTHERS += " --model multilingual --lm mamba --scheduler warmup_linear --specaug mean_specaug"


@pytest.mark.slow
def test_nothing_of_a_training_is_missed(workspace):
    config = workspace.folder / "code.yaml"
    options = yaml.safe_load(workspace.config.read_text()) | yaml.safe_load(OURS)
    config.write_text(yaml.safe_dump(options))
    arguments = workspace.arguments("code", "--config", "code.yaml")
    command = ["-m", "mambaasr.bin.asr_train", *arguments]
    ran = loaded(command, workspace.folder)
    known = code_of(command, configs=[config])
    assert "mambaasr/ops/selective_scan/__init__.py" in ran & known.keys()
    unchosen = code_of(OTHERS.split()).keys() - known.keys()
    # provenance.py has the cores counted by parallel.py.
    assert ran - known.keys() - unchosen <= UNCOUNTED | {"mambaasr/parallel.py"}
