"""Environments that tell success: at any step of an episode, and at its last."""

import gymnasium as gym
import numpy as np
import pytest
from common import LOOPS, Toy, is_on_policy, rows_of, same_run, train

from pmoe.plots import evaluate


class Reaching(Toy):
    """Passes a goal at the third of five steps in two episodes of three, and is at it at the end of one"""

    def __init__(self, key="success", as_array=False, told="always"):
        super().__init__()
        self.key = key
        self.as_array = as_array
        self.told = told

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.kind = self.np_random.integers(3)
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


gym.register("Reaching-v0", Reaching)
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
    for seed in range(1, 6):
        [path] = train("sac", tmp_path, env_id="Reaching-v0,told='when there is one'", seed=seed)
        rows = rows_of(path / "episodes.csv")
        assert pairs(rows) == {(0, 0), (1, 0), (1, 1)}
        widened += pairs(rows[:1]) == {(0, 0)}
    assert widened


def test_where_there_is_none_there_is_no_column(tmp_path):
    [path] = train("sac", tmp_path, env_id="ToyTerminates-v0", total_timesteps=100)
    assert list(rows_of(path / "episodes.csv")[0]) == ["step", "episodic_return", "episodic_length"]


@pytest.mark.parametrize("algo", LOOPS)
def test_a_goal_passed_before_a_checkpoint_is_not_forgotten(tmp_path, algo):
    """A run stopped between the third and the fifth step of an episode, and one that is not"""
    options = {"env_id": "Reaching-v0", "total_timesteps": 318, "eval_every": 318}
    if is_on_policy(algo):
        options["num_steps"] = 53
    stop = 159
    assert stop % 5 == 4
    [straight] = train(algo, tmp_path / "straight", **options)
    train(algo, tmp_path / "stopped", **{**options, "total_timesteps": stop})
    [resumed] = train(algo, tmp_path / "stopped", **options, resume=True)
    same_run(straight, resumed)


# What is shown of it


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Two seeds of two methods whose environment tells success, and one whose environment does not"""
    root = tmp_path_factory.mktemp("told")
    for k in (1, 2):
        train("sac", root, env_id="Reaching-v0", k=k, num_seeds=2, eval_episodes=6)
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
        assert len(shares) == 4
        # Two evaluations at equal distances: the area's mean height is their mean.
        expected[method] = np.mean(shares)
    found = {row["method"].split(" K=")[0]: float(row["mean"]) for row in rows}
    assert found == pytest.approx(expected)
    assert "area under the success curve" in (tmp_path / "figures/auc.md").read_text()
    assert (tmp_path / "figures/curves.png").exists()


def test_eval_of_success(told, tmp_path, capsys):
    """It repeats the last evaluation, whose shares stand in the run's eval.csv."""
    run, _ = sorted(told.glob("Reaching-v0/sac-k1-*/seed*"))
    last = rows_of(run / "eval.csv")[-1]
    evaluate.report([run], tmp_path, 6, [0.0])
    words = capsys.readouterr().out.split()
    for name in COLUMNS:
        share = float(last[name])
        assert f"{share:.0%}" in words

    evaluate.report([told], tmp_path, 6, [0.0])
    for row in rows_of(tmp_path / "eval.csv"):
        if row["environment"] == "Pendulum-v1":
            assert row["success"] == ""
        elif row["method"] == "SAC" and row["seed"] == "1":
            for name in COLUMNS:
                assert float(row[name]) == pytest.approx(float(last[name]))
