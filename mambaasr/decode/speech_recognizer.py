"""Use a trained model: recordings of any kind and length in, transcripts out."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from mambaasr.checks import check_choice
from mambaasr.data.audio import MAX_PEAK, resample, stream_audio
from mambaasr.data.prefix import LANG
from mambaasr.decode.experiment import UNKNOWN, Experiment, open_experiment
from mambaasr.decode.load import load_speech2text
from mambaasr.decode.pieces import Cutter, Cutting, Piece, loudness_silence
from mambaasr.decode.recogniser import Recognised, Recogniser, Timed, Utterance
from mambaasr.decode.recordings import WHOLE, Clip, Recording
from mambaasr.decode.transcript import Segment, Transcript, Word
from mambaasr.errors import UserError

LONG = ("auto", "one_pass", "windows", "vad")
# Audio that is searched together at most [s], of several recordings or of one.
TOGETHER = 600.0
# Of audio to be aligned [s]: the memory that it takes grows with the square.
ALIGNED = 600.0

type Audio = str | Path | np.ndarray | torch.Tensor


@dataclass
class _Job:
    """A recording on its way: its transcript, how much of it is still to come or to be searched."""

    transcript: Transcript
    language: str | None
    # The language for a model that is told it, else None.
    told: str | None
    prompt: tuple[int, ...] = ()
    read: bool = False
    open: int = 0
    failed: list[str] = field(default_factory=list)


class SpeechRecognizer:
    """A trained model that transcribes.

        recognizer = SpeechRecognizer("exp/asr_mine")
        result = recognizer.transcribe("talk.mp3")
        print(result.text, result.words[0].start)

    May be called from several threads: they take turns.

    Args:
        model: an experiment's folder, or a model file (.pth) in it.
        device: "auto", "cpu", "cuda", "cuda:1".
        search: one of :data:`mambaasr.search.ways.WAYS`; None: that of the experiment's last
            decoding, "joint" where it has none. So it is with the options of the search, and with
            a language model.
        beam_size, ctc_weight: of the search.
        nbest: hypotheses of each segment.
        batch_size: segments at once, or "auto"; no transcript depends on it.
        long: how a recording is cut. "one_pass" does not; "windows" where CTC says that nothing is
            said; "vad" where it is soft; "auto" cuts ("windows", or "vad" for a model without CTC)
            what is longer than nearly all utterances of the training.
        longest: what a piece lasts at most [s]; None: as the training's utterances.
        phrases: file with phrases to prefer, one a line; ``phrase_weight`` for each token of one.
        prompt: what every text began with in training; None: as in the last decoding.
        language: of all recordings, for a model that is given it.

    Raises:
        UserError: the model cannot be opened, or an option does not go with it.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        search: str | None = None,
        beam_size: int | None = None,
        ctc_weight: float | None = None,
        nbest: int = 1,
        batch_size: int | str = "auto",
        long: str = "auto",
        longest: float | None = None,
        phrases: str | Path | None = None,
        phrase_weight: float = 1.0,
        prompt: str | None = None,
        language: str | None = None,
    ) -> None:
        check_choice("long", long, LONG)
        self.experiment: Experiment = open_experiment(model)
        if self.experiment.trained.get("input_size") is not None:
            raise UserError(
                f"{self.experiment.config}: the model was trained on stored features; "
                "docs/your_corpus.md says which lines of its config open it for audio"
            )
        options = dict(self.experiment.options)
        options |= {"beam_size": beam_size} if beam_size is not None else {}
        options |= {"ctc_weight": ctc_weight} if ctc_weight is not None else {}
        options["nbest"] = nbest
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        lm = self.experiment.lm or (None, None)
        search = search or self.experiment.search
        plain = search == "ctc_greedy"  # it has no use for these
        speech2text = load_speech2text(
            self.experiment.config,
            self.experiment.weights,
            device,
            *((None, None) if plain else lm),
            ngram_file=None if plain else self.experiment.ngram,
            phrases=phrases,
            phrase_weight=phrase_weight,
            **options,
        )
        self._recogniser = Recogniser(speech2text, batch_size, search)
        self._lock, self._warned = threading.Lock(), False
        self._prompts: dict[str, tuple[int, ...]] = {}
        self.long, self.language = long, language
        self.prompt = self.experiment.prompt if prompt is None else prompt
        # Where nobody knows it, the first recording that is cut says so.
        self._guessed = longest is None and self.experiment.seconds is None
        longest = longest or self.experiment.longest
        self._cutting = Cutting(longest, min(longest, self.experiment.usual))
        self._ctc = getattr(self._recogniser.model, "ctc", None) is not None
        if LANG not in self.prompt:
            self._spelled(None)
        if long == "windows" and not self._ctc:
            raise UserError(f"{model}: long: windows needs a model with CTC; vad needs none")

    @property
    def rate(self) -> int:
        """Sampling rate that the model was trained at [Hz]; others are converted."""
        return self._recogniser.rate

    @overload
    def transcribe(self, audio: Audio | Recording, rate: int | None = None) -> Transcript: ...

    @overload
    def transcribe(
        self, audio: list[Audio | Recording], rate: int | None = None
    ) -> list[Transcript]: ...

    @overload
    def transcribe(
        self, audio: Iterable[Audio | Recording], rate: int | None = None
    ) -> Iterator[Transcript] | list[Transcript]: ...

    def transcribe(self, audio: Any, rate: int | None = None) -> Any:
        """Transcribe one recording, or several together.

        Args:
            audio: a path, samples (time,) with their ``rate`` [Hz], or a :class:`Recording`; or a
                list or an iterator of them.
            rate: of samples.

        Returns:
            Of one recording its :class:`Transcript`. Of a list a list of them; of an iterator an
            iterator, in the order of what was given: there ``error`` says why one has failed.

        Raises:
            UserError: the one recording cannot be transcribed.
        """
        if isinstance(audio, str | Path | Recording | np.ndarray | torch.Tensor):
            (found,) = self._transcribe([audio], rate)
            if found.error:
                raise UserError(found.error)
            return found
        if not isinstance(audio, Iterable):
            raise TypeError(f"audio is a path, samples or several of them, not {audio!r}")
        found = self._transcribe(audio, rate)
        return list(found) if isinstance(audio, Sequence) else found

    def align(self, audio: Audio | Recording, text: str, rate: int | None = None) -> list[Word]:
        """Return when each word of a known text is said, by CTC's most probable path.

        Args:
            audio: a recording of up to :data:`ALIGNED` seconds, as for :meth:`transcribe`; of a
                longer one give clips with their texts.
            text: what is said in it, as the model's transcripts are written.
            rate: of samples.

        Raises:
            UserError: the audio cannot be read or is too long, the model has no CTC, its tokens
                cannot spell the text, or the text is longer than the audio.
        """
        clips = audio.clips if isinstance(audio, Recording) else WHOLE
        if len(clips) > 1:
            raise UserError("align: one clip at a time")
        samples, most = [np.empty(0, np.float32)], ALIGNED * self.rate
        for block in self._blocks(audio, rate, clips[0]):
            samples.append(block)
            if sum(map(len, samples)) > most:
                raise UserError(f"align: more than {ALIGNED:g} s: align pieces of the recording")
        job = self._job(audio, 0)
        self._check_language(job.language)
        wave = torch.from_numpy(np.concatenate(samples))
        with self._lock:
            utterance = Utterance(0, wave, job.told, self._spelled(job.language))
            found = self._recogniser.times(utterance, text)
        start, end = clips[0].start, clips[0].start + len(wave) / self.rate
        return [_word(each, start, end) for each in found]

    def _transcribe(
        self, audio: Iterable[Audio | Recording], rate: int | None
    ) -> Iterator[Transcript]:
        """Yield transcripts in the order of the recordings."""
        jobs: list[_Job] = []
        waiting: list[tuple[_Job, Segment, torch.Tensor]] = []
        seconds = 0.0
        for place, each in enumerate(audio):
            job = self._job(each, place)
            jobs.append(job)
            started = time.perf_counter()
            for piece in self._pieces(job, each, rate):
                segment = self._segment(job, piece)
                waiting.append((job, segment, torch.from_numpy(piece.samples)))
                seconds += segment.end - segment.start
                if seconds >= TOGETHER:
                    job.transcript.seconds += time.perf_counter() - started
                    self._search(waiting)
                    waiting, seconds, started = [], 0.0, time.perf_counter()
            job.read = True
            job.transcript.seconds += time.perf_counter() - started
            while jobs and jobs[0].read and not jobs[0].open:
                yield self._done(jobs.pop(0))
        self._search(waiting)
        yield from map(self._done, jobs)

    def _job(self, audio: Audio | Recording, place: int) -> _Job:
        language = self.language
        if isinstance(audio, Recording):
            name, language = audio.name, audio.language or language
        else:
            name = str(audio) if isinstance(audio, str | Path) else str(place)
        told = language if self.experiment.languages is not None else None
        used = language if told or LANG in self.prompt else None
        return _Job(Transcript(name, language=used), language, told)

    def _pieces(self, job: _Job, audio: Audio | Recording, rate: int | None) -> Iterator[Piece]:
        """Read and cut a recording; a fault is noted, and ends it."""
        try:
            self._check_language(job.language)
            job.prompt = self._spelled(job.language)
            clips = audio.clips if isinstance(audio, Recording) else WHOLE
            for clip in clips:
                for piece in self._cut(job, self._blocks(audio, rate, clip)):
                    yield piece._replace(start=clip.start + piece.start)
        except UserError as error:
            job.failed.append(str(error))
        except Exception as error:
            logging.warning(f"{job.transcript.name} failed", exc_info=error)
            job.failed.append(f"{type(error).__name__}: {error}")

    def _check_language(self, language: str | None) -> None:
        known = self.experiment.languages
        if known is not None and language not in known:
            given = f"not {language!r}" if language else "the model is told it"
            raise UserError(f"give the language, one of {', '.join(known)}: {given}")
        if LANG in self.prompt and language is None:
            raise UserError(f"the prompt '{self.prompt}' needs the language")
        if language and known is None and LANG not in self.prompt and not self._warned:
            self._warned = True
            logging.warning(f"the language {language!r} is not used: the model is not told it")

    def _blocks(
        self, audio: Audio | Recording, rate: int | None, clip: Clip
    ) -> Iterator[np.ndarray]:
        """Yield the samples of a clip at the model's rate."""
        if isinstance(audio, str | Path):
            audio = Recording(audio, str(audio))
        if isinstance(audio, Recording):
            yield from stream_audio(audio.path, self.rate, *clip, audio.channel)
            return
        if rate is None:
            raise UserError("samples need their rate: transcribe(samples, rate)")
        samples = np.asarray(audio)
        if samples.dtype.kind in "iu":
            half = 2.0 ** (8 * samples.dtype.itemsize - 1)
            samples = (samples - (half if samples.dtype.kind == "u" else 0.0)) / half
        samples = samples.astype(np.float32)
        if samples.ndim != 1:
            raise UserError(f"samples of one channel are (time,), not {samples.shape}")
        if not np.isfinite(samples).all():
            raise UserError("the samples hold NaN or infinity")
        if np.abs(samples).max(initial=0.0) > MAX_PEAK:
            raise UserError("samples of floating point must lie within -1..1")
        if rate != self.rate:
            samples = resample(samples, rate, self.rate)
        if not len(samples):
            raise UserError("there are no samples")
        yield samples

    def _cut(self, job: _Job, blocks: Iterator[np.ndarray]) -> Iterator[Piece]:
        """Cut a recording as wanted; one that is short stays whole."""
        longest = self._cutting.longest * self.rate
        first: list[np.ndarray] = []
        count = 0
        cutter = None
        for block in blocks:
            count += len(block)
            job.transcript.duration += len(block) / self.rate
            if cutter is not None:
                yield from cutter.accept(block)
                continue
            first.append(block)
            if self.long == "one_pass" or (self.long == "auto" and count <= longest):
                continue
            cutter = self._cutter(job)
            yield from cutter.accept(np.concatenate(first))
        if cutter is not None:
            yield from cutter.finish()
        else:
            yield Piece(0.0, np.concatenate(first))

    def _cutter(self, job: _Job) -> Cutter:
        if self._guessed:
            self._guessed = False
            logging.warning(
                f"how long the training's utterances were is not known: {UNKNOWN:g} s is assumed "
                "(longest)"
            )
        by_loudness = self.long == "vad" or not self._ctc
        job.transcript.long = "vad" if by_loudness else "windows"

        def soft(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
            return loudness_silence(waves, self.rate)

        def blank(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
            with self._lock:
                return self._recogniser.blank_posteriors(
                    [Utterance(n, torch.from_numpy(wave), job.told) for n, wave in enumerate(waves)]
                )

        return Cutter(soft if by_loudness else blank, self.rate, self._cutting)

    def _segment(self, job: _Job, piece: Piece) -> Segment:
        segments = job.transcript.segments
        end = piece.start + len(piece.samples) / self.rate
        segments.append(Segment(len(segments), piece.start, end))
        job.open += 1
        return segments[-1]

    def _search(self, waiting: Sequence[tuple[_Job, Segment, torch.Tensor]]) -> None:
        """Recognise segments together, and share the time among their recordings."""
        if not waiting:
            return
        started = time.perf_counter()
        utterances = [
            Utterance(place, samples, job.told, job.prompt)
            for place, (job, _, samples) in enumerate(waiting)
        ]
        with self._lock:
            reached = {found.key: found for found in self._recogniser(utterances)}
        missed = "not reached: the GPU was lost on another"
        for place, (job, segment, _) in enumerate(waiting):
            self._take(job, segment, reached.get(place) or Recognised(place, reason=missed))
        spent = time.perf_counter() - started
        whole = sum(segment.end - segment.start for _, segment, _ in waiting)
        for job, segment, _ in waiting:
            job.open -= 1
            job.transcript.seconds += spent * (segment.end - segment.start) / whole

    def _spelled(self, language: str | None) -> tuple[int, ...]:
        text = self.prompt.replace(LANG, language or "")
        if text not in self._prompts:
            self._prompts[text] = self._recogniser.prompt(text) if text else ()
        return self._prompts[text]

    def _take(self, job: _Job, segment: Segment, found: Recognised) -> None:
        """Put what was found of a segment into it; times become the recording's."""
        if found.reason or not found.hypotheses:
            segment.error = found.reason or "the search found no hypothesis"
            job.failed.append(f"{segment.start:.2f} s to {segment.end:.2f} s: {segment.error}")
            return
        plain = [self._recogniser.plain(each) for each in found.hypotheses]
        segment.text, segment.score = plain[0]["text"], plain[0]["score"]
        segment.tokens = len(plain[0]["token_int"].split())
        segment.nbest = [(each["text"], each["score"]) for each in plain]
        segment.language = found.language
        if found.no_speech:
            # What a decoder says where CTC hears nothing is invented.
            segment.text, segment.nbest, segment.tokens = "", [], 0
            return
        segment.words = [_word(each, segment.start, segment.end) for each in found.words]

    def _done(self, job: _Job) -> Transcript:
        found = job.transcript
        found.segments = [each for each in found.segments if each.text or each.error]
        for number, each in enumerate(found.segments):
            each.id = number
        if job.failed:
            more = f" (and {len(job.failed) - 1} more)" if len(job.failed) > 1 else ""
            found.error = job.failed[0] + more
        if found.language is None:
            times: dict[str, float] = {}
            for each in found.segments:
                if each.language:
                    times[each.language] = times.get(each.language, 0) + each.end - each.start
            found.language = max(times, key=lambda name: times[name], default=None)
        return found


def _word(timed: Timed, start: float, end: float) -> Word:
    """Return a word of a stretch of a recording with the recording's times [s]."""
    begin = min(start + timed.start, end)
    return Word(timed.text, begin, min(begin + timed.duration, end), timed.confidence)
