"""Small trees with the layouts of corpora, full of noise."""

import itertools

import numpy as np
import soundfile


def write_audio(path, seconds=0.3, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds))
    soundfile.write(path, noise, 16000)


def librispeech(root, parts, utterances=2, numbers=None):
    """Write ``PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac`` and the chapter's transcripts.

    Each part has a speaker, 19 and following ones or those of ``numbers``.
    """
    for number, part in zip(numbers or itertools.count(19), parts, strict=False):
        chapter = root / part / str(number) / "198"
        chapter.mkdir(parents=True)
        names = [f"{number}-198-{index:04d}" for index in range(utterances)]
        for seed, name in enumerate(names):
            write_audio(chapter / f"{name}.flac", seed=seed)
        lines = [f"{name} SO IT BEGAN AGAIN\n" for name in names]
        (chapter / f"{number}-198.trans.txt").write_text("".join(lines))
    return root


def aishell(root):
    """Write ``data_aishell/{wav/PART/SPEAKER,transcript}``."""
    lines = []
    for number, part in ((2, "train"), (724, "dev"), (764, "test")):
        for index in (122, 123):
            name = f"BAC009S{number:04d}W{index:04d}"
            write_audio(root / f"data_aishell/wav/{part}/S{number:04d}/{name}.wav")
            lines.append(f"{name} 而 对 楼市 成交\n")
    transcripts = root / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    transcripts.parent.mkdir(parents=True)
    transcripts.write_text("".join(lines), encoding="utf-8")
    return root


def tedlium(root):
    """Write ``legacy/PART/{sph,stm}``."""
    for part in ("train", "dev", "test"):
        talk = root / "legacy" / part / "sph" / f"Speaker_{part}.sph"
        talk.parent.mkdir(parents=True)
        soundfile.write(talk, np.zeros(48000), 16000, format="NIST", subtype="PCM_16")
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
            write_audio(root / "spgispeech" / part / call / f"{number}.wav", seed=number)
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
                write_audio(home / "clips" / name, seed=clip)
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
                write_audio(home / split / f"audio/10/20/{name}.flac")
            lines = [f"{name}\tals es anfing\n" for name in names]
            (home / split / "transcripts.txt").write_text("".join(lines))
        (home / "metainfo.txt").write_text(" SPEAKER | GENDER | PARTITION\n 10 | F | train\n")
    return root
