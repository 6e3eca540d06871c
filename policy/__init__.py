"""Trained policies as Python functions: what `pmoe.load_policy` gives."""

import copy
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import checkpoints
from ..plots.policies import make_envs, trained
from ..plots.runs import PlotError, Run, new_run

EXAMPLE = "a run is a directory like runs/Hopper-v4/sac-k4/seed1"


class Policy:
    """A trained policy's mean action: `policy(obs)` maps observations (O,) or (B, O) to actions (A,) or (B,
    A) within the bounds of the environment, as evaluations take them. Arrays of numpy give arrays, tensors
    give tensors on their device. `policy.reset()` begins an episode, of a policy with a memory."""

    def __init__(self, run: Run, envs):
        """The policy of a run, and an `Envs` of its algorithm"""
        self.step, self.actor = trained(run)
        self.untouched = copy.deepcopy(self.actor)
        self.env_id = run.env
        self.obs_size = envs.obs_size
        self.action_space = envs.action_space
        self.scale = envs.scale
        self.shift = envs.shift
        self.batch_size: int | None = None  # that of the episodes which are under way

    @property
    def remembers(self) -> bool:
        """Whether it goes on with the option of the step before, as DAC's does"""
        return hasattr(self.actor, "option")

    def reset(self, ended=None) -> None:
        """Begins new episodes: all of them or, in a batch, those that `ended`, a mask (B,)."""
        if ended is None:
            self.actor = copy.deepcopy(self.untouched)
            self.batch_size = None
        elif self.remembers and self.actor.option is not None:
            mask = torch.as_tensor(ended, dtype=torch.bool)
            self.actor.option[0, mask] = -1

    def __call__(self, obs):
        """ValueError: these are no observations of its environment."""
        given = self.checked(obs)
        x = torch.as_tensor(given, dtype=torch.float32, device="cpu").detach()
        x = x.reshape(1, -1, self.obs_size) if x.dim() == 1 else x.unsqueeze(0)
        _, batch_size, _ = x.shape
        if self.remembers and self.batch_size not in (None, batch_size):
            before = f"{self.batch_size} observations at the step before, and now {batch_size}"
            raise ValueError(f"this policy keeps its option from step to step: {before}; reset() it first")
        self.batch_size = batch_size
        action = self.within_bounds(self.actor.act(x)[0].numpy())
        if len(given.shape) == 1:
            action = action[0]
        return torch.from_numpy(action).to(obs.device) if isinstance(obs, Tensor) else action

    def checked(self, obs) -> np.ndarray | Tensor:
        """Observations as numbers of the right shape"""
        given: np.ndarray | Tensor = obs
        if not isinstance(obs, Tensor):
            try:
                given = np.asarray(obs, np.float32)
            except (TypeError, ValueError):
                wanted = f"an observation is an array of {self.obs_size} numbers"
                raise ValueError(f"{wanted}, not {type(obs).__name__}") from None
        if len(given.shape) not in (1, 2) or given.shape[-1] != self.obs_size:
            wanted = f"({self.obs_size},) or (B, {self.obs_size})"
            raise ValueError(f"observations have the shape {wanted}, not {tuple(given.shape)}")
        return given

    def within_bounds(self, action: np.ndarray) -> np.ndarray:
        """From units of the bounds to what the environment gets, as `Envs.step` does it"""
        space = self.action_space
        return (self.shift + self.scale * action).astype(space.dtype).clip(space.low, space.high)


def load(run_dir: str | Path, checkpoint: str | int = "last") -> Policy:
    """The last policy of a run, the "best" by evaluation, or that of a step whose checkpoint was kept.
    FileNotFoundError, ValueError: why there is none."""
    which = str(checkpoint)
    if which not in ("last", "best") and not which.isdecimal():
        raise ValueError(f"a checkpoint is 'last', 'best' or a step, not {checkpoint!r}")
    path = Path(os.fspath(run_dir))
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; {EXAMPLE}")
    if not (path / "config.json").exists():
        raise FileNotFoundError(f"{path} is no run, it has no config.json; {EXAMPLE}")
    try:
        run = new_run(path)
    except PlotError as error:
        raise ValueError(f"{path}: {error}") from None
    if not checkpoints(path):
        raise FileNotFoundError(f"{path} has no checkpoint")
    run.checkpoint = which
    try:
        envs = make_envs(run, 1)
        policy = Policy(run, envs)
    except PlotError as error:
        # Nobody plots here.
        raise ValueError(str(error)) from error.__cause__
    for env in envs.envs:
        env.close()
    return policy
