"""What holds for every post-encoder that a yaml can name, and unimodal aggregation in ESPnet."""

import pytest
import torch
from sequences import poisoned, save_and_load
from tiny_asr import OURS, TOKENS, make_experiment

from mambaasr.errors import UserError
from mambaasr.registry import CLASSES, load

VARIANTS = {
    "uma": [
        dict(),
        dict(max_frames=4),
        dict(num_blocks=2, linear_units=32),
        dict(num_blocks=1, linear_units=32, positions="rotary", max_frames=6),
        dict(num_blocks=1, linear_units=0, positions="none"),
    ],
}
CASES = [(name, options) for name, several in VARIANTS.items() for options in several]
LENGTHS = torch.tensor([40, 3, 17, 0])


def build(name, options):
    torch.manual_seed(0)
    return load(CLASSES["postencoder"][name])(input_size=16, **options)


def test_every_registered_postencoder_is_tested():
    assert set(VARIANTS) == set(CLASSES["postencoder"])


@pytest.mark.parametrize("name, options", CASES)
def test_padded_batch_equals_single_utterance(name, options):
    module = build(name, options).eval()
    x = torch.randn(4, 40, 16)
    padded = poisoned(x, LENGTHS)
    out, lengths = module(padded, LENGTHS)
    # ESPnet's encode() asserts so much; an utterance with frames keeps at least one.
    assert out.shape == (4, lengths.max(), module.output_size())
    assert (lengths[:3] > 0).all() and (lengths <= LENGTHS).all()
    for b in range(3):
        alone, single = module(x[b : b + 1, : LENGTHS[b]], LENGTHS[b : b + 1])
        assert single[0] == lengths[b] and alone.std() > 0.1
        assert torch.allclose(out[b, : lengths[b]], alone[0], atol=1e-5)
        assert (out[b, lengths[b] :] == 0).all()


@pytest.mark.parametrize("name, options", CASES)
def test_pieces_give_what_the_whole_gives(name, options):
    module = build(name, options).eval()
    if options.get("num_blocks"):
        with pytest.raises(ValueError, match="looks ahead in its . blocks.*with num_blocks: 0"):
            module.initial_state(2)
        return
    x = torch.randn(2, 40, 16)
    want, counts = module(x, torch.tensor([40, 40]))
    state, rows = module.initial_state(2), [[], []]
    for piece in x.split([9, 0, 1, 30], dim=1):
        tokens, count, state = module.forward_chunk(piece, state, last=piece.shape[1] == 30)
        for row, found, number in zip(rows, tokens, count, strict=True):
            row.append(found[:number])
            assert (found[number:] == 0).all()
    for row, whole, count in zip(rows, want, counts, strict=True):
        assert torch.allclose(torch.cat(row), whole[:count], atol=1e-5)


@pytest.mark.parametrize("name, options", CASES)
def test_backward_reaches_every_parameter_and_the_input(name, options):
    module = build(name, options)
    x = torch.randn(4, 40, 16, requires_grad=True)
    out, _ = module(x, LENGTHS)
    (out * torch.randn_like(out)).sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[0] != 0).all()
    assert (x.grad[1, 3:] == 0).all() and (x.grad[3] == 0).all()
    for key, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any(), key


@pytest.mark.parametrize("name, options", CASES)
def test_save_and_load(name, options):
    module, x = build(name, options).eval(), torch.randn(4, 40, 16)
    again = save_and_load(module, build(name, options)).eval()
    assert torch.equal(again(x, LENGTHS)[0], module(x, LENGTHS)[0])


@pytest.fixture
def make_model(tmp_path):
    """Return a function ESPnet's options -> a loaded Speech2Text with unimodal aggregation."""

    def make(**options):
        from mambaasr.decode.load import load_speech2text

        weight = options.get("model_conf", {}).get("ctc_weight", 0.3)
        files = make_experiment(tmp_path, **(OURS | dict(postencoder="uma") | options))
        return load_speech2text(*files, beam_size=3, ctc_weight=weight)

    return make


@pytest.mark.parametrize("ctc_weight", [0.3, 1.0])
@torch.no_grad()
def test_espnet_decodes_with_it(make_model, ctc_weight):
    conf = dict(num_blocks=1, linear_units=32)
    model = make_model(postencoder_conf=conf, model_conf=dict(ctc_weight=ctc_weight))
    torch.manual_seed(3)
    speech = torch.randn(24000).mul(0.1).cumsum(0).clamp(-1, 1)
    frames, _ = model.asr_model.encode(speech[None], torch.tensor([24000]))
    assert 1 < frames.shape[1] < 30  # conv2d alone makes 36
    assert len(model(speech)[0][1]) > 0


def test_a_text_without_alignment_teaches_nothing_and_breaks_nothing(make_model):
    model = make_model(model_conf=dict(ctc_weight=1.0)).asr_model.train()
    torch.manual_seed(3)
    speech, lengths = torch.randn(2, 16000), torch.tensor([16000, 12000])
    long = torch.randint(3, len(TOKENS) - 1, (2, 60))
    for text_lengths, learns in (([60, 60], False), ([60, 2], True)):
        model.zero_grad()
        loss, _, _ = model(speech, lengths, long.clone(), torch.tensor(text_lengths))
        loss.backward()
        assert torch.isfinite(loss) and (loss > 0) == learns
        grads = [p.grad for p in model.encoder.parameters()]
        assert all(torch.isfinite(grad).all() for grad in grads)
        assert any((grad != 0).any() for grad in grads) == learns


def test_intermediate_ctc_is_refused(tmp_path):
    from mambaasr.task.asr import ASRTask

    args = ASRTask.get_parser().parse_args(
        "--postencoder uma --model_conf interctc_weight=0.3 --token_list x".split()
    )
    with pytest.raises(UserError, match="interctc_weight is 0.3 with postencoder: uma"):
        ASRTask.prepare(args)
