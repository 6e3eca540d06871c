"""What the tests share: the real command line, a short training run, and toy environments."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
PMOE = str(Path(sys.executable).with_name("pmoe"))
SHORT = {"total_timesteps": 400, "learning_starts": 50, "random_steps": 100, "batch_size": 16}
SHORT |= {"k": 2, "eval_every": 200, "eval_episodes": 2, "checkpoint_every": 100, "compile": "off"}


class Toy(gym.Env):
    """The observation counts the steps; an episode ends after `length` of them, by termination or by truncation."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(np.float32([-1.1, 2.0]), np.float32([2.3, 2.7]))

    def __init__(self, length=5, terminates=True, nan_at=None, reuses=False):
        self.length, self.terminates, self.nan_at, self.reuses = length, terminates, nan_at, reuses
        self.total, self.obs = 0, np.zeros(2)

    def observe(self):
        self.obs[:] = self.step_count, self.noise
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
TOYS |= {"ToyBreaks-v0": {"nan_at": 130}, "ToyReuses-v0": {"reuses": True}}
for name, kwargs in TOYS.items():
    gym.register(name, Toy, kwargs=kwargs)
gym.register("ToyDict-v0", ToyDict)


def flags(**fields) -> list[str]:
    """Args fields as options; SHORT's where they are not given"""
    return [word for name, value in (SHORT | fields).items() for word in (f"--{name.replace('_', '-')}", str(value))]


def checkpoint(path: Path) -> dict:
    """The newest of a run"""
    return torch.load(max(path.glob("checkpoint/*.pt")), weights_only=True)


def same_run(path: Path, other: Path) -> None:
    """Asserts that two runs left the same bytes in their CSV files and equal tensors in their checkpoints."""
    for name in ("episodes.csv", "eval.csv"):
        assert (path / name).read_bytes() == (other / name).read_bytes()
        assert len((path / name).read_text().splitlines()) > 1
    state, twin = (checkpoint(x) for x in (path, other))
    assert state["step"] == twin["step"] and state["learnt"].keys() == twin["learnt"].keys()
    for key, x in state["learnt"].items():
        assert torch.equal(x, twin["learnt"][key]), key
    assert torch.equal(state["generator"], twin["generator"]) and torch.equal(state["actions"], twin["actions"])
    assert state["random_state"] == twin["random_state"]


def same_runs(run_dir: Path, other: Path, seeds: int) -> None:
    """`same_run` of each of the seeds, which are all that there is below two --run-dirs."""
    paths = [sorted(x.glob("*/*/*")) for x in (run_dir, other)]
    assert len(paths[0]) == seeds
    for path, twin in zip(*paths, strict=True):
        same_run(path, twin)
