"""ESPnet's ASR model with its training loss as a list of named parts, in a yaml ``model: asr``.

To train with a further loss, write a function ``my_loss(model, batch) -> (loss, statistics)`` and
append a part to the list in the constructor of a subclass, which also makes the layers it needs:

    @configurable()
    class MyModel(ASRModel):
        def __init__(self, *, encoder, my_weight: float = 0.1, **options: object) -> None:
            super().__init__(encoder=encoder, **options)
            self.my_head = nn.Linear(encoder.output_size(), 2)
            if my_weight:
                self.losses.append(LossPart("my", my_weight, my_loss))

It is reported as ``loss_my``, with its statistics beside it. One line of :mod:`mambaasr.registry`
gives the subclass a name in a yaml.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mambaasr.configurable import configurable
from mambaasr.espnet_compat import (
    ESPnetASRModel,
    add_sos_eos,
    force_gatherable,
    loss_of_transducer,
    th_accuracy,
)
from mambaasr.layers.output import CTCOutput, OutputLayer, SoftmaxOutput

type Statistics = dict[str, Tensor | float | None]


@dataclass(frozen=True)
class Encoded:
    """A batch behind the encoder, of which a part of the loss is made.

    Attributes:
        frames: (batch, time, width), of the encoder, or of the post-encoder if there is one.
        lengths: (batch) valid frames.
        text: (batch, tokens), padded with the model's ``ignore_id``.
        text_lengths: (batch) valid tokens.
        intermediate: pairs (block, frames) of an encoder with intermediate CTC.
        data: what else the batch holds, by its name, such as ``lang``.
    """

    frames: Tensor
    lengths: Tensor
    text: Tensor
    text_lengths: Tensor
    intermediate: Sequence[tuple[int, Tensor]] = ()
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LossPart:
    """A part of a training loss.

    Attributes:
        name: it is reported as ``loss_<name>``, without the weight.
        weight: the part's factor in the sum.
        compute: a function of the model and the batch that returns the loss, a scalar, and
            further statistics to report. It belongs to no instance: torch copies a model to each
            device.
    """

    name: str
    weight: float
    compute: Callable[["ASRModel", Encoded], tuple[Tensor, Statistics]]


@configurable()
class ASRModel(ESPnetASRModel):
    """ESPnet's ASR model; its training loss is the sum of ``weight * loss`` over ``losses``.

    The first parts are ESPnet's own, with its weights: ``ctc`` (with the intermediate CTC in it)
    and ``att`` or, with a transducer, ``transducer``.

    Args:
        **options: of ESPnet's model.

    Raises:
        ValueError: the decoder classifies, for which ESPnet's model has no list of parts.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        if self.use_linear_decoder:
            raise ValueError("a linear decoder goes with model: espnet only")
        other = LossPart("att", 1.0 - self.ctc_weight, attention_loss)
        if self.use_transducer_decoder:
            other = LossPart("transducer", 1.0, transducer_loss)
        parts = [LossPart("ctc", self.ctc_weight, ctc_loss), other]
        self.losses: list[LossPart] = [part for part in parts if part.weight]

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        **data: object,
    ) -> tuple[Tensor, Statistics, Tensor]:
        """Return loss, statistics and weight of a batch, as ESPnet's model does.

        Args:
            speech: (batch, samples).
            speech_lengths: (batch) valid samples.
            text: (batch, tokens), padded with -1.
            text_lengths: (batch) valid tokens.
            **data: what else the batch holds.
        """
        text[text == -1] = self.ignore_id
        frames, lengths = self.encode(speech, speech_lengths)
        frames, intermediate = frames if isinstance(frames, tuple) else (frames, ())
        # A part of a batch on one of several devices may be padded further than its longest text.
        text = text[:, : text_lengths.max()]
        batch = Encoded(frames, lengths, text, text_lengths, intermediate, data)
        weighted, statistics = [], {}
        for part in self.losses:
            loss, others = part.compute(self, batch)
            statistics |= {f"loss_{part.name}": loss.detach()} | others
            weighted.append(part.weight * loss)
        # From the last: a part in front of ESPnet's leaves the bits of their sum alone.
        total = functools.reduce(torch.add, reversed(weighted))
        statistics["loss"] = total.detach()
        return force_gatherable((total, statistics, len(speech)), total.device)


def ctc_loss(model: ASRModel, batch: Encoded) -> tuple[Tensor, Statistics]:
    """Return CTC's loss, mixed with that of intermediate frames by ``interctc_weight``.

    Reported are CTC's own loss, each intermediate one, and, outside of training, error rates.
    """
    loss, cer = _ctc_loss_of(model, batch, batch.frames, batch.text, batch.text_lengths)
    statistics = {"loss_ctc": loss.detach(), "cer_ctc": cer}
    if model.interctc_weight == 0.0 or not batch.intermediate:
        return loss, statistics
    total = 0.0
    for block, frames in batch.intermediate:
        each, cer = _ctc_loss_of(model, batch, frames, *_texts_of(model, block, batch))
        total = total + each
        statistics[f"loss_interctc_layer{block}"] = each.detach()
        statistics[f"cer_interctc_layer{block}"] = cer
    weight, mean = model.interctc_weight, total / len(batch.intermediate)
    return (1 - weight) * loss + weight * mean, statistics


def _ctc_loss_of(
    model: ASRModel, batch: Encoded, frames: Tensor, text: Tensor, text_lengths: Tensor
) -> tuple[Tensor, float | None]:
    """Return the loss of CTC's output layer, and outside of training the error rate."""
    output = CTCOutput(model.ctc)
    loss = output.loss(frames, batch.lengths, text, text_lengths)
    if model.training or model.error_calculator is None:
        return loss, None
    best = output.logits(frames).argmax(-1)
    return loss, model.error_calculator(best.cpu(), text.cpu(), is_ctc=True)


def _texts_of(model: ASRModel, block: int, batch: Encoded) -> tuple[Tensor, Tensor]:
    """Return what a block's intermediate CTC is trained on: the text, or data of ``aux_ctc``."""
    name = (model.aux_ctc or {}).get(str(block))
    if name is None:
        return batch.text, batch.text_lengths
    if name not in batch.data:
        raise ValueError(f"aux_ctc takes {name} for block {block}; the data has none of that name")
    return batch.data[name], batch.data[f"{name}_lengths"]


def attention_loss(model: ASRModel, batch: Encoded) -> tuple[Tensor, Statistics]:
    """Return the attention decoder's loss; reported are accuracy and error rates too.

    It is ESPnet's (``lsm_weight``, ``length_normalized_loss``). Where one of our decoders has
    another output layer than a softmax over all tokens, it is that layer's own, and accuracy is
    reported outside of training only: such a layer may train without the logits of all tokens.
    """
    text, lengths = batch.text, batch.text_lengths
    if model.lang_token_id is not None:
        first = model.lang_token_id.to(text.device).expand(len(text), -1)
        text, lengths = torch.cat([first, text], dim=1), lengths + 1
    read, targets = add_sos_eos(text, model.sos, model.eos, model.ignore_id)
    inputs = (batch.frames, batch.lengths, read, lengths + 1)
    output = getattr(model.decoder, "output", None)
    if isinstance(output, OutputLayer) and not isinstance(output, SoftmaxOutput):
        hidden = model.decoder.hidden(*inputs)
        loss = output.loss(hidden, lengths + 1, targets, lengths + 1)
        if model.training:
            return loss, {}
        logits = output.logits(hidden)
    else:
        logits, _ = model.decoder(*inputs)
        loss = model.criterion_att(logits, targets)
    accuracy = th_accuracy(logits.flatten(0, 1), targets, ignore_label=model.ignore_id)
    if model.training or model.error_calculator is None:
        return loss, {"acc": accuracy}
    cer, wer = model.error_calculator(logits.argmax(-1).cpu(), text.cpu())
    return loss, {"acc": accuracy, "cer": cer, "wer": wer}


def transducer_loss(model: ASRModel, batch: Encoded) -> tuple[Tensor, Statistics]:
    """Return the transducer's loss; reported are error rates too."""
    loss, cer, wer = loss_of_transducer(model, batch.frames, batch.lengths, batch.text)
    return loss, {"cer_transducer": cer, "wer_transducer": wer}
