"""Whole runs: what they leave on disk, determinism, exact resume, and every way in which a run can end."""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from common import (
    ALGORITHMS,
    LOOPS,
    MODULES,
    PMOE,
    Toy,
    checkpoint,
    flags,
    make_args,
    refused,
    rows_of,
    same_run,
    same_runs,
    train,
)
from hypothesis import given
from hypothesis import strategies as st

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Envs, ReplayBuffer

TWO_ENVS = ("ppo", {"num_envs": 2})


def test_files_and_scalars_of_a_run(quick_run, algo):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = quick_run(algo)
    assert re.search(rf"/Pendulum-v1/{algo}-k2-[0-9a-f]{{6}}/seed1$", str(path))
    config = json.loads((path / "config.json").read_text())
    assert config["args"] == vars(make_args(algo, path.parents[2])) and config["algo"] == algo
    assert {"versions", "device", "command", "commit"} < config.keys()
    episodes, evals = rows_of(path / "episodes.csv"), rows_of(path / "eval.csv")
    assert [(row["step"], row["episodic_length"]) for row in episodes] == [("200", "200"), ("400", "200")]
    assert [(row["step"], row["episodes"]) for row in evals] == [("200", "2"), ("400", "2")]
    done = json.loads((path / "done.json").read_text())
    assert done["step"] == 400 and done["return_mean"] == float(evals[-1]["return_mean"]) and done["wall_time"] > 0
    assert [file.name for file in (path / "checkpoint").iterdir()] == ["0000000400.pt"]  # the replay served its purpose

    events = EventAccumulator(str(path))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"charts/episodic_return", "charts/episodic_length", "charts/SPS", "charts/eval_return"} < scalars
    usage = [events.Scalars(f"routing/usage_{k}")[-1].value for k in (0, 1)]
    assert sum(usage) == pytest.approx(1, abs=1e-5) or algo.startswith("mcp")  # whose gates are no probabilities
    losses = {x for x in scalars if x.startswith("losses/")}
    assert losses and all(np.isfinite(events.Scalars(x)[-1].value) for x in losses)
    assert [events.Scalars(x)[-1].step for x in ("charts/SPS", "charts/eval_return", *losses)] == [400] * (
        2 + len(losses)
    )


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path, quick_run, loop):
    (same,), (other,) = (train(loop, tmp_path, seed=seed) for seed in (1, 2))
    same_run(quick_run(loop), same)
    assert (same / "episodes.csv").read_bytes() != (other / "episodes.csv").read_bytes()


def test_training_is_the_same_without_evaluation(tmp_path, quick_run, loop):
    a, (b,) = quick_run(loop), train(loop, tmp_path, eval_every=10**6)
    assert (a / "episodes.csv").read_bytes() == (b / "episodes.csv").read_bytes()
    a, b = (checkpoint(x)["learnt"] for x in (a, b))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("algo, fields", [*((algo, {}) for algo in ALGORITHMS), TWO_ENVS], ids=str)
def test_seed_alone_is_as_among_three(tmp_path, algo, fields):
    fields = {"env_id": "ToyTruncates-v0", "total_timesteps": 150} | fields  # no chaos: small errors stay so
    paths = train(algo, tmp_path / "three", num_seeds=3, **fields)
    (alone,) = train(algo, tmp_path / "alone", seed=2, **fields)
    assert [path.name for path in paths] == ["seed1", "seed2", "seed3"]
    for a, b in zip(rows_of(paths[1] / "episodes.csv"), rows_of(alone / "episodes.csv"), strict=True):
        assert a["step"] == b["step"]
        assert float(a["episodic_return"]) == pytest.approx(float(b["episodic_return"]), abs=1e-3)
    a, b = (checkpoint(x)["learnt"] for x in (paths[1], alone))
    for name, x in a.items():
        torch.testing.assert_close(x, b[name], rtol=1e-3, atol=1e-5, msg=name)


def train_and_look(run_dir, monkeypatch, **fields):
    """The rows that are in the replay buffer when the training of one seed is over"""
    buffers = []

    class Seen(ReplayBuffer):
        def __init__(self, *args):
            super().__init__(*args)
            buffers.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(pmoe_sac, "ReplayBuffer", Seen)
        train("sac", run_dir, **fields)
    return buffers[0].rows[0]


@pytest.mark.parametrize("env_id, flag", [("ToyTerminates-v0", 1.0), ("ToyTruncates-v0", 0.0)])
def test_transitions_end_in_the_true_last_observation(tmp_path, monkeypatch, env_id, flag):
    rows = train_and_look(tmp_path, monkeypatch, env_id=env_id, total_timesteps=60, learning_starts=60)
    assert len(rows) == 60
    for t, (count, _, *_, next_count, _, _, terminated) in enumerate(rows.tolist()):
        assert (count, next_count) == (t % 5, t % 5 + 1)  # no reset among the transitions
        assert terminated == (flag if next_count == 5 else 0.0)


def test_buffer_forgets_the_oldest(tmp_path, monkeypatch):
    fields = {"env_id": "ToyTruncates-v0", "total_timesteps": 65, "learning_starts": 65}
    every, last = (train_and_look(tmp_path, monkeypatch, buffer_size=n, **fields) for n in (100, 10))
    assert every.shape == (65, 8) and last.shape == (10, 8) and len(every.unique(dim=0)) == 65
    assert torch.equal(last.roll(5, 0), every[-10:])


def test_samples_are_of_the_rows_that_there_are_and_each_seed_has_its_own():
    buffer = ReplayBuffer(20, 1, 1, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    buffer.rows[:] = torch.arange(20.0)[:, None] + torch.tensor([0.0, 100.0])[:, None, None]
    obs, action, next_obs, reward, terminated = buffer.sample(10, 500)
    assert obs.shape == reward.shape == (2, 500, 1) and torch.equal(obs, next_obs) and torch.equal(action, terminated)
    assert [set(x.flatten().tolist()) for x in obs] == [set(range(10)), set(range(100, 110))]
    assert not torch.equal(obs[0], obs[1] - 100)


@pytest.mark.parametrize("algo, fields", [("sac", {"buffer_size": 60, "alpha": "auto"}), ("ppo", {})], ids=str)
def test_resume_after_a_stop_anywhere(tmp_path, monkeypatch, algo, fields):
    """Stopped before, between and after the seeds' checkpoints are renamed, before the earlier ones are deleted, and in
    the middle of writing one."""
    fields = {"num_seeds": 2, "checkpoint_every": 60} | fields
    straight = train(algo, tmp_path / "straight", **fields)

    class Killed(BaseException):
        pass

    calls, where, steps = 0, set(), []

    def count(function, *args):
        nonlocal calls
        calls += 1
        if calls == stop_at:
            where.add(function)
            if function is save:
                args[1].write(b"half a checkpoint")
            raise Killed
        return function(*args)

    save, rename, unlink = torch.save, os.replace, Path.unlink
    monkeypatch.setattr(torch, "save", lambda *args: count(save, *args))
    monkeypatch.setattr(os, "replace", lambda *args: count(rename, *args))
    monkeypatch.setattr(Path, "unlink", lambda *args: count(unlink, *args))
    # A checkpoint of two seeds is save, rename, save, rename, and then unlink, unlink where there were earlier ones. A
    # run's first ends with call 4: 7 and 8 leave one seed with a later one than the other, 9 and 10 both kinds.
    for stop_at in (2, 7, 5, 8, 1, 9, 10, 16, 3, 14, 7, 16):
        calls = 0
        with pytest.raises(Killed):
            train(algo, tmp_path / "stopped", resume=bool(steps), overwrite=not steps, **fields)
        folders = sorted((tmp_path / "stopped").glob("*/*/*/checkpoint"))
        files = [sorted(file.stem for file in folder.glob("*.pt")) for folder in folders]
        steps += [[int(file[-1]) for file in files]] if all(files) else []
    assert any(a != b for a, b in steps) and steps[-1][0] >= 240 and where == {save, rename, unlink}
    stop_at = 0
    for path, twin in zip(straight, train(algo, tmp_path / "stopped", resume=True, **fields)):
        same_run(path, twin)


def test_resume_after_a_stop_at_the_very_end(tmp_path, monkeypatch, quick_run, loop):
    straight = quick_run(loop)

    class Killed(BaseException):
        pass

    def write_or_stop(path, text):
        if path.stem == "done":
            raise Killed
        return write(path, text)

    write = Path.write_text
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_or_stop)
        with pytest.raises(Killed):
            train(loop, tmp_path / "stopped")
    (path,) = train(loop, tmp_path / "stopped", resume=True)
    same_run(straight, path)
    done, twin = (json.loads((x / "done.json").read_text()) for x in (straight, path))
    assert done | {"wall_time": 0} == twin | {"wall_time": 0}


def at_step(monkeypatch, algo, step, what):
    """Calls `what` when the environments are about to move for that time."""
    moves, move = 0, MODULES[algo].Envs.step

    def count(envs, *args):
        nonlocal moves
        moves += 1
        if moves == step:
            what()
        return move(envs, *args)

    monkeypatch.setattr(MODULES[algo].Envs, "step", count)


@pytest.mark.parametrize("algo, fields", [*((algo, {}) for algo in LOOPS), TWO_ENVS], ids=str)
def test_after_a_signal_a_run_goes_on_as_if_never_stopped(tmp_path, monkeypatch, capsys, algo, fields):
    fields, before = {"num_seeds": 2, "checkpoint_every": 10**6, "env_id": "Hopper-v4"} | fields, handlers()
    train(algo, tmp_path / "straight", **fields)
    assert handlers() == before
    with monkeypatch.context() as patch:
        at_step(patch, algo, 60, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            train(algo, tmp_path / "stopped", **fields)
    paths = sorted((tmp_path / "stopped").glob("*/*/*"))
    stopped_at = checkpoint(paths[0])["step"]
    assert stop.value.code == 143 and 60 <= stopped_at <= 200
    assert f"stopped at step {stopped_at}; the same command with --resume goes on" in capsys.readouterr().out
    assert train(algo, tmp_path / "stopped", resume=True, **fields) == paths
    same_runs(tmp_path / "straight", tmp_path / "stopped", seeds=2)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def last_written(run_dir):
    """When the newest checkpoint of all seeds was written, in nanoseconds; 0 if a seed has none"""
    times = [file.stat().st_mtime_ns for file in run_dir.glob("*/*/*/checkpoint/*.pt")]
    return max(times) if len(times) >= 2 else 0


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_as_never_stopped(tmp_path, loop):
    fields = {"env_id": "Humanoid-v4", "total_timesteps": 400, "checkpoint_every": 7}
    command = [PMOE, "run", loop, *flags(loop, **fields, num_seeds=2)]
    subprocess.run([*command, "--run-dir", "straight"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    command += ["--run-dir", "killed"]
    rng, written, kills = random.Random(0), 0, 0
    for _ in range(3):
        resume = ["--resume"] if written else []
        process = subprocess.Popen([*command, *resume], cwd=tmp_path, stdout=subprocess.DEVNULL)
        while process.poll() is None and last_written(tmp_path / "killed") <= written:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        written = last_written(tmp_path / "killed")
    assert kills >= 2
    if not list((tmp_path / "killed").glob("*/*/*/done.json")):
        subprocess.run([*command, "--resume"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    same_runs(tmp_path / "straight", tmp_path / "killed", seeds=2)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_cleanly(tmp_path, number, status):
    command = [PMOE, "run", "sac", *flags("sac", total_timesteps=10**6, checkpoint_every=10**6)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("runs/*/*/*/checkpoint/*.pt")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == status and error == "" and "--resume goes on" in out


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, quick_run):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))  # bytes: fewer than a checkpoint has

    with monkeypatch.context() as patch:
        at_step(patch, "sac", 150, fill)
        try:
            with pytest.raises(OSError, match="File too large"):
                train("sac", tmp_path / "full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (path,) = tmp_path.glob("full/*/*/*")
    assert checkpoint(path)["step"] == 100
    train("sac", tmp_path / "full", resume=True)
    same_run(path, quick_run("sac"))


def test_a_full_disk_is_one_line(pmoe):
    limit = (10**6, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    result = pmoe("run", "sac", *flags("sac"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1 and "File too large" in result.stderr


@pytest.mark.parametrize("env_id", ["ToyBreaks-v0", "ToyBlinds-v0"])  # a reward, an observation
def test_a_number_that_is_not_finite_stops_the_run(tmp_path, capsys, loop, env_id):
    with pytest.raises(SystemExit) as stop:
        train(loop, tmp_path, env_id=env_id)
    error = capsys.readouterr().err
    step = int(re.match(r"error: .+ is not finite at step (\d+); the last checkpoint is from before\n$", error)[1])
    assert stop.value.code == 1 and 130 <= step < 160  # that of step 130 or 132 was not
    (path,) = tmp_path.glob("*/*/*")
    state = checkpoint(path)
    assert state["step"] == 100 and all(x.isfinite().all() for x in state["learnt"].values())


def test_tracking_mirrors_tensorboard(tmp_path, monkeypatch):
    calls = []
    stub = types.SimpleNamespace(
        tensorboard=types.SimpleNamespace(patch=lambda **kwargs: calls.append(kwargs)),
        init=lambda **kwargs: calls.append(kwargs),
    )
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr(pmoe_sac.util, "find_spec", lambda name: name)
    paths = train("sac", tmp_path, track=True, num_seeds=2, total_timesteps=60)
    assert calls[0] == {"root_logdir": str(paths[0].parent), "pytorch": True}
    assert calls[1]["project"] == "pmoe" and calls[1]["config"]["k"] == 2


def test_a_run_starts_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (path,) = train("sac", tmp_path, total_timesteps=60)
    assert (path / "done.json").exists()


def test_an_environment_that_reuses_its_arrays(tmp_path, monkeypatch):
    rows = train_and_look(tmp_path, monkeypatch, env_id="ToyReuses-v0", total_timesteps=60)
    assert [(row[0], row[4]) for row in rows.tolist()] == [(t % 5, t % 5 + 1) for t in range(60)]


def moves(monkeypatch) -> list[tuple]:
    """What the training environment, one, does: observation, action, next observation, reward, terminated"""
    seen, move = [], Envs.step

    def step(envs, action, ids):
        before, result = envs.obs[0].copy(), move(envs, action, ids)
        if envs.n == 1:
            seen.append((*before, *action[0], *result[0][0], result[1][0], result[2][0]))
        return result

    monkeypatch.setattr(Envs, "step", step)
    return seen


@pytest.mark.parametrize("fields", [{}, {"buffer_size": 70}, {"num_seeds": 2}], ids=str)
def test_a_kept_replay_is_every_transition_in_order(tmp_path, monkeypatch, fields):
    seen = moves(monkeypatch)
    paths = train("sac", tmp_path, env_id="ToyTerminates-v0", keep_replay=True, **fields)
    for path in paths:
        rows = np.fromfile(path / "checkpoint/replay.f32", np.float32).reshape(400, 8)
        assert [row[0] for row in rows] == [t % 5 for t in range(400)]
        assert [row[-1] for row in rows] == [t % 5 == 4 for t in range(400)]
        if len(paths) == 1:
            assert (rows == np.float32(seen)).all()


def test_a_kept_replay_changes_nothing_else(tmp_path, quick_run):
    """Neither the name nor what is learnt; without the option there is none"""
    (path,) = train("sac", tmp_path, keep_replay=True)
    assert path.relative_to(tmp_path) == quick_run("sac").relative_to(quick_run("sac").parents[2])
    same_run(path, quick_run("sac"))
    assert sorted(file.name for file in (path / "checkpoint").iterdir()) == ["0000000400.pt", "replay.f32"]
    assert not (quick_run("sac") / "checkpoint/replay.f32").exists()


@pytest.mark.parametrize("kept_at_first", [True, False])
def test_a_kept_replay_of_a_run_that_was_resumed(tmp_path, monkeypatch, kept_at_first):
    """Once after a signal, once after its process died between the replay and the checkpoint"""
    fields = {"buffer_size": 50, "checkpoint_every": 40, "total_timesteps": 240, "eval_every": 240}
    (straight,) = train("sac", tmp_path / "straight", keep_replay=True, **fields)

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    def stop():
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        at_step(patch, "sac", 70, stop)
        with pytest.raises(SystemExit):
            train("sac", tmp_path / "stopped", keep_replay=kept_at_first, **fields)
    with monkeypatch.context() as patch:
        at_step(patch, "sac", 100, lambda: patch.setattr(os, "replace", die))
        with pytest.raises(Killed):
            train("sac", tmp_path / "stopped", resume=True, keep_replay=kept_at_first, **fields)
    (path,) = tmp_path.glob("stopped/*/*/*")
    assert (path / "checkpoint/replay.f32").stat().st_size > checkpoint(path)["replay"]
    train("sac", tmp_path / "stopped", resume=True, keep_replay=True, **fields)
    a, b = ((x / "checkpoint/replay.f32").read_bytes() for x in (straight, path))
    assert a == b and len(a) == 240 * 9 * 4


# Options in the environment's name

TEXTS = st.text(st.characters(exclude_characters="'\\", exclude_categories=["C", "Z"]) | st.just(" "))
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: "+" not in repr(x))  # not 1e+16
OPTIONS = st.dictionaries(
    st.from_regex("[a-z_][a-z0-9_]*", fullmatch=True).filter(lambda x: x != "id"),
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    max_size=4,
)


def made_by_gym(env_id) -> tuple:
    """What gym.make is called with"""

    def make(name, **options):
        calls.append((name, options))
        return Toy()

    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gym, "make", make)
        Envs(env_id, 2)
    assert len(calls) == 2 and calls[0] == calls[1]
    return calls[0]


@given(st.sampled_from(["Hopper-v5", "my_module:My/Env-v0", "a.b:C"]), OPTIONS)
def test_any_options_in_a_name_reach_the_environment(name, options):
    written = "".join(f",{key}=" + (f"'{x}'" if isinstance(x, str) else repr(x)) for key, x in options.items())
    made, given_options = made_by_gym(name + written)
    assert made == name and given_options == options
    assert [type(x) for x in given_options.values()] == [type(x) for x in options.values()]


@pytest.mark.parametrize(
    "text, value",
    [("True", True), ("False", False), ("None", None), ("-1.5", -1.5), ("1e-3", 0.001), ("3", 3), ("-2", -2)]
    + [("'text'", "text"), ("'a,b=1'", "a,b=1"), ("''", ""), ("0.", 0.0), ("'-v5'", "-v5")],
)
def test_values_of_options(text, value):
    name, options = made_by_gym(f"Hopper-v5,first={text},second={text}")
    assert name == "Hopper-v5" and options == {"first": value, "second": value}
    assert type(options["first"]) is type(value)


def test_options_change_the_environment():
    envs = Envs("Hopper-v5,reset_noise_scale=0.0,exclude_current_positions_from_observation=False", 2)
    envs.start([1, 2])
    assert envs.obs.shape == (2, 12) and (envs.obs[0] == envs.obs[1]).all()
    plain = Envs("Hopper-v5", 2)
    plain.start([1, 2])
    assert plain.obs.shape == (2, 11) and (plain.obs[0] != plain.obs[1]).any()


NOISELESS = "Hopper-v5,reset_noise_scale=0.0"


def test_a_run_with_options_is_in_a_folder_of_its_own_and_evaluated_with_them(pmoe_here, tmp_path):
    fields = {"total_timesteps": 60, "eval_every": 60}
    for env in ("Hopper-v5", NOISELESS):
        assert pmoe_here("run", "sac", *flags("sac", env=env, **fields)).returncode == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["Hopper-v5", NOISELESS]
    for env in ("Hopper-v5", NOISELESS):
        (path,) = tmp_path.glob(f"runs/{env}/*/*")
        assert json.loads((path / "config.json").read_text())["args"]["env_id"] == env
        (row,) = rows_of(path / "eval.csv")
        result = pmoe_here("eval", path, "--episodes", 2)
        assert f" {float(row['return_mean']):.1f} " in result.stdout and env in result.stdout
        assert (float(row["return_std"]) == 0) == (env == NOISELESS)  # every episode starts, and goes, the same way
    assert NOISELESS in pmoe_here("status", "runs").stdout


@pytest.mark.parametrize(
    "env, word",
    [
        ("TargetReaching-v0,fixed_layout", "fixed_layout"),
        ("TargetReaching-v0,fixed_layout=true", "fixed_layout=true"),
        ("TargetReaching-v0,fixed_layout=-1", "fixed_layout must be a whole number from 0 up, not -1"),
        ("TargetReaching-v0,fixed_layout='a'", "fixed_layout must be a whole number"),
        ("TargetReaching-v0,fixed_layout=1.e.", "fixed_layout=1.e."),
        ("TargetReaching-v0,fixed_layout=2x", "2x"),
        ("TargetReaching-v0,fixed_layouts=2", "unexpected keyword argument 'fixed_layouts'"),
        ("TargetReaching-v0,fixed_layout=2,", "TargetReaching-v0"),
        ("TargetReaching-v0, fixed_layout=2", "TargetReaching-v0"),
        ("TargetReaching-v0,fixed_layout=__import__('os')", "TargetReaching-v0"),
        ("TargetReaching-v9,fixed_layout=2", "v9"),
        ("Hopper-v5,reset_noise_scales=0.0", "reset_noise_scales"),
        (",fixed_layout=2", "fixed_layout=2"),
    ],
)
def test_options_that_are_none_are_refused(pmoe_here, tmp_path, env, word):
    refused(pmoe_here("run", "sac", *flags("sac", env=env)), word)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env_id, backend", [("Pendulum-v1", "gymnasium"), ("Hopper-v4", "envpool")])
def test_evaluation_starts_anew_each_time_and_the_same_for_the_same_step(env_id, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    envs = Envs(env_id, 6, backend)

    def returns(seeds, step):
        return envs.evaluate(lambda obs: torch.zeros(*obs.shape[:2], len(envs.low)), seeds, step)

    a = returns([1, 2], 100)
    assert a.shape == (2, 3) and len(np.unique(a)) == 6
    assert np.array_equal(a, returns([1, 2], 100)) and np.array_equal(a[1], returns([2, 1], 100)[0])
    assert not np.intersect1d(a, returns([1, 2], 200)).size


@pytest.mark.parametrize("algo, env_id", [("sac", "Hopper-v5"), *((algo, "Humanoid-v4") for algo in ALGORITHMS)])
def test_environments_of_every_kind_train(tmp_path, algo, env_id):
    (path,) = train(algo, tmp_path, env_id=env_id, total_timesteps=120, eval_episodes=1)
    assert (path / "done.json").exists()
