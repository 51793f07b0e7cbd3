"""Decode a set with a trained model, under the names of ESPnet's options."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambaasr.bin import run_main
from mambaasr.decode.inputs import read_keys, read_languages, read_wavs
from mambaasr.errors import UserError

# What Speech2Text takes; the rest of the options is ours.
SEARCH = (
    "beam_size",
    "ctc_weight",
    "lm_weight",
    "penalty",
    "maxlenratio",
    "minlenratio",
    "nbest",
    "normalize_length",
    "ctc_window_margin",
    "token_type",
    "bpemodel",
    "dtype",
)


def get_parser():
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m mambaasr.bin.asr_inference",
        description=__doc__
        + " Writes text, token, token_int, 1best_recog/, failed.tsv and decode.json. "
        "A run that was killed goes on where it was.",
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
    add("--utt2lang", metavar="FILE", help="for a model that is told the language")
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
    add("--penalty", type=float, default=0.0, help="reward of each token")
    add(
        "--maxlenratio",
        type=float,
        default=0.0,
        help="longest output to frames; 0: as long as the frames; below 0: that many tokens",
    )
    add("--minlenratio", type=float, default=0.0, help="shortest output to frames")
    add("--nbest", type=int, default=1, help="hypotheses to write")
    add("--normalize_length", type=_boolean, default=False, help="divide scores by the length")
    add(
        "--ctc_window_margin",
        type=int,
        default=0,
        help="frames around its alignment that a CTC prefix score looks at; 0: all, exactly",
    )
    add("--token_type", choices=["char", "bpe", "word"], help="None: as trained")
    add("--bpemodel", metavar="MODEL", help="None: as trained")
    add("--batch_size", type=int, default=1, help="only 1: --nj decodes in parallel")
    add(
        "--dtype",
        default="float32",
        choices=["float32", "float64"],
        help="of the weights",
    )
    add("--seed", type=int, default=0, help="for models that draw numbers")
    add(
        "--log_level",
        type=str.upper,
        default="INFO",
        choices=["DEBUG", "INFO", "WARNING"],
        help="how much to tell",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = _parse(argv)
    logging.basicConfig(
        level=args.log_level, format="%(asctime)s %(levelname)s: %(message)s", stream=sys.stderr
    )
    for name in ("nj", "beam_size", "nbest", "chunk_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if args.batch_size != 1:
        raise UserError("--batch_size: only 1 is supported; --nj decodes in parallel")
    if args.nbest > args.beam_size:
        raise UserError(f"--nbest {args.nbest} needs a --beam_size of at least {args.nbest}")

    from mambaasr.decode.asr import Model, decode_set
    from mambaasr.task.config import read
    from mambaasr.task.criteria import has_decoder

    wavs = read_wavs(args.data_path_and_name_and_type)
    keys = read_keys(args.key_file) if args.key_file else list(wavs)
    config = args.asr_train_config or Path(args.asr_model_file).with_name("config.yaml")
    paths = (config, args.asr_model_file, args.lm_train_config, args.lm_file)
    trained = read(config)
    if not has_decoder(trained) and args.ctc_weight != 1.0:
        logging.info(f"the model has no decoder: ctc_weight is 1.0, not {args.ctc_weight}")
        args.ctc_weight = 1.0
    given = read_languages(args.utt2lang, keys, trained, config)
    model = Model(
        *(str(Path(path).absolute()) if path else None for path in paths),
        options=tuple(sorted((name, _absolute(name, getattr(args, name))) for name in SEARCH)),
        ngpu=args.ngpu,
        seed=args.seed,
    )
    summary = decode_set(
        model, wavs, keys, args.output_dir, args.nj, args.cluster, args.chunk_size, given
    )
    print(
        f"{args.output_dir}: {summary['utterances']} utterances, {summary['failed']} failed, "
        f"{summary['audio_seconds']:.0f} s of audio, RTF {summary['rtf']:.3f}"
    )
    return 0


def _parse(argv):
    """Parse the command line over the config's values."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    config = first.parse_known_args(argv)[0].config
    parser = get_parser()
    if config and not {"-h", "--help"} & set(argv):
        _set_defaults(parser, config)
    return parser.parse_args(argv)


def _set_defaults(parser, path):
    from mambaasr.task.config import read

    known = {action.dest: action for action in parser._actions if action.dest != "help"}
    for name, value in read(path).items():
        if name not in known or name == "config":
            raise UserError(
                f"{path}: there is no option `{name}`; known: {', '.join(sorted(known))}"
            )
        if value is None:
            continue
        action = known[name]
        try:
            values = [(action.type or str)(str(v)) for v in _listed(value)]
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise UserError(f"{path}: {name}: {value!r} is no such value: {error}") from error
        if action.choices and not set(values) <= set(action.choices):
            raise UserError(f"{path}: {name}: {value!r} is not in {', '.join(action.choices)}")
        action.default = values if isinstance(action, argparse._AppendAction) else values[0]
        action.required = False


def _listed(value):
    return value if isinstance(value, list) else [value]


def _boolean(text):
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return values[text.lower()]


def _absolute(name: str, value: Any) -> Any:
    return str(Path(value).absolute()) if name == "bpemodel" and value else value


if __name__ == "__main__":
    run_main(main)
