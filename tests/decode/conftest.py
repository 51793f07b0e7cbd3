"""A model and speech for the tests of decoding."""

import pytest
from tiny_asr import an4, make_experiment


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """config.yaml and model.pth of a tiny model with random weights."""
    return make_experiment(tmp_path_factory.mktemp("exp"))


@pytest.fixture(scope="session")
def speech(test_data):
    """Utterance -> path of six short utterances."""
    return an4(test_data, 6)
