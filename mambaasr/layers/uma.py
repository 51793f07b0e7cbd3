"""Unimodal aggregation: frames that belong to one token become one frame."""

import torch
from torch import nn

from mambaasr.layers.checks import check_counts
from mambaasr.layers.masking import valid_mask, zero_padding

# A minimum must lie this much below its neighbours, in logits. Where weights hardly change, as in
# digital silence, rounding would else decide, and with it the batch.
DEPTH = 1e-4
# The least logit: a sum of weights stays far from zero.
LEAST = -30.0


class UnimodalAggregation(nn.Module):
    """Cut at local minima of a frame's weight, average what lies between (arXiv 2309.08150, 2).

    w = sigmoid(Linear(h)); a segment runs from one minimum of w to the next, and both segments hold
    the frame of the minimum; a token is sum(w h) / sum(w) over its segment. Gradients flow through
    w and h, not through the choice of cuts. (The authors' published code lets a segment reach one
    frame further.)

    Args:
        width: channels.
        max_frames: cut a segment after so many frames even without a minimum, so that at least
            ceil((frames - 1) / max_frames) tokens come out; None for no such cuts.

    Raises:
        ValueError: ``max_frames`` is not positive.
    """

    def __init__(self, width, max_frames=None):
        super().__init__()
        if max_frames is not None:
            check_counts(max_frames=max_frames)
            if max_frames == 0:
                raise ValueError("max_frames is 0; it must be positive, or null")
        self.max_frames = max_frames
        self.linear = nn.Linear(width, 1)

    def _logits(self, x):
        """(b, t, e) -> (b, t) in at least fp32: neighbours that bf16 takes for equal differ."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.linear.weight.to(dtype), self.linear.bias.to(dtype)
            logits = nn.functional.linear(x.to(dtype), weight, bias).squeeze(-1)
        return logits.clamp(min=LEAST)

    def _cuts(self, logits, lengths):
        """(b, t) bool: true at frames where a segment ends and the next one begins."""
        place = torch.arange(logits.shape[1], device=logits.device)
        cuts = torch.zeros_like(logits, dtype=torch.bool)
        lower = logits[:, 1:-1] + DEPTH
        cuts[:, 1:-1] = (lower < logits[:, :-2]) & (lower < logits[:, 2:])
        if self.max_frames is not None:
            since = place - torch.where(cuts, place, 0).cummax(dim=1).values
            cuts = cuts | ((since > 0) & (since % self.max_frames == 0))
        # What follows the last valid frame must not make it a minimum.
        return cuts & (place < lengths[:, None] - 1)

    def forward(self, x, lengths):
        """Aggregate.

        Args:
            x: (batch, time, width).
            lengths: (batch) valid frames.

        Returns:
            (batch, tokens, width), zero beyond the number of tokens; that number (batch), at
            least 1 and at most as many as frames where there are any.
        """
        x = zero_padding(x, lengths)
        logits = self._logits(x)
        cuts = self._cuts(logits.detach(), lengths)
        segment = cuts.cumsum(dim=1)
        counts = torch.where(lengths > 0, cuts.sum(dim=1) + 1, 0)
        weight = logits.sigmoid().unsqueeze(-1)
        weighted = torch.cat([weight * x, weight], dim=-1)
        # A frame of a cut counts twice, for the segment that it ends too.
        frames, ends = valid_mask(lengths, x.shape[1]).nonzero().t(), cuts.nonzero().t()
        row, place = torch.cat([frames, ends], dim=1)
        token = torch.cat([segment[tuple(frames)], segment[tuple(ends)] - 1])
        tokens = int(counts.max())
        sums = weighted.new_zeros(len(x) * tokens, weighted.shape[-1])
        sums = sums.index_add(0, row * tokens + token, weighted[row, place])
        sums = sums.view(len(x), tokens, weighted.shape[-1])
        # Where there is no token there are no frames: 0 / 1.
        total = sums[..., -1:].masked_fill(~valid_mask(counts, tokens)[..., None], 1.0)
        return (sums[..., :-1] / total).to(x.dtype), counts
