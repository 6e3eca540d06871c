"""What the tests of figures share: numbers and names, a run by its method, and forks."""

from pathlib import Path

import numpy as np
from common import SHORT, SOURCES

from pmoe import algorithms
from pmoe.plots.runs import Run, find

PICTURE = ("png", "pdf")
TABLE = ("csv", "md", "tex")


def close(x, y, tolerance: float = 1e-6) -> None:
    """Asserts that two arrays are the same, but for rounding."""
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def column(rows: list[dict], name: str) -> np.ndarray:
    """The numbers in a column"""
    return np.array([row[name] for row in rows], float)


def words(rows: list[dict], *names: str) -> list[tuple]:
    """The texts in some columns"""
    return [tuple(row[name] for name in names) for row in rows]


def names_of(files) -> set[str]:
    return {file.name for file in files}


def files_of(stem: str, suffixes: tuple[str, ...]) -> set[str]:
    """As in TABLE or PICTURE"""
    return {f"{stem}.{suffix}" for suffix in suffixes}


def run_of(root: Path, method: str) -> Run:
    """The first run of a method below a folder"""
    runs, _ = find([root])
    return next(run for run in runs if run.method == method)


def stdout_of(result) -> str:
    """Of a command that worked"""
    assert result.returncode == 0, result.stderr
    return result.stdout


def make_fork(file: Path, changes: dict[str, str]) -> Path:
    """Writes a fork of pmoe_sac.py, with these changes."""
    text = SOURCES["sac"]
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    return file


def train_fork(file: Path, run_dir: Path, **fields) -> Run:
    """A quick run of a fork of pmoe_sac.py"""
    module = algorithms.load(file)
    fields = {**SHORT["sac"], "run_dir": str(run_dir), **fields}
    (path,) = module.train(module.Args(**fields))
    runs, _ = find([path])
    return runs[0]
