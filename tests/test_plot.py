"""`pmoe plot PATH...` as a whole: from runs to files, what it says, what it refuses"""

import os
import time
from itertools import pairwise

import numpy as np
import pytest
from common import ALGORITHMS, refused, train
from matplotlib import image
from runs_on_disk import HEADER, edit, make, put, records_of, remove, seeds, words_of

from pmoe.plots import auc, learning

FILES = ["curves.png", "curves.pdf", "auc.csv", "auc.md", "auc.tex", "auc_runs.csv"]


# What is refused


@pytest.mark.parametrize(
    "damage, words",
    [
        (put("eval.csv", ""), "eval.csv is empty"),
        (put("eval.csv", f"{HEADER}250000,-1"), "eval.csv has no rows yet"),
        (put("eval.csv", bytes(range(256))), "eval.csv"),
        (remove("config.json"), "no config.json"),
        (edit("eval.csv", "750000,", "400000,"), "after step 500000 comes an earlier one"),
    ],
    ids=["empty", "half a row", "binary", "no config.json", "steps go back"],
)
def test_nothing_is_left_to_plot(pmoe_here, tmp_path, damage, words):
    damage(make(tmp_path / "runs"))
    refused(pmoe_here("plot", "runs", "--auc"), "runs/Hopper-v4/sac-k4/seed1: ", "left out", words)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize(
    "command, words",
    [
        ("plot", ["folders of runs", "pmoe plot runs/"]),
        ("plot nothing", ["nothing: no such folder"]),
        ("plot ./nothing/at/all", ["error: nothing/at/all: no such folder"]),
        ("plot empty nothing", ["empty: no runs there", "nothing: no such folder"]),
        ("plot empty/file.txt", ["empty/file.txt: "]),
        ("plot runs --reference sca", ["--reference sca", "no run is of it", "PMOE-SAC K=4"]),
        ("plot runs --auc --reference ppo", ["--reference ppo", "there are: PMOE-SAC K=4"]),
        ("plot runs --center median", ["--center", "'mean'", "'iqm'"]),
        ("plot runs --metric loss", ["--metric", "'eval'", "'train'"]),
        ("plot runs --smooth 0", ["--smooth"]),
        ("plot runs --x epochs", ["--x", "'steps'", "'time'"]),
        ("plot runs --out empty/file.txt", ["--out"]),
        ("plot runs --acu", ["--acu"]),
    ],
)
def test_bad_options(pmoe_here, tmp_path, command, words):
    make(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/file.txt").write_text("nothing")
    refused(pmoe_here(*command.split()), *words)
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "empty"}


def test_many_unreadable_runs_are_still_one_line(pmoe_here, tmp_path):
    for path in seeds(tmp_path / "runs", "sac", range(9)):
        (path / "eval.csv").write_text("")
    refused(pmoe_here("plot", "runs"), "seed1: eval.csv is empty", "and 6 more")


# Runs that are still being written


def test_unfinished_runs(pmoe_here, tmp_path):
    make(tmp_path / "runs", seed=1)
    paths = [make(tmp_path / "runs", seed=seed, returns=[1, 2, 3], done=False) for seed in (2, 3, 7)]
    before = time.time() - 7200
    for path in paths:
        edit("eval.csv", "1000000,3,0.5,10\n", "")(path)
        os.utime(path / "eval.csv", (before, before))
    with open(paths[0] / "eval.csv", "a") as file:
        file.write("750000,4")
    result = pmoe_here("plot", "runs", "--auc")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "unfinished: seed 2-3, 7 at 666,666 of 1,000,000 steps, written 0 s ago" in result.stdout
    name = paths[0].relative_to(tmp_path)
    assert f"{name}: eval.csv has a half-written last line, left out" in result.stdout
    assert "plotted up to step 666,666, which all its seeds have reached" in result.stdout
    row = "PMOE-SAC K=4 │ 1-3, 7 │ 666,666 to 1,000,000 │ 3 unfinished"
    assert row in words_of(result.stdout)


def test_a_run_that_has_just_begun_beside_one_that_has_rows(pmoe_here, tmp_path):
    make(tmp_path / "runs", seed=1, done=False)
    make(tmp_path / "runs", seed=2, returns=[], done=False)
    result = pmoe_here("plot", "runs", "--auc")
    assert result.returncode == 0
    assert "seed2: eval.csv has no rows yet; left out" in result.stdout


# From runs to figures


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Short runs on Pendulum: SAC and PMOE-SAC, two seeds each"""
    root = tmp_path_factory.mktemp("trained")
    for k in (1, 2):
        train("sac", root / "runs", k=k, num_seeds=2, total_timesteps=200, eval_every=50, eval_episodes=1)
    return root


def test_from_runs_to_figures(pmoe, pmoe_here, trained, tmp_path):
    """The second time in another process, with the same bytes"""
    command = ["plot", trained / "runs", "--auc", "--profile", "--show-seeds"]
    result = pmoe(*command)
    assert result.returncode == 0
    assert result.stderr == ""
    figures = tmp_path / "figures"
    assert {file.name for file in figures.iterdir()} == set(FILES)
    names = ", ".join(f"figures/{name}" for name in FILES)
    assert result.stdout.splitlines()[-1] == f"wrote {names}"

    printed = words_of(result.stdout)
    assert "4 runs" in printed
    assert "reading runs" not in printed
    for method in ("SAC", "PMOE-SAC K=2"):
        assert f"│ Pendulum-v1 │ {method} │ 1-2 │ 200 │ finished │" in printed
    assert "fewer than five seeds" in printed
    assert "Pendulum-v1, SAC (2)" in printed
    assert "the area of SAC is 0 or less, or next to nothing" in printed
    assert "no performance profile" in printed

    check_areas(figures / "auc.csv", sorted(trained.glob("runs/*/*")))
    check_figure(figures / "curves")
    again = pmoe_here(*command, "--out", "again/figures")
    assert again.returncode == 0
    for name in FILES:
        assert (tmp_path / "again/figures" / name).read_bytes() == (figures / name).read_bytes()


def check_areas(file, paths) -> None:
    """The table's numbers are those of the runs' own files, evaluated every 50 steps of 200."""
    for record, path in zip(records_of(file), paths, strict=True):
        curves = []
        for seed in path.iterdir():
            rows = records_of(seed / "eval.csv")
            curves.append([float(row["return_mean"]) for row in rows])
        x = np.array(curves)
        assert x.shape == (2, 4)
        assert (record["first"], record["last"]) == ("50", "200")
        heights = (x[:, 1:] + x[:, :-1]) / 2
        assert float(record["mean"]) == pytest.approx(heights.mean())
        assert float(record["final"]) == pytest.approx(x[:, -1].mean())


def check_figure(stem) -> None:
    """There is something to see, and the PDF holds its fonts and no time."""
    pixels = image.imread(stem.with_suffix(".png"))
    height, width, _ = pixels.shape
    assert height >= 500
    assert width >= 600
    assert pixels.std() > 0.05
    pdf = stem.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf


def test_training_returns_from_the_command_line(pmoe_here, tmp_path):
    first, _ = seeds(tmp_path / "runs", "sac", [1, 3], k=1)
    (first / "eval.csv").unlink()
    options = "--auc --metric train --center iqm --smooth 2 --out here"
    result = pmoe_here("plot", "runs", *options.split())
    assert result.returncode == 0
    assert "2 runs" in result.stdout
    (row,) = records_of(tmp_path / "here/auc.csv")
    assert row["center"] == "iqm"
    assert float(row["iqm"]) == pytest.approx(1002)
    assert "area under the training curve" in (tmp_path / "here/auc.md").read_text()


def test_help_of_plot(pmoe_here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = pmoe_here("plot", "--help").stdout
    options = [
        "auc",
        "profile",
        "reference",
        "metric",
        "center",
        "show-seeds",
        "smooth",
        "x",
        "estimators",
        "environment",
        "seed",
        "out",
    ]
    options += ["label", "printed", "routing", "primitives", "tsne", "episodes", "states", "only-primitives"]
    for option in options:
        assert f"--{option} " in text


# The report


def report(root, **options) -> list[str]:
    """The names of the files that are written"""
    files = learning.report([root / "runs"], root / "figures", **options)
    return [file.name for file in files]


def test_what_is_compared_is_found_out_once(tmp_path, monkeypatch):
    calls = []
    compare = auc.compare

    def counted(*args):
        calls.append(args)
        return compare(*args)

    monkeypatch.setattr(auc, "compare", counted)
    for k in (1, 4):
        seeds(tmp_path / "runs", "sac", [1, 2], k=k)
    names = report(tmp_path, areas=True, profiles=True)
    assert names == [*FILES, "table2.csv", "table2.md", "table2.tex", "profile.png", "profile.pdf"]
    assert len(calls) == 1


def test_the_default_reference_is_taken_where_it_has_runs(tmp_path, capsys):
    make(tmp_path / "runs", k=4)
    report(tmp_path, areas=True, default_reference="sac-k2")
    assert "--reference sac-k2: no run is of it" in capsys.readouterr().out
    assert records_of(tmp_path / "figures/auc.csv")[0]["reference"] == ""
    make(tmp_path / "runs", k=2)
    report(tmp_path, areas=True, default_reference="sac-k2")
    assert "no run is of it" not in capsys.readouterr().out
    assert records_of(tmp_path / "figures/auc.csv")[0]["reference"] == "PMOE-SAC K=2"


def test_what_an_earlier_call_wrote_is_named(tmp_path, capsys):
    make(tmp_path / "runs")
    report(tmp_path, areas=True)
    assert "of an earlier call" not in capsys.readouterr().out
    (tmp_path / "figures/mine.png").write_text("none of ours")
    report(tmp_path)
    text = words_of(capsys.readouterr().out)
    assert "figures has auc.csv, auc.md, auc.tex, auc_runs.csv of an earlier call" in text


def test_hundreds_of_runs_in_seconds(tmp_path):
    """Of processor time, which other processes do not lengthen"""
    generator = np.random.default_rng(0)
    methods = [("sac", k) for k in (1, 2, 4, 8, 16)]
    methods += [(algo, 4) for algo in list(ALGORITHMS)[2:7]]
    for env in ("Hopper-v4", "Ant-v4", "Walker2d-v4"):
        for algo, k in methods:
            for seed in range(1, 11):
                returns = generator.normal(100, 9, 100).cumsum()
                make(tmp_path / "runs", algo, returns, k=k, seed=seed, env_id=env)
    begun = time.process_time()
    names = report(tmp_path, areas=True, profiles=True)
    assert time.process_time() - begun < 30
    assert {name.partition(".")[0] for name in names} == {"curves", "auc", "auc_runs", "profile", "table2"}
    records = records_of(tmp_path / "figures/auc.csv")
    assert len(records) == 40
    assert {record["n"] for record in records} == {"10", "30"}
    for record, following in pairwise(records[:30]):
        assert record["environment"] <= following["environment"]
