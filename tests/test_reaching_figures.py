"""`pmoe plot --trajectories --exploration` together, from a grid too, and where one of them fails."""

import json

import pytest
from common import MODULES, failed, files_below, rows_of
from common_figures import PICTURE, TABLE, files_of, names_of, stdout_of
from common_reaching import DRAWN, FIXED

from pmoe.grid.read import read_grid
from pmoe.plots import learning
from pmoe.plots.runs import PlotError

GRID = """
[plot]
trajectories = true
exploration = true

[[method]]
algo = ["sac", "gating-sac"]
"""
SHARED = {"env": FIXED, "total_timesteps": 150, "eval_every": 150, "eval_episodes": 2, "k": 2}
SHARED |= {"random_steps": 150, "compile": "off"}


def test_a_grid_that_says_so_is_plotted(pmoe_here, tmp_path):
    shared = {**SHARED, "run_dir": str(tmp_path / "runs")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in shared.items()]
    file = tmp_path / "reach.toml"
    file.write_text("\n".join(lines) + GRID)
    for job in read_grid(file).jobs:
        MODULES[job.algo].train(job.args)
    stdout_of(pmoe_here("plot", file, "--episodes", "2"))
    names = files_of("curves", PICTURE)
    for figure in ("trajectories", "exploration"):
        names |= files_of(figure, TABLE)
        names |= files_of(f"{figure}-TargetReaching-v0-fixed_layout2", PICTURE)
    folder = tmp_path / "figures"
    assert names_of(folder.iterdir()) == names
    rows = rows_of(folder / "trajectories.csv")
    assert {row["episodes"] for row in rows} == {"2"}


def test_an_analysis_that_fails_beside_one_that_works_is_a_note(pmoe_here, plain, tmp_path):
    before = files_below(plain)
    out = stdout_of(pmoe_here("plot", plain / DRAWN, "--trajectories", "--exploration", "--episodes", "1"))
    assert "--exploration has nothing to show" in out
    stems = {file.name.partition(".")[0] for file in (tmp_path / "figures").iterdir()}
    assert stems == {"curves", "trajectories", "trajectories-TargetReaching-v0"}
    assert files_below(plain) == before


def test_where_all_analyses_fail_nothing_is_written(pmoe_here, plain, tmp_path):
    result = pmoe_here("plot", plain / "Pendulum-v1", "--trajectories", "--exploration")
    failed(result, "TargetReaching-v0")
    assert not list(tmp_path.iterdir())


def test_where_all_analyses_fail_tables_are_written(pmoe_here, plain, tmp_path):
    out = stdout_of(pmoe_here("plot", plain / "Pendulum-v1", "--trajectories", "--auc"))
    assert "trajectories and exploration are of TargetReaching-v0" in out
    assert (tmp_path / "figures/curves.png").exists()


def failing(word):
    """An analysis that fails with a word"""

    def analysis(runs, out):
        raise PlotError(word)

    return analysis


def test_analyses_that_fail_are_told_in_one_line(plain, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(PlotError, match="^one; two$"):
        learning.report([plain], out, analyses=[failing("one"), failing("two")])
    assert not out.exists()


def test_an_analysis_that_works_is_kept(plain, tmp_path):
    file = tmp_path / "x"
    analyses = [failing("one"), lambda runs, out: ([file], [])]
    files = learning.report([plain], tmp_path / "out", analyses=analyses)
    assert files[0] == file
    assert tmp_path / "out/curves.png" in files
