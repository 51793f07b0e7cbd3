"""Cross-attention from text to speech."""

import torch.nn.functional as F
from torch import nn


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

    def __init__(self, width, memory_width, heads, dropout_rate=0.0):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"attention_heads is {heads}; it must divide the width {width}")
        self.heads, self.dropout_rate = heads, dropout_rate
        self.linear_q = nn.Linear(width, width)
        self.linear_kv = nn.Linear(memory_width, 2 * width)
        self.linear_out = nn.Linear(width, width)

    def _split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, h, t, width / h)

    def memory(self, memory):
        """(batch, time, memory_width) -> keys and values (batch, heads, time, width / heads)."""
        keys, values = self.linear_kv(memory).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x, keys, values, mask=None):
        """Attend.

        Args:
            x: queries (batch, time, width).
            keys, values: of :meth:`memory`.
            mask: (batch, memory time), true at valid frames; None if all are.

        Returns:
            (batch, time, width).
        """
        out = F.scaled_dot_product_attention(
            self._split(self.linear_q(x)),
            keys,
            values,
            attn_mask=None if mask is None else mask[:, None, None, :],
            dropout_p=self.dropout_rate if self.training else 0.0,
        )
        return self.linear_out(out.transpose(1, 2).flatten(2))
