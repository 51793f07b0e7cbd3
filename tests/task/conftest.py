"""A tiny real corpus, its statistics, and a tiny model: seconds of training on one core."""

from pathlib import Path

import pytest
from forked import Command

CONFIG = """\
frontend: default
frontend_conf:
  hop_length: 160
encoder: transformer
encoder_conf:
  output_size: 16
  attention_heads: 2
  linear_units: 16
  num_blocks: 1
  input_layer: conv2d
decoder: transformer
decoder_conf:
  attention_heads: 2
  linear_units: 16
  num_blocks: 1
model_conf:
  ctc_weight: 0.3
optim: adam
optim_conf:
  lr: 0.002
batch_type: unsorted
batch_size: 8
max_epoch: 2
num_att_plot: 0
use_matplotlib: false
use_tensorboard: false
num_workers: 0
seed: 1
"""


class Workspace:
    """A folder with data, a token list and a config, and the command to train in it."""

    def __init__(self, folder, sounds):
        self.folder = folder
        self.config = folder / "train.yaml"
        self.config.write_text(CONFIG)
        for name, lines in sounds.items():
            data = folder / name
            data.mkdir()
            (data / "wav.scp").write_text("".join(f"{utt} {path}\n" for utt, path, _ in lines))
            (data / "text").write_text("".join(f"{utt} {text}\n" for utt, _, text in lines))
        letters = sorted(set("".join(text for lines in sounds.values() for *_, text in lines)))
        tokens = ["<blank>", "<unk>", *("<space>" if x == " " else x for x in letters), "<sos/eos>"]
        (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
        self.vocabulary = len(tokens)

    def arguments(self, output, *more, collect=False):
        """Return the arguments of a training, or of statistics."""
        found = ["--config", "train.yaml", "--output_dir", str(output), "--token_type", "char"]
        found += ["--token_list", "tokens.txt"]
        for name in ("train", "valid"):
            for path, key, kind in (("wav.scp", "speech", "sound"), ("text", "text", "text")):
                found += [f"--{name}_data_path_and_name_and_type", f"{name}/{path},{key},{kind}"]
            if not collect:
                for shape in ("speech_shape", "text_shape.char"):
                    found += [f"--{name}_shape_file", f"stats/{name}/{shape}"]
        if collect:
            found += ["--collect_stats", "true"]
        return [*found, *more]

    def start(self, arguments, command="asr_train", **options):
        """Start the command in the folder; return the :class:`forked.Command`."""
        return Command(command, arguments, self.folder, **options)

    def run(self, arguments, command="asr_train"):
        """Run the command to its end; return (exit code, what it printed)."""
        return self.start(arguments, command).wait()


def an4(test_data, split, count, start=0):
    """Return some (utterance, path, text) of AN4, sorted by utterance."""
    folder = test_data / "an4"
    paths = (folder / f"etc/an4_{split}.fileids").read_text().split()
    texts = (folder / f"etc/an4_{split}.transcription").read_text().splitlines()
    chosen = []
    for path, line in list(zip(paths, texts, strict=True))[start : start + count]:
        words = [word for word in line.split()[:-1] if not word.startswith("<")]
        chosen.append((Path(path).name, folder / f"wav/{path}.wav", " ".join(words)))
    return sorted(chosen)


@pytest.fixture(scope="session")
def workspace(test_data, tmp_path_factory):
    """A workspace whose statistics are collected; one utterance has far too long a text."""
    train, valid = an4(test_data, "train", 20), an4(test_data, "test", 5)
    utt, path, _ = train[3]
    train[3] = (utt, path, "THIS IS FAR TOO LONG A TEXT FOR ITS SOUND " * 20)
    # A folder with a comma: its relative paths are fine, and absolute ones must be too.
    space = Workspace(tmp_path_factory.mktemp("a,b c"), {"train": train, "valid": valid})
    space.long = utt
    code, space.printed = space.run(space.arguments("stats", collect=True))
    assert code == 0, space.printed
    return space
