"""What holds for every encoder that a yaml can name."""

import itertools

import pytest
import torch
from sequences import poisoned, save_and_load

from mambaasr.espnet_compat import TooShortUttError
from mambaasr.layers.adapter import AdapterPlaces
from mambaasr.registry import CLASSES, load

SMALL = dict(output_size=16, num_blocks=3)
FEED = dict(linear_units=32)
CGMLP = FEED | dict(cgmlp_linear_units=24)
MAMBA2 = dict(mixer="mamba2", headdim=8, direction="uni")
VARIANTS = {
    "mamba": [
        dict(),
        FEED | dict(direction="uni"),
        dict(direction="inner", merge="concat", input_layer="linear"),
        dict(interctc_layer_idx=[1, 2], input_layer="conv2d2"),
        dict(num_blocks=0),
        dict(mixer_conf=MAMBA2, norm="rms_norm", input_layer="cnn64_32", lookahead_kernel=5),
        dict(direction="uni", positions="sinusoidal", interctc_layer_idx=[2])
        | dict(interctc_use_conditioning=True),
    ],
    "conmamba": [
        FEED,
        FEED
        | dict(mixer_conf=dict(direction="outer", merge="concat"), activation_type="gelu")
        | dict(cnn_module_norm="batch_norm"),
        FEED | dict(direction="uni", input_layer="conv2d6"),
        FEED | dict(interctc_layer_idx=[1], interctc_use_conditioning=True),
        FEED
        | dict(direction="uni", cnn_module_norm="batch_norm", cnn_module_kernel=4)
        | dict(input_layer="conv1d4", lookahead_kernel=17),
    ],
    "speech_mamba": [
        dict(d_state=8, input_layer="conv2d"),
        dict(mixer_conf=dict(d_state=8), input_layer="conv2d", use_attention=False),
        dict(direction="outer", mamba_before=2, mamba_after=0)
        | dict(positions="rotary", input_layer="linear"),
        dict(mamba_before=0, mamba_after=0, positions="none", input_layer="conv2d2"),
    ],
    "mamba_ebranchformer": [
        CGMLP,
        CGMLP | dict(branches=["attention", "cgmlp"], positions="rotary"),
        CGMLP
        | dict(branches=["attention", "mamba", "cgmlp"], positions="sinusoidal")
        | dict(use_linear_after_conv=True),
        CGMLP | dict(linear_units=0, macaron_style=False, direction="uni"),
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
    padded = poisoned(x, LENGTHS)
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
    again = save_and_load(encoder, build(name, options)[0]).eval()
    x = torch.randn(3, 97, 80)
    want, _, _ = encoder(x, LENGTHS, ctc=ctc)
    got, _, _ = again(x, LENGTHS, ctc=ctc)
    for a, b in zip(outputs(got), outputs(want), strict=True):
        assert torch.equal(a, b)


def in_pieces(encoder, x, sizes, **options):
    """Encode in pieces, the last one is the rest; return the pieces of the output."""
    state, pieces, start = encoder.initial_state(len(x)), [], 0
    while state is not None:
        size = next(sizes)
        last = start + size >= x.shape[1]
        y, state = encoder.forward_chunk(x[:, start : start + size], state, last, **options)
        pieces.append(y)
        start += size
    return torch.cat(pieces, dim=1)


def sizes_of(kind):
    if kind != "random":
        return itertools.repeat(kind)
    drawn = torch.randint(0, 20, (99,), generator=torch.Generator().manual_seed(0))
    return iter(drawn.tolist())


@pytest.mark.parametrize("kind", [1, 3, 7, 16, "random"])
@pytest.mark.parametrize("name, options", CASES)
def test_causal_encoders_in_pieces_give_what_the_whole_gives(name, options, kind):
    encoder, ctc = build(name, options)
    encoder.eval()
    if not encoder.causal:
        with pytest.raises(
            ValueError, match="cannot take speech in pieces; it can with .*: uni in mixer_conf"
        ):
            encoder.initial_state(1)
        return
    for parameter in encoder.after_norm.parameters():
        torch.nn.init.uniform_(parameter)
    x = torch.randn(2, 97, 80).requires_grad_()
    whole = outputs(encoder(x, torch.tensor([97, 97]), ctc=ctc)[0])[0]
    pieces = in_pieces(encoder, x, sizes_of(kind), ctc=ctc)
    assert pieces.shape == whole.shape and torch.allclose(pieces, whole, atol=1e-5)
    if kind == 7:
        grad = torch.randn_like(whole)
        tensors = [x, *encoder.parameters()]
        wants = torch.autograd.grad(whole, tensors, grad, allow_unused=True)
        for got, want in zip(torch.autograd.grad(pieces, tensors, grad), wants, strict=True):
            assert torch.allclose(got, want, rtol=1e-3, atol=1e-4 * (1 + float(want.abs().max())))


@pytest.mark.parametrize("frames", [0, 3, 7, 11, 20])
def test_pieces_of_a_very_short_utterance(frames):
    # Fewer frames than the input layer needs; fewer than the look-ahead sees.
    encoder, _ = build("mamba", dict(direction="uni", lookahead_kernel=9))
    encoder.eval()
    x = torch.randn(2, frames, 80)
    if frames < encoder.embed.minimum:
        for encode in (
            lambda: encoder(x, torch.tensor([frames, frames])),
            lambda: in_pieces(encoder, x, itertools.repeat(2)),
        ):
            with pytest.raises(TooShortUttError, match=f"has {frames} frames; .* needs 7"):
                encode()
        return
    pieces = in_pieces(encoder, x, itertools.repeat(2))
    assert pieces.shape == (2, int(encoder.output_lengths(torch.tensor(frames))), 16)
    whole, _, _ = encoder(x, torch.tensor([frames, frames]))
    assert torch.allclose(pieces, whole, atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
def test_causal_encoders_see_no_later_frame_but_the_look_ahead(name, options):
    encoder, ctc = build(name, options)
    encoder.eval()
    x = torch.randn(1, 97, 80)
    later = x.clone()
    later[:, 60:] += 1.0
    lengths = torch.tensor([97])
    a, b = (outputs(encoder(y, lengths, ctc=ctc)[0])[0] for y in (x, later))
    # Frame i sees feature frames stride * i to stride * i + minimum - 1.
    first = (60 - encoder.embed.minimum) // encoder.embed.stride + 1
    if encoder.lookahead is not None:
        first -= encoder.lookahead.future
    same = (a - b).abs().amax(2)[0] < 1e-5
    assert not same[first + 1 :].any()
    assert same[:first].all() == encoder.causal


@pytest.mark.parametrize("name", VARIANTS)
def test_stochastic_depth_leaves_blocks_out_in_training_only(name, monkeypatch):
    options = VARIANTS[name][0] | dict(dropout_rate=0.0)
    x, lengths = torch.randn(2, 97, 80), torch.tensor([97, 61])
    encoder, _ = build(name, options | dict(stochastic_depth_rate=0.6))
    assert encoder.rates == pytest.approx([0.2, 0.4, 0.6])
    plain, _ = build(name, options)
    seen = []
    for index, block in enumerate(encoder.blocks):
        block.register_forward_hook(
            lambda _, args, out, index=index: seen.append((index, *args[2:]))
        )
    want, _, _ = plain.eval()(x, lengths)
    assert torch.equal(encoder.eval()(x, lengths)[0], want) and seen == [(0,), (1,), (2,)]
    encoder.train()
    for drawn, kept in ((0.0, []), (0.3, [0]), (0.5, [0, 1]), (0.9, [0, 1, 2])):
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, drawn=drawn: torch.tensor(drawn))
            out, _, _ = encoder(x, lengths)
        assert [index for index, _ in seen] == kept
        assert [scale for _, scale in seen] == pytest.approx([1.25, 1 / 0.6, 2.5][: len(kept)])
        assert torch.isfinite(out).all() and (out[1, lengths[1] // 4 :] == 0).all()


@pytest.mark.parametrize("name, options", CASES)
def test_a_condition_is_added_to_every_frame_after_the_input_layer(name, options):
    encoder, ctc = build(name, options)
    encoder.eval()
    x, condition = torch.randn(3, 97, 80), torch.randn(3, 16)
    want, _, _ = encoder(x, LENGTHS, ctc=ctc)
    encoder.embed.register_forward_hook(lambda _, args, out: (out[0] + condition[:, None], out[1]))
    hooked, lengths, _ = encoder(x, LENGTHS, ctc=ctc)
    encoder.embed._forward_hooks.clear()
    for shape in ((3, 16), (3, 1, 16)):
        got, _, _ = encoder(x, LENGTHS, ctc=ctc, condition=condition.view(shape))
        for a, b, c in zip(outputs(got), outputs(hooked), outputs(want), strict=True):
            assert torch.allclose(a, b, atol=1e-5) and not torch.allclose(a, c, atol=0.1)
            assert all((a[i, lengths[i] :] == 0).all() for i in range(3))
    if encoder.causal:
        whole = outputs(encoder(x, torch.full((3,), 97), ctc=ctc, condition=condition)[0])[0]
        pieces = in_pieces(encoder, x, itertools.repeat(40), ctc=ctc, condition=condition)
        assert torch.allclose(pieces, whole, atol=1e-5)


def test_a_very_short_utterance_in_a_batch_is_empty_and_alone_an_error_espnet_knows():
    encoder, _ = build("conmamba", dict(linear_units=32))
    x = torch.randn(2, 50, 80)
    out, lengths, _ = encoder(x, torch.tensor([50, 3]))
    assert lengths.tolist() == [11, 0] and torch.isfinite(out).all()
    with pytest.raises(TooShortUttError, match="3 frames; the input layer needs 7"):
        encoder(x[1:, :3], torch.tensor([3]))
    with pytest.raises(TooShortUttError, match="6 frames"):
        encoder(x[:, :9], torch.tensor([6, 5]))


@pytest.mark.parametrize(
    "name, kinds, options",
    [
        ("conmamba", {"feed_forward_macaron", "mixer", "conv_module", "feed_forward"}, {}),
        ("speech_mamba", {"mixer", "attention"}, dict(input_layer="conv2d")),
        ("speech_mamba", {"mixer"}, dict(use_attention=False, input_layer="conv2d")),
        (
            "mamba_ebranchformer",
            {"feed_forward_macaron", "mamba", "cgmlp", "merge", "feed_forward"},
            dict(mixer_conf=dict(direction="uni")),
        ),
        (
            "mamba_ebranchformer",
            {"attention", "cgmlp", "merge"},
            dict(branches=["attention", "cgmlp"], linear_units=0, macaron_style=False),
        ),
    ],
)
def test_adapters_change_every_branch_and_neither_see_padding_nor_need_the_whole(
    name, kinds, options
):
    encoder, _ = build(name, options)
    encoder.eval()
    blocks = [each for each in encoder.modules() if isinstance(each, AdapterPlaces)]
    assert {place for each in blocks for place in each.adapter_places()} == kinds
    assert not [key for key in encoder.state_dict() if "adapter" in key]
    x = torch.randn(3, 97, 80)
    last = encoder(x, LENGTHS)[0]
    for each in blocks:
        for place in each.adapter_places():
            each.set_adapter(place, torch.nn.Linear(16, 16))
            now, lengths, _ = encoder(x, LENGTHS)
            assert not torch.allclose(now, last, atol=1e-4), place
            last = now
    for b, length in enumerate(LENGTHS.tolist()):
        alone, _, _ = encoder(x[b : b + 1, :length], LENGTHS[b : b + 1])
        assert torch.allclose(last[b, : lengths[b]], alone[0], atol=1e-5)
        assert (last[b, lengths[b] :] == 0).all()
    if encoder.causal:
        pieces = in_pieces(encoder, x[:1], itertools.repeat(13))
        assert torch.allclose(pieces[0], last[0], atol=1e-5)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mamba", dict(num_blocks=2.5), "num_blocks is 2.5; it must be a whole number"),
        ("mamba", dict(dropout_rate=2), "dropout_rate is 2; it must lie in"),
        ("conmamba", dict(macaron_style="false"), "macaron_style is 'false'; it must be true or"),
        ("conmamba", dict(cnn_module_kernel=4), "cnn_module_kernel is 4; it must be odd"),
        # What no part asks for is checked all the same.
        ("mamba", dict(num_blocks=0, direction="back"), "direction is 'back'"),
        # What does not fit each other.
        ("mamba", dict(macaron_style=True), "macaron_style needs linear_units"),
        ("speech_mamba", dict(attention_heads=3), "attention_heads is 3; it must divide"),
        ("speech_mamba", dict(output_size=15), "'sinusoidal', which needs an even width; it is 15"),
        ("mamba_ebranchformer", dict(branches="mamba"), "list some of attention, mamba, cgmlp"),
        ("mamba", dict(stochastic_depth_rate=[0.1]), "for the 3 blocks"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, options)
