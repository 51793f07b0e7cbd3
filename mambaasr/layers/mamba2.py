"""The Mamba-2 mixer in one direction.

Parameter names, shapes and initialisation are those of ``mamba_ssm.Mamba2``, so that state dicts go
both ways.

Symbols: b batch, t time, e d_model, d d_inner = expand * d_model, s d_ssm, h head, p headdim,
g group, n d_state, c = s + 2 g n channels of the convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from mambaasr.checks import (
    check_flags,
    check_positive,
    check_range,
    check_rates,
    check_sizes,
)
from mambaasr.layers.dropout import Dropout
from mambaasr.layers.linear import Linear
from mambaasr.ops import (
    causal_conv1d_fn,
    causal_conv1d_update,
    mamba_chunk_scan_combined,
    selective_state_update,
)
from mambaasr.ops.lengths import zero_padding


class GatedRMSNorm(nn.Module):
    """Root-mean-square norm in groups, and a gate silu(z) before or after it.

    Args:
        width: channels.
        group_size: channels that share a mean; divides ``width``.
        norm_before_gate: norm(x) * silu(z) instead of norm(x * silu(z)).
        eps: added to the mean square.
    """

    def __init__(self, width, group_size, norm_before_gate=False, eps=1e-5):
        super().__init__()
        self.group_size, self.norm_before_gate, self.eps = group_size, norm_before_gate, eps
        self.weight = nn.Parameter(torch.ones(width))
        # ESPnet's list of norms that take no weight decay does not know this class.
        self.weight._no_weight_decay = True

    def forward(self, x, z):
        """x, z (..., width) -> the same, computed in at least fp32."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        y, gate = x.to(dtype), F.silu(z.to(dtype))
        if not self.norm_before_gate:
            y = y * gate
        y = F.rms_norm(y.unflatten(-1, (-1, self.group_size)), (self.group_size,), eps=self.eps)
        y = y.flatten(-2) * self.weight.to(dtype)
        if self.norm_before_gate:
            y = y * gate
        return y.to(x.dtype)


class Mamba2(nn.Module):
    """The mixer of Mamba-2 (arXiv 2405.21060, section 7), causal, or anti-causal by ``reverse``.

    Args:
        d_model: width of input and output (e).
        d_state: states of each channel (n).
        d_conv: width of the causal convolution.
        conv_init: None, or the bound of uniform initial weights of the convolution.
        expand: d_inner / d_model.
        headdim: channels of a head (p).
        d_ssm: channels of the state-space model (s), the others pass a gated linear unit; None for
            all of d_inner.
        ngroups: groups of heads that share B and C (g).
        A_init_range: range of the initial -A, uniform.
        D_has_hdim: a skip weight for each channel instead of each head.
        rmsnorm: a gated norm before the output projection. MADEON (arXiv 2411.06968) drops it, as
            training was unstable with it; the scan's output is then gated by silu(z) alone.
        norm_before_gate: norm(y) * silu(z) instead of norm(y * silu(z)).
        dt_min, dt_max: range of the step sizes that the initial bias gives, log-uniform.
        dt_init_floor: smallest initial step size.
        dt_limit: lowest and highest step size.
        bias: whether the input and output projections have one.
        conv_bias: whether the convolution has a bias.
        chunk_size: frames that a GPU's kernel takes at once.
        dropout_rate: dropout after the input and before the output leaves.

    Raises:
        ValueError: a number is out of range, or a size that must divide another does not.
    """

    causal = True

    def __init__(
        self,
        d_model,
        d_state=128,
        d_conv=4,
        conv_init=None,
        expand=2,
        headdim=64,
        d_ssm=None,
        ngroups=1,
        A_init_range=(1, 16),
        D_has_hdim=False,
        rmsnorm=True,
        norm_before_gate=False,
        dt_min=0.001,
        dt_max=0.1,
        dt_init_floor=1e-4,
        dt_limit=(0.0, float("inf")),
        bias=False,
        conv_bias=True,
        chunk_size=256,
        dropout_rate=0.0,
    ):
        super().__init__()
        check_sizes("Mamba2", d_model=d_model, d_state=d_state, d_conv=d_conv, headdim=headdim)
        check_sizes("Mamba2", ngroups=ngroups, chunk_size=chunk_size)
        check_positive("Mamba2", expand=expand, dt_min=dt_min, dt_max=dt_max)
        check_positive("Mamba2", dt_init_floor=dt_init_floor)
        check_rates("Mamba2", dropout_rate=dropout_rate)
        check_flags(
            D_has_hdim=D_has_hdim,
            rmsnorm=rmsnorm,
            norm_before_gate=norm_before_gate,
            bias=bias,
            conv_bias=conv_bias,
        )
        if conv_init is not None:
            check_positive("Mamba2", conv_init=conv_init)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.headdim, self.ngroups, self.chunk_size = headdim, ngroups, chunk_size
        self.d_inner = int(expand * d_model)
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        check_sizes("Mamba2", d_inner=self.d_inner, d_ssm=self.d_ssm)
        if self.d_ssm > self.d_inner:
            raise ValueError(f"Mamba2: d_ssm is {self.d_ssm}, more than d_inner, {self.d_inner}")
        self.nheads, rest = divmod(self.d_ssm, headdim)
        if rest:
            raise ValueError(f"Mamba2: headdim is {headdim}; it must divide d_ssm, {self.d_ssm}")
        if self.nheads % ngroups:
            raise ValueError(
                f"Mamba2: ngroups is {ngroups}; it must divide the {self.nheads} heads"
            )
        A_init_range = check_range("Mamba2", "A_init_range", A_init_range, above=0)
        self.dt_limit = check_range("Mamba2", "dt_limit", dt_limit)
        self._init = dict(
            A=A_init_range, low=dt_min, high=dt_max, floor=dt_init_floor, conv=conv_init
        )
        self._has = dict(
            conv_bias=conv_bias, D_hdim=D_has_hdim, norm=rmsnorm, norm_first=norm_before_gate
        )
        self.d_mlp = self.d_inner - self.d_ssm
        self._mixed = self.d_ssm + 2 * ngroups * d_state  # x, B, C
        self.in_proj = Linear(
            d_model, 2 * self.d_mlp + self.d_ssm + self._mixed + self.nheads, bias=bias
        )
        self._add_direction("")
        self.out_proj = Linear(self.d_inner, d_model, bias=bias)
        self.dropout = Dropout(dropout_rate)

    def _names(self, suffix):
        # The suffix lies inside "A_log", as in Mamba.
        return {
            "conv": f"conv1d{suffix}",
            "dt": f"dt_bias{suffix}",
            "A": f"A{suffix}_log",
            "D": f"D{suffix}",
            "norm": f"norm{suffix}",
        }

    def _add_direction(self, suffix):
        """Add the parameters of one direction's convolution, state-space model and norm."""
        names, has, c = self._names(suffix), self._has, self._mixed
        conv = nn.Conv1d(
            c, c, self.d_conv, groups=c, padding=self.d_conv - 1, bias=has["conv_bias"]
        )
        setattr(self, names["conv"], conv)
        skips = self.d_ssm if has["D_hdim"] else self.nheads
        for name, size in (("dt", self.nheads), ("A", self.nheads), ("D", skips)):
            parameter = nn.Parameter(torch.empty(size))
            parameter._no_weight_decay = True
            setattr(self, names[name], parameter)
        norm = None
        if has["norm"]:
            norm = GatedRMSNorm(self.d_ssm, self.d_ssm // self.ngroups, has["norm_first"])
        setattr(self, names["norm"], norm)
        self._reset_direction(suffix)

    @torch.no_grad()
    def _reset_direction(self, suffix):
        conv, dt_bias, A_log, D, norm = self._direction(suffix)
        init = self._init
        A_log.uniform_(*init["A"]).log_()
        D.fill_(1.0)
        # The bias is the inverse softplus of a step size drawn log-uniformly.
        low, high = math.log(init["low"]), math.log(init["high"])
        step = torch.exp(torch.rand(self.nheads) * (high - low) + low).clamp(min=init["floor"])
        dt_bias.copy_(step + torch.log(-torch.expm1(-step)))
        if init["conv"] is not None:
            nn.init.uniform_(conv.weight, -init["conv"], init["conv"])
        if norm is not None:
            norm.weight.fill_(1.0)

    def espnet_initialization_fn(self):
        """See :meth:`mambaasr.layers.mamba.Mamba.espnet_initialization_fn`."""
        self._restore_direction("")

    def _restore_direction(self, suffix):
        getattr(self, self._names(suffix)["conv"]).reset_parameters()
        self._reset_direction(suffix)

    def _direction(self, suffix):
        names = self._names(suffix)
        return [getattr(self, names[key]) for key in ("conv", "dt", "A", "D", "norm")]

    def _enter(self, hidden):
        """hidden (..., e) -> mlp (..., 2 d_mlp), z (..., s), xBC (..., c), dt (..., h)."""
        sizes = [2 * self.d_mlp, self.d_ssm, self._mixed, self.nheads]
        return self.dropout(self.in_proj(hidden)).split(sizes, dim=-1)

    def _split(self, xBC):
        """xBC (..., c) -> x (..., h, p), B (..., g, n), C (..., g, n)."""
        size = self.ngroups * self.d_state
        x, B, C = xBC.split([self.d_ssm, size, size], dim=-1)
        groups = (self.ngroups, self.d_state)
        return x.unflatten(-1, (-1, self.headdim)), B.unflatten(-1, groups), C.unflatten(-1, groups)

    def _skip(self, D):
        D = D.float()
        return D if D.numel() == self.nheads else D.view(self.nheads, self.headdim)

    def _mix(self, parts, suffix="", lengths=None, reverse=False, state=None):
        """Convolution, scan, gate and norm in one direction.

        Args:
            parts: of :meth:`_enter`, (b, t, ...).
            suffix: of the direction's parameters.
            state: None, or (conv (b, c, d_conv - 1), ssm (b, h, p, n)).

        Returns:
            (b, t, s) and the new state (Nones without a state).
        """
        _, z, xBC, dt = parts
        conv, dt_bias, A_log, D, norm = self._direction(suffix)
        onwards = state is not None  # mamba_ssm's kernels cannot train through a state
        conv_state, ssm_state = state if onwards else (None, None)
        xBC = causal_conv1d_fn(
            xBC.transpose(1, 2),
            conv.weight.squeeze(1),
            conv.bias,
            initial_states=conv_state,
            return_final_states=onwards,
            activation="silu",
            lengths=lengths,
            reverse=reverse,
        )
        if onwards:
            xBC, conv_state = xBC
        x, B, C = self._split(xBC.transpose(1, 2))
        y = mamba_chunk_scan_combined(
            x,
            dt,
            -torch.exp(A_log.float()),
            B,
            C,
            self.chunk_size,
            D=self._skip(D),
            z=None if norm is not None else z.unflatten(-1, (-1, self.headdim)),
            dt_bias=dt_bias.float(),
            initial_states=ssm_state,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            return_final_states=onwards,
            lengths=lengths,
            reverse=reverse,
        )
        if onwards:
            y, ssm_state = y
        y = y.flatten(-2)
        return y if norm is None else norm(y, z), (conv_state, ssm_state)

    def _leave(self, y, parts, lengths=None):
        """Gated linear unit and output projection: y (..., s) -> (..., e)."""
        if self.d_mlp > 0:
            gate, x = parts[0].chunk(2, dim=-1)
            y = torch.cat([F.silu(gate) * x, y], dim=-1)
        y = self.dropout(self.out_proj(y))
        return y if lengths is None else zero_padding(y, lengths)

    def forward(self, hidden, lengths=None, reverse=False):
        """Mix a batch of whole sequences.

        Args:
            hidden: (batch, time, d_model).
            lengths: (batch) valid frames. Finite values beyond have no effect and get no
                gradient.
            reverse: run from each sequence's own last frame to its first.

        Returns:
            (batch, time, d_model), zero beyond the lengths.
        """
        parts = self._enter(hidden)
        y, _ = self._mix(parts, lengths=lengths, reverse=reverse)
        return self._leave(y, parts, lengths)

    def initial_state(self, batch, device=None, dtype=torch.float32):
        """The state before the first frame: (conv (b, c, d_conv - 1), ssm (b, h, p, n)), zeros."""
        conv = torch.zeros(batch, self._mixed, self.d_conv - 1, device=device, dtype=dtype)
        ssm = torch.zeros(batch, self.nheads, self.headdim, self.d_state, device=device)
        return conv, ssm

    def forward_chunk(self, hidden, state):
        """Mix the next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            hidden: (batch, time, d_model).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, d_model) and the next state. Gradients flow through both.
        """
        parts = self._enter(hidden)
        y, state = self._mix(parts, state=state)
        return self._leave(y, parts), state

    @torch.no_grad()
    def step(self, hidden, state):
        """Mix one frame, for decoding; no gradients.

        Args:
            hidden: (batch, d_model).
            state: as in :meth:`forward_chunk`; updated in place.

        Returns:
            (batch, d_model).
        """
        parts = self._enter(hidden)
        return self._leave(self._mix_frame(parts, state), parts)

    def _mix_frame(self, parts, state, suffix=""):
        """As :meth:`_mix` for one frame, (b, ...) each; the state is updated in place."""
        conv, dt_bias, A_log, D, norm = self._direction(suffix)
        conv_state, ssm_state = state
        _, z, xBC, dt = parts
        weight = conv.weight.squeeze(1)
        xBC = causal_conv1d_update(xBC, conv_state, weight, conv.bias, "silu")
        x, B, C = self._split(xBC)
        dt = F.softplus(dt.float() + dt_bias.float()).clamp(*self.dt_limit)
        p = self.headdim
        A = -torch.exp(A_log.float()).repeat_interleave(p)
        # A head of p channels is p channels of the Mamba-1 step with equal steps and decays.
        y = selective_state_update(
            ssm_state.view(len(ssm_state), self.d_ssm, self.d_state),
            x.flatten(1),
            dt.repeat_interleave(p, dim=1),
            A.unsqueeze(1).expand(-1, self.d_state),
            B,
            C,
            self._skip(D).reshape(self.nheads, -1).expand(-1, p).reshape(-1),
            None if norm is not None else z,
        )
        return y if norm is None else norm(y, z)
