"""Unimodal aggregation: frames that belong to one token become one frame."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mambaasr.checks import check_counts
from mambaasr.ops.lengths import valid_mask, zero_padding

# A minimum must lie this much below its neighbours, in logits. Where weights hardly change, as in
# digital silence, rounding would else decide, and with it the batch.
DEPTH = 1e-4
# The least logit: a sum of weights stays far from zero.
LEAST = -30.0


class Pending(NamedTuple):
    """What the pieces so far leave to the next one.

    ``frame`` (batch, 0 or 1, width) waits for its right neighbour; ``before`` (batch, 1) is the
    logit of its left one, ``since`` (batch, 1) how many frames ago the last minimum was, ``sums``
    (batch, width + 1) what the open segment has summed up to it.
    """

    frame: torch.Tensor
    before: torch.Tensor
    since: torch.Tensor
    sums: torch.Tensor


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

    def __init__(self, width: int, max_frames: int | None = None) -> None:
        super().__init__()
        if max_frames is not None:
            check_counts(max_frames=max_frames)
            if max_frames == 0:
                raise ValueError("max_frames is 0; it must be positive, or null")
        self.max_frames = max_frames
        self.width = width
        self.linear = nn.Linear(width, 1)

    def _logits(self, x):
        """(b, t, e) -> (b, t) in at least fp32: neighbours that bf16 takes for equal differ."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            parameters = {name: p.to(dtype) for name, p in self.linear.named_parameters()}
            logits = functional_call(self.linear, parameters, (x.to(dtype),)).squeeze(-1)
        return logits.clamp(min=LEAST)

    def _cuts(self, logits, lengths, before, since):
        """Find the frames where a segment ends and the next one begins.

        The last valid frame is none: what follows it must not make it a minimum.

        Args:
            logits: (b, t); lengths: (b).
            before: (b, 1), the logit in front of the first.
            since: (b, 1), frames from the last minimum to the first frame.

        Returns:
            (b, t) bool; (b, t), frames from the last minimum up to each.
        """
        place = torch.arange(logits.shape[1], device=logits.device)
        lower = logits + DEPTH
        cuts = lower < torch.cat([before, logits[:, :-1]], dim=1)
        cuts &= lower < nn.functional.pad(logits[:, 1:], (0, 1), value=float("-inf"))
        since = place - torch.where(cuts, place, -since).cummax(dim=1).values
        if self.max_frames is not None:
            cuts = cuts | ((since > 0) & (since % self.max_frames == 0))
        return cuts & (place < lengths[:, None] - 1), since

    def _sums(self, x, logits, cuts, lengths):
        """Sum over segments.

        Returns:
            (b, segments, width + 1), of w x and of w; the number of segments (b).
        """
        segment = cuts.cumsum(dim=1)
        counts = torch.where(lengths > 0, cuts.sum(dim=1) + 1, 0)
        weight = logits.sigmoid().unsqueeze(-1)
        weighted = torch.cat([weight * x, weight], dim=-1)
        # A frame of a cut counts twice, for the segment that it ends too.
        frames, ends = valid_mask(lengths, x.shape[1]).nonzero().t(), cuts.nonzero().t()
        row, place = torch.cat([frames, ends], dim=1)
        token = torch.cat([segment[tuple(frames)], segment[tuple(ends)] - 1])
        most = int(counts.max())
        sums = weighted.new_zeros(len(x) * most, weighted.shape[-1])
        sums = sums.index_add(0, row * most + token, weighted[row, place])
        return sums.view(len(x), most, weighted.shape[-1]), counts

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
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
        state = self.initial_state(len(x), x.device, x.dtype)
        cuts, _ = self._cuts(logits.detach(), lengths, state.before, state.since)
        sums, counts = self._sums(x, logits, cuts, lengths)
        return _average(sums, counts).to(x.dtype), counts

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Pending:
        """Return the state before the first piece; dtype is that of the frames."""
        width = self.width
        wide = torch.promote_types(dtype, torch.float32)
        return Pending(
            torch.zeros(batch, 0, width, device=device, dtype=dtype),
            torch.full((batch, 1), float("-inf"), device=device, dtype=wide),
            torch.zeros(batch, 1, device=device, dtype=torch.long),
            torch.zeros(batch, width + 1, device=device, dtype=wide),
        )

    def forward_chunk(
        self, x: Tensor, state: Pending, last: bool = False
    ) -> tuple[Tensor, Tensor, Pending | None]:
        """Aggregate the next piece of each utterance; tokens come out when their segments end.

        Args:
            x: (batch, any number of frames, width), all of them valid.
            state: of :meth:`initial_state` or of the piece before; not changed.
            last: no further piece follows.

        Returns:
            (batch, tokens, width), zero beyond the number of tokens; that number (batch), maybe 0;
            the next state, None after the last piece. A token comes one frame after the minimum
            that ends it.
        """
        x = torch.cat([state.frame, x], dim=1)
        frames = x.shape[1]
        if not frames:
            return (
                x,
                torch.zeros(len(x), dtype=torch.long, device=x.device),
                None if last else state,
            )
        logits = self._logits(x)
        lengths = torch.full((len(x),), frames, device=x.device)
        cuts, since = self._cuts(logits.detach(), lengths, state.before, state.since)
        sums, counts = self._sums(x, logits, cuts, lengths if last else lengths - 1)
        if not sums.shape[1]:  # the only frame waits
            return x[:, :0], counts, Pending(x, state.before, state.since, state.sums)
        sums = torch.cat([sums[:, :1] + state.sums[:, None], sums[:, 1:]], dim=1)
        if last:
            return _average(sums, counts).to(x.dtype), counts, None
        counts = counts - 1
        rows = torch.arange(len(x), device=x.device)
        state = Pending(x[:, -1:], logits[:, -2:-1].detach(), since[:, -1:], sums[rows, counts])
        return _average(sums, counts)[:, : int(counts.max())].to(x.dtype), counts, state


def _average(sums, counts):
    """(b, tokens, width + 1) -> (b, tokens, width), zero beyond the counts (b)."""
    there = valid_mask(counts, sums.shape[1])[..., None]
    # Where there is no token: 0 / 1.
    return sums[..., :-1].masked_fill(~there, 0.0) / sums[..., -1:].masked_fill(~there, 1.0)
