"""Environments that tell success: at any step of an episode, and at its last."""

import ast
import re
import typing

import gymnasium as gym
import numpy as np
import pytest
from common import LOOPS, SHORT, Toy, is_on_policy, rows_of, same_run, train
from grid_tools import text_of
from runs_on_disk import HEADER, make, seeds
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pmoe.cli import Metric
from pmoe.grid.read import METRICS
from pmoe.plots import evaluate
from pmoe.plots.runs import FILES


class Reaching(Toy):
    """Passes a goal at the third of five steps in two episodes of three, and is at it at the end of one; with
    `passes`, it passes in every episode, and is at the end of none"""

    def __init__(self, key="success", as_array=False, told="always", passes=False):
        super().__init__()
        self.passes = passes
        self.key = key
        self.as_array = as_array
        self.told = told

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.kind = 1 if self.passes else self.np_random.integers(3)
        return obs, info

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        passes = self.kind > 0 and self.step_count == 3
        ends = self.kind == 2 and self.step_count == 5
        success = passes or ends
        ended = self.step_count == 5
        if self.told == "when there is one" and not success:
            return obs, reward, terminated, truncated, {}
        if self.told == "at the end" and not ended:
            return obs, reward, terminated, truncated, {}
        if self.as_array:
            success = np.array([success])
        return obs, reward, terminated, truncated, {self.key: success}


class Telling(Toy):
    """Tells always the same success, a number or what Python reads in a text"""

    def __init__(self, success=None):
        super().__init__()
        self.told = float("nan") if success == "nan" else success
        if isinstance(success, str) and success[0] in "[{'":
            self.told = ast.literal_eval(success)

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"success": self.told}


gym.register("Reaching-v0", Reaching)
gym.register("Telling-v0", Telling)
COLUMNS = ("success", "final_success")


def pairs(rows: list[dict]) -> set:
    return {tuple(float(row[name]) for name in COLUMNS) for row in rows}


@pytest.mark.parametrize("algo", LOOPS)
@pytest.mark.parametrize("options", ["", ",key='is_success'", ",as_array=True", ",told='when there is one'"])
def test_success_of_episodes_and_evaluations(tmp_path, algo, options):
    [path] = train(algo, tmp_path, env_id=f"Reaching-v0{options}", eval_episodes=30)
    episodes = rows_of(path / "episodes.csv")
    assert list(episodes[0]) == ["step", "episodic_return", "episodic_length", *COLUMNS]
    # Never, on the way only, at the end as well; at the end only is none of this environment's kinds.
    assert pairs(episodes) == {(0, 0), (1, 0), (1, 1)}
    for row in rows_of(path / "eval.csv"):
        share, final_share = (float(row[name]) for name in COLUMNS)
        # Of 30 episodes, two thirds and one: in all but one in ten thousand.
        assert 0.33 < share < 0.97
        assert 0.03 < final_share < 0.67
        assert np.isclose(share * 30, round(share * 30))
        assert final_share < share


def test_success_that_is_told_at_the_end_only(tmp_path):
    """As some do; after a stop before the end of the first episode too"""
    options = {"env_id": "Reaching-v0,told='at the end'", "eval_every": 200}
    [path] = train("sac", tmp_path / "straight", **options)
    train("sac", tmp_path / "stopped", **{**options, "total_timesteps": 3})
    [resumed] = train("sac", tmp_path / "stopped", **options, resume=True)
    same_run(path, resumed)
    assert pairs(rows_of(path / "episodes.csv")) == {(0, 0), (1, 1)}
    for row in rows_of(path / "eval.csv"):
        assert row["success"] == row["final_success"]


def test_a_first_success_widens_the_rows_before_it(tmp_path):
    """Where success alone is told, and the first episodes have none: seeds for which that is so"""
    widened = 0
    for path in train("sac", tmp_path, env_id="Reaching-v0,told='when there is one'", num_seeds=5):
        rows = rows_of(path / "episodes.csv")
        assert pairs(rows) == {(0, 0), (1, 0), (1, 1)}
        widened += pairs(rows[:1]) == {(0, 0)}
    assert widened


@pytest.mark.parametrize("odd", ["nan", "[1, 0]", "'no'", "[]", "{}"])
def test_what_is_no_number_is_not_told(tmp_path, odd):
    """Gymnasium has no contract of success: the word may mean anything."""
    [path] = train("sac", tmp_path, env_id=f"Telling-v0,success={odd!r}", total_timesteps=100)
    assert list(rows_of(path / "episodes.csv")[0]) == ["step", "episodic_return", "episodic_length"]


@pytest.mark.parametrize("number, share", [(2.5, "1.0"), (-1, "0.0"), (0.25, "0.25")])
def test_a_success_is_from_0_to_1(tmp_path, number, share):
    [path] = train("sac", tmp_path, env_id=f"Telling-v0,success={number}", total_timesteps=100)
    assert {row["success"] for row in rows_of(path / "episodes.csv")} == {share}


def test_tensorboard_has_success(tmp_path):
    """That of a row which widens the file, too"""
    [path] = train("sac", tmp_path, env_id="Reaching-v0,told='when there is one'", eval_episodes=6)
    events = EventAccumulator(str(path))
    events.Reload()
    for name in ("episodes", "eval"):
        told = events.Scalars(f"charts/{name}_success")
        values = {event.step: event.value for event in told}
        rows = rows_of(path / f"{name}.csv")
        for step, value in values.items():
            (row,) = [row for row in rows if int(row["step"]) == step]
            assert float(row["success"]) == pytest.approx(value)
        reached = [row for row in rows if float(row["success"]) > 0]
        assert {int(row["step"]) for row in reached} <= set(values)


def test_where_there_is_none_there_is_no_column(tmp_path):
    [path] = train("sac", tmp_path, env_id="ToyTerminates-v0", total_timesteps=100)
    assert list(rows_of(path / "episodes.csv")[0]) == ["step", "episodic_return", "episodic_length"]


@pytest.mark.parametrize("algo", LOOPS)
def test_a_goal_passed_before_a_checkpoint_is_not_forgotten(tmp_path, algo):
    """A run stopped at the fourth step of an episode, which passed the goal at its third, and one that is
    not"""
    options = {"env_id": "Reaching-v0,passes=True", "total_timesteps": 318, "eval_every": 318}
    if is_on_policy(algo):
        options["num_steps"] = 53
    [straight] = train(algo, tmp_path / "straight", **options)
    assert pairs(rows_of(straight / "episodes.csv")) == {(1, 0)}
    train(algo, tmp_path / "stopped", **{**options, "total_timesteps": 159})
    [resumed] = train(algo, tmp_path / "stopped", **options, resume=True)
    same_run(straight, resumed)


# What is shown of it


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Three seeds of two methods whose environment tells success, and one whose environment does not"""
    root = tmp_path_factory.mktemp("told")
    for k in (1, 2):
        train("sac", root, env_id="Reaching-v0", k=k, num_seeds=3, eval_episodes=6)
    train("sac", root, env_id="Pendulum-v1", total_timesteps=100)
    return root


def test_plot_of_success(pmoe_here, told, tmp_path):
    shown = pmoe_here("plot", told, "--metric", "success", "--auc")
    assert shown.returncode == 0, shown.stderr
    assert "eval.csv has no column 'success'" in " ".join(shown.stdout.split())
    rows = rows_of(tmp_path / "figures/auc.csv")
    expected = {}
    for k, method in ((1, "SAC"), (2, "PMOE-SAC")):
        shares = []
        for file in told.glob(f"Reaching-v0/sac-k{k}-*/seed*/eval.csv"):
            shares += [float(row["success"]) for row in rows_of(file)]
        assert len(shares) == 6
        # Two evaluations at equal distances: the area's mean height is their mean.
        expected[method] = np.mean(shares)
    found = {row["method"].split(" K=")[0]: float(row["mean"]) for row in rows}
    assert found == pytest.approx(expected)
    table = (tmp_path / "figures/auc.md").read_text()
    assert "area under the success curve" in table
    for row in rows:
        names = ("mean", "low", "high", "iqm", "final")
        mean, low, high, iqm, final = (f"{float(row[name]):.3f}" for name in names)
        assert f"| 3 | {mean} ({low}, {high}) | {iqm} | {final} |" in table
    for text in (table, shown.stdout):
        assert "final success" in text
        assert "final return" not in text
    assert (tmp_path / "figures/curves.png").exists()


@pytest.fixture
def partly_told(tmp_path):
    """Five seeds of an environment that tells nothing but success, two of which never have any; and one of
    another, which tells none"""
    head = HEADER.replace("\n", ",success,final_success\n")
    for path in seeds(tmp_path / "runs", "sac", [1] * 5, k=1, env_id="Reaching-v0"):
        if path.name in ("seed1", "seed2", "seed5"):
            (path / "eval.csv").write_text(head + "500000,3,1,10,0.8,0\n1000000,4,1,10,1,0.5\n")
    make(tmp_path / "runs", k=1)
    return tmp_path


@pytest.mark.parametrize("exported", [False, True])
def test_seeds_that_never_succeed_count(pmoe_here, partly_told, exported):
    """Without them the mean would be that of the seeds that do."""
    folder = "runs"
    if exported:
        assert pmoe_here("export", "runs", "-o", "table.csv").returncode == 0
        folder = "table.csv"
    shown = pmoe_here("plot", folder, "--metric", "success", "--auc")
    assert shown.returncode == 0, shown.stderr
    [row] = rows_of(partly_told / "figures/auc.csv")
    assert row["n"] == "5"
    assert float(row["mean"]) == pytest.approx(0.6 * 0.9)
    assert float(row["final"]) == pytest.approx(0.6)
    assert (float(row["low"]), float(row["high"])) == (0, 1)  # stretched, as of few runs, they lie outside
    text = " ".join(shown.stdout.split())
    counted = re.findall(r"(seed\d): eval.csv has no column 'success'[^;]*; other runs of Reaching-v0", text)
    assert counted == ["seed3", "seed4"]
    assert "its success counts as 0" in text
    assert re.search("Hopper-v4/sac-k1/seed1: eval.csv has no column 'success'[^;]*; left out", text)


def test_a_grid_can_ask_for_success(pmoe_here, told, tmp_path):
    """With the metric of [plot], which --metric overrides"""
    shared = {**SHORT["sac"], "env": "Reaching-v0", "run_dir": str(told), "eval_episodes": 6}
    methods = [{"algo": "sac", "k": [1, 2], "seed": [1, 2, 3]}]
    text = text_of(shared, methods, '[plot]\nauc = true\nmetric = "success"\n')
    (tmp_path / "grid.toml").write_text(text)
    for options, curve in (([], "success"), (["--metric", "eval"], "evaluation")):
        shown = pmoe_here("plot", "grid.toml", *options)
        assert shown.returncode == 0, shown.stderr
        assert "6 of 6 runs have begun" in shown.stdout
        table = (tmp_path / "figures/auc.md").read_text()
        assert f"area under the {curve} curve" in table


def test_grids_that_differ_in_what_holds_for_all(pmoe_here, partly_told, tmp_path):
    """Success would leave out the runs of the other grid, whose environment tells none."""
    shared = {"k": 1, "run_dir": "runs"}
    asked = {"metric": "success", "reference": "sac-k1"}
    for name, env, plot in (("a", "Reaching-v0", asked), ("b", "Hopper-v4", {})):
        lines = "".join(f"{option} = '{value}'\n" for option, value in plot.items())
        text = text_of({**shared, "env": env}, [{"algo": "sac", "seed": [1]}], f"[plot]\nauc = true\n{lines}")
        (tmp_path / f"{name}.toml").write_text(text)
    for files in (("a.toml", "b.toml"), ("b.toml", "a.toml")):
        shown = pmoe_here("plot", *files)
        assert shown.returncode == 0, shown.stderr
        for option in asked:
            assert shown.stdout.count(f"differ in {option}, which is left out: --{option} says") == 1
        rows = rows_of(tmp_path / "figures/auc.csv")
        assert {row["environment"] for row in rows} == {"Hopper-v4", "Reaching-v0"}
    shown = pmoe_here("plot", "a.toml", "b.toml", "--metric", "success")
    assert "differ in metric" not in shown.stdout
    shown = pmoe_here("plot", "a.toml", "a.toml")
    assert "differ" not in shown.stdout
    assert "final success" in shown.stdout


def test_the_metrics_of_a_grid_are_those_of_the_option():
    assert typing.get_args(METRICS) == tuple(Metric)
    assert typing.get_args(METRICS) == tuple(FILES)


def test_eval_of_success(told, tmp_path, capsys):
    """It repeats the last evaluation, whose shares stand in the run's eval.csv."""
    run, *_ = sorted(told.glob("Reaching-v0/sac-k1-*/seed*"))
    last = rows_of(run / "eval.csv")[-1]
    evaluate.report([run], tmp_path, 6, [0.0])
    words = capsys.readouterr().out.split()
    for name in COLUMNS:
        share = float(last[name])
        assert f"{share:.0%}" in words

    evaluate.report([told], tmp_path, 6, [0.0])
    rows = rows_of(tmp_path / "eval.csv")
    assert len(rows) == 7
    for row in rows:
        if row["environment"] == "Pendulum-v1":
            assert row["success"] == ""
        elif row["method"] == "SAC" and row["seed"] == "1":
            for name in COLUMNS:
                assert float(row[name]) == pytest.approx(float(last[name]))

    # The table has the mean over seeds, for each sigma.
    evaluate.report([told], tmp_path, 6, [0.0, 0.5])
    table = (tmp_path / "eval.md").read_text()
    assert "|  | n | sigma 0 | success | final success | sigma 0.5 | success | final success |" in table
    assert "|  | n | sigma 0 | sigma 0.5 |" in table  # of Pendulum
    cells = []
    for name in COLUMNS:
        shares = [float(row[name]) for row in rows if row["method"] == "SAC" and row[name]]
        cells.append(f"{np.mean(shares):.0%}")
    (row,) = [line for line in table.splitlines() if line.startswith("| SAC | 3 |")]
    assert row.split(" | ")[3:5] == cells


def test_eval_counts_a_seed_that_has_none_as_0(tmp_path, capsys):
    """Where success alone is told, and other seeds have some"""
    env_id = "Reaching-v0,told='when there is one'"
    train("sac", tmp_path, env_id=env_id, num_seeds=6, eval_episodes=1, total_timesteps=100)
    evaluate.report([tmp_path], tmp_path, 1, [0.0])
    shares = [float(row["success"]) for row in rows_of(tmp_path / "eval.csv")]
    assert set(shares) == {0, 1}
