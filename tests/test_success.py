"""Environments that tell success: at any step of an episode, and at its last."""

import gymnasium as gym
import numpy as np
import pytest
from common import LOOPS, Toy, is_on_policy, rows_of, same_run, train


class Reaching(Toy):
    """Passes a goal at the third of five steps in two episodes of three, and is at it at the end of one"""

    def __init__(self, key="success", as_array=False):
        super().__init__()
        self.key = key
        self.as_array = as_array
        self.episodes = 0

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        self.kind = self.np_random.integers(3)
        return obs, info

    def step(self, action):
        obs, reward, terminated, truncated, _ = super().step(action)
        passes = self.kind > 0 and self.step_count == 3
        ends = self.kind == 2 and self.step_count == 5
        success = passes or ends
        return (
            obs,
            reward,
            terminated,
            truncated,
            {self.key: np.array([success]) if self.as_array else success},
        )


gym.register("Reaching-v0", Reaching)
COLUMNS = ("success", "final_success")


def pairs(rows: list[dict]) -> set:
    return {tuple(float(row[name]) for name in COLUMNS) for row in rows}


@pytest.mark.parametrize("algo", LOOPS)
@pytest.mark.parametrize("options", ["", ",key='is_success'", ",as_array=True"])
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
