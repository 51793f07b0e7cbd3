"""What a training sees of its utterances, drawn anew for each epoch.

Languages with less data come more often (:func:`copies`). And a model reads well what is as long
as what it was trained on: utterances of a speaker that follow each other become one, up to a length
that is drawn for each. The batches keep their size.
"""

import argparse
import logging
import re
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mambaasr.config.read import sampling_rate
from mambaasr.data.folder import Segment, parse_segment
from mambaasr.data.kaldi_file import parse_name, read_good_table
from mambaasr.errors import UserError
from mambaasr.espnet_compat import AbsSampler, SequenceIterFactory, build_batch_sampler
from mambaasr.task import languages

# Between the ids of utterances that are one, and the samples of pause between them: no id has it.
BETWEEN = "\t"
# A pause that is not known: none, or up to so many seconds; a known one is cut to PAUSE_MOST.
PAUSE, PAUSE_MOST = 0.5, 2.0
# What the noise in a pause is as loud as: the softest of the pieces of so many seconds.
PIECE = 0.02
# Option, what it needs, and its value that asks for nothing.
_NEEDS = (
    ("language_upsampling", "upsampling_utt2lang", 1.0),
    ("join_utterances", "join_utt2spk", 0.0),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add our options to a task's parser."""
    group = parser.add_argument_group(description="What each epoch draws of the training data")
    add = group.add_argument
    add(
        "--language_upsampling",
        type=float,
        default=1.0,
        help="draw a language with a probability proportional to (its share of the audio) ** "
        "FACTOR; 1: as it comes, 0: all languages alike",
    )
    add("--upsampling_utt2lang", help="utt2lang of the training data; needed for it")
    add(
        "--join_utterances",
        type=float,
        default=0.0,
        help="join utterances of a speaker to up to so many seconds, anew in each epoch; 0: not",
    )
    add("--join_utt2spk", help="utt2spk of the training data; needed for it")
    add("--join_segments", help="segments of the training data, where the true pauses come from")
    add("--join_prefix", type=int, default=0, help="words that every transcript begins with")


def check(args: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        UserError: one is impossible, or something is missing.
    """
    if args.join_utterances < 0:
        raise UserError(f"--join_utterances {args.join_utterances}: give seconds, or 0")
    if not 0 <= args.language_upsampling <= 1:
        raise UserError(f"--language_upsampling {args.language_upsampling}: give 0 to 1")
    if not draws(args):
        return
    for option, needs, off in _NEEDS:
        if getattr(args, option) != off and not getattr(args, needs):
            raise UserError(f"--{option} needs --{needs}")
    for name in ("upsampling_utt2lang", "join_utt2spk", "join_segments"):
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise UserError(f"--{name} {path}: no such file")
    given = " and ".join(f"--{name}" for name, _, off in _NEEDS if getattr(args, name) != off)
    if args.multiple_iterator:
        raise UserError(f"{given}: not with --multiple_iterator true: all lists are needed")
    if args.iterator_type != "sequence":
        raise UserError(f"{given}: not with iterator_type: {args.iterator_type}")
    if not args.join_utterances:
        return
    kinds = {name: kind for _, name, kind in args.train_data_path_and_name_and_type}
    if kinds.get("speech") not in ("sound", "kaldi_ark"):
        raise UserError(f"--join_utterances: it joins audio, and speech is {kinds.get('speech')}")
    if args.input_size is not None:
        raise UserError("--join_utterances: it joins audio, and speech is stored features")


def draws(args: argparse.Namespace) -> bool:
    """Say whether the options ask for anything."""
    return any(getattr(args, option) != off for option, _, off in _NEEDS)


def copies(
    of_language: Mapping[str, str], sizes: Mapping[str, int], factor: float
) -> dict[str, float]:
    """Say how often an epoch is to see each utterance, on average.

    A language's share of an epoch's audio is proportional to ``share ** factor``, where ``share``
    is its part of all audio; 1 / factor is called the temperature (Conneau et al., XLSR,
    arXiv:2006.13979, section 3.1). An epoch stays as long as it was.

    Args:
        of_language: utterance -> language.
        sizes: utterance -> its length.
        factor: 0 ... 1.

    Returns:
        Utterance -> the expected number of times.
    """
    total = defaultdict(int)
    for utt, size in sizes.items():
        total[of_language[utt]] += size
    whole = sum(total.values())
    weights = {language: (size / whole) ** factor for language, size in total.items()}
    scale = whole / sum(weights.values())
    times = {language: scale * weights[language] / size for language, size in total.items()}
    return {utt: times[of_language[utt]] for utt in sizes}


def chains(
    speakers: Mapping[str, str], segments: Mapping[str, Segment], rate: int
) -> list[list[tuple[str, int | None]]]:
    """Put the utterances of each speaker in their order.

    Args:
        speakers: utterance -> speaker.
        segments: utterance -> its place in a recording, or nothing; of a faster copy (``sp1.1-``)
            that of the utterance itself.
        rate: sampling rate [Hz].

    Returns:
        For each speaker its utterances, by recording and time, else by their ids; and beside each
        the samples of pause before it, None where they are not known.
    """
    of_speaker = defaultdict(list)
    for utt, speaker in speakers.items():
        speed, bare = _speed_of(utt)
        segment = segments.get(bare)
        place = (segment.recording, segment.start) if segment else (utt, 0.0)
        of_speaker[speaker].append((*place, utt, segment, speed))
    found = []
    for rows in of_speaker.values():
        chain, before = [], None
        for _, _, utt, segment, speed in sorted(rows, key=lambda row: row[:3]):
            pause = None
            if segment and before and before.recording == segment.recording and before.end:
                seconds = min(max(segment.start - before.end, 0.0), PAUSE_MOST)
                pause = round(seconds / speed * rate)
            chain.append((utt, pause))
            before = segment
        found.append(chain)
    return found


def _speed_of(utt: str) -> tuple[float, str]:
    """Return the speed that stage 2 gave a copy, by its name, and the name of the utterance."""
    found = re.fullmatch(r"sp(\d+(?:\.\d+)?)-(.+)", utt)
    return (float(found[1]), found[2]) if found else (1.0, utt)


class EpochSampler(AbsSampler):
    """Draws utterances and which of them are one, and batches them by ESPnet's own samplers.

    Args:
        chains: of :func:`chains`.
        times: of :func:`copies`; None: every utterance once.
        shapes: for each kind of data utterance -> its shape, as ESPnet's files of shapes have it;
            the first kind is the audio [samples].
        limit: of what is joined [samples]; 0 joins nothing.
        rate: sampling rate [Hz].
        batches_of: from the paths of files of shapes to batches of ids.
    """

    def __init__(
        self,
        chains: Sequence[Sequence[tuple[str, int | None]]],
        shapes: Sequence[Mapping[str, str]],
        limit: int,
        rate: int,
        batches_of: Callable[[list[str]], list[Sequence[str]]],
        times: Mapping[str, float] | None = None,
    ) -> None:
        self.times = times
        self.limit, self.rate, self.batches_of = limit, rate, batches_of
        # Utterance -> its length in each kind of data, and what follows the length: (500,80).
        self.sizes = [{utt: int(text.partition(",")[0]) for utt, text in x.items()} for x in shapes]
        self.widths = [next(iter(x.values())).partition(",")[2] for x in shapes]
        # What has no shape is not trained on.
        self.chains = [[pair for pair in chain if pair[0] in shapes[0]] for chain in chains]
        self.count = len(self.generate(0))

    def __len__(self) -> int:
        """Return the number of batches of some epoch; others have about as many."""
        return self.count

    def __iter__(self) -> Iterator[Sequence[str]]:
        """Iterate over the batches of some epoch."""
        return iter(self.generate(0))

    def generate(self, seed: int) -> list[list[str]]:
        """Return the batches of an epoch, of ids that a :class:`JoiningLoader` understands."""
        keys = list(self.draw(np.random.default_rng(seed)))
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for number, (sizes, width) in enumerate(zip(self.sizes, self.widths, strict=True)):
                paths.append(f"{folder}/{number}")
                with open(paths[-1], "w", encoding="utf-8") as stream:
                    for name, key in enumerate(keys):
                        utts, pauses = split(key)
                        size = sum(sizes[utt] for utt in utts)
                        # A pause is in the audio; in a text of characters it is a <space>.
                        size += len(pauses) if number else sum(pauses)
                        stream.write(f"{name:09d} {size}{',' if width else ''}{width}\n")
            return [[keys[int(name)] for name in batch] for batch in self.batches_of(paths)]

    @property
    def of_audio(self) -> bool:
        """Whether the lengths are those of audio [samples]; of features they are frames."""
        return not self.widths[0]

    def lengths(self) -> list[int]:
        """Return the lengths of what some epoch draws [samples]."""
        found = []
        for key in self.draw(np.random.default_rng(0)):
            utts, pauses = split(key)
            found.append(sum(self.sizes[0][utt] for utt in utts) + sum(pauses))
        return found

    def draw(self, random: np.random.Generator) -> Iterator[str]:
        """Yield ids that name every utterance as often as drawn, joined up to the limit."""
        sizes = self.sizes[0]
        for chain in self.drawn(random):
            first = int(random.integers(len(chain)))
            parts: list[str] = []
            length, wanted = 0, 0.0
            for place in range(first, first + len(chain)):
                utt, pause = chain[place % len(chain)]
                if pause is None:
                    short = PAUSE * self.rate * random.random()
                    pause = round(short) if random.random() < 0.5 else 0
                # The end of the chain is not followed by its beginning.
                if parts and (place == len(chain) or length + pause + sizes[utt] > wanted):
                    yield BETWEEN.join(parts)
                    parts = []
                if not parts:
                    wanted, length = self.limit * random.random(), 0
                    pause = 0
                else:
                    parts.append(str(pause))
                parts.append(utt)
                length += pause + sizes[utt]
            yield BETWEEN.join(parts)

    def drawn(self, random: np.random.Generator) -> Iterator[Sequence[tuple[str, int | None]]]:
        """Yield the chains of an epoch, as often as their utterances are drawn."""
        if self.times is None:
            yield from filter(None, self.chains)
            return
        for chain in self.chains:
            # 2.3 times is twice, and once more in three epochs of ten.
            counts = [int(self.times[utt] + random.random()) for utt, _ in chain]
            for number in range(max(counts, default=0)):
                rest, skipped = [], False
                for pair, count in zip(chain, counts, strict=True):
                    if count > number:
                        rest.append((pair[0], None) if skipped else pair)
                    skipped = count <= number
                yield rest


def split(key: str) -> tuple[list[str], list[int]]:
    """Return the utterances of an id, and the samples of pause between them."""
    parts = key.split(BETWEEN)
    return parts[::2], [int(pause) for pause in parts[1::2]]


class JoiningLoader(Mapping[str, Any]):
    """One of an ESPnet dataset's loaders, for ids of joined utterances too.

    Args:
        loader: from the id of an utterance to its audio (samples), its text, or its language.
        name: of the data: a language is that of the first utterance.
        rate: sampling rate [Hz].
        prefix: words that every text begins with: a joined one has them once.
    """

    def __init__(self, loader: Mapping[str, Any], name: str, rate: int, prefix: int) -> None:
        self.loader, self.name, self.rate, self.prefix = loader, name, rate, prefix

    def __getitem__(self, key: str) -> Any:
        """Return what belongs to an id.

        Raises:
            UserError: the audio of the utterances has not one channel.
        """
        utts, pauses = split(key)
        first, *rest = (self.loader[utt] for utt in utts)
        if not rest or self.name == "lang":
            return first
        if isinstance(first, str):
            return " ".join([first, *(" ".join(text.split()[self.prefix :]) for text in rest)])
        random = np.random.default_rng(zlib.crc32(key.encode()))
        parts = [first]
        for utt, audio, pause in zip(utts[1:], rest, pauses, strict=True):
            if audio.ndim != 1 or first.ndim != 1:
                raise UserError(f"--join_utterances: {utt} has several channels")
            noise = random.standard_normal(pause) * softest(parts[-1], round(PIECE * self.rate))
            parts += [noise.astype(audio.dtype), audio]
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the utterances."""
        return iter(self.loader)

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self.loader)


def softest(audio: np.ndarray, piece: int) -> float:
    """Return the root mean square of the softest piece (samples) of audio (samples)."""
    count = len(audio) // piece
    if not count:
        return 0.0
    squares = np.square(audio[: count * piece].astype(np.float64)).reshape(count, piece)
    return float(np.sqrt(squares.mean(1).min()))


def iter_factory(
    args: argparse.Namespace, iter_options: Any, dataset: Any, shard: slice
) -> SequenceIterFactory:
    """Return what gives a training batches of what each epoch draws.

    Args:
        args: the task's options.
        iter_options: ESPnet's, of the training data.
        dataset: ESPnet's, of all utterances; its loaders are replaced.
        shard: of each batch, what this process trains on.

    Raises:
        UserError: a file is wrong, or an utterance has no speaker.
    """
    rate = sampling_rate(args.frontend_conf)
    shapes = [dict(_pairs(path)) for path in iter_options.shape_files]
    said, times = [], None
    if args.language_upsampling != 1:
        of_language = languages.read(args.upsampling_utt2lang)
        languages.check(of_language, shapes[0], args.upsampling_utt2lang)
        lengths = {utt: int(shape.partition(",")[0]) for utt, shape in shapes[0].items()}
        times = copies(of_language, lengths, args.language_upsampling)
        each = {of_language[utt]: f"{of_language[utt]} {n:.2f}" for utt, n in times.items()}
        said.append(f"times an epoch: {', '.join(each[name] for name in sorted(each))}")
    if args.join_utterances:
        found = _speakers_chains(args, shapes[0], rate)
        dataset.loader_dict = {
            name: JoiningLoader(loader, name, rate, args.join_prefix)
            for name, loader in dataset.loader_dict.items()
        }
        said.append(f"joined to at most {args.join_utterances:g} s")
    else:
        found = [[(utt, None)] for utt in shapes[0]]

    def batches_of(paths: list[str]) -> list[Sequence[str]]:
        sampler = build_batch_sampler(
            type=iter_options.batch_type,
            shape_files=paths,
            fold_lengths=args.fold_length,
            batch_size=iter_options.batch_size,
            batch_bins=iter_options.batch_bins,
            sort_in_batch=args.sort_in_batch,
            sort_batch=args.sort_batch,
            drop_last=args.drop_last_iter,
            # No process may be without an utterance.
            min_batch_size=max(args.min_batch_size, shard.step or 1),
        )
        return [batch[shard] for batch in sampler]

    limit = round(args.join_utterances * rate)
    sampler = EpochSampler(found, shapes, limit, rate, batches_of, times)
    logging.info(f"[train] {'; '.join(said)}: {len(shapes[0])} utterances, {len(sampler)} batches")
    return SequenceIterFactory(
        dataset=dataset,
        batches=sampler,
        seed=args.seed,
        num_iters_per_epoch=iter_options.num_iters_per_epoch,
        shuffle=iter_options.train,
        shuffle_within_batch=args.shuffle_within_batch,
        num_workers=args.num_workers,
        collate_fn=iter_options.collate_fn,
        pin_memory=args.ngpu > 0,
    )


def _speakers_chains(args, utts, rate):
    """Return the chains of the training's speakers; an utterance without one would be lost."""
    speakers = read_good_table(args.join_utt2spk, parse_name)
    lost = [utt for utt in utts if utt not in speakers]
    if lost:
        raise UserError(
            f"--join_utt2spk {args.join_utt2spk}: {len(lost)} utterances that are trained on have "
            f"no speaker there, the first is {lost[0]!r}: give the utt2spk of the training data"
        )
    segments = {}
    if args.join_segments:
        segments = read_good_table(args.join_segments, parse_segment)
    return chains(speakers, segments, rate)


def _pairs(path: str | Path) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            utt, shape = line.split(maxsplit=1)
            yield utt, shape.strip()
