"""A mixer of anyone's own, by the public interface alone, serves wherever ours do."""

import pytest
import torch
from torch import nn

from mambaasr.layers.bidirectional import OuterBiMamba
from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.join import join
from mambaasr.layers.mixer import Mixer
from mambaasr.layers.mixer_conf import CausalMixerConf
from mambaasr.layers.speech_prefix import PrefixMixer
from mambaasr.lm.mamba import MambaLM
from mambaasr.ops.lengths import reverse as reverse_frames
from mambaasr.ops.lengths import zero_padding

LENGTHS = torch.tensor([9, 4])


class Average(Mixer):
    """A moving average of each channel, with a decay of its own in each direction."""

    def __init__(self, d_model):
        super().__init__()
        self.d_model = self.d_ssm = d_model
        self.proj = nn.Linear(d_model, d_model, bias=False)
        self.add_direction("")

    def add_direction(self, suffix):
        setattr(self, f"decay{suffix}", nn.Parameter(torch.rand(self.d_model)))

    def initial_state(self, batch, device=None, dtype=torch.float32):
        return (torch.zeros(batch, self.d_model, device=device, dtype=dtype),)

    def project_in(self, x):
        return (self.proj(x),)

    def project_out(self, y, parts, lengths=None):
        return y if lengths is None else zero_padding(y, lengths)

    def mix(self, parts, suffix="", lengths=None, reverse=False, state=None):
        (x,) = parts
        x = x if lengths is None else zero_padding(x, lengths)
        x = reverse_frames(x, lengths) if reverse else x
        state, outputs = state or self.initial_state(len(x)), []
        state = tuple(part.clone() for part in state)
        for t, frame in enumerate(x.unbind(1)):
            h = getattr(self, f"decay{suffix}") * state[0] + frame
            valid = True if lengths is None else (t < lengths)[:, None]
            state = (torch.where(torch.as_tensor(valid), h, state[0]),)
            outputs.append(h)
        y = torch.stack(outputs, dim=1)
        y = y if lengths is None else zero_padding(y, lengths)
        return (reverse_frames(y, lengths) if reverse else y), state

    def mix_step(self, parts, state, suffix=""):
        state[0].mul_(getattr(self, f"decay{suffix}")).add_(parts[0])
        return state[0].clone()


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 9, 4)


def test_whole_pieces_and_steps_agree_and_padding_has_no_effect(x):
    mixer = Average(4)
    whole, state, pieces = mixer(x), mixer.initial_state(2), []
    for piece in x[:, :7].split(3, dim=1):
        y, state = mixer.forward_chunk(piece, state)
        pieces.append(y)
    pieces += [mixer.step(x[:, t], state)[:, None] for t in (7, 8)]
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-5)
    for reverse in (False, True):
        alone = mixer(x[1:, :4], reverse=reverse)[0]
        assert torch.allclose(mixer(x, LENGTHS, reverse)[1, :4], alone, atol=1e-6)


def test_it_serves_in_blocks_in_both_directions_and_over_prefixes(x):
    block = EncoderBlock(4, Average(4), hidden=8).eval()
    y, _ = block.forward_chunk(x, block.initial_state(2))
    assert torch.allclose(y, block(x, torch.tensor([9, 9])), atol=1e-5)
    outer = OuterBiMamba(Average, 4)
    want = outer.forward_mixer(x) + outer.backward_mixer(x.flip(1)).flip(1)
    assert torch.allclose(outer(x), want, atol=1e-6)
    assert torch.allclose(outer(x, reverse=True), outer(x.flip(1)).flip(1), atol=1e-6)
    prefix, text = PrefixMixer(Average(4), "both"), torch.randn(2, 3, 4)
    joint, lengths = join(x, LENGTHS, text, torch.tensor([3, 3]))
    whole = prefix(joint, lengths, LENGTHS, tokens=3)
    _, state = prefix.start(x, LENGTHS)
    for t in range(3):
        assert torch.allclose(prefix.step(text[:, t], state), whole[:, t], atol=1e-5)


def test_it_serves_in_a_language_model(monkeypatch):
    monkeypatch.setattr(CausalMixerConf, "make", lambda self, width: Average(width))
    lm, text = MambaLM(7, unit=4, num_blocks=2).eval(), torch.randint(0, 7, (2, 5))
    whole, _ = lm(text)
    state = lm.start(2)
    for t in range(5):
        logits, state = lm.step(text[:, t : t + 1], state)
        assert torch.allclose(logits[:, 0], whole[:, t], atol=1e-5)


@pytest.mark.parametrize("options", [{}, dict(mixer="mamba2", options=dict(headdim=4))])
def test_state_space_mixers_scale_what_they_give(options, x):
    mixer = CausalMixerConf(**options).make(4)
    before = mixer(x)
    mixer.scale_output(0.5)
    assert torch.allclose(mixer(x), 0.5 * before, atol=1e-6)


@pytest.mark.parametrize("backend", ["auto", "naive"])
@pytest.mark.parametrize("options", [{}, dict(mixer="mamba2", options=dict(headdim=4))])
def test_in_fp64_the_state_is_fp64_too(options, backend, x, monkeypatch):
    """One rounding to fp32 on the way would leave differences of 1e-8."""
    monkeypatch.setenv("MAMBAASR_BACKEND", backend)
    mixer = CausalMixerConf(**options).make(4).double()
    x = x.double()
    state = mixer.initial_state(2, dtype=torch.float64)
    pieces = []
    for piece in x[:, :7].split(3, dim=1):
        y, state = mixer.forward_chunk(piece, state)
        pieces.append(y)
    pieces += [mixer.step(x[:, t], state)[:, None] for t in (7, 8)]
    assert {part.dtype for part in state} == {torch.float64}
    whole = mixer(x)
    assert float((torch.cat(pieces, dim=1) - whole).detach().abs().max()) < 1e-13
    # A and D are what their parameters say to the last bit: the smallest change is seen.
    for name in ("A_log", "D"):
        parameter = getattr(mixer, name)
        with torch.no_grad():
            parameter.add_(1e-12)
        assert not torch.equal(mixer(x), whole), name
