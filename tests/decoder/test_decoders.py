"""What holds for every decoder that a yaml can name."""

import pytest
import torch
from sequences import poisoned, save_and_load

from mambaasr.layers import espnet_scorer
from mambaasr.layers.adapter import AdapterPlaces
from mambaasr.registry import CLASSES, load

VOCABULARY, WIDTH = 13, 16
MAMBA2 = dict(mixer="mamba2", d_state=8, mixer_conf=dict(headdim=8))
VARIANTS = {
    "mamba": [
        dict(linear_units=32),
        dict(linear_units=0, attention_heads=1, norm="rms_norm"),
        dict(linear_units=32, positions="sinusoidal", **MAMBA2),
        dict(linear_units=0, mamba_before=2, mamba_after=2),
    ],
    "speech_mamba": [
        dict(d_state=8),
        dict(mamba_before=0, d_state=8),
        dict(mamba_after=0, positions="none", **MAMBA2),
    ],
    "cross_mamba": [
        dict(linear_units=32),
        dict(linear_units=0, positions="sinusoidal"),
        dict(linear_units=32, activation_type="gelu", **MAMBA2),
    ],
    "madeon": [
        dict(prefix_direction=direction, d_model=12 if direction == "uni" else None, **options)
        for direction in ("uni", "parallel", "serial")
        for options in ({}, dict(mixer="mamba2", d_state=8, mixer_conf=dict(headdim=8)))
    ],
}
CASES = [(name, options) for name, several in VARIANTS.items() for options in several]
SPEECH = torch.tensor([11, 4, 7])
TEXT = torch.tensor([6, 9, 1])


def build(name, options):
    torch.manual_seed(0)
    options = dict(num_blocks=2) | options
    return load(CLASSES["decoder"][name])(VOCABULARY, WIDTH, **options)


def batch():
    torch.manual_seed(1)
    return torch.randn(3, 11, WIDTH), torch.randint(0, VOCABULARY, (3, 9))


def test_every_registered_decoder_is_tested():
    assert set(VARIANTS) == set(CLASSES["decoder"])


@pytest.mark.parametrize("name, options", CASES)
def test_padded_batch_equals_single_utterance(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    padded = poisoned(speech, SPEECH)
    together, lengths = decoder(padded, SPEECH, text, TEXT)
    assert torch.equal(lengths, TEXT)
    for b in range(3):
        alone, _ = decoder(
            speech[b : b + 1, : SPEECH[b]],
            SPEECH[b : b + 1],
            text[b : b + 1, : TEXT[b]],
            TEXT[b : b + 1],
        )
        assert torch.allclose(together[b, : TEXT[b]], alone[0], atol=1e-5)
        assert (together[b, TEXT[b] :] == 0).all()


@pytest.mark.parametrize("name, options", CASES)
def test_forward_and_backward_reach_every_parameter(name, options):
    decoder, (speech, text) = build(name, options), batch()
    speech.requires_grad_()
    decoder(speech, SPEECH, text, TEXT)[0].square().sum().backward()
    assert (speech.grad[1, 4:] == 0).all() and speech.grad[1, :4].abs().sum() > 0
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name, options", CASES)
def test_step_equals_the_whole(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    logits, _ = decoder(speech, SPEECH, text, TEXT)
    want = logits.log_softmax(-1)
    for b in range(3):
        x = speech[b, : SPEECH[b]]
        state = decoder.init_state(x)
        for t in range(int(TEXT[b])):
            scores, state = decoder.score(text[b, : t + 1], state, x)
            assert torch.allclose(scores, want[b, t], atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_beams_that_change_places_equal_the_whole(name, options):
    decoder, (speech, _) = build(name, options).eval(), batch()
    x = speech[0]
    xs = x.expand(4, -1, -1)
    random = torch.Generator().manual_seed(2)
    prefixes = torch.full((4, 1), VOCABULARY - 1)
    states = [decoder.init_state(x)] * 4
    for _ in range(8):
        scores, states = decoder.batch_score(prefixes, states, xs)
        whole, _ = decoder(xs, torch.full((4,), 11), prefixes, torch.full((4,), prefixes.shape[1]))
        assert torch.allclose(scores, whole[:, -1].log_softmax(-1), atol=1e-5)
        # Each survivor continues some earlier hypothesis; several may continue the same one.
        parents = torch.randint(0, 4, (4,), generator=random)
        states = [decoder.select_state(states, int(parent)) for parent in parents]
        tokens = torch.randint(0, VOCABULARY, (4, 1), generator=random)
        prefixes = torch.cat([prefixes[parents], tokens], dim=1)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
@pytest.mark.parametrize("owners", [[0, 0, 1, 1, 2, 2], [2, 0, 0, 1], [0, 1, 2]])
def test_hypotheses_of_several_utterances(name, options, owners):
    """As many of each, which share keys and values, or any; padding is NaN."""
    decoder, (speech, _) = build(name, options).eval(), batch()
    alone = [speech[b, : SPEECH[b]] for b in owners]
    mask = (torch.arange(11) < SPEECH[owners, None]).unsqueeze(1)
    xs = speech[owners].masked_fill(~mask.transpose(1, 2), float("nan"))
    prefixes = torch.randint(0, VOCABULARY, (len(owners), 4))
    states = [[None] * len(owners), [decoder.init_state(x) for x in alone]]
    if len(owners) % 3 == 0:  # as ESPnet's search begins
        states.append([decoder.batch_init_state(speech, xs_lengths=SPEECH)] * len(owners))
    for state in states:
        for t in range(1, 5):
            scores, state = decoder.batch_score(prefixes[:, :t], state, xs, xs_mask=mask)
            for row, x in enumerate(alone):
                want, _ = decoder.score(prefixes[row, :t], None, x)
                assert torch.allclose(scores[row], want, atol=1e-5)


def whole(decoder, speech, text):
    """Log-probabilities of the token behind each text (n, length), by the parallel form."""
    n, frames = len(text), torch.tensor([len(speech)])
    logits, _ = decoder(
        speech.expand(n, -1, -1), frames.expand(n), text, torch.full((n,), text.shape[1])
    )
    return logits[:, -1].log_softmax(-1)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_search_by_start_step_and_reorder(name, options):
    """Padding is NaN; hypotheses change places, an utterance leaves, another comes twice."""
    decoder, (speech, _) = build(name, options).eval(), batch()
    random = torch.Generator().manual_seed(2)
    padded = poisoned(speech, SPEECH)
    state = decoder.start(padded, SPEECH)
    owners = torch.arange(3)
    texts = torch.full((3, 1, 1), VOCABULARY - 1)
    spare = None
    for k, staying in ((4, None), (4, None), (2, [0, 2]), (3, None), (5, [1, 0, 1]), (1, [1])):
        logits, state = decoder.step(texts[:, :, -1], state)
        for b, owner in enumerate(owners.tolist()):
            want = whole(decoder, speech[owner, : SPEECH[owner]], texts[b])
            assert torch.allclose(logits[b].log_softmax(-1), want, atol=1e-5)
        index = torch.randint(0, texts.shape[1], (len(staying or owners), k), generator=random)
        staying = None if staying is None else torch.tensor(staying)
        old, state = state, decoder.reorder(state, index, staying, out=spare)
        spare = old
        if staying is not None:
            owners, texts = owners[staying], texts[staying]
        tokens = torch.randint(0, VOCABULARY, (*index.shape, 1), generator=random)
        texts = torch.cat(
            [texts.gather(1, index[..., None].expand(-1, -1, texts.shape[2])), tokens], 2
        )


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_utterances_that_come_later_join_those_that_are_there(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    early = decoder.start(speech[:2], SPEECH[:2])
    for t in range(3):
        _, early = decoder.step(text[:2, t : t + 1], early)
    logits, _ = decoder.step(
        torch.stack([text[0, 3], text[1, 3], text[2, 0]])[:, None],
        decoder.join([early, decoder.start(speech[2:, :7])]),
    )
    for b, read in enumerate((4, 4, 1)):
        want = whole(decoder, speech[b, : SPEECH[b]], text[b : b + 1, :read])
        assert torch.allclose(logits[b].log_softmax(-1), want, atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_step_consumes_its_state_and_a_reordered_copy_stays(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    state = decoder.start(speech, SPEECH)
    copy = decoder.reorder(state)
    first, _ = decoder.step(text[:, :1], state)
    second, _ = decoder.step(text[:, 1:2], state)
    assert not torch.equal(first, second)
    again, copy = decoder.step(text[:, :1], copy)
    assert torch.equal(first, again)
    assert torch.equal(second, decoder.step(text[:, 1:2], copy)[0])


@torch.no_grad()
def test_keys_and_values_are_one_for_each_utterance():
    decoder, (speech, text) = build("mamba", VARIANTS["mamba"][0]).eval(), batch()
    states = [decoder.batch_init_state(speech, xs_lengths=SPEECH)] * 12
    first = states[0][0].batch.state.memory
    assert {len(part) for part in first} == {3}
    xs, lengths = speech.repeat_interleave(4, 0), SPEECH.repeat_interleave(4)
    mask = torch.arange(11) < lengths[:, None]
    for t in (1, 2, 3):
        prefixes = text.repeat_interleave(4, 0)[:, :t]
        _, states = decoder.batch_score(prefixes, states, xs, xs_mask=mask.unsqueeze(1))
        memory = states[0].batch.state.memory
        assert [id(part) for part in memory] == [id(part) for part in first]


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_adapters_in_every_place_serve_whole_texts_and_steps(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    assert not [key for key in decoder.state_dict() if "adapter" in key]
    before, _ = decoder(speech, SPEECH, text, TEXT)
    for block in decoder.blocks:
        assert isinstance(block, AdapterPlaces)
        parts = [key for key, _ in block.named_children() if key.startswith(("mixer", "cross"))]
        assert set(block.adapter_places()) >= {*parts}
        for place in block.adapter_places():
            width = decoder.embed.embedding_dim
            block.set_adapter(place, torch.nn.Linear(width, width))
            after, _ = decoder(speech, SPEECH, text, TEXT)
            assert not torch.allclose(before, after, atol=1e-4), place
            before = after
    state = decoder.start(speech, SPEECH)
    for t in range(int(TEXT.max())):
        logits, state = decoder.step(text[:, t : t + 1], state)
        for b in (TEXT > t).nonzero().flatten().tolist():
            assert torch.allclose(logits[b, 0], before[b, t], atol=1e-4)


@pytest.mark.parametrize("name, options", CASES)
def test_save_and_load(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    again = save_and_load(decoder, build(name, options)).eval()
    got, _ = again(speech, SPEECH, text, TEXT)
    assert torch.equal(got, decoder(speech, SPEECH, text, TEXT)[0])


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_an_empty_utterance_gives_the_same_finite_scores_in_every_form(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    together, _ = decoder(speech, torch.tensor([0, 4, 7]), text, TEXT)
    nothing = speech[:1, :0]
    alone, _ = decoder(nothing, torch.tensor([0]), text[:1], TEXT[:1])
    assert torch.isfinite(together).all()
    assert torch.allclose(alone[0, : TEXT[0]], together[0, : TEXT[0]], atol=1e-5)
    state = decoder.init_state(nothing[0])
    for t in range(3):
        scores, state = decoder.score(text[0, : t + 1], state, nothing[0])
        assert torch.allclose(scores, alone[0, t].log_softmax(-1), atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_the_speech_is_heard_and_its_order_too(name, options):
    decoder, (speech, text) = build(name, options).eval(), batch()
    scores = [
        decoder(x[:1], SPEECH[:1], text[:1], TEXT[:1])[0]
        for x in (speech, speech + 1, speech.flip(1))
    ]
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)
    # Attention sees the frames as a set; their order is the encoder's to say.
    assert torch.allclose(scores[0], scores[2], atol=1e-4) == (name in ("mamba", "speech_mamba"))


@pytest.mark.parametrize("name", CLASSES["decoder"])
@torch.no_grad()
def test_states_that_do_not_fit_the_prefix_are_replayed(name, monkeypatch):
    monkeypatch.setattr(espnet_scorer, "KEPT_BYTES", 0)
    decoder, (speech, text) = build(name, VARIANTS[name][0]).eval(), batch()
    x, xs = speech[0], speech[:1].expand(2, -1, -1)
    want = decoder(speech[:1], SPEECH[:1], text[1:2], torch.tensor([9]))[0].log_softmax(-1)
    states = [[decoder.init_state(x)] * 2]
    prefixes = text[1].expand(2, -1)
    for t in range(8):
        states.append(decoder.batch_score(prefixes[:, : t + 1], states[-1], xs)[1])
    assert [several[0].evicted for several in states] == [False] + [True] * 5 + [False] * 3
    # Evicted, never asked, absent, behind, ahead, and of the beginning of the speech only.
    less = decoder.batch_score(prefixes[:, :4], [None] * 2, xs[:, :2])[1]
    for several in (states[4], states[0], [None] * 2, states[7], states[8], less):
        for t in (4, 8):
            scores, _ = decoder.batch_score(prefixes[:, : t + 1], several, xs)
            assert torch.allclose(scores, want[0, t].expand(2, -1), atol=1e-5)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mamba", dict(num_blocks=0), "num_blocks is 0"),
        ("mamba", dict(mamba_before=0), "without a mixer"),
        ("mamba", dict(positions="rotary"), "positions is 'rotary'; choose one of none"),
        ("mamba", dict(mixer_conf=dict(heads=1)), "'heads' is no option of mamba1"),
        ("madeon", dict(prefix_mask_rate=1.0), "prefix_mask_rate is 1.0; it must lie in"),
    ],
)
def test_impossible_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, options)


@pytest.mark.parametrize("direction", ["uni", "parallel", "serial"])
def test_initial_values_survive_a_generic_initialisation(direction):
    decoder = build("madeon", dict(prefix_direction=direction))
    names = [name for name, _ in decoder.named_parameters() if name.endswith(("_log", ".D"))]
    assert any("A_b_log" in name for name in names) == (direction == "parallel")
    before = {name: decoder.get_parameter(name).clone() for name in names}
    for name in names:
        torch.nn.init.zeros_(decoder.get_parameter(name))
    for module in decoder.modules():
        if hasattr(module, "espnet_initialization_fn"):
            module.espnet_initialization_fn()
    for name in names:
        assert torch.equal(decoder.get_parameter(name), before[name]), name


def test_madeon_without_mamba2s_inner_norm_unless_asked_for():
    for conf, expected in (({}, False), (dict(rmsnorm=True), True)):
        decoder = build("madeon", dict(mixer="mamba2", d_state=8, mixer_conf=conf, expand=4))
        assert (decoder.blocks[0].mixer.mixer.norm is not None) == expected


def test_the_prefix_is_masked_in_training_alone():
    decoder, (speech, text) = build("madeon", dict(prefix_mask_rate=0.5, dropout_rate=0.0)), batch()

    def run():
        return decoder(speech, SPEECH, text, TEXT)[0]

    assert not torch.allclose(run(), run(), atol=1e-3)
    decoder.eval()
    assert torch.equal(run(), run())
