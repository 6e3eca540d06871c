"""The unshaped tasks: motion against Gymnasium's own, rewards, starts, time limits. What holds for all
environments is in test_own_envs.py."""

import gymnasium as gym
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pmoe.envs  # noqa: F401  registers them


def make(env_id, **options) -> gym.Env:
    """Without the wrappers"""
    env = gym.make(env_id, **options).unwrapped
    env.reset(seed=0)
    return env


# ----------------------------------------------------------------------------------------- motion and reward


def test_acrobot_moves_as_gymnasium_s_at_its_three_torques():
    env = make("UnshapedAcrobot-v0")
    twin = make("Acrobot-v1")
    state = np.array([1.0, -0.5, 0.3, 0.2])
    env.state = state
    twin.state = state
    for choice in (2, 2, 0, 1, 2, 0, 0, 1):
        obs, reward, terminated, truncated, _ = env.step(np.float32([choice - 1]))
        expected, reward_there, terminated_there, *_ = twin.step(choice)
        assert_array_equal(env.state, twin.state)
        first, second = obs[:2]
        assert_allclose([np.cos(first), np.sin(first)], expected[:2], atol=1e-6)
        assert_allclose([np.cos(second), np.sin(second)], expected[2:4], atol=1e-6)
        assert_array_equal(obs[2:], expected[4:])
        assert (reward, terminated) == (reward_there, terminated_there)
        assert not truncated


def test_acrobot_s_torque_is_any_in_its_bounds():
    """Half of it moves the second link by half as much; what is beyond them is clipped."""
    ends = {}
    for torque in (0.0, 0.5, 1.0, 7.0):
        env = make("UnshapedAcrobot-v0")
        env.step(np.float32([torque]))
        ends[torque] = env.state[3]
    assert_allclose(ends[0.0], 0, atol=1e-12)
    assert ends[1.0] > 0.05
    assert_allclose(ends[0.5], ends[1.0] / 2, rtol=0.02)
    assert ends[7.0] == ends[1.0]


def test_acrobot_ends_above_the_line_and_the_last_step_is_free():
    env = make("UnshapedAcrobot-v0")
    env.state = np.array([np.pi - 0.1, 0.1, 0.0, 0.0])
    _, reward, terminated, *_ = env.step(np.float32([0]))
    assert (reward, terminated) == (0, True)
    env.reset()
    _, reward, terminated, *_ = env.step(np.float32([0]))
    assert (reward, terminated) == (-1, False)


def test_mountain_car_moves_as_gymnasium_s_and_costs_1_a_step():
    env = make("UnshapedMountainCar-v0")
    twin = make("MountainCarContinuous-v0")
    rewards = set()
    terminated = False
    obs = env.reset(seed=3)[0]
    assert_array_equal(obs, twin.reset(seed=3)[0])
    while not terminated:
        # Full throttle in the direction of the motion leads to the top.
        action = np.sign(obs[1:]) if obs[1] else np.ones(1, np.float32)
        obs, reward, terminated, truncated, _ = env.step(action)
        expected, _, terminated_there, *_ = twin.step(action)
        assert_array_equal(obs, expected)
        assert terminated == terminated_there
        assert not truncated
        rewards.add(reward)
    assert rewards == {-1.0}
    assert obs[0] >= 0.45


@pytest.mark.parametrize("env_id", ["CosinePendulum-v0", "SparsePendulum-v0"])
def test_pendulums_move_as_gymnasium_s(env_id):
    env = make(env_id)
    twin = make("Pendulum-v1")
    env.state = twin.state = np.array([3.0, 1.0])
    for step in range(100):
        action = np.float32([2 * np.sin(step)])
        obs, *_ = env.step(action)
        expected, *_ = twin.step(action)
        if env_id == "CosinePendulum-v0":
            theta, velocity = obs
            obs = [np.cos(theta), np.sin(theta), velocity]
        assert_allclose(obs, expected, atol=1e-5)


@pytest.mark.parametrize(
    "theta, reward", [(0, 1), (np.pi, -1), (np.pi / 3, 0.5), (-np.pi / 2, 0), (7, 0.753902)]
)
def test_the_pendulum_is_rewarded_for_its_height(theta, reward):
    """After the step, in which its velocity brings it there"""
    env = make("CosinePendulum-v0")
    env.g = 0.0  # nothing else moves it
    env.state = np.array([theta - 0.05 * 2, 2.0])
    _, got, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
    assert_allclose(got, reward, atol=1e-5)
    assert not terminated
    assert not truncated


@pytest.mark.parametrize("options, tolerance", [({}, 1), ({"tolerance": 30}, 30)])
def test_the_sparse_pendulum_is_rewarded_within_its_tolerance(options, tolerance):
    """Before the step, and however often it has turned"""
    env = make("SparsePendulum-v0", **options)
    rewards = {0: 1, 0.99 * tolerance: 1, -0.99 * tolerance: 1, 1.01 * tolerance: 0, -1.01 * tolerance: 0}
    rewards[180] = 0
    for degrees, expected in rewards.items():
        for turns in (-1, 0, 1):
            env.state = np.array([np.radians(degrees + 360 * turns), 3.0])
            _, reward, *_ = env.step(np.zeros(1, np.float32))
            assert reward == expected


@pytest.mark.parametrize(
    "action, reward, mode",
    [
        (-1, 0.75, 0),
        (1, 1.5, 1),
        (-1.05, 0.75 * np.exp(-0.5), 0),
        # Below half of the height it is on none.
        (1.1, 1.5 * np.exp(-2), -1),
        (0, 0, -1),
        (9, 0, -1),
    ],
)
def test_the_bandit_has_two_peaks(action, reward, mode):
    env = make("Bimodal-v0", left=0.75)
    obs, got, terminated, truncated, info = env.step(np.float32([action]))
    assert_allclose(got, reward, atol=1e-5)
    assert info["mode"] == mode
    assert terminated
    assert not truncated
    assert_array_equal(obs, [1])


def test_the_bandit_s_peaks_are_as_high_unless_told():
    env = make("Bimodal-v0")
    assert_array_equal(env.heights, [1.5, 1.5])
    assert env.modes == 2


# ------------------------------------------------------------------------------------------ starts and limits


@pytest.mark.parametrize(
    "env_id, start", [("UnshapedAcrobot-v0", [0] * 4), ("CosinePendulum-v0", [-np.pi, 0])]
)
def test_some_start_at_rest(env_id, start):
    env = gym.make(env_id)
    for seed in (1, 2, None):
        obs, _ = env.reset(seed=seed)
        assert_allclose(obs, start, atol=1e-6)


@pytest.mark.parametrize(
    "env_id, gymnasium_s",
    [("UnshapedMountainCar-v0", "MountainCarContinuous-v0"), ("SparsePendulum-v0", "Pendulum-v1")],
)
def test_the_others_start_as_gymnasium_s(env_id, gymnasium_s):
    env = gym.make(env_id)
    twin = gym.make(gymnasium_s)
    for seed in (1, 2):
        start, _ = env.reset(seed=seed)
        expected, _ = twin.reset(seed=seed)
        assert_array_equal(start, expected)


@pytest.mark.parametrize(
    "env_id, limit",
    [
        ("UnshapedAcrobot-v0", 1000),
        ("UnshapedMountainCar-v0", 1000),
        ("CosinePendulum-v0", 200),
        ("SparsePendulum-v0", 200),
    ],
)
def test_time_limit(env_id, limit):
    env = gym.make(env_id)
    env.reset(seed=1)
    for step in range(1, limit + 1):
        *_, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert not terminated
        assert truncated == (step == limit)
