"""Output layers: from hidden frames to tokens, behind one interface.

Decoders and language models reach their vocabulary through the three methods of
:class:`OutputLayer` alone, in training and in searches, so that another softmax (hierarchical,
sampled, restricted to a language's tokens) can take the place of the linear layer:
``decoder.output_layer = Another(...)``. So does the CTC loss of
:class:`mambaasr.model.base.ASRModel`.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mambaasr.ops.lengths import zero_padding


@runtime_checkable
class OutputLayer(Protocol):
    """What decoders, language models and losses ask of an output layer."""

    def logits(self, x: Tensor) -> Tensor:
        """x (..., width) -> (..., vocab_size).

        ESPnet's loss of language models takes their log-softmax for the log-probabilities.
        """
        ...

    def log_probs(self, logits: Tensor) -> Tensor:
        """logits (..., vocab_size) -> log-probabilities of the same shape, at least in fp32."""
        ...

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        """Return the mean over the sequences of -log P(targets | x), a scalar.

        Args:
            x: (batch, time, width).
            lengths: (batch) valid frames.
            targets: (batch, tokens); what lies beyond the lengths is not looked at.
            target_lengths: (batch) valid tokens.
        """
        ...


class SoftmaxOutput:
    """An output layer of a linear layer and a softmax, a target for each frame.

    No module of its own, so that names stay, and the linear layer is one of torch's own that may
    be wrapped, adapted or quantised.

    Args:
        layer: called for the logits, x (..., width) -> (..., vocab_size).
    """

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        self.layer = layer

    def logits(self, x: Tensor) -> Tensor:
        """See :meth:`OutputLayer.logits`."""
        return self.layer(x)

    def log_probs(self, logits: Tensor) -> Tensor:
        """See :meth:`OutputLayer.log_probs`."""
        return log_softmax(logits)

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        """See :meth:`OutputLayer.loss`; the targets of frames, so that the lengths are equal.

        Raises:
            ValueError: ``x`` and ``targets`` differ in batch or time.
        """
        if x.shape[:2] != targets.shape:
            raise ValueError(
                f"targets have shape {tuple(targets.shape)}, expected {tuple(x.shape[:2])}"
            )
        targets = zero_padding(targets, target_lengths)
        taken = self.log_probs(self.logits(x)).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return -zero_padding(taken, target_lengths).sum() / len(x)


class CTCOutput:
    """The output layer of ESPnet's CTC module; no module of its own, so that names stay.

    Args:
        ctc: ESPnet's ``CTC``. Its loss is the mean over the utterances.
    """

    def __init__(self, ctc: Any) -> None:
        self.ctc = ctc

    def logits(self, x: Tensor) -> Tensor:
        """See :meth:`OutputLayer.logits`; the first token is the blank."""
        return self.ctc.ctc_lo(x)

    def log_probs(self, logits: Tensor) -> Tensor:
        """See :meth:`OutputLayer.log_probs`."""
        return log_softmax(logits)

    def loss(self, x: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
        """See :meth:`OutputLayer.loss`; summed over all alignments of the targets with x."""
        return self.ctc(x, lengths, targets, target_lengths)


def log_softmax(logits: Tensor) -> Tensor:
    """Return the log-probabilities of an output layer's logits, at least in fp32."""
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
