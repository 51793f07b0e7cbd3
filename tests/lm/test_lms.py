"""What holds for every language model that a yaml can name."""

import pytest
import torch
from sequences import save_and_load

from mambaasr.layers import espnet_scorer
from mambaasr.registry import CLASSES, load

VOCABULARY = 13
VARIANTS = {
    "mamba": [
        dict(),
        dict(linear_units=32, tie_weights=False, norm="layer_norm"),
        dict(mixer="mamba2", d_state=8, mixer_conf=dict(headdim=8)),
    ]
}
CASES = [(name, options) for name, several in VARIANTS.items() for options in several]
LENGTHS = [9, 4, 1]


def build(name, options):
    torch.manual_seed(0)
    lm = load(CLASSES["lm"][name])(VOCABULARY, **(dict(unit=16, num_blocks=2) | options))
    # The initial weights are small; larger ones make differences seen.
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() == 2 and not getattr(parameter, "_no_weight_decay", False):
                parameter.mul_(3)
    return lm


def batch():
    """Tokens (3, 9), each text padded with 0 behind its length."""
    torch.manual_seed(1)
    text = torch.randint(1, VOCABULARY, (3, 9))
    for row, length in zip(text, LENGTHS, strict=True):
        row[length:] = 0
    return text


def test_every_registered_lm_is_tested():
    assert set(VARIANTS) == set(CLASSES["lm"])


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_padded_batch_equals_single_text(name, options):
    """ESPnet calls an LM without lengths: what stands behind a text must not matter."""
    lm, text = build(name, options).eval(), batch()
    together, _ = lm(text, None)
    other = text.clone()
    for row, length in zip(other, LENGTHS, strict=True):
        row[length:] = 5
    changed, _ = lm(other, None)
    for b, length in enumerate(LENGTHS):
        alone, _ = lm(text[b : b + 1, :length], None)
        assert torch.allclose(together[b, :length], alone[0], atol=1e-5)
        assert torch.equal(together[b, :length], changed[b, :length])
    assert together.std() > 0.1


@pytest.mark.parametrize("name, options", CASES)
def test_forward_and_backward_reach_every_parameter(name, options):
    from espnet2.lm.espnet_model import ESPnetLanguageModel

    model = ESPnetLanguageModel(build(name, options), VOCABULARY)
    loss, _, weight = model(batch(), torch.tensor(LENGTHS))
    assert int(weight) == sum(LENGTHS) + 3
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name, options", CASES)
def test_padding_gets_no_gradient(name, options):
    from espnet2.lm.espnet_model import ESPnetLanguageModel

    model = ESPnetLanguageModel(build(name, options).eval(), VOCABULARY)
    model.double()
    gradients = []
    for texts in ([0, 1, 2], [1]):
        model.zero_grad()
        nll, _ = model.nll(batch()[texts], torch.tensor(LENGTHS)[texts])
        nll[texts.index(1)].sum().backward()
        gradients.append({key: value.grad.clone() for key, value in model.named_parameters()})
    for key, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][key], atol=1e-5), key


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_step_equals_the_whole(name, options):
    lm, text = build(name, options).eval(), batch()
    want = lm(text, None)[0].log_softmax(-1)
    state = None
    for t in range(text.shape[1]):
        scores, state = lm.score(text[0, : t + 1], state, None)
        assert torch.allclose(scores, want[0, t], atol=1e-5)
    states = [lm.init_state(None)] * 3
    for t in range(text.shape[1]):
        scores, states = lm.batch_score(text[:, : t + 1], states, None)
        assert torch.allclose(scores, want[:, t], atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
def test_pieces_equal_the_whole_with_gradients(name, options):
    lm, text = build(name, options).eval(), batch()
    whole, none = lm(text, None)
    assert none is None
    whole.square().sum().backward()
    want = {key: parameter.grad.clone() for key, parameter in lm.named_parameters()}
    lm.zero_grad()
    state, outs = lm.zero_state(3), []
    for piece in text.split([4, 1, 4], dim=1):
        out, state = lm(piece, state)
        outs.append(out)
    assert torch.allclose(torch.cat(outs, dim=1), whole, atol=1e-5)
    torch.cat(outs, dim=1).square().sum().backward()
    for key, parameter in lm.named_parameters():
        scale = want[key].abs().max()
        assert (parameter.grad - want[key]).abs().max() < 1e-4 * scale, key


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_beams_that_change_places_equal_the_whole(name, options):
    lm = build(name, options).eval()
    random = torch.Generator().manual_seed(2)
    prefixes = torch.full((4, 1), VOCABULARY - 1)
    states = lm.batch_init_state(None)
    states = [states] * 4
    for _ in range(8):
        scores, states = lm.batch_score(prefixes, states, None)
        whole, _ = lm(prefixes, None)
        assert torch.allclose(scores, whole[:, -1].log_softmax(-1), atol=1e-5)
        # Each survivor continues some earlier hypothesis; several may continue the same one.
        parents = torch.randint(0, 4, (4,), generator=random)
        states = [lm.select_state(states, int(parent)) for parent in parents]
        tokens = torch.randint(0, VOCABULARY, (4, 1), generator=random)
        prefixes = torch.cat([prefixes[parents], tokens], dim=1)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_search_by_start_step_and_reorder(name, options):
    """Treated like a decoder, it ignores the speech; texts leave and change places."""
    lm, text = build(name, options).eval(), batch()
    want = lm(text, None)[0]
    state = lm.start(torch.full((3, 5, 2), float("nan")), torch.tensor([5, 1, 0]))
    for t in range(4):
        logits, state = lm.step(text[:, None, t], state)
        assert torch.allclose(logits[:, 0], want[:, t], atol=1e-5)
    state = lm.reorder(state, torch.zeros(2, 3, dtype=torch.long), torch.tensor([2, 0]))
    logits, state = lm.step(text[[2, 0], None, 4].expand(-1, 3), state)
    assert torch.allclose(logits, want[[2, 0], None, 4].expand(-1, 3, -1), atol=1e-5)
    fresh = lm.reorder(lm.start(1), torch.zeros(1, 3, dtype=torch.long))
    assert lm.join([state, fresh]).utterances == 3


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_a_state_is_not_changed_and_replayed_if_evicted(name, options, monkeypatch):
    monkeypatch.setattr(espnet_scorer, "KEPT_BYTES", 0)
    lm, text = build(name, options).eval(), batch()
    states, first = [lm.init_state(None)] * 3, []
    kept = []
    for t in range(text.shape[1]):
        kept.append(states)
        scores, states = lm.batch_score(text[:, : t + 1], states, None)
        first.append(scores)
    assert sum(not states[0].evicted for states in kept) == 3  # the first, and two of the newest
    for t in reversed(range(text.shape[1])):
        again, _ = lm.batch_score(text[:, : t + 1], kept[t], None)
        assert torch.allclose(again, first[t], atol=1e-5)
        new, _ = lm.batch_score(text[:, : t + 1], [None] * 3, None)
        assert torch.allclose(new, first[t], atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
@torch.no_grad()
def test_adapters_in_every_place_serve_texts_pieces_and_steps(name, options):
    lm, text = build(name, options).eval(), batch()
    assert not [key for key in lm.state_dict() if "adapter" in key]
    before, _ = lm(text, None)
    for block in lm.blocks:
        assert block.adapter_places() == ("mixer", "feed_forward")[: 1 + bool(block.feed_forward)]
        for place in block.adapter_places():
            block.set_adapter(place, torch.nn.Linear(16, 16))
            after, _ = lm(text, None)
            assert not torch.allclose(before, after, atol=1e-4), place
            before = after
    pieces, _ = lm(text, lm.zero_state(3))
    assert torch.allclose(pieces, before, atol=1e-4)
    state = lm.start(3)
    for t in range(text.shape[1]):
        logits, state = lm.step(text[:, None, t], state)
        assert torch.allclose(logits[:, 0], before[:, t], atol=1e-4)


@pytest.mark.parametrize("name, options", CASES)
def test_save_and_load(name, options):
    lm, text = build(name, options).eval(), batch()
    other = save_and_load(lm, build(name, options)).eval()
    assert torch.equal(other(text, None)[0], lm(text, None)[0])


def test_tied_weights_are_one_matrix_and_start_small():
    lms = [build_plain(tie_weights=tied) for tied in (True, False)]
    sizes = [sum(parameter.numel() for parameter in lm.parameters()) for lm in lms]
    assert sizes[1] - sizes[0] == VOCABULARY * 64
    for lm in lms:
        loss = lm(batch(), None)[0].log_softmax(-1).mean()
        assert abs(loss + torch.tensor(float(VOCABULARY)).log()) < 0.2


def build_plain(**options):
    torch.manual_seed(0)
    options = dict(unit=64, num_blocks=2) | options
    return load(CLASSES["lm"]["mamba"])(VOCABULARY, **options)


def test_espnets_initialisation_leaves_what_must_stay():
    from espnet2.torch_utils.initialize import initialize

    lm = build_plain(num_blocks=8)
    for init in ("kaiming_normal", "xavier_uniform"):
        initialize(lm, init)
        assert 0.01 < lm.embed.weight.std() < 0.03
    # One branch a block: what leaves each is scaled by 1 / sqrt(8), as it was at first.
    bound = (6 / (128 + 64)) ** 0.5 / 8**0.5
    assert 0.9 * bound < lm.blocks[0].mixer.out_proj.weight.abs().max() <= bound
    A = lm.blocks[0].mixer.A_log.exp()
    assert torch.allclose(A[0], torch.arange(1.0, A.shape[1] + 1))
