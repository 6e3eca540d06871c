"""Environments are held to Gymnasium's contract: what can be cast is, the rest ends a run in one line."""

import signal

import gymnasium as gym
import numpy as np
import odd_envs  # noqa: F401  registers them
import pytest
import torch
from common import LOOPS, Toy, at_move, checkpoint, failed, flags, rows_of, same_run, train

from pmoe.pmoe_sac import Envs

FEW = {"total_timesteps": 160, "eval_every": 160, "eval_episodes": 1, "checkpoint_every": 50}


def odd(how, **options) -> str:
    words = [f"how='{how}'", *[f"{name}={value}" for name, value in options.items()]]
    return f"Odd-v0,{','.join(words)}"


def ends(capsys, status, algo, run_dir, **fields) -> str:
    """The one line with which a run ends"""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train(algo, run_dir, **{**FEW, **fields})
    assert stop.value.code == status
    error = capsys.readouterr().err
    assert error.startswith("error: --env ")
    assert error.count("\n") == 1
    return error


CAST = [
    "flags are integers",
    "flags are numbers",
    "flags are arrays",
    "reward is an array",
    "reward has no axes",
    "observation is a list",
]


@pytest.fixture(scope="module")
def plain_episodes(tmp_path_factory):
    """episodes.csv where nothing is odd"""
    (path,) = train("sac", tmp_path_factory.mktemp("plain"), env_id=odd("plain"), **FEW)
    return (path / "episodes.csv").read_bytes()


@pytest.mark.parametrize("how", CAST)
def test_what_can_be_cast_is(tmp_path, plain_episodes, how):
    (path,) = train("sac", tmp_path, env_id=odd(how), **FEW)
    assert (path / "episodes.csv").read_bytes() == plain_episodes
    assert len(rows_of(path / "episodes.csv")) == 160 / 5


def test_flags_that_are_numbers_end_an_evaluation():
    envs = Envs(odd("flags are integers"), 3)
    returns = envs.evaluate(lambda obs: torch.zeros(*obs.shape[:2], 2), [1], 0)
    assert returns.shape == (1, 3)
    assert [len(actions) for actions in envs.actions] == [5, 5, 5]


REFUSED = {
    "reward is None": "reward is None, not a number",
    "reward is text": "reward is 'much', not a number",
    "reward has two numbers": "reward is array([1., 1.]), not a number",
    "reward is nan": "reward is nan",
    "reward is infinite": "reward is -inf",
    "reward is infinite in float32": "reward is 1e+39",
    "observation is infinite in float32": "observation is not finite: array([1.e+300, 1.e+300])",
    "observation is short": "observation has the shape (1,), its space (2,)",
    "observation has an axis more": "observation has the shape (1, 2), its space (2,)",
    "observation is None": "observation has the shape (), its space (2,)",
    "observation is nan": "observation is not finite: array([nan, nan])",
    "flag is None": "terminated is None, not a number",
    "old gym": "step failed: ",
    "step raises": "step failed: RuntimeError: the motor is broken",
    "reset returns the observation alone": "observation has the shape (), its space (2,)",
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_cast_is_refused_before_anything_is_on_disk(tmp_path, capsys, how):
    error = ends(capsys, 2, "sac", tmp_path, env_id=odd(how))
    assert f"the environment's {REFUSED[how]}" in error
    assert list(tmp_path.iterdir()) == []


LATER = [("sac", how) for how in REFUSED if "reset" not in how]
LATER += [(algo, how) for algo in ("ppo", "dac") for how in ("reward is nan", "step raises")]


@pytest.mark.parametrize("algo, how", LATER)
def test_later_it_stops_the_run(tmp_path, capsys, algo, how):
    """With the step and the seed; the last checkpoint holds nothing of it."""
    env_id = odd(how, at=130)
    error = ends(capsys, 1, algo, tmp_path, env_id=env_id)
    assert f"--env {env_id}: the environment's {REFUSED[how]}" in error
    assert " at step 130 (seed 1)" in error
    assert error.endswith("; the last checkpoint is from before that\n")
    (path,) = tmp_path.glob("*/*/seed1")
    state = checkpoint(path)
    assert state["step"] == 100
    for x in state["learnt"].values():
        assert x.isfinite().all()
    if algo == "sac":
        assert np.isfinite(np.fromfile(path / "checkpoint/replay.f32", np.float32)).all()


def test_the_step_is_right_after_a_resume_and_with_several_environments(tmp_path, monkeypatch, capsys):
    env_id = odd("reward is nan", at=75)
    fields = {"env_id": env_id, "num_envs": 2, "eval_every": 10**6}
    with monkeypatch.context() as patch:
        at_move(patch, "ppo", 30, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train("ppo", tmp_path, **{**FEW, **fields})
    # A new process: its environments have made no steps yet.
    (path,) = tmp_path.glob("*/*/*")
    assert checkpoint(path)["step"] == 100
    error = ends(capsys, 1, "ppo", tmp_path, resume=True, total_timesteps=400, **fields)
    made_again = len(checkpoint(path)["actions"][0])
    step = 100 + 2 * (75 - made_again)
    assert f"reward is nan at step {step} (seed 1)" in error


def test_the_seed_that_it_was(tmp_path, capsys):
    error = ends(capsys, 1, "sac", tmp_path, env_id=odd("reward is nan", at=20, only_seed=2), num_seeds=3)
    assert " at step 20 (seed 2); " in error


def test_in_an_evaluation(tmp_path, capsys):
    """In the tenth its environment makes its 51st step, with the one that tries it; training has made 50."""
    fields = {"env_id": odd("reward is nan", at=51), "total_timesteps": 50, "eval_every": 5}
    error = ends(capsys, 1, "sac", tmp_path, **fields)
    assert "reward is nan in the evaluation at step 50 (seed 1)" in error


def test_an_exception_leaves_its_frames_in_the_log(tmp_path, capsys):
    error = ends(capsys, 1, "sac", tmp_path, env_id=odd("step raises", at=130))
    (log,) = tmp_path.glob("*/*/seed1.log")
    assert f"see {log}" in error
    text = log.read_text()
    assert "RuntimeError: the motor" in text
    assert 'odd_envs.py", line' in text


def test_an_old_environment_is_refused(tmp_path, capsys):
    error = ends(capsys, 2, "sac", tmp_path, env_id="Unseeded-v0")
    assert "reset failed: TypeError: " in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "env_id, message",
    [
        ("FailsAtOnce-v0", "no such robot"),
        ("Pendulum-v1,g='x'", "failed: "),
        ("Pendulum-v1,colour=1", "TypeError: "),
        ("raises_on_import:Any-v0", "ZeroDivisionError: "),
        ("exits_on_import:Any-v0", "SystemExit: 3"),
        ("Whole-v0", "must have actions that are real numbers"),
        ("Pendulum-v1,max_episode_steps=-1", "max_episode_steps=-1 is not a whole number above 0"),
        ("Pendulum-v1,max_episode_steps='x'", "max_episode_steps='x' is not a whole number above 0"),
    ],
)
def test_environments_that_cannot_be_made(tmp_path, monkeypatch, capsys, env_id, message):
    (tmp_path / "raises_on_import.py").write_text("1 / 0")
    (tmp_path / "exits_on_import.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    error = ends(capsys, 2, "sac", tmp_path / "runs", env_id=env_id)
    assert message in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_an_old_generator_is_resumed_exactly(tmp_path, monkeypatch, algo):
    fields = {"env_id": "OldGenerator-v0", "num_seeds": 2}
    straight = train(algo, tmp_path / "straight", **fields)
    with monkeypatch.context() as patch:
        at_move(patch, algo, 223, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(algo, tmp_path / "stopped", **fields)
    resumed = train(algo, tmp_path / "stopped", resume=True, **fields)
    for path, twin in zip(straight, resumed, strict=True):
        same_run(path, twin)


@pytest.mark.parametrize("kind, words", [("dict", "Dict('where'"), ("tuple", "Tuple(Discrete(3)")])
def test_mappings_are_flattened(tmp_path, capsys, kind, words):
    (path,) = train("sac", tmp_path, env_id=f"Mapping-v0,kind='{kind}'", **FEW)
    out = capsys.readouterr().out
    assert f"observations are flattened to 4 numbers: {words}" in out
    rows = np.fromfile(path / "checkpoint/replay.f32", np.float32).reshape(160, -1)
    obs = rows[:, 1:4] if kind == "dict" else rows[:, :3]
    # One-hot, by the step of the episode
    expected = np.eye(3)[np.arange(160) % 5 % 3]
    assert np.array_equal(obs, expected)


def test_what_cannot_be_flattened_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Toy, "observation_space", gym.spaces.Sequence(gym.spaces.Discrete(2)))
    error = ends(capsys, 2, "sac", tmp_path, env_id="ToyTerminates-v0")
    assert "must have flat Boxes of observations and actions, but has Sequence(" in error


@pytest.mark.parametrize("algo", LOOPS)
def test_an_evaluation_that_never_ends_hears_signals(tmp_path, monkeypatch, capsys, algo):
    fields = {"env_id": "Endless-v0", "total_timesteps": 100, "eval_every": 50, "eval_episodes": 2}
    with monkeypatch.context() as patch:
        # The second evaluation would be the hundredth step's.
        at_move(patch, algo, 1000, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            train(algo, tmp_path, **fields)
    assert stop.value.code == 143
    out = capsys.readouterr().out
    assert "note: Endless-v0 has no time limit, and an episode may never end" in out
    assert "--env Endless-v0,max_episode_steps=1000 would set one" in out
    assert "stopped at step 50;" in out


def test_one_line_by_the_command(pmoe_here, tmp_path):
    words = flags("sac", env=odd("reward is None"))
    failed(pmoe_here("run", "sac", *words), "the environment's reward is None")
    assert list(tmp_path.iterdir()) == []
