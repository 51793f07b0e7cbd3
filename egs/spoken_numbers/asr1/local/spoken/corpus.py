"""The corpus: who says what in which noise, and the audio and data folders made of it."""

import hashlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from mambaasr.data.audio import finished, resample, write_audio
from mambaasr.data.folder import DataFolder
from mambaasr.data.kaldi_file import write_table
from mambaasr.data.non_speech import make_piece
from mambaasr.errors import UserError
from mambaasr.fingerprint import fingerprint
from mambaasr.parallel import map_items
from mambaasr.source import code_of
from spoken import espeak, noise
from spoken.sentences import LANGS, sentence, split_of

RATE = 16000
CHUNK = 50
BABBLE_POOL = 16
SPLITS = ("train", "dev", "test")

BASES = {
    "en": "en-us en en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc en-029",
    "de": "de",
    "es": "es es-419",
    "fr": "fr fr-be fr-ch",
    "it": "it",
}
BASES = {lang: bases.split() for lang, bases in BASES.items()}
# espeak-ng's variants that sound like people; near twins (such as f2 and f5) are left out or stand
# in one split.
VARIANTS = {
    "train": "m1 m2 m4 m5 m8 f1 f3 Alex Alicia Andy Gene Henrique Jacky Lee Nguyen Reed aunty "
    "boris david edward gustave linda pablo paul pedro quincy rob robert steph travis",
    "dev": "m7 belinda norbert Annie",
    "test": "m3 m6 f2 f4 Michael shelby",
}
VARIANTS = {split: variants.split() for split, variants in VARIANTS.items()}


@dataclass(frozen=True)
class Utterance:
    """One utterance of the plan; everything that decides its samples.

    Attributes:
        id: utterance id, the speaker in front.
        lang: language.
        split: train, dev or test.
        request: what espeak-ng is asked.
        noise: white, pink, babble or clean.
        snr: signal-to-noise ratio [dB], or None where clean.
        seed: decides the noise's samples, the margins and the level.
    """

    id: str
    lang: str
    split: str
    request: espeak.Request
    noise: str
    snr: float | None
    seed: str

    @property
    def speaker(self) -> str:
        """The voice: base and variant."""
        return f"{self.request.base}_{self.request.variant}"


def plan(
    lang: str, split: str, count: int, seed: int | str, snrs: Sequence[float | None] = (None,)
) -> list[Utterance]:
    """Decide the utterances of a split.

    Utterance ``i`` is the same however many are asked for.

    Args:
        lang: en, de, es, fr or it.
        split: train, dev or test.
        count: number of utterances.
        seed: any integer.
        snrs: signal-to-noise ratios [dB] to draw from, None for no noise; repeat one to make it
            more frequent.

    Returns:
        A list of :class:`Utterance`. Texts do not repeat while there are others.
    """
    utterances, seen = [], set()
    for i in range(count):
        key = f"{seed}:{lang}:{split}:{i}"
        rng = random.Random(key)
        text = _new_text(lang, split, rng, seen)
        seen.add(text)
        base, variant = rng.choice(BASES[lang]), rng.choice(VARIANTS[split])
        request = espeak.Request(
            text=text,
            base=base,
            variant=variant,
            rate=rng.randint(140, 220),
            pitch=rng.randint(30, 70),
            pitch_range=rng.randint(30, 70),
        )
        snr = rng.choice(list(snrs))
        kind = "clean" if snr is None else rng.choice(noise.KINDS)
        utt = f"{base}_{variant}-{split}{i:06d}"
        utterances.append(Utterance(utt, lang, split, request, kind, snr, key))
    return utterances


def _new_text(lang, split, rng, seen, tries=200):
    """Draw until a text belongs to the split and is new; after many tries an old one will do."""
    known = None
    while True:
        text = sentence(lang, rng)
        if split_of(lang, text) == split:
            if text not in seen:
                return text
            known = text
        tries -= 1
        if tries <= 0 and known is not None:
            return known


def render(utterances: Sequence[Utterance], seed: int) -> list[np.ndarray]:
    """Return the samples of utterances, float arrays ``(time,)`` at RATE.

    Args:
        utterances: part of a :func:`plan`.
        seed: the plan's seed, which also decides what the babble says.
    """
    voices = _speak([utt.request for utt in utterances])
    return [_mix(utt, voice, seed) for utt, voice in zip(utterances, voices, strict=True)]


def generate(
    langs: Sequence[str],
    sizes: dict[str, int],
    seed: int = 1,
    snrs: Sequence[float | None] = (None,),
    data_dir: str | Path = "data",
    nj: int = 1,
    non_speech: float = 0.0,
) -> dict[str, int]:
    """Write data/train, data/dev and data/test_<lang>, and their audio below data/audio.

    Audio that an earlier run made of the same plan is kept.

    Args:
        langs: languages.
        sizes: split -> number of utterances for each language.
        seed, snrs: see :func:`plan`.
        data_dir: folder of the data folders.
        nj: number of worker processes.
        non_speech: pieces of silence and noise with empty texts for each utterance.

    Returns:
        Name of the data folder -> number of utterances.

    Raises:
        UserError: an unknown language, a size below 1, or espeak-ng is missing.
    """
    unknown = sorted(set(langs) - set(LANGS))
    if unknown or not langs:
        raise UserError(f"unknown languages {unknown}; choose from {', '.join(LANGS)}")
    for split in SPLITS:
        if sizes[split] < 1:
            raise UserError(f"{split}: at least 1 utterance is needed, not {sizes[split]}")
    audio = Path(data_dir) / "audio"
    version = espeak.version()
    sets = {}
    todo = []
    for lang in dict.fromkeys(langs):
        for split in SPLITS:
            utterances = plan(lang, split, sizes[split], seed, snrs)
            name = f"test_{lang}" if split == "test" else split
            sets.setdefault(name, []).extend(utterances)
            missing = [
                utt
                for utt in utterances
                if finished(_path(audio, utt), _fingerprint(utt, version)) is None
            ]
            todo += [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
    make = partial(_make, audio=audio, seed=seed, version=version)
    for _ in map_items(make, todo, nj, "Speak"):
        pass
    return {
        name: _write(Path(data_dir) / name, utterances, audio, seed, non_speech)
        for name, utterances in sets.items()
    }


def _make(utterances, audio, seed, version):
    """Write the audio of a chunk of utterances."""
    for utt, samples in zip(utterances, render(utterances, seed), strict=True):
        comment = _fingerprint(utt, version)
        write_audio(_path(audio, utt), samples, RATE, comment=comment, sync=False)


def _mix(utt, speech, seed):
    """Put silence around speech of power 1, add the noise and set the level."""
    rng = np.random.default_rng(list(hashlib.sha256(utt.seed.encode()).digest()))
    before, after = rng.integers(RATE // 10, 3 * RATE // 10, size=2)
    signal = np.concatenate([np.zeros(before), speech, np.zeros(after)])
    if utt.snr is not None:
        voices = _babble_voices(utt.lang, utt.split, seed) if utt.noise == "babble" else ()
        sound = noise.make_noise(utt.noise, len(signal), rng, voices)
        signal = noise.add_noise(signal, sound, utt.snr, slice(before, before + len(speech)))
    level = 10 ** (rng.uniform(-28, -18) / 20)
    return signal * min(level, 0.99 / np.abs(signal).max())


@lru_cache
def _babble_voices(lang, split, seed):
    """Return speech to mix babble of: the split's own voices with texts of the split's own."""
    return _speak([utt.request for utt in plan(lang, split, BABBLE_POOL, f"{seed}:babble")])


def _speak(requests):
    """Return each request's speech at RATE with a mean power of 1."""
    spoken, rate = espeak.speak(requests)
    voices = []
    for samples in spoken:
        voice = resample(samples / 32768, rate, RATE)
        voices.append(voice / np.sqrt(np.mean(voice**2)))
    return voices


def _path(audio, utt):
    return audio / f"{utt.split}_{utt.lang}" / utt.speaker / f"{utt.id}.flac"


def _fingerprint(utt, version):
    """Return a digest of everything that decides an utterance's samples."""
    made_of = json.dumps([_code(), version, RATE, asdict(utt)], sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()


@lru_cache
def _code():
    """What these modules and what they call of mambaasr are."""
    folder = Path(__file__).parent
    return [fingerprint(folder), code_of([], folder)]


def _write(path, utterances, audio, seed, non_speech):
    """Write a data folder, and ``utt2noise`` (utterance, noise, ratio in dB) beside its files.

    Returns:
        The number of utterances.
    """
    folder = DataFolder(
        wav={utt.id: _path(audio, utt) for utt in utterances},
        text={utt.id: utt.request.text for utt in utterances},
        utt2spk={utt.id: utt.speaker for utt in utterances},
        utt2lang={utt.id: utt.lang for utt in utterances},
    )
    noises = {
        utt.id: utt.noise if utt.snr is None else f"{utt.noise} {utt.snr:g}" for utt in utterances
    }
    for number, utt in enumerate(utterances[: round(non_speech * len(utterances))]):
        name = f"non_speech_{utt.lang}-{utt.split}{number:06d}"
        file = audio / f"{utt.split}_{utt.lang}" / "non_speech" / f"{name}.flac"
        rng = np.random.default_rng(list(hashlib.sha256(f"{seed}:{name}".encode()).digest()))
        piece = make_piece(int(rng.integers(RATE, 4 * RATE)), RATE, rng)
        write_audio(file, piece, RATE, sync=False)
        folder.wav[name], folder.text[name], folder.utt2lang[name] = file, "", utt.lang
        folder.utt2spk[name] = name.partition("-")[0]
        noises[name] = "non_speech"
    # Once for all audio, before the tables are written that name it.
    os.sync()
    folder.write(path)
    write_table(path / "utt2noise", noises)
    return len(folder.wav)
