"""`TargetReaching-v0`: motion, rewards, what touches what, layouts, Gymnasium's rules, replay, frames, training."""

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
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from pmoe.envs.target_reaching import COLOURS, TargetReaching, first_touch
from pmoe.pmoe_sac import Envs

ID = "TargetReaching-v0"
SEEDS = st.integers(0, 2**32 - 1)


def make(position=(-4.5, -4.5), velocity=(0, 0), target=(2, 2), centres=(), radii=(), **options) -> TargetReaching:
    """An environment in this state"""
    env = TargetReaching(len(centres), **options)
    env.reset(seed=0)
    env.position, env.velocity, env.target = np.float64([position, velocity, target])
    env.centres, env.radii = np.reshape(np.float64(centres), (-1, 2)), np.float64(radii)
    return env


def layout(env) -> np.ndarray:
    return np.concatenate([env.target, env.centres.ravel(), env.radii])


def colour(name: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(COLOURS[name][1:]), np.uint8)


def pixel(frame: np.ndarray, x: float, y: float) -> np.ndarray:
    return frame[int((5.2 - y) / 10.4 * 512), int((5.2 + x) / 10.4 * 512)]


def test_motion_by_hand():
    env = make(target=(1, 2), centres=[(0, 3)], radii=[0.5])
    _, reward, terminated, truncated, info = env.step(np.float32([2, 1]))
    assert_allclose(info["position"], [-4.48, -4.49])
    assert_allclose(reward, 0.1 * np.hypot(0.2, 0.1))
    info["position"][:] = 0  # is the caller's
    obs, reward, terminated, truncated, info = env.step(np.float32([2, 1]))
    assert_allclose(obs, [5.44, 6.47, 4.44, 7.47, 2, 1, 0.4, 0.2], rtol=1e-6)
    assert_allclose(reward, 0.1 * np.hypot(0.4, 0.2))
    assert (terminated, truncated, info["success"], info["collision"]) == (False, False, False, False)
    assert_allclose(env.path, [[-4.5, -4.5], [-4.48, -4.49], [-4.44, -4.47]])


def test_limits():
    env = make((0, 0), velocity=(1.95, -1.95))
    obs, *_ = env.step(np.float32([9, -1]))
    assert_allclose(obs[-4:], [2, -1, 2, -2])
    assert_allclose(env.position, [0.2, -0.2])


def test_speed_reward():
    for options, scale in (({}, 0.1), ({"speed_reward": 1.0}, 1), ({"speed_reward": 0}, 0)):
        assert_allclose(make((0, 0), (1, -1), **options).step(np.zeros(2))[1], scale * np.sqrt(2))


def test_reaches_the_target():
    env = make((1.35, 2), (2, 0))
    _, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info["success"], info["collision"]) == (100, True, False, True, False)
    assert_allclose(info["position"], [1.5, 2])  # on its rim


def test_hits_an_obstacle():
    env = make((0, -1), (0, 2), centres=[(3, 3), (0, -0.5)], radii=[0.3, 0.4])
    _, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info["success"], info["collision"]) == (-10, True, False, False, True)
    assert_allclose(info["position"], [0, -0.9])


@pytest.mark.parametrize("side", [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1)])
def test_hits_an_edge(side):
    side = np.array(side)
    env = make(4.7 * side, 2 * side)
    _, reward, terminated, *_ = env.step(np.zeros(2))
    assert (reward > 0, terminated) == (True, False)
    obs, reward, terminated, truncated, info = env.step(np.zeros(2))
    assert (reward, terminated, truncated, info["success"], info["collision"]) == (-10, True, False, False, True)
    assert_allclose(info["position"], 5 * side)
    assert obs in env.observation_space


def test_a_touch_at_the_very_end_of_a_step_counts():
    assert make((4.875, 0), (1.25, 0)).step(np.zeros(2))[1] == -10
    assert make((-3.875, 0), (-1.25, 0), centres=[(-4.5, 0)], radii=[0.5]).step(np.zeros(2))[1] == -10


@pytest.mark.parametrize(("gap", "touches"), [(-1e-9, True), (1e-9, False)])
def test_grazing_between_the_ends_of_a_step(gap, touches):
    env = make((-0.1, -1), (2, 0), centres=[(0, -0.5)], radii=[0.5 - gap])
    assert np.linalg.norm([0.1, 0.5]) > env.radii[0]  # its ends are outside
    assert env.step(np.zeros(2))[2] == touches
    env = make((-0.1, 1.5), (2, 0), target=(0, 2 + gap))
    assert env.step(np.zeros(2))[4]["success"] == touches


def test_what_is_touched_first_decides():
    for near, reward in ((0.1, -10), (0.18, 100)):  # the target's rim is 0.15 away
        env = make((0, 0), (2, 0), target=(0.65, 0), centres=[(near + 0.3, 0)], radii=[0.3])
        assert env.step(np.zeros(2))[1] == reward


def test_leaving_and_resting_touch_nothing():
    for velocity in ((0, 0), (-2, 0), (0, 2)):
        assert not make((0, 0), velocity, centres=[(0.3, 0)], radii=[0.3 - 1e-12]).step(np.zeros(2))[2]


@given(
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    st.floats(0.3, 1),
)
def test_first_touch_is_where_points_of_the_way_say(start, move, radius):
    start, move = np.array(start), np.array(move)
    if np.linalg.norm(start) <= radius + 1e-6:
        return
    [at] = first_touch(start, move, np.zeros((1, 2)), np.array([radius]))
    way = np.linspace(0, min(at, 1), 500)[:, None]
    distance = np.linalg.norm(start + way * move, axis=1)
    assert (distance > radius - 1e-9).all()
    if at <= 1:
        assert_allclose(distance[-1], radius, atol=1e-9)


@given(SEEDS, st.integers(0, 8))
def test_layouts_are_valid(seed, obstacles):
    env = TargetReaching(obstacles)
    obs, _ = env.reset(seed=seed)
    assert obs in env.observation_space and obs.shape == (6 + 2 * obstacles,)
    assert ((env.target >= 0) & (env.target <= 3)).all()
    assert ((env.radii >= 0.3) & (env.radii <= 0.6)).all()
    assert (np.abs(env.centres) + env.radii[:, None] <= 5).all()
    assert (np.linalg.norm(env.centres - env.target, axis=1) > env.radii + 0.5).all()
    assert (np.linalg.norm(env.centres + 4.5, axis=1) > env.radii + 0.5).all()


@given(SEEDS)
def test_an_episode_stays_within_its_rules(seed):
    env = gym.make(ID)
    first, info = env.reset(seed=seed)
    rng, terminated, truncated = np.random.default_rng(seed), False, False
    heading = rng.uniform(-2, 2, 2)
    while not (terminated or truncated):
        assert (info["success"], info["collision"]) == (False, False)
        before = info["position"]
        obs, reward, terminated, truncated, info = env.step(np.float32(heading + rng.normal(0, 1, 2)).clip(-2, 2))
        assert obs in env.observation_space
        assert (np.abs(info["position"] - before) <= 0.2 + 1e-12).all()
        assert_allclose(obs[:2], env.unwrapped.target - info["position"], atol=1e-6)
        assert reward == {(True, False): 100, (False, True): -10}.get(
            (info["success"], info["collision"]), 0.1 * np.linalg.norm(env.unwrapped.velocity)
        )
        assert terminated == (info["success"] or info["collision"])
        distance = np.linalg.norm(env.unwrapped.centres - info["position"], axis=1)
        assert (distance > env.unwrapped.radii - 1e-9).all() and (np.abs(info["position"]) <= 5).all()
        if not terminated:
            assert (np.abs(info["position"]) < 5).all()
            assert np.linalg.norm(env.unwrapped.target - info["position"]) > 0.5
    assert_array_equal(env.reset(seed=seed)[0], first)
    assert len(env.unwrapped.path) == 1


def test_layouts_differ_and_fixed_ones_stay():
    env, fixed, other = TargetReaching(), TargetReaching(fixed_layout=3), TargetReaching(fixed_layout=4)
    layouts = []
    for seed in (1, None, 2, None, 1):
        for e in (env, fixed, other):
            e.reset(seed=seed)
        layouts.append([layout(e) for e in (env, fixed, other)])
    moving, kept, others = map(np.array, zip(*layouts))
    assert_array_equal(moving[0], moving[4])
    assert len(np.unique(moving, axis=0)) == 4
    assert (kept == kept[0]).all() and (others == others[0]).all() and (kept[0] != others[0]).any()


def test_time_limit():
    env = gym.make(ID)
    env.reset(seed=1)
    ends = [env.step(np.zeros(2, np.float32))[1:4] for _ in range(200)]
    assert ends == [(0, False, False)] * 199 + [(0, False, True)]


@pytest.mark.parametrize("options", [{}, {"fixed_layout": 3}, {"obstacles": 0, "speed_reward": 1.0}])
def test_gymnasium_s_checker(options, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", MagicMock())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*symmetric and normalized")  # the paper's are in [-2, 2]
        check_env(gym.make(ID, **options).unwrapped)


def test_replays_to_the_bit():
    def episodes(envs, actions):  # what each step returned, and the observation that began the next episode
        for action in actions:
            *step, terminated, truncated = (x.copy() for x in envs.step(action[None], np.int32([0])))
            if terminated[0] or truncated[0]:
                envs.reset(0)
            yield [*step, terminated, truncated, envs.obs.copy()]

    actions = np.random.default_rng(0).uniform(-2, 2, (700, 2)).astype(np.float32)
    first, second = Envs(ID, 1), Envs(ID, 1)
    first.start([1])
    done = next(n for n, _ in enumerate(episodes(first, actions), 1) if n > 200 and len(first.actions[0]) == 25)
    second.start([2])
    second.reset(0, first.random_state[0], np.array(first.actions[0]))
    assert_array_equal(first.obs, second.obs)
    assert_array_equal(first.returns, second.returns)
    ends = 0
    for a, b in zip(*(episodes(x, actions[done:]) for x in (first, second)), strict=True):
        for x, y in zip(a, b, strict=True):
            assert_array_equal(x, y)
        ends += a[2] + a[3]
    assert ends > 1
    assert layout(first.envs[0].unwrapped).tobytes() == layout(second.envs[0].unwrapped).tobytes()


def test_frame():
    env = gym.make(ID, render_mode="rgb_array")
    env.reset(seed=2)
    before, state = env.render(), env.unwrapped
    assert before.shape == (512, 512, 3) and before.dtype == np.uint8
    rows, columns = np.nonzero((before == colour("target")).all(-1))
    centroid = np.array([columns.mean() + 0.5, 512 - rows.mean() - 0.5]) / 512 * 10.4 - 5.2
    assert_allclose(centroid, state.target, atol=0.03)
    assert_allclose(len(rows) * (10.4 / 512) ** 2, np.pi * 0.5**2, rtol=0.1)
    for centre in state.centres:
        assert_array_equal(pixel(before, *centre), colour("obstacle"))
    assert_array_equal(pixel(before, *state.position), colour("agent"))
    for _ in range(20):
        env.step(np.float32([2, 1]))
    after = env.render()
    assert_array_equal(pixel(after, *state.position), colour("agent"))
    assert (pixel(after, *state.path[10]) != 255).any()  # the way it came
    assert_array_equal(pixel(after, *state.position + 0.3 * state.velocity), colour("velocity"))


def test_window(monkeypatch):
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "pygame", None)
        with pytest.raises(DependencyNotInstalled, match="pip install pygame-ce"):
            gym.make(ID, render_mode="human").reset(seed=2)
    monkeypatch.setitem(sys.modules, "pygame", pygame := MagicMock())
    env, twin = gym.make(ID, render_mode="human"), gym.make(ID, render_mode="rgb_array")
    for e in (env, twin):
        e.reset(seed=2)
        e.step(np.float32([1, 1]))
    shown = [call.args[1] for call in pygame.surfarray.blit_array.call_args_list]
    assert len(shown) == 2 and pygame.display.set_mode.call_count == 1
    assert_array_equal(shown[1].swapaxes(0, 1), twin.render())
    env.close()
    assert pygame.display.quit.call_count == 1


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
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout == "(8,)\n"


def test_the_command_line_knows_it(pmoe):
    words = ["--env", ID, "--total-timesteps", "150", "--k", "2", "--compile", "off", "--eval-episodes", "1"]
    assert pmoe("run", "sac", *words).returncode == 0
    assert "TargetReaching-v0" in pmoe("status", "runs").stdout


def test_trains(tmp_path):
    [path] = train("sac", tmp_path, env_id=ID)
    assert path.parent.parent.name == ID
    assert {int(row["step"]) for row in rows_of(path / "eval.csv")} == {200, 400}
    assert all(1 <= int(row["episodic_length"]) <= 200 for row in rows_of(path / "episodes.csv"))
