"""Tests of mambaasr.decode.load."""

import pickle

import pytest
import torch
import yaml
from tiny_asr import OURS, make_experiment

from mambaasr.decode.load import load_speech2text, read_weights
from mambaasr.errors import UserError


def save(state, path):
    torch.save(state, path)
    return path


@pytest.fixture
def weights(experiment):
    return read_weights(experiment[1])


def test_every_weight_is_the_checkpoints(experiment, weights):
    model = load_speech2text(*experiment).asr_model
    assert not model.training
    loaded = model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization")
def test_quantised_layers_count_as_parameters(tmp_path):
    """The report of a decoding names the size of the model that was trained."""
    files = make_experiment(tmp_path, **OURS)
    small = load_speech2text(*files, quantize_asr_model=True)
    assert small.parameters == load_speech2text(*files).parameters
    assert small.parameters > sum(each.numel() for each in small.asr_model.parameters())


def test_unexpected_and_misshapen_weights_are_listed(experiment, weights, tmp_path):
    wrong = {**weights, "encoder.extra": torch.zeros(1), "ctc.ctc_lo.bias": torch.zeros(7)}
    path = save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(UserError) as caught:
        load_speech2text(experiment[0], path)
    assert "1 unexpected: encoder.extra" in str(caught.value)
    assert "1 of another shape: ctc.ctc_lo.bias (7,) instead of (30,)" in str(caught.value)


class Evil:
    """Runs code when it is unpickled: a file appears."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_evil_is_evil(tmp_path):
    pickle.loads(pickle.dumps(Evil(tmp_path / "made"))).close()
    assert (tmp_path / "made").exists()


def write_torn(path, whole):
    path.write_bytes(whole.read_bytes()[:-3000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path, whole: path.write_bytes(pickle.dumps(Evil(path.with_name("made")))),
            "not a whole checkpoint",
        ),
        (
            lambda path, whole: torch.save({"a": Evil(path.with_name("made"))}, path),
            "not a plain checkpoint, so it is not opened",
        ),
        (write_torn, "not a whole checkpoint"),
        (lambda path, whole: torch.save({"model": {}, "epoch": 3}, path), "trainer's own state"),
    ],
)
def test_bad_checkpoint(experiment, tmp_path, write, message):
    path = tmp_path / "checkpoint.pth"
    write(path, experiment[1])
    with pytest.raises(UserError, match=message):
        read_weights(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_conf": {"no_such": 1}}, "no model can be built from it: .*no_such"),
        ({"token_list": "nowhere/tokens.txt"}, "names nowhere/tokens.txt, which does not exist"),
    ],
)
def test_bad_config(experiment, tmp_path, change, message):
    config = yaml.safe_load(experiment[0].read_text()) | change
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=message):
        load_speech2text(path, experiment[1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_config_of_no_model_is_refused_with_an_ngram_model_too(experiment, tmp_path):
    config = yaml.safe_load(experiment[0].read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "token_list": None}))
    (tmp_path / "1gram.arpa").write_text("")
    for ngram in (None, tmp_path / "1gram.arpa"):
        with pytest.raises(UserError, match="config.yaml: it has no token_list: give the config"):
            load_speech2text(tmp_path / "config.yaml", experiment[1], ngram_file=ngram)


def test_no_gpu(experiment):
    with pytest.raises(UserError, match="no GPU can be used here: take the CPU"):
        load_speech2text(*experiment, device="cuda:0")


def test_language_model(experiment, tmp_path):
    from tiny_asr import TOKENS

    from mambaasr.espnet_compat import import_quietly

    task = import_quietly("espnet2.tasks.lm").LMTask
    args = task.get_parser().parse_args(["--output_dir", str(tmp_path), "--token_type", "char"])
    args.token_list = TOKENS
    args.lm_conf = {"unit": 8, "nlayers": 1}
    lm = task.build_model(args)
    config = tmp_path / "lm.yaml"
    config.write_text(yaml.safe_dump(vars(args)))
    path = save(lm.state_dict(), tmp_path / "lm.pth")
    speech2text = load_speech2text(*experiment, lm_train_config=config, lm_file=path)
    inside = speech2text.beam_search.full_scorers["lm"].state_dict()
    assert all(torch.equal(inside[key], value) for key, value in lm.lm.state_dict().items())
    path = save({"lm.encoder.weight": torch.zeros(2, 2)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="bad.pth does not fit .*lm.yaml; .* missing"):
        load_speech2text(*experiment, lm_train_config=config, lm_file=path)
