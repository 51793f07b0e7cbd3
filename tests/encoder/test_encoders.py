"""What holds for every encoder that a yaml can name."""

import inspect
import io

import pytest
import torch

from mambaasr.espnet_compat import TooShortUttError
from mambaasr.registry import CLASSES, load

SMALL = dict(output_size=16, num_blocks=3)
VARIANTS = {
    "mamba": [
        dict(),
        dict(direction="uni", linear_units=32),
        dict(direction="inner", merge="concat", input_layer="linear"),
        dict(interctc_layer_idx=[1, 2], input_layer="conv2d2"),
    ],
    "conmamba": [
        dict(linear_units=32),
        dict(linear_units=32, direction="outer", merge="concat", cnn_module_norm="batch_norm"),
        dict(linear_units=32, direction="uni", input_layer="conv2d6"),
        dict(linear_units=32, interctc_layer_idx=[1], interctc_use_conditioning=True),
    ],
    "speech_mamba": [
        dict(d_state=8, input_layer="conv2d"),
        dict(d_state=8, input_layer="conv2d", use_attention=False, direction="uni"),
        dict(
            direction="outer",
            mamba_before=2,
            mamba_after=0,
            positions="rotary",
            input_layer="linear",
        ),
        dict(mamba_before=0, mamba_after=0, positions="none", input_layer="conv2d2"),
    ],
    "mamba_ebranchformer": [
        dict(linear_units=32, cgmlp_linear_units=24),
        dict(
            linear_units=32,
            cgmlp_linear_units=24,
            branches=["attention", "cgmlp"],
            positions="rotary",
        ),
        dict(
            linear_units=32,
            cgmlp_linear_units=24,
            branches=["attention", "mamba", "cgmlp"],
            positions="sinusoidal",
            use_linear_after_conv=True,
        ),
        dict(linear_units=0, macaron_style=False, cgmlp_linear_units=24, direction="uni"),
    ],
}
CASES = [(name, options) for name, several in VARIANTS.items() for options in several]
LENGTHS = torch.tensor([97, 40, 61])


def build(name, options):
    torch.manual_seed(0)
    encoder = load(CLASSES["encoder"][name])(input_size=80, **(SMALL | options))
    ctc = None
    if options.get("interctc_use_conditioning"):
        from mambaasr.espnet_compat import CTC

        ctc = CTC(7, 16)
        encoder.conditioning_layer = torch.nn.Linear(7, 16)
    return encoder, ctc


def outputs(result):
    """All tensors that must not depend on the batch: the last output and intermediate ones."""
    if isinstance(result, tuple):
        return [result[0], *(x for _, x in result[1])]
    return [result]


def test_every_registered_encoder_is_tested():
    assert set(VARIANTS) == set(CLASSES["encoder"])


@pytest.mark.parametrize("name, options", CASES)
def test_padded_batch_equals_single_utterance(name, options):
    encoder, ctc = build(name, options)
    encoder.eval()
    x = torch.randn(3, 97, 80)
    padded = x.clone()
    for b, length in enumerate(LENGTHS.tolist()):
        padded[b, length:] = float("nan")
    together, lengths, _ = encoder(padded, LENGTHS, ctc=ctc)
    assert torch.equal(lengths, encoder.output_lengths(LENGTHS))
    for b, length in enumerate(LENGTHS.tolist()):
        alone, single, _ = encoder(x[b : b + 1, :length], LENGTHS[b : b + 1], ctc=ctc)
        assert single[0] == lengths[b]
        for many, one in zip(outputs(together), outputs(alone), strict=True):
            assert one.std() > 0.1
            assert torch.allclose(many[b, : lengths[b]], one[0], atol=1e-5)
            assert (many[b, lengths[b] :] == 0).all()


@pytest.mark.parametrize("name, options", CASES)
def test_forward_and_backward_reach_every_parameter(name, options):
    encoder, ctc = build(name, options)
    x = torch.randn(3, 97, 80)
    result, lengths, _ = encoder(x, LENGTHS, ctc=ctc)
    sum(y.square().sum() for y in outputs(result)).backward()
    for key, parameter in encoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name, options", CASES)
def test_save_and_load(name, options):
    encoder, ctc = build(name, options)
    encoder.eval()
    stream = io.BytesIO()
    torch.save(encoder.state_dict(), stream)
    stream.seek(0)
    torch.manual_seed(9)
    again, _ = build(name, options)
    for parameter in again.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    again.load_state_dict(torch.load(stream, weights_only=True))
    again.eval()
    x = torch.randn(3, 97, 80)
    want, _, _ = encoder(x, LENGTHS, ctc=ctc)
    got, _, _ = again(x, LENGTHS, ctc=ctc)
    for a, b in zip(outputs(got), outputs(want), strict=True):
        assert torch.equal(a, b)


def test_uni_encoders_do_not_look_ahead():
    for name, options in (
        ("mamba", dict(linear_units=32)),
        ("conmamba", dict(linear_units=32)),
        ("speech_mamba", dict(use_attention=False, input_layer="conv2d")),
        ("mamba_ebranchformer", dict(linear_units=32, merge_conv_kernel=4)),
    ):
        encoder, _ = build(name, dict(direction="uni") | options)
        encoder.eval()
        x = torch.randn(1, 97, 80)
        later = x.clone()
        later[:, 60:] += 1.0
        lengths = torch.tensor([97])
        a, _, _ = encoder(x, lengths)
        b, _, _ = encoder(later, lengths)
        # Frame i of conv2d sees feature frames 4 i to 4 i + 6.
        assert torch.allclose(a[:, :13], b[:, :13], atol=1e-5)
        assert not torch.allclose(a[:, 14:], b[:, 14:], atol=1e-3)


def test_a_very_short_utterance_in_a_batch_is_empty_and_alone_an_error_espnet_knows():
    encoder, _ = build("conmamba", dict(linear_units=32))
    x = torch.randn(2, 50, 80)
    out, lengths, _ = encoder(x, torch.tensor([50, 3]))
    assert lengths.tolist() == [11, 0] and torch.isfinite(out).all()
    with pytest.raises(TooShortUttError, match="3 frames; the input layer needs 7"):
        encoder(x[1:, :3], torch.tensor([3]))
    with pytest.raises(TooShortUttError, match="6 frames"):
        encoder(x[:, :9], torch.tensor([6, 5]))


def test_conmamba_takes_every_option_of_mamba():
    parameters = [
        list(inspect.signature(load(CLASSES["encoder"][name])).parameters)
        for name in ("mamba", "conmamba")
    ]
    assert parameters[0] == parameters[1]


def test_impossible_options_are_named():
    for name, options, message in (
        ("mamba", dict(num_blocks=-1), "num_blocks is -1"),
        ("mamba", dict(macaron_style=True), "macaron_style needs linear_units"),
        ("mamba", dict(linear_units=-1), "linear_units is -1"),
        ("conmamba", dict(cnn_module_kernel=0), "cnn_module_kernel is 0"),
        ("conmamba", dict(interctc_layer_idx=[3]), "interctc_layer_idx is"),
        ("conmamba", dict(direction="back"), "direction is 'back'"),
        ("conmamba", dict(d_state=0), "d_state is 0"),
        ("speech_mamba", dict(attention_heads=3), "attention_heads is 3; it must divide"),
        ("speech_mamba", dict(positions="learned"), "positions is 'learned'"),
        ("speech_mamba", dict(mamba_before=-1), "mamba_before is -1"),
        (
            "speech_mamba",
            dict(mamba_before=0, mamba_after=0, use_attention=False),
            "a block needs one",
        ),
        ("speech_mamba", dict(positions="rotary", use_attention=False), "use_attention is false"),
        ("mamba_ebranchformer", dict(branches=["mamba", "conv"]), "branches is 'conv'; choose"),
        ("mamba_ebranchformer", dict(branches=["mamba", "mamba"]), "each once at most"),
        ("mamba_ebranchformer", dict(branches="mamba"), "list some of attention, mamba, cgmlp"),
        ("mamba_ebranchformer", dict(positions="rotary"), "positions is 'rotary'"),
        ("mamba_ebranchformer", dict(cgmlp_linear_units=7), "cgmlp_linear_units is 7"),
        ("mamba_ebranchformer", dict(cgmlp_conv_kernel=4), "cgmlp_conv_kernel is 4"),
        ("mamba_ebranchformer", dict(merge_conv_kernel=0), "merge_conv_kernel is 0"),
        ("mamba_ebranchformer", dict(linear_units=0), "macaron_style needs linear_units"),
    ):
        with pytest.raises(ValueError, match=message):
            build(name, options)
