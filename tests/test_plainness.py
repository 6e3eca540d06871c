"""Every file can be read: how much stands on a line, how long lines and the algorithm files are."""

import runpy
from types import SimpleNamespace

import pytest
from common import ROOT

plainness = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks/plainness.py")))
FILES = plainness.project_files()
ALGORITHMS = plainness.algorithm_files()


def name(file) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=name)
def test_a_line_holds_little(file):
    assert plainness.measure(file)["a line"] <= 1.5


@pytest.mark.parametrize("file", ALGORITHMS, ids=name)
def test_an_algorithm_is_plain(file):
    figures = plainness.measure(file)
    assert figures["a line"] < 1.5
    assert figures["longest"] <= 110
    for what in ("walrus", "tuple", "and/if", "nested if", "nested for"):
        assert figures[what] == 0, what


@pytest.mark.parametrize("file", ALGORITHMS, ids=name)
def test_an_algorithm_is_short(file):
    """What a reader reads, and what need not be read: layers of many seeds, environments, runs on disk."""
    method, machinery = plainness.parts(file)
    assert 0 < method <= 395
    assert 0 < machinery <= 1280


def test_what_is_counted(tmp_path):
    file = tmp_path / "example.py"
    lines = [
        "# a comment",
        "x = f(1) + g[2]",
        "",
        "f(), g()",
        "x and f()",
        "f() if x else g()",
        "y = 1 if x else 2 if z else 3",
        "if (n := [[a for a in b] for b in c]):",
        "    pass",
    ]
    file.write_text("\n".join(lines))
    assert plainness.measure(file) == {
        "lines": 9,
        "code": 7,
        "a line": 11 / 7,
        "over 110": 0,
        "longest": 38,
        "walrus": 1,
        "tuple": 1,
        "and/if": 2,
        "nested if": 1,
        "nested for": 1,
    }
