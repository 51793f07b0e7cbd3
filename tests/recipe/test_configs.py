"""What a recipe keeps of its trainings' configs."""

import yaml

from mambaasr.config import Config
from mambaasr.recipe.configs import TrainingConfig


def test_what_a_result_depends_on():
    model = {"ctc_weight": 0, "lid_weight": 0.1}
    conf = {"encoder": "conmamba", "encoder_conf": {"size": 144, "more": {"x": 1}}, "max_epoch": 50}
    config = Config("a.yaml", conf | {"model_conf": model, "specaug_conf": None})
    kept = {"encoder": "conmamba", "encoder_conf.size": 144, "model_conf.ctc_weight": 0}
    patterns, zeros = ["max*", "encoder_conf.*"], ["model_conf.ctc_weight", "model_conf.lid_weight"]
    text = TrainingConfig(Config("a.yaml"), config, "asr").reduced(
        patterns, ["encoder_conf.size"], zeros
    )
    assert yaml.safe_load(text) == kept | {"specaug_conf": None}
