"""Whole encoders: ours against ESPnet's Conformer and E-Branchformer with equal parameters.

All have the same input (80 mel bins, ESPnet's ``conv2d``), and in training the same CTC head,
loss, dropout and optimizer.
"""

import functools

from bench.measure import peak_memory, resident, summary
from bench.worker import Failed, Worker

MELS, FRAME_RATE, VOCABULARY, TOKEN_RATE = 80, 100, 500, 3
LABELS = ("conmamba", "conformer", "e_branchformer")
# millions of parameters -> model -> (width, feed-forward width, blocks)
SIZES = {
    "10M": {
        "conmamba": (176, 704, 11),
        "conformer": (176, 704, 12),
        "e_branchformer": (176, 704, 10),
    },
    "21M": {
        "conmamba": (256, 1024, 11),
        "conformer": (256, 1024, 12),
        "e_branchformer": (256, 1024, 10),
    },
    "30M": {
        "conmamba": (256, 1088, 16),
        "conformer": (256, 1024, 18),
        "e_branchformer": (256, 1024, 15),
    },
    "tiny": dict.fromkeys(LABELS, (16, 32, 1)),
}
INFERENCE = ((1, 5), (1, 15), (1, 60), (1, 300), (1, 600))  # batch, seconds of audio
TRAINING = ((1, 5), (1, 15), (4, 15), (1, 60), (1, 600))
LONG = 15  # seconds; what takes longer runs once


def make_encoder(label, width, hidden, blocks):
    """Make an encoder as its recipes have it."""
    from mambaasr.encoder.conmamba import ConMambaEncoder
    from mambaasr.espnet_compat import import_quietly

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


@functools.cache
def model(size, label):
    """Build a model once a process.

    Returns:
        encoder, CTC head, optimizer, and the resident memory before any of them was there.
    """
    import torch

    from mambaasr.espnet_compat import CTC

    if size != "tiny":
        run("tiny", label, "training", 1, 1)  # loads all code, which is no part of the memory
        model.cache_clear()
    before = resident()
    torch.manual_seed(0)
    encoder = make_encoder(label, *SIZES[size][label])
    head = CTC(VOCABULARY, encoder.output_size())
    parameters = [*encoder.parameters(), *head.parameters()]
    return encoder, head, torch.optim.Adam(parameters, lr=1e-4), before


def run(size, label, mode, batch, seconds):
    """Run a model once; in a worker.

    Returns:
        {"seconds", "bytes", "parameters"}: the bytes are the peak of the process beyond what it
        needs without a model: weights, activations, gradients, optimizer.
    """
    import torch

    encoder, head, optimizer, before = model(size, label)
    generator = torch.Generator().manual_seed(0)
    frames = seconds * FRAME_RATE
    features = torch.randn(batch, frames, MELS, generator=generator)
    lengths = torch.full((batch,), frames)
    labels = torch.randint(1, VOCABULARY, (batch, seconds * TOKEN_RATE), generator=generator)
    counts = torch.full((batch,), seconds * TOKEN_RATE)

    @torch.no_grad()
    def infer():
        encoder.eval()
        encoder(features, lengths)

    def train():
        encoder.train()
        optimizer.zero_grad(set_to_none=True)
        encoded, encoded_lengths, _ = encoder(features, lengths)
        head(encoded, encoded_lengths, labels, counts).backward()
        optimizer.step()

    _, elapsed, size_bytes = peak_memory({"inference": infer, "training": train}[mode], before)
    count = sum(p.numel() for p in encoder.parameters())
    return {"seconds": elapsed, "bytes": size_bytes, "parameters": count}


class Race:
    """The models of one size, each in a child process that stays alive, taking turns.

    Args:
        size: key of :data:`SIZES`.
        threads: of each model.
        limit: seconds that one run may take.
        budget: seconds after which no further round starts.
        shared: one process for all of them, which starts sooner and measures no memory rightly.
    """

    def __init__(self, size, threads, limit, budget, shared=False):
        self.size, self.limit, self.budget = size, limit, budget
        if shared:
            self.workers = dict.fromkeys(LABELS, Worker(threads))
        else:
            self.workers = {label: Worker(threads) for label in LABELS}

    def close(self):
        """End the child processes."""
        for worker in self.workers.values():
            worker.close()

    def cell(self, mode, batch, seconds):
        """Measure all models on one input.

        Returns:
            label -> {"median", "least", "runs", "bytes", "parameters"} or {"skipped", "kind"}.
        """
        found, times = {}, {}

        def once(label):
            return self.workers[label].call(
                run, self.size, label, mode, batch, seconds, limit=self.limit
            )

        for label, worker in self.workers.items():
            try:
                # Imports and the first call are nobody's time.
                worker.call(run, self.size, label, mode, 1, 1, limit=self.limit)
                found[label] = once(label)
                times[label] = [found[label].pop("seconds")]
            except Failed as failure:
                found[label] = {"skipped": str(failure), "kind": failure.kind}
        quick = [label for label, (first,) in times.items() if first < LONG]
        spent, rounds = 0.0, 0
        while quick and (rounds < 3 or (spent < self.budget and rounds < 25)):
            for label in list(quick):
                try:
                    elapsed = once(label)["seconds"]
                except Failed as failure:
                    found[label] = {"skipped": str(failure), "kind": failure.kind}
                    quick.remove(label)
                    del times[label]
                    continue
                times[label] += [elapsed]
                spent += elapsed
            rounds += 1
        for label, values in times.items():
            # The first run at a length finds memory and oneDNN's plans cold.
            found[label] |= summary(values[1:] or values)
        return found
