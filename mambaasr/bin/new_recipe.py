"""Make a recipe for a corpus of your own: copy the skeleton in egs/TEMPLATE/asr1."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr new_recipe",
        description=__doc__ + " Never overwrites. docs/your_corpus.md says how to go on.",
    )
    parser.add_argument("name", metavar="NAME", help="of the corpus; the recipe is NAME/asr1")
    parser.add_argument(
        "--egs",
        type=Path,
        metavar="DIR",
        help="folder of recipes, made if needed; default: egs of the clone where this is called "
        "in it, else the current folder. Outside it gets a link TEMPLATE into the clone",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.recipe.new import new_recipe

    recipe = new_recipe(args.name, args.egs)
    shown = os.path.relpath(recipe)
    print(
        f"{recipe}\n\n"
        f"    cd {shlex.quote(str(recipe) if shown.startswith('..') else shown)}\n"
        "    CORPUS=/folder ./run.sh --stop_stage 5     # look at data/ before you train\n"
        "    CORPUS=/folder ./run.sh\n\n"
        "README.md there says what to adapt."
    )
    return 0


if __name__ == "__main__":
    run_main(main)
