"""Actions in [-1, 1] inside, in the units of the environment outside."""

import numpy as np
import pytest
from common import checkpoint, flags, refused, rows_of, train
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Envs

BOUNDS = {
    "thousandths": ([-1e-3, -1e-3], [1e-3, 1e-3]),
    "thousands": ([-1e3, -1e3], [1e3, 1e3]),
    "shifted": ([4.0, -3.0], [6.0, -1.0]),
    "mixed": ([-1e3, 0.0], [0.0, 1e-3]),
}


def env_with(low, high) -> str:
    return f"ToyUnits-v0,low={low},high={high}"


def returns_of(path) -> list[float]:
    """Of all training episodes and evaluations"""
    returns = []
    for row in rows_of(path / "episodes.csv"):
        returns.append(float(row["episodic_return"]))
    for row in rows_of(path / "eval.csv"):
        returns.append(float(row["return_mean"]))
    return returns


def log_alpha_of(path) -> float:
    learnt = checkpoint(path)["learnt"]
    return learnt["temperature.log_alpha"].item()


@pytest.mark.parametrize("alpha", [0.2, "auto"])
def test_a_seed_learns_the_same_in_every_unit_of_the_action(tmp_path, alpha):
    """No bound has a say in densities, losses or the temperature's target."""
    fields = {"alpha": alpha, "total_timesteps": 200, "eval_every": 100}
    (path,) = train("sac", tmp_path, env_id="ToyUnits-v0", **fields)
    log_alpha = log_alpha_of(path)
    expected = returns_of(path)
    assert len(expected) == 20 + 2
    for low, high in BOUNDS.values():
        (path,) = train("sac", tmp_path, env_id=env_with(low, high), **fields)
        assert returns_of(path) == pytest.approx(expected, rel=1e-4)
        assert log_alpha_of(path) == pytest.approx(log_alpha, abs=1e-5)


def test_bounds_give_scale_and_shift():
    envs = Envs(env_with([-2.0, 1.0, 0.0], [4.0, 1.5, 1.0]), 1)
    assert envs.action_size == 3
    assert envs.scale.tolist() == [3.0, 0.25, 0.5]
    assert envs.shift.tolist() == [1.0, 1.25, 0.5]


LARGEST = ([-3.4028235e38] * 2, [3.4028235e38] * 2)


@pytest.mark.parametrize(
    "low, high",
    [([-1.0, 2.0], [1.0, 2.0]), ([-np.inf, -1.0], [1.0, 1.0]), ([-1.0, -np.inf], [1.0, np.inf]), LARGEST],
    ids=["low is high", "one is infinite", "both are infinite", "float32's largest"],
)
@pytest.mark.filterwarnings("ignore:.*action space")
def test_bounds_that_give_no_unit_are_refused(tmp_path, monkeypatch, capsys, low, high):
    make_env = pmoe_sac.make_env
    # An infinite number cannot be written in an environment's name.
    monkeypatch.setattr(pmoe_sac, "make_env", lambda env_id: make_env(env_id, low=low, high=high))
    with pytest.raises(SystemExit) as stop:
        train("sac", tmp_path, env_id="ToyUnits-v0")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert error.startswith("error: --env ToyUnits-v0 must have finite, distinct action bounds, but has ")
    assert list(tmp_path.iterdir()) == []


def test_bounds_that_are_equal_are_refused_by_the_command(pmoe_here, tmp_path):
    env = env_with([-1.0, 2.0], [1.0, 2.0])
    refused(pmoe_here("run", "sac", *flags("sac", env=env)), "bounds")
    assert list(tmp_path.iterdir()) == []


class Recorder:
    """Stands in for an environment: keeps the last action."""

    def __init__(self, action_space):
        self.action_space = action_space
        self.observation_space = pmoe_sac.gym.spaces.Box(-1, 1, (1,))

    def step(self, action):
        self.action = action
        return np.zeros(1), 0.0, False, False, {}


NUMBERS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)  # of those there is no half
UNITS = st.floats(-1, 1, width=32)


@settings(deadline=None, max_examples=200)
@given(
    bounds=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=4),
    unit=UNITS,
    dtype=st.sampled_from([np.float32, np.float64]),
    stretch=st.sampled_from([1.0, 1.1, 1 / 3]),
)
def test_what_the_environment_gets_is_in_its_bounds(bounds, unit, dtype, stretch):
    """Whatever is rounded, -1 is low and 1 is high."""
    pairs = np.sort(np.array(bounds, dtype), -1) * dtype(stretch)
    low, high = pairs.T
    assume((low < high).all() and (high - low >= np.finfo(np.float32).tiny).all())
    space = pmoe_sac.gym.spaces.Box(low, high, dtype=dtype)
    env = Recorder(space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pmoe_sac, "make_env", lambda env_id: env)
        envs = Envs("Recorder", 1)

    for x in (unit, -1.0, 1.0):
        envs.step(np.full((1, len(low)), x, np.float32))
        assert space.contains(env.action), (low, high, x)
        assert env.action.dtype == dtype
        expected = low + (high - low) * (1 + x) / 2
        size = float(np.abs(pairs).max())
        assert env.action == pytest.approx(expected, abs=1e-6 * size)


def test_an_action_is_replayed_and_stored_in_its_own_unit(tmp_path):
    """The checkpoint's actions, and those of the replay, lie in [-1, 1], though the environment's do not."""
    env_id = env_with([4.0, -3e3], [6.0, 1e3])
    (path,) = train("sac", tmp_path, env_id=env_id, total_timesteps=125)
    (actions,) = checkpoint(path)["actions"]
    assert actions.shape == (5, 2)
    rows = np.fromfile(path / "checkpoint/replay.f32", np.float32).reshape(125, 8)
    stored = rows[:, 2:4]
    assert np.array_equal(stored[-5:], actions.numpy())
    # Random actions fill the whole range.
    assert stored.min(0) == pytest.approx(-1, abs=0.1)
    assert stored.max(0) == pytest.approx(1, abs=0.1)
    assert np.abs(stored).max() <= 1
