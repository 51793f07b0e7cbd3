"""Run a recipe: options, checks, and the chosen stages one after the other."""

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mambaasr.errors import TRY_AGAIN, UserError
from mambaasr.recipe import checks
from mambaasr.recipe import options as table
from mambaasr.recipe.configs import load_configs
from mambaasr.recipe.names import Names, make_names
from mambaasr.recipe.options import Options
from mambaasr.recipe.process import print_line
from mambaasr.recipe.stages import STAGES, Recipe
from mambaasr.recipe.task import Task, run, would_run

LM_STAGES = range(6, 9)
TRAININGS = {7, 11}
_NO_LM = "\n== Stages 6 to 8: no language model (--use_lm false)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe in the current folder.

    Args:
        argv: folder of ``asr.sh``, and the options of ``run.sh``.

    Returns:
        The exit status: 0, or that of the task that failed.

    Raises:
        UserError: an option, a config or a file is wrong.
    """
    argv = sys.argv[1:] if argv is None else argv
    template, words = _seen_from_here(argv[0]), argv[1:]
    given, help_wanted = table.parse(words)
    if help_wanted:
        print_line(table.help_text(given).rstrip())
        return 0
    if given.print_options:
        print_line(json.dumps(given, indent=1, ensure_ascii=False))
        return 0
    o = table.check(given, template)
    chosen = list(chosen_stages(o))
    decodes = bool({12, 13} & set(chosen))
    asr, lm = load_configs(o, False, decodes)
    names, recipe = make_names(o, asr.model_file), Recipe(template, asr, lm)
    # Whether the classes can be built takes seconds: asked where a training follows.
    if _any_would_run({6, 7, 10, 11}, o, names, recipe, chosen):
        checks.apart(load_configs, o, True, decodes)
    if o.dry_run:
        return _dry_run(o, names, recipe, chosen)
    # The machine of the stages before may have no GPU.
    trains = o.ngpu != "0" and _any_would_run(TRAININGS, o, names, recipe, chosen)
    on_gpu = o.gpu_inference and _any_would_run({12}, o, names, recipe, chosen)
    checks.check_devices(o, trains, on_gpu)
    try:
        return _run(o, names, recipe, chosen)
    except KeyboardInterrupt:
        print_line("stopped; the same command skips what is done and resumes what was begun")
        raise


def _seen_from_here(folder: str) -> Path:
    """Return a relative path: bash gives an absolute one, and repositories move."""
    relative = Path(os.path.relpath(folder))
    return relative if relative.is_dir() else Path(folder)


def chosen_stages(o: Options) -> Iterator[int]:
    """Yield the numbers of the stages that options choose, in their order."""
    skipped = {int(word) for word in o.skip_stages.split()}
    for number in STAGES:
        skip = o.skip_data_prep if number <= 5 else o.skip_train if number <= 11 else o.skip_eval
        wanted = int(o.stage) <= number <= int(o.stop_stage) and number not in skipped
        used = o.use_lm if number in LM_STAGES else o.use_ngram or number != 9
        if wanted and not skip and used:
            yield number


def tasks(number: int, o: Options, names: Names, recipe: Recipe) -> Iterator[Task]:
    """Yield the tasks of a stage, with its number; print its title and what it has to say."""
    title, function = STAGES[number]
    print_line(f"\n== Stage {number}: {title}")
    for item in function(o, names, recipe):
        if isinstance(item, Task):
            item.stage = item.stage or number
            yield item
        else:
            print_line(item)


def _any_would_run(
    numbers: set[int], o: Options, names: Names, recipe: Recipe, chosen: list[int]
) -> bool:
    """Whether one of the tasks of some stages would run."""
    for number in sorted(numbers & set(chosen)):
        for item in STAGES[number][1](o, names, recipe):
            if isinstance(item, Task) and (
                o.force or would_run(replace(item, stage=item.stage or number))
            ):
                return True
    return False


def _check_data(o: Options, names: Names, recipe: Recipe, chosen: list[int]) -> None:
    """Refuse data that a later set's stage would refuse; say where a warm-up is too long.

    Raises:
        UserError: names every set that has a problem.
    """
    if not _any_would_run({2, 3}, o, names, recipe, chosen):
        return
    train = names.data(o.train_set)
    folders = [names.data(name) for name in (o.train_set, names.valid, *names.tests)]
    sets = checks.apart(checks.look_at_sets, list(dict.fromkeys(folders)), train, names.data_scp)
    if sets.problems:
        raise UserError("\n".join(sets.problems))
    for note in sets.notes:
        print_line(f"warning: {note}")
    if 11 in chosen:
        checks.check_enough({path: sets.counts[path] for path in folders[:2]}, o)
    if 11 in chosen and (problem := checks.warm_up_problem(recipe.asr.whole, sets, o)):
        print_line(f"warning: {problem}")


def _run(o: Options, names: Names, recipe: Recipe, chosen: list[int]) -> int:
    begun = time.monotonic()
    times: list[tuple[int, str, float]] = []
    no_lm = not (o.use_lm or o.skip_train) and int(o.stage) < 9 and int(o.stop_stage) > 5
    again = 0
    for number in chosen:
        title, since = STAGES[number][0], time.monotonic()
        if number > 1 and not (times and times[-1][0] > 1):  # stage 1 may have made it
            _check_data(o, names, recipe, chosen)
        if no_lm and number > 8:
            print_line(_NO_LM)
            no_lm = False
        for task in tasks(number, o, names, recipe):
            status = run(task, o.resume_changed, o.force, f"{o.expdir}/timings.tsv")
            if status == TRY_AGAIN:  # the stage's other tasks need not wait for that
                again = status
            elif status:
                return status
        if again:
            return again
        times.append((number, title, time.monotonic() - since))
    if no_lm:
        print_line(_NO_LM)
    print_line(f"\nStage  {'':22} {'time':>8}")
    for number, title, seconds in times:
        print_line(f"{number:5}  {title:22} {seconds:6.0f} s")
    print_line(f"all      {time.monotonic() - begun:.0f} s (each command: {o.expdir}/timings.tsv)")
    for what, name in (("model", ""), ("log", "train.log"), ("curves", "images")):
        path = f"{names.asr_exp}/{name}" if name else names.asr_model
        if os.path.exists(path):
            print_line(f"{what:9}{path}")
        if what == "model" and os.path.exists(path) and o.feats_type == "raw":
            print_line(f"use it   mambaasr transcribe RECORDING --model {names.asr_exp}")
    results = Path(f"{names.asr_exp}/RESULTS.md")
    if results.is_file():
        print_line(f"results  {results}")
        if 13 in chosen:  # last, as it is what the run was for
            tables = results.read_text(encoding="utf-8").partition("\n## Origin")[0]
            print_line(f"\n{tables.strip()}")
    return 0


def _dry_run(o: Options, names: Names, recipe: Recipe, chosen: list[int]) -> int:
    changing: list[str] = []
    for number in chosen:
        for task in tasks(number, o, names, recipe):
            why = would_run(task, changing)
            if why:
                changing += task.outputs
            print_line(f"{task.title}: {'would run: ' + '; '.join(why) if why else 'done already'}")
            print_line(f"    {shlex.join(task.command)}")
    print_line("\nOn disk")
    for folder in (o.datadir, o.dumpdir, o.expdir):
        print_line(f"{folder:9}{_gigabytes(_size(Path(folder)))}")
    print_line(f"{'free':9}{_gigabytes(shutil.disk_usage('.').free)}")
    return 0


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # another run may have removed it
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
