"""Tables in Markdown and LaTeX, and numbers in them"""

import re

import numpy as np
import pytest

from pmoe.plots import tables


@pytest.mark.parametrize(
    "text, expected",
    [
        ("% of SAC & a_b #1", r"\% of SAC \& a\_b \#1"),
        ("  printed", r"\quad printed"),
        ("– ±", r"-- $\pm$"),
    ],
)
def test_latex(text, expected):
    assert tables.escape(text) == expected


@pytest.mark.parametrize("character", "\\{}$^~%&_#")
def test_latex_of_any_tag_can_be_set(character):
    """Without what is escaped, no special character is left."""
    table = tables.latex("t", ["method"], [[f"a{character}b"]])
    text = table.splitlines()[4].removesuffix(r" \\")
    words = r"\\(textbackslash|textasciicircum|textasciitilde)(\{\}| |\b)"
    rest = re.sub(rf"\\[{{}}$%&_#]|{words}|\\[\^~]\{{\}}", "", text)
    assert rest in ("ab", "a b")
    assert text != f"a{character}b"


def test_markdown_of_any_tag_has_its_columns():
    table = tables.markdown("t", ["method", "n"], [["a|b", "3"]])
    row = table.splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


@pytest.mark.parametrize(
    "x, text",
    [
        (0.044, "0.04"),
        (-0.001, "0.00"),
        (-3.256, "-3.26"),
        (10, "10.0"),
        (999.4, "999.4"),
        (1234.5, "1234"),
        (-12345, "-12345"),
        (np.nan, "–"),
    ],
)
def test_numbers(x, text):
    assert tables.number(x) == text


@pytest.mark.parametrize("x, text", [(1.2, "1.200"), (-0.0001, "0.000"), (1234.5, "1234")])
def test_numbers_of_so_many_places(x, text):
    """But for a thousand and more, which has none"""
    assert tables.number(x, 3) == text


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((1.356, 1.341, 1.374), "1.36 (1.34, 1.37)"),
        ((9.8, -2, 21.6), "9.8 (-2.0, 21.6)"),
        ((880.3, 760.25, 1001), "880 (760, 1001)"),
        ((0.5, np.nan, np.nan), "0.50"),
    ],
)
def test_an_interval_has_the_places_of_its_largest_number(numbers, text):
    assert tables.with_interval(*numbers) == text


def test_a_table_with_a_foot_and_notes(tmp_path, capsys):
    table = ("Title", ["method", "n"], [["a_b", "3"]])
    files = tables.write(
        tmp_path / "new/auc", [{"method": "a_b", "n": 3}], [table, table], "Foot_", ["x", "y", "x"]
    )
    assert [file.name for file in files] == ["auc.csv", "auc.md", "auc.tex"]
    as_csv, as_markdown, as_latex = (file.read_text() for file in files)
    assert as_csv == "method,n\na_b,3\n"
    part = "Title\n\n| method | n |\n| --- | ---: |\n| a_b | 3 |\n"
    assert as_markdown == f"{part}\n{part}\nFoot\\_\n\n- x\n- y\n"
    assert as_latex.count(r"a\_b & 3 \\") == 2
    assert as_latex.endswith("Foot\\_\n\n% x\n% y\n")
    assert capsys.readouterr().out.count("Title") == 2
