"""Whole runs: what they leave on disk, determinism, exact resume, and every way in which a run can end."""

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch
from common import PMOE, SHORT, checkpoint, flags, same_run, same_runs

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Args, Envs, ReplayBuffer, train


def short(tmp_path, **fields):
    return Args(**(SHORT | {"env_id": "Pendulum-v1", "run_dir": str(tmp_path)} | fields))


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_files_of_a_run(tmp_path):
    (path,) = train(short(tmp_path, tag="mine"))
    assert path == tmp_path / "Pendulum-v1" / "sac-k2-mine" / "seed1"
    config = json.loads((path / "config.json").read_text())
    assert config["args"] == vars(short(tmp_path, tag="mine")) and config["algo"] == "sac"
    assert {"versions", "device", "command", "commit"} < config.keys()
    episodes, evals = rows_of(path / "episodes.csv"), rows_of(path / "eval.csv")
    assert [(row["step"], row["episodic_length"]) for row in episodes] == [("200", "200"), ("400", "200")]
    assert [(row["step"], row["episodes"]) for row in evals] == [("200", "2"), ("400", "2")]
    done = json.loads((path / "done.json").read_text())
    assert done["step"] == 400 and done["return_mean"] == float(evals[-1]["return_mean"]) and done["wall_time"] > 0
    assert [file.name for file in (path / "checkpoint").iterdir()] == ["0000000400.pt"]  # the replay served its purpose


def test_tensorboard_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = train(short(tmp_path, total_timesteps=1000))
    events = EventAccumulator(str(path))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"charts/episodic_return", "charts/episodic_length", "charts/SPS", "charts/eval_return"} < scalars
    assert {"losses/critic", "losses/actor", "losses/frequency", "losses/alpha"} < scalars
    assert {"routing/usage_0", "routing/usage_1", "routing/entropy"} < scalars
    usage = [events.Scalars(f"routing/usage_{k}")[-1].value for k in (0, 1)]
    assert sum(usage) == pytest.approx(1, abs=1e-5)


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    (a,), (b,) = (train(short(tmp_path / name)) for name in "ab")
    (c,) = train(short(tmp_path, seed=2))
    same_run(a, b)
    assert (a / "episodes.csv").read_bytes() != (c / "episodes.csv").read_bytes()


def test_training_is_the_same_without_evaluation(tmp_path):
    (a,), (b,) = (train(short(tmp_path, eval_every=n, tag=f"every{n}")) for n in (50, 10**6))
    assert (a / "episodes.csv").read_bytes() == (b / "episodes.csv").read_bytes()
    a, b = (checkpoint(x)["learnt"] for x in (a, b))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_seed_alone_is_as_among_three(tmp_path):
    fields = {"env_id": "ToyTruncates-v0", "total_timesteps": 150, "random_steps": 60}  # no chaos: small errors stay so
    paths = train(short(tmp_path / "three", num_seeds=3, **fields))
    (alone,) = train(short(tmp_path / "alone", seed=2, **fields))
    assert [path.name for path in paths] == ["seed1", "seed2", "seed3"]
    for a, b in zip(rows_of(paths[1] / "episodes.csv"), rows_of(alone / "episodes.csv"), strict=True):
        assert a["step"] == b["step"]
        assert float(a["episodic_return"]) == pytest.approx(float(b["episodic_return"]), abs=1e-3)
    a, b = (checkpoint(x)["learnt"] for x in (paths[1], alone))
    for name, x in a.items():
        torch.testing.assert_close(x, b[name], rtol=1e-3, atol=1e-5, msg=name)


def train_and_look(args, monkeypatch):
    """The rows that are in the replay buffer when the training of one seed is over"""
    buffers = []

    class Seen(ReplayBuffer):
        def __init__(self, *args):
            super().__init__(*args)
            buffers.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(pmoe_sac, "ReplayBuffer", Seen)
        train(args)
    return buffers[0].rows[0]


@pytest.mark.parametrize("env_id, flag", [("ToyTerminates-v0", 1.0), ("ToyTruncates-v0", 0.0)])
def test_transitions_end_in_the_true_last_observation(tmp_path, monkeypatch, env_id, flag):
    rows = train_and_look(short(tmp_path, env_id=env_id, total_timesteps=60, learning_starts=60), monkeypatch)
    assert len(rows) == 60
    for t, (count, _, *_, next_count, _, _, terminated) in enumerate(rows.tolist()):
        assert (count, next_count) == (t % 5, t % 5 + 1)  # no reset among the transitions
        assert terminated == (flag if next_count == 5 else 0.0)


def test_buffer_forgets_the_oldest(tmp_path, monkeypatch):
    fields = {"env_id": "ToyTruncates-v0", "total_timesteps": 65, "learning_starts": 65}
    every, last = (train_and_look(short(tmp_path, buffer_size=n, **fields), monkeypatch) for n in (100, 10))
    assert every.shape == (65, 8) and last.shape == (10, 8) and len(every.unique(dim=0)) == 65
    assert torch.equal(last.roll(5, 0), every[-10:])


def test_samples_are_of_the_rows_that_there_are_and_each_seed_has_its_own():
    buffer = ReplayBuffer(20, 1, 1, [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    buffer.rows[:] = torch.arange(20.0)[:, None] + torch.tensor([0.0, 100.0])[:, None, None]
    obs, action, next_obs, reward, terminated = buffer.sample(10, 500)
    assert obs.shape == reward.shape == (2, 500, 1) and torch.equal(obs, next_obs) and torch.equal(action, terminated)
    assert [set(x.flatten().tolist()) for x in obs] == [set(range(10)), set(range(100, 110))]
    assert not torch.equal(obs[0], obs[1] - 100)


@pytest.mark.parametrize("buffer_size", [10**6, 60])  # a buffer that is full, too
def test_resume_after_a_stop_anywhere(tmp_path, monkeypatch, buffer_size):
    """Stopped before, between and after the seeds' checkpoints are renamed, before the earlier ones are deleted, and in
    the middle of writing one."""
    fields = {"num_seeds": 2, "checkpoint_every": 60, "buffer_size": buffer_size, "alpha": "auto"}
    straight = train(short(tmp_path / "straight", **fields))

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

    save, rename, unlink = torch.save, os.replace, pmoe_sac.Path.unlink
    monkeypatch.setattr(torch, "save", lambda *args: count(save, *args))
    monkeypatch.setattr(os, "replace", lambda *args: count(rename, *args))
    monkeypatch.setattr(pmoe_sac.Path, "unlink", lambda *args: count(unlink, *args))
    # A checkpoint of two seeds is save, rename, save, rename, and then unlink, unlink where there were earlier ones. A
    # run's first ends with call 4: 7 and 8 leave one seed with a later one than the other, 9 and 10 both kinds.
    for stop_at in (2, 7, 5, 8, 1, 9, 10, 16, 3, 14, 7, 16):
        calls = 0
        with pytest.raises(Killed):
            train(short(tmp_path / "stopped", resume=bool(steps), overwrite=not steps, **fields))
        folders = sorted((tmp_path / "stopped").glob("*/*/*/checkpoint"))
        files = [sorted(file.stem for file in folder.glob("*.pt")) for folder in folders]
        steps += [[int(file[-1]) for file in files]] if all(files) else []
    assert any(a != b for a, b in steps) and steps[-1][0] >= 240 and where == {save, rename, unlink}
    stop_at = 0
    for path, twin in zip(straight, train(short(tmp_path / "stopped", resume=True, **fields))):
        same_run(path, twin)


def test_resume_after_a_stop_at_the_very_end(tmp_path, monkeypatch):
    (straight,) = train(short(tmp_path / "straight"))

    class Killed(BaseException):
        pass

    def stop(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(
            pmoe_sac.Path, "write_text", lambda self, text: stop() if self.stem == "done" else write(self, text)
        )
        with pytest.raises(Killed):
            train(short(tmp_path / "stopped"))
    (path,) = train(short(tmp_path / "stopped", resume=True))
    same_run(straight, path)
    done, twin = (json.loads((x / "done.json").read_text()) for x in (straight, path))
    assert done | {"wall_time": 0} == twin | {"wall_time": 0}


write = pmoe_sac.Path.write_text


def test_a_run_of_another_device_is_refused(tmp_path, capsys):
    (path,) = train(short(tmp_path, total_timesteps=60))
    (path / "done.json").unlink()
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"device": "cuda"}))
    with pytest.raises(SystemExit):
        train(short(tmp_path, total_timesteps=60, resume=True, device="cpu"))
    assert "another device" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["Hopper-v4", "Humanoid-v4"])
def test_killed_at_any_moment_and_resumed_is_as_never_stopped(tmp_path, env_id):
    fields = {"env_id": env_id, "total_timesteps": 900, "random_steps": 200, "checkpoint_every": 7, "eval_every": 300}
    command = [PMOE, "run", "sac", *flags(**fields, num_seeds=2)]
    subprocess.run([*command, "--run-dir", "straight"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    command += ["--run-dir", "killed"]
    rng, written, kills = random.Random(0), 0, 0
    for _ in range(5):
        resume = ["--resume"] if written else []
        process = subprocess.Popen([*command, *resume], cwd=tmp_path, stdout=subprocess.DEVNULL)
        while process.poll() is None and last_written(tmp_path / "killed") <= written:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        written = last_written(tmp_path / "killed")
    assert kills >= 2
    if not list((tmp_path / "killed").glob("*/*/*/done.json")):
        subprocess.run([*command, "--resume"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    same_runs(tmp_path / "straight", tmp_path / "killed", seeds=2)


def last_written(run_dir):
    """When the newest checkpoint of all seeds was written, in nanoseconds; 0 if a seed has none"""
    times = [file.stat().st_mtime_ns for file in run_dir.glob("*/*/*/checkpoint/*.pt")]
    return max(times) if len(times) >= 2 else 0


def start(command, cwd):
    """Starts a run and waits until it is under way."""
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(cwd.glob("runs/*/*/*/checkpoint/*.pt")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    return process


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_cleanly(tmp_path, pmoe, number, status):
    command = ["run", "sac", *flags(env_id="Hopper-v4", total_timesteps=2000, checkpoint_every=10**6)]
    process = start([PMOE, *command], tmp_path)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == status and error == "" and "--resume goes on" in out
    (path,) = tmp_path.glob("runs/*/*/*")
    stopped_at = checkpoint(path)["step"]
    assert f"stopped at step {stopped_at}" in out and 0 < stopped_at < 2000
    assert pmoe(*command, "--resume").returncode == 0
    assert pmoe(*command, "--run-dir", "straight").returncode == 0
    (straight,) = tmp_path.glob("straight/*/*/*")
    same_run(path, straight)


@pytest.mark.parametrize("limit", [1_000_000, 3_000_000])
def test_a_full_disk_is_one_line_and_the_checkpoint_stays(tmp_path, pmoe, limit):
    command = ["run", "sac", *flags(env_id="Hopper-v4", total_timesteps=1000, tag="full")]
    process = start([PMOE, *command], tmp_path)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))  # bytes: fewer than a checkpoint has
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and len(error.splitlines()) == 1 and "File too large" in error
    (path,) = tmp_path.glob("runs/*/*/*")
    assert checkpoint(path)["step"] < 1000
    assert pmoe(*command, "--resume").returncode == 0
    assert pmoe(*command, "--run-dir", "straight").returncode == 0
    (straight,) = tmp_path.glob("straight/*/*/*")
    same_run(path, straight)


def test_a_number_that_is_not_finite_stops_the_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(short(tmp_path, env_id="ToyBreaks-v0"))
    error = capsys.readouterr().err
    assert stop.value.code == 1 and error.startswith("error: losses/critic is not finite at step 1")
    step = int(error.split("step ")[1].split(";")[0])
    assert 130 < step < 160  # the reward of step 130 was not, and a batch of 16 soon has it
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
    paths = train(short(tmp_path, track=True, num_seeds=2, total_timesteps=60))
    assert calls[0] == {"root_logdir": str(paths[0].parent), "pytorch": True}
    assert calls[1]["project"] == "pmoe" and calls[1]["config"]["k"] == 2


def test_a_run_starts_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (path,) = train(short(tmp_path, total_timesteps=60))
    assert (path / "done.json").exists()


def test_an_environment_that_reuses_its_arrays(tmp_path, monkeypatch):
    rows = train_and_look(short(tmp_path, env_id="ToyReuses-v0", total_timesteps=60), monkeypatch)
    assert [(row[0], row[4]) for row in rows.tolist()] == [(t % 5, t % 5 + 1) for t in range(60)]


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


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Humanoid-v4", "Pendulum-v1", "ToyTerminates-v0"])
def test_environments_of_every_kind_train(tmp_path, env_id):
    (path,) = train(short(tmp_path, env_id=env_id, total_timesteps=120, eval_episodes=1))
    assert (path / "done.json").exists()
