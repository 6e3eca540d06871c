"""What the tests share: the real command line, a short training run, and toy environments."""

import csv
import re
import sys
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from pmoe import cli
from pmoe.plots.runs import Run, find

ROOT = Path(__file__).parent.parent
PMOE = str(Path(sys.executable).with_name("pmoe"))
OFF_POLICY = {"learning_starts": 50, "random_steps": 100, "batch_size": 16}
ON_POLICY = {"num_steps": 50, "minibatch_size": 25, "update_epochs": 2}
ALGORITHMS = {  # its file, and what makes a quick run of it
    algo: (file, ON_POLICY if file.endswith("_ppo") else OFF_POLICY) for algo, file in cli.ALGORITHMS.items()
}
MODULES = {algo: import_module(f"pmoe.{file}") for algo, (file, _) in ALGORITHMS.items()}
SOURCES = {algo: Path(module.__file__).read_text() for algo, module in MODULES.items()}
LOOPS = [algo for algo, text in SOURCES.items() if not re.search(r"^def train\(.*# Copied from", text, re.MULTILINE)]
SHORT = {"total_timesteps": 400, "k": 2, "eval_every": 200, "eval_episodes": 2, "checkpoint_every": 100}
SHORT = {algo: {**SHORT, "compile": "off", **fields} for algo, (_, fields) in ALGORITHMS.items()}


class Toy(gym.Env):
    """The observation counts the steps; an episode ends after `length` of them, by termination or by truncation."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(np.float32([-1.1, 2.0]), np.float32([2.3, 2.7]))

    def __init__(self, length=5, terminates=True, nan_at=None, blind_at=None, reuses=False):
        self.length, self.terminates, self.reuses = length, terminates, reuses
        self.nan_at, self.blind_at = nan_at, blind_at
        self.total, self.obs = 0, np.zeros(2)

    def observe(self):
        self.obs[:] = self.step_count, np.nan if self.total == self.blind_at else self.noise
        return self.obs if self.reuses else self.obs.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count, self.noise = 0, self.np_random.normal()
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.step_count += 1
        self.total += 1
        reward = np.nan if self.total == self.nan_at else float(action[0])
        action[:] = 0  # a careless environment
        end = self.step_count == self.length
        return self.observe(), reward, end and self.terminates, end and not self.terminates, {}


class ToyDict(Toy):
    observation_space = gym.spaces.Dict({"position": gym.spaces.Box(-1, 1, (2,))})


TOYS = {"ToyTerminates-v0": {}, "ToyTruncates-v0": {"terminates": False}}
TOYS |= {"ToyBreaks-v0": {"nan_at": 130}, "ToyBlinds-v0": {"blind_at": 132}, "ToyReuses-v0": {"reuses": True}}
for name, kwargs in TOYS.items():
    gym.register(name, Toy, kwargs=kwargs)
gym.register("ToyDict-v0", ToyDict)


def flags(algo: str, **fields) -> list[str]:
    """Args fields as options; SHORT's where they are not given"""
    fields = SHORT[algo] | fields
    return [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def make_args(algo: str, run_dir: Path, **fields):
    """Of a quick run on Pendulum"""
    return MODULES[algo].Args(**(SHORT[algo] | {"env_id": "Pendulum-v1", "run_dir": str(run_dir)} | fields))


def train(algo: str, run_dir: Path, **fields) -> list[Path]:
    """A quick run in this process"""
    return MODULES[algo].train(make_args(algo, run_dir, **fields))


def failed(result, *words) -> None:
    """Asserts one clear line, exit status 2 and no traceback."""
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr


def refused(result, *words) -> None:
    """`failed`, before anything else was said."""
    failed(result, *words)
    assert result.stdout == ""


def files_below(path: Path) -> dict[Path, bytes]:
    """All but TensorBoard's, which a run of the test's own process may still be writing"""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and "tfevents" not in file.name}


def run_at(path: Path) -> Run:
    """The only run below a path"""
    (run,), _ = find([path])
    return run


def rows_of(path: Path) -> list[dict]:
    with open(path) as file:
        return list(csv.DictReader(file))


def checkpoint(path: Path) -> dict:
    """The newest of a run"""
    return torch.load(max(path.glob("checkpoint/*.pt")), weights_only=True)


def same(a, b) -> bool:
    """Equality of what a checkpoint may hold: tensors, and lists and dicts of them"""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(x, b[name]) for name, x in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def same_run(path: Path, other: Path) -> None:
    """Asserts that two runs left the same bytes in their CSV files and the same in their checkpoints."""
    for name in ("episodes.csv", "eval.csv"):
        assert (path / name).read_bytes() == (other / name).read_bytes()
        assert rows_of(path / name)
    state, twin = ({**checkpoint(x), "wall_time": 0} for x in (path, other))
    learnt, twins = state.pop("learnt"), twin.pop("learnt")
    assert [name for name in learnt | twins if not same(learnt.get(name), twins.get(name))] == []
    assert [name for name in state | twin if not same(state.get(name), twin.get(name))] == []


def same_runs(run_dir: Path, other: Path, seeds: int) -> None:
    """`same_run` of each of the seeds, which are all that there is below two --run-dirs."""
    paths = [sorted(x.glob("*/*/*")) for x in (run_dir, other)]
    assert len(paths[0]) == seeds
    for path, twin in zip(*paths, strict=True):
        same_run(path, twin)
