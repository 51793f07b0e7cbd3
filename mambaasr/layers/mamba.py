"""The Mamba-1 mixer in one direction.

Parameter names, shapes and initialisation are those of ``mamba_ssm.Mamba``, so that state dicts go
both ways.

Symbols: b batch, t time, e d_model, d d_inner = expand * d_model, n d_state, r dt_rank.
"""

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_flags, check_positive, check_rates, check_sizes
from mambaasr.layers.cpu import call, is_plain, linear
from mambaasr.layers.mixer import Parts, StateSpaceMixer, draw_step_bias
from mambaasr.ops import selective_scan_fn, selective_state_update
from mambaasr.ops.precision import wide

DT_INITS, A_INITS = ("random", "constant"), ("s4d_real", "noise")


class Mamba(StateSpaceMixer):
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

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Annotated[str, DT_INITS] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        A_init: Annotated[str, A_INITS] = "s4d_real",
        A_noise: float = 0.1,
        conv_bias: bool = True,
        bias: bool = False,
        dropout_rate: float = 0.0,
    ) -> None:
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
        check_choice("Mamba: dt_init", dt_init, DT_INITS)
        check_choice("Mamba: A_init", A_init, A_INITS)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_inner = self.d_ssm = self.conv_channels = int(expand * d_model)
        self.conv_bias, self.state_shape = conv_bias, (self.d_inner, d_state)
        check_sizes("Mamba", dt_rank=dt_rank, d_inner=self.d_inner)
        self.dt_rank = int(dt_rank)
        self._A_noise = A_noise if A_init == "noise" else 0.0
        self._dt_steps, self._dt_init = (dt_min, dt_max, dt_init_floor), dt_init
        self._dt_bound = self.dt_rank**-0.5 * dt_scale
        self.add_layers(2 * self.d_inner, bias, dropout_rate)

    def add_ssm(self, suffix: str) -> None:
        """Add the parameters of a direction's state-space model, not yet initialised."""
        d, n = self.d_inner, self.d_state
        setattr(self, f"x_proj{suffix}", nn.Linear(d, self.dt_rank + 2 * n, bias=False))
        setattr(self, f"dt_proj{suffix}", nn.Linear(self.dt_rank, d, bias=True))
        # Vision Mamba v2 puts its suffix inside "A_log".
        for name, shape in ((f"A{suffix}_log", (d, n)), (f"D{suffix}", (d,))):
            parameter = nn.Parameter(torch.empty(shape))
            parameter._no_weight_decay = True  # type: ignore[attr-defined]
            setattr(self, name, parameter)

    def _ssm(self, suffix: str) -> tuple[nn.Linear, nn.Linear, nn.Parameter, nn.Parameter]:
        names = (f"x_proj{suffix}", f"dt_proj{suffix}", f"A{suffix}_log", f"D{suffix}")
        x_proj, dt_proj, A_log, D = (getattr(self, name) for name in names)
        return x_proj, dt_proj, A_log, D

    @torch.no_grad()
    def reset_ssm(self, suffix: str) -> None:
        """Initialise the parameters of a direction's state-space model."""
        _, dt_proj, A_log, D = self._ssm(suffix)
        states = torch.arange(1.0, self.d_state + 1).expand(self.d_inner, -1)
        if self._A_noise:
            states = (states + self._A_noise * torch.randn(states.shape)).clamp(min=0.01)
        A_log.copy_(torch.log(states))
        D.fill_(1.0)
        bound = self._dt_bound
        if self._dt_init == "constant":
            nn.init.constant_(dt_proj.weight, bound)
        else:
            nn.init.uniform_(dt_proj.weight, -bound, bound)
        dt_proj.bias.copy_(draw_step_bias(self.d_inner, *self._dt_steps))

    def project_in(self, x: Tensor) -> Parts:
        """x (..., e) -> x, z (..., d)."""
        return self.dropout(call(self.in_proj, x)).chunk(2, dim=-1)

    def _project(
        self, x: Tensor, x_proj: nn.Module, dt_proj: nn.Module
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """x (..., d) -> dt (..., d), its bias (d) unless it is in dt, B (..., n), C (..., n)."""
        dt, B, C = call(x_proj, x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        if is_plain(dt_proj):  # the scan adds the bias in its own precision
            return linear(dt, dt_proj.weight), wide(dt_proj.bias), B, C
        return dt_proj(dt), None, B, C

    def scan(
        self,
        x: Tensor,
        parts: Parts,
        suffix: str,
        lengths: Tensor | None,
        reverse: bool,
        state: Tensor | None,
        resume: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """x (b, d, t) -> (b, t, d) after the gate; see :meth:`StateSpaceMixer.scan`."""
        x_proj, dt_proj, A_log, D = self._ssm(suffix)
        dt, dt_bias, B, C = self._project(x.transpose(1, 2), x_proj, dt_proj)
        out = selective_scan_fn(
            x,
            dt.transpose(1, 2),
            -torch.exp(wide(A_log)),
            B.transpose(1, 2),
            C.transpose(1, 2),
            wide(D),
            parts[1].transpose(1, 2),
            dt_bias,
            delta_softplus=True,
            return_last_state=resume,
            lengths=lengths,
            reverse=reverse,
            initial_state=state,
        )
        y, state = out if isinstance(out, tuple) else (out, None)
        return y.transpose(1, 2), state

    def scan_step(self, x: Tensor, parts: Parts, suffix: str, state: Tensor) -> Tensor:
        """x (b, d) -> (b, d) after the gate; updates the state in place."""
        x_proj, dt_proj, A_log, D = self._ssm(suffix)
        dt, dt_bias, B, C = self._project(x, x_proj, dt_proj)
        return selective_state_update(
            state,
            x,
            dt,
            -torch.exp(wide(A_log)),
            B,
            C,
            wide(D),
            parts[1],
            dt_bias,
            dt_softplus=True,
        )
