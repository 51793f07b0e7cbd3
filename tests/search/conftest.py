"""Models to search with: tiny, with random weights that let hypotheses compete."""

import pytest
import torch
from tiny_asr import DECODERS, OURS, an4, make_experiment

from mambaasr.data.audio import read_audio
from mambaasr.decode.recogniser import Utterance


@pytest.fixture(scope="session")
def opened(tmp_path_factory):
    """Return a function decoder name, options -> Speech2Text; one experiment for each decoder."""
    made = {}

    def open_(decoder="mamba", *, lm=None, ours=True, **options):
        from mambaasr.decode.load import load_speech2text

        if (decoder, ours) not in made:
            parts = dict(decoder=decoder)
            parts["decoder_conf"] = DECODERS.get(decoder, dict(num_blocks=2, linear_units=32))
            folder = tmp_path_factory.mktemp("exp")
            made[decoder, ours] = make_experiment(folder, **((OURS if ours else {}) | parts))
        if lm is not None:
            if lm not in made:
                made[lm] = make_lm(tmp_path_factory.mktemp("lm"), lm)
            options |= dict(zip(("lm_train_config", "lm_file"), made[lm], strict=True))
        options = dict(beam_size=4, ctc_weight=0.3, nbest=4, ctc_window_margin=0) | options
        return load_speech2text(*made[decoder, ours], **options)

    return open_


def make_lm(folder, name):
    """Write config.yaml and lm.pth of a tiny language model, our own or ESPnet's."""
    import yaml
    from tiny_asr import TOKENS

    from mambaasr import register
    from mambaasr.espnet_compat import LMTask

    register()
    args = LMTask.get_parser().parse_args(["--output_dir", str(folder), "--token_type", "char"])
    args.token_list, args.lm = TOKENS, name
    sizes = {"mamba": dict(unit=16, num_blocks=2), "transformer": dict(layer=1, att_unit=16)}
    args.lm_conf = sizes[name] | ({"unit": 32, "embed_unit": 16} if name == "transformer" else {})
    torch.manual_seed(5)
    model = LMTask.build_model(args)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)), encoding="utf-8")
    torch.save(model.state_dict(), folder / "lm.pth")
    return folder / "config.yaml", folder / "lm.pth"


@pytest.fixture(scope="session")
def utterances(test_data):
    """Nine real utterances of nine lengths around a second."""
    found = []
    for utt, path in an4(test_data, 9).items():
        samples, _ = read_audio(path, rate=16000)
        found.append(Utterance(utt, torch.as_tensor(samples)[4000 : 16000 + 1280 * len(found)]))
    assert len({len(each.samples) for each in found}) == len(found)
    return found
