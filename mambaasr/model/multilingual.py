"""One model for several languages: given the language, left to find it, or neither."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from mambaasr.configurable import configurable
from mambaasr.espnet_compat import encode_with
from mambaasr.model.base import ASRModel, Encoded, LossPart, Statistics
from mambaasr.model.options import CONDITIONING, check_options
from mambaasr.ops.lengths import zero_padding


def lid_loss(model: "MultilingualModel", batch: Encoded) -> tuple[Tensor, Statistics]:
    """Return the cross-entropy of the language-ID head; reported is its accuracy too."""
    logits = model.language_logits(batch.frames, batch.lengths)
    truth = batch.data["lang"].flatten()
    accuracy = (logits.argmax(-1) == truth).float().mean()
    return nn.functional.cross_entropy(logits, truth), {"lid_acc": accuracy}


@configurable()
class MultilingualModel(ASRModel):
    """ESPnet's model with a language embedding, a language family's, or a language-ID head.

    These are the ways of arXiv 2607.01502: a vector of the utterance's language, or of its
    family, is added to every down-sampled acoustic frame; or a second head names the language.
    The paper's sizes and weights are not known to us. Ours: vectors as wide as the encoder that
    start from zero, so that training starts from the model without them; the head is one linear
    layer on the mean of the encoder's valid frames, its cross-entropy is a further part of the
    loss. With neither, all is as in ESPnet's model.

    The training data has a further name, ``lang``: an utterance's index in ``languages``. It is
    made of ``<folder>/utt2lang,lang,text`` by :mod:`mambaasr.task.languages`. For decoding,
    :meth:`set_languages` comes before the call; without it no vector is added, which is not what
    a model with an embedding was trained on. Whoever calls the encoder by itself, whole or in
    pieces, gives it :meth:`condition`.

    Args:
        encoder: ours, or one of ESPnet's whose input layer is called ``embed``.
        ctc: ESPnet's CTC module.
        languages: codes as in utt2lang; in training, by default those of the training data.
        conditioning: "none", "language" or "family": whose embedding is added.
        families: dict of code -> family, for ``conditioning: family``; may know more codes.
        lid_weight: weight of the language-ID head's loss; 0 leaves the head out.
        options: ESPnet's own.

    Raises:
        ValueError: an option is impossible, or the encoder has no place for an embedding.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        ctc: nn.Module,
        languages: Sequence[str] | None = None,
        conditioning: Annotated[str, CONDITIONING] = "none",
        families: Mapping[str, str] | None = None,
        lid_weight: float = 0.0,
        **options: object,
    ) -> None:
        check_options(languages, conditioning, families, lid_weight)
        super().__init__(encoder=encoder, ctc=ctc, **options)
        self.languages = list(languages or ())
        self.conditioning = conditioning
        self.language_embedding = self.lid = None
        self._languages: Tensor | None = None
        self._found: list[str] | None = None
        if conditioning != "none":
            groups = [code if conditioning == "language" else families[code] for code in languages]
            names = sorted(set(groups))
            rows = torch.tensor([names.index(group) for group in groups])
            # Made of the options, so no part of a checkpoint.
            self.register_buffer("_rows", rows, persistent=False)
            self._takes_condition = _make_place(encoder)
            self.language_embedding = _ZeroEmbedding(len(names), encoder.output_size())
        if lid_weight:
            self.lid = nn.Linear(ctc.ctc_lo.in_features, len(self.languages))
            # In front: autograd sums the gradients of the frames from the last part to the first.
            self.losses.insert(0, LossPart("lid", lid_weight, lid_loss))

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        lang: Tensor | None = None,
        **data: object,
    ) -> tuple[Tensor, Statistics, Tensor]:
        """Return loss, statistics and weight of a batch, as ESPnet's model does.

        Args:
            speech, speech_lengths, text, text_lengths: as in ESPnet's model.
            lang: (batch, 1) indices in ``languages``; needed with an embedding or a head.
            **data: what else the batch holds.

        Raises:
            ValueError: ``lang`` is needed and not there.
        """
        if lang is None and (self.lid is not None or self.language_embedding is not None):
            raise ValueError(
                "the model needs the languages of a batch: give FOLDER/utt2lang,lang,text as "
                "data for training and validation"
            )
        before, self._languages = self._languages, None if lang is None else lang.flatten()
        try:
            return super().forward(speech, speech_lengths, text, text_lengths, lang=lang, **data)
        finally:
            self._languages = before

    def encode(
        self, speech: Tensor, speech_lengths: Tensor
    ) -> tuple[Tensor | tuple[Tensor, list[tuple[int, Tensor]]], Tensor]:
        """Encode a batch, with its languages' vectors added where they are known.

        Outside of training the head, if there is one, then finds the languages for
        :meth:`found_languages`: ESPnet's decoding keeps no frames.

        Args:
            speech, speech_lengths: as in ESPnet's model.

        Returns:
            What ESPnet's model returns.
        """
        condition = self.condition()
        if condition is None:
            found, lengths = super().encode(speech, speech_lengths)
        elif self._takes_condition:
            found, lengths = encode_with(self, speech, speech_lengths, condition=condition)
        else:
            # Of this module's own children: a copy that torch makes for another device has others.
            place = self.encoder.embed
            place.language_vectors = condition
            try:
                found, lengths = super().encode(speech, speech_lengths)
            finally:
                place.language_vectors = None
        if self.lid is not None and not self.training:
            frames = found[0] if isinstance(found, tuple) else found
            indices = self.language_logits(frames, lengths).argmax(-1)
            self._found = [self.languages[index] for index in indices.tolist()]
        return found, lengths

    def language_logits(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return the head's logits (batch, languages) for encoded frames (batch, time, width)."""
        sums = zero_padding(frames, lengths).sum(1)
        return self.lid(sums / lengths.clamp(min=1)[:, None].to(sums))

    def set_languages(self, codes: Sequence[str] | str | None) -> None:
        """Name the languages of the utterances that :meth:`encode` gets from now on.

        Args:
            codes: a list, one code an utterance, or the code of one; None: unknown, no vector is
                added.

        Raises:
            ValueError: a code is not among the model's languages.
        """
        codes = [codes] if isinstance(codes, str) else codes
        unknown = sorted(set(codes or ()) - set(self.languages))
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is none of the model's languages: {', '.join(self.languages)}"
            )
        self._languages = None
        if codes is not None:
            device = next(self.parameters()).device
            indices = [self.languages.index(code) for code in codes]
            self._languages = torch.tensor(indices, device=device)

    def found_languages(self) -> list[str] | None:
        """Return what the head found in the last :meth:`encode` outside of training, or None."""
        return self._found

    def condition(self) -> Tensor | None:
        """Return the vectors (batch, width) of the languages that are named, or None.

        Speech in pieces needs them as well: ``encoder.forward_chunk(..., condition=...)``.
        """
        if self.language_embedding is None:
            return None
        if self._languages is None:
            _warn_once()
            return None
        return self.language_embedding(self._rows[self._languages])


class _ZeroEmbedding(nn.Embedding):
    """Vectors that start from zero, ESPnet's ``init`` or not: at first no language matters."""

    def reset_parameters(self):
        nn.init.zeros_(self.weight)

    espnet_initialization_fn = reset_parameters


def _make_place(encoder):
    """Return whether the encoder takes a ``condition``; let one of ESPnet's add what lies there.

    ESPnet's encoders have no such argument, and what they do between their input layer and their
    blocks is theirs: a hook on that layer is the only way in.
    """
    if "condition" in inspect.signature(encoder.forward).parameters:
        return True
    embed = getattr(encoder, "embed", None)
    if not isinstance(embed, nn.Module):
        raise ValueError(
            f"conditioning has no place in {type(encoder).__name__}: it has no input layer "
            "`embed`; choose another encoder, or conditioning: none"
        )
    embed.language_vectors = None
    embed.register_forward_hook(_add)
    return False


def _add(embed, args, out):
    """Add to the frames of an input layer of ESPnet: x, (x, mask) or ((x, positions), mask)."""
    if embed.language_vectors is None:
        return None
    return _add_to_first(out, embed.language_vectors[:, None])


def _add_to_first(out, vectors):
    if isinstance(out, tuple):
        return (_add_to_first(out[0], vectors), *out[1:])
    return out + vectors


_warned = set()


def _warn_once():
    if "language" not in _warned:
        _warned.add("language")
        logging.warning(
            "the model was trained with a language's vector, and no language is given: nothing is "
            "added; with --utt2lang, or set_languages() before the call, it is as in training"
        )
