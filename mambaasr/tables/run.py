"""Run what is missing of a table, row by row, with the run.sh of its recipe."""

import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from mambaasr.errors import UserError
from mambaasr.recipe.configs import load_configs
from mambaasr.recipe.options import option_words
from mambaasr.recipe.process import exit_status, exits_on_sigterm
from mambaasr.tables.table import Table


class Call(NamedTuple):
    """A call of run.sh: for people the row, its seed and its decoding; and the command."""

    name: str
    command: list[str]


def plan(table: Table) -> list[Call]:
    """Return a call for every run of a table's rows.

    The configs of every row are checked first: a mistake in the last one is named before the
    first one has taken its hours. Where no column wants more than a training, nothing is decoded.

    Raises:
        UserError: a row's blocks or options are wrong.
    """
    calls, decodes = [], any(column.decodes for column in table.columns)
    for row in table.rows:
        for run in row.runs:
            try:
                load_configs(run.values, build=True, decodes=decodes)
            except UserError as error:
                raise UserError(f"{table.content.path}: row `{row.key}`: {error}") from None
            details = [f"seed {run.seed}"] if run.seed is not None else []
            details += [run.decoding] if run.decoding else []
            name = row.key + (f" ({', '.join(details)})" if details else "")
            command = [f"{table.recipe}/run.sh", *option_words(run.options)]
            if not decodes and "stop_stage" not in run.options:
                command += ["--stop_stage", "11"]
            calls.append(Call(name, command))
    return calls


def run_calls(calls: Iterable[Call], keep_going: bool = True) -> list[str]:
    """Run calls one after another; what is done is skipped by run.sh itself.

    When this process is stopped, it ends the call first.

    Args:
        calls: of :func:`plan`.
        keep_going: whether a call that fails does not stop the others.

    Returns:
        The names of those that failed.
    """
    failed = []
    for name, command in calls:
        print(f"\n======== {name}", flush=True)
        with exits_on_sigterm():
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            try:
                status = exit_status(process.wait())
            finally:
                process.terminate()  # nothing where it has ended
                process.wait()
        if status:
            failed.append(name)
            print(f"======== {name}: failed with exit status {status}", flush=True)
            if not keep_going:
                break
    return failed
