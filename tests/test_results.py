"""What stands in results/: each folder's tables come out again, and REPRODUCTION.md has its numbers."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from common import ROOT, rows_of

from pmoe.algorithms import ALGORITHMS, load
from pmoe.files import exports

RESULTS = ROOT / "results"
EXPORTS = sorted(RESULTS.glob("*/evaluations.csv"))
FOLDERS = [pytest.param(file.parent, id=file.parent.name) for file in EXPORTS]
PAGE = (ROOT / "REPRODUCTION.md").read_text()
INTERVAL = r"-?[0-9.]+ \(-?[0-9.]+, -?[0-9.]+\)"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_s_tables_come_out_again(pmoe_here, tmp_path, folder):
    result = pmoe_here("plot", folder, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    drawn = {file.name for file in (tmp_path / "again").iterdir() if file.suffix != ".pdf"}
    assert {"curves.png", "auc.md", "auc.tex", "auc.csv", "auc_runs.csv"} <= drawn
    for name in drawn:
        again, kept = tmp_path / "again" / name, folder / name
        if again.suffix in (".md", ".tex"):
            assert again.read_text() == kept.read_text()
        elif again.suffix == ".csv":
            assert_alike(rows_of(again), rows_of(kept))


def test_the_table_of_claims_comes_out_again(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/claims.py", "--out", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    written = tmp_path / "claims.md"
    kept = RESULTS / "claims/claims.md"
    assert written.read_text() == kept.read_text()


def assert_alike(rows: list[dict], others: list[dict]) -> None:
    """Texts are the same, and numbers to six digits."""
    assert len(rows) == len(others)
    for row, other in zip(rows, others):
        assert list(row) == list(other)
        for cell, other_cell in zip(row.values(), other.values()):
            if cell != other_cell:
                assert float(cell) == pytest.approx(float(other_cell), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_small_and_names_no_machine(folder):
    for file in folder.iterdir():
        assert file.stat().st_size < 600_000
        assert file.suffix in (".toml", ".csv", ".md", ".tex", ".png")
    for record in exports.read(folder / "evaluations.csv"):
        assert not record.path.is_absolute()
        assert record.config["versions"]
        if record.config["algo"] in ALGORITHMS:
            assert record.config["commit"] or is_named(folder / "grid.toml", record.config)


def is_named(grid: Path, config: dict) -> bool:
    """Whether the grid's comment names the commit that an installed copy's run does not know: the file there,
    if this copy of the repository has the history, is the run's"""
    (commit,) = re.findall(r"commit ([0-9a-f]{7})\b", grid.read_text())
    file = f"{commit}:{Path(load(config['algo']).__file__).name}"
    found = subprocess.run(["git", "show", file], cwd=ROOT, capture_output=True, check=False)
    return found.returncode != 0 or hashlib.sha256(found.stdout).hexdigest()[:10] == config["source"]


# REPRODUCTION.md


def rows() -> list[list[str]]:
    """Of its tables: claim, command, steps and seeds, what came out, verdict, files"""
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 6 and cells[0] != "claim":
            found.append(cells)
    return found


def test_the_page_has_rows_and_names_each_folder():
    assert len(rows()) == PAGE.count("\n| ") - PAGE.count("\n| claim")
    for folder in RESULTS.iterdir():
        assert f"results/{folder.name}" in PAGE


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[3][:40])
def test_a_row_s_numbers_stand_in_its_files(row):
    """Those with an interval; the verdict is one of three."""
    *_, what, verdict, files = row
    assert verdict.startswith(("agrees", "contradicts", "cannot tell"))
    targets = [ROOT / target for target in re.findall(r"\]\((.+?)\)", files)]
    assert targets
    text = "".join(target.read_text() for target in targets)
    for interval in re.findall(INTERVAL, what):
        assert interval in text
