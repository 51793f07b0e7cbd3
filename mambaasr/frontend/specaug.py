"""SpecAugment whose masks look like average speech, not like a level that no frame has."""

from torch import Tensor

from mambaasr.espnet_compat import SpecAug
from mambaasr.ops.lengths import zero_padding


class MeanSpecAug(SpecAug):
    """ESPnet's SpecAugment that fills its masks with the utterance's mean of each bin.

    ESPnet masks before the features are normalised, by 0, which in log-mel features may lie far
    below any frame; its ``replace_with_zero: false`` takes one mean over all bins, utterances and
    padding of the batch. The mean of the utterance's own frames, bin by bin, is close to 0 after
    the normalisation, what SpecAugment's paper masks with (arXiv 1904.08779, section 2), and does
    not depend on the batch. Options and random numbers are those of ``specaug: specaug``.
    """

    def forward(self, x: Tensor, x_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mask features.

        Args:
            x: (batch, time, bins).
            x_lengths: (batch) valid frames.

        Returns:
            Features of the same shape, zero beyond the lengths, and the lengths.
        """
        x = zero_padding(x, x_lengths)
        mean = x.sum(dim=1, keepdim=True) / x_lengths.clamp(min=1).to(x)[:, None, None]
        masked, lengths = super().forward(zero_padding(x - mean, x_lengths), x_lengths)
        return zero_padding(masked + mean, lengths), lengths
