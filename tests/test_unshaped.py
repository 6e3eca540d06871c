"""The unshaped tasks: motion against Gymnasium's own, rewards, starts, replay, frames, training."""

import pickle
import subprocess
import sys
import time
import warnings
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from common import PMOE, flags, refused, rows_of, run_at, same_runs, train
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose, assert_array_equal

import pmoe.envs  # noqa: F401  registers them
from pmoe.envs.multigoal import COLOURS

CLASSIC = ["UnshapedAcrobot-v0", "UnshapedMountainCar-v0", "CosinePendulum-v0", "SparsePendulum-v0"]
IDS = [*CLASSIC, "Bimodal-v0"]


def make(env_id, **options) -> gym.Env:
    """Without the wrappers"""
    env = gym.make(env_id, **options).unwrapped
    env.reset(seed=0)
    return env


def actions_of(env, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    return rng.uniform(low, high, (count, *env.action_space.shape)).astype(np.float32)


def steps_of(env, actions) -> np.ndarray:
    """What each step gave; a new episode begins where one ends."""
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.append([*obs, reward, terminated, truncated])
        if terminated or truncated:
            env.reset()
    return np.array(rows)


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
    for action in actions_of(env, 100):
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
    """After the step, in which a velocity brings it there"""
    env = make("CosinePendulum-v0")
    env.state = np.array([theta - 0.05 * 2, 2.0])
    gravity = 15 * np.sin(theta - 0.1)
    balance = -gravity / 3  # the torque that holds the velocity
    if abs(balance) > 2:
        env.g = 0.0
        balance = 0.0
    _, got, terminated, truncated, _ = env.step(np.float32([balance]))
    assert_allclose(got, reward, atol=1e-5)
    assert not terminated
    assert not truncated


def test_the_sparse_pendulum_is_rewarded_within_its_tolerance():
    for tolerance in (1.0, 30):
        env = make("SparsePendulum-v0", tolerance=tolerance)
        for degrees, reward in ((0, 1), (0.99, 1), (-0.99, 1), (1.01, 0), (-1.01, 0), (180, 0)):
            for turns in (-1, 0, 1):
                angle = tolerance * degrees if degrees != 180 else 180
                env.state = np.array([np.radians(angle + 360 * turns), 3.0])
                assert env.step(np.zeros(1, np.float32))[1] == reward


def test_the_bandit_has_two_peaks():
    env = make("Bimodal-v0", left=0.75)
    expected = {-1: 0.75, 1: 1.5, 0: 0, -1.05: 0.75 * np.exp(-0.5), 1.1: 1.5 * np.exp(-2), 9: 0}
    for action, reward in expected.items():
        obs, got, terminated, truncated, info = env.step(np.float32([action]))
        assert_allclose(got, reward, atol=1e-5)
        assert terminated
        assert not truncated
        assert_array_equal(obs, [1])
        near = abs(abs(action) - 1) < 0.05 * np.sqrt(2 * np.log(2))
        assert info["mode"] == ((action > 0) if near else -1)
    assert_array_equal(make("Bimodal-v0").heights, [1.5, 1.5])
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


@pytest.mark.parametrize("env_id", ["UnshapedMountainCar-v0", "SparsePendulum-v0"])
def test_the_others_start_as_gymnasium_s(env_id):
    env = gym.make(env_id)
    starts = [env.reset(seed=seed)[0] for seed in (1, 2, 1)]
    assert_array_equal(starts[0], starts[2])
    assert (starts[0] != starts[1]).any()


@pytest.mark.parametrize("env_id, limit", list(zip(CLASSIC, (1000, 1000, 200, 200))))
def test_time_limit(env_id, limit):
    env = gym.make(env_id)
    env.reset(seed=1)
    for step in range(1, limit + 1):
        *_, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        assert not terminated
        assert truncated == (step == limit)


# ---------------------------------------------------------------------------------------- Gymnasium's rules


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_s_checker(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")  # theirs are in [-2, 2]
        check_env(gym.make(env_id).unwrapped, skip_render_check=env_id in CLASSIC)


@pytest.mark.parametrize("env_id", IDS)
def test_replays_to_the_bit(env_id):
    """From the generator's state at a reset and the actions since then, as runs are resumed."""
    first, second = gym.make(env_id), gym.make(env_id)
    actions = actions_of(first, 400)
    first.reset(seed=1)
    steps_of(first, actions[:100])
    state = first.unwrapped.np_random.bit_generator.state
    first.reset()
    second.reset(seed=2)
    second.unwrapped.np_random.bit_generator.state = state
    second.reset()
    assert_array_equal(steps_of(first, actions[100:]), steps_of(second, actions[100:]))


@pytest.mark.parametrize("env_id", IDS)
def test_a_seed_says_what_happens(env_id):
    env = gym.make(env_id)
    actions = actions_of(env, 20)
    env.reset(seed=3)
    once = steps_of(env, actions)
    env.reset(seed=3)
    assert_array_equal(steps_of(env, actions), once)


@pytest.mark.parametrize(
    "env_id, options", [(env_id, {}) for env_id in CLASSIC] + [("Bimodal-v0", {"left": 0.75})]
)
def test_copies(env_id, options):
    env = gym.make(env_id, **options).unwrapped
    for twin in (pickle.loads(pickle.dumps(env)), deepcopy(env)):
        for each in (env, twin):
            each.reset(seed=4)
        actions = actions_of(env, 20)
        assert_array_equal(steps_of(twin, actions), steps_of(env, actions))


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("env_id", CLASSIC)
def test_a_frame_by_pygame(env_id):
    """Gymnasium's own, or its word for what is missing"""
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=2)
    env.step(env.action_space.high)
    try:
        picture = env.render()
    except DependencyNotInstalled as error:
        assert "pip install" in str(error)
        return
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2


def test_a_frame_of_the_bandit():
    env = gym.make("Bimodal-v0", render_mode="rgb_array")
    env.reset(seed=2)
    before = env.render()
    env.step(np.float32([1.0]))
    after = env.render()
    assert after.shape == (512, 512, 3)
    assert after.dtype == np.uint8
    assert (after != before).any()
    agent = np.frombuffer(bytes.fromhex(COLOURS["agent"][1:]), np.uint8)
    _, columns = np.nonzero((after == agent).all(-1))
    x = 4 * (columns.mean() + 0.5) / 512 - 2
    assert_allclose(x, 1.0, atol=0.05)


# ------------------------------------------------------------------------------------- options, command line

REFUSED = [
    ("SparsePendulum-v0", {"tolerance": 0}, ValueError, "tolerance must be a number above 0, not 0"),
    ("SparsePendulum-v0", {"tolerance": 181}, ValueError, "tolerance is in degrees, 180 at most, not 181"),
    ("Bimodal-v0", {"left": -1}, ValueError, "left must be a number above 0, not -1"),
    ("Bimodal-v0", {"left": "1"}, ValueError, "left must be a number above 0, not '1'"),
    ("Bimodal-v0", {"bumps": 3}, TypeError, "unexpected keyword argument 'bumps'"),
    ("Bimodal-v0", {"render_mode": "ansi"}, ValueError, "rgb_array or None, not 'ansi'"),
    (
        "UnshapedMountainCar-v0",
        {"goal_velocity": 1},
        TypeError,
        "unexpected keyword argument 'goal_velocity'",
    ),
]


@pytest.mark.parametrize("env_id, options, error, words", REFUSED)
def test_refuses_options(env_id, options, error, words):
    with pytest.raises(error, match=words):
        gym.make(env_id, **options)


def test_the_command_line_refuses_options(pmoe):
    result = pmoe("run", "sac", "--env", "SparsePendulum-v0,tolerance=0")
    refused(result, "SparsePendulum-v0,tolerance=0", "tolerance must be a number above 0")


def test_registered(tmp_path):
    code = "import gymnasium, sys; print(gymnasium.make('pmoe.envs:Bimodal-v0', left=0.75).unwrapped.modes, "
    code += "'mujoco' in sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "2 False\n"


# --------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("env_id", IDS)
def test_trains(tmp_path, env_id):
    [path] = train("sac", tmp_path, env_id=env_id, total_timesteps=200, eval_episodes=1)
    assert run_at(path).env == env_id
    for row in rows_of(path / "eval.csv"):
        assert np.isfinite(float(row["return_mean"]))


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_killed_and_resumed_is_as_never_stopped(tmp_path, env_id):
    """Through the command line, killed somewhere between its first checkpoint and its end"""
    # Episodes that end before the run does
    short = f"{env_id},max_episode_steps=60"
    fields = {"env_id": short, "num_seeds": 2, "total_timesteps": 500, "checkpoint_every": 50}
    fields |= {"eval_episodes": 1}
    command = [PMOE, "run", "sac", *flags("sac", **fields)]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL}
    straight = subprocess.Popen([*command, "--run-dir", "straight"], **quiet)
    command += ["--run-dir", "killed"]
    process = subprocess.Popen(command, **quiet)
    while process.poll() is None and not list(tmp_path.glob("killed/*/*/seed2/checkpoint/*0[1-9]50.pt")):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert subprocess.run([*command, "--resume"], check=False, **quiet).returncode == 0
    assert straight.wait() == 0
    same_runs(tmp_path / "straight", tmp_path / "killed", seeds=2)
