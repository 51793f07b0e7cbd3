"""From waveform to encoder output and greedy CTC: an utterance is the same alone and in a batch."""

import pytest
import soundfile
import torch
from tiny_asr import TOKENS

from mambaasr.frontend.fbank import Fbank
from mambaasr.registry import CLASSES, load


@pytest.fixture(scope="module")
def waves(test_data):
    files = sorted((test_data / "an4" / "wav" / "an4test_clstk").glob("*/*.wav"))[::9]
    assert len(files) == 15
    return [torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files]


@pytest.mark.parametrize("size", [4, 15])
@pytest.mark.parametrize("name", list(CLASSES["encoder"]))
@torch.no_grad()
def test_transcripts_do_not_depend_on_the_batch(name, size, waves):
    torch.manual_seed(0)
    frontend = Fbank()
    encoder = load(CLASSES["encoder"][name])(80, output_size=32, num_blocks=2).eval()
    head = torch.nn.Linear(32, len(TOKENS))

    def run(batch):
        lengths = torch.tensor([len(wave) for wave in batch])
        speech = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        out, frames, _ = encoder(*frontend(speech, lengths))
        return [x[:n] for x, n in zip(out, frames, strict=True)]

    alone = [run([wave])[0] for wave in waves]
    together = [x for i in range(0, len(waves), size) for x in run(waves[i : i + size])]
    for one, many in zip(alone, together, strict=True):
        assert one.shape == many.shape
        assert torch.allclose(one, many, atol=1e-4)
        assert torch.equal(head(one).argmax(-1), head(many).argmax(-1))
