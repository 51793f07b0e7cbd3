"""Attention within a sequence, and from text to speech."""

import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_rates
from mambaasr.layers.cpu import call
from mambaasr.layers.positions import rotary
from mambaasr.ops.lengths import unpadded, valid_mask, zero_padding

POSITIONS = ("none", "rotary")


def _check_heads(width, heads):
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or width % heads:
        raise ValueError(f"attention_heads is {heads!r}; it must divide the width {width}")


def _split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, h, t, width / h)


class SelfAttention(nn.Module):
    """Multi-head attention of every valid frame to every valid frame of its sequence.

    It runs on torch's scaled_dot_product_attention, whose kernels keep no matrix of frames by
    frames: memory grows with the length, except on a CPU while training with dropout. Every frame
    sees every other one, so that there is no chunk form (``causal`` is false).

    Args:
        width: channels.
        heads: number of heads; must divide the width.
        dropout_rate: on the attention weights.
        positions: "none", or "rotary", which rotates queries and keys (arXiv 2104.09864).

    Raises:
        ValueError: the heads do not divide the width, or into odd parts with "rotary"; or
            ``positions`` is unknown.
    """

    causal = False

    def __init__(
        self, width: int, heads: int, dropout_rate: float = 0.0, positions: str = "none"
    ) -> None:
        super().__init__()
        _check_heads(width, heads)
        check_rates("SelfAttention", attention_dropout_rate=dropout_rate)
        check_choice("positions", positions, POSITIONS)
        if positions == "rotary" and width // heads % 2:
            raise ValueError(
                f"positions is 'rotary' and a head of {width // heads} channels cannot be halved; "
                f"choose attention_heads so that width {width} / attention_heads is even"
            )
        self.heads, self.dropout_rate, self.positions = heads, dropout_rate, positions
        self.linear_qkv = nn.Linear(width, 3 * width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (batch, time, width).
            lengths: (batch) valid frames, none allowed; None if all are. Finite values beyond
                have no effect and get no gradient.

        Returns:
            (batch, time, width), zero beyond the lengths.
        """
        q, k, v = (_split(part, self.heads) for part in call(self.linear_qkv, x).chunk(3, dim=-1))
        if self.positions == "rotary":
            q, k = rotary(q), rotary(k)
        out = F.scaled_dot_product_attention(
            *(q, k, v),
            attn_mask=self._mask(lengths, x),
            dropout_p=self.dropout_rate if self.training else 0.0,
        )
        out = call(self.linear_out, out.transpose(1, 2).flatten(2))
        return out if lengths is None else zero_padding(out, lengths)

    @staticmethod
    def _mask(lengths: Tensor | None, x: Tensor) -> Tensor | None:
        """True at keys to attend to: (b, 1, 1, t); None where that is all and cheap to know."""
        if lengths is None or unpadded(lengths, x.shape[1]):
            return None
        # A softmax over no key at all would be NaN.
        return valid_mask(lengths.to(x.device).clamp(min=1), x.shape[1])[:, None, None, :]


class CrossAttention(nn.Module):
    """Multi-head attention whose keys and values are computed once for an utterance.

    Args:
        width: channels of queries and output.
        memory_width: channels of the memory.
        heads: number of heads; must divide the width.
        dropout_rate: on the attention weights.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self, width: int, memory_width: int, heads: int, dropout_rate: float = 0.0
    ) -> None:
        super().__init__()
        _check_heads(width, heads)
        self.heads, self.dropout_rate = heads, dropout_rate
        self.linear_q = nn.Linear(width, width)
        self.linear_kv = nn.Linear(memory_width, 2 * width)
        self.linear_out = nn.Linear(width, width)

    def memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, time, memory_width) -> keys and values (batch, heads, time, width / heads)."""
        keys, values = self.linear_kv(memory).chunk(2, dim=-1)
        return _split(keys, self.heads), _split(values, self.heads)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: queries (batch, time, width).
            keys, values: of :meth:`memory`.
            mask: (batch, memory time), true at valid frames; None if all are.

        Returns:
            (batch, time, width).
        """
        out = F.scaled_dot_product_attention(
            _split(self.linear_q(x), self.heads),
            keys,
            values,
            attn_mask=None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout_rate if self.training else 0.0,
        )
        return self.linear_out(out.transpose(1, 2).flatten(2))
