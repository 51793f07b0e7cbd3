"""What to write for an option that ``run.sh`` does not have."""

import difflib
from collections.abc import Collection, Iterable

from mambaasr.config.schema import schema
from mambaasr.decode.options import SEARCH

_NO_K2 = "there is no k2 decoder; --inference_args has the beam search's options"
_NO_UPLOAD = "packing and uploading are not built yet"
_FIXED = "its name is fixed, as models and decoders agree on it"
# Options of ESPnet2's asr.sh -> what serves instead, or why there is none.
ABSENT = {
    "feats_extract": "choose it with frontend: in the training's yaml",
    "num_nodes": "one machine trains: --ngpu N",
    "g2p": 'texts are trained on as they are: --asr_args "--g2p NAME"',
    "cleaner": "texts are trained on as they are; clean them in local/data.sh",
    "download_model": "decode with a trained model of yours: --asr_exp DIR",
    **dict.fromkeys(
        ("use_word_lm", "word_vocab_size"), "the language model has the tokens of the recognizer"
    ),
    "use_streaming": "streaming is not built yet",
    **dict.fromkeys(("skip_packing", "skip_upload", "skip_upload_hf", "hf_repo"), _NO_UPLOAD),
    "num_splits_lm": "the training reads texts of any size as they are",
    "eval_valid_set": 'name it among the test sets: --test_sets "dev test"',
    "python": "the environment's is used: see tools/setup_env.sh",
    "debug": "every stage prints its command, which you can run yourself: --dry_run true",
    "post_process_local_data_opts": "local/data.sh does it: --local_data_opts",
    "gpu_id": "CUDA_VISIBLE_DEVICES=N ./run.sh ...",
    **dict.fromkeys(("oov", "blank", "sos_eos"), _FIXED),
    "bpe_train_text": "BPE learns from the training set's transcripts: --train_set",
    **dict.fromkeys(
        ("use_k2", "k2_ctc_decoding", "k2_config", "num_paths", "nll_batch_size"), _NO_K2
    ),
    "use_nbest_rescoring": "the language model scores within the search: --use_lm true",
    "batch_size": "the training's is in its yaml, or --asr_args \"--batch_size N\"; the decoding's "
    'is found by itself, or --inference_args "--batch_size N"',
    "score_opts": "sclite is not needed; mambaasr score has what there is",
    "local_score_opts": "there is no local/score.sh; mambaasr score scores what you like",
    **dict.fromkeys(
        ("asr_speech_fold_length", "asr_text_fold_length", "lm_fold_length"),
        "80000 samples (of --feats_type extracted 800 frames) and 150 tokens, for batch_type: "
        "folded; batch_type: numel needs none",
    ),
}


def advise(name: str, value: str, known: Collection[str]) -> str:
    """Say what was probably meant by an option that is not there.

    Args:
        name: the option, without dashes.
        value: its value as it was given, or a placeholder.
        known: the options that are there.

    Returns:
        A text to stand behind "unknown option --name".
    """
    if name in ABSENT:
        return f": {ABSENT[name]}"
    words = [f"--{each}" for each in known]
    if near := near_words(f"--{name}", words, 0.8):
        return near
    places = ["--inference_args"] if name in SEARCH else []
    places += ["--asr_args"] if name in schema("asr")["options"] else []
    lines = [f'{place} "--{name} {value}"' for place in places]
    for slot, choice in schema("asr")["slots"].items():
        if any(name in made for made in choice["classes"].values()):
            lines.append(f'--asr_args "--{slot}_conf {name}={value}"')
    if lines:
        return f": write {' or '.join(lines)}"
    return near_words(f"--{name}", words)


def near_words(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    """Return " (did you mean ...?)", or nothing where no word looks like it."""
    near = difflib.get_close_matches(word, list(words), cutoff=cutoff)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
