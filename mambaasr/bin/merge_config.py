"""Lay small yaml blocks over a base training config."""

import argparse
import contextlib
import io
import re
import shlex
import tempfile
from pathlib import Path

import yaml

from mambaasr.bin import run_main
from mambaasr.errors import UserError
from mambaasr.files import atomic_write


def get_parser():
    parser = argparse.ArgumentParser(
        prog="python -m mambaasr.bin.merge_config", description=__doc__
    )
    parser.add_argument("--base", required=True, help="e.g. conf/train_asr.yaml")
    parser.add_argument(
        "--task", choices=["asr", "lm"], default="asr", help="whose config it is (%(default)s)"
    )
    parser.add_argument(
        "--block",
        nargs="*",
        action="extend",
        default=[],
        help="e.g. conf/encoder/mamba.yaml: its top-level keys replace the base's",
    )
    parser.add_argument(
        "--drop",
        nargs="*",
        metavar="PATTERN",
        help="write keys and the options of --check by flat names (encoder_conf.num_blocks), "
        "without those that fit a pattern such as 'optim*'",
    )
    parser.add_argument(
        "--keep", nargs="*", default=[], metavar="KEY", help="flat names that --drop leaves"
    )
    parser.add_argument(
        "--drop_unless_0",
        nargs="*",
        default=[],
        metavar="KEY",
        help="flat names of numbers that --drop leaves out unless they are 0",
    )
    parser.add_argument(
        "--check",
        metavar="OPTIONS",
        help="check every file, and the whole with these options of the training over it, against "
        "the classes they name",
    )
    parser.add_argument(
        "--build",
        action="store_true",
        help="--check builds our classes too, so that an impossible size is named",
    )
    parser.add_argument(
        "--check_decoding", metavar="OPTIONS", help="check these options of asr_inference too"
    )
    parser.add_argument("--decoding_config", metavar="YAML", help="and its config")
    parser.add_argument(
        "--decoding_lm",
        choices=["true", "false"],
        default="false",
        help="whether it uses a language model: then its weight must not be 0",
    )
    parser.add_argument(
        "--show",
        nargs="+",
        metavar="NAME",
        help="instead of the config print these, one a line, with --check's options over it: "
        "model (the class), model_file (what the best epochs are averaged into)",
    )
    parser.add_argument("--output", type=Path, help="default: print it")
    return parser


def main(argv=None):
    from mambaasr.config import drop, dump, flatten, merge
    from mambaasr.task.config import read

    args = get_parser().parse_args(argv)
    parts = [(path, read(path)) for path in (args.base, *args.block)]
    config = merge(parts[0][1], parts[1:])
    given = {}
    if args.check is not None:
        given = check(parts, config, shlex.split(args.check), args.task, args.build)
    if args.check_decoding is not None:
        check_decoding(args.decoding_config, args.check_decoding, args.decoding_lm == "true")
    if args.show is not None:
        print("\n".join(shown(name, config, given) for name in args.show))
        return 0
    if args.drop is not None:
        config = drop(flatten(config), args.drop, args.keep)
        options = drop(flatten_options(given), args.drop, args.keep)
        for key in args.drop_unless_0:
            if key in options:
                config[key] = yaml.safe_load(options.pop(key)[-1].partition("=")[2])
            if config.get(key) != 0:
                config.pop(key, None)
        config |= {f"--{name}": options[name] for name in sorted(options)}
    if args.output is None:
        print(dump(config), end="")
    else:
        with atomic_write(args.output) as stream:
            stream.write(dump(config))
    return 0


def check(parts, config, options, task="asr", build=False):
    """Check configs as a training would, without importing ESPnet's tasks.

    Args:
        parts: list of ``(path, dict)``; checked first, so that a mistake is named with its own
            file and line. A part that gives a class's options without the class is left to the
            whole.
        config: the parts merged.
        options: words of the training's command line.
        task: "asr" or "lm".
        build: whether to try our classes with these options, which imports torch.

    Returns:
        dict: option -> list of values, as ``options`` give them.
    """
    from mambaasr.config import dump
    from mambaasr.task import building
    from mambaasr.task.config import check_command

    # Statistics ask for the least: what stage 11 adds, such as a stats_file, is not there yet.
    command = ["--collect_stats", "true", "--config"]
    for path, part in parts:
        named = {key.removesuffix("_conf") for key in part if key.endswith("_conf")}
        if not any(slot in config and slot not in part for slot in named):
            check_command([*command, path], task, whole=False)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "config.yaml")
        with atomic_write(whole) as stream:
            stream.write(dump(dict(config)))
        try:
            given = check_command([*command, str(whole), *options], task)
        except UserError as error:
            names = " + ".join(path for path, _ in parts)
            raise UserError(
                re.sub(f"{re.escape(str(whole))}(: line \\d+)?", names, str(error))
            ) from None
    given = {
        name: values for name, values in given.items() if name not in ("collect_stats", "config")
    }
    if build:
        building.check(parts, config, given, task)
    return given


def shown(name, config, given):
    """Return what ``--show NAME`` prints of a config with a command line's options over it."""
    from mambaasr.task.config import overlay
    from mambaasr.task.criteria import model_file

    if name == "model_file":
        return model_file(overlay(given, config))
    if name == "model":
        return str((given.get("model") or [config.get("model") or "espnet"])[-1])
    raise UserError(f"--show {name}: there are model and model_file")


def flatten_options(given):
    """Return ``{"frontend_conf": ["n_mels=80"]}`` as ``{"frontend_conf.n_mels": ["n_mels=80"]}``.

    The values stay words, and those of one name stay in their order.
    """
    flat = {}
    for name, values in given.items():
        for value in values:
            key = re.match(r"\w+(?=[.=])", value) if name.endswith("_conf") else None
            flat.setdefault(f"{name}.{key[0]}" if key else name, []).append(value)
    return flat


def check_decoding(config, options, lm=False):
    """Check the options of ``asr_inference`` and its config, importing nothing heavy.

    Args:
        config: yaml file, or an empty text.
        options: words of its command line, as one text.
        lm: whether there is a language model, which a weight of 0 would leave unused.
    """
    from mambaasr.bin.asr_inference import _parse

    # What the driver gives itself.
    needed = "--data_path_and_name_and_type=- --asr_model_file=- --output_dir=-".split()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            args = _parse(
                [*needed, *(["--config", config] if config else []), *shlex.split(options)]
            )
    except SystemExit:
        message = said.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"decoding: {message or f'{options}: no decoding'}") from None
    if lm and args.lm_weight == 0:
        raise UserError(
            f"{config or 'decoding'}: lm_weight is 0, so the language model would not be used: "
            "give --inference_args '--lm_weight 0.3', or --use_lm false"
        )


if __name__ == "__main__":
    run_main(main)
