"""Small trees with the layouts, names, formats and quirks of corpora, filled with speech."""

import itertools
import json
import re

import numpy as np
import soundfile
from speech import RATE, say


def write_audio(path, seed=0, text="so it began again", language="en-us"):
    """Write a text as it is spoken; the suffix says how; each ``seed`` is another voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, say(text, language, seed), RATE, **opus)


def an4(root):
    """Write ``etc/an4_{train,test}.{fileids,transcription}`` and ``wav/FOLDER/SPEAKER/*.wav``."""
    for split, folder, speakers in (
        ("train", "an4_clstk", "fash fbbh fclc fejs ffmm fjam fjdn fjmd fjrg fkai fkdo".split()),
        ("test", "an4test_clstk", ["fcaw", "mmxg"]),
    ):
        ids, texts = [], []
        for number, speaker in enumerate(speakers):
            name = f"an{251 + number}-{speaker}-b"
            ids.append(f"{folder}/{speaker}/{name}\n")
            texts.append(f"<s> RUBOUT G M </s> ({name})\n")
            write_audio(root / f"wav/{folder}/{speaker}/{name}.wav", number, "rubout G M")
        (root / "etc").mkdir(exist_ok=True)
        (root / f"etc/an4_{split}.fileids").write_text("".join(ids))
        (root / f"etc/an4_{split}.transcription").write_text("".join(texts))
    return root


def librispeech(root, parts, utterances=2, numbers=None):
    """Write ``PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac`` and the chapter's transcripts.

    Each part has a speaker, 19 and following ones or those of ``numbers``.
    """
    for number, part in zip(numbers or itertools.count(19), parts, strict=False):
        chapter = root / part / str(number) / "198"
        chapter.mkdir(parents=True)
        names = [f"{number}-198-{index:04d}" for index in range(utterances)]
        for seed, name in enumerate(names):
            write_audio(chapter / f"{name}.flac", seed)
        lines = [f"{name} SO IT BEGAN AGAIN\n" for name in names]
        (chapter / f"{number}-198.trans.txt").write_text("".join(lines))
    return root


def aishell(root):
    """Write ``data_aishell/{wav/PART/SPEAKER,transcript}``."""
    lines = []
    for number, part in ((2, "train"), (724, "dev"), (764, "test")):
        for index in (122, 123):
            name = f"BAC009S{number:04d}W{index:04d}"
            path = root / f"data_aishell/wav/{part}/S{number:04d}/{name}.wav"
            write_audio(path, number, "而 对 楼市 成交", "cmn")
            lines.append(f"{name} 而 对 楼市 成交\n")
    transcripts = root / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    transcripts.parent.mkdir(parents=True)
    transcripts.write_text("".join(lines), encoding="utf-8")
    return root


def tedlium(root):
    """Write ``legacy/PART/{sph,stm}``: talks with two texts and a stretch that is not scored."""
    speech = np.zeros(3 * RATE)
    for start, text in ((0.5, "it's here"), (2.0, "and there")):
        said = say(text)[: 3 * RATE // 4]
        speech[int(start * RATE) :][: len(said)] = said
    for part in ("train", "dev", "test"):
        talk = root / "legacy" / part / "sph" / f"Speaker_{part}.sph"
        talk.parent.mkdir(parents=True)
        soundfile.write(talk, speech, RATE, format="NIST", subtype="PCM_16")
        stm = root / "legacy" / part / "stm" / f"Speaker_{part}.stm"
        stm.parent.mkdir(parents=True)
        head = f"Speaker_{part} 1 Speaker_{part}"
        stm.write_text(
            f"{head} 0.5 1.25 <o,f0,male> it 's here <unk>\n"
            f"{head} 1.25 2.00 <o,f0,male> ignore_time_segment_in_scoring\n"
            f"{head} 2.00 2.75 <o,f0,male> and there {{NOISE}}\n"
        )
    return root


def spgispeech(root, utterances=1, calls=("07a785",)):
    """Write ``spgispeech/PART/CALL/N.wav`` and ``PART.csv``."""
    for part in ("train", "val"):
        lines = ["wav_filename|wav_filesize|transcript\n"]
        for call, number in itertools.product(calls, range(1, utterances + 1)):
            path = root / "spgispeech" / part / call / f"{number}.wav"
            write_audio(path, number, "We're up 3%, Tom.")
            lines.append(f"{call}/{number}.wav|9644|We're up 3%, Tom.\n")
        (root / f"{part}.csv").write_text("".join(lines))
    return root


def commonvoice(root, languages, clips=2):
    """Write ``LANGUAGE/{train,dev,test}.tsv`` and ``clips/*.mp3``; quotes stand as they are."""
    head = (
        "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\n"
    )
    for number, language in enumerate(languages):
        home = root / language
        for split in ("train", "dev", "test"):
            rows = [head]
            for clip in range(clips):
                name = f"common_voice_{language}_{split}_{number}{clip}.mp3"
                write_audio(home / "clips" / name, clip, "Wie geht's? Gut", "de")
                rows.append(
                    f'{split}{clip:0126d}\t{name}\t"Wie geht’s?" – gut\t2\t0\t\t\t\t\t{language}\n'
                )
            (home / f"{split}.tsv").write_text("".join(rows), encoding="utf-8")
    return root


def covost2(root, pair, clips=2):
    """Write ``SOURCE/{validated.tsv,covost_v2.PAIR.tsv,clips/*.mp3}`` as of Common Voice 4.

    Of CoVoST's own splits, train_covost belongs to the training set. Not every validated clip is
    translated, and quotes stand as they are, with backslashes before what separates columns.
    """
    language = pair.partition("_")[0]
    home = root / language
    spoken = ["client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\n"]
    written = ["path\ttranslation\tsplit\tlang\n"]
    for place, split in enumerate(("train", "train_covost", "dev", "test", "none")):
        for clip in range(clips):
            name = f"common_voice_{language}_{17300000 + 10 * place + clip}.mp3"
            write_audio(home / "clips" / name, seed=clip)
            spoken.append(f'{split}{clip:0120d}\t{name}\t"C’est ici", dit-il.\t2\t0\t\t\t\n')
            if split != "none":
                written.append(f'{name}\t"It is here," he\\\t said.\t{split}\t{pair}\n')
    (home / "validated.tsv").write_text("".join(spoken), encoding="utf-8")
    (home / f"covost_v2.{pair}.tsv").write_text("".join(written), encoding="utf-8")
    return root


# What a language of FLEURS writes, as its publisher's own cleaning leaves it.
FLEURS_TEXTS = {
    "cmn_hans_cn": ("“这是开始。”", "这 是 开 始"),
    "tr_tr": ("Iğdır'da başladı.", "ığdır'da başladı"),
    "th_th": ("มันเริ่มต้น อีกครั้ง", "มันเริ่มต้น อีกครั้ง"),
    "vi_vn": ("Nó bắt đầu\nlại.", "nó bắt đầu lại"),
    "fa_ir": ("می‌خواهم، آغاز", "می‌خواهم آغاز"),
}


def fleurs(root, languages, recordings=2):
    """Write ``LANGUAGE/{train,dev,test}.tsv`` without headers and ``LANGUAGE/audio/SPLIT/*.wav``.

    A sentence is read by all who read in a split, and no speaker is named. A line break in a
    sentence cuts its row in two.
    """
    for number, language in enumerate(languages, 1):
        raw, text = FLEURS_TEXTS.get(language, ('"So it began," again.', '"so it began," again'))
        for place, split in enumerate(("train", "dev", "test")):
            rows = []
            for index in range(recordings):
                name = f"{10**19 + 1000 * number + 100 * place + index}.wav"
                write_audio(root / language / "audio" / split / name, seed=index)
                chars = " ".join("|".join(text.split())) + " |"
                gender = ("FEMALE", "MALE")[index % 2]
                rows.append(f"{1500 + place}\t{name}\t{raw}\t{text}\t{chars}\t4800\t{gender}\n")
            (root / language / f"{split}.tsv").write_text("".join(rows), encoding="utf-8")
    return root


def voxpopuli(root, languages, segments=2):
    """Write ``transcribed_data/LANGUAGE/{asr_SPLIT.tsv,YEAR/*.ogg}``; some speakers are unknown."""
    head = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\tis_gold_transcript\taccent\n"
    for language in languages:
        home = root / "transcribed_data" / language
        for place, split in enumerate(("train", "dev", "test")):
            rows = [head]
            for index in range(segments):
                event = f"201{place}0206-0900-PLENARY-15-{language}"
                name = f"{event}_201{place}0206-16:10:0{index}_{index}"
                write_audio(home / f"201{place}" / f"{name}.ogg", seed=index)
                speaker = f"{124990 + place}" if index == 0 else "None"
                rows.append(f"{name}\t\tso it began again\t{speaker}\t{split}\tmale\tTrue\tNone\n")
            (home / f"asr_{split}.tsv").write_text("".join(rows), encoding="utf-8")
    return root


def mls(root, languages, utterances=1):
    """Write ``mls_LANGUAGE/SPLIT/{audio/SPEAKER/BOOK,transcripts.txt}`` and ``metainfo.txt``."""
    for name in languages:
        home = root / f"mls_{name}"
        for split in ("train", "dev", "test"):
            names = [f"10_20_{number:06d}" for number in range(utterances)]
            for name in names:
                write_audio(home / split / f"audio/10/20/{name}.flac", 0, "als es anfing", "de")
            lines = [f"{name}\tals es anfing\n" for name in names]
            (home / split / "transcripts.txt").write_text("".join(lines))
        (home / "metainfo.txt").write_text(" SPEAKER | GENDER | PARTITION\n 10 | F | train\n")
    return root


# Audio -> its subsets, and its segments: text and subsets.
_GIGASPEECH = {
    "audio/podcast/P0001/POD0000000025.opus": (
        ["{XL}", "{L}"],
        [
            ("FOUR O'CLOCK TOMORROW AFTERNOON <COMMA> SAID WILLIAMS <PERIOD>", ["{XL}", "{L}"]),
            ("IS THAT THE STATE-OF-THE-ART <QUESTIONMARK>", ["{XL}"]),
            ("THIS ONE IS IN NO SUBSET <PERIOD>", []),
        ],
    ),
    "audio/youtube/P0000/YOU0000000315.opus": (
        ["{DEV}"],
        [("<MUSIC>", ["{DEV}"]), ("UH YES <COMMA> THAT IS IT <EXCLAMATIONPOINT>", ["{DEV}"])],
    ),
    "audio/audiobook/P0002/AUD0000000007.opus": (
        ["{TEST}"],
        [("SO IT BEGAN AGAIN <PERIOD>", ["{TEST}"]), ("<SIL>", ["{TEST}"])],
    ),
}


def gigaspeech(root):
    """Write ``GigaSpeech.json`` and ``audio/SOURCE/PNNNN/AID.opus``: long audio, its segments."""
    audios = []
    for number, (path, (subsets, texts)) in enumerate(_GIGASPEECH.items()):
        aid, pieces, segments = path.split("/")[-1].removesuffix(".opus"), [], []
        for index, (text, own) in enumerate(texts):
            words = re.sub("<[A-Z]+>", "", text).strip() or text.strip("<>")
            said = say(words.lower(), voice=number)
            begin = sum(map(len, pieces)) / RATE
            pieces.append(said)
            segments.append(
                {
                    "sid": f"{aid}_S{index:07d}",
                    "speaker": "N/A",
                    "begin_time": round(begin, 3),
                    "end_time": round(begin + len(said) / RATE, 3),
                    "text_tn": text,
                    "subsets": own,
                }
            )
        (root / path).parent.mkdir(parents=True)
        samples = np.concatenate(pieces)
        soundfile.write(root / path, samples, RATE, format="OGG", subtype="OPUS")
        about = {
            "title": 'A "title", {so} [to] say',
            "url": "",
            "path": path,
            "aid": aid,
            "md5": "",
        }
        about |= {"source": path.split("/")[1], "codec": "opus", "channels": 1, "speaker": "N/A"}
        about |= {"sample_rate": 16000, "duration": round(len(samples) / RATE, 3)}
        audios.append(about | {"subsets": subsets, "segments": segments})
    corpus = {"dataset": "GigaSpeech", "language": "EN", "version": "v1.0.0", "audios": audios}
    (root / "GigaSpeech.json").write_text(json.dumps(corpus, indent=2))
    return root


def csj(root):
    """Write ``MORPH/SDB/PART/TALK.sdb`` in Shift-JIS and ``WAV/PART/TALK.wav``.

    lhotse wants every talk of the official test sets, of its own validation set and of those that
    are left out; a dialogue has a WAV for each side.
    """
    from lhotse.recipes import csj as lhotse_csj

    named = [*lhotse_csj._A01M0056, *lhotse_csj._VALID, *sum(lhotse_csj._EVAL, [])]
    talks = dict.fromkeys([*named, "A01F0067", "S00F0131"], "noncore")
    talks |= {"A01F0055": "core", "S01F0151": "core"}
    for number, (talk, part) in enumerate(talks.items()):
        sdb = root / "MORPH/SDB" / part / f"{talk}.sdb"
        sdb.parent.mkdir(parents=True, exist_ok=True)
        sides = "LR" if talk.startswith("D") else "L"
        text = "えー はい そうです"
        half = len(say(text, "ja", number)) / RATE / 2
        lines = [_csj_lines(talk, side, half) for side in sides]
        sdb.write_text("".join(lines), encoding="shift_jis")
        for side in sides:
            name = f"{talk}-{side}" if len(sides) > 1 else talk
            write_audio(root / "WAV" / part / f"{name}.wav", number, text, "ja")
    return root


def _csj_lines(talk, side, seconds):
    """Return the lines of one side: two utterances, the first with a filler."""
    lines = ""
    for number, words in enumerate((["(F えー)", "はい"], ["そう", "です"])):
        span = f"{number * seconds:09.3f}-{(number + 1) * seconds - 0.001:09.3f}"
        time = f"{number + 1:04d} {span} {side}:-001-001"
        for word in words:
            columns = [""] * 17
            columns[:4] = talk, f"{number + 1:08d}{side}", talk, time
            columns[5], columns[9], columns[10], columns[11] = word, word, f"{word}<H>", "感動詞"
            lines += "\t".join(columns) + "\n"
    return lines


def ls_giga_spgi(root):
    """Write the three corpora, each in a folder of its own name."""
    parts = "train-clean-100 train-clean-360 dev-clean dev-other test-clean test-other".split()
    librispeech(root / "LIBRISPEECH", parts)
    gigaspeech(root / "GIGASPEECH")
    spgispeech(root / "SPGISPEECH")
    return root


def mlma(root):
    """Write the corpora of six languages, each below a folder of its variable's name."""
    codes = "nl fr de it pl es".split()
    mls(root / "MLS", "dutch french german italian polish spanish".split())
    commonvoice(root / "COMMONVOICE", codes)
    voxpopuli(root / "VOXPOPULI", codes)
    return root
