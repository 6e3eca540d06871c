"""Environment steps a second of PMOE-SAC beside Stable-Baselines3's SAC: same task, same settings, in alternation.

    pip install -e ".[bench]"
    python benchmarks/throughput.py --env Hopper-v4 --batch-size 256 --repeats 5

A step is one environment step and one gradient step on batches of the same size through networks of 256-256. The first
`warmup` updates of every repeat are not counted. Machines are noisy: look at the ratios, taken repeat by repeat.
"""

import contextlib
import io
import platform
import tempfile
import time
import warnings
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
import tyro
from rich.console import Console
from rich.table import Table

from pmoe import pmoe_sac


@dataclass
class Args:
    env: str = "Hopper-v4"  # Gymnasium environment
    batch_size: int = 256  # transitions of an update
    ks: tuple[int, ...] = (1, 4)  # numbers of primitives
    steps: int = 1000  # counted steps of a repeat
    warmup: int = 200  # steps before them
    repeats: int = 5  # alternations


def pmoe_steps_per_second(args: Args, k: int, seed: int) -> float:
    times, update = [], pmoe_sac.Agent.update

    def timed_update(self, *batch):
        times.append(time.perf_counter())
        return update(self, *batch)

    pmoe_sac.Agent.update = timed_update
    total = 200 + args.warmup + args.steps
    settings = {"env_id": args.env, "k": k, "seed": seed, "batch_size": args.batch_size, "total_timesteps": total}
    settings |= {"learning_starts": 200, "random_steps": 200, "eval_every": 10**6, "eval_episodes": 1}
    with tempfile.TemporaryDirectory() as run_dir, contextlib.redirect_stdout(io.StringIO()):
        pmoe_sac.train(pmoe_sac.Args(**settings, run_dir=run_dir, checkpoint_every=10**6, device="cpu"))
    pmoe_sac.Agent.update = update
    return args.steps / (times[-1] - times[-1 - args.steps])


def sb3_steps_per_second(args: Args, seed: int) -> float:
    times = []
    settings = {"batch_size": args.batch_size, "learning_starts": 200, "learning_rate": 1e-3, "ent_coef": 0.2}
    settings |= {"policy_kwargs": {"net_arch": [256, 256]}, "seed": seed, "device": "cpu"}
    model = stable_baselines3.SAC("MlpPolicy", gym.make(args.env), **settings)
    model.learn(200 + args.warmup + args.steps, callback=lambda *_: times.append(time.perf_counter()) or True)
    return args.steps / (times[-1] - times[-1 - args.steps])


def main(args: Args) -> None:
    warnings.filterwarnings("ignore", message=".*out of date")
    methods = {f"pmoe, K = {k}": lambda seed, k=k: pmoe_steps_per_second(args, k, seed) for k in args.ks}
    methods["Stable-Baselines3"] = lambda seed: sb3_steps_per_second(args, seed)
    speeds = {name: [] for name in methods}
    for seed in range(args.repeats):
        for name, measure in methods.items():
            speeds[name].append(measure(seed))
    versions = f"torch {torch.__version__}, stable-baselines3 {stable_baselines3.__version__}"
    title = f"{args.env}, batch {args.batch_size}, {platform.machine()}, {torch.get_num_threads()} threads, {versions}"
    table = Table("method", "steps/s: median", "min", "max", "x SB3: median", "min", "max", title=title)
    for name, values in speeds.items():
        ratios = np.divide(values, speeds["Stable-Baselines3"])
        cells = [f"{f(values):.0f}" for f in (np.median, np.min, np.max)]
        table.add_row(name, *cells, *(f"{f(ratios):.2f}" for f in (np.median, np.min, np.max)))
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
