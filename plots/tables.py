"""A table, written as CSV, Markdown and LaTeX, and printed."""

import csv
import math
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

LATEX = {"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "–": "--", "±": r"$\pm$"}


def console() -> Console:
    """As wide as the terminal, or 120 columns where there is none"""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)


def number(x: float, digits: int = 1) -> str:
    """A return or a percentage for a reader: 1234, 123.4; – where there is none"""
    return "–" if math.isnan(x) else f"{x:.0f}" if abs(x) >= 1000 else f"{x:.{digits}f}"


def with_interval(x: float, low: float, high: float, digits: int = 1) -> str:
    ends = "" if math.isnan(low) else f" ({number(low, digits)}, {number(high, digits)})"
    return number(x, digits) + ends


def show(title: str, head: list[str], rows: list[list[str]]) -> None:
    table = Table(*head, title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console().print(table)


def write_csv(file: Path, records: list[dict]) -> None:
    with open(file, "w", newline="") as out:
        writer = csv.DictWriter(out, records[0])
        writer.writeheader()
        writer.writerows(records)


def markdown(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join([title, "", *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def latex(title: str, head: list[str], rows: list[list[str]]) -> str:
    """A table environment; needs the package booktabs."""
    first, *lines = (" & ".join(map(escape, line)) + r" \\" for line in (head, *rows))
    columns = "l" + "r" * (len(head) - 1)
    top = rf"\begin{{table}} \centering \caption{{{escape(title)}}} \begin{{tabular}}{{{columns}}}"
    return "\n".join([top, r"\toprule", first, r"\midrule", *lines, r"\bottomrule", r"\end{tabular} \end{table}", ""])


def escape(text: str) -> str:
    indent = r"\quad " if text.startswith("  ") else ""
    return indent + "".join(LATEX.get(c, c) for c in text.lstrip())


def write(stem: Path, records: list[dict], tables: list[tuple[str, list[str], list[list[str]]]]) -> list[Path]:
    """Writes STEM.csv of the records, STEM.md and STEM.tex of the tables (title, head, rows), and prints these."""
    for table in tables:
        show(*table)
    write_csv(stem.with_suffix(".csv"), records)
    stem.with_suffix(".md").write_text("\n".join(markdown(*table) for table in tables))
    stem.with_suffix(".tex").write_text("\n".join(latex(*table) for table in tables))
    return [stem.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]
