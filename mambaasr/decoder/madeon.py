"""Decoder-only recognition: one stack of Mamba blocks over speech and text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_rates, check_sizes
from mambaasr.configurable import configurable
from mambaasr.decoder.base import RecurrentDecoder
from mambaasr.layers.adapter import AdapterPlaces
from mambaasr.layers.cpu import Dropout, call
from mambaasr.layers.join import join, text_of
from mambaasr.layers.mixer import State
from mambaasr.layers.mixer_conf import CausalMixerConf
from mambaasr.layers.norm import NORMS, make_norm
from mambaasr.layers.speech_prefix import PrefixMixer

# prefix_direction -> the order in which each layer reads the speech, in turn
ORDERS = {"uni": ("forward",), "parallel": ("both",), "serial": ("forward", "reversed")}


class PrefixBlock(AdapterPlaces):
    """x += PrefixMixer(norm x), over [speech; text].

    Behind the branch there is a place for an adapter (:mod:`mambaasr.layers.adapter`): ``mixer``.

    Args:
        norm: a norm.
        mixer: a :class:`PrefixMixer`.
        dropout_rate: on the residual branch.
    """

    def __init__(self, norm: nn.Module, mixer: PrefixMixer, dropout_rate: float) -> None:
        super().__init__()
        self.norm, self.mixer, self.dropout = norm, mixer, Dropout(dropout_rate)
        self.adapter_mixer = nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor, speech_lengths: Tensor) -> Tensor:
        """(batch, time, width) -> the same."""
        y = self.mixer(self.norm(x), lengths, speech_lengths)
        return x + self.dropout(self.adapter_mixer(y))

    def start(self, speech: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Mix speech (utterance, time, width); return the same, and the state at its end."""
        y, state = self.mixer.start(self.norm(speech), lengths)
        return speech + self.adapter_mixer(y), state

    def step(self, x: Tensor, state: State) -> Tensor:
        """Read one token of each hypothesis: x (hypothesis, width); updates the state in place."""
        return x + self.adapter_mixer(self.mixer.step(self.norm(x), state))


@configurable()
class MadeonDecoder(RecurrentDecoder):
    """MADEON (arXiv 2411.06968): the speech is a prefix, <sos/eos> parts it from the text.

    Meant for an encoder that is an input layer alone (``encoder: mamba`` with ``num_blocks: 0``),
    which makes the whole model decoder-only; any other encoder does as well.

    Published: 16 blocks of width 384 with ``expand: 4``; d_state 16, or 8 for each direction of
    "parallel"; Mamba-2 with d_state 128, heads of 64 and without its inner norm; speech prefixing
    by "parallel" or "serial"; random masking of the input embeddings in training; cross-entropy
    on the text alone, no CTC. With 20,000 rows of embeddings and output layer together these
    blocks count what it prints: 38.5 million parameters, 39.9 "parallel", with Mamba-2 37.9 and
    38.0 (d_state 128 for each direction, B and C shared).

    Ours: the prefix is made of the encoder's frames by a linear layer (the paper embeds discrete
    tokens: k-means of WavLM, duplicates removed, 10,000 subwords); RMSNorm; masked is each frame
    of the prefix by itself, set to zero, at a rate that the paper's text did not tell us; the sum
    of both directions; in "serial" the first layer reads forwards.

    Args:
        vocab_size: tokens, blank and <sos/eos> included.
        encoder_output_size: width of the speech.
        num_blocks: number of blocks.
        d_model: width of the blocks; None for the encoder's.
        prefix_direction: "uni" (causal), "parallel" (every layer reads the speech in both orders
            between shared projections) or "serial" (layers read it forwards and backwards in
            turn). The text is always causal.
        mixer_conf: see :class:`mambaasr.layers.mixer_conf.CausalMixerConf`; d_state is each
            direction's own; for "mamba2" ``rmsnorm`` is false unless it says otherwise.
        norm: "layer_norm" or "rms_norm" in the blocks; the last norm is a LayerNorm.
        dropout_rate: on residual branches and on the embeddings of speech and text.
        prefix_mask_rate: share of the prefix's frames that are set to zero in training.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    def __init__(
        self,
        vocab_size: int,
        encoder_output_size: int,
        num_blocks: int = 16,
        d_model: int | None = None,
        prefix_direction: Annotated[str, ORDERS] = "parallel",
        mixer_conf: CausalMixerConf = CausalMixerConf(expand=4),
        norm: Annotated[str, NORMS] = "rms_norm",
        dropout_rate: float = 0.1,
        prefix_mask_rate: float = 0.0,
    ) -> None:
        check_sizes(type(self).__name__, num_blocks=num_blocks)
        check_choice("prefix_direction", prefix_direction, ORDERS)
        check_rates(type(self).__name__, prefix_mask_rate=prefix_mask_rate)
        width = encoder_output_size if d_model is None else d_model
        check_sizes(type(self).__name__, d_model=width)
        if mixer_conf.mixer == "mamba2":
            mixer_conf = replace(mixer_conf, options={"rmsnorm": False, **mixer_conf.options})
        orders = ORDERS[prefix_direction]
        blocks = (
            PrefixBlock(
                make_norm(norm, width),
                PrefixMixer(mixer_conf.make(width), orders[index % len(orders)]),
                dropout_rate,
            )
            for index in range(num_blocks)
        )
        super().__init__(vocab_size, width, blocks, dropout_rate=dropout_rate)
        self.prefix = nn.Linear(encoder_output_size, width)
        self.prefix_mask_rate = prefix_mask_rate

    def run_blocks(
        self, x: Tensor, lengths: Tensor, speech: Tensor, speech_lengths: Tensor
    ) -> Tensor:
        """See :meth:`RecurrentDecoder.run_blocks`."""
        speech = self.dropout(call(self.prefix, speech))
        if self.training and self.prefix_mask_rate > 0:
            frames = torch.rand(speech.shape[:2], device=speech.device)
            speech = speech.masked_fill((frames < self.prefix_mask_rate).unsqueeze(-1), 0.0)
        joint, joint_lengths = join(speech, speech_lengths, x, lengths)
        for block in self.blocks:
            joint = block(joint, joint_lengths, speech_lengths)
        return text_of(joint, speech_lengths, lengths, x.shape[1])

    def start_blocks(self, speech: Tensor, lengths: Tensor) -> tuple[list[State], list[Tensor]]:
        """See :meth:`RecurrentDecoder.start_blocks`."""
        speech, states = call(self.prefix, speech), []
        for block in self.blocks:
            speech, state = block.start(speech, lengths)
            states.append(state)
        return states, []

    def step_blocks(
        self, x: Tensor, states: list[State], memory: Sequence[Tensor], mask: Tensor | None
    ) -> Tensor:
        """See :meth:`RecurrentDecoder.step_blocks`."""
        for block, state in zip(self.blocks, states, strict=True):
            x = block.step(x, state)
        return x
