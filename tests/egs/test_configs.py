"""Every config of every recipe, with every block laid over it: checked, built and run."""

from pathlib import Path

import pytest
import torch

import mambaasr
from mambaasr import espnet_compat
from mambaasr.bin.merge_config import check
from mambaasr.config import merge
from mambaasr.task.config import read

EGS = Path(__file__).resolve().parents[2] / "egs"
AN4 = EGS / "an4/asr1/conf"
BASES = sorted(EGS.glob("*/asr1/conf/train*.yaml"))
VOCABULARY = 30


def combinations():
    """Yield each base alone, with each of its blocks, and with each pair of blocks."""
    for base in BASES:
        encoders = [None, *sorted(base.parent.glob("encoder/*.yaml"))]
        decoders = [None, *sorted(base.parent.glob("decoder/*.yaml"))]
        for encoder in encoders:
            for decoder in decoders:
                blocks = [block for block in (encoder, decoder) if block]
                names = [path.stem for path in (base, *blocks)]
                yield pytest.param(base, blocks, id="-".join([base.parents[2].name, *names]))


def merged(base, blocks):
    return merge(read(base), [(str(block), read(block)) for block in blocks])


@pytest.fixture(scope="module")
def classes():
    mambaasr.register()
    return {slot: espnet_compat.choices(slot) for slot in ("frontend", "encoder", "decoder")}


def build(classes, config):
    """Return the encoder and the decoder that a config names; None for no decoder."""
    frontend = classes["frontend"][config["frontend"]](**config["frontend_conf"])
    encoder = classes["encoder"][config["encoder"]](
        input_size=frontend.output_size(), **config["encoder_conf"]
    )
    if config["decoder"] == "none":
        return encoder.eval(), None
    decoder = classes["decoder"][config["decoder"]](
        vocab_size=VOCABULARY, encoder_output_size=encoder.output_size(), **config["decoder_conf"]
    )
    return encoder.eval(), decoder.eval()


def parameters(modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("base, blocks", combinations())
def test_it_names_classes_and_options_that_exist(base, blocks):
    parts = [(str(path), read(path)) for path in (base, *blocks)]
    check(parts, merged(base, blocks), [])


@pytest.mark.parametrize("base, blocks", combinations())
def test_it_builds_and_runs(classes, base, blocks):
    config = merged(base, blocks)
    encoder, decoder = build(classes, config)
    with torch.no_grad():
        memory, lengths, _ = encoder(torch.randn(2, 60, 80), torch.tensor([60, 44]))
        if decoder is None:
            assert memory.isfinite().all()
            return
        tokens = torch.randint(1, VOCABULARY, (2, 5))
        scores, _ = decoder(memory, lengths, tokens, torch.tensor([5, 3]))
    assert scores.shape == (2, 5, VOCABULARY)
    assert scores[0].isfinite().all() and scores[1, :3].isfinite().all()


def test_the_baseline_differs_by_its_two_blocks_alone_and_is_of_equal_size(classes):
    base = AN4 / "train_asr.yaml"
    blocks = [AN4 / "encoder/conformer.yaml", AN4 / "decoder/transformer.yaml"]
    ours, baseline = read(base), merged(base, blocks)
    differ = {key for key in ours | baseline if ours.get(key) != baseline.get(key)}
    assert differ == {"encoder", "encoder_conf", "decoder", "decoder_conf"}
    assert baseline["frontend"] == "fbank"
    sizes = [parameters(build(classes, config)) for config in (ours, baseline)]
    assert abs(sizes[0] - sizes[1]) < 0.1 * sizes[1]


def test_the_blocks_of_the_default_say_what_the_base_says():
    base = read(AN4 / "train_asr.yaml")
    for block in ("encoder/conmamba.yaml", "decoder/mamba.yaml"):
        assert merged(AN4 / "train_asr.yaml", [AN4 / block]) == base


@pytest.mark.parametrize(
    "path", sorted(EGS.glob("*/asr1/conf/decode*.yaml")), ids=lambda path: path.parents[2].name
)
def test_decoding_options_are_known(path):
    from mambaasr.bin.asr_inference import get_parser

    known = {action.dest for action in get_parser()._actions}
    assert set(read(path)) <= known
