"""A table as Markdown: published figures, what was measured, the difference, what is missing."""

import shlex
import statistics
from collections.abc import Sequence

from mambaasr import provenance
from mambaasr.score.score_files import markdown_table
from mambaasr.tables.measure import Measured, measure
from mambaasr.tables.table import LID, PARAMETERS, RATES, Column, Row, Table

_READING = (
    "Error rates in %; RTF: seconds of computing a second of audio, summed over the workers; "
    "training: epochs by the clock, and processor time with start-up and repeated attempts."
)


def table_page(table: Table, command: Sequence[str]) -> str:
    """Return a table as Markdown.

    Args:
        table: the table.
        command: how the user calls ``table.sh`` with this table, for what was not run.
    """
    measured = [(row, measure(table, row)) for row in table.rows]
    titles = [
        "parameters [M]" if each.metric == PARAMETERS else each.name for each in table.columns
    ]
    header = ["System", "", *titles, "training", "seeds", "commit"]
    cells = [line for row, found in measured for line in _lines(table.columns, row, found)]
    if not any(row.published for row in table.rows):  # then all lines are of one kind
        header, *cells = [[label, *others] for label, _, *others in [header, *cells]]
    sections = [f"# {table.content['title']}\n", _head(table), markdown_table(header, cells)]
    sections += [_reading(measured), _notes(table), _missing(measured, command)]
    return "\n".join(section for section in sections if section)


def _lines(columns: Sequence[Column], row: Row, found: Measured) -> list[list[str]]:
    """Return the lines of a row: label, kind of figures, a figure for each column, origin."""
    lines = []
    if row.published:
        published = [row.published[column.name].text for column in columns]
        lines.append(["published", *published, "", "", ""])
    if row.runs or not row.published:
        figures = [_mean(found, column) for column in columns]
        lines.append(["measured", *figures, _training(found), _seeds(row, found), _commits(found)])
    if row.published and found.values:
        differences = [_difference(row, found, column) for column in columns]
        lines.append(["difference", *differences, "", "", ""])
    return [["" if index else row.label, *line] for index, line in enumerate(lines)]


def _mean(found: Measured, column: Column) -> str:
    """Return mean ± standard deviation of a sample; of equal values their one value."""
    if not (values := found.values.get(column.name)):
        return "-"
    digits = 3 if column.metric == "RTF" else 2
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(set(values)) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def _difference(row: Row, found: Measured, column: Column) -> str:
    value, values = row.published[column.name].value, found.values.get(column.name)
    # Times of different machines have no difference that says something.
    if value is None or not values or column.metric not in (*RATES, LID, PARAMETERS):
        return "-"
    return f"{statistics.fmean(values) - value:+.2f}"


def _training(found: Measured) -> str:
    """Return the time of a training, by the clock and of the processor: means over the seeds."""
    if not found.hours:
        return "-"
    text = _duration(statistics.fmean(found.hours))
    if len(found.cpu_hours) == len(found.hours):
        text += f" (CPU {_duration(statistics.fmean(found.cpu_hours))})"
    return text


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 3 else f"{hours * 60:.1f} min"


def _seeds(row: Row, found: Measured) -> str:
    if row.seeds == [None]:
        return str(len(found.seeds))
    done = ", ".join(map(str, found.seeds)) or "none"
    return done if len(found.seeds) == len(row.seeds) else f"{done} of {len(row.seeds)}"


def _commits(found: Measured) -> str:
    """Return the commits behind a row's figures; those of the training first."""
    said = {what: ", ".join(commits) for what, commits in found.commits.items() if commits}
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "-")
    return "; ".join(f"{what} {commits}" for what, commits in said.items())


def _head(table: Table) -> str:
    content = table.content
    forms = {"arxiv": "arXiv {}", "title": "{}", "table": "table {}", "url": "{}", "note": "{}"}
    paper = content.get("paper") or {}
    said = [form.format(paper[key]) for key, form in forms.items() if paper.get(key)]
    lines = [f"Paper: {'; '.join(said)}." if said else "", str(content.get("note") or "").strip()]
    if table.scale:
        lines.append(f"Scale {table.scale}: {str(content['scale'][table.scale]['needs']).strip()}.")
    return "".join(f"{line}\n\n" for line in lines if line)[:-1]


def _reading(measured: Sequence[tuple[Row, Measured]]) -> str:
    """Say how the figures are to be read, where there are measured ones."""
    if not any(found.values for _, found in measured):
        return ""
    several = any(len(found.seeds) > 1 for _, found in measured)
    here = provenance.environment()
    return (
        f"{_READING}{' Of several seeds: mean ± standard deviation.' if several else ''} Printed "
        f"by `{provenance.command()}`, commit {provenance.git_commit() or 'unknown'}, "
        f"{provenance.now()}; torch {here['torch']}, ESPnet {here['espnet']}.\n"
    )


def _notes(table: Table) -> str:
    """Return the sources of the published figures, and the rows' notes."""
    sources: dict[str, list[str]] = {}
    for row in table.rows:
        known = {name: each.source for name, each in row.published.items() if each.source}
        for source in dict.fromkeys(known.values()):
            names = [name for name in known if known[name] == source]
            of = f", {' and '.join(names)}" if len(names) < len(known) else ""
            sources.setdefault(source, []).append(row.label + of)
    several = len(sources) > 1
    lines = [
        f"- Published figures: {source}{f' ({"; ".join(rows)})' if several else ''}\n"
        for source, rows in sources.items()
    ]
    lines += [f"- {row.label}: {row.note.strip()}\n" for row in table.rows if row.note]
    return "".join(lines)


def _missing(measured: Sequence[tuple[Row, Measured]], command: Sequence[str]) -> str:
    """List the rows that are not all there, each with the command that would run it."""
    lines = []
    for row, found in measured:
        if not row.runs and not row.published:
            lines.append(f"- {row.label}: the table does not say how to make it.\n")
        elif found.missing:
            call = shlex.join([*command, "--rows", row.key])
            lines.append(f"- {row.label}: {'; '.join(found.missing)}: `{call}`\n")
    return "## Not run\n\n" + "".join(lines) if lines else ""
