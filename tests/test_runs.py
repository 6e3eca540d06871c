"""Runs are found, read and named; what is damaged or unfinished is named too, and nothing ends in a
traceback."""

import json
import os
import shutil
import time
import warnings
from pathlib import Path

import pytest
from common import ALGORITHMS, MODULES, json_of, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_on_disk import HEADER, UNIT, edit, labels, make, put, read_all, remove, seeds, set_arg, write_json

from pmoe.plots import runs, style

# Methods


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
    assert set(style.STYLES) == {"SAC", "PPO", *runs.NAMES.values()}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_what_has_no_say_in_what_is_learnt_is_the_same_for_plots_as_for_algorithms(algo):
    assert set(MODULES[algo].FREE) <= set(runs.FREE)


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ({}, {"learning_rate": 3e-4}, ["learning_rate=0.001", "learning_rate=0.0003"]),
        ({}, {"gamma": 0.9, "tau": 0.1}, ["", "gamma=0.9 tau=0.1"]),
        ({"alpha": "auto"}, {"alpha": 0.1}, ["alpha=auto", "alpha=0.1"]),
        ({"gamma": 0.9, "tau": 0.1}, {"gamma": 0.8}, ["gamma=0.9 tau=0.1", "gamma=0.8 tau=0.005"]),
        ({"tag": "one"}, {"tag": "other"}, ["one", "other"]),
        ({}, {"tag": "mine"}, ["", "mine"]),
        ({}, {"tag": "mine", "gamma": 0.9}, ["", "mine"]),
        ({"gamma": 0.8}, {"tag": "mine", "gamma": 0.9}, ["gamma=0.8", "mine"]),
        ({"tag": "one"}, {"tag": "two", "gamma": 0.9}, ["one", "two"]),
    ],
)
def test_a_label_is_the_tag_or_else_what_differs(tmp_path, one, other, expected):
    for fields in (one, other):
        seeds(tmp_path, "sac", [1, 2], **fields)
    seeds(tmp_path, "gating-sac", [1], gamma=0.7, tag="alone")  # of one configuration
    found, notes = runs.find([tmp_path])
    methods = {f"PMOE-SAC K=4 {differences}".rstrip() for differences in expected}
    assert {run.method for run in found} == methods | {"Gating K=4"}
    assert len(found) == 5
    assert not notes


def test_a_tag_that_stands_for_two_configurations_is_not_enough(tmp_path):
    """Else their runs would be pooled."""
    make(tmp_path / "a", tag="mine")
    make(tmp_path / "b", tag="mine", gamma=0.9)
    make(tmp_path / "c", tag="other", gamma=0.8)
    methods = {f"PMOE-SAC K=4 {words}" for words in ("mine gamma=0.99", "mine gamma=0.9", "other")}
    assert set(labels(tmp_path).values()) == methods


def test_two_defaults_are_both_named(tmp_path):
    """Of runs before and after a default changed, in folders of one name"""
    make(tmp_path / "before")
    set_arg("gamma", 0.9)(make(tmp_path / "after"))
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4 gamma=0.99", "PMOE-SAC K=4 gamma=0.9"}


def test_a_folders_name_or_a_label_says_what_is_renamed(tmp_path):
    make(tmp_path)
    make(tmp_path, k=1)
    folder = make(tmp_path, gamma=0.9).parent.name
    make(tmp_path, gamma=0.9, env_id="Ant-v4")
    found, _ = runs.find([tmp_path])
    runs.relabel(found, [f"{folder}=Mine, a=b", "PMOE-SAC K=4 gamma=0.99=Plain"])
    methods = {(run.env, run.method) for run in found}
    named = {(env, "Mine, a=b") for env in ("Ant-v4", "Hopper-v4")}
    assert methods == named | {("Hopper-v4", "SAC"), ("Hopper-v4", "Plain")}


def test_what_a_method_is_called_does_not_change_its_place(tmp_path):
    folders = [make(tmp_path, gamma=gamma).parent.name for gamma in (0.9, 0.95, 0.98)]
    found, _ = runs.find([tmp_path])
    before = [group[0].args["gamma"] for group in runs.by_method(found)["Hopper-v4"].values()]
    runs.relabel(found, [f"{folder}={name}" for folder, name in zip(folders, "zya")])
    groups = runs.by_method(found)["Hopper-v4"]
    assert list(groups) == ["z", "y", "a"]
    assert [group[0].args["gamma"] for group in groups.values()] == before


@pytest.mark.parametrize(
    "label, words",
    [
        ("sac-k5=Mine", ["--label sac-k5=Mine: no run is called so", "nearest: sac-k4"]),
        ("PMOE-SAC K=5=Mine", ["nearest: PMOE-SAC K"]),
        ("sac-k4", ["give NAME=TEXT, as in sac-k4=Mine"]),
        ("sac-k4=", ["give NAME=TEXT"]),
        ("sac-k4=SAC", ["SAC and PMOE-SAC K=4 would both be called 'SAC', on Hopper-v4"]),
    ],
)
def test_names_that_cannot_be(pmoe_here, tmp_path, label, words):
    make(tmp_path / "runs", k=1)
    make(tmp_path / "runs")
    refused(pmoe_here("plot", "runs", "--label", label), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_what_has_no_say_in_what_is_learnt_makes_no_other_method(tmp_path):
    make(tmp_path, seed=1, device="cpu", compile="off", checkpoint_every=7, num_seeds=1)
    make(tmp_path, seed=2, run_dir="elsewhere", track=True)
    make(tmp_path, seed=3, eval_every=500, eval_episodes=3)
    make(tmp_path, seed=4, total_timesteps=2_000_000)
    assert list(labels(tmp_path).values()) == ["PMOE-SAC K=4"] * 4


def test_old_names_of_directories_make_no_other_method(tmp_path):
    """A hash used to stand for how often a run was evaluated and how long it was."""
    make(tmp_path, seed=1)
    path = make(tmp_path, seed=2, eval_every=500)
    path.parent.rename(tmp_path / "Hopper-v4/sac-k4-a1b2c3")
    make(tmp_path, seed=1)
    found, notes = runs.find([tmp_path])
    assert {run.method for run in found} == {"PMOE-SAC K=4"}
    assert len(notes) == 1


def test_the_number_of_steps_is_a_setting_where_it_changes_what_is_learnt(tmp_path):
    for steps in (10_000, 20_000):
        make(tmp_path, "ppo", anneal_lr=True, total_timesteps=steps)
    methods = sorted(labels(tmp_path).values())
    assert methods == ["PMOE-PPO K=4 10,000 steps", "PMOE-PPO K=4 20,000 steps"]
    make(tmp_path, "ppo")
    methods = sorted(labels(tmp_path).values())
    assert methods[0] == "PMOE-PPO K=4 anneal_lr=False"
    assert methods[1:] == [f"PMOE-PPO K=4 anneal_lr=True {steps} steps" for steps in ("10,000", "20,000")]
    assert list(runs.by_method(runs.find([tmp_path])[0])["Hopper-v4"]) == methods


def test_one_number_of_steps_is_no_part_of_a_label(tmp_path):
    make(tmp_path, "ppo", anneal_lr=True)
    make(tmp_path, "ppo", total_timesteps=7)
    assert set(labels(tmp_path).values()) == {"PMOE-PPO K=4 anneal_lr=True", "PMOE-PPO K=4 anneal_lr=False"}


def test_two_forks_of_one_name_are_two_methods(tmp_path):
    for folder in ("one", "other"):
        seeds(tmp_path / folder, "my_idea", [1, 2], file=f"/home/{folder}/my_idea.py")
    make(tmp_path / "other", "my_idea", k=8, file="/home/other/my_idea.py")
    make(tmp_path / "old", "my_idea")  # its config.json names no file
    found, notes = runs.find([tmp_path])
    methods = {(run.path.relative_to(tmp_path).parts[0], run.method) for run in found}
    assert methods == {
        ("one", "my_idea K=4 one"),
        ("other", "my_idea K=4 other"),
        ("other", "my_idea K=8 other"),
        ("old", "my_idea K=4"),
    }
    assert len(found) == 6
    assert not notes


def test_forks_in_folders_of_one_name(tmp_path):
    for i, folder in enumerate(("/a/idea", "/b/idea", "/b/other/idea", "/"), 1):
        make(tmp_path, "my_idea", seed=i, file=f"{folder}/my_idea.py")
    folders = [label.removeprefix("my_idea K=4 ") for label in labels(tmp_path).values()]
    assert folders == ["a/idea", "b/idea", "other/idea", "/"]


def test_forks_may_have_other_options(tmp_path):
    """They are methods of their own, so that none of them lacks anything."""
    make(tmp_path, "my_idea", file="/a/my_idea.py", lacks=["tau"])
    for rate in (1e-4, 1e-3):
        make(tmp_path / "b", "my_idea", file="/b/my_idea.py", learning_rate=rate)
    found, notes = runs.find([tmp_path])
    names = ["my_idea K=4 a", "my_idea K=4 b learning_rate=0.0001", "my_idea K=4 b learning_rate=0.001"]
    assert sorted(run.method for run in found) == names
    assert not notes


def test_the_projects_algorithms_are_the_same_wherever_they_are_installed(tmp_path):
    make(tmp_path, seed=1, file="/one/pmoe/pmoe_sac.py")
    make(tmp_path, seed=2, file="/other/site-packages/pmoe/pmoe_sac.py")
    make(tmp_path, "my_idea", seed=1, file="/one/my_idea.py")
    make(tmp_path, "my_idea", seed=2, file="/one/my_idea.py")
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4", "my_idea K=4"}


def test_a_tag_that_tells_nothing_apart_is_no_part_of_a_label(tmp_path):
    make(tmp_path, tag="mine")
    make(tmp_path, env_id="Ant-v4")
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4"}


def test_a_field_that_older_runs_lack(tmp_path):
    """Where the newer ones have its default, they are the same; elsewhere, another method."""
    make(tmp_path, seed=1, lacks=["tau"])
    make(tmp_path, seed=2)
    assert set(labels(tmp_path).values()) == {"PMOE-SAC K=4"}
    path = make(tmp_path, seed=2, tau=0.1)
    tag = path.parent.name.removeprefix("sac-k4-")
    methods = sorted(labels(tmp_path).values())
    assert methods == ["PMOE-SAC K=4", "PMOE-SAC K=4", f"PMOE-SAC K=4 {tag}"]


def test_the_same_seed_twice(tmp_path):
    first = make(tmp_path / "a", seed=1)
    make(tmp_path / "a", seed=2)
    again = make(tmp_path / "b", seed=1)
    found, notes = runs.find([tmp_path])
    assert len(found) == 2
    assert notes == [f"{again}: the same seed of the same method as {first}; left out"]


@pytest.mark.parametrize("finished", ["a", "b"])
def test_of_the_same_seed_the_finished_run_is_kept(tmp_path, finished):
    paths = {name: make(tmp_path / name, done=name == finished) for name in "ab"}
    kept = paths.pop(finished)
    (other,) = paths.values()
    (run,), (note,) = runs.find([tmp_path])
    assert run.path == kept
    assert note.startswith(str(other))


@pytest.mark.parametrize("done", [True, False])
def test_of_the_same_seed_the_longer_run_is_kept(tmp_path, done):
    make(tmp_path / "a", total_timesteps=1000)
    longer = make(tmp_path / "b", total_timesteps=2000, done=done)
    (run,), _ = runs.find([tmp_path])
    assert run.path == longer


def test_methods_stand_in_the_order_of_the_papers_legends(tmp_path):
    """Forks come last; how long a run is has no say."""
    for algo, k in (
        ("my_idea", 4),
        ("dac", 4),
        ("sac", 4),
        ("gating-sac", 4),
        ("sac", 2),
        ("ppo", 1),
        ("sac", 1),
    ):
        make(tmp_path, algo, k=k, total_timesteps=1000 + k)
    found, _ = runs.find([tmp_path])
    methods = list(runs.by_method(found)["Hopper-v4"])
    expected = ["SAC", "PPO", "PMOE-SAC K=2", "PMOE-SAC K=4", "Gating K=4", "DAC K=4", "my_idea K=4"]
    assert methods == expected


# Folders


def test_paths_that_overlap_are_read_once(tmp_path, monkeypatch):
    path = make(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    for paths in (["runs", "runs/Hopper-v4"], ["runs/Hopper-v4", "runs"], ["runs", path], ["runs", "runs"]):
        found, notes = runs.find(list(map(Path, paths)))
        assert len(found) == 1, paths
        assert not notes


@pytest.mark.parametrize("within", [".", "..", "../.."])
def test_a_run_is_named_wherever_one_stands(tmp_path, monkeypatch, within):
    path = make(tmp_path, env_id="Ant-v4", lacks=["gamma"], tag="old")
    make(tmp_path, env_id="Ant-v4", gamma=0.9, tag="new")
    monkeypatch.chdir(path)
    found, _ = runs.find([Path(within)])
    expected = {"old", "new"} if within == "../.." else {"old"}
    assert {run.tag for run in found} == expected


def test_what_lies_beside_and_above_runs_hides_none(tmp_path):
    path = make(tmp_path / "runs", returns=[1, 2])
    for folder in (tmp_path / "runs", path.parent, path / "checkpoint"):
        folder.mkdir(exist_ok=True)
        (folder / "notes.csv").write_text("none of ours")
    _, notes = runs.find([tmp_path])
    assert notes == []
    (tmp_path / "runs/config.json").write_text('{"of": "somebody else"}')
    (run,), _ = read_all(tmp_path)
    assert run.path == path


def test_a_run_behind_a_link_is_read(tmp_path):
    make(tmp_path / "runs", seed=1)
    path = make(tmp_path / "disk", env_id="Ant-v4")
    (tmp_path / "runs/Ant-v4").symlink_to(path.parent.parent)
    found, _ = read_all(tmp_path / "runs")
    assert len(found) == 2


def test_links_may_go_in_circles(tmp_path):
    path = make(tmp_path / "runs")
    (path.parent / "above").symlink_to(tmp_path / "runs")
    found, _ = runs.find([tmp_path / "runs"])
    assert len(found) == 1


# Damage


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
    "short row": (
        edit("eval.csv", "500000,0.5,0.5,10", "500000"),
        ["eval.csv is damaged: line 3 does not have 4 columns"],
    ),
    "two rows in one": (edit("eval.csv", "10\n5", "105", count=1), ["eval.csv is damaged"]),
    "steps go back": (
        edit("eval.csv", "750000,", "400000,"),
        ["is damaged: after step 500000 comes an earlier one"],
    ),
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
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path, damage):
    change, words = LEFT_OUT[damage]
    good = make(tmp_path, seed=1)
    bad = make(tmp_path, seed=2)
    change(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, notes = read_all(tmp_path)
    assert [run.path for run in found] == [good]
    (note,) = [line for line in notes.splitlines() if line.startswith(f"{bad}: ")]
    assert note.endswith("; left out")
    for word in words:
        assert word in note


def replace_by_folder(path: Path) -> None:
    (path / "done.json").unlink()
    (path / "done.json").mkdir()


LAST_ROW = "1000000,2.0,0.5,10\n"
DAMAGED = ["done.json is damaged; taken as unfinished", "unfinished: seed 2"]
KEPT = {  # what is done to a run, its last step then, and what is said of it
    "nothing": (lambda path: None, 1_000_000, []),
    "half a line": (edit("eval.csv", LAST_ROW, LAST_ROW[:9]), 750_000, ["half-written last line"]),
    "no end": (edit("eval.csv", LAST_ROW, LAST_ROW.strip()), 750_000, ["half-written last line"]),
    "NaN": (
        edit("eval.csv", "500000,0.5", "500000,nan"),
        1_000_000,
        ["1 of its 4 rows are not finite or too large, left out"],
    ),
    "infinite": (
        edit("eval.csv", "500000,0.5", "500000,-inf"),
        1_000_000,
        ["1 of its 4 rows are not finite"],
    ),
    "Windows": (edit("eval.csv", "\n", "\r\n"), 1_000_000, []),
    "truncated": (
        edit("eval.csv", LAST_ROW, ""),
        750_000,
        ["finished, but eval.csv ends at step 750,000 of 1,000,000"],
    ),
    "unfinished": (remove("done.json"), 1_000_000, ["unfinished: seed 2 at 1,000,000 of 1,000,000"]),
    "damaged done.json": (put("done.json", '{"st'), 1_000_000, DAMAGED),
    "empty done.json": (put("done.json", ""), 1_000_000, DAMAGED),
    "another done.json": (put("done.json", "[]"), 1_000_000, DAMAGED),
    "done.json without a step": (put("done.json", '{"wall_time": 5.0}'), 1_000_000, DAMAGED),
    "time is text": (edit("done.json", "3600.0", '"an hour"'), 1_000_000, DAMAGED),
    "done.json is a folder": (replace_by_folder, 1_000_000, DAMAGED),
}


@pytest.mark.parametrize("damage", KEPT)
def test_a_run_that_is_not_whole_is_named_and_read_as_far_as_it_goes(tmp_path, damage):
    change, last, words = KEPT[damage]
    good = make(tmp_path, seed=1)
    bad = make(tmp_path, seed=2)
    change(bad)
    found, notes = read_all(tmp_path)
    assert [(run.path, run.steps[-1]) for run in found] == [(good, 1_000_000), (bad, last)]
    for word in words:
        assert word in notes
    assert str(good) not in notes
    # A note on what is unfinished names seeds and no paths.
    damaged = bool(words) and damage != "unfinished"
    assert (str(bad) in notes) == damaged
    unfinished = found[1].wall_time is None
    assert unfinished == ("unfinished: seed 2" in notes)


def test_columns_are_found_by_name(tmp_path):
    path = make(tmp_path)
    (path / "eval.csv").write_text("return_std,return_mean,note,step\n1,-5,7,100\n2,-6,7,200\n")
    (run,), _ = runs.find([tmp_path])
    assert run.steps.tolist() == [100, 200]
    assert run.returns.tolist() == [-5, -6]


@pytest.mark.parametrize("name", ["config.json", "eval.csv", "done.json"])
def test_a_file_cut_anywhere_is_no_traceback(tmp_path, name):
    good = make(tmp_path, seed=1)
    bad = make(tmp_path, seed=2, returns=-1234.5678 * UNIT)
    (whole,), _ = runs.find([bad])
    text = (bad / name).read_bytes()
    stride = 1 if name == "eval.csv" else 7
    for end in range(0, len(text), stride):
        (bad / name).write_bytes(text[:end])
        found, notes = read_all(tmp_path)
        assert found[0].path == good
        assert str(bad) in notes
        for run in found[1:]:
            rows = len(run.steps)
            assert (run.steps == whole.steps[:rows]).all()
            assert (run.returns == whole.returns[:rows]).all()
        has_rows = name == "eval.csv" and text[:end].count(b"\n") > 1
        is_read = name == "done.json" or has_rows
        assert len(found) == 1 + is_read


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["config.json", "eval.csv", "done.json"]), st.integers(0, 2000), st.binary(max_size=9))
def test_bytes_in_the_wrong_place_are_no_traceback(tmp_path_factory, name, place, junk):
    root = tmp_path_factory.mktemp("runs")
    good = make(root, seed=1)
    bad = make(root, seed=2)
    text = (bad / name).read_bytes()
    begin = place % len(text)
    end = begin + len(junk)
    (bad / name).write_bytes(text[:begin] + junk + text[end:])
    found, _ = read_all(root)
    assert found[0].path == good
    shutil.rmtree(root)


# Progress


def test_a_run_that_is_made_longer_is_unfinished(tmp_path):
    """Its config.json has the new number of steps before the old done.json is gone."""
    path = make(tmp_path, total_timesteps=1000)
    set_arg("total_timesteps", 2000)(path)
    (run,), notes = read_all(tmp_path)
    assert run.wall_time is None
    assert "unfinished: seed 1 at 1,000 of 2,000 steps" in notes


def test_unfinished_seeds_of_different_length(tmp_path):
    for seed, steps, budget in (
        (1, 300, 1000),
        (2, 300, 1000),
        (3, 500, 1000),
        (4, 700, 2000),
        (5, 2000, 2000),
    ):
        make(tmp_path, seed=seed, steps=[100, steps], returns=[0, 1], total_timesteps=budget, done=seed == 5)
    found, _ = runs.find([tmp_path])
    table, notes = runs.overview(found, "eval")
    expected = "seed 1-2 at 300; seed 3 at 500 of 1,000; seed 4 at 700 of 2,000 steps, written 0 s ago"
    assert notes == [f"Hopper-v4, PMOE-SAC K=4: unfinished: {expected}"]
    cells = [list(column.cells) for column in table.columns]
    assert cells == [["Hopper-v4"], ["PMOE-SAC K=4"], ["1-5"], ["300 to 2,000"], ["4 unfinished"]]


def test_how_long_ago_a_run_was_written(tmp_path):
    path = make(tmp_path, done=False)
    before = time.time() - 8000
    os.utime(path / "eval.csv", (before, before))
    _, notes = read_all(tmp_path)
    assert "written 2 h ago" in notes


@pytest.mark.parametrize(
    "age, text", [(-3, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_ago(age, text):
    assert runs.ago(age) == f"{text} ago"


@pytest.mark.parametrize(
    "seeds, text", [([1], "1"), ([3, 1, 2], "1-3"), ([1, 3, 5], "1, 3, 5"), ([7, 1, 2, 9, 8], "1-2, 7-9")]
)
def test_spans(seeds, text):
    assert runs.spans(seeds) == text


def test_few_seeds_are_said_to_be_few(tmp_path):
    seeds(tmp_path, "sac", [1, 2, 3], k=1)
    seeds(tmp_path, "sac", [1, 2, 3, 4, 5])
    _, notes = read_all(tmp_path)
    assert "fewer than five seeds" in notes
    assert "Hopper-v4, SAC (3)" in notes
    assert "PMOE-SAC" not in notes.splitlines()[-1]


def test_many_methods_of_few_seeds_are_counted(tmp_path):
    for k in range(1, 6):
        make(tmp_path, k=k)
    _, notes = read_all(tmp_path)
    assert notes.splitlines()[-1].endswith("only P(better) has one: all 5")


def test_a_label_that_hides_options_has_a_note(tmp_path):
    """What all runs of an environment have is in no label, which elsewhere may stand for the defaults."""
    (path,) = seeds(tmp_path, "sac", [1], env_id="Bumps-v0", backprop="all")
    seeds(tmp_path, "sac", [1], env_id="Bumps-v0", backprop="all", k=1)
    seeds(tmp_path, "sac", [1], env_id="Hopper-v4")
    _, notes = read_all(tmp_path)
    (note,) = [line for line in notes.splitlines() if "not the defaults" in line]
    assert note.startswith("Bumps-v0, SAC (sac-k1-")
    assert f"PMOE-SAC K=4 ({path.parent.name})" in note
    make(tmp_path, env_id="Bumps-v0", backprop="max")
    _, notes = read_all(tmp_path)
    assert "PMOE-SAC K=4 (" not in notes.split("not the defaults")[0]


def test_runs_of_a_file_that_has_changed_are_noted(tmp_path):
    """Two of one text, one of another; runs of two methods may differ."""
    for seed, source in ((1, "one"), (2, "one"), (3, "another")):
        path = make(tmp_path, seed=seed)
        config = json_of(path / "config.json")
        write_json(path / "config.json", config | {"source": source})
    other = make(tmp_path, "ppo")
    _, notes = read_all(tmp_path)
    (note,) = [line for line in notes.splitlines() if "texts of its file" in line]
    assert note.startswith("Hopper-v4, PMOE-SAC K=4: runs of 2 texts of its file: pmoe diff ")
    for seed in (2, 3):
        assert str(path.with_name(f"seed{seed}")) in note
    assert str(other) not in note


def test_episodes_that_end_at_one_step_are_one_point(tmp_path):
    """As those of PPO's parallel environments do"""
    make(tmp_path, "ppo", steps=[10, 20, 20, 30], returns=[1, 2, 6, 3])
    (run,), _ = runs.find([tmp_path], "train")
    assert run.steps.tolist() == [10, 20, 30]
    assert run.returns.tolist() == [1001, 1004, 1003]


def test_evaluations_that_stand_at_one_step_are_averaged_with_a_note(tmp_path):
    make(tmp_path, steps=[10, 20, 20, 1_000_000], returns=[1, 2, 6, 3])
    (run,), notes = read_all(tmp_path)
    assert run.returns.tolist() == [1, 4, 3]
    assert "eval.csv: 1 steps stand there more than once, averaged" in notes


def test_the_file_of_an_algorithm_is_read(tmp_path):
    make(tmp_path, "my_idea", seed=1, file="/a/my_idea.py")
    odd = make(tmp_path, "my_idea", seed=2)
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"file": None}))
    found, _ = runs.find([tmp_path])
    assert [run.file for run in found] == ["/a/my_idea.py", ""]
