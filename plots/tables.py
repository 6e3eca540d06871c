"""A table, written as CSV, Markdown and LaTeX, and printed."""

import csv
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

LATEX = {c: "\\" + c for c in "%&_#${}"} | {"–": "--", "±": r"$\pm$", "|": r"$|$", "~": r"\textasciitilde{}"}
LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": "$<$", ">": "$>$"}


def console() -> Console:
    """As wide as the terminal, or wide enough where there is none"""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def tracked(items: Iterable, text: str) -> Iterator:
    """The items, with a progress bar once they take longer than a second"""
    items, began = list(items), time.monotonic()
    with Progress(console=console(), transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(text, total=len(items), visible=False)
        for item in items:
            yield item
            bar.update(task, advance=1, visible=time.monotonic() - began > 1)


def number(x: float, digits: int = 1) -> str:
    """A return or a percentage for a reader: 1234, 123.4; – where there is none"""
    return "–" if math.isnan(x) else f"{x:.0f}" if abs(x) >= 1000 else f"{x:.{digits}f}"


def with_interval(x: float, low: float, high: float, digits: int = 1) -> str:
    ends = "" if math.isnan(low) else f" ({number(low, digits)}, {number(high, digits)})"
    return number(x, digits) + ends


def plus_minus(mean: float, std: float) -> str:
    return f"{number(mean)} ± {number(std)}"


def show(title: str, head: list[str], rows: list[list[str]]) -> None:
    table = Table(*head, box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console().print(Text(title, "italic"), table, sep="\n")


def write_csv(file: Path, records: list[dict]) -> None:
    with open(file, "w", newline="") as out:
        writer = csv.DictWriter(out, records[0])
        writer.writeheader()
        writer.writerows(records)


def markdown(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(head) - 1))
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


def write(
    stem: Path, records: list[dict], tables: list[tuple], foot: str = "", notes: Iterable[str] = ()
) -> list[Path]:
    """Writes STEM.csv of the records (at least one), and STEM.md and STEM.tex of the tables (title, head, rows) with a
    line below them and notes, in LaTeX as comments; prints the tables; returns the files."""
    for table in tables:
        show(*table)
    files = [stem.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_csv(files[0], records)
    below = [foot + "\n"] if foot else []
    lines = ["".join(f"{mark} {note}\n" for note in dict.fromkeys(notes)) for mark in ("-", "%")]
    files[1].write_text("\n".join([*(markdown(*table) for table in tables), *below, *filter(None, lines[:1])]))
    files[2].write_text(
        "\n".join([*(latex(*table) for table in tables), *map(escape, below), *filter(None, lines[1:])])
    )
    return files
