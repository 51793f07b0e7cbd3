"""Tables for the screen and for Markdown, and how figures are written."""

from dataclasses import dataclass, field


@dataclass
class Table:
    """A table of strings.

    Attributes:
        title: one line.
        headers: names of the columns; the first column is aligned left, the others right.
        rows: lists of strings.
        notes: sentences below it.
    """

    title: str
    headers: list
    rows: list
    notes: list = field(default_factory=list)

    def text(self):
        """Return it for a screen."""
        lines = [self.headers, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headers))]
        written = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        written.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.title, *(f"  {line}" for line in [*written, *self.notes])])

    def markdown(self):
        """Return it for a page."""
        rule = ["---", *["---:"] * (len(self.headers) - 1)]
        lines = [f"| {' | '.join(line)} |" for line in [self.headers, rule, *self.rows]]
        return "\n".join([f"**{self.title}**", "", *lines, *(f"\n{note}" for note in self.notes)])


def duration(seconds):
    """Write a time with three digits."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"


def memory(size):
    """Write bytes, or a dash for None."""
    if size is None:
        return "-"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def times(ratio, target=None, at_most=False):
    """Write a ratio, with its target and whether it is met."""
    digits = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
    if target is None:
        return f"{digits} x"
    met = ratio <= target if at_most else ratio >= target
    return f"{digits} x ({'at most' if at_most else 'target'} {target:g}: {'yes' if met else 'no'})"
