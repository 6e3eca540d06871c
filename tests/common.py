"""What the tests share: the real command line, short training runs, agents, and toy environments."""

import csv
import json
import os
import re
import sys
from importlib import util
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from pmoe import pmoe_sac
from pmoe.algorithms import ALGORITHMS, load
from pmoe.envs.suites import SUITES
from pmoe.plots.runs import Run, find

ROOT = Path(__file__).parent.parent
PMOE = str(Path(sys.executable).with_name("pmoe"))
MODULES = {algo: load(algo) for algo in ALGORITHMS}
SOURCES = {algo: Path(module.__file__).read_text() for algo, module in MODULES.items()}


# Quick runs

OFF_POLICY = {"learning_starts": 150, "random_steps": 100, "batch_size": 16}  # updates take the time
ON_POLICY = {"num_steps": 50, "minibatch_size": 25, "update_epochs": 2}
EVERY = {
    "total_timesteps": 400,
    "k": 2,
    "eval_every": 200,
    "eval_episodes": 2,
    "checkpoint_every": 100,
    "compile": "off",
}


def is_on_policy(algo: str) -> bool:
    """Whether an algorithm is of PPO's family"""
    return hasattr(MODULES[algo].Args, "num_steps")


def short(algo: str) -> dict:
    """The fields of Args that make a run of an algorithm quick"""
    own = ON_POLICY if is_on_policy(algo) else OFF_POLICY
    return {**EVERY, **own}


SHORT = {algo: short(algo) for algo in ALGORITHMS}


def has_own_loop(algo: str) -> bool:
    """Whether an algorithm's `train` is its own, and not a copy"""
    copied = re.search(r"^def train\(.*# Copied from", SOURCES[algo], re.MULTILINE)
    return copied is None


LOOPS = [algo for algo in ALGORITHMS if has_own_loop(algo)]


# Agents of pmoe_sac.py


def sac_agent(k=3, seeds=2, obs_size=4, action_size=2, **fields) -> pmoe_sac.Agent:
    """An agent of several seeds, 0, 1, ..."""
    fields = {**SHORT["sac"], "k": k, **fields}
    args = pmoe_sac.Args(**fields)
    return pmoe_sac.Agent(args, obs_size, action_size, pmoe_sac.Philox(range(seeds)))


def sac_noise(agent, n, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """What `Philox.noise` gives for n states of each seed: normal (S, n, K, A) and uniform (S, n, K)"""
    seeds, _, _ = agent.temperature.log_alpha.shape
    dtype = agent.temperature.log_alpha.dtype
    action_size = -agent.temperature.target
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(seeds, n, agent.draws, action_size, generator=generator, dtype=dtype)
    uniform = torch.rand(seeds, n, agent.draws, generator=generator, dtype=dtype)
    return normal, uniform


def sac_batch(seeds=1, size=32, obs_size=4, action_size=2, seed=0, dtype=torch.float32) -> pmoe_sac.Batch:
    """Random transitions, of which about a third terminate"""
    generator = torch.Generator().manual_seed(seed)

    def normal(width):
        return torch.randn(seeds, size, width, generator=generator)

    def uniform(width):
        return torch.rand(seeds, size, width, generator=generator)

    obs = normal(obs_size)
    next_obs = normal(obs_size)
    action = 2 * uniform(action_size) - 1
    reward = normal(1)
    terminated = uniform(1) < 0.3
    fields = (obs, action, next_obs, reward, terminated)
    return pmoe_sac.Batch(*[field.to(dtype) for field in fields])


# Environments


class Toy(gym.Env):
    """The observation counts the steps; an episode ends after `length` of them, terminated or truncated."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(np.float32([-1.1, 2.0]), np.float32([2.3, 2.7]))

    def __init__(self, length=5, terminates=True, reuses=False):
        self.length = length
        self.terminates = terminates
        self.reuses = reuses
        self.total = 0
        self.obs = np.zeros(2)

    def observe(self):
        self.obs[0] = self.step_count
        self.obs[1] = self.noise
        return self.obs if self.reuses else self.obs.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        self.noise = self.np_random.normal()
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.step_count += 1
        self.total += 1
        reward = float(action[0])
        # A careless environment
        action[:] = 0
        end = self.step_count == self.length
        terminated = end and self.terminates
        truncated = end and not self.terminates
        return self.observe(), reward, terminated, truncated, {}


class ToyUnits(gym.Env):
    """A point that each action moves, in units of the action's bounds: these have no say in what happens."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, low=(-1, -1), high=(1, 1), dtype="float64"):
        self.low = np.array(low, dtype)
        self.high = np.array(high, dtype)
        self.action_space = gym.spaces.Box(self.low, self.high, dtype=self.low.dtype.type)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point = self.np_random.normal(size=2)
        self.step_count = 0
        return self.point, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        unit = 2 * (action - self.low) / (self.high - self.low) - 1
        self.point = 0.9 * self.point + unit[:2]
        self.step_count += 1
        reward = -np.square(self.point).sum()
        return self.point, reward, False, self.step_count == 10, {}


TOYS = {
    "ToyTerminates-v0": {},
    "ToyTruncates-v0": {"terminates": False},
    "ToyReuses-v0": {"reuses": True},
}
for name, kwargs in TOYS.items():
    gym.register(name, Toy, kwargs=kwargs)
gym.register("ToyUnits-v0", ToyUnits)


# Suites of other projects


PACKAGES = {extra: packages for packages, extra in SUITES.values()}


def needs(extra: str) -> list:
    """Marks of a test or a parameter: it is of a suite, and skipped where this extra of pmoe is not
    installed, unless PMOE_REQUIRE_SUITES in the environment names it, as in envpool,robotics."""
    is_installed = all(map(util.find_spec, PACKAGES[extra]))
    is_required = extra in os.environ.get("PMOE_REQUIRE_SUITES", "").split(",")
    skip = not is_installed and not is_required
    return [pytest.mark.suites, pytest.mark.skipif(skip, reason=f"pmoe[{extra}] is not installed")]


# Runs


def flags(algo: str, **fields) -> list[str]:
    """Args fields as options; SHORT's where they are not given"""
    words = []
    for name, value in {**SHORT[algo], **fields}.items():
        words.append(f"--{name.replace('_', '-')}")
        words.append(str(value))
    return words


def make_args(algo: str, run_dir: Path, **fields):
    """Of a quick run on Pendulum"""
    fields = {**SHORT[algo], "env_id": "Pendulum-v1", "run_dir": str(run_dir), **fields}
    return MODULES[algo].Args(**fields)


def train(algo: str, run_dir: Path, **fields) -> list[Path]:
    """A quick run in this process"""
    args = make_args(algo, run_dir, **fields)
    return MODULES[algo].train(args)


class Killed(BaseException):
    """A process that ends where it stands, as far as a test in the same process can have it"""


def at_move(monkeypatch, algo: str, number: int, happens) -> None:
    """Calls `happens` when the environments, of training or evaluation, are about to move for that time."""
    envs_type = MODULES[algo].Envs
    move = envs_type.step
    moves = 0

    def step(envs, *args):
        nonlocal moves
        moves += 1
        if moves == number:
            happens()
        return move(envs, *args)

    monkeypatch.setattr(envs_type, "step", step)


def failed(result, *words) -> None:
    """Asserts one clear line, exit status 2 and no traceback."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in result.stderr


def refused(result, *words) -> None:
    """`failed`, before anything else was said."""
    failed(result, *words)
    assert result.stdout == ""


def files_below(path: Path) -> dict[Path, bytes]:
    """All but TensorBoard's, which a run of the test's own process may still be writing"""
    files = {}
    for file in path.rglob("*"):
        if file.is_file() and "tfevents" not in file.name:
            files[file] = file.read_bytes()
    return files


def run_at(path: Path) -> Run:
    """The only run below a path"""
    runs, _ = find([path])
    (run,) = runs
    return run


def rows_of(path: Path) -> list[dict]:
    with open(path) as file:
        return list(csv.DictReader(file))


def json_of(path: Path) -> dict:
    return json.loads(path.read_text())


def checkpoint(path: Path) -> dict:
    """The newest of a run"""
    newest = max(path.glob("checkpoint/[0-9]*.pt"))
    return torch.load(newest, weights_only=True)


def same(a, b) -> bool:
    """Equality of what a checkpoint may hold: tensors, and lists and dicts of them"""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(x, b[name]) for name, x in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def differences(a: dict, b: dict) -> list[str]:
    """Names of what is not the same in two dicts, or only in one of them"""
    return [name for name in a | b if not same(a.get(name), b.get(name))]


def same_run(path: Path, other: Path) -> None:
    """Asserts that two runs left the same bytes in their CSV files and the same in their checkpoints."""
    for name in ("episodes.csv", "eval.csv"):
        assert (path / name).read_bytes() == (other / name).read_bytes()
        assert rows_of(path / name)
    state = checkpoint(path)
    twin = checkpoint(other)
    assert state.pop("wall_time") > 0
    assert twin.pop("wall_time") > 0
    assert differences(state.pop("learnt"), twin.pop("learnt")) == []
    assert differences(state, twin) == []


def same_runs(run_dir: Path, other: Path, seeds: int) -> None:
    """`same_run` of each of the seeds, which are all that there is below two --run-dirs."""
    paths = sorted(run_dir.glob("*/*/*"))
    others = sorted(other.glob("*/*/*"))
    assert len(paths) == seeds
    for path, twin in zip(paths, others, strict=True):
        same_run(path, twin)
