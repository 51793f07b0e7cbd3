"""Every table of every recipe, and a table run from nothing to its figures."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from recipes import environment, small_recipe

from mambaasr.tables.page import table_page
from mambaasr.tables.read import read_table
from mambaasr.tables.run import plan

ROOT = Path(__file__).resolve().parents[2]
TABLES = sorted(ROOT.glob("egs/*/*/tables/*.yaml"))
# Papers whose tables the recipes must hold.
PAPERS = "2409.18654 2501.02832 2407.09732 2405.12609 2411.06968 2406.16808 2510.18684".split()

TABLE = """title: Two systems
source: made up for this test
columns: [test WER, test CER, RTF]
rows:
  - key: broken
    options: {min_wav_duration: 30}
  - key: good
    label: A tiny ConMamba
    options: {}
    seeds: [3]
    published: {test WER: 50, test CER: unknown, RTF: unknown}
"""


def named(path):
    return f"{path.parents[2].name}-{path.stem}"


@pytest.mark.parametrize("path", TABLES, ids=named)
def test_it_reads_and_prints(path):
    table = read_table(path)
    text = table_page(table, ["../../TEMPLATE/asr1/table.sh", f"tables/{path.name}"])
    assert text.startswith(f"# {table.content['title']}\n")
    assert len({row.label for row in table.rows}) == len(table.rows)
    # A figure has a source, or it would not have been read; each source is printed.
    for row in table.rows:
        for figure in row.published.values():
            assert figure.value is None or (figure.source in text and figure.text in text)


@pytest.mark.parametrize("path", TABLES, ids=named)
def test_every_row_is_a_system_that_the_classes_take(path):
    table = read_table(path)
    words = dict(plan(table))
    assert len(words) == sum(len(row.runs) for row in table.rows)


def test_every_paper_with_known_figures_has_a_table():
    papers = {str((read_table(path).content.get("paper") or {}).get("arxiv")) for path in TABLES}
    assert set(PAPERS) <= papers


@pytest.fixture
def recipe(tmp_path, test_data):
    folder = small_recipe(test_data, tmp_path)
    (folder / "tables").mkdir()
    (folder / "tables/x.yaml").write_text(TABLE)
    return folder


def call(recipe, *words, cwd=None):
    cwd = cwd or recipe
    paths = (recipe.parents[1] / "TEMPLATE/asr1/table.sh", recipe / "tables/x.yaml")
    line = [*(os.path.relpath(path, cwd) for path in paths), *words]
    return subprocess.run(line, cwd=cwd, env=environment(), capture_output=True, text=True)


@pytest.mark.slow
def test_a_table_from_nothing_to_its_figures(recipe):
    planned = call(recipe, "--rows", "good", "--dry_run", "true")
    assert planned.returncode == 0 and "would run: it was not done yet" in planned.stdout
    assert "tables/x.yaml --rows good`" in planned.stdout  # to be run, not to be planned

    done = call(recipe)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "--min_wav_duration 30 is above --max_wav_duration" in done.stderr
    assert done.stderr.endswith("error: 1 failed: broken;\n")
    page = done.stdout.partition("# Two systems\n")[2]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells[3:6]] == [
        ["A tiny ConMamba", "published"],
        ["", "measured"],
        ["", "difference"],
    ]
    measured = cells[4]
    assert float(measured[2]) == pytest.approx(0.02, abs=0.01)
    assert float(measured[3]) > 0 and float(measured[4]) > 0 and float(measured[5]) > 0
    assert re.fullmatch(r"[\d.]+ min \(CPU [\d.]+ min\)", measured[6]) and measured[7] == "3"
    assert float(cells[5][3]) == pytest.approx(float(measured[3]) - 50, abs=0.01)
    assert "- broken: not run: `../../TEMPLATE/asr1/table.sh tables/x.yaml --rows broken`" in (
        done.stdout
    )

    # From whatever folder, it is the table's recipe that runs.
    again = call(recipe, "--rows", "good", cwd=recipe.parents[1])
    assert again.returncode == 0, again.stdout + again.stderr
    steps = re.findall(r"^\S+ stage \d+: [^:]*: (.*)$", again.stdout, re.MULTILINE)
    assert set(steps) == {"done already"}
    assert "Not run" not in again.stdout
