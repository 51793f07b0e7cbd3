"""The Mamba-2 mixer in one direction.

Parameter names, shapes and initialisation are those of ``mamba_ssm.Mamba2``, so that state dicts go
both ways.

Symbols: b batch, t time, e d_model, d d_inner = expand * d_model, s d_ssm, h head, p headdim,
g group, n d_state, c = s + 2 g n channels of the convolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.checks import check_flags, check_positive, check_range, check_rates, check_sizes
from mambaasr.layers.cpu import call
from mambaasr.layers.mixer import Parts, StateSpaceMixer, draw_step_bias
from mambaasr.ops import mamba_chunk_scan_combined, selective_state_update
from mambaasr.ops.lengths import zero_padding
from mambaasr.ops.precision import wide


class GatedRMSNorm(nn.Module):
    """Root-mean-square norm in groups, and a gate silu(z) before or after it.

    Args:
        width: channels.
        group_size: channels that share a mean; divides ``width``.
        norm_before_gate: norm(x) * silu(z) instead of norm(x * silu(z)).
        eps: added to the mean square.
    """

    def __init__(
        self, width: int, group_size: int, norm_before_gate: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.group_size, self.norm_before_gate, self.eps = group_size, norm_before_gate, eps
        self.weight = nn.Parameter(torch.ones(width))
        # ESPnet's list of norms that take no weight decay does not know this class.
        self.weight._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
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


class Mamba2(StateSpaceMixer):
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

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        dropout_rate: float = 0.0,
    ) -> None:
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
        self._A_range = check_range("Mamba2", "A_init_range", A_init_range, above=0)
        self.dt_limit = check_range("Mamba2", "dt_limit", dt_limit)
        self._dt_steps, self._conv_init = (dt_min, dt_max, dt_init_floor), conv_init
        self._D_has_hdim = D_has_hdim
        self._rmsnorm, self._norm_before_gate = rmsnorm, norm_before_gate
        self.conv_bias, self.state_shape = conv_bias, (self.nheads, headdim, d_state)
        self.conv_channels = self.d_ssm + 2 * ngroups * d_state  # x, B, C
        self.d_mlp = self.d_inner - self.d_ssm
        projected = 2 * self.d_mlp + self.d_ssm + self.conv_channels + self.nheads
        self.add_layers(projected, bias, dropout_rate)

    def add_ssm(self, suffix: str) -> None:
        """Add the parameters of a direction's state-space model, not yet initialised, and norm."""
        skips = self.d_ssm if self._D_has_hdim else self.nheads
        # The suffix lies inside "A_log", as in Mamba.
        for name, size in (
            (f"dt_bias{suffix}", self.nheads),
            (f"A{suffix}_log", self.nheads),
            (f"D{suffix}", skips),
        ):
            parameter = nn.Parameter(torch.empty(size))
            parameter._no_weight_decay = True  # type: ignore[attr-defined]
            setattr(self, name, parameter)
        norm = None
        if self._rmsnorm:
            group = self.d_ssm // self.ngroups
            norm = GatedRMSNorm(self.d_ssm, group, self._norm_before_gate)
        setattr(self, f"norm{suffix}", norm)

    def _ssm(
        self, suffix: str
    ) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter, GatedRMSNorm | None]:
        names = (f"dt_bias{suffix}", f"A{suffix}_log", f"D{suffix}", f"norm{suffix}")
        dt_bias, A_log, D, norm = (getattr(self, name) for name in names)
        return dt_bias, A_log, D, norm

    @torch.no_grad()
    def reset_ssm(self, suffix: str) -> None:
        """Initialise the parameters of a direction's state-space model and norm."""
        dt_bias, A_log, D, norm = self._ssm(suffix)
        A_log.uniform_(*self._A_range).log_()
        D.fill_(1.0)
        dt_bias.copy_(draw_step_bias(self.nheads, *self._dt_steps))
        if self._conv_init is not None:
            nn.init.uniform_(self.conv(suffix).weight, -self._conv_init, self._conv_init)
        if norm is not None:
            norm.weight.fill_(1.0)

    def project_in(self, x: Tensor) -> Parts:
        """x (..., e) -> xBC (..., c), z (..., s), dt (..., h), mlp (..., 2 d_mlp)."""
        sizes = [2 * self.d_mlp, self.d_ssm, self.conv_channels, self.nheads]
        mlp, z, xBC, dt = self.dropout(call(self.in_proj, x)).split(sizes, dim=-1)
        return xBC, z, dt, mlp

    def _split(self, xBC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """xBC (..., c) -> x (..., h, p), B (..., g, n), C (..., g, n)."""
        size = self.ngroups * self.d_state
        x, B, C = xBC.split([self.d_ssm, size, size], dim=-1)
        groups = (self.ngroups, self.d_state)
        return x.unflatten(-1, (-1, self.headdim)), B.unflatten(-1, groups), C.unflatten(-1, groups)

    def _skip(self, D: Tensor) -> Tensor:
        D = wide(D)
        return D if D.numel() == self.nheads else D.view(self.nheads, self.headdim)

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
        """x (b, c, t) -> (b, t, s) after gate and norm; see :meth:`StateSpaceMixer.scan`."""
        _, z, dt, _ = parts
        dt_bias, A_log, D, norm = self._ssm(suffix)
        x, B, C = self._split(x.transpose(1, 2))
        out = mamba_chunk_scan_combined(
            x,
            dt,
            -torch.exp(wide(A_log)),
            B,
            C,
            self.chunk_size,
            D=self._skip(D),
            z=None if norm is not None else z.unflatten(-1, (-1, self.headdim)),
            dt_bias=wide(dt_bias),
            initial_states=state,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            return_final_states=resume,
            lengths=lengths,
            reverse=reverse,
        )
        y, state = out if isinstance(out, tuple) else (out, None)
        y = y.flatten(-2)
        return y if norm is None else norm(y, z), state

    def scan_step(self, x: Tensor, parts: Parts, suffix: str, state: Tensor) -> Tensor:
        """x (b, c) -> (b, s) after gate and norm; updates the state in place."""
        _, z, dt, _ = parts
        dt_bias, A_log, D, norm = self._ssm(suffix)
        x, B, C = self._split(x)
        dt = F.softplus(wide(dt) + wide(dt_bias)).clamp(*self.dt_limit)
        p = self.headdim
        A = -torch.exp(wide(A_log)).repeat_interleave(p)
        # A head of p channels is p channels of the Mamba-1 step with equal steps and decays.
        y = selective_state_update(
            state.view(len(state), self.d_ssm, self.d_state),
            x.flatten(1),
            dt.repeat_interleave(p, dim=1),
            A.unsqueeze(1).expand(-1, self.d_state),
            B,
            C,
            self._skip(D).reshape(self.nheads, -1).expand(-1, p).reshape(-1),
            None if norm is not None else z,
        )
        return y if norm is None else norm(y, z)

    def project_out(self, y: Tensor, parts: Parts, lengths: Tensor | None = None) -> Tensor:
        """Gated linear unit and output projection: y (..., s) -> (..., e)."""
        if self.d_mlp > 0:
            gate, x = parts[3].chunk(2, dim=-1)
            y = torch.cat([F.silu(gate) * x, y], dim=-1)
        y = self.dropout(call(self.out_proj, y))
        return y if lengths is None else zero_padding(y, lengths)
