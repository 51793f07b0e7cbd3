"""What all our encoders share: everything but their blocks."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_flags, check_sizes
from mambaasr.espnet_compat import CTC, AbsEncoder, TooShortUttError
from mambaasr.layers.conv_module import LookAhead
from mambaasr.layers.norm import NORMS, make_norm
from mambaasr.layers.positions import sinusoidal
from mambaasr.layers.subsampling import make_input_layer
from mambaasr.ops.lengths import zero_padding

POSITIONS = ("none", "sinusoidal")


class StackEncoder(AbsEncoder):
    """Input layer, positions, a stack of blocks, a last norm, look-ahead.

    A block is a module with ``forward(x, lengths, scale=1.0)``, (batch, time, width) to the same,
    zero beyond the lengths; ``scale`` multiplies its residual branches. One that sees past frames
    only has ``causal = True``, ``initial_state(batch, device, dtype)`` and
    ``forward_chunk(x, state) -> (x, state)``. If all blocks are so, the encoder takes speech in
    pieces, see :meth:`forward_chunk`.

    What can be given by keyword is an option of every encoder of ours, see
    :func:`mambaasr.configurable.configurable`.

    Args:
        input_size: width of the features.
        output_size: width of the encoder.
        blocks: the blocks, any iterable of modules; made after the input layer.
        norm: of the output, "layer_norm" or "rms_norm".
        input_layer: see :func:`mambaasr.layers.subsampling.make_input_layer`.
        dropout_rate: after the input layer and after the look-ahead convolution.
        positions: "none" or "sinusoidal", which is added to the frames.
        stochastic_depth_rate: in training, leave out the last block with this probability and
            earlier ones with less, growing linearly with depth (arXiv 1603.09382, section 3); what
            stays is scaled up. A list gives each block's own rate (ESPnet's encoders take one
            number for all blocks alike). Distributed training needs ``unused_parameters: true``.
        lookahead_kernel: width of a convolution over the output that sees as many later frames as
            earlier ones, for streaming (arXiv 2410.00070); odd, 0 leaves it out.
        interctc_layer_idx: blocks (from 1) whose output an intermediate CTC loss takes.
        interctc_use_conditioning: add the intermediate CTC posteriors back to the frames
            (arXiv 2104.02724); ESPnet sets ``conditioning_layer``.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    # What a yaml has to say so that the encoder takes speech in pieces, for the error message.
    streams_with = "direction: uni in mixer_conf"

    def __init__(
        self,
        input_size: int,
        output_size: int,
        blocks: Iterable[nn.Module],
        norm: Annotated[str, NORMS] = "layer_norm",
        /,
        *,
        input_layer: str = "conv2d",
        dropout_rate: float = 0.1,
        positions: Annotated[str, POSITIONS] = "none",
        stochastic_depth_rate: float | Sequence[float] = 0.0,
        lookahead_kernel: int = 0,
        interctc_layer_idx: Sequence[int] = (),
        interctc_use_conditioning: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(type(self).__name__, output_size=output_size)
        check_choice("positions", positions, POSITIONS)
        if positions == "sinusoidal" and output_size % 2:
            raise ValueError(
                f"positions is 'sinusoidal', which needs an even output_size; it is {output_size}"
            )
        self._output_size, self.positions = output_size, positions
        self.embed = make_input_layer(input_layer, input_size, output_size, dropout_rate)
        self.blocks = nn.ModuleList(blocks)
        count = len(self.blocks)
        check_flags(interctc_use_conditioning=interctc_use_conditioning)
        if interctc_layer_idx and count < 2:
            raise ValueError(
                f"interctc_layer_idx is {interctc_layer_idx}; with {count} blocks there is none "
                "before the last"
            )
        listed = isinstance(interctc_layer_idx, (list, tuple))
        if not listed or any(
            type(index) is not int or index not in range(1, count) for index in interctc_layer_idx
        ):
            raise ValueError(
                f"interctc_layer_idx is {interctc_layer_idx}; "
                f"it must be a list of blocks, each between 1 and {count - 1}"
            )
        self.rates = _rates(stochastic_depth_rate, count)
        self.after_norm = make_norm(norm, output_size)
        self.lookahead = None
        if lookahead_kernel:
            self.lookahead = LookAhead(output_size, lookahead_kernel, dropout_rate)
        self.interctc_layer_idx = list(interctc_layer_idx)
        self.interctc_use_conditioning = interctc_use_conditioning
        self.conditioning_layer = None

    @property
    def causal(self) -> bool:
        """Whether every block sees past frames only, so that speech may come in pieces."""
        return all(block.causal for block in self.blocks)

    def output_size(self) -> int:
        """Width of the output."""
        return self._output_size

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Feature frames (batch) -> encoder frames (batch), by formula."""
        return self.embed.output_lengths(lengths)

    def _enter(self, x, condition, offset=0):
        """Add what does not come from the features: (b, t, d) -> (b, t, d), padding too."""
        if self.positions == "sinusoidal":
            x = x + sinusoidal(*x.shape[1:], offset, x.device, x.dtype)
        if condition is not None:
            x = x + (condition.unsqueeze(1) if condition.dim() == 2 else condition)
        return x

    def _condition_on(self, x, ctc):
        """Add the posteriors of an intermediate CTC, made of the normed frames, to padding too."""
        return x + self.conditioning_layer(ctc.softmax(self._leave(x)))

    def _leave(self, x):
        """Norm what comes out of a block, whose residual may be wider than the weights."""
        return self.after_norm(x.to(self.after_norm.weight.dtype))

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: None = None,
        ctc: CTC | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor | tuple[Tensor, list[tuple[int, Tensor]]], Tensor, None]:
        """Encode a batch.

        Args:
            xs_pad: features (batch, time, input_size).
            ilens: (batch) valid frames.
            prev_states: of ESPnet's signature; unused.
            ctc: ESPnet's CTC module, for conditioning on intermediate posteriors.
            condition: (batch, output_size) or (batch, 1, output_size), added to all frames after
                the input layer, such as the embedding of a language; None for nothing.

        Returns:
            (batch, time', output_size), zero beyond the lengths, or, with intermediate CTC, the
            tuple of it and a list of (block, output); the lengths (batch), zero for an
            utterance that is too short beside longer ones; None.

        Raises:
            TooShortUttError: the longest utterance has too few frames for the input layer.
        """
        self._check_frames(int(ilens.max()))
        ilens = ilens.to(xs_pad.device)
        x, lengths = self.embed(zero_padding(xs_pad, ilens), ilens)
        entered = self._enter(x, condition)
        x = x if entered is x else zero_padding(entered, lengths)
        intermediate = []
        for index, (block, rate) in enumerate(zip(self.blocks, self.rates, strict=True), start=1):
            if not self.training or rate == 0:
                x = block(x, lengths)
            elif torch.rand(()) >= rate:
                x = block(x, lengths, 1 / (1 - rate))
            if index in self.interctc_layer_idx:
                intermediate.append((index, zero_padding(self._leave(x), lengths)))
                if self.interctc_use_conditioning:
                    x = zero_padding(self._condition_on(x, ctc), lengths)
        x = zero_padding(self._leave(x), lengths)
        if self.lookahead is not None:
            x = self.lookahead(x, lengths)
        return ((x, intermediate) if intermediate else x), lengths, None

    def _check_frames(self, longest):
        least = self.embed.minimum
        if longest < least:
            message = f"has {longest} frames; the input layer needs {least}"
            raise TooShortUttError(message, longest, least)

    def initial_state(
        self, batch: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple:
        """The state before the first piece of speech.

        Args:
            batch: utterances that run side by side.
            device, dtype: of the features.

        Returns:
            a tuple, of use to :meth:`forward_chunk` only.

        Raises:
            ValueError: a block looks ahead.
        """
        if not self.causal:
            raise ValueError(
                f"{type(self).__name__} looks ahead in its blocks, so it cannot take speech in "
                f"pieces; it can with {self.streams_with}"
            )
        own = (batch, device, dtype)
        ahead = None if self.lookahead is None else self.lookahead.initial_state(*own)
        blocks = tuple(block.initial_state(*own) for block in self.blocks)
        return self.embed.initial_state(*own), 0, blocks, ahead

    def forward_chunk(
        self,
        xs: Tensor,
        state: tuple,
        last: bool = False,
        ctc: CTC | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, tuple | None]:
        """Encode the next piece of each utterance; pieces of any size give what the whole gives.

        Args:
            xs: features (batch, any number of frames, input_size).
            state: of :meth:`initial_state` or of the previous piece; not changed.
            last: no further piece follows, so that frames that wait for later ones come out.
            ctc, condition: as in :meth:`forward`, the same for every piece.

        Returns:
            (batch, time', output_size), the frames that can be known by now, maybe none; the next
            state, None after the last piece. Gradients flow through both.

        Raises:
            TooShortUttError: with the last piece there are too few frames for the input layer.
        """
        embed, offset, blocks, ahead = state
        if last and offset == 0:  # all that came so far waits in the input layer's state
            self._check_frames(embed.shape[1] + xs.shape[1])
        x, embed = self.embed.forward_chunk(xs, embed)
        if x.shape[1]:
            offset, x, after = offset + x.shape[1], self._enter(x, condition, offset), []
            for index, (block, past) in enumerate(zip(self.blocks, blocks, strict=True), start=1):
                x, past = block.forward_chunk(x, past)
                after.append(past)
                if self.interctc_use_conditioning and index in self.interctc_layer_idx:
                    x = self._condition_on(x, ctc)
            x, blocks = self._leave(x), tuple(after)
        if self.lookahead is not None:
            x, ahead = self.lookahead.forward_chunk(x, ahead, last)
        return x, None if last else (embed, offset, blocks, ahead)


def _rates(rate, count):
    """Probability of leaving out each of ``count`` blocks."""
    rates = [rate * i / count for i in range(1, count + 1)] if _is_number(rate) else rate
    listed = isinstance(rates, (list, tuple)) and len(rates) == count
    if not listed or any(not _is_number(r) or not 0 <= r < 1 for r in rates):
        raise ValueError(
            f"stochastic_depth_rate is {rate}; it must be at least 0 and below 1, "
            f"or a list of such numbers for the {count} blocks"
        )
    return list(rates)


def _is_number(value):
    return isinstance(value, (int, float))
