"""`Bumps-v0`, `MultiGoal-v0` and `MultiDirection-v0`: rewards, modes, Gymnasium's rules, replay, frames,
training."""

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
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pmoe import envs
from pmoe.envs.multigoal import COLOURS, Bumps, MultiGoal

IDS = ["Bumps-v0", "MultiGoal-v0", "MultiDirection-v0"]
PLANES = IDS[:2]  # which Matplotlib draws


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
    "options, a, b, expected", [({}, 0.5, 0.2, 0), ({"height": 2, "width": 0.3}, 1, -1, 0)]
)
def test_the_reward_is_the_sum_of_the_bumps(options, a, b, expected):
    height = options.get("height", 5)
    width = options.get("width", 0.2)
    for x, y in ((0.7, 0), (0, 0.7), (-0.7, 0), (0, -0.7)):
        squared = (a - x) ** 2 + (b - y) ** 2
        expected += height * np.exp(-squared / (2 * width**2))
    reward, terminated, _ = rewarded(make("Bumps-v0", height=height, width=width), [a, b])
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
        reward, _, got = rewarded(env, [0, 0.7 + offset if offset > 0 else 0])
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


# ---------------------------------------------------------------------------------------- Gymnasium's rules

OPTIONS = [
    ("Bumps-v0", {}),
    ("Bumps-v0", {"bumps": 3, "dimensions": 1, "unequal": 0.5}),
    ("Bumps-v0", {"bumps": 1, "dimensions": 5}),
    ("MultiGoal-v0", {}),
    ("MultiGoal-v0", {"goals": 7, "scale": 1}),
    ("MultiDirection-v0", {}),
]


@pytest.mark.parametrize("env_id, options", OPTIONS)
def test_gymnasium_s_checker(env_id, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of MuJoCo's own environments it says the same.
        warnings.filterwarnings("ignore", message=".*Box observation space")
        check_env(gym.make(env_id, **options).unwrapped, skip_render_check=env_id not in PLANES)


def steps_of(env, actions) -> np.ndarray:
    """What each step gave; a new episode begins where one ends."""
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        rows.append([*obs, reward, terminated, truncated, info["mode"]])
        if terminated or truncated:
            env.reset()
    return np.array(rows)


def actions_of(env, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("env_id", IDS)
def test_replays_to_the_bit(env_id):
    """From the generator's state at a reset and the actions since then, as runs are resumed."""
    first, second = gym.make(env_id), gym.make(env_id)
    actions = actions_of(first, 200)
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


@pytest.mark.parametrize("env_id", IDS)
def test_copies(env_id):
    options = {"MultiDirection-v0": {"sectors": 5}}.get(env_id, {})
    env = gym.make(env_id, **options).unwrapped
    for twin in (pickle.loads(pickle.dumps(env)), deepcopy(env)):
        assert twin.modes == env.modes
        for each in (env, twin):
            each.reset(seed=4)
        actions = actions_of(env, 20)
        assert_array_equal(steps_of(twin, actions), steps_of(env, actions))


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("env_id", PLANES)
def test_a_frame(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=2)
    before = env.render()
    env.step(np.float32([0.5, 0.5]))
    after = env.render()
    for picture in (before, after):
        assert picture.shape == (512, 512, 3)
        assert picture.dtype == np.uint8
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert (after != before).any()

    # Where the agent is
    agent = np.frombuffer(bytes.fromhex(COLOURS["agent"][1:]), np.uint8)
    rows, columns = np.nonzero((after == agent).all(-1))
    half = env.observation_space.high[0] if env_id == "MultiGoal-v0" else 1
    expected = env.unwrapped.position if env_id == "MultiGoal-v0" else np.array([0.5, 0.5])
    # The dot is the lowest and the rightmost that has its colour; a path leads to it.
    x = (2 * columns.max() / 512 - 1) * half
    y = (1 - 2 * rows.min() / 512) * half
    assert_allclose([x, y], expected, atol=0.03 * half)


def test_a_frame_of_bumps_in_one_dimension():
    env = gym.make("Bumps-v0", dimensions=1, bumps=2, render_mode="rgb_array")
    env.reset()
    env.step(np.float32([0.5]))
    assert env.render().std() > 1


@pytest.mark.parametrize("env_id", PLANES)
def test_render_modes(env_id):
    with pytest.raises(ValueError, match="rgb_array or None, not 'ansi'"):
        gym.make(env_id, render_mode="ansi")
    env = make(env_id)
    with pytest.warns(UserWarning, match="draws nothing without"):
        assert env.render() is None


# ------------------------------------------------------------------------------------- options, command line

REFUSED = [
    ("Bumps-v0", {"bumps": 0}, "bumps must be from 1 to 1000, not 0"),
    ("Bumps-v0", {"bumps": 2.5}, "bumps must be a whole number"),
    ("Bumps-v0", {"dimensions": 0}, "dimensions must be from 1 to 1000"),
    ("Bumps-v0", {"bumps": 12}, "12 bumps of width 0.2 run into each other; at most 0.12"),
    ("Bumps-v0", {"width": 0}, "width must be a number above 0"),
    ("Bumps-v0", {"height": float("nan")}, "height must be a number above 0, not nan"),
    ("Bumps-v0", {"height": "5"}, "height must be a number above 0, not '5'"),
    ("Bumps-v0", {"unequal": 1}, "unequal must be a number from 0 to less than 1, not 1"),
    ("MultiGoal-v0", {"goals": 16}, "goals must be from 1 to 15"),
    ("MultiGoal-v0", {"action_cost": -1}, "action_cost must be a number from 0 up, not -1"),
    ("MultiGoal-v0", {"bonus": True}, "bonus must be a number from 0 up, not True"),
    ("MultiGoal-v0", {"scale": 0}, "scale must be a number above 0, not 0"),
    ("MultiDirection-v0", {"sectors": 0}, "sectors must be from 1 to 360, not 0"),
]


@pytest.mark.parametrize("env_id, options, words", REFUSED)
def test_refuses_options(env_id, options, words):
    with pytest.raises(ValueError, match=words):
        gym.make(env_id, **options)


def test_the_command_line_refuses_options(pmoe):
    result = pmoe("run", "sac", "--env", "Bumps-v0,bumps=12")
    refused(result, "Bumps-v0,bumps=12", "12 bumps of width 0.2 run into each other")


def test_registered(tmp_path):
    code = "import gymnasium, sys; print(gymnasium.make('pmoe.envs:MultiGoal-v0', goals=3).unwrapped.modes, "
    code += "'mujoco' in sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "3 False\n"


def test_options_in_the_name():
    env = envs.make("MultiGoal-v0,goals=3,scale=0.5,max_episode_steps=7")
    assert env.unwrapped.modes == 3
    assert env.unwrapped.scale == 0.5
    assert env.spec.max_episode_steps == 7


# --------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("algo", ["sac", "dac"])
@pytest.mark.parametrize("env_id", PLANES)
def test_trains(tmp_path, algo, env_id):
    [path] = train(algo, tmp_path, env_id=env_id)
    assert run_at(path).env == env_id
    lengths = {int(row["episodic_length"]) for row in rows_of(path / "episodes.csv")}
    assert lengths == {1} if env_id == "Bumps-v0" else max(lengths) <= 30


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_killed_and_resumed_is_as_never_stopped(tmp_path, env_id):
    """Through the command line, killed somewhere between its first checkpoint and its end"""
    fields = {"env_id": env_id, "num_seeds": 2, "total_timesteps": 500, "checkpoint_every": 50}
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
