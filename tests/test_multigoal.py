"""`Bumps-v0`, `MultiGoal-v0` and `MultiDirection-v0`: motion, rewards, modes. What holds for all environments
is in test_own_envs.py."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pmoe import envs
from pmoe.envs.multigoal import Bumps, MultiGoal


def make(env_id, **options) -> gym.Env:
    """Without the wrappers"""
    env = gym.make(env_id, **options).unwrapped
    env.reset(seed=0)
    return env


def rewarded(env, action) -> tuple[float, bool, int]:
    """What a step gives: reward, whether it ends the episode, the mode"""
    _, reward, terminated, truncated, info = env.step(np.float32(action))
    assert not truncated
    return reward, terminated, info["mode"]


# ---------------------------------------------------------------------------------------------------- bumps


@pytest.mark.parametrize(
    "options, height, width, a, b",
    [({}, 5, 0.2, 0.5, 0.2), ({"height": 2, "width": 0.3}, 2, 0.3, 1, -1)],
)
def test_the_reward_is_the_sum_of_the_bumps(options, height, width, a, b):
    expected = 0
    for x, y in ((0.7, 0), (0, 0.7), (-0.7, 0), (0, -0.7)):
        squared = (a - x) ** 2 + (b - y) ** 2
        expected += height * np.exp(-squared / (2 * width**2))
    reward, terminated, _ = rewarded(make("Bumps-v0", **options), [a, b])
    assert_allclose(reward, expected, rtol=1e-5)
    assert terminated


def test_every_top_is_a_mode_and_as_good_as_the_others():
    env = make("Bumps-v0")
    found = [rewarded(env, centre) for centre in env.centres]
    assert [mode for _, _, mode in found] == [0, 1, 2, 3]
    for reward, _, _ in found:
        assert_allclose(reward, 5, atol=0.02)


def test_unequal_heights():
    env = make("Bumps-v0", unequal=0.6)
    assert_allclose(env.heights, [5, 4, 3, 2])
    best = [rewarded(env, centre)[0] for centre in env.centres]
    assert_allclose(best, [5, 4, 3, 2], atol=0.05)


def test_a_bump_ends_where_it_is_half_as_high():
    """Else a policy without any aim would have found all of them."""
    env = make("Bumps-v0")
    half = 0.2 * np.sqrt(2 * np.log(2))
    for offset, mode in ((half - 1e-4, 1), (half + 1e-4, -1), (-0.7, -1)):
        reward, _, got = rewarded(env, [0, 0.7 + offset])
        assert got == mode
        assert (reward > 2.5) == (mode == 1)


def test_actions_are_clipped():
    env = make("Bumps-v0")
    assert rewarded(env, [3, 0]) == rewarded(env, [1, 0])


@given(st.integers(1, 10), st.integers(1, 4))
def test_bumps_are_apart_in_any_dimension(bumps, dimensions):
    env = Bumps(bumps, width=0.01, dimensions=dimensions)
    env.reset()
    assert env.centres.shape == (bumps, dimensions)
    for m, centre in enumerate(env.centres):
        assert env.mode_of(centre) == m
        assert np.abs(centre).max() <= 0.7
        assert_allclose(env.reward_of(centre), 5, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------- goals


def at(position, **options) -> MultiGoal:
    env = make("MultiGoal-v0", **options)
    env.position = np.float64(position)
    env.path = [env.position]
    return env


def test_a_step_by_hand():
    env = at([2, 1])
    reward, terminated, mode = rewarded(env, [0.5, -0.5])
    assert_array_equal(env.position, [2.5, 0.5])
    assert_allclose(reward, 0.1 * (-30 * 0.5 - (2.5**2 + 0.5**2)))
    assert not terminated
    assert mode == -1


def test_coefficients():
    env = at([2, 1], action_cost=2, distance_cost=3, bonus=7, scale=10)
    reward, *_ = rewarded(env, [0.5, -0.5])
    assert_allclose(reward, 10 * (-2 * 0.5 - 3 * 6.5))
    env.position = np.array([4.5, 0])
    reward, terminated, mode = rewarded(env, [0, 0])
    assert_allclose(reward, 10 * (7 - 3 * 0.25))
    assert terminated
    assert mode == 0


@pytest.mark.parametrize("goal, towards", [(0, (1, 0)), (1, (0, 1)), (2, (-1, 0)), (3, (0, -1))])
def test_every_goal_is_a_mode(goal, towards):
    env = at([0, 0])
    ends = [rewarded(env, towards) for _ in range(5)]
    assert [terminated for _, terminated, _ in ends] == [False, False, False, False, True]
    assert [mode for *_, mode in ends] == [-1, -1, -1, -1, goal]
    assert_array_equal(env.path, np.outer(range(6), towards))


def test_the_rim_of_a_goal_is_outside():
    env = at([4, 0])
    assert not rewarded(env, [0, 0])[1]


def test_the_point_stays_in_the_plane():
    env = at([6.5, -6.5])
    rewarded(env, [1, -9])
    assert_array_equal(env.position, [7, -7])
    assert env.observe() in env.observation_space


def test_the_time_limit():
    env = gym.make("MultiGoal-v0")
    env.reset(seed=1)
    for step in range(1, 31):
        *_, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        assert not terminated
        assert truncated == (step == 30)
        assert info["mode"] == -1


def test_starts_differ():
    env = gym.make("MultiGoal-v0")
    starts = np.array([env.reset(seed=seed)[0] for seed in range(200)])
    assert_allclose(starts.mean(0), 0, atol=0.03)
    assert_allclose(starts.std(0), 0.1, rtol=0.2)


@given(st.integers(1, 15))
def test_goals_do_not_touch(goals):
    env = MultiGoal(goals)
    for i in range(goals):
        others = np.delete(env.centres, i, 0)
        assert (np.linalg.norm(others - env.centres[i], axis=-1) > 2).all()


# ------------------------------------------------------------------------------------------------- directions


@pytest.fixture(scope="module")
def ant():
    return gym.make("MultiDirection-v0").unwrapped


def moved(env, *position) -> dict:
    """What an ant says that was put somewhere, and then stood still for a step"""
    env.reset(seed=0)
    env.set_state(env.init_qpos, np.zeros_like(env.init_qvel))
    env.path = [np.zeros(2)]
    state = env.init_qpos.copy()
    state[:2] = position
    env.set_state(state, np.zeros_like(env.init_qvel))
    *_, info = env.step(np.zeros(8, np.float32))
    return info


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_sectors(ant, degrees):
    angle = np.radians(degrees + 1)
    info = moved(ant, 3 * np.cos(angle), 3 * np.sin(angle))
    assert info["mode"] == int((degrees + 1 + 22.5) // 45) % 8
    assert moved(ant, 0.9 * np.cos(angle), 0.9 * np.sin(angle))["mode"] == -1


@pytest.mark.parametrize("position", [(3, 0), (0, -3), (-2, 2)])
def test_the_reward_is_the_same_in_any_direction(ant, position):
    info = moved(ant, *position)
    assert_allclose(info["reward_forward"], np.linalg.norm(info["position"]) / ant.dt)


def test_the_rewards_of_an_episode_add_up_to_the_distance(ant):
    rng = np.random.default_rng(0)
    obs, _ = ant.reset(seed=1)
    start = obs[:2]
    forward = 0
    for _ in range(20):
        action = rng.uniform(-1, 1, 8).astype(np.float32)
        obs, reward, _, _, info = ant.step(action)
        forward += ant.dt * info["reward_forward"]
        parts = [info[f"reward_{part}"] for part in ("forward", "survive", "ctrl", "contact")]
        assert_allclose(reward, sum(parts))
    assert_allclose(forward, np.linalg.norm(obs[:2] - start))
    assert_array_equal(ant.path[-1], obs[:2])
    assert len(ant.path) == 21


def test_options_in_the_name():
    env = envs.make("MultiGoal-v0,goals=3,scale=0.5,max_episode_steps=7")
    assert env.unwrapped.modes == 3
    assert env.unwrapped.scale == 0.5
    assert env.spec.max_episode_steps == 7
