"""EnvPool's tasks for `--env`: `EnvPool/TASK`, with - for a / in the task's name.

from pmoe import envs
env = envs.make("EnvPool/MetaWorld-Reach-v3")
"""

import difflib
import warnings
from typing import Any

import envpool
import gymnasium as gym
import numpy as np
from gymnasium.error import NameNotFound

NAMESPACE = "EnvPool/"
MOST_SEEDS = 2**31  # EnvPool's seeds are of 32 bits with a sign
OURS = ("num_envs", "batch_size", "seed")  # what this adapter decides


def register(name: str) -> None:
    """Registers EnvPool/TASK, and none of the other 1,650: each would be compared with all before it.
    NameNotFound: EnvPool has no such task."""
    tasks = {NAMESPACE + task.replace("/", "-"): task for task in envpool.list_all_envs()}
    if name not in tasks:
        near = difflib.get_close_matches(name, tasks, 1)
        hint = f" Did you mean: `{near[0]}`?" if near else ""
        raise NameNotFound(f"Environment `{name}` doesn't exist.{hint}")
    task = tasks[name]
    limit = getattr(envpool.make_spec(task).config, "max_episode_steps", None)
    gym.register(
        name,
        "pmoe.envs.envpool:Pooled",
        max_episode_steps=limit,
        disable_env_checker=True,  # float64 in a Box of float32 is EnvPool's way
        kwargs={"task": task},
        additional_wrappers=(Limited.wrapper_spec(),),
    )


class Pooled(gym.Env):
    """A pool of one environment, as an environment of Gymnasium's. Other options go to EnvPool.

    EnvPool takes a seed when it makes a pool, and none later. A reset therefore makes a new pool, whose seed
    is drawn from np_random: that alone decides on the episode, and a run resumes exactly.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, task: str, render_mode: str | None = None, **options):
        for name in OURS:
            if name in options:
                raise ValueError(
                    f"{name} is no option here: a pool has one environment, and each reset a seed"
                )
        self.task = task
        self.render_mode = render_mode
        self.options = {"num_envs": 1, "num_threads": 1, **options}
        # The goal belongs to MetaWorld's state, as its paper has it; EnvPool has zeros there by default.
        if task.startswith("MetaWorld/"):
            self.options.setdefault("partially_observable", False)
        spec = envpool.make_spec(task, **self.options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bounds of float64 in a Box of float32
            self.observation_space = spec.gymnasium_observation_space
            self.action_space = spec.gymnasium_action_space
        self.pool: Any = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        pool_seed = int(self.np_random.integers(MOST_SEEDS))
        self.close()
        make_options = {**self.options, "render_mode": self.render_mode}
        self.pool = envpool.make_gymnasium(self.task, seed=pool_seed, **make_options)
        obs, info = self.pool.reset()
        return first(obs), first(info)

    def step(self, action) -> tuple[Any, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = self.pool.step(np.asarray(action)[None])
        return first(obs), float(reward[0]), bool(terminated[0]), bool(truncated[0]), first(info)

    def render(self) -> np.ndarray:
        return self.pool.render()[0]

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None


class Limited(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Gives EnvPool the time limit of `--env ID,max_episode_steps=N`: before a longer one its own would end
    the episode. Gymnasium tells N to the wrapper below this one, and not to the environment."""

    def __init__(self, env: gym.Env):
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        pooled: Any = env.unwrapped
        limit = env.spec.max_episode_steps if env.spec else None
        if limit is not None:
            pooled.options["max_episode_steps"] = limit


def first(batch):
    """Of arrays with one row, in dicts perhaps, that row"""
    if isinstance(batch, dict):
        return {name: first(part) for name, part in batch.items()}
    return batch[0]
