"""From waveforms to hypotheses: encode utterances together, search them together."""

import functools
import itertools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mambaasr.checks import check_choice
from mambaasr.config.read import sampling_rate
from mambaasr.data.kaldi_file import parse_hypothesis
from mambaasr.decode.align import align, words
from mambaasr.decode.load import spell
from mambaasr.errors import UserError, lost_gpu, may_pass
from mambaasr.espnet_compat import TooShortUttError, encoded_frames
from mambaasr.layers.output import CTCOutput
from mambaasr.search.beam import BeamSearch, Options
from mambaasr.search.data import Encoded, Found, Hypothesis
from mambaasr.search.greedy import collapse
from mambaasr.search.scorers import NotSearchable, state_scorer
from mambaasr.search.ways import WAYS, AtOnce, start_search

if TYPE_CHECKING:
    from mambaasr.espnet_compat import Speech2Text

# `batch_size: auto`: the longest utterance of a batch times their number is at most so many
# seconds, and there are at most so many.
AUTO_SECONDS = 240.0
AUTO_MOST = {"cpu": 16, "cuda": 64}
# The part of a batch that has to be free before further utterances are encoded.
REFILL = 0.25
BLANK = 0


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """What is to be recognised.

    Attributes:
        key: names the utterance in the result.
        samples: (samples), at the model's rate; or (frames, bins), stored features.
        language: for a model that is given it.
        prompt: tokens that the text begins with; they are no part of the hypotheses.
    """

    key: object
    samples: Tensor
    language: str | None = None
    prompt: tuple[int, ...] = ()


class Timed(NamedTuple):
    """A word or a token: its first moment and its duration [s], and CTC's confidence, 0 ... 1."""

    text: str
    start: float
    duration: float
    confidence: float


@dataclass(slots=True)
class Recognised:
    """What is recognised of an utterance.

    Attributes:
        hypotheses: best first; none where there is a reason.
        reason: why there is none.
        error: the exception behind the reason, if it was one.
        no_speech: whether CTC finds nothing but blanks.
        language: found by a model with a head for it.
        intermediate: tokens by block, of an encoder with intermediate CTC, by its best path.
        words, tokens: of the best hypothesis on CTC's path; empty where CTC has none.
    """

    key: object
    hypotheses: list[Hypothesis] = field(default_factory=list)
    reason: str | None = None
    error: Exception | None = None
    no_speech: bool = False
    language: str | None = None
    intermediate: Mapping[int, list[int]] = field(default_factory=dict)
    words: list[Timed] = field(default_factory=list)
    tokens: list[Timed] = field(default_factory=list)


class _Inside(NamedTuple):
    """An utterance in a search, and CTC's log-probabilities of it (frames, v), or None."""

    utterance: Utterance
    result: Recognised
    log_probs: Tensor | None


class _Opened:
    """What the two kinds of recogniser share.

    Args:
        speech2text: of :func:`mambaasr.decode.load.load_speech2text`.
    """

    def __init__(self, speech2text: "Speech2Text") -> None:
        self.speech2text, self.model = speech2text, speech2text.asr_model

    @property
    def width(self) -> int | None:
        """Bins of the stored features that the model reads; None: it reads audio."""
        return getattr(self.speech2text.asr_train_args, "input_size", None)

    @property
    def rate(self) -> float:
        """Sampling rate of the audio that the model was trained on [Hz]; of features, frames."""
        conf = getattr(self.speech2text.asr_train_args, "frontend_conf", None) or {}
        rate = sampling_rate(conf)
        return rate if self.width is None else rate / (conf.get("hop_length") or rate // 100)

    def plain(self, hypothesis: Hypothesis) -> dict[str, Any]:
        """Return a hypothesis as texts and numbers: text, token, token_int, score, parts."""
        tokens = [token for token in hypothesis.tokens if token != BLANK]
        words = self.speech2text.converter.ids2tokens(tokens)
        tokenizer = self.speech2text.tokenizer
        text = "" if tokenizer is None else tokenizer.tokens2text(words)
        return {
            "text": parse_hypothesis(" ".join(text.split())),
            "token": " ".join(words),
            "token_int": " ".join(map(str, tokens)),
            "score": hypothesis.score,
            "parts": dict(hypothesis.parts),
        }

    def prompt(self, text: str) -> tuple[int, ...]:
        """Return the tokens that every text with this beginning has begun with in training.

        Args:
            text: words, such as ``<|en|> <|transcribe|>``; each that is in the token list whole
                stays whole.

        Raises:
            UserError: the token list cannot spell it.
        """
        tokens, ids = self.model.token_list, tuple(spell(self.speech2text, text))
        unknown = tokens.index("<unk>")
        # What comes behind it decides where its last token ends.
        letters = dict.fromkeys(c for token in tokens if token[0] != "<" for c in token)
        known = (c for c in letters if c.isalnum() and unknown not in spell(self.speech2text, c))
        spelled = [spell(self.speech2text, f"{text} {c}") for c in itertools.islice(known, 2)]
        if len(spelled) == 2:
            ids = tuple(os.path.commonprefix(spelled))
        if not ids or unknown in ids:
            raise UserError(f"--prompt '{text}': the model's tokens cannot spell it")
        return ids

    def set_languages(self, batch: Sequence[Utterance]) -> None:
        """Name the languages of utterances; where one has none, the model forgets others."""
        if hasattr(self.model, "set_languages"):
            languages = [each.language for each in batch]
            self.model.set_languages(None if None in languages else languages)

    def failed(self, utterance: Utterance, error: Exception) -> Recognised:
        """Return what is known of an utterance that has failed by itself."""
        if isinstance(error, TooShortUttError):
            seconds = len(utterance.samples) / self.rate
            reason = f"too short: {error.args[0]} ({seconds:.3f} s of audio)"
            return Recognised(utterance.key, reason=reason)
        return Recognised(utterance.key, reason=str(error), error=error)


class ESPnetRecogniser(_Opened):
    """A trained model with ESPnet's own search, one utterance after the other.

    Prompts are found by the model instead of read, and words have no times.
    """

    def __call__(self, utterances: Iterable[Utterance]) -> Iterator[Recognised]:
        """Recognise utterances, in their order; a failure is of its utterance alone."""
        for each in utterances:
            result = Recognised(each.key)
            self.set_languages([each])
            try:
                with encoded_frames(self.model) as frames:
                    found = self.speech2text(each.samples)
            except Exception as error:
                yield self.failed(each, error)
                if lost_gpu(error):
                    return
                continue
            # With intermediate CTC, ESPnet returns what the layers have found as well.
            hypotheses, inner = found if isinstance(found, tuple) else (found, {})
            result.intermediate = {
                block: self.speech2text.converter.tokens2ids(tokens)
                for block, tokens in (inner or {}).items()
            }
            for _, _, tokens, hypothesis in hypotheses:
                parts = {name: float(x) for name, x in getattr(hypothesis, "scores", {}).items()}
                # ESPnet's primers hide from CTC, which was trained on the prompt.
                if tuple(tokens[: len(each.prompt)]) == each.prompt:
                    tokens = tokens[len(each.prompt) :]
                result.hypotheses.append(Hypothesis(tokens, float(hypothesis.score), parts))
            if getattr(self.model, "ctc", None) is not None:
                result.no_speech = not self.model.ctc.argmax(frames[-1]).any()
            if getattr(self.model, "lid", None) is not None:
                result.language = self.model.found_languages()[0]
            yield result


class Recogniser(_Opened):
    """A trained model with a search over several utterances.

    Args:
        speech2text: of :func:`mambaasr.decode.load.load_speech2text`, whose weights of scorers and
            bounds are taken; its own search is not called.
        batch_size: utterances at once, or "auto".
        search: one of :data:`mambaasr.search.ways.WAYS`.

    Raises:
        NotSearchable: the model is a transducer, or its decoder cannot score hypotheses together.
    """

    def __init__(
        self,
        speech2text: "Speech2Text",
        batch_size: int | str = "auto",
        search: str = "joint",
    ) -> None:
        check_choice("search", search, WAYS)
        espnet = speech2text.beam_search
        if espnet is None:
            raise NotSearchable("the model is a transducer or generates texts by itself")
        super().__init__(speech2text)
        self.batch_size = batch_size
        weights = espnet.weights
        scorers = {
            name: (state_scorer(name, scorer), weights[name])
            for name, scorer in espnet.full_scorers.items()
            if name != "length_bonus"
        }
        others = set(espnet.part_scorers) - {"ctc"}
        if others:
            raise NotSearchable(f"there is no batched form of {', '.join(sorted(others))}")
        self.options = Options(
            beam_size=espnet.beam_size,
            ctc_weight=weights["ctc"] if "ctc" in espnet.part_scorers else 0.0,
            penalty=weights.get("length_bonus", 0.0),
            maxlenratio=speech2text.maxlenratio,
            minlenratio=speech2text.minlenratio,
            nbest=speech2text.nbest,
            normalize_length=espnet.normalize_length,
        )
        if search in ("attention", "rescore") and "decoder" not in espnet.scorers:
            raise UserError(f"--search {search}: the model has no decoder, or ctc_weight is 1")
        needs_ctc = self.options.ctc_weight if search == "joint" else search != "attention"
        if needs_ctc and getattr(self.model, "ctc", None) is None:
            raise UserError(f"--search {search}: the model has no CTC: attention, or ctc_weight 0")
        ids = espnet.sos, espnet.eos
        self._new = functools.partial(start_search, search, scorers, *ids, self.options)
        parts = [
            getattr(self.model, name, None)
            for name in ("frontend", "preencoder", "encoder", "postencoder")
        ]
        self._exact = all(
            type(part).__module__.partition(".")[0] == "mambaasr"
            for part in parts
            if part is not None
        )
        self._most = AUTO_MOST["cuda" if "cuda" in speech2text.device else "cpu"]
        if speech2text.quantised or not all(
            getattr(model, "batches", True) for model, _ in scorers.values()
        ):
            logging.info("one utterance at a time: what the model gives depends on the batch")
            self._most = self.batch_size = 1

    def __call__(self, utterances: Iterable[Utterance]) -> Iterator[Recognised]:
        """Recognise utterances; yield each as soon as it is done, in any order.

        A failure belongs to one utterance: a batch that fails, or does not fit into memory, is
        tried again in halves. After the loss of a GPU those that were not reached are left out.
        """
        limit = self._most if self.batch_size == "auto" else int(self.batch_size)
        # A model is given the languages of a whole batch, or of none in it; and prompts of a
        # batch are equally long.
        kinds: dict[tuple[bool, int], list[Utterance]] = {}
        for each in utterances:
            kinds.setdefault((each.language is None, len(each.prompt)), []).append(each)
        for some in kinds.values():
            yield from self._run(some, limit)

    @torch.no_grad()
    def times(self, utterance: Utterance, text: str) -> list[Timed]:
        """Return when the words of a text are said in an utterance, and how sure CTC is of them.

        Raises:
            UserError: the model has no CTC, its tokens cannot spell the text, or CTC has no path
                for it: more tokens than frames.
        """
        if getattr(self.model, "ctc", None) is None:
            raise UserError("the model has no CTC, which finds the times")
        tokens = spell(self.speech2text, text)
        unknown = self.model.token_list.index("<unk>")
        if unknown in tokens:
            words = [word for word in text.split() if unknown in spell(self.speech2text, word)]
            raise UserError(f"the model's tokens cannot spell {' '.join(words[:5] or [text])}")
        try:
            log_probs = self._encode([utterance])[0].log_probs_of(0)
        except TooShortUttError as error:
            raise UserError(str(self.failed(utterance, error).reason)) from None
        result = Recognised(utterance.key, [Hypothesis(tokens, 0.0, {})])
        assert log_probs is not None
        self._set_times(utterance, result, log_probs)
        if tokens and not result.words:
            raise UserError(f"{len(tokens)} tokens do not fit {len(log_probs)} frames")
        return result.words

    @torch.no_grad()
    def blank_posteriors(self, utterances: Sequence[Utterance]) -> list[np.ndarray]:
        """Return CTC's probability of a blank in each frame of utterances: (frames,) each.

        They are encoded a batch at a time, in their order; equal lengths side by side cost least.
        """
        limit = self._most if self.batch_size == "auto" else int(self.batch_size)
        found: list[np.ndarray] = []
        waiting = deque(utterances)
        while waiting:
            batch = [waiting.popleft() for _ in range(self._room(limit, waiting, {}))]
            try:
                encoded, _ = self._encode(batch)
            except Exception as error:
                short = isinstance(error, TooShortUttError)
                if short and len(batch) == 1:
                    raise UserError(str(self.failed(batch[0], error).reason)) from None
                if len(batch) == 1 or not (short or may_pass(error)) or lost_gpu(error):
                    raise
                limit = len(batch) // 2
                waiting.extendleft(reversed(batch))
                continue
            for place in range(len(batch)):
                log_probs = encoded.log_probs_of(place)
                assert log_probs is not None, "only for a model with CTC"
                found.append(log_probs[:, BLANK].exp().cpu().numpy())
        return found

    @torch.no_grad()
    def _run(self, utterances: list[Utterance], limit: int) -> Iterator[Recognised]:
        """Recognise utterances, at most ``limit`` at once."""
        waiting = deque(sorted(utterances, key=lambda each: len(each.samples), reverse=True))
        search, inside = self._new(), dict[object, _Inside]()
        most = limit
        while waiting or inside:
            most = most if inside else limit
            room = self._room(most, waiting, inside) if search.joins or not inside else 0
            batch = [waiting.popleft() for _ in range(room)]
            failure: Exception | None = None
            try:
                found = self._add(search, inside, batch) if batch else search.step()
            except Exception as error:
                failure, found = error, []
            if failure is None:
                for done in found:
                    yield self._done(done, inside.pop(done.key))
            elif batch and inside and may_pass(failure) and not lost_gpu(failure):
                # There may be room when some of those inside have left.
                waiting.extendleft(reversed(batch))
                most = len(inside)
            else:
                # Those inside the search know nothing of a batch that could not join them.
                lost = batch or [each.utterance for each in inside.values()]
                if not batch:
                    search, inside = self._new(), {}
                if len(lost) == 1 or lost_gpu(failure):
                    for each in lost:
                        yield self.failed(each, failure)
                    if lost_gpu(failure):
                        return
                    continue
                logging.debug(f"{len(lost)} utterances are tried again in halves: {failure}")
                half = len(lost) // 2
                if may_pass(failure):
                    limit = half
                # What it refers to, all that was computed, would take the memory of the halves.
                failure.__traceback__ = failure.__context__ = None
                del failure
                for part in (lost[:half], lost[half:]):
                    yield from self._run(part, limit)

    def _add(
        self, search: BeamSearch | AtOnce, inside: dict[object, _Inside], batch: list[Utterance]
    ) -> list[Found]:
        """Encode utterances and put them into a search."""
        encoded, results = self._encode(batch)
        # All that takes memory comes first: who is in the search is in `inside` too.
        joining = {
            each.key: _Inside(each, result, encoded.log_probs_of(place))
            for place, (each, result) in enumerate(zip(batch, results, strict=True))
        }
        found = search.add(encoded, [each.prompt for each in batch])
        inside |= joining
        return found

    def _done(self, found: Found, inside: _Inside) -> Recognised:
        """Return the result of an utterance that has left the search."""
        utterance, result, log_probs = inside
        result.hypotheses, result.reason = found.hypotheses, found.reason
        if found.hypotheses and log_probs is not None:
            try:
                self._set_times(utterance, result, log_probs)
            except Exception as error:
                logging.warning(f"{utterance.key}: there are no times of its words: {error}")
        return result

    def _set_times(self, utterance: Utterance, result: Recognised, log_probs: Tensor) -> None:
        """Find the best text's words and tokens in time, by CTC's log-probabilities (frames, v)."""
        # CTC was trained on the prompt, so its path begins with it.
        before, found = len(utterance.prompt), result.hypotheses[0].tokens
        spans = align(log_probs, [*utterance.prompt, *found])
        if spans is None:
            return
        spelled = self.speech2text.converter.ids2tokens(found)
        kind = self.speech2text.asr_train_args.token_type
        frame = len(utterance.samples) / self.rate / len(log_probs)
        tokens = [
            each._replace(text=text) for each, text in zip(spans[before:], spelled, strict=True)
        ]
        result.words, result.tokens = (
            [Timed(x.text, x.start * frame, (x.end - x.start) * frame, x.confidence) for x in timed]
            for timed in (words(tokens, spelled, kind), tokens)
        )

    def _room(
        self, limit: int, waiting: Sequence[Utterance], inside: Mapping[object, _Inside]
    ) -> int:
        """Return how many of those that wait, longest first, are to be added now."""
        if not waiting:
            return 0
        others = (each.utterance for each in inside.values())
        longest = max(len(each.samples) for each in (waiting[0], *others)) / self.rate
        if self.batch_size == "auto":
            limit = min(limit, max(1, int(AUTO_SECONDS / max(longest, 1e-3))))
        room = min(len(waiting), limit - len(inside))
        enough = not inside or room == len(waiting) or room >= REFILL * limit
        return room if room > 0 and enough else 0

    def _encode(self, batch: Sequence[Utterance]) -> tuple[Encoded, list[Recognised]]:
        """Encode utterances; return beside what is known of each before any search."""
        # What ESPnet's front end and encoders give depends on the padding of the batch.
        size = len(batch) if self._exact else 1
        parts = [self._encode_together(batch[i : i + size]) for i in range(0, len(batch), size)]
        if len(parts) == 1:
            return parts[0]
        encoded = Encoded.join([part for part, _ in parts])
        return encoded, [result for _, results in parts for result in results]

    def _encode_together(self, batch: Sequence[Utterance]) -> tuple[Encoded, list[Recognised]]:
        speech2text, model = self.speech2text, self.model
        dtype = getattr(torch, speech2text.dtype)
        speech = torch.nn.utils.rnn.pad_sequence(
            [each.samples.to(dtype) for each in batch], batch_first=True
        ).to(speech2text.device)
        lengths = torch.tensor([len(each.samples) for each in batch], device=speech.device)
        self.set_languages(batch)
        frames, lengths = model.encode(speech=speech, speech_lengths=lengths)
        frames, inner = frames if isinstance(frames, tuple) else (frames, [])
        results = [Recognised(each.key) for each in batch]
        if getattr(model, "lid", None) is not None:
            for result, language in zip(results, model.found_languages(), strict=True):
                result.language = language
        log_probs = None
        if getattr(model, "ctc", None) is not None:
            output = CTCOutput(model.ctc)
            log_probs = output.log_probs(output.logits(frames))
            best = collapse(log_probs.argmax(-1), lengths)
            for each, result, path in zip(batch, results, best, strict=True):
                result.no_speech = set(path) <= set(each.prompt)
            for block, hidden in inner:
                paths = collapse(output.logits(hidden).argmax(-1), lengths)
                for result, path in zip(results, paths, strict=True):
                    said = [token for token in path if token not in (model.sos, model.eos)]
                    result.intermediate = {**result.intermediate, block: said}
        return Encoded([each.key for each in batch], frames, lengths, log_probs), results


def search(
    model: Recogniser | ESPnetRecogniser,
    batch: Sequence[Any],
    language: str | None = None,
    prompt: str = "",
) -> list[Recognised]:
    """Recognise waveforms together.

    Args:
        model: for example ``Recogniser(load_speech2text(config, weights))``.
        batch: waveforms (samples) at ``model.rate``, torch's or numpy's.
        language: of all of them, for a model that is given it.
        prompt: words that every text began with in training, such as ``<|en|> <|transcribe|>``.

    Returns:
        For each waveform, in their order, its hypotheses or the reason why there is none;
        ``model.plain(hypothesis)`` has the text.

    Raises:
        UserError: the tokens cannot spell the prompt.
    """
    first = model.prompt(prompt) if prompt else ()
    utterances = [
        Utterance(place, torch.as_tensor(wave), language, first) for place, wave in enumerate(batch)
    ]
    found = {each.key: each for each in model(utterances)}
    missed = "not reached: the GPU was lost on another"
    return [
        found.get(place) or Recognised(place, reason=missed) for place in range(len(utterances))
    ]
