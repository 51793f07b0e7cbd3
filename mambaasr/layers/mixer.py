"""What a mixer is: the interface that blocks, bidirectional forms and speech prefixes use.

A mixer lets the frames of a sequence meet: (batch, time, d_model) to the same shape. Any class with
the methods of :class:`Mixer` can be one. Whoever brings another recurrence gives the five methods
that are not implemented here; whoever brings another state-space model between causal convolution
and gate starts from :class:`StateSpaceMixer`.

Symbols: b batch, t time, e d_model, d width of what one direction gives.
"""

import math
from typing import NoReturn

import torch
from torch import Tensor, nn

from mambaasr.layers.cpu import Dropout, call
from mambaasr.ops import causal_conv1d_fn, causal_conv1d_update
from mambaasr.ops.lengths import zero_padding
from mambaasr.ops.precision import wide_dtype

Parts = tuple[Tensor, ...]  # of (b, t, ...), or (b, ...) for a single frame
State = tuple[Tensor, ...]  # of (b, ...)
Device = torch.device | str | None


class Mixer(nn.Module):
    """Base class of mixers: whole sequences, pieces of them, single frames.

    The projections before and after a recurrence are apart from it, so that several directions may
    share them: ``project_in``, then ``mix`` or ``mix_step`` for each direction, then
    ``project_out``. A direction is a set of parameters, known by the suffix of their names: the
    first one has none, :meth:`add_direction` adds others.

    A subclass gives :meth:`project_in`, :meth:`mix`, :meth:`mix_step`, :meth:`project_out` and
    :meth:`initial_state`; for more directions than one also :meth:`add_direction` and
    :meth:`reset_direction`.

    Attributes:
        causal: whether an output depends on its own and earlier frames alone, so that there are
            pieces and steps.
        d_model: width of input and output (e).
        d_ssm: width of what :meth:`mix` returns (d).
    """

    causal: bool = True
    d_model: int
    d_ssm: int

    def forward(self, x: Tensor, lengths: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Mix a batch of whole sequences.

        Args:
            x: (batch, time, d_model).
            lengths: (batch) valid frames; None if all are. Finite values beyond have no effect
                and get no gradient.
            reverse: run from each sequence's own last frame to its first.

        Returns:
            (batch, time, d_model), zero beyond the lengths.
        """
        parts = self.project_in(x)
        y, _ = self.mix(parts, lengths=lengths, reverse=reverse)
        return self.project_out(y, parts, lengths)

    def forward_chunk(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Mix the next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, d_model).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, d_model) and the next state. Gradients flow through both.
        """
        parts = self.project_in(x)
        y, state = self.mix(parts, state=state)
        return self.project_out(y, parts), state

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> Tensor:
        """Mix one frame, for decoding; no gradients.

        Args:
            x: (batch, d_model).
            state: as in :meth:`forward_chunk`; updated in place.

        Returns:
            (batch, d_model).
        """
        parts = self.project_in(x)
        return self.project_out(self.mix_step(parts, state), parts)

    def initial_state(
        self, batch: int, device: Device = None, dtype: torch.dtype = torch.float32
    ) -> State:
        """Return the state of one direction before the first frame, tensors (batch, ...).

        Args:
            batch: sequences that run side by side.
            device, dtype: of the frames.
        """
        raise NotImplementedError

    def project_in(self, x: Tensor) -> Parts:
        """x (..., e) -> what every direction starts from, frame by frame: tensors (..., any)."""
        raise NotImplementedError

    def mix(
        self,
        parts: Parts,
        suffix: str = "",
        lengths: Tensor | None = None,
        reverse: bool = False,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        """Run one direction over whole sequences, or over the next piece of them.

        Args:
            parts: of :meth:`project_in`, (b, t, ...).
            suffix: of the direction's parameters.
            lengths: (b) valid frames; None if all are.
            reverse: run from each sequence's own last frame to its first.
            state: None, for zeros; or that before the first frame that is visited, not changed.

        Returns:
            (b, t, d), zero beyond the lengths, and the state after each sequence's last frame,
            empty where none was given.
        """
        raise NotImplementedError

    def mix_step(self, parts: Parts, state: State, suffix: str = "") -> Tensor:
        """As :meth:`mix` for one frame, (b, ...) each -> (b, d); updates the state in place."""
        raise NotImplementedError

    def project_out(self, y: Tensor, parts: Parts, lengths: Tensor | None = None) -> Tensor:
        """y (..., d) of one direction or merged of several -> (..., e), zero beyond the lengths."""
        raise NotImplementedError

    def scale_output(self, factor: float) -> None:
        """Scale the initial weights by which the output enters a residual stream; here none."""

    def add_direction(self, suffix: str) -> None:
        """Add, and initialise, the parameters of a further direction."""
        raise NotImplementedError

    def reset_direction(self, suffix: str) -> None:
        """Initialise the parameters of a direction anew."""
        raise NotImplementedError


class BidirectionalMixer(Mixer):
    """A mixer that needs the whole sequence, and says so where it is given a piece."""

    causal = False

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"{type(self).__name__} looks both ways and cannot run in pieces; direction: uni can"
        )

    def initial_state(
        self, batch: int, device: Device = None, dtype: torch.dtype = torch.float32
    ) -> State:
        """There is none.

        Raises:
            ValueError: always, as do :meth:`forward_chunk` and :meth:`step`.
        """
        self._refuse()

    def forward_chunk(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """See :meth:`initial_state`."""
        self._refuse()

    def step(self, x: Tensor, state: State) -> Tensor:
        """See :meth:`initial_state`."""
        self._refuse()


class StateSpaceMixer(Mixer):
    """Input projection, causal convolution, state-space model with a gate, output projection.

    A subclass checks its options, sets the sizes below, calls :meth:`add_layers`, and gives
    :meth:`project_in`, :meth:`add_ssm`, :meth:`reset_ssm`, :meth:`scan` and :meth:`scan_step`. The
    first of the parts that its :meth:`project_in` returns goes through the convolution.

    Attributes:
        d_inner: width inside.
        d_conv: width of the causal convolution's kernel.
        conv_channels: its channels.
        conv_bias: whether it has a bias.
        state_shape: of one sequence's recurrent state.
    """

    d_inner: int
    d_conv: int
    conv_channels: int
    conv_bias: bool
    state_shape: tuple[int, ...]

    def add_layers(self, projected: int, bias: bool, dropout_rate: float) -> None:
        """Add projections, the first direction and dropout.

        Args:
            projected: width of what the input projection gives.
            bias: of both projections.
            dropout_rate: after the input and before the output leaves.
        """
        self._projection_bias = bias
        self.in_proj = nn.Linear(self.d_model, projected, bias=bias)
        self.add_direction("")
        self.out_proj = nn.Linear(self.d_inner, self.d_model, bias=bias)
        self.dropout = Dropout(dropout_rate)

    def add_direction(self, suffix: str) -> None:
        """Add the parameters of a direction's convolution and state-space model."""
        c = self.conv_channels
        conv = nn.Conv1d(c, c, self.d_conv, groups=c, padding=self.d_conv - 1, bias=self.conv_bias)
        setattr(self, f"conv1d{suffix}", conv)
        self.add_ssm(suffix)
        self.reset_ssm(suffix)

    def reset_direction(self, suffix: str) -> None:
        """Initialise the parameters of a direction anew."""
        self.conv(suffix).reset_parameters()
        self.reset_ssm(suffix)

    def espnet_initialization_fn(self) -> None:
        """Restore what ESPnet's ``init: xavier_uniform`` and the like would destroy.

        Those take the kernels of a depthwise convolution for much wider ones.
        """
        self.reset_direction("")

    def conv(self, suffix: str) -> nn.Conv1d:
        """Return the convolution of a direction."""
        return getattr(self, f"conv1d{suffix}")

    def mix(
        self,
        parts: Parts,
        suffix: str = "",
        lengths: Tensor | None = None,
        reverse: bool = False,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        """Convolve, scan and gate in one direction; the state is (conv (b, c, d_conv - 1), ssm)."""
        conv = self.conv(suffix)
        resume = state is not None  # mamba_ssm's kernels cannot train through a state
        conv_state, ssm_state = state if state is not None else (None, None)
        out = causal_conv1d_fn(
            parts[0].transpose(1, 2),
            conv.weight.squeeze(1),
            conv.bias,
            initial_states=conv_state,
            return_final_states=resume,
            activation="silu",
            lengths=lengths,
            reverse=reverse,
        )
        x, conv_state = out if isinstance(out, tuple) else (out, None)
        y, ssm_state = self.scan(x, parts, suffix, lengths, reverse, ssm_state, resume)
        return y, () if conv_state is None or ssm_state is None else (conv_state, ssm_state)

    def mix_step(self, parts: Parts, state: State, suffix: str = "") -> Tensor:
        """As :meth:`mix` for one frame; updates the state in place."""
        conv = self.conv(suffix)
        conv_state, ssm_state = state
        x = causal_conv1d_update(parts[0], conv_state, conv.weight.squeeze(1), conv.bias, "silu")
        return self.scan_step(x, parts, suffix, ssm_state)

    def project_out(self, y: Tensor, parts: Parts, lengths: Tensor | None = None) -> Tensor:
        """y (..., d) -> (..., e), zero beyond the lengths."""
        y = self.dropout(call(self.out_proj, y))
        # Without a bias zeros stay zeros.
        return y if lengths is None or not self._projection_bias else zero_padding(y, lengths)

    @torch.no_grad()
    def scale_output(self, factor: float) -> None:
        """Scale the weights of the output projection."""
        self.out_proj.weight.mul_(factor)

    def initial_state(
        self, batch: int, device: Device = None, dtype: torch.dtype = torch.float32
    ) -> State:
        """Return zeros: (conv (b, c, d_conv - 1), ssm (b, *state_shape) in fp32 or fp64)."""
        conv = torch.zeros(batch, self.conv_channels, self.d_conv - 1, device=device, dtype=dtype)
        ssm = torch.zeros(batch, *self.state_shape, device=device, dtype=wide_dtype(dtype))
        return conv, ssm

    def add_ssm(self, suffix: str) -> None:
        """Add the parameters of a direction's state-space model, not yet initialised."""
        raise NotImplementedError

    def reset_ssm(self, suffix: str) -> None:
        """Initialise them."""
        raise NotImplementedError

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
        """Run the state-space model over x (b, c, t), and gate.

        Args:
            x: what the convolution gives.
            parts, suffix, lengths, reverse: as in :meth:`mix`.
            state: (b, *state_shape), or None for zeros.
            resume: whether to return the last state too.

        Returns:
            (b, t, d), and the last state or None.
        """
        raise NotImplementedError

    def scan_step(self, x: Tensor, parts: Parts, suffix: str, state: Tensor) -> Tensor:
        """As :meth:`scan` for one frame x (b, c) -> (b, d); updates the state in place."""
        raise NotImplementedError


def draw_step_bias(size: int, lowest: float, highest: float, floor: float) -> Tensor:
    """Draw biases whose softplus is a step size, log-uniform from ``lowest`` to ``highest``.

    None is smaller than ``floor``.
    """
    low, high = math.log(lowest), math.log(highest)
    step = torch.exp(torch.rand(size) * (high - low) + low).clamp(min=floor)
    return step + torch.log(-torch.expm1(-step))  # the inverse of softplus
