"""The Mamba-1 mixer in one direction.

Parameter names, shapes and initialisation are those of ``mamba_ssm.Mamba``, so that state dicts go
both ways.

Symbols: b batch, t time, e d_model, d d_inner = expand * d_model, n d_state, r dt_rank.
"""

import math

import torch
from torch import nn

from mambaasr.checks import (
    check_choice,
    check_flags,
    check_positive,
    check_rates,
    check_sizes,
)
from mambaasr.layers.dropout import Dropout
from mambaasr.layers.linear import Linear, linear
from mambaasr.ops import (
    causal_conv1d_fn,
    causal_conv1d_update,
    selective_scan_fn,
    selective_state_update,
)
from mambaasr.ops.lengths import zero_padding


class Mamba(nn.Module):
    """The mixer of Mamba (arXiv 2312.00752, section 3.4), causal, or anti-causal by ``reverse``.

    Args:
        d_model: width of input and output (e).
        d_state: states of each channel (n).
        d_conv: width of the causal convolution.
        expand: d_inner / d_model.
        dt_rank: rank of the projection to the step size; "auto" is ceil(d_model / 16).
        dt_min, dt_max: range of the step sizes that the initial bias gives, log-uniform.
        dt_init: "random" (uniform) or "constant" weights of the step-size projection.
        dt_scale: factor on those weights.
        dt_init_floor: smallest initial step size.
        A_init: initial A of each channel's states n = 1, 2, ...: "s4d_real" is A_n = -n (arXiv
            2206.11893), "noise" adds Gaussian noise to that diagonal (arXiv 2405.12609, whose code
            for it is not published).
        A_noise: with "noise", its standard deviation: A_n = -max(n + A_noise * N(0, 1), 0.01). The
            paper gives no such number; this one, and the limit that keeps A negative, are ours.
        conv_bias: whether the convolution has a bias.
        bias: whether the input and output projections have one.
        dropout_rate: dropout after the input and before the output leaves (arXiv 2406.16808
            needs it against overfitting).

    Raises:
        ValueError: a number is out of range, or ``dt_init`` or ``A_init`` is unknown.
    """

    causal = True

    def __init__(
        self,
        d_model,
        d_state=16,
        d_conv=4,
        expand=2,
        dt_rank="auto",
        dt_min=0.001,
        dt_max=0.1,
        dt_init="random",
        dt_scale=1.0,
        dt_init_floor=1e-4,
        A_init="s4d_real",
        A_noise=0.1,
        conv_bias=True,
        bias=False,
        dropout_rate=0.0,
    ):
        super().__init__()
        check_sizes("Mamba", d_model=d_model, d_state=d_state, d_conv=d_conv)
        if dt_rank == "auto":
            dt_rank = math.ceil(d_model / 16)
        check_positive("Mamba", expand=expand, dt_min=dt_min, dt_max=dt_max, dt_scale=dt_scale)
        check_positive("Mamba", dt_init_floor=dt_init_floor, A_noise=A_noise)
        check_rates("Mamba", dropout_rate=dropout_rate)
        check_flags(conv_bias=conv_bias, bias=bias)
        if dt_min > dt_max:
            raise ValueError(f"Mamba: dt_min is {dt_min}; it must not be above dt_max, {dt_max}")
        check_choice("Mamba: dt_init", dt_init, ("random", "constant"))
        check_choice("Mamba: A_init", A_init, ("s4d_real", "noise"))
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = int(expand * d_model)
        check_sizes("Mamba", dt_rank=dt_rank, d_inner=self.d_inner)
        self.d_ssm = self.d_inner  # channels that leave a direction, as in Mamba2
        self.dt_rank = dt_rank
        self._conv_bias = conv_bias
        self._A = dict(init=A_init, noise=A_noise)
        self._dt = dict(low=dt_min, high=dt_max, init=dt_init, scale=dt_scale, floor=dt_init_floor)
        self.in_proj = Linear(d_model, 2 * self.d_inner, bias=bias)
        self._add_direction("")
        self.out_proj = Linear(self.d_inner, d_model, bias=bias)
        self.dropout = Dropout(dropout_rate)

    def _names(self, suffix):
        # Vision Mamba v2 puts its suffix inside "A_log".
        return {
            "conv": f"conv1d{suffix}",
            "x": f"x_proj{suffix}",
            "dt": f"dt_proj{suffix}",
            "A": f"A{suffix}_log",
            "D": f"D{suffix}",
        }

    def _add_direction(self, suffix):
        """Add the parameters of one direction's convolution and state-space model."""
        names, d = self._names(suffix), self.d_inner
        setattr(
            self,
            names["conv"],
            nn.Conv1d(d, d, self.d_conv, groups=d, padding=self.d_conv - 1, bias=self._conv_bias),
        )
        setattr(self, names["x"], Linear(d, self.dt_rank + 2 * self.d_state, bias=False))
        setattr(self, names["dt"], Linear(self.dt_rank, d, bias=True))
        setattr(self, names["A"], nn.Parameter(torch.empty(d, self.d_state)))
        setattr(self, names["D"], nn.Parameter(torch.empty(d)))
        for name in (names["A"], names["D"]):
            getattr(self, name)._no_weight_decay = True
        self._reset_direction(suffix)

    @torch.no_grad()
    def _reset_direction(self, suffix):
        names = self._names(suffix)
        states = torch.arange(1.0, self.d_state + 1).expand(self.d_inner, -1)
        if self._A["init"] == "noise":
            states = (states + self._A["noise"] * torch.randn(states.shape)).clamp(min=0.01)
        getattr(self, names["A"]).copy_(torch.log(states))
        getattr(self, names["D"]).fill_(1.0)
        dt_proj, dt = getattr(self, names["dt"]), self._dt
        bound = self.dt_rank**-0.5 * dt["scale"]
        if dt["init"] == "constant":
            nn.init.constant_(dt_proj.weight, bound)
        else:
            nn.init.uniform_(dt_proj.weight, -bound, bound)
        # The bias is the inverse softplus of a step size drawn log-uniformly.
        low, high = math.log(dt["low"]), math.log(dt["high"])
        step = torch.exp(torch.rand(self.d_inner) * (high - low) + low).clamp(min=dt["floor"])
        dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def espnet_initialization_fn(self):
        """Restore what ESPnet's ``init: xavier_uniform`` and the like would destroy.

        Those take the kernels of a depthwise convolution for much wider ones.
        """
        self._restore_direction("")

    def _restore_direction(self, suffix):
        getattr(self, self._names(suffix)["conv"]).reset_parameters()
        self._reset_direction(suffix)

    def _direction(self, suffix):
        names = self._names(suffix)
        conv, x_proj, dt_proj = (getattr(self, names[key]) for key in ("conv", "x", "dt"))
        A = -torch.exp(getattr(self, names["A"]).float())  # (d, n)
        return conv, x_proj, dt_proj, A, getattr(self, names["D"]).float()

    def _enter(self, hidden):
        """hidden (..., e) -> x, z (..., d)."""
        return self.dropout(self.in_proj(hidden)).chunk(2, dim=-1)

    def _project(self, x, x_proj, dt_proj):
        """x (..., d) -> dt (..., d) before bias, B (..., n), C (..., n)."""
        dt, B, C = x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return linear(dt, dt_proj.weight), B, C

    def _mix(self, parts, suffix="", lengths=None, reverse=False, state=None):
        """Convolution and scan in one direction.

        Args:
            parts: x, z (b, t, d) of :meth:`_enter`.
            suffix: of the direction's parameters.
            state: None, or (conv (b, d, d_conv - 1), ssm (b, d, n)).

        Returns:
            (b, t, d) after the gate, and the new state (Nones without a state).
        """
        x, z = parts
        conv, x_proj, dt_proj, A, D = self._direction(suffix)
        onwards = state is not None  # mamba_ssm's kernels cannot train through a state
        conv_state, ssm_state = state if onwards else (None, None)
        x = causal_conv1d_fn(
            x.transpose(1, 2),
            conv.weight.squeeze(1),
            conv.bias,
            initial_states=conv_state,
            return_final_states=onwards,
            activation="silu",
            lengths=lengths,
            reverse=reverse,
        )
        if onwards:
            x, conv_state = x
        dt, B, C = self._project(x.transpose(1, 2), x_proj, dt_proj)
        y = selective_scan_fn(
            x,
            dt.transpose(1, 2),
            A,
            B.transpose(1, 2),
            C.transpose(1, 2),
            D,
            z.transpose(1, 2),
            dt_proj.bias.float(),
            delta_softplus=True,
            return_last_state=onwards,
            lengths=lengths,
            reverse=reverse,
            initial_state=ssm_state,
        )
        if onwards:
            y, ssm_state = y
        return y.transpose(1, 2), (conv_state, ssm_state)

    def _leave(self, y, parts, lengths=None):
        """y (b, t, d), zero beyond the lengths, -> (b, t, e), zero there too."""
        y = self.dropout(self.out_proj(y))
        # Without a bias zeros stay zeros.
        return y if lengths is None or self.out_proj.bias is None else zero_padding(y, lengths)

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
        """The state before the first frame: (conv (b, d, d_conv - 1), ssm (b, d, n)), zeros."""
        conv = torch.zeros(batch, self.d_inner, self.d_conv - 1, device=device, dtype=dtype)
        ssm = torch.zeros(batch, self.d_inner, self.d_state, device=device)
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
        """As :meth:`_mix` for one frame, (b, d) each; the state is updated in place."""
        conv, x_proj, dt_proj, A, D = self._direction(suffix)
        conv_state, ssm_state = state
        x, z = parts
        x = causal_conv1d_update(x, conv_state, conv.weight.squeeze(1), conv.bias, "silu")
        dt, B, C = self._project(x, x_proj, dt_proj)
        return selective_state_update(
            ssm_state, x, dt, A, B, C, D, z, dt_proj.bias.float(), dt_softplus=True
        )
