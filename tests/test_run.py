"""Whole runs: what they leave on disk, determinism, exact resume, and every way in which a run can end."""

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

import numpy as np
import pytest
import torch
from common import (
    ALGORITHMS,
    LOOPS,
    MODULES,
    PMOE,
    Killed,
    at_move,
    checkpoint,
    flags,
    is_on_policy,
    json_of,
    make_args,
    rows_of,
    same_run,
    same_runs,
    train,
)

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Envs, Philox, ReplayBuffer

TWO_ENVS = ("ppo", {"num_envs": 2})
EVERY_ALGORITHM = [(algo, {}) for algo in ALGORITHMS]
EVERY_LOOP = [(algo, {}) for algo in LOOPS]


# On disk


def test_files_of_a_run(quick_run, algo):
    path = quick_run(algo)
    assert re.search(rf"/Pendulum-v1/{algo}-k2-[0-9a-f]{{10}}/seed1$", str(path))
    config = json_of(path / "config.json")
    assert config["args"] == vars(make_args(algo, path.parents[2]))
    assert config["algo"] == algo
    assert config["file"] == str(Path(MODULES[algo].__file__).resolve())
    assert {"versions", "device", "command", "commit"} < config.keys()

    episodes = rows_of(path / "episodes.csv")
    evaluations = rows_of(path / "eval.csv")
    assert [(row["step"], row["episodic_length"]) for row in episodes] == [("200", "200"), ("400", "200")]
    assert [(row["step"], row["episodes"]) for row in evaluations] == [("200", "2"), ("400", "2")]

    done = json_of(path / "done.json")
    assert done["step"] == 400
    assert done["return_mean"] == float(evaluations[-1]["return_mean"])
    assert done["wall_time"] > 0
    replay = set() if is_on_policy(algo) else {"replay.f32"}
    files = {file.name for file in (path / "checkpoint").iterdir()}
    assert files == {"0000000400.pt", "best.pt"} | replay


def test_scalars_of_a_run(quick_run, algo):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(quick_run(algo)))
    events.Reload()
    scalars = set(events.Tags()["scalars"])

    def last(name):
        return events.Scalars(name)[-1]

    assert {"charts/episodic_return", "charts/episodic_length"} < scalars
    if algo == "amortized-sac":  # it has no router
        assert last("losses/distance").value > 0
    else:
        usage = last("routing/usage_0").value + last("routing/usage_1").value
        # The gates of MCP are no probabilities.
        assert usage == pytest.approx(1, abs=1e-5) or algo.startswith("mcp")
    losses = {name for name in scalars if name.startswith("losses/")}
    assert losses
    for name in losses | {"charts/SPS", "charts/eval_return"}:
        assert np.isfinite(last(name).value)
        assert last(name).step == 400


def test_tracking_mirrors_tensorboard(tmp_path, monkeypatch):
    calls = []

    def record(**kwargs):
        calls.append(kwargs)

    tensorboard = types.SimpleNamespace(patch=record)
    wandb = types.SimpleNamespace(tensorboard=tensorboard, init=record)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(pmoe_sac.util, "find_spec", lambda name: name)
    paths = train("sac", tmp_path, track=True, num_seeds=2, total_timesteps=60)
    patched, started = calls
    assert patched == {"root_logdir": str(paths[0].parent), "pytorch": True}
    assert started["project"] == "pmoe"
    assert started["config"]["k"] == 2


def test_a_run_starts_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (path,) = train("sac", tmp_path, total_timesteps=60)
    assert (path / "done.json").exists()


@pytest.mark.parametrize("name, value", [("eval_every", 77), ("eval_episodes", 3), ("checkpoint_every", 33)])
def test_how_often_is_looked_makes_no_other_run(tmp_path, loop, name, value):
    """The same directory, and the same is learnt."""
    usual = make_args(loop, tmp_path)
    other = make_args(loop, tmp_path, **{name: value})
    run_paths = MODULES[loop].run_paths
    assert run_paths(usual) == run_paths(other)
    longer = make_args(loop, tmp_path, total_timesteps=10**6)
    assert run_paths(usual) == run_paths(longer)
    learns_otherwise = make_args(loop, tmp_path, learning_rate=0.5)
    assert run_paths(usual) != run_paths(learns_otherwise)


def test_no_number_is_too_small(tmp_path):
    """Adam's moments of units that died would be, and slow all that computes with them."""
    fields = {"k": 1, "hidden": 64, "total_timesteps": 1500, "eval_every": 10**6, "checkpoint_every": 10**6}
    command = [PMOE, "run", "sac", *flags("sac", env_id="Hopper-v4", run_dir=tmp_path, **fields)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (path,) = tmp_path.glob("Hopper-v4/*/seed1")
    for name, x in checkpoint(path)["learnt"].items():
        if x.is_floating_point():
            assert ((x == 0) | (x.abs() >= torch.finfo(x.dtype).tiny)).all(), name


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_small_numbers_become_zero_in_every_thread(algo):
    """Threads have the mode of the one that made them, so it is set before the first large tensor."""
    words = (
        f"from pmoe import pmoe_{algo} as algo; import torch; torch.set_num_threads(2); "
        "algo.begin(algo.Args(), on_gpu=False); "
        "print((torch.full((10**6,), 1e-38) * 0.1).count_nonzero().item())"
    )
    done = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True)
    assert done.stdout == "0\n"


# Determinism


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path, quick_run, loop):
    (same,) = train(loop, tmp_path, seed=1)
    (other,) = train(loop, tmp_path, seed=2)
    same_run(quick_run(loop), same)
    assert (same / "episodes.csv").read_bytes() != (other / "episodes.csv").read_bytes()


def test_training_is_the_same_without_evaluation(tmp_path, quick_run, loop):
    path = quick_run(loop)
    (blind,) = train(loop, tmp_path, eval_every=10**6)
    assert (path / "episodes.csv").read_bytes() == (blind / "episodes.csv").read_bytes()
    learnt = checkpoint(blind)["learnt"]
    for name, x in checkpoint(path)["learnt"].items():
        assert torch.equal(x, learnt[name]), name


@pytest.mark.parametrize("algo, fields", [*EVERY_ALGORITHM, TWO_ENVS], ids=str)
def test_seed_alone_is_as_among_three(tmp_path, algo, fields):
    # Nothing is chaotic in this environment: small errors stay small.
    fields = {"env_id": "ToyTruncates-v0", "total_timesteps": 150, **fields}
    paths = train(algo, tmp_path / "three", num_seeds=3, **fields)
    (alone,) = train(algo, tmp_path / "alone", seed=2, **fields)
    assert [path.name for path in paths] == ["seed1", "seed2", "seed3"]
    among = paths[1]
    for a, b in zip(rows_of(among / "episodes.csv"), rows_of(alone / "episodes.csv"), strict=True):
        assert a["step"] == b["step"]
        assert float(a["episodic_return"]) == pytest.approx(float(b["episodic_return"]), abs=1e-3)
    learnt = checkpoint(alone)["learnt"]
    for name, x in checkpoint(among)["learnt"].items():
        torch.testing.assert_close(x, learnt[name], rtol=1e-3, atol=1e-5, msg=name)


def test_evaluation_starts_anew_each_time_and_the_same_for_the_same_step():
    envs = Envs("Pendulum-v1", 6)

    def returns(seeds, step):
        return envs.evaluate(lambda obs: torch.zeros(*obs.shape[:2], envs.action_size), seeds, step)

    first = returns([1, 2], 100)
    assert first.shape == (2, 3)
    assert len(np.unique(first)) == 6
    assert np.array_equal(first, returns([1, 2], 100))
    assert np.array_equal(first[1], returns([2, 1], 100)[0])
    assert np.intersect1d(first, returns([1, 2], 200)).size == 0


@pytest.mark.parametrize("algo, env_id", [("sac", "Hopper-v5"), *[(x, "Humanoid-v4") for x in ALGORITHMS]])
def test_environments_of_every_kind_train(tmp_path, algo, env_id):
    (path,) = train(algo, tmp_path, env_id=env_id, total_timesteps=120, eval_episodes=1)
    assert (path / "done.json").exists()


# The replay


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
    return buffers[0].rows[0, : buffers[0].size]


@pytest.mark.parametrize("env_id, flag", [("ToyTerminates-v0", 1.0), ("ToyTruncates-v0", 0.0)])
def test_transitions_end_in_the_true_last_observation(tmp_path, monkeypatch, env_id, flag):
    rows = train_and_look(tmp_path, monkeypatch, env_id=env_id, total_timesteps=60, learning_starts=60)
    assert len(rows) == 60
    for t, (count, _, *_, next_count, _, _, terminated) in enumerate(rows.tolist()):
        # No reset among the transitions
        assert count == t % 5
        assert next_count == t % 5 + 1
        assert terminated == (flag if next_count == 5 else 0.0)


def test_an_environment_that_reuses_its_arrays(tmp_path, monkeypatch):
    rows = train_and_look(tmp_path, monkeypatch, env_id="ToyReuses-v0", total_timesteps=60)
    steps = [(row[0], row[4]) for row in rows.tolist()]
    assert steps == [(t % 5, t % 5 + 1) for t in range(60)]


def test_buffer_forgets_the_oldest(tmp_path, monkeypatch):
    fields = {"env_id": "ToyTruncates-v0", "total_timesteps": 65, "learning_starts": 65}
    every = train_and_look(tmp_path / "every", monkeypatch, buffer_size=100, **fields)
    last = train_and_look(tmp_path / "last", monkeypatch, buffer_size=10, **fields)
    assert every.shape == (65, 8)
    assert len(every.unique(dim=0)) == 65
    assert last.shape == (10, 8)
    assert torch.equal(last.roll(5, 0), every[-10:])


def test_samples_are_of_the_rows_that_there_are_and_each_seed_has_its_own():
    buffer = ReplayBuffer(20, 1, 1, Philox([0, 1]))
    numbers = torch.arange(20.0).unsqueeze(-1)
    buffer.rows[0] = numbers
    buffer.rows[1] = 100 + numbers
    buffer.size.fill_(10)
    batch = buffer.sample(500)
    assert batch.obs.shape == batch.reward.shape == (2, 500, 1)
    assert torch.equal(batch.obs, batch.next_obs)
    assert torch.equal(batch.action, batch.terminated)
    assert set(batch.obs[0].flatten().tolist()) == set(range(10))
    assert set(batch.obs[1].flatten().tolist()) == set(range(100, 110))
    assert not torch.equal(batch.obs[0], batch.obs[1] - 100)


def test_a_batch_has_the_fields_that_were_added():
    buffer = ReplayBuffer(5, 3, 2, Philox([0, 1]))
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(2, 3))
    action = rng.normal(size=(2, 2))
    next_obs = rng.normal(size=(2, 3))
    buffer.add(obs, action, next_obs, np.array([7.0, 8.0]), np.array([True, False]))
    batch = buffer.sample(1)
    np.testing.assert_allclose(batch.obs[:, 0], obs, rtol=1e-6)
    np.testing.assert_allclose(batch.action[:, 0], action, rtol=1e-6)
    np.testing.assert_allclose(batch.next_obs[:, 0], next_obs, rtol=1e-6)
    assert batch.reward.flatten().tolist() == [7.0, 8.0]
    assert batch.terminated.flatten().tolist() == [1.0, 0.0]


def transitions(monkeypatch) -> list[tuple]:
    """What the training environment, one, does: observation, action, next observation, reward, terminated"""
    seen = []
    move = Envs.step

    def step(envs, action, *args):
        before = envs.obs[0].copy()
        result = move(envs, action, *args)
        if envs.n == 1:
            next_obs, reward, terminated, _ = result
            seen.append((*before, *action[0], *next_obs[0], reward[0], terminated[0]))
        return result

    monkeypatch.setattr(Envs, "step", step)
    return seen


@pytest.mark.parametrize("fields", [{}, {"buffer_size": 70}, {"num_seeds": 2}], ids=str)
def test_the_replay_on_disk_is_every_transition_in_order(tmp_path, monkeypatch, fields):
    seen = transitions(monkeypatch)
    paths = train("sac", tmp_path, env_id="ToyTerminates-v0", **fields)
    for path in paths:
        rows = np.fromfile(path / "checkpoint/replay.f32", np.float32).reshape(400, 8)
        assert rows[:, 0].tolist() == [t % 5 for t in range(400)]
        assert rows[:, -1].tolist() == [t % 5 == 4 for t in range(400)]
        if len(paths) == 1:
            assert np.array_equal(rows, np.float32(seen))


def test_without_its_replay_a_run_is_the_same(tmp_path, quick_run):
    """--no-keep-replay changes neither its name nor what is learnt."""
    kept = quick_run("sac")
    (path,) = train("sac", tmp_path, keep_replay=False)
    assert path.relative_to(tmp_path) == kept.relative_to(kept.parents[2])
    same_run(path, kept)
    assert not (path / "checkpoint/replay.f32").exists()
    assert (kept / "checkpoint/replay.f32").stat().st_size == 400 * 9 * 4


@pytest.mark.parametrize("kept_at_first", [True, False])
def test_the_replay_of_a_run_that_was_resumed(tmp_path, monkeypatch, kept_at_first):
    """Once after a signal, once after its process died between the replay and the checkpoint"""
    fields = {"buffer_size": 50, "checkpoint_every": 40, "total_timesteps": 240, "eval_every": 240}
    (straight,) = train("sac", tmp_path / "straight", **fields)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        at_move(patch, "sac", 70, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train("sac", tmp_path / "stopped", keep_replay=kept_at_first, **fields)
    with monkeypatch.context() as patch:
        at_move(patch, "sac", 100, lambda: patch.setattr(os, "replace", die))
        with pytest.raises(Killed):
            train("sac", tmp_path / "stopped", resume=True, keep_replay=kept_at_first, **fields)
    (path,) = tmp_path.glob("stopped/*/*/*")
    replay = path / "checkpoint/replay.f32"
    assert replay.stat().st_size > checkpoint(path)["replay"]
    train("sac", tmp_path / "stopped", resume=True, **fields)
    assert replay.read_bytes() == (straight / "checkpoint/replay.f32").read_bytes()
    assert replay.stat().st_size == 240 * 9 * 4


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: os.truncate(file, 100)], ids=["gone", "cut"])
def test_a_damaged_replay_is_one_line(tmp_path, monkeypatch, capsys, damage):
    with monkeypatch.context() as patch:
        at_move(patch, "sac", 150, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train("sac", tmp_path)
    (path,) = tmp_path.glob("*/*/*")
    damage(path / "checkpoint/replay.f32")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train("sac", tmp_path, resume=True)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "replay.f32 is missing or damaged; start again with --overwrite" in error
    assert checkpoint(path)["step"] == 150


# Resume


class StopAt:
    """Counts what a checkpoint does to the disk, and ends the process at one of these calls."""

    def __init__(self, monkeypatch):
        self.calls = 0
        self.stop_at = 0
        self.stopped_in = set()
        self.watch(monkeypatch, os, "fsync")
        self.watch(monkeypatch, os, "replace")
        self.watch(monkeypatch, Path, "unlink")

    def watch(self, monkeypatch, owner, name):
        function = getattr(owner, name)

        def counted(*args, **kwargs):
            self.calls += 1
            if self.calls == self.stop_at:
                self.stopped_in.add(name)
                raise Killed
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


def steps_of_checkpoints(run_dir) -> list[int]:
    """The step of the last checkpoint of each seed; -1 if it has none"""
    steps = []
    for folder in sorted(run_dir.glob("*/*/*/checkpoint")):
        files = sorted(folder.glob("[0-9]*.pt"))
        steps.append(int(files[-1].stem) if files else -1)
    return steps


FULL_BUFFER = {"buffer_size": 60, "alpha": "auto"}

# Numbers of calls. Of two seeds, a checkpoint of SAC makes ten, two of them for the replay and two for the
# best policy, one of PPO eight; from the first evaluation on the best policy takes two more. A run that goes
# on makes six more, at its beginning.
STOPS_OF_SAC = (3, 15, 8, 16, 18, 11, 22, 13, 24, 27, 10, 30, 14, 21, 19, 33)
STOPS_OF_PPO = (2, 9, 6, 11, 16, 17, 18, 20, 21, 24)


@pytest.mark.parametrize(
    "algo, fields, stops",
    [("sac", FULL_BUFFER, STOPS_OF_SAC), ("ppo", {}, STOPS_OF_PPO)],
    ids=["sac", "ppo"],
)
def test_resume_after_a_stop_anywhere(tmp_path, monkeypatch, algo, fields, stops):
    """Stopped while and after the seeds' checkpoints are written, renamed, and the earlier ones deleted"""
    fields = {"num_seeds": 2, "checkpoint_every": 60, **fields}
    straight = train(algo, tmp_path / "straight", **fields)
    disk = StopAt(monkeypatch)
    seen = []
    for stop_at in stops:
        disk.calls = 0
        disk.stop_at = stop_at
        can_resume = bool(seen) and min(seen[-1]) >= 0
        with pytest.raises(Killed):
            train(algo, tmp_path / "stopped", resume=can_resume, overwrite=not can_resume, **fields)
        seen.append(steps_of_checkpoints(tmp_path / "stopped"))
    # One seed was ahead of the other once, and most was done in pieces.
    assert any(len(set(steps)) == 2 and min(steps) >= 0 for steps in seen)
    assert 240 <= seen[-1][0] < 400, seen
    assert disk.stopped_in == {"fsync", "replace", "unlink"}

    disk.stop_at = 0
    resumed = train(algo, tmp_path / "stopped", resume=True, **fields)
    for path, twin in zip(straight, resumed, strict=True):
        same_run(path, twin)


def test_resume_after_a_stop_at_the_very_end(tmp_path, monkeypatch, quick_run, loop):
    """When the last evaluation is over, and done.json not yet there"""
    straight = quick_run(loop)
    replace = os.replace

    def replace_or_stop(temporary, file):
        if Path(file).stem == "done":
            raise Killed
        replace(temporary, file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_stop)
        with pytest.raises(Killed):
            train(loop, tmp_path / "stopped")
    (path,) = train(loop, tmp_path / "stopped", resume=True)
    same_run(straight, path)
    done = json_of(path / "done.json")
    expected = json_of(straight / "done.json")
    expected["wall_time"] = done["wall_time"]
    assert done == expected


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("algo, fields", [*EVERY_LOOP, TWO_ENVS], ids=str)
def test_after_a_signal_a_run_goes_on_as_if_never_stopped(tmp_path, monkeypatch, capsys, algo, fields):
    fields = {"num_seeds": 2, "checkpoint_every": 10**6, "env_id": "Hopper-v4", **fields}
    before = handlers()
    train(algo, tmp_path / "straight", **fields)
    assert handlers() == before

    with monkeypatch.context() as patch:
        at_move(patch, algo, 60, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            train(algo, tmp_path / "stopped", **fields)
    assert stop.value.code == 143
    assert handlers() == before
    paths = sorted((tmp_path / "stopped").glob("*/*/*"))
    stopped_at = checkpoint(paths[0])["step"]
    assert 60 <= stopped_at <= 200
    out = capsys.readouterr().out
    assert out.endswith(f"\nstopped at step {stopped_at}; the same command with --resume goes on\n")

    assert train(algo, tmp_path / "stopped", resume=True, **fields) == paths
    same_runs(tmp_path / "straight", tmp_path / "stopped", seeds=2)


def last_written(run_dir):
    """When the newest checkpoint of both seeds was written, in nanoseconds; 0 if a seed has none"""
    times = [file.stat().st_mtime_ns for file in run_dir.glob("*/*/*/checkpoint/[0-9]*.pt")]
    return max(times) if len(times) >= 2 else 0


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_as_never_stopped(tmp_path, algo):
    fields = {"env_id": "Humanoid-v4", "total_timesteps": 400, "checkpoint_every": 7, "num_seeds": 2}
    command = [PMOE, "run", algo, *flags(algo, **fields)]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL}
    subprocess.run([*command, "--run-dir", "straight"], check=True, **quiet)

    command += ["--run-dir", "killed"]
    rng = random.Random(0)
    written = 0
    kills = 0
    for _ in range(3):
        resume = ["--resume"] if written else []
        process = subprocess.Popen([*command, *resume], **quiet)
        while process.poll() is None and last_written(tmp_path / "killed") <= written:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
        written = last_written(tmp_path / "killed")
    assert kills >= 2
    if not list((tmp_path / "killed").glob("*/*/*/done.json")):
        subprocess.run([*command, "--resume"], check=True, **quiet)
    same_runs(tmp_path / "straight", tmp_path / "killed", seeds=2)


# Endings


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_process_cleanly(tmp_path, number, status):
    fields = {"total_timesteps": 10**6, "checkpoint_every": 10**6, "env_id": "Hopper-v4", "buffer_size": 1000}
    command = [PMOE, "run", "sac", *flags("sac", **fields)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
    while process.poll() is None and not any_episode(tmp_path):
        time.sleep(0.05)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert error == ""
    assert out.endswith("; the same command with --resume goes on\n")


def any_episode(tmp_path) -> bool:
    """Whether a run has begun and finished an episode"""
    files = tmp_path.glob("runs/*/*/*/episodes.csv")
    return any(rows_of(file) for file in files)


OPENED = []


class Spy(pmoe_sac.SummaryWriter):
    """Keeps the writers that there are, and whether they are closed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        OPENED.append(self)
        self.is_closed = False

    def close(self):
        super().close()
        self.is_closed = True


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit], ids=str)
def test_however_a_run_ends_signals_are_as_before_and_writers_closed(tmp_path, monkeypatch, ending):
    """Also where a fork's training loop raises"""
    before = handlers()
    inside = []

    def happen():
        inside.extend(handlers())
        if ending:
            raise ending

    OPENED.clear()
    monkeypatch.setattr(pmoe_sac, "SummaryWriter", Spy)
    at_move(monkeypatch, "sac", 20, happen)
    fields = {"total_timesteps": 40, "num_seeds": 2, "env_id": "ToyTerminates-v0"}
    if ending:
        with pytest.raises(ending):
            train("sac", tmp_path, **fields)
    else:
        train("sac", tmp_path, **fields)
    assert not set(inside) & set(before)
    assert handlers() == before
    assert [writer.is_closed for writer in OPENED] == [True, True]


def limit_file_size(size=10**6) -> None:
    """As on a full disk, no file of this process gets larger: fewer bytes than a checkpoint has."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, capsys, quick_run):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        at_move(patch, "sac", 150, limit_file_size)
        try:
            with pytest.raises(SystemExit) as stop:
                train("sac", tmp_path / "full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "File too large" in error
    assert "; the last checkpoint is whole, and --resume goes on from it\n" in error
    (path,) = tmp_path.glob("full/*/*/*")
    assert checkpoint(path)["step"] == 100
    train("sac", tmp_path / "full", resume=True)
    same_run(path, quick_run("sac"))


def test_a_full_disk_is_one_line(pmoe):
    result = pmoe("run", "sac", *flags("sac"), preexec_fn=limit_file_size)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "File too large" in result.stderr


def test_a_number_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, capsys, loop):
    figures = MODULES[loop].routing_figures
    calls = []

    def later_nan(*args):
        calls.append(args)
        late = len(calls) > 11
        return {name: x * np.nan if late else x for name, x in figures(*args).items()}

    monkeypatch.setattr(MODULES[loop], "routing_figures", later_nan)
    with pytest.raises(SystemExit) as stop:
        train(loop, tmp_path)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    line = r"error: .+ is not finite at step (\d+); the last checkpoint is from before that\n"
    found = re.fullmatch(line, error)
    assert found, error
    (path,) = tmp_path.glob("*/*/*")
    state = checkpoint(path)
    assert state["step"] < int(found[1])
    for x in state["learnt"].values():
        assert x.isfinite().all()
