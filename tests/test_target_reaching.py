"""`TargetReaching-v0`: motion, rewards, touching, layouts, Gymnasium's rules, replay, frames, training."""

import subprocess
import sys
import warnings
from unittest.mock import MagicMock

import gymnasium as gym
import numpy as np
import pytest
from common import rows_of, train
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_checker import check_env
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import pmoe.envs  # noqa: F401  registers it
from pmoe.envs.target_reaching import COLOURS, TargetReaching, first_touch

ID = "TargetReaching-v0"
SEEDS = st.integers(0, 2**32 - 1)
MOVE = st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
POINT = st.tuples(st.floats(-1, 1), st.floats(-1, 1))
STILL = np.zeros(2)  # no acceleration


def make(
    position=(-4.5, -4.5), velocity=(0, 0), target=(2, 2), centres=(), radii=(), **options
) -> TargetReaching:
    """An environment in this state"""
    env = TargetReaching(len(centres), **options)
    env.reset(seed=0)
    env.position = np.float64(position)
    env.velocity = np.float64(velocity)
    env.target = np.float64(target)
    env.centres = np.reshape(np.float64(centres), (-1, 2))
    env.radii = np.float64(radii)
    return env


def check_end(env, action=STILL, reward=None, success=False, collision=False) -> None:
    """Asserts what a step of an environment gives that ends the episode, or does not."""
    _, got, terminated, truncated, info = env.step(action)
    if reward is not None:
        assert got == reward
    assert terminated == (success or collision)
    assert not truncated
    assert (info["success"], info["collision"]) == (success, collision)
    assert_array_equal(info["position"], env.position)


# ---------------------------------------------------------------------------------------- motion and reward


def test_motion_by_hand():
    env = make(target=(1, 2), centres=[(0, 3)], radii=[0.5])
    action = np.float32([2, 1])
    _, reward, _, _, info = env.step(action)
    assert_allclose(info["position"], [-4.48, -4.49])
    assert_allclose(reward, 0.1 * np.hypot(0.2, 0.1))
    info["position"][:] = 0  # is the caller's

    obs, reward, terminated, truncated, info = env.step(action)
    assert_allclose(obs, [5.44, 6.47, 4.44, 7.47, 2, 1, 0.4, 0.2], rtol=1e-6)
    assert_allclose(reward, 0.1 * np.hypot(0.4, 0.2))
    assert not terminated
    assert not truncated
    assert not info["success"]
    assert not info["collision"]
    assert_allclose(env.path, [[-4.5, -4.5], [-4.48, -4.49], [-4.44, -4.47]])


def test_limits():
    env = make((0, 0), velocity=(1.95, -1.95))
    obs, *_ = env.step(np.float32([9, -1]))
    assert_allclose(obs[-4:], [2, -1, 2, -2])
    assert_allclose(env.position, [0.2, -0.2])


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 0.1), ({"speed_reward": 1.0}, 1), ({"speed_reward": 0}, 0)],
)
def test_speed_reward(options, scale):
    env = make((0, 0), (1, -1), **options)
    _, reward, *_ = env.step(STILL)
    assert_allclose(reward, scale * np.sqrt(2))


# ----------------------------------------------------------------------------------------------- touching


def test_reaches_the_target():
    env = make((1.35, 2), (2, 0))
    check_end(env, reward=100, success=True)
    assert_allclose(env.position, [1.5, 2])  # on its rim


def test_hits_an_obstacle():
    env = make((0, -1), (0, 2), centres=[(3, 3), (0, -0.5)], radii=[0.3, 0.4])
    check_end(env, reward=-10, collision=True)
    assert_allclose(env.position, [0, -0.9])


@pytest.mark.parametrize("side", [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1)])
def test_hits_an_edge(side):
    side = np.array(side)
    env = make(4.7 * side, 2 * side)
    check_end(env)
    check_end(env, reward=-10, collision=True)
    assert_allclose(env.position, 5 * side)
    assert env.observe() in env.observation_space


def test_a_touch_at_the_very_end_of_a_step_counts():
    edge = make((4.875, 0), (1.25, 0))
    check_end(edge, reward=-10, collision=True)
    obstacle = make((-3.875, 0), (-1.25, 0), centres=[(-4.5, 0)], radii=[0.5])
    check_end(obstacle, reward=-10, collision=True)


@pytest.mark.parametrize(("gap", "touches"), [(-1e-9, True), (1e-9, False)])
def test_grazing_between_the_ends_of_a_step(gap, touches):
    env = make((-0.1, -1), (2, 0), centres=[(0, -0.5)], radii=[0.5 - gap])
    assert env.radii < np.hypot(0.1, 0.5)  # both ends of the step are outside
    check_end(env, collision=touches)
    env = make((-0.1, 1.5), (2, 0), target=(0, 2 + gap))
    check_end(env, success=touches)


def test_what_is_touched_first_decides():
    """The target's rim is 0.15 away."""
    before = make((0, 0), (2, 0), target=(0.65, 0), centres=[(0.4, 0)], radii=[0.3])
    check_end(before, reward=-10, collision=True)
    behind = make((0, 0), (2, 0), target=(0.65, 0), centres=[(0.48, 0)], radii=[0.3])
    check_end(behind, reward=100, success=True)


@pytest.mark.parametrize("velocity", [(0, 0), (-2, 0), (0, 2)])
def test_leaving_and_resting_touch_nothing(velocity):
    env = make((0, 0), velocity, centres=[(0.3, 0)], radii=[0.3 - 1e-12])
    check_end(env)


@given(POINT, MOVE, st.floats(0.3, 1))
def test_first_touch_is_where_points_of_the_way_say(start, move, radius):
    assume(np.hypot(*start) > radius + 1e-6)
    origin = np.zeros((1, 2))
    [fraction] = first_touch(np.array(start), np.array(move), origin, np.array([radius]))
    end = min(fraction, 1)
    way = np.linspace(0, end, 500)
    points = start + np.outer(way, move)
    distance = np.linalg.norm(points, axis=1)
    assert distance.min() > radius - 1e-9
    if fraction <= 1:
        assert_allclose(distance[-1], radius, atol=1e-9)


# -------------------------------------------------------------------------------------- layouts and episodes


def layout(env) -> np.ndarray:
    return np.concatenate([env.target, env.centres.ravel(), env.radii])


@given(SEEDS, st.integers(0, 8))
def test_layouts_are_valid(seed, obstacles):
    env = TargetReaching(obstacles)
    obs, _ = env.reset(seed=seed)
    assert obs in env.observation_space
    assert obs.shape == (6 + 2 * obstacles,)

    target = gym.spaces.Box(0, 3, (2,), np.float64)
    radii = gym.spaces.Box(0.3, 0.6, (obstacles,), np.float64)
    assert env.target in target
    assert env.radii in radii
    for centre, radius in zip(env.centres, env.radii):
        assert np.abs(centre).max() + radius <= 5
        assert np.linalg.norm(centre - env.target) > radius + 0.5
        assert np.linalg.norm(centre + 4.5) > radius + 0.5


def check_step(env, before, obs, reward, terminated, info) -> None:
    """Asserts what holds after every step."""
    world = env.unwrapped
    position = info["position"]
    distances = np.linalg.norm(world.centres - position, axis=1)
    to_target = np.linalg.norm(world.target - position)

    assert obs in env.observation_space
    assert_allclose(obs[:2], world.target - position, atol=1e-6)
    assert np.abs(position).max() <= 5
    assert np.abs(position - before).max() <= 0.2 + 1e-12
    assert (distances > world.radii - 1e-9).all()
    assert terminated == (info["success"] or info["collision"])
    if info["success"]:
        assert reward == 100
    elif info["collision"]:
        assert reward == -10
    else:
        assert reward == 0.1 * np.linalg.norm(world.velocity)
        assert np.abs(position).max() < 5
        assert to_target > 0.5


@given(SEEDS)
def test_an_episode_stays_within_its_rules(seed):
    env = gym.make(ID)
    rng = np.random.default_rng(seed)
    first, info = env.reset(seed=seed)
    heading = rng.uniform(-2, 2, 2)
    end = False
    while not end:
        before = info["position"]
        action = heading + rng.normal(0, 1, 2)
        action = np.float32(action).clip(-2, 2)
        obs, reward, terminated, truncated, info = env.step(action)
        check_step(env, before, obs, reward, terminated, info)
        end = terminated or truncated
    again, _ = env.reset(seed=seed)
    assert_array_equal(again, first)
    assert len(env.unwrapped.path) == 1


def test_layouts_differ_from_reset_to_reset():
    env = TargetReaching()
    layouts = []
    for seed in (1, None, 2, None, 1):
        env.reset(seed=seed)
        layouts.append(layout(env))
    assert_array_equal(layouts[0], layouts[4])
    assert len(np.unique(layouts, axis=0)) == 4


def test_fixed_layouts_stay():
    three = TargetReaching(fixed_layout=3)
    four = TargetReaching(fixed_layout=4)
    three.reset(seed=0)
    first = layout(three)
    for seed in (1, None, 2):
        three.reset(seed=seed)
        assert_array_equal(layout(three), first)
    four.reset(seed=0)
    assert (layout(four) != first).any()


def test_time_limit():
    env = gym.make(ID)
    env.reset(seed=1)
    for step in range(1, 201):
        _, reward, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        assert reward == 0
        assert not terminated
        assert truncated == (step == 200)


@pytest.mark.parametrize("options", [{}, {"fixed_layout": 3}, {"obstacles": 0, "speed_reward": 1.0}])
def test_gymnasium_s_checker(options, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", MagicMock())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")  # the paper's are in [-2, 2]
        check_env(gym.make(ID, **options).unwrapped)


def episodes(env, actions):
    """What each step gave, and the layout; a new episode begins where one ends."""
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
        numbers = [reward, terminated, truncated]
        yield np.concatenate([obs, numbers, layout(env.unwrapped)])


def test_replays_to_the_bit():
    """From the generator's state at a reset and the actions since then, as runs are resumed."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-2, 2, (700, 2)).astype(np.float32)
    first, second = gym.make(ID), gym.make(ID)
    first.reset(seed=1)
    for _ in episodes(first, actions[:200]):
        pass
    state = first.unwrapped.np_random.bit_generator.state
    first.reset()
    second.reset(seed=2)
    second.unwrapped.np_random.bit_generator.state = state
    second.reset()

    expected = np.array(list(episodes(first, actions[200:])))
    got = np.array(list(episodes(second, actions[200:])))
    assert_array_equal(got, expected)
    layouts = np.unique(expected[:, -11:], axis=0)
    assert len(layouts) > 2


# ------------------------------------------------------------------------------------------------- pictures


def colour(name: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(COLOURS[name][1:]), np.uint8)


def pixel(frame: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = point
    row = int((5.2 - y) / 10.4 * 512)
    column = int((5.2 + x) / 10.4 * 512)
    return frame[row, column]


def test_frame_shows_the_layout():
    env = gym.make(ID, render_mode="rgb_array")
    env.reset(seed=2)
    frame = env.render()
    world = env.unwrapped
    assert frame.shape == (512, 512, 3)
    assert frame.dtype == np.uint8
    for centre in world.centres:
        assert_array_equal(pixel(frame, centre), colour("obstacle"))
    assert_array_equal(pixel(frame, world.position), colour("agent"))

    rows, columns = np.nonzero((frame == colour("target")).all(-1))
    size = 10.4 / 512  # of a pixel
    middle = [(columns.mean() + 0.5) * size - 5.2, 5.2 - (rows.mean() + 0.5) * size]
    assert_allclose(middle, world.target, atol=0.03)
    assert_allclose(len(rows) * size**2, np.pi * 0.5**2, rtol=0.1)


def test_frame_shows_the_way():
    env = gym.make(ID, render_mode="rgb_array")
    env.reset(seed=2)
    for _ in range(20):
        env.step(np.float32([2, 1]))
    frame = env.render()
    world = env.unwrapped
    assert_array_equal(pixel(frame, world.position), colour("agent"))
    assert (pixel(frame, world.path[10]) != 255).any()
    ahead = world.position + 0.3 * world.velocity
    assert_array_equal(pixel(frame, ahead), colour("velocity"))


def test_window(monkeypatch):
    pygame = MagicMock()
    monkeypatch.setitem(sys.modules, "pygame", pygame)
    env, twin = gym.make(ID, render_mode="human"), gym.make(ID, render_mode="rgb_array")
    for each in (env, twin):
        each.reset(seed=2)
        each.step(np.float32([1, 1]))
    _, last = pygame.surfarray.blit_array.call_args_list
    shown = last.args[1].swapaxes(0, 1)
    assert_array_equal(shown, twin.render())
    assert pygame.display.set_mode.call_count == 1
    env.close()
    assert pygame.display.quit.call_count == 1


def test_window_without_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = gym.make(ID, render_mode="human")
    with pytest.raises(DependencyNotInstalled, match="pip install pygame-ce"):
        env.reset(seed=2)


# ------------------------------------------------------------------------------------ options, command line


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"obstacle": 3}, TypeError, "unexpected keyword argument 'obstacle'"),
        ({"obstacles": -1}, ValueError, "obstacles must be a whole number from 0 up, not -1"),
        ({"obstacles": 2.5}, ValueError, "obstacles must be a whole number from 0 up, not 2.5"),
        ({"fixed_layout": -1}, ValueError, "fixed_layout must be a whole number"),
        ({"fixed_layout": True}, ValueError, "fixed_layout must be a whole number"),
        ({"speed_reward": float("nan")}, ValueError, "speed_reward must be a number from 0 up, not nan"),
        ({"speed_reward": "1"}, ValueError, "speed_reward must be a number from 0 up, not '1'"),
    ],
)
def test_refuses_options(options, error, words):
    with pytest.raises(error, match=words):
        gym.make(ID, **options)


def test_refuses_render_modes():
    with pytest.raises(ValueError, match="rgb_array, human or None, not 'ansi'"):
        TargetReaching(render_mode="ansi")
    env = TargetReaching()
    env.reset(seed=1)
    with pytest.warns(UserWarning, match="draws nothing without a render_mode"):
        assert env.render() is None


def test_registered(tmp_path):
    code = f"import gymnasium; print(gymnasium.make('pmoe.envs:{ID}', obstacles=1).observation_space.shape)"
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "(8,)\n"


def test_the_command_line_knows_it(pmoe):
    words = ["--env", ID, "--total-timesteps", "150", "--k", "2", "--compile", "off", "--eval-episodes", "1"]
    assert pmoe("run", "sac", *words).returncode == 0
    assert ID in pmoe("status", "runs").stdout


def test_trains(tmp_path):
    [path] = train("sac", tmp_path, env_id=ID)
    assert path.parent.parent.name == ID
    steps = [int(row["step"]) for row in rows_of(path / "eval.csv")]
    assert steps == [200, 400]
    lengths = [int(row["episodic_length"]) for row in rows_of(path / "episodes.csv")]
    assert 1 <= min(lengths)
    assert max(lengths) <= 200
