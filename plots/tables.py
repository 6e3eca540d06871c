"""A table, written as CSV, Markdown and LaTeX, and printed."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from ..files import visible
from ..terminal import console
from .stats import bootstrap, mean

LATEX = {c: "\\" + c for c in "%&_#${}"}
LATEX |= {c: f"{{{c}}}" for c in "[]*"}  # which \\\\ at the end of the row above would take for its own
LATEX |= {"–": "--", "±": r"$\pm$", "|": r"$|$", "<": "$<$", ">": "$>$"}
LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


def places(*numbers: float) -> int:
    """Decimal places that show a reader at least three digits of the largest"""
    largest = max(abs(x) for x in numbers)
    if largest >= 1000:
        return 0
    return 1 if largest >= 10 else 2


def number(x: float, digits: int | None = None) -> str:
    """A return, a percentage or a share for a reader: 1234, 123.4, 1.23; – where there is none"""
    if math.isnan(x):
        return "–"
    if digits is None or abs(x) >= 1000:
        digits = places(x)
    # Adding 0 makes 0 of -0.
    return f"{round(x, digits) + 0.0:.{digits}f}"


def with_interval(x: float, low: float, high: float, digits: int | None = None) -> str:
    """As in 12.3 (10.1, 14.5), to the same decimal place; without the interval where there is none"""
    if math.isnan(low):
        return number(x, digits)
    if digits is None:
        digits = places(x, low, high)
    text = number(x, digits)
    return f"{text} ({number(low, digits)}, {number(high, digits)})"


def mean_cell(
    values: Sequence[float], digits: int | None = None, least: float = -np.inf, most: float = np.inf
) -> str:
    """The mean of those that are known, with its interval between `least` and `most`"""
    known = np.array([x for x in values if not np.isnan(x)] or [np.nan])
    low, high = bootstrap([known], lambda x: mean(x[0])).clip(least, most)
    return with_interval(known.mean(), low, high, digits)


def plus_minus(mean: float, std: float) -> str:
    """As in 1250 ± 50.0 and 3387 ± 2.0; two places where the mean has them"""
    most = 2 if abs(mean) < 10 else 1
    return f"{number(mean)} ± {number(std, min(most, places(std)))}"


def show(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Prints a table."""
    table = Table(*head, box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console().print(Text(title, "italic"), table, sep="\n")


def write_csv(file: Path, records: list[dict]) -> None:
    """Writes records, at least one; a column that one of them lacks is empty there."""
    columns = {}
    for record in records:
        columns |= record
    # The name of a folder may be no UTF-8.
    with open(file, "w", newline="", encoding="utf-8", errors="backslashreplace") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        writer.writerows(records)


def markdown(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [in_markdown(title), "", markdown_row(head)]
    rule = ["---"] + ["---:"] * (len(head) - 1)
    lines.append(markdown_row(rule))
    for row in rows:
        lines.append(markdown_row(row))
    return "\n".join(lines) + "\n"


def markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(map(in_markdown, cells))} |"


def in_markdown(text: str) -> str:
    """Text as Markdown shows it: no formula, no HTML, no emphasis; a `_` within a word is none"""
    text = re.sub(r"[\\`*<>\[\]|$~&]", r"\\\g<0>", visible(text))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", text)


def latex(title: str, head: list[str], rows: list[list[str]]) -> str:
    """A table environment; needs the package booktabs."""
    columns = "l" + "r" * (len(head) - 1)
    caption = rf"\caption{{{escape(title)}}}"
    lines = [rf"\begin{{table}} \centering {caption} \begin{{tabular}}{{{columns}}}"]
    lines += [r"\toprule", latex_row(head), r"\midrule"]
    lines += [latex_row(row) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular} \end{table}", ""]
    return "\n".join(lines)


def latex_row(cells: list[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


def escape(text: str) -> str:
    """Text as LaTeX sets it, an indent of two spaces as \\quad"""
    indent = r"\quad " if text.startswith("  ") else ""
    letters = [LATEX.get(letter, letter) for letter in visible(text).lstrip()]
    return indent + "".join(letters)


def write(
    stem: Path, records: list[dict], tables: list[tuple], foot: str = "", notes: Iterable[str] = ()
) -> list[Path]:
    """Writes STEM.csv of the records (at least one), and STEM.md and STEM.tex of the tables (title, head,
    rows) with a line below them and notes, in LaTeX as comments; prints the tables; returns the files."""
    csv_file = stem.with_suffix(".csv")
    markdown_file = stem.with_suffix(".md")
    latex_file = stem.with_suffix(".tex")
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_csv(csv_file, records)

    as_markdown = [markdown(*table) for table in tables]
    as_latex = [latex(*table) for table in tables]
    if foot:
        as_markdown.append(f"{in_markdown(foot)}\n")
        as_latex.append(f"{escape(foot)}\n")
    different = list(dict.fromkeys(map(visible, notes)))
    if different:
        as_markdown.append("".join(f"- {in_markdown(note)}\n" for note in different))
        as_latex.append("".join(f"% {note}\n" for note in different))
    markdown_file.write_text("\n".join(as_markdown), encoding="utf-8", errors="backslashreplace")
    latex_file.write_text("\n".join(as_latex), encoding="utf-8", errors="backslashreplace")

    for table in tables:
        show(*table)
    return [csv_file, markdown_file, latex_file]
