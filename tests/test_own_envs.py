"""What holds for each of the project's environments alike: Gymnasium's rules, replay, frames, options,
training. TargetReaching-v0 has a file of its own for all of it."""

import pickle
import subprocess
import sys
import warnings
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from common import Killed, at_move, checkpoint, refused, rows_of, run_at, same_runs, train
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from numpy.testing import assert_allclose, assert_array_equal

import pmoe.envs  # noqa: F401  registers them
from pmoe.envs.multigoal import COLOURS

CLASSIC = ["UnshapedAcrobot-v0", "UnshapedMountainCar-v0", "CosinePendulum-v0", "SparsePendulum-v0"]
BANDITS = ["Bumps-v0", "Bimodal-v0"]
PLANES = ["Bumps-v0", "MultiGoal-v0"]
IDS = [*BANDITS, "MultiGoal-v0", "MultiDirection-v0", *CLASSIC]
OPTIONS = [
    *[(env_id, {}) for env_id in IDS],
    ("Bumps-v0", {"bumps": 3, "dimensions": 1, "unequal": 0.5}),
    ("Bumps-v0", {"bumps": 1, "dimensions": 5}),
    ("MultiGoal-v0", {"goals": 7, "scale": 1}),
    ("MultiDirection-v0", {"sectors": 5}),
    ("SparsePendulum-v0", {"tolerance": 170}),
    ("Bimodal-v0", {"left": 0.75}),
]


def actions_of(env, count: int) -> np.ndarray:
    """Any, within the bounds"""
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    return rng.uniform(low, high, (count, *env.action_space.shape)).astype(np.float32)


def steps_of(env, actions) -> np.ndarray:
    """What each step gave; a new episode begins where one ends."""
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        rows.append([*obs, reward, terminated, truncated, info.get("mode", -1)])
        if terminated or truncated:
            env.reset()
    return np.array(rows)


# ---------------------------------------------------------------------------------------- Gymnasium's rules

# What it says of environments whose classes are Gymnasium's own, and of bounds that are another project's
SAID = {
    "MultiDirection-v0": "Box observation space",
    "CosinePendulum-v0": "symmetric and normalized",
    "SparsePendulum-v0": "symmetric and normalized",
    "Bimodal-v0": "symmetric and normalized",
}


@pytest.mark.parametrize("env_id, options", OPTIONS)
def test_gymnasium_s_checker(env_id, options):
    draws = env_id in [*PLANES, "Bimodal-v0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if env_id in SAID:
            warnings.filterwarnings("ignore", message=f".*{SAID[env_id]}")
        check_env(gym.make(env_id, **options).unwrapped, skip_render_check=not draws)


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


@pytest.mark.parametrize("env_id, options", OPTIONS)
def test_copies_do_the_same_and_share_nothing(env_id, options):
    env = gym.make(env_id, **options).unwrapped
    actions = actions_of(env, 20)
    for twin in (pickle.loads(pickle.dumps(env)), deepcopy(env)):
        assert getattr(twin, "modes", None) == getattr(env, "modes", None)
        for each in (env, twin):
            each.reset(seed=4)
        assert_array_equal(steps_of(twin, actions), steps_of(env, actions))


# ------------------------------------------------------------------------------------------------- pictures


def after_a_step(env: gym.Env, action) -> np.ndarray:
    """A frame, which is another than the one before the step"""
    env.reset(seed=2)
    before = env.render()
    env.step(np.float32(action))
    after = env.render()
    for picture in (before, after):
        assert picture.shape == (512, 512, 3)
        assert picture.dtype == np.uint8
    assert (after != before).any()
    return after


def agent_in(picture: np.ndarray, half: float) -> list:
    """x and y of the agent's dot in a picture of a plane from -half to half. The dot is the highest and the
    rightmost that has its colour; a path leads to it."""
    agent = np.frombuffer(bytes.fromhex(COLOURS["agent"][1:]), np.uint8)
    rows, columns = np.nonzero((picture == agent).all(-1))
    radius = 6  # pixels
    x = 2 * (columns.max() - radius) / 512 - 1
    y = 1 - 2 * (rows.min() + radius) / 512
    return [x * half, y * half]


@pytest.mark.parametrize("env_id, half", [("Bumps-v0", 1), ("MultiGoal-v0", 7)])
def test_a_frame_of_a_plane(env_id, half):
    env = gym.make(env_id, render_mode="rgb_array")
    picture = after_a_step(env, [0.5, 0.5])
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    expected = env.unwrapped.action if env_id == "Bumps-v0" else env.unwrapped.position
    assert_allclose(agent_in(picture, half), expected, atol=0.01 * half)


@pytest.mark.parametrize(
    "env_id, options, half", [("Bumps-v0", {"dimensions": 1, "bumps": 2}, 1), ("Bimodal-v0", {}, 2)]
)
def test_a_frame_of_one_dimension(env_id, options, half):
    """The other axis is the reward."""
    env = gym.make(env_id, **options, render_mode="rgb_array")
    x, _ = agent_in(after_a_step(env, [0.5]), half)
    assert_allclose(x, 0.5, atol=0.01 * half)


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


@pytest.mark.parametrize("env_id", [*PLANES, "Bimodal-v0"])
def test_without_a_render_mode_nothing_is_drawn(env_id):
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
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
    ("Bumps-v0", {"render_mode": "ansi"}, "rgb_array or None, not 'ansi'"),
    ("MultiGoal-v0", {"goals": 16}, "goals must be from 1 to 15"),
    ("MultiGoal-v0", {"action_cost": -1}, "action_cost must be a number from 0 up, not -1"),
    ("MultiGoal-v0", {"bonus": True}, "bonus must be a number from 0 up, not True"),
    ("MultiGoal-v0", {"scale": 0}, "scale must be a number above 0, not 0"),
    ("MultiGoal-v0", {"render_mode": "ansi"}, "rgb_array or None, not 'ansi'"),
    ("MultiDirection-v0", {"sectors": 0}, "sectors must be from 1 to 360, not 0"),
    ("SparsePendulum-v0", {"tolerance": 0}, "tolerance must be a number above 0, not 0"),
    ("SparsePendulum-v0", {"tolerance": 181}, "tolerance is in degrees, 180 at most, not 181"),
    ("Bimodal-v0", {"left": -1}, "left must be a number above 0, not -1"),
    ("Bimodal-v0", {"left": "1"}, "left must be a number above 0, not '1'"),
    ("Bimodal-v0", {"render_mode": "ansi"}, "rgb_array or None, not 'ansi'"),
]


@pytest.mark.parametrize("env_id, options, words", REFUSED)
def test_refuses_values(env_id, options, words):
    with pytest.raises(ValueError, match=words):
        gym.make(env_id, **options)


@pytest.mark.parametrize(
    "env_id, option", [("Bimodal-v0", "bumps"), ("UnshapedMountainCar-v0", "goal_velocity")]
)
def test_refuses_options_of_the_class_that_it_is_made_of(env_id, option):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
        gym.make(env_id, **{option: 3})


@pytest.mark.parametrize(
    "env_id, words",
    [
        ("Bumps-v0,bumps=12", "12 bumps of width 0.2 run into each other"),
        ("SparsePendulum-v0,tolerance=0", "tolerance must be a number above 0"),
    ],
)
def test_the_command_line_refuses_values(pmoe_here, env_id, words):
    refused(pmoe_here("run", "sac", "--env", env_id), env_id, words)


def test_registered_without_mujoco(tmp_path):
    """By Gymnasium's own way to name a module, from anywhere"""
    code = "import gymnasium, sys\n"
    for env_id in ("MultiGoal-v0', goals=3", "Bimodal-v0', left=0.75"):
        code += f"print(gymnasium.make('pmoe.envs:{env_id}).unwrapped.modes)\n"
    code += "print('mujoco' in sys.modules)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "3\n2\nFalse\n"


# --------------------------------------------------------------------------------------------------- training


TRAINED = [*[("sac", env_id) for env_id in IDS], *[("dac", env_id) for env_id in PLANES]]


@pytest.mark.parametrize("algo, env_id", TRAINED)
def test_trains(tmp_path, algo, env_id):
    [path] = train(algo, tmp_path, env_id=env_id, total_timesteps=200, eval_episodes=1)
    assert run_at(path).env == env_id
    [row] = rows_of(path / "eval.csv")
    assert np.isfinite(float(row["return_mean"]))
    limit = 1 if env_id in BANDITS else gym.spec(env_id).max_episode_steps
    lengths = [int(row["episodic_length"]) for row in rows_of(path / "episodes.csv")]
    assert max(lengths, default=0) <= limit
    assert sum(lengths) > 200 - limit


# One of each class whose state is another's
@pytest.mark.parametrize("env_id", [x for x in IDS if x not in ("Bimodal-v0", "SparsePendulum-v0")])
def test_killed_and_resumed_is_as_never_stopped(tmp_path, monkeypatch, env_id):
    """Killed after the checkpoint of step 150, which is amid an episode wherever these are longer than one"""
    fields = {"env_id": f"{env_id},max_episode_steps=40", "num_seeds": 2, "total_timesteps": 220}
    fields |= {"checkpoint_every": 50, "eval_every": 1000, "eval_episodes": 1, "hidden": 32}
    train("sac", tmp_path / "straight", **fields)

    def die():
        raise Killed

    with monkeypatch.context() as patch:
        at_move(patch, "sac", 170, die)
        with pytest.raises(Killed):
            train("sac", tmp_path / "killed", **fields)
    for path in tmp_path.glob("killed/*/*/*"):
        assert checkpoint(path)["step"] == 150
    train("sac", tmp_path / "killed", resume=True, **fields)
    same_runs(tmp_path / "straight", tmp_path / "killed", 2)
