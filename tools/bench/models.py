"""Whole encoders: ours against ESPnet's Conformer and E-Branchformer with equal parameters.

All have the same input (80 mel bins, ESPnet's ``conv2d``), and in training the same CTC head,
loss, dropout and optimizer.
"""

import functools
from collections.abc import Callable

import torch

from bench.compare import Family, Shape
from mambaasr.encoder.conmamba import ConMambaEncoder
from mambaasr.espnet_compat import CTC, import_quietly

MELS, FRAME_RATE, VOCABULARY, TOKEN_RATE = 80, 100, 500, 3
LABELS = ("conmamba", "conformer", "e_branchformer")
# millions of parameters -> (width, feed-forward width, blocks) of each model
SIZES = {
    "10M": ((176, 704, 11), (176, 704, 12), (176, 704, 10)),
    "21M": ((256, 1024, 11), (256, 1024, 12), (256, 1024, 10)),
    "30M": ((256, 1088, 16), (256, 1024, 18), (256, 1024, 15)),
    "tiny": ((16, 32, 1),) * len(LABELS),
}
INFERENCE = ((1, 1), (1, 3), (1, 5), (1, 15), (1, 60), (1, 300), (1, 600))  # batch, seconds
TRAINING = ((1, 5), (1, 15), (1, 60), (4, 15), (1, 600))
# How many times faster than the best other encoder we mean to be.
TARGETS = {
    (1, 1): (1,),
    (1, 3): (1,),
    (1, 5): (1,),
    (1, 15): (1,),
    (1, 60): (3,),
    (1, 300): (15,),
    (1, 600): (1,),
}


def make_encoder(size: str, label: str) -> torch.nn.Module:
    """Make an encoder as its recipes have it."""
    width, hidden, blocks = SIZES[size][LABELS.index(label)]
    same = dict(output_size=width, linear_units=hidden, num_blocks=blocks, dropout_rate=0.1)
    if label == "conmamba":
        return ConMambaEncoder(MELS, **same)
    same |= dict(
        attention_heads=4,
        positional_dropout_rate=0.1,
        attention_dropout_rate=0.1,
        input_layer="conv2d",
        pos_enc_layer_type="rel_pos",
        rel_pos_type="latest",
    )
    if label == "conformer":
        module = import_quietly("espnet2.asr.encoder.conformer_encoder")
        return module.ConformerEncoder(
            MELS,
            **same,
            macaron_style=True,
            use_cnn_module=True,
            cnn_module_kernel=31,
            selfattention_layer_type="rel_selfattn",
            activation_type="swish",
        )
    module = import_quietly("espnet2.asr.encoder.e_branchformer_encoder")
    return module.EBranchformerEncoder(
        MELS,
        **same,
        attention_layer_type="rel_selfattn",
        cgmlp_linear_units=hidden,
        cgmlp_conv_kernel=31,
        merge_conv_kernel=31,
        use_ffn=True,
        macaron_ffn=True,
    )


def model(size: str, label: str, shape: Shape, training: bool) -> Callable[[], list]:
    """Make an encoder, CTC head and optimizer: what runs inference or a training step of it.

    It returns nothing to compare: the encoders differ.
    """
    batch, seconds = shape
    torch.manual_seed(0)
    encoder = make_encoder(size, label)
    head = CTC(VOCABULARY, encoder.output_size())
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-4)
    frames, count = seconds * FRAME_RATE, seconds * TOKEN_RATE
    features = torch.randn(batch, frames, MELS)
    lengths = torch.full((batch,), frames)
    labels = torch.randint(1, VOCABULARY, (batch, count))
    counts = torch.full((batch,), count)

    def step() -> list:
        optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(training):
            encoded, encoded_lengths, _ = encoder(features, lengths)
        if training:
            head(encoded, encoded_lengths, labels, counts).backward()
            optimizer.step()
        return []

    encoder.train(training)
    return step


def families(size: str) -> dict[str, Family]:
    """Return the comparisons of the encoders of one size."""
    sides = {label: functools.partial(model, size, label) for label in LABELS}
    what = f"encoders of {size} parameters, (batch, seconds of audio)"
    plans = {
        "inference": (f"One inference pass of {what}", INFERENCE, False, TARGETS),
        "training": (f"One training step of {what}", TRAINING, True, {(4, 15): (1,)}),
    }
    return {
        f"{size} {mode}": Family(title, sides, shapes, (1, 1), targets, (step,), whole=True)
        for mode, (title, shapes, step, targets) in plans.items()
    }
