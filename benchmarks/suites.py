"""Can environments of other projects be resumed exactly, and what does a reset cost? For docs/suites.md.

    pip install -e ".[envpool,robotics]"      # or dmc, in a venv of its own
    python benchmarks/suites.py PointMaze_ AntMaze_ EnvPool/MetaWorld-
    python benchmarks/suites.py EnvPool/WalkerWalk-v1 EnvPool/FetchReach-v4

An argument stands for all environments whose names begin so. A fresh copy of each is given the random state
of another before its third reset, and the same actions: it is exact if observations, rewards and ends are the
same to the last bit. A reset's share is that of an episode's time, without learning; episodes have all their
steps.
"""

import time
import warnings
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from pmoe import envs, pmoe_sac
from pmoe.envs import suites

MOVES = 50  # steps that are compared


@dataclass
class Result:
    env_id: str
    error: str = ""  # why it could not be tried
    exact: bool = False
    reset: float = 0.0  # seconds
    step: float = 0.0
    limit: int = 0  # steps of an episode

    @property
    def share(self) -> str:
        """A reset's, of an episode's time; of an episode without a limit there is none"""
        if not self.limit or self.error:
            return "–"
        return f"{self.reset / (self.reset + self.limit * self.step):.0%}"


def main(beginnings: tyro.conf.Positional[tuple[str, ...]]) -> None:
    """Tries all environments whose names begin so; prints a row each, and how many are exact."""
    warnings.filterwarnings("ignore")
    table = Table("environment", "exact", "a reset, s", "steps", "share")
    exact = 0
    results = []
    for beginning in beginnings:
        for env_id in named(beginning):
            results.append(tried(env_id))
    for result in results:
        exact += result.exact
        numbers = [f"{result.reset:.3f}", str(result.limit), result.share]
        table.add_row(result.env_id, result.error or str(result.exact), *numbers)
    Console().print(table, f"{exact} of {len(results)} are exact", sep="\n")


def named(beginning: str) -> list[str]:
    """The environments whose names begin so"""
    if beginning.startswith("EnvPool/"):
        import envpool

        names = ["EnvPool/" + task.replace("/", "-") for task in envpool.list_all_envs()]
    else:
        for known, (packages, extra) in suites.SUITES.items():
            if beginning.startswith(known):
                suites.import_suite(known, packages, extra)
        names = list(gym.registry)
    return sorted(name for name in names if name.startswith(beginning))


def tried(env_id: str) -> Result:
    result = Result(env_id)
    try:
        one = pmoe_sac.flattened(envs.make(env_id))
        other = pmoe_sac.flattened(envs.make(env_id))
        if one.spec:
            result.limit = one.spec.max_episode_steps or 0
        result.exact = is_exact(one, other)
        result.reset, result.step = seconds(one)
    except Exception as error:  # noqa: BLE001  environments raise anything
        result.error = f"{type(error).__name__}: {error}".split("\n")[0][:60]
    return result


def is_exact(one: gym.Env, other: gym.Env) -> bool:
    one.action_space.seed(0)
    actions = [one.action_space.sample() for _ in range(MOVES)]
    one.reset(seed=1)
    moved(one, actions)
    one.reset()
    moved(one, actions)
    other.reset(seed=2)
    pmoe_sac.set_random_state(other, pmoe_sac.random_state_of(one))
    first, _ = one.reset()
    other_first, _ = other.reset()
    same_start = np.array_equal(first, other_first)
    return same_start and np.array_equal(moved(one, actions), moved(other, actions))


def moved(env: gym.Env, actions: list) -> np.ndarray:
    """What an episode's steps return, a row each: observation, reward, ends"""
    rows = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.append([*obs, reward, terminated, truncated])
        if terminated or truncated:
            break
    return np.array(rows, float)


def seconds(env: gym.Env) -> tuple[float, float]:
    """Of a reset and of a step, the means of five and of some"""
    resets = []
    steps = []
    for _ in range(5):
        began = time.perf_counter()
        env.reset()
        resets.append(time.perf_counter() - began)
        began = time.perf_counter()
        count = len(moved(env, [env.action_space.sample() for _ in range(MOVES)]))
        steps.append((time.perf_counter() - began) / count)
    return float(np.mean(resets)), float(np.mean(steps))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
