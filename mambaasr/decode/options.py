"""Options of a decoding (asr_inference), and their check before anything heavy is imported."""

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from mambaasr.config import read
from mambaasr.config.check import check_options, describe_option
from mambaasr.errors import UserError

# What Speech2Text takes; the rest of the options is ours.
SEARCH = (
    "beam_size",
    "ctc_weight",
    "lm_weight",
    "ngram_weight",
    "penalty",
    "maxlenratio",
    "minlenratio",
    "nbest",
    "normalize_length",
    "ctc_window_margin",
    "token_type",
    "bpemodel",
    "dtype",
    "quantize_asr_model",
    "quantize_lm",
)
# Those of mambaasr/search/ways.py, which imports torch.
SEARCHES = ("joint", "attention", "ctc_greedy", "ctc_prefix", "rescore")


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr asr_inference",
        description="Decode a set with a trained model, under the names of ESPnet's options. "
        "Writes text, token, token_int, ctm, token_ctm, 1best_recog/, failed.tsv, no_speech.tsv, "
        "decode.json. Resumable.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    triple = "WAV_SCP,speech,sound"
    add("--config", metavar="YAML", help="options of this command; the command line goes over it")
    add(
        "--data_path_and_name_and_type",
        action="append",
        required=True,
        metavar=triple,
        help="list of the audio",
    )
    add("--key_file", metavar="FILE", help="decode the ids in its first column; None: all")
    add("--asr_model_file", required=True, metavar="PTH", help="e.g. valid.acc.ave.pth")
    add("--asr_train_config", metavar="YAML", help="None: config.yaml beside the model")
    add("--utt2lang", metavar="FILE", help="for a model that is given the language")
    add(
        "--prompt",
        default="",
        metavar="WORDS",
        help="what every text began with in training, such as '<|{lang}|> <|transcribe|>', {lang} "
        "from --utt2lang: read by the model, neither recognised nor written",
    )
    add("--lm_file", metavar="PTH", help="language model")
    add("--lm_train_config", metavar="YAML", help="of the language model")
    add("--output_dir", required=True, metavar="DIR", help="where to write")
    add("--nj", type=int, default=1, help="number of worker processes")
    add("--ngpu", type=int, default=0, help="0 decodes on the CPU; else workers share the GPUs")
    add("--cluster", metavar="YAML", help="decode on a Dask cluster; see mambaasr/parallel.py")
    add("--chunk_size", type=int, help="utterances in a piece of work; None: by the set's size")
    add("--beam_size", type=int, default=20, help="hypotheses kept at each step")
    add("--ctc_weight", type=float, default=0.5, help="always 1.0 for a model without a decoder")
    add("--lm_weight", type=float, default=1.0, help="of the language model")
    add("--ngram_file", metavar="ARPA", help="n-gram model of the recogniser's tokens")
    add(
        "--ngram_weight",
        type=float,
        default=0.9,
        help="of the n-gram model; ESPnet's scores are logarithms of base 10: its 0.9 is 0.39 here",
    )
    add("--phrases", metavar="FILE", help="phrases to prefer, one a line")
    add("--phrase_weight", type=float, default=1.0, help="added for each token of a whole phrase")
    add("--penalty", type=float, default=0.0, help="reward of each token")
    add(
        "--maxlenratio",
        type=float,
        default=0.0,
        help="longest output to frames; 0: as long as the frames; below 0: that many tokens",
    )
    add("--minlenratio", type=float, default=0.0, help="shortest output to frames")
    add("--nbest", type=int, default=1, help="hypotheses to write")
    add("--normalize_length", type=str2bool, default=False, help="divide scores by the length")
    add(
        "--ctc_window_margin",
        type=int,
        default=0,
        help="with --espnet_search: frames around its alignment that a CTC prefix score looks at; "
        "0: all, exactly",
    )
    add("--token_type", choices=["char", "bpe", "word"], help="None: as trained")
    add("--bpemodel", metavar="MODEL", help="None: as trained")
    add(
        "--batch_size",
        type=batch_size,
        default="auto",
        metavar="N",
        help="utterances decoded together in each process, changes no transcript; auto: by length",
    )
    add(
        "--search",
        default="joint",
        choices=SEARCHES,
        help="joint: decoder, CTC and language models token by token; attention: without CTC; "
        "ctc_greedy: CTC's best path; ctc_prefix: CTC and language models frame by frame; rescore: "
        "what that finds, put in order by the decoder",
    )
    add(
        "--espnet_search",
        type=str2bool,
        default=False,
        help="decode by ESPnet's own search, one utterance after the other",
    )
    add(
        "--dtype",
        default="float32",
        choices=["float32", "float64"],
        help="of the weights",
    )
    for name, what in (("asr_model", "model"), ("lm", "language model")):
        add(
            f"--quantize_{name}",
            type=str2bool,
            default=False,
            help=f"int8 for the linear layers of the {what}, by torch's dynamic quantisation; CPU",
        )
    add("--seed", type=int, default=0, help="for models that draw numbers")
    add(
        "--log_level",
        type=str.upper,
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING"],
        help="level of the log",
    )
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line over the values of the config that it names.

    Raises:
        UserError: the config has an unknown option or an impossible value.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    path = first.parse_known_args(argv)[0].config
    parser = get_parser()
    if path and not {"-h", "--help"} & set(argv):
        config = read(path)
        actions = [each for each in parser._actions if each.dest not in ("help", "config")]
        check_options(config, {each.dest: describe_option(each) for each in actions})
        for action in actions:
            value = config.get(action.dest)
            if value is not None:
                several = isinstance(action, argparse._AppendAction)
                listed = value if isinstance(value, list) else [value]
                # Its type is argparse's work.
                action.default = listed if several else str(value)
                action.required = False
    return parser.parse_args(argv)


def check_decoding(
    path: str | Path | None, words: Sequence[str], lm: bool = False, ngram: bool = False
) -> None:
    """Check the options of a decoding and its config.

    Args:
        path: yaml file, or None.
        words: of the command line, over the config.
        lm, ngram: whether there is such a model, which a weight of 0 would leave unused.

    Raises:
        UserError: names the file or the option, and what is allowed.
    """
    # What the driver gives itself.
    needed = "--data_path_and_name_and_type=- --asr_model_file=- --output_dir=-".split()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            args = parse([*needed, *(["--config", str(path)] if path else []), *words])
    except SystemExit:
        message = said.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"decoding: {message or f'{words}: no decoding'}") from None
    for name, there, what in (("lm", lm, "language"), ("ngram", ngram, "n-gram")):
        if there and getattr(args, f"{name}_weight") == 0:
            raise UserError(
                f"{path or 'decoding'}: {name}_weight is 0, so the {what} model would not be used: "
                f"give --inference_args '--{name}_weight 0.3', or --use_{name} false"
            )
    check_search(args)


def check_search(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other, and files that the search would leave unread.

    Numbers that the chosen way has no use for are allowed: a config may serve several ways.

    Raises:
        UserError: names them.
    """
    for name in ("nj", "beam_size", "nbest", "chunk_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if args.nbest > args.beam_size:
        raise UserError(f"--nbest {args.nbest} needs a --beam_size of at least {args.nbest}")
    if not 0 <= args.ctc_weight <= 1:
        raise UserError(f"--ctc_weight {args.ctc_weight}: it lies from 0 to 1")
    if -1 < args.maxlenratio < 0:
        raise UserError(
            f"--maxlenratio {args.maxlenratio}: below 0 it is a number of tokens: -1, -2, ..."
        )
    if args.espnet_search:
        if args.search != "joint":
            raise UserError(f"--espnet_search true: it has no --search {args.search}")
        if args.batch_size not in ("auto", 1):
            raise UserError("--espnet_search true: it takes one utterance at a time, no batches")
    elif args.ctc_window_margin:
        raise UserError("--ctc_window_margin: our search is exact; give --espnet_search true too")
    if args.search == "ctc_greedy":
        used = [name for name in ("lm_file", "ngram_file", "phrases") if getattr(args, name)]
        used += ["nbest"] if args.nbest > 1 else []
        if used:
            raise UserError(f"--search ctc_greedy: there is no use for --{used[0]}")


def batch_size(text: str) -> int | str:
    """Return a number of utterances, or "auto"."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 nor auto")
    return int(text)


def str2bool(text: str) -> bool:
    """Return the value of a switch."""
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return values[text.lower()]
