"""What stands in results/: each folder's tables come out again, and REPRODUCTION.md names what is there."""

import re
from pathlib import Path

import pytest
from common import ROOT

from pmoe.files import exports

RESULTS = ROOT / "results"
FOLDERS = sorted(file.parent for file in RESULTS.glob("*/*.runs.csv"))


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_a_folder_s_tables_come_out_again(pmoe_here, tmp_path, folder):
    result = pmoe_here("plot", folder, "--out", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    drawn = {file.name: file for file in (tmp_path / "again").iterdir()}
    kept = [file for file in folder.iterdir() if file.name in drawn]
    assert {"curves.png", "auc.md", "auc.tex", "auc.csv", "auc_runs.csv"} <= {file.name for file in kept}
    for file in kept:
        if file.suffix in (".md", ".tex"):
            assert drawn[file.name].read_text() == file.read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_a_folder_is_small_and_names_no_machine(folder):
    for file in folder.iterdir():
        assert file.stat().st_size < 600_000
        assert file.suffix in (".toml", ".csv", ".md", ".tex", ".png")
    (export,) = folder.glob("*.runs.csv")
    for record in exports.read(export.with_name(export.name.replace(".runs.csv", ".csv"))):
        assert not record.path.is_absolute()
        assert record.config["commit"]
