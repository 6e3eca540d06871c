"""Seconds that `pmoe plot --auc --metric train` takes of many runs, which this makes in a temporary folder.

python benchmarks/plots.py --runs 1000
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from throughput import processor

from pmoe import pmoe_sac

ENVS = ("Hopper-v4", "Ant-v4", "Walker2d-v4", "HalfCheetah-v4", "Humanoid-v4")
SEEDS = 20  # of each method
STEPS = 1_000_000


@dataclass
class Args:
    runs: int = 1000  # a multiple of 100: five environments, twenty seeds
    evaluations: int = 1000  # of each run
    episodes: int = 5000  # of each run


def make(folder: Path, env: str, k: int, seed: int, args: Args) -> None:
    """A finished run of PMOE-SAC with random returns"""
    generator = np.random.default_rng([k, seed])
    path = folder / env / f"sac-k{k}" / f"seed{seed}"
    path.mkdir(parents=True)
    options = asdict(pmoe_sac.Args(env_id=env, k=k, seed=seed, total_timesteps=STEPS))
    (path / "config.json").write_text(json.dumps({"algo": "sac", "device": "cpu", "args": options}))

    steps = np.linspace(STEPS / args.evaluations, STEPS, args.evaluations).astype(int)
    returns = generator.normal(size=args.evaluations).cumsum()
    lines = [f"{step},{value:.6f},0.5,10\n" for step, value in zip(steps, returns)]
    (path / "eval.csv").write_text("step,return_mean,return_std,episodes\n" + "".join(lines))

    steps = np.sort(generator.choice(STEPS, args.episodes, replace=False)) + 1
    values = generator.normal(size=args.episodes).cumsum()
    lines = [f"{step},{value:.6f},200\n" for step, value in zip(steps, values)]
    (path / "episodes.csv").write_text("step,episodic_return,episodic_length\n" + "".join(lines))

    end = {
        "step": STEPS,
        "return_mean": returns[-1],
        "return_std": 0.5,
        "episodes": 10.0,
        "wall_time": 3600.0,
    }
    (path / "done.json").write_text(json.dumps(end))


def main(args: Args) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for env in ENVS:
            for k in range(1, args.runs // (SEEDS * len(ENVS)) + 1):
                for seed in range(1, SEEDS + 1):
                    make(folder / "runs", env, k, seed, args)
        command = [sys.executable, "-m", "pmoe.cli", "plot", "runs", "--auc", "--metric", "train"]
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    size = f"{args.evaluations:,} evaluations and {args.episodes:,} episodes"
    print(f"{args.runs:,} runs of {size}: {seconds:.1f} s; {processor()}")


if __name__ == "__main__":
    main(tyro.cli(Args))
