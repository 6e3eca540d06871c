"""`pmoe plot PATH...`: what it reads, groups, refuses, draws and tabulates, of run directories written here by hand."""

import csv
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from common import ALGORITHMS, MODULES, refused, train
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import figure as mpl_figure
from matplotlib import image, pyplot
from matplotlib.collections import PolyCollection

from pmoe import pmoe_sac
from pmoe.plots import auc, curves, learning, paper, profile, runs, stats, tables

UNIT = np.array([0, 0.5, 1.5, 2])  # a curve of area 1 that ends at 2
FREE = (*pmoe_sac.FREE, "env_id", "k", "tag", "compile")
HEADER = pmoe_sac.CSV["eval"]


def make(root, algo="sac", returns=UNIT, *, steps=None, done=True, wall_time=3600.0, lacks=(), **fields) -> Path:
    """A run directory as pmoe_sac.Runs leaves it; its evaluations, and its training episodes with 1000 more, stand at
    equal distances up to the last step. Defaults: Hopper-v4, K = 4, seed 1, 1,000,000 steps"""
    module = MODULES.get(algo, pmoe_sac)  # a fork's
    args = asdict(module.Args(**{"env_id": "Hopper-v4", "total_timesteps": 1_000_000} | fields))
    default = asdict(module.Args(total_timesteps=1_000_000))
    changed = {n: x for n, x in args.items() if n not in FREE and x != default[n]}
    tag = args["tag"] or (hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6] if changed else "")
    path = root / args["env_id"] / f"{algo}-k{args['k']}{tag and '-'}{tag}" / f"seed{args['seed']}"
    path.mkdir(parents=True)
    budget = args["total_timesteps"]
    steps = [budget * (i + 1) // len(returns) for i in range(len(returns))] if steps is None else steps
    config = {"algo": algo, "device": "cpu", "args": {n: x for n, x in args.items() if n not in lacks}}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    rows = list(zip(steps, returns, strict=True))
    (path / "eval.csv").write_text(HEADER + "".join(f"{step},{x},0.5,10\n" for step, x in rows))
    episodes = "".join(f"{step},{x + 1000},200\n" for step, x in rows)
    (path / "episodes.csv").write_text(pmoe_sac.CSV["episodes"] + episodes)
    if done:
        figures = dict(zip(HEADER.strip().split(","), (budget, float(returns[-1]), 0.5, 10.0)), wall_time=wall_time)
        (path / "done.json").write_text(json.dumps(figures, indent=2))
    return path


def seeds(root, algo, areas, **fields) -> list[Path]:
    """A run for each area under its curve, seeds 1, 2, ..."""
    return [make(root, algo, area * UNIT, seed=seed, **fields) for seed, area in enumerate(areas, 1)]


def labels(root) -> dict[str, str]:
    """Each run's method, by its directory"""
    return {str(run.path.relative_to(root)): run.method for run in runs.find([root])[0]}


def read_all(*paths, metric="eval"):
    """The runs, all notes on them and on their comparison; nothing is drawn"""
    found, notes = runs.find(list(paths), metric)
    if found:
        notes = [*notes, *runs.overview(found, metric)[1], *auc.compare(found)[1]]
    return found, "\n".join(notes)


def table(file) -> list[dict]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def words_of(text) -> str:
    """What is printed, without the distances between its cells"""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


# Reading and grouping


@pytest.mark.parametrize(
    "algo, k, label",
    [
        ("sac", 1, "SAC"),
        ("sac", 2, "PMOE-SAC K=2"),
        ("ppo", 1, "PPO"),
        ("ppo", 4, "PMOE-PPO K=4"),
        ("gating-sac", 4, "Gating K=4"),
        ("mcp-sac", 1, "MCP-SAC K=1"),
        ("mcp-ppo", 4, "MCP-PPO K=4"),
        ("dac", 4, "DAC K=4"),
        ("mrp-sac", 16, "MRP K=16"),
        ("gumbel-sac", 8, "Gumbel K=8"),
        ("reinforce-sac", 8, "REINFORCE K=8"),
        ("my_idea", 4, "my_idea K=4"),
    ],
)
def test_methods_are_called_as_in_the_paper(tmp_path, algo, k, label):
    make(tmp_path, algo, k=k, learning_rate=1e-4)
    assert list(labels(tmp_path).values()) == [label]


def test_every_algorithm_has_a_name_and_a_style():
    assert set(runs.NAMES) == set(ALGORITHMS)
    assert set(curves.STYLES) == {"SAC", "PPO", *runs.NAMES.values()}


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ({}, {"learning_rate": 3e-4}, ["learning_rate=0.001", "learning_rate=0.0003"]),
        ({"alpha": "auto"}, {"alpha": 0.1}, ["alpha=auto", "alpha=0.1"]),
        ({"gamma": 0.9, "tau": 0.1}, {"gamma": 0.8}, ["gamma=0.9 tau=0.1", "gamma=0.8 tau=0.005"]),
        ({}, {"total_timesteps": 2000}, ["1,000,000 steps", "2,000 steps"]),
        ({"tag": "one"}, {"tag": "other"}, ["one", "other"]),
        ({}, {"tag": "mine"}, ["", "mine"]),
        ({"tag": "one"}, {"tag": "two", "gamma": 0.9}, ["one gamma=0.99", "two gamma=0.9"]),
    ],
)
def test_a_label_names_what_differs(tmp_path, one, other, expected):
    for fields in (one, other):
        seeds(tmp_path, "sac", [1, 2], **fields)
    seeds(tmp_path, "gating-sac", [1], gamma=0.7, tag="alone")  # of one configuration
    found, notes = runs.find([tmp_path])
    methods = {"PMOE-SAC K=4 " + x if x else "PMOE-SAC K=4" for x in expected} | {"Gating K=4"}
    assert {run.method for run in found} == methods and len(found) == 5 and not notes


def test_what_makes_no_other_experiment_makes_no_other_method(tmp_path):
    make(tmp_path, seed=1, device="cpu", compile="off", checkpoint_every=7, num_seeds=1)
    make(tmp_path, seed=2, run_dir="elsewhere", track=True)
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4"}


def test_a_tag_that_tells_nothing_apart_is_no_part_of_a_label(tmp_path):
    make(tmp_path, tag="mine")
    make(tmp_path, env_id="Ant-v4")
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4"}


def test_a_field_that_older_runs_lack(tmp_path):
    """Where the newer ones have its default, they are the same; elsewhere, another method."""
    make(tmp_path, seed=1, lacks=["env_backend"])
    make(tmp_path, seed=2)
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4"}
    other = make(tmp_path, seed=2, env_backend="envpool").parent.name.removeprefix("sac-k4-")
    found = labels(tmp_path)
    assert sorted(found.values()) == ["PMOE-SAC K=4"] * 2 + [f"PMOE-SAC K=4 {other}"]


def test_the_same_seed_twice(tmp_path):
    first, _ = make(tmp_path / "a", seed=1), make(tmp_path / "a", seed=2)
    again = make(tmp_path / "b", seed=1)
    found, notes = runs.find([tmp_path])
    assert len(found) == 2 and len(notes) == 1
    assert all(word in notes[0] for word in (str(again), str(first), "same seed", "left out"))


@pytest.mark.parametrize("finished", ["a", "b"])
def test_of_the_same_seed_the_finished_run_is_kept(tmp_path, finished):
    paths = {name: make(tmp_path / name, done=name == finished) for name in "ab"}
    found, notes = runs.find([tmp_path])
    assert [run.path for run in found] == [paths[finished]]
    assert len(notes) == 1 and notes[0].startswith(str(paths["a" if finished == "b" else "b"]))


def test_paths_that_overlap_are_read_once(tmp_path, monkeypatch):
    path = make(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    for paths in (["runs", "runs/Hopper-v4"], ["runs/Hopper-v4", "runs"], ["runs", path], ["runs", "runs"]):
        found, notes = runs.find(list(map(Path, paths)))
        assert len(found) == 1 and not notes, paths


@pytest.mark.parametrize("within", [".", "..", "../.."])
def test_a_run_is_named_wherever_one_stands(tmp_path, monkeypatch, within):
    path = make(tmp_path, env_id="Ant-v4", lacks=["gamma"], tag="old")
    make(tmp_path, env_id="Ant-v4", gamma=0.9, tag="new")
    monkeypatch.chdir(path)
    tags = {run.tag for run in runs.find([Path(within)])[0]}
    assert tags == ({"old", "new"} if within == "../.." else {"old"})


def test_what_lies_beside_and_above_runs_hides_none(tmp_path):
    path = make(tmp_path / "runs", returns=[1, 2])
    for folder in (tmp_path / "runs", path.parent, path / "checkpoint"):
        folder.mkdir(exist_ok=True)
        (folder / "notes.csv").write_text("none of ours")
    assert runs.find([tmp_path])[1] == []
    (tmp_path / "runs/config.json").write_text('{"of": "somebody else"}')
    assert [run.path for run in read_all(tmp_path)[0]] == [path]


def test_a_run_behind_a_link_is_read_or_named(tmp_path):
    make(tmp_path / "runs", seed=1)
    there = make(tmp_path / "disk", env_id="Ant-v4")
    (tmp_path / "runs/Ant-v4").symlink_to(there.parent.parent)
    found, notes = read_all(tmp_path / "runs")
    assert len(found) == 2 or "Ant-v4" in notes


def test_links_may_go_in_circles(tmp_path):
    path = make(tmp_path / "runs")
    (path.parent / "above").symlink_to(tmp_path / "runs")
    assert len(runs.find([tmp_path / "runs"])[0]) == 1


def test_episodes_that_end_at_one_step_are_one_point(tmp_path):
    """As those of PPO's parallel environments do"""
    make(tmp_path, "ppo", steps=[10, 20, 20, 30], returns=[1, 2, 6, 3])
    (run,) = runs.find([tmp_path], "train")[0]
    assert run.steps.tolist() == [10, 20, 30] and run.returns.tolist() == [1001, 1004, 1003]


# Bad input


def edit(name, *replacement, count=-1):
    """Replaces text in a run's file."""

    def change(path):
        text = (path / name).read_text()
        assert replacement[0] in text
        (path / name).write_text(text.replace(*replacement, count))

    return change


def put(name, text):
    return lambda path: (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def remove(*names):
    return lambda path: [(path / name).unlink() for name in names]


def set_arg(name, value):
    def change(path):
        config = json.loads((path / "config.json").read_text())
        (config["args"] if name in config["args"] else config)[name] = value
        (path / "config.json").write_text(json.dumps(config))

    return change


LEFT_OUT = {  # what is done to a run, and what is said of it
    "empty": (put("eval.csv", ""), ["eval.csv is empty"]),
    "header only": (put("eval.csv", HEADER), ["eval.csv has no rows yet"]),
    "half a header": (put("eval.csv", HEADER[:9]), ["no column 'return_mean'", "'step,retu'"]),
    "header without an end": (put("eval.csv", HEADER.strip()), ["no rows yet"]),
    "half a row": (put("eval.csv", HEADER + "250000,-1"), ["no rows yet"]),
    "blank": (put("eval.csv", HEADER + "\n\n\n"), ["eval.csv"]),
    "another header": (put("eval.csv", "epoch,loss\n1,2\n"), ["no column 'return_mean'", "'epoch,loss'"]),
    "no header": (put("eval.csv", "250000,1,0,1\n500000,2,0,1\n"), ["no column 'return_mean'"]),
    "damaged row": (edit("eval.csv", "500000,", "5#@!00,"), ["eval.csv is damaged", "row"]),
    "short row": (edit("eval.csv", "500000,0.5,0.5,10", "500000"), ["eval.csv is damaged: line 3 has not 4 columns"]),
    "two rows in one": (edit("eval.csv", "10\n5", "105", count=1), ["eval.csv is damaged"]),
    "steps go back": (edit("eval.csv", "750000,", "400000,"), ["is damaged: after step 500000 comes an earlier one"]),
    "steps go back after NaN": (
        put("eval.csv", HEADER + "500,1,0,1\nnan,1,0,1\n400,1,0,1\n"),
        ["is damaged: after step 500 comes an earlier one"],
    ),
    "no number": (put("eval.csv", HEADER + "500,nan,0,1\n900,inf,0,1\n"), ["no finite row"]),
    "zeros after a crash": (put("eval.csv", b"\0" * 90), ["eval.csv"]),
    "binary": (put("eval.csv", bytes(range(256))), ["eval.csv"]),
    "no eval.csv": (remove("eval.csv"), ["eval.csv cannot be read (No such file"]),
    "no config.json": (remove("config.json"), ["no config.json"]),
    "empty config.json": (put("config.json", ""), ["config.json", "damaged"]),
    "half a config.json": (put("config.json", '{"algo": "sac", "args": {"env_'), ["config.json", "damaged"]),
    "binary config.json": (put("config.json", b"\xff\xfe\x00"), ["config.json", "damaged"]),
    "another config.json": (put("config.json", '{"model": "resnet"}'), ["config.json", "damaged"]),
    "a list": (put("config.json", "[1, 2]"), ["config.json", "damaged"]),
    "no args": (put("config.json", '{"algo": "sac"}'), ["config.json", "damaged"]),
    "args of a kind": (put("config.json", '{"algo": "sac", "args": "k=4"}'), ["config.json", "damaged"]),
    "no k": (edit("config.json", '"k"', '"primitives"'), ["config.json", "damaged"]),
    "k is text": (set_arg("k", "four"), ["config.json", "damaged"]),
    "seed is null": (set_arg("seed", None), ["config.json", "damaged"]),
    "seed is text": (set_arg("seed", "one"), ["config.json", "damaged"]),
    "steps are null": (set_arg("total_timesteps", None), ["config.json", "damaged"]),
    "environment is a number": (set_arg("env_id", 5), ["config.json", "damaged"]),
    "algorithm is a list": (set_arg("algo", ["sac"]), ["config.json", "damaged"]),
}


@pytest.mark.parametrize("damage", LEFT_OUT)
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_drawn(tmp_path, damage):
    change, words = LEFT_OUT[damage]
    good, bad = make(tmp_path, seed=1), make(tmp_path, seed=2)
    change(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, notes = read_all(tmp_path)
    assert [run.path for run in found] == [good]
    (note,) = [line for line in notes.splitlines() if line.startswith(f"{bad}: ")]
    assert note.endswith("; left out") and all(word in note for word in words)


@pytest.mark.parametrize("damage", ["empty", "half a row", "binary", "no config.json", "steps go back"])
def test_nothing_is_left_to_draw(pmoe_here, tmp_path, damage):
    change, words = LEFT_OUT[damage]
    change(make(tmp_path / "runs"))
    refused(pmoe_here("plot", "runs", "--auc"), "runs/Hopper-v4/sac-k4/seed1: ", "left out", *words)
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.parametrize(
    "command, words",
    [
        ("plot", ["folders of runs", "pmoe plot runs/"]),
        ("plot nothing", ["nothing: no such folder"]),
        ("plot ./nothing/at/all", ["error: nothing/at/all: no such folder"]),
        ("plot empty nothing", ["empty: no run there", "nothing: no such folder"]),
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


KEPT = {  # what is done to a run, its last step then, and what is said of it
    "nothing": (lambda path: None, 1_000_000, []),
    "half a line": (edit("eval.csv", "10\n1000000,2.0,0.5,10\n", "10\n1000000,2"), 750_000, ["half-written last line"]),
    "no end": (edit("eval.csv", "1000000,2.0,0.5,10\n", "1000000,2.0,0.5,10"), 750_000, ["half-written last line"]),
    "NaN": (edit("eval.csv", "500000,0.5", "500000,nan"), 1_000_000, ["1 of its 4 rows are not finite, left out"]),
    "infinite": (edit("eval.csv", "500000,0.5", "500000,-inf"), 1_000_000, ["1 of its 4 rows are not finite"]),
    "Windows": (edit("eval.csv", "\n", "\r\n"), 1_000_000, []),
    "truncated": (
        edit("eval.csv", "1000000,2.0,0.5,10\n", ""),
        750_000,
        ["finished, but eval.csv ends at step 750,000 of 1,000,000"],
    ),
    "unfinished": (remove("done.json"), 1_000_000, ["unfinished: seed 2 at 1,000,000 of 1,000,000"]),
    "damaged done.json": (put("done.json", '{"st'), 1_000_000, ["done.json is damaged", "unfinished: seed 2"]),
    "empty done.json": (put("done.json", ""), 1_000_000, ["done.json is damaged", "unfinished: seed 2"]),
    "another done.json": (put("done.json", "[]"), 1_000_000, ["done.json is damaged", "unfinished: seed 2"]),
    "done.json without a step": (
        put("done.json", '{"wall_time": 5.0}'),
        1_000_000,
        ["done.json is damaged; taken as unfinished", "unfinished: seed 2"],
    ),
    "time is text": (edit("done.json", "3600.0", '"an hour"'), 1_000_000, ["done.json is damaged"]),
    "done.json is a folder": (
        lambda path: [(path / "done.json").unlink(), (path / "done.json").mkdir()],
        1_000_000,
        ["done.json"],
    ),
}


@pytest.mark.parametrize("damage", KEPT)
def test_a_run_that_is_not_whole_is_named_and_drawn_as_far_as_it_goes(tmp_path, damage):
    change, last, words = KEPT[damage]
    good, bad = make(tmp_path, seed=1), make(tmp_path, seed=2)
    change(bad)
    found, notes = read_all(tmp_path)
    assert [(run.path, run.steps[-1]) for run in found] == [(good, 1_000_000), (bad, last)]
    assert all(word in notes for word in words) and str(good) not in notes
    assert (str(bad) in notes) == (words != [] and damage != "unfinished")
    assert (found[1].wall_time is None) == ("unfinished: seed 2" in notes)


def test_columns_are_found_by_name(tmp_path):
    path = make(tmp_path)
    (path / "eval.csv").write_text("return_std,return_mean,note,step\n1,-5,7,100\n2,-6,7,200\n")
    (run,) = runs.find([tmp_path])[0]
    assert run.steps.tolist() == [100, 200] and run.returns.tolist() == [-5, -6]


@pytest.mark.parametrize("name", ["config.json", "eval.csv", "done.json"])
def test_a_file_cut_anywhere_is_no_traceback(tmp_path, name):
    good, bad = make(tmp_path, seed=1), make(tmp_path, seed=2, returns=-1234.5678 * UNIT)
    whole, text = runs.find([bad])[0][0], (bad / name).read_bytes()
    for end in range(0, len(text), 1 if name == "eval.csv" else 7):
        (bad / name).write_bytes(text[:end])
        found, notes = read_all(tmp_path)
        assert found[0].path == good and str(bad) in notes
        for run in found[1:]:
            assert (run.steps == whole.steps[: len(run.steps)]).all()
            assert (run.returns == whole.returns[: len(run.steps)]).all()
        assert len(found) == 1 + (name == "done.json" or text[:end].count(b"\n") > 1 and name == "eval.csv")


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["config.json", "eval.csv", "done.json"]), st.integers(0, 2000), st.binary(max_size=9))
def test_bytes_in_the_wrong_place_are_no_traceback(tmp_path_factory, name, place, junk):
    root = tmp_path_factory.mktemp("runs")
    good, bad = make(root, seed=1), make(root, seed=2)
    text = (bad / name).read_bytes()
    (bad / name).write_bytes(text[: place % len(text)] + junk + text[place % len(text) + len(junk) :])
    assert read_all(root)[0][0].path == good
    shutil.rmtree(root)


# Runs that are still being written


def test_unfinished_runs(pmoe_here, tmp_path):
    make(tmp_path / "runs", seed=1)
    paths = [make(tmp_path / "runs", seed=n, returns=[1, 2, 3], done=False) for n in (2, 3, 7)]
    for path in paths:
        edit("eval.csv", "1000000,3,0.5,10\n", "")(path)
        os.utime(path / "eval.csv", (time.time() - 7200,) * 2)
    with open(paths[0] / "eval.csv", "a") as file:
        file.write("750000,4")
    result = pmoe_here("plot", "runs", "--auc")
    assert result.returncode == 0 and result.stderr == ""
    assert "unfinished: seed 2-3, 7 at 666,666 of 1,000,000 steps, written 0 s ago" in result.stdout
    assert f"{paths[0].relative_to(tmp_path)}: eval.csv has a half-written last line, left out" in result.stdout
    assert "drawn up to step 666,666, which all its seeds have reached" in result.stdout
    assert "PMOE-SAC K=4 │ 1-3, 7 │ 666,666 to 1,000,000 │ 3 unfinished" in words_of(result.stdout)
    os.utime(paths[0] / "eval.csv", (time.time() - 8000,) * 2)
    assert "written 2 h ago" in read_all(tmp_path / "runs")[1]


def test_a_run_that_has_just_begun_beside_one_that_has_rows(pmoe_here, tmp_path):
    make(tmp_path / "runs", seed=1, done=False)
    make(tmp_path / "runs", seed=2, returns=[], done=False)
    result = pmoe_here("plot", "runs", "--auc")
    assert result.returncode == 0 and "seed2: eval.csv has no rows yet; left out" in result.stdout


@pytest.mark.parametrize(
    "seeds, text", [([1], "1"), ([3, 1, 2], "1-3"), ([1, 3, 5], "1, 3, 5"), ([7, 1, 2, 9, 8], "1-2, 7-9")]
)
def test_spans(seeds, text):
    assert runs.spans(seeds) == text


@pytest.mark.parametrize("age, text", [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")])
def test_ago(age, text):
    assert runs.ago(age) == f"{text} ago"


def test_few_seeds_are_said_to_be_few(tmp_path):
    seeds(tmp_path, "sac", [1, 2, 3], k=1)
    seeds(tmp_path, "sac", [1, 2, 3, 4, 5])
    _, notes = read_all(tmp_path)
    assert "fewer than five seeds" in notes and "Hopper-v4, SAC (3)" in notes
    assert "PMOE-SAC" not in notes.splitlines()[-1]


# Areas and tables


def compared(root, reference=None):
    return auc.compare(runs.find([root])[0], reference)


def test_golden_tables(pmoe_here, tmp_path):
    """All seeds of a method have one area, so that the intervals are known, too; one method has a single seed."""
    seeds(tmp_path / "runs", "sac", [200] * 5, k=1)
    seeds(tmp_path / "runs", "sac", [300] * 5, k=4)
    seeds(tmp_path / "runs", "mcp-sac", [200] * 5, k=4, tag="a_b")
    seeds(tmp_path / "runs", "mcp-sac", [1500.04], k=4, tag="c")
    result = pmoe_here("plot", "runs", "--auc", "--reference", "SAC")
    assert result.returncode == 0 and result.stderr == ""
    title = "Hopper-v4, 1,000,000 steps: area under the evaluation curve from step 250,000 to 1,000,000"
    rows = [
        ["SAC", "5", "200.0 (200.0, 200.0)", "200.0", "400.0", "100.0", "–"],
        ["PMOE-SAC K=4", "5", "300.0 (300.0, 300.0)", "300.0", "600.0", "150.0 (150.0, 150.0)", "1.00"],
        ["MCP-SAC K=4 a_b", "5", "200.0 (200.0, 200.0)", "200.0", "400.0"],
        ["MCP-SAC K=4 c", "1", "1500", "1500", "3000", "750.0", "1.00"],
    ]
    rows[2] += ["100.0 (100.0, 100.0)", "0.50 (0.50, 0.50)"]
    head = ["method", "n", "AUC, mean (95 %)", "AUC, IQM", "final return", "% of SAC (95 %)", "P(better than SAC)"]
    lines = [head, ["---", *["---:"] * 6], *rows]
    text = "\n".join(["| " + " | ".join(line) + " |" for line in lines])
    few = "fewer than five seeds, so that intervals are wide, of one or two there is none: Hopper-v4, MCP-SAC K=4 c (1)"
    assert (tmp_path / "figures/auc.md").read_text() == f"{title}\n\n{text}\n\n{auc.FOOT}\n\n- {few}\n"
    printed = words_of(result.stdout)
    assert title in printed and all(" ".join(row) in printed for row in rows)
    body = [" & ".join(row).replace("%", r"\%").replace("_", r"\_").replace("–", "--") for row in (head, *rows)]
    body = [rf"{line} \\" for line in body]
    expected = [
        r"\begin{table} \centering \caption{" + title + r"} \begin{tabular}{lrrrrrr}",
        *(r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"),
        *(r"\end{tabular} \end{table}", "", tables.escape(auc.FOOT), "", f"% {few}"),
    ]
    assert (tmp_path / "figures/auc.tex").read_text() == "\n".join(expected) + "\n"
    figures = dict.fromkeys(("low", "high", "mean", "iqm"), "300.0") | {"final": "600.0"}
    figures |= dict.fromkeys(("percent", "percent_low", "percent_high"), "150.0")
    figures |= {"better": "1.0", "better_low": "nan", "better_high": "nan"}  # no run is out of order: no interval
    about = {"environment": "Hopper-v4", "steps": "1000000", "first": "250000", "last": "1000000", "n": "5"}
    about |= {"method": "PMOE-SAC K=4", "center": "mean", "reference": "SAC"}
    assert table(tmp_path / "figures/auc.csv")[1] == about | figures


@pytest.mark.parametrize("center, percent", [("mean", 100 * 4 / 2.5), ("iqm", 100 * 3 / 2)])
def test_figures_by_hand(tmp_path, center, percent):
    seeds(tmp_path, "sac", [1, 2, 2, 2, 5.5], k=1)  # mean 2.5, IQM 2
    seeds(tmp_path, "sac", [1, 2, 3, 4, 10], k=2)  # mean 4, IQM 3
    files, notes = auc.report(runs.find([tmp_path])[0], tmp_path, None, center, "eval")
    assert [file.name for file in files] == ["auc.csv", "auc.md", "auc.tex", "auc_runs.csv"] and notes == []
    sac, pmoe = (
        {name: x if name in ("method", "center", "environment", "reference") else float(x) for name, x in row.items()}
        for row in table(tmp_path / "auc.csv")
    )
    assert (sac["mean"], sac["iqm"], pmoe["mean"], pmoe["iqm"]) == pytest.approx((2.5, 2, 4, 3))
    assert (pmoe["final"], pmoe["percent"]) == pytest.approx((8, percent))
    assert pmoe["better"] == pytest.approx((0.5 + 2.5 + 4 + 4 + 5) / 25)
    assert np.isnan(sac["better"]) and sac["percent"] == 100
    for row, name in ((sac, center), (pmoe, center), (pmoe, "percent"), (pmoe, "better")):
        low, high = ("low", "high") if name == center else (f"{name}_low", f"{name}_high")
        assert row[low] < row[name] < row[high]
    assert -1 <= sac["low"] and sac["high"] <= 7 and 0 <= pmoe["better_low"] and pmoe["better_high"] <= 1
    each = [(row["method"], row["seed"], float(row["auc"]), float(row["final"])) for row in table(files[3])]
    expected = (("SAC", (1, 2, 2, 2, 5.5)), ("PMOE-SAC K=2", (1, 2, 3, 4, 10)))
    assert each == [(name, str(i + 1), x, 2 * x) for name, areas in expected for i, x in enumerate(areas)]
    assert f"AUC, {'IQM' if center == 'iqm' else 'mean'} (95 %)" in (tmp_path / "auc.md").read_text()


def test_the_interval_of_a_percentage_knows_the_references_luck(tmp_path):
    seeds(tmp_path, "sac", [50, 80, 100, 120, 150], k=1)
    seeds(tmp_path, "sac", [100] * 5, k=2)
    (task,), _ = compared(tmp_path)
    found = auc.against([task], ["PMOE-SAC K=2"], stats.mean)
    assert found["percent"] == pytest.approx(100) and found["percent_low"] < 85 and found["percent_high"] > 118


def test_areas_are_taken_where_all_compared_runs_are(tmp_path):
    make(tmp_path, returns=[0, 100, 200, 300], k=1)
    make(tmp_path, returns=[100, 150], steps=[400_000, 600_000], k=1, seed=2, done=False)
    make(tmp_path, "ppo", returns=[1, 2], steps=[10, 20])  # of another family
    (ppo, sac), notes = compared(tmp_path)
    assert (sac.first, sac.last) == (400_000, 600_000) and (ppo.first, ppo.last) == (10, 20)
    np.testing.assert_allclose(sac.areas("SAC"), [100, 125])  # from 60 to 140, and from 100 to 150
    assert sac.finals("SAC", "eval").tolist() == pytest.approx([140, 150])
    (note,) = [note for note in notes if "areas up to" in note]
    assert "Hopper-v4, 1,000,000 steps, SAC family: areas up to step 600,000" in note
    assert "seed2 ends; 1 runs go further" in note


def test_the_final_return_of_training_is_that_of_the_last_tenth(tmp_path):
    """A single training episode would be luck."""
    make(tmp_path, k=1, steps=[0, 900, 920, 1000], returns=[-1000, -1000, 0, 0], total_timesteps=1000)
    (task,), _ = auc.compare(runs.find([tmp_path], "train")[0])
    assert task.finals("SAC", "train") == pytest.approx([(20 * 500 + 80 * 1000) / 100])
    assert task.finals("SAC", "eval") == [1000]


@pytest.mark.parametrize("steps", [[10], [10, 20]])
def test_a_single_step_in_common_is_no_area(tmp_path, steps):
    make(tmp_path, returns=[7] * len(steps), steps=steps, k=1)
    make(tmp_path, returns=[7], steps=[10])
    tasks, notes = compared(tmp_path)
    assert tasks == [] and "no areas" in notes[0]


def test_runs_without_a_step_in_common(tmp_path):
    make(tmp_path, returns=[1, 2], steps=[10, 20], k=1, done=False)
    other = make(tmp_path, returns=[1, 2], steps=[30, 40], k=2)
    tasks, notes = compared(tmp_path)
    assert tasks == [] and len(notes) == 1 and "Hopper-v4" in notes[0] and "sac-k1/seed1 ends at step 20" in notes[0]
    (other / "eval.csv").write_text(HEADER + "15,5,0,1\n20,7,0,1\n")
    assert compared(tmp_path)[0][0].areas("PMOE-SAC K=2") == [6]


@pytest.mark.parametrize(
    "reference, base",
    [
        (None, "SAC"),
        ("SAC", "SAC"),
        ("sac", "SAC"),
        ("sac-k1", "SAC"),
        ("sac-k2", "PMOE-SAC K=2"),
        ("PMOE-SAC K=2", "PMOE-SAC K=2"),
        ("pmoe-sac k=4", "PMOE-SAC K=4"),
        ("gating", "Gating K=4"),
        ("gating-sac", "Gating K=4"),
        ("gating-sac-k4", "Gating K=4"),
    ],
)
def test_the_reference(tmp_path, reference, base):
    for algo, k in (("gating-sac", 4), ("sac", 4), ("sac", 2), ("sac", 1)):
        make(tmp_path, algo, k=k)
    name = reference and auc.reference_name(runs.find([tmp_path])[0], reference)
    (task,), notes = compared(tmp_path, name)
    assert task.base == base and next(iter(task.methods)) == base and len(task.methods) == 4 and notes == []


def test_each_family_has_its_reference(tmp_path):
    for algo, k in (("ppo", 1), ("dac", 4), ("sac", 1), ("sac", 4)):
        make(tmp_path, algo, k=k, total_timesteps=1000)
    assert [(task.family, task.base) for task in compared(tmp_path)[0]] == [("PPO", "DAC K=4"), ("SAC", "SAC")]
    assert [task.base for task in compared(tmp_path, "ppo")[0]] == ["PPO"]


def test_a_fork_stands_in_its_parents_family(tmp_path, monkeypatch):
    monkeypatch.setitem(MODULES, "my_ppo", MODULES["ppo"])
    for algo in ("sac", "my_idea", "dac", "my_ppo"):
        make(tmp_path, algo, k=1)
    families = {task.family: set(task.methods) for task in compared(tmp_path)[0]}
    assert families == {"SAC": {"SAC", "my_idea K=1"}, "PPO": {"DAC K=1", "my_ppo K=1"}}


def test_a_reference_that_may_be_two(tmp_path):
    for k in (2, 4):
        make(tmp_path, k=k)
    (task,), notes = compared(tmp_path, "PMOE-SAC")
    assert task.base is None
    assert "PMOE-SAC may be PMOE-SAC K=2 or PMOE-SAC K=4; percents need --reference" in notes[0]


@pytest.mark.parametrize("algos, missing", [(["sac", "gating-sac"], "SAC"), (["ppo", "mcp-ppo"], "DAC")])
def test_without_its_reference_a_table_has_no_percents(pmoe_here, tmp_path, algos, missing):
    for algo in algos:
        make(tmp_path / "runs", algo)
    result = pmoe_here("plot", "runs", "--auc", "--profile")
    assert result.returncode == 0
    assert f"no {missing}; percents need --reference, one of: " in result.stdout
    assert {row["percent"] for row in table(tmp_path / "figures/auc.csv")} == {"nan"}
    assert "% of" not in result.stdout and "no performance profile" in result.stdout
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    assert names == {"curves.png", "curves.pdf", "auc.csv", "auc.md", "auc.tex", "auc_runs.csv"}


def test_a_reference_is_the_same_method_everywhere(tmp_path):
    """Where an environment has no SAC, nothing else takes its place."""
    seeds(tmp_path, "sac", [100] * 2, k=1)
    for env in ("Hopper-v4", "Ant-v4"):
        seeds(tmp_path, "sac", [150] * 2, k=4, env_id=env)
    tasks, notes = compared(tmp_path, "sac")
    assert [task.base for task in tasks] == [None, "SAC"] and "Ant-v4" in notes[0]


def test_no_percents_of_what_is_not_positive(pmoe_here, tmp_path):
    seeds(tmp_path / "runs", "sac", [-100, 20], k=1)
    seeds(tmp_path / "runs", "sac", [50, 60], k=2)
    result = pmoe_here("plot", "runs", "--auc")
    assert "the area of SAC is not positive, so that percents of it mean nothing" in result.stdout
    records = table(tmp_path / "figures/auc.csv")
    assert [record["percent"] for record in records] == ["nan", "nan"]
    assert records[1]["better"] == "1.0"  # which needs no percents
    lines = [line.split(" | ") for line in (tmp_path / "figures/auc.md").read_text().splitlines() if "|" in line]
    assert [line[5] for line in lines[2:]] == ["–", "–"]


def test_why_there_is_no_interval_of_percents(tmp_path):
    """Five seeds are not too few; but drawn again, the reference's mean is now and then below 0."""
    seeds(tmp_path, "sac", [-300, 100, 100, 100, 100], k=1)
    seeds(tmp_path, "sac", [100] * 5, k=2)
    _, notes = pooled(tmp_path)
    record = table(tmp_path / "auc.csv")[1]
    assert float(record["percent"]) == pytest.approx(500) and record["percent_low"] == "nan"
    (note,) = [note for note in notes if "no interval" in note]
    assert "PMOE-SAC K=2" in note and "too few" not in note


def pooled(tmp_path, reference=None, center="mean"):
    _, notes = auc.report(runs.find([tmp_path])[0], tmp_path, reference, center, "eval")
    return [row for row in table(tmp_path / "auc.csv") if "," in row["environment"]], notes


def test_environments_together(tmp_path):
    """The mean over environments of the percentages there, however many seeds each has"""
    for env, scale in (("Hopper-v4", 1), ("Ant-v4", 1000)):
        seeds(tmp_path, "sac", [scale] * 5, k=1, env_id=env)
        seeds(tmp_path, "gating-sac", [scale * 1.5] * 5, env_id=env)
    seeds(tmp_path, "mcp-sac", [1, 2, 3], env_id="Hopper-v4")
    seeds(tmp_path, "mcp-sac", [500] * 4, env_id="Ant-v4")
    (sac, gating, mcp), notes = pooled(tmp_path)
    assert sac["environment"] == "Ant-v4, Hopper-v4" and [row["n"] for row in (sac, gating, mcp)] == ["10", "10", "7"]
    assert gating["percent"] == gating["percent_low"] == gating["percent_high"] == "150.0"  # no wider for the scales
    assert float(mcp["percent"]) == pytest.approx((200 + 50) / 2)
    assert float(mcp["better"]) == pytest.approx(((0.5 + 1 + 1) / 3 + 0) / 2) and notes == []
    assert "2 environments (Ant-v4, Hopper-v4), 1,000,000 steps" in (tmp_path / "auc.md").read_text()


def test_versions_and_budgets_are_never_pooled(pmoe_here, tmp_path):
    for env, steps in (("Hopper-v4", 1_000_000), ("Hopper-v5", 1_000_000), ("Ant-v4", 2_000_000)):
        for k in (1, 2):
            seeds(tmp_path / "runs", "sac", [1], k=k, env_id=env, total_timesteps=steps)
    result = pmoe_here("plot", "runs", "--auc")
    assert result.returncode == 0 and "environments" not in result.stdout
    records = table(tmp_path / "figures/auc.csv")
    assert [(row["environment"], row["steps"]) for row in records[::2]] == [
        ("Ant-v4", "2000000"),
        ("Hopper-v4", "1000000"),
        ("Hopper-v5", "1000000"),
    ]
    assert {row["n"] for row in records} == {"1"}


def test_two_budgets_of_one_environment_are_two_comparisons(tmp_path):
    for k in (1, 2):
        for steps in (1000, 2000):
            make(tmp_path, k=k, total_timesteps=steps)
    tasks, notes = compared(tmp_path)
    assert [(task.budget, task.last, task.base) for task in tasks] == [
        (1000, 1000, "SAC 1,000 steps"),
        (2000, 2000, "SAC 2,000 steps"),
    ]
    assert [list(task.methods)[1] for task in tasks] == ["PMOE-SAC K=2 1,000 steps", "PMOE-SAC K=2 2,000 steps"]
    assert auc.pools(tasks) == [[tasks[0]], [tasks[1]]] and notes == []


def test_a_method_that_an_environment_lacks_is_named(tmp_path):
    for env in ("Ant-v4", "Hopper-v4"):
        seeds(tmp_path, "sac", [1], k=1, env_id=env)
    seeds(tmp_path, "mrp-sac", [1], env_id="Ant-v4")
    rows, notes = pooled(tmp_path)
    assert [row["method"] for row in rows] == ["SAC"]
    (note,) = [note for note in notes if " is not among " in note]
    assert note.startswith("MRP K=5 is not among 2 environments") and note.endswith("it has no runs on Hopper-v4")


def test_a_method_may_have_another_k_in_another_environment(tmp_path):
    for env, k in (("Ant-v4", 4), ("HalfCheetah-v4", 2)):
        seeds(tmp_path, "sac", [100], k=1, env_id=env)
        seeds(tmp_path, "sac", [150], k=k, env_id=env)
    assert [row["method"] for row in pooled(tmp_path)[0]] == ["SAC", "PMOE-SAC K=4/2"]
    seeds(tmp_path, "sac", [200], k=8, env_id="Ant-v4")  # now there are two of them in one environment
    rows, notes = pooled(tmp_path)
    assert [row["method"] for row in rows] == ["SAC"]
    assert [note.split(" is ")[0] for note in notes if " is not " in note] == [f"PMOE-SAC K={k}" for k in (4, 8, 2)]


def test_a_method_that_is_not_the_same_everywhere_is_named(tmp_path):
    for env, rate in (("Ant-v4", 1e-3), ("Hopper-v4", 1e-4)):
        seeds(tmp_path, "sac", [1, 2], k=1, env_id=env)
        seeds(tmp_path, "gating-sac", [1, 2], env_id=env, learning_rate=rate)
    _, notes = pooled(tmp_path)
    (note,) = [note for note in notes if "not the same" in note]
    assert note.startswith("Gating K=4 ") and "learning_rate differ" in note


PRINTED = [row for row in table(paper.PRINTED) if row["item"] in paper.TABLES]
ALGO = {name: algo for algo, name in runs.NAMES.items()} | {"SAC": "sac"}


def paper_runs(root, item, version="v4"):
    """Of every cell of a table a run whose area is the printed number, at the paper's K"""
    for row in PRINTED:
        if row["item"] == item:
            k = int(row["setting"].removeprefix("k=") or paper.PRINTED_K.get((row["method"], row["env"]), 4))
            k = 1 if row["method"] == "SAC" else k
            make(root, ALGO[row["method"]], float(row["value"]) * UNIT, k=k, env_id=f"{row['env']}-{version}")


def printed_tables(root) -> list[Path]:
    return paper.report(runs.find([root])[0], root, "mean", "eval")[0]


def markdown_of(file) -> tuple[str, list[list[str]]]:
    """The title and the rows of a file's table, without the line below its head"""
    title, *lines = file.read_text().splitlines()
    lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    return title, [lines[0], *lines[2:]]


@pytest.mark.parametrize("item", paper.TABLES)
def test_the_papers_tables(tmp_path, item):
    paper_runs(tmp_path, item)
    files = printed_tables(tmp_path)
    assert {file.name for file in files} == {f"{item}.{suffix}" for suffix in ("csv", "md", "tex")}
    printed = {(x["env"], x["method"], x["setting"]): float(x["value"]) for x in PRINTED if x["item"] == item}
    records = table(tmp_path / f"{item}.csv")
    assert len(records) == len(printed)
    for row in records:
        assert float(row["percent"]) == pytest.approx(float(row["printed"]))
        name, _, k = row["method"].partition(" K=")
        key = (row["environment"].removesuffix("-v4"), name, f"k={k}" if item == "table4" else "")
        assert printed.pop(key) == float(row["printed"])
        assert row["printed_k"] == k or name in ("SAC", "DAC") or item != "table4" and "PMOE" not in name
    _, (head, *lines) = markdown_of(tmp_path / f"{item}.md")
    assert len(head) == 7 and [line[0] for line in lines[1::2]] == ["printed"] * (len(lines) // 2)
    for mine, theirs in zip(lines[::2], lines[1::2], strict=True):
        assert [float(x) for x in mine[1:]] == [float(x) for x in theirs[1:]]  # no "(K=...)": it is the paper's K
    assert (tmp_path / f"{item}.tex").read_text().count(r"\quad printed &") == len(lines) // 2


def test_the_golden_table_2(tmp_path, capsys):
    for env, k in (("Hopper-v4", 2), ("Ant-v4", 4)):
        seeds(tmp_path, "sac", [200] * 3, k=1, env_id=env)
        seeds(tmp_path, "sac", [300] * 3, k=k, env_id=env)
    seeds(tmp_path, "gating-sac", [100] * 3, env_id="Ant-v4")
    seeds(tmp_path, "gumbel-sac", [100] * 3, env_id="Ant-v4")  # the paper has none
    printed_tables(tmp_path)
    title, rows = markdown_of(tmp_path / "table2.md")
    assert title == "Table 2: area under the evaluation curve in percent of SAC's"
    assert rows == [  # methods and environments in the paper's order
        ["", "Ant-v4", "Hopper-v4"],
        ["SAC", "100.0", "100.0"],
        ["printed", "100", "100"],
        ["Gating K=4", "50.0 (50.0, 50.0)", ""],
        ["printed", "89.3", ""],
        ["PMOE-SAC K=4/2", "150.0 (150.0, 150.0)", "150.0 (150.0, 150.0)"],
        ["printed", "113.4", "115.4 (K=4)"],
    ]
    assert "PMOE-SAC K=4/2 150.0 (150.0, 150.0)" in words_of(capsys.readouterr().out)


def test_the_golden_table_4(tmp_path):
    for k, area in ((2, 200), (4, 300), (10, 100), (6, 500)):  # the paper has no K = 6
        seeds(tmp_path, "sac", [area] * 3, k=k, env_id="HumanoidStandup-v4")
        seeds(tmp_path, "sac", [area] * 3, k=k, env_id="Ant-v4")  # nor another environment
    printed_tables(tmp_path)
    assert markdown_of(tmp_path / "table4.md")[1] == [
        ["", "K=2", "K=4", "K=10"],
        ["HumanoidStandup-v4", "100.0", "150.0 (150.0, 150.0)", "50.0 (50.0, 50.0)"],
        ["printed", "100", "107.1", "111.7"],
    ]


@pytest.mark.parametrize("item", paper.TABLES)
def test_the_papers_numbers_stand_beside_no_other_version(tmp_path, item):
    paper_runs(tmp_path, item, "v5")
    assert printed_tables(tmp_path) == []


def test_no_table_of_the_paper_without_its_reference(tmp_path):
    for algo, k in (("sac", 4), ("gating-sac", 4), ("ppo", 4), ("mcp-ppo", 4)):
        seeds(tmp_path, algo, [1, 2], k=k)
    assert printed_tables(tmp_path) == []


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
    text = tables.latex("t", ["method"], [[f"a{character}b"]]).splitlines()[4].removesuffix(r" \\")
    escaped = re.sub(r"\\[{}$%&_#]|\\(textbackslash|textasciicircum|textasciitilde)(\{\}| |\b)|\\[\^~]\{\}", "", text)
    assert escaped in ("ab", "a b") and text != f"a{character}b"


def test_markdown_of_any_tag_has_its_columns():
    row = tables.markdown("t", ["method", "n"], [["a|b", "3"]]).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


@pytest.mark.parametrize(
    "x, text", [(0.04, "0.0"), (-3.25, "-3.2"), (999.4, "999.4"), (1234.5, "1234"), (-12345, "-12345"), (np.nan, "–")]
)
def test_numbers(x, text):
    assert tables.number(x) == text


# Figures


@pytest.fixture
def drawn(monkeypatch):
    """Draws curves without writing them; the figure, and notes"""

    def draw(root, metric="eval", center="mean", show_seeds=False, window=1, x="steps"):
        kept = []
        monkeypatch.setattr(pyplot, "close", kept.append)
        monkeypatch.setattr(mpl_figure.Figure, "savefig", lambda *args, **kwargs: None)
        _, notes = curves.draw(runs.find([root], metric)[0], root, metric, center, show_seeds, window, x)
        return kept[0], notes

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def lines_of(ax) -> dict[str, np.ndarray]:
    """What is drawn, points (T, 2), by its label in the legend"""
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_a_panel_an_environment_and_a_line_a_method(tmp_path, drawn):
    for env, scale in (("Hopper-v4", 1), ("Hopper-v5", 100), ("Ant-v4", 10), ("Walker2d-v4", 5)):
        seeds(tmp_path, "sac", [scale, 2 * scale, 6 * scale], k=1, env_id=env)
        seeds(tmp_path, "sac", [scale, 2 * scale, 1.5 * scale], k=4, env_id=env)
    figure, notes = drawn(tmp_path)
    assert notes == [] and figure.get_supylabel() == "evaluation return, mean and 95 % interval"
    assert [ax.get_title() for ax in figure.axes] == ["Ant-v4", "Hopper-v4", "Hopper-v5", "Walker2d-v4"]
    for ax, scale in zip(figure.axes, (10, 1, 100, 5)):
        assert ax.get_xlabel() == "environment steps"
        found = lines_of(ax)
        assert list(found) == ["SAC (n = 3)", "PMOE-SAC K=4 (n = 3)"]
        assert [text.get_text() for text in ax.get_legend().get_texts()] == list(found)
        for label, mean in (("SAC (n = 3)", 3), ("PMOE-SAC K=4 (n = 3)", 1.5)):
            np.testing.assert_allclose(found[label][:, 0], np.arange(1, 5) * 250_000)
            np.testing.assert_allclose(found[label][:, 1], mean * scale * UNIT)
        (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        assert low <= 250_000 and 1_000_000 <= high <= 1.1e6 and bottom <= 0 and 6 * scale < top < 30 * scale
        bands = [band.get_paths()[0].vertices for band in ax.collections if isinstance(band, PolyCollection)]
        assert len(bands) == 2
        end = bands[0][np.isclose(bands[0][:, 0], 1_000_000), 1]
        assert -5 * scale <= end.min() < 6 * scale < end.max() <= 25 * scale


def test_interquartile_means(tmp_path, drawn):
    seeds(tmp_path, "sac", [1, 2, 3, 4, 100])
    figure, _ = drawn(tmp_path, center="iqm")
    (points,) = lines_of(figure.axes[0]).values()
    np.testing.assert_allclose(points[:, 1], 3 * UNIT)
    assert figure.get_supylabel() == "evaluation return, IQM and 95 % interval"


def test_training_returns(tmp_path, drawn):
    seeds(tmp_path, "sac", [1, 3])
    figure, _ = drawn(tmp_path, metric="train")
    np.testing.assert_allclose(lines_of(figure.axes[0])["PMOE-SAC K=4 (n = 2)"][:, 1], 1000 + 2 * UNIT)
    assert figure.get_supylabel().startswith("training return")


def test_seeds_shown(tmp_path, drawn):
    seeds(tmp_path, "sac", [1, 2, 6])
    ax = drawn(tmp_path, show_seeds=True)[0].axes[0]
    mean, *thin = ax.get_lines()
    assert len(thin) == 3 and len(ax.get_legend().get_texts()) == 1
    for area, line in zip((1, 2, 6), thin):
        np.testing.assert_allclose(line.get_ydata(), area * UNIT)
        assert line.get_color() == mean.get_color() and line.get_linewidth() < mean.get_linewidth() / 2
    assert len(drawn(tmp_path)[0].axes[0].get_lines()) == 1


def test_smooth_by_hand(tmp_path, drawn):
    make(tmp_path, returns=[4, 8, 0, 10, 2])
    (points,) = lines_of(drawn(tmp_path, window=3)[0].axes[0]).values()
    np.testing.assert_allclose(points[:, 1], [4, 6, 4, 6, 4])


@pytest.mark.parametrize("window", [1, 2, 5, 99])
def test_smooth_is_a_mean_over_the_last_values(window):
    x = np.random.default_rng(0).normal(1e6, 1, size=20)
    expected = [x[max(0, i + 1 - window) : i + 1].mean() for i in range(20)]
    np.testing.assert_allclose(curves.smooth(x, window), expected)


def test_seeds_with_other_steps_are_read_at_the_same_ones(tmp_path, drawn):
    """The mean of lines x and 2x is 1.5x wherever each has its points, from where both begin to where one ends."""
    make(tmp_path, seed=1, steps=[100, 200, 400], returns=[100, 200, 400], done=False)
    make(tmp_path, seed=2, steps=[150, 300, 500], returns=[300, 600, 1000], done=False)
    figure, notes = drawn(tmp_path)
    (points,) = lines_of(figure.axes[0]).values()
    np.testing.assert_allclose(points, [[x, 1.5 * x] for x in (150, 200, 300, 400)])
    assert notes == ["Hopper-v4, PMOE-SAC K=4: drawn up to step 400, which all its seeds have reached"]


def test_seeds_without_a_step_in_common_are_named(tmp_path, drawn):
    make(tmp_path, seed=1, steps=[100, 200], returns=[1, 2], done=False)
    make(tmp_path, seed=2, steps=[300, 500], returns=[1, 2], done=False)
    make(tmp_path, seed=1, k=1)
    figure, notes = drawn(tmp_path)
    assert list(lines_of(figure.axes[0])) == ["SAC (n = 1)"]
    assert notes == ["Hopper-v4, PMOE-SAC K=4: its seeds have no steps in common yet; not drawn"]


def test_thousands_of_episodes_are_drawn_as_stretches(tmp_path, drawn):
    """A line stays a line, and the mean over noise is its mean."""
    generator = np.random.default_rng(0)
    for seed in (1, 2):
        steps = np.sort(generator.choice(np.arange(1, 1_000_000), 5000, replace=False))
        make(tmp_path, seed=seed, steps=steps, returns=steps * 0.01 * seed)
        make(tmp_path, seed=seed, k=1, steps=steps, returns=generator.normal(50, 10, 5000))
    ax = drawn(tmp_path)[0].axes[0]
    noise, line = lines_of(ax).values()
    assert len(line) == 200 and len(noise) == 200
    np.testing.assert_allclose(line[:, 1], line[:, 0] * 0.015, rtol=1e-6)
    assert abs(noise[:, 1].mean() - 50) < 0.5 and noise[:, 1].std() < 3


def test_hours(tmp_path, drawn):
    """A run of two hours and one of four are averaged over the two hours both took."""
    make(tmp_path, seed=1, wall_time=7200, returns=[0, 1, 2, 3])
    make(tmp_path, seed=2, wall_time=14400, returns=[0, 1, 2, 3])
    make(tmp_path, seed=3, done=False)
    make(tmp_path, k=1, done=False)
    figure, notes = drawn(tmp_path, x="time")
    ax = figure.axes[0]
    found = lines_of(ax)
    assert list(found) == ["PMOE-SAC K=4 (n = 2)"] and ax.get_xlabel() == "hours"
    points = found["PMOE-SAC K=4 (n = 2)"]
    np.testing.assert_allclose(points[:, 0], [1, 1.5, 2])
    np.testing.assert_allclose(points[:, 1], [(1 + 0) / 2, (2 + 0.5) / 2, (3 + 1) / 2])
    assert len(notes) == 1 and notes[0].startswith("2 unfinished runs have no time yet")


def test_hours_of_no_finished_run(pmoe_here, tmp_path):
    make(tmp_path / "runs", done=False)
    result = pmoe_here("plot", "runs", "--x", "time")
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and "unfinished" in result.stderr
    assert not (tmp_path / "figures").exists()


def looks_of(root, *ks, algos=("sac",), **fields):
    """The looks of methods, as a key each"""
    for algo in algos:
        for k in ks:
            make(root, algo, k=k, **fields)
    found = curves.styles(runs.find([root])[0])
    return {
        name: (*np.round(look["color"], 3), look["linestyle"], look["marker"], look.get("markerfacecolor"))
        for name, look in found.items()
    }


def test_a_method_looks_the_same_in_every_figure(tmp_path, drawn):
    few = looks_of(tmp_path / "few", 1, 8)
    many = looks_of(tmp_path / "many", 1, 2, 4, 8, 16, algos=[*ALGORITHMS, "my_idea"], env_id="Ant-v5")
    assert few == {name: many[name] for name in few}
    shown = [drawn(tmp_path / name)[0].axes[0].get_lines() for name in ("few", "many")]
    for line in shown[0]:
        (twin,) = [other for other in shown[1] if other.get_label() == line.get_label()]
        for get in ("get_color", "get_linestyle", "get_marker"):
            assert getattr(line, get)() == getattr(twin, get)()


def test_a_variant_beside_it_does_not_change_how_a_method_looks(tmp_path):
    alone = looks_of(tmp_path, 4)
    beside = looks_of(tmp_path, 4, tag="mine")
    assert len(beside) == 2 and beside["PMOE-SAC K=4"] == alone["PMOE-SAC K=4"]


@pytest.mark.parametrize(
    "algos, ks",
    [
        (ALGORITHMS, [1, 2, 4, 8, 10, 14, 16]),
        (["sac"], range(1, 17)),
        (["one_fork", "another", "my_idea", "idea2", "idea3", "entropy"], [4]),
    ],
    ids=["the paper's", "every K", "forks"],
)
def test_no_two_methods_look_alike(tmp_path, algos, ks):
    found = looks_of(tmp_path, *ks, algos=algos)
    twins = [(a, b) for a in found for b in found if a < b and found[a] == found[b]]
    assert len(found) == len(algos) * len(ks) and twins == []


def test_variants_do_not_look_alike(tmp_path):
    for rate in (1e-3, 3e-4, 1e-4, 3e-5):
        found = looks_of(tmp_path, 1, 4, learning_rate=rate)
    assert len(found) == len(set(found.values())) == 10  # with the plain ones


def test_methods_are_told_apart_without_colour():
    """By dashes and markers, full or hollow; in a family, colours differ, too."""
    looks = [(dash, marker) for _, dash, marker in curves.STYLES.values()]
    assert len(set(looks)) == len(looks)
    for family in ([*curves.STYLES][:7], [*curves.STYLES][7:]):
        colours = [curves.STYLES[name][0] for name in family]
        assert len(set(colours)) == len(colours)


def test_profiles(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    for env, scale in (("Hopper-v4", 1), ("Ant-v4", 10), ("Hopper-v5", 1)):
        seeds(tmp_path, "sac", [scale] * 3, k=1, env_id=env)
        seeds(tmp_path, "sac", [2 * scale] if env == "Ant-v4" else [0.5, 1, 1.5, 2], k=2, env_id=env)
    seeds(tmp_path, "mrp-sac", [1], env_id="Ant-v4")
    files, notes = profile.draw(runs.find([tmp_path])[0], tmp_path, None, "mean")
    monkeypatch.undo()
    assert [file.name for file in files] == ["profile.png", "profile.pdf"] and all(x.exists() for x in files)
    assert len(notes) == 1 and notes[0].startswith("MRP K=5 is not among 2 environments")
    both, alone = kept[0].axes
    assert "Ant-v4, Hopper-v4" in both.get_title() and "Hopper-v5" in alone.get_title()
    pmoe = {48: 1, 75: 0.75, 125: 0.5, 198: 0.25}
    pmoe_in_both = {threshold: (share + 1) / 2 for threshold, share in pmoe.items()}  # environments count the same
    for ax, expected in (
        (both, {"SAC (n = 6)": {60: 1, 99: 1, 102: 0}, "PMOE-SAC K=2 (n = 5)": pmoe_in_both}),
        (alone, {"SAC (n = 3)": {60: 1, 99: 1, 102: 0}, "PMOE-SAC K=2 (n = 4)": pmoe}),
    ):
        assert "% of SAC" in ax.get_xlabel() and ax.get_ylabel() == "fraction of runs above"
        assert -0.1 < ax.get_ylim()[0] <= 0 and 1 <= ax.get_ylim()[1] < 1.1
        assert ax.get_xlim()[0] <= 50 and ax.get_xlim()[1] >= 200
        assert {line.get_drawstyle() for line in ax.get_lines()} == {"steps-post"}
        assert list(lines_of(ax)) == list(expected)
        for label, points in lines_of(ax).items():
            for threshold, share in expected[label].items():
                assert points[np.searchsorted(points[:, 0], threshold) - 1, 1] == share, threshold
            assert (np.diff(points[:, 1]) <= 0).all() and points[-1, 1] == 0
    pyplot.close("all")


# The command as a whole


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Short runs on Pendulum: SAC and PMOE-SAC, two seeds each"""
    root = tmp_path_factory.mktemp("trained")
    for k in (1, 2):
        train("sac", root / "runs", k=k, num_seeds=2, total_timesteps=200, eval_every=50, eval_episodes=1)
    return root


def test_from_runs_to_figures(pmoe, pmoe_here, trained, tmp_path):
    command = ["plot", trained / "runs", "--auc", "--profile", "--show-seeds"]
    result = pmoe(*command)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    names = ["curves.png", "curves.pdf", "auc.csv", "auc.md", "auc.tex", "auc_runs.csv"]
    assert {file.name for file in (tmp_path / "figures").iterdir()} == set(names)
    printed = words_of(result.stdout)
    assert result.stdout.splitlines()[-1] == f"wrote {', '.join(f'figures/{name}' for name in names)}"
    assert "4 runs" in printed and "reading runs" not in printed
    for method in ("SAC", "PMOE-SAC K=2"):
        assert f"│ Pendulum-v1 │ {method} │ 1-2 │ 200 │ finished │" in printed
    assert "fewer than five seeds" in printed and "Pendulum-v1, SAC (2)" in printed
    assert "the area of SAC is not positive" in printed and "no performance profile" in printed
    for record, path in zip(table(tmp_path / "figures/auc.csv"), sorted(trained.glob("runs/*/*")), strict=True):
        curve = [table(seed / "eval.csv") for seed in sorted(path.iterdir())]
        x = np.array([[float(row["return_mean"]) for row in rows] for rows in curve])
        assert x.shape == (2, 4) and (record["first"], record["last"]) == ("50", "200")
        assert float(record["mean"]) == pytest.approx(np.mean((x[:, 1:] + x[:, :-1]) / 2))
        assert float(record["final"]) == pytest.approx(x[:, -1].mean())
    pixels = image.imread(tmp_path / "figures/curves.png")
    assert pixels.shape[0] >= 500 and pixels.shape[1] >= 600 and pixels.std() > 0.05
    pdf = (tmp_path / "figures/curves.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/Type3" not in pdf and b"/CreationDate" not in pdf
    before = {name: (tmp_path / "figures" / name).read_bytes() for name in names}
    again = pmoe_here(*command, "--out", "again/figures")
    assert (
        again.returncode == 0 and {name: (tmp_path / "again/figures" / name).read_bytes() for name in names} == before
    )


def test_training_returns_from_the_command_line(pmoe_here, tmp_path):
    seeds(tmp_path / "runs", "sac", [1, 3], k=1)
    (tmp_path / "runs/Hopper-v4/sac-k1/seed1/eval.csv").unlink()
    result = pmoe_here(
        "plot", "runs", "--auc", "--metric", "train", "--center", "iqm", "--smooth", "2", "--out", "here"
    )
    assert result.returncode == 0 and "2 runs" in result.stdout
    (row,) = table(tmp_path / "here/auc.csv")
    assert row["center"] == "iqm" and float(row["iqm"]) == pytest.approx(1002)
    assert "area under the training curve" in (tmp_path / "here/auc.md").read_text()


def test_help_of_plot(pmoe_here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = pmoe_here("plot", "--help").stdout
    options = ("auc", "profile", "reference", "metric", "center", "show-seeds", "smooth", "x", "estimators", "out")
    options += ("routing", "primitives", "tsne", "episodes", "states")
    assert all(f"--{option} " in shown for option in options)


def test_hundreds_of_runs_in_seconds(tmp_path, monkeypatch):
    """Of processor time, which other processes do not lengthen"""
    generator = np.random.default_rng(0)
    for env in ("Hopper-v4", "Ant-v4", "Walker2d-v4"):
        for algo, k in [("sac", k) for k in (1, 2, 4, 8, 16)] + [(x, 4) for x in list(ALGORITHMS)[2:7]]:
            for seed in range(1, 11):
                make(tmp_path / "runs", algo, generator.normal(100, 9, 100).cumsum(), k=k, seed=seed, env_id=env)
    begun = time.process_time()
    files = learning.report([tmp_path / "runs"], tmp_path / "figures", areas=True, profiles=True)
    assert time.process_time() - begun < 30
    assert {file.stem for file in files} == {"curves", "auc", "auc_runs", "profile", "table2"}
    records = table(tmp_path / "figures/auc.csv")
    assert len(records) == 40 and {row["n"] for row in records} == {"10", "30"}
    assert all(a["environment"] <= b["environment"] for a, b in pairwise(records[:30]))
