"""A new recipe: a copy of the skeleton beside the template."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from mambaasr.errors import UserError

_REPOSITORY = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def new_recipe(name: str, egs: Path | None = None, repository: Path = _REPOSITORY) -> Path:
    """Copy the skeleton of a recipe to ``<egs>/<name>/asr1``.

    A recipe calls ``../../TEMPLATE/asr1/asr.sh``. Outside the clone, ``TEMPLATE`` beside the
    recipes is a link into it, made here with the first recipe; all that a recipe names by this
    path (driver, tables, blocks) works there as in the clone.

    Args:
        name: of the corpus: a folder name of letters, digits and ``_.-``.
        egs: folder of recipes; None is the clone's own where it is called there, else the current
            folder.
        repository: the clone of mambaasr.

    Returns:
        The recipe's folder.

    Raises:
        UserError: the name is unfit, the recipe is there already, ``TEMPLATE`` is something else,
            the package lies in no clone, or nothing can be written.
    """
    if not _NAME.fullmatch(name) or name == "TEMPLATE":
        raise UserError(
            f"'{name}' is no name for a recipe: use letters, digits and _ . - (the folder of the "
            "recipes is --egs)"
        )
    template = repository / "egs/TEMPLATE"
    skeleton = template / "asr1/skeleton"
    if not skeleton.is_dir():
        raise UserError(
            f"{skeleton}: no such folder: recipes need a clone of the repository, installed with "
            "`make env` or `pip install -e`"
        )
    if egs is None:
        inside = Path.cwd().is_relative_to(repository.resolve())
        egs = template.parent if inside else Path.cwd()
    egs = Path(os.path.abspath(egs.expanduser()))
    recipe = egs / name / "asr1"
    if os.path.lexists(recipe):
        raise UserError(f"{recipe}: is there already; nothing was changed")
    link = egs / "TEMPLATE"
    if os.path.lexists(link) and not (link / "asr1/asr.sh").is_file():
        raise UserError(
            f"{link}: is there and holds no asr1/asr.sh; if it is a link to a clone that was "
            f"moved: ln -sfn '{template}' '{link}'"
        )
    try:
        recipe.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(template, target_is_directory=True)
        _copy(skeleton, recipe)
    except OSError as error:
        raise UserError(f"{recipe}: cannot be written: {error.strerror or error}") from error
    return recipe


def _copy(skeleton: Path, recipe: Path) -> None:
    """Copy a folder so that it appears whole or not at all; its scripts can be executed."""
    with tempfile.TemporaryDirectory(prefix=".new_recipe.", dir=recipe.parent) as work:
        new = Path(work, recipe.name)
        shutil.copytree(skeleton, new, ignore=shutil.ignore_patterns("__pycache__"))
        for path in new.rglob("*"):
            # An archive or a file system without modes may have lost them.
            path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
        new.rename(recipe)
