"""What numbers below 1e-38 cost a run of SAC: the same run with and without them, side by side.

    python benchmarks/small_numbers.py --k 1 --steps 8000

Adam's moments of units that died decay to such numbers, with which processors are slow. pmoe makes them 0.
Two processes of one thread train the same seeds at the same time; one of them keeps the numbers. The table
has steps a second of each seed, by thousands of steps, and the mean ratio of those from step 3,000 on, with
its 95 % bootstrap interval. The last lines say whether both had the same episodes, and how many such numbers
the other has at its end.
"""

import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from throughput import interval, processor

from pmoe import pmoe_sac

EVERY = 1000  # steps of a row
SETTLED = 3000  # steps after which both are as in a long run
NEVER = 10**9
FLUSHED = "0"
KEPT = "kept"


@dataclass
class Args:
    env: str = "Hopper-v4"  # Gymnasium environment
    k: int = 1  # number of primitives
    num_seeds: int = 5  # seeds side by side
    steps: int = 8000  # of each seed
    run_dir: str = ""  # where one of the two processes trains
    small: str = ""  # what it does with small numbers: 0 or kept


def work(args: Args) -> None:
    """Trains, and prints the seconds at which each thousand of steps was over."""
    warnings.filterwarnings("ignore")
    out = sys.stdout
    sys.stdout = sys.stderr  # what training prints is not for the parent
    if args.small == KEPT:
        torch.set_flush_denormal = lambda _: False  # type: ignore[assignment]
    end_of_step = pmoe_sac.Runs.end_of_step

    def timed(runs, step, figures):
        end_of_step(runs, step, figures)
        if step % EVERY == 0:
            print(time.perf_counter(), file=out, flush=True)

    pmoe_sac.Runs.end_of_step = timed  # type: ignore[method-assign]
    options = pmoe_sac.Args(
        env_id=args.env,
        k=args.k,
        num_seeds=args.num_seeds,
        total_timesteps=args.steps,
        random_steps=EVERY - 1,  # so that all is compiled before the first row
        learning_starts=EVERY - 1,
        eval_every=NEVER,
        eval_episodes=1,
        checkpoint_every=NEVER,
        run_dir=args.run_dir,
        tag=args.small,
    )
    pmoe_sac.train(options)


def start(args: Args, small: str) -> subprocess.Popen[str]:
    options = asdict(args) | {"small": small}
    command = [sys.executable, __file__]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def speeds(process: subprocess.Popen[str]) -> np.ndarray:
    """Steps a second of each seed in each thousand of steps but the first, which is random and compiles"""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a process failed; this says why: {process.args!r}")
    return EVERY / np.diff(np.array(output.split(), float))


def episodes(run_dir: str, small: str) -> list[str]:
    return [file.read_text() for file in sorted(Path(run_dir).glob(f"*/*-{small}/seed*/episodes.csv"))]


def share_of_small(run_dir: str) -> float:
    """Of all that is learnt, Adam's moments with it"""
    small = 0
    every = 0
    for file in Path(run_dir).glob(f"*/*-{KEPT}/seed*/checkpoint/[0-9]*.pt"):
        for x in torch.load(file, weights_only=True)["learnt"].values():
            if x.dtype == torch.float32:
                small += ((x != 0) & (x.abs() < torch.finfo(x.dtype).tiny)).sum().item()
                every += x.numel()
    return small / every


def main(args: Args) -> None:
    with tempfile.TemporaryDirectory() as run_dir:
        args.run_dir = run_dir
        processes = [start(args, small) for small in (KEPT, FLUSHED)]
        kept, flushed = map(speeds, processes)
        same = episodes(run_dir, KEPT) == episodes(run_dir, FLUSHED)
        share = share_of_small(run_dir)
    title = f"{args.env}, K = {args.k}, seeds: {args.num_seeds}; {processor()}; torch {torch.__version__}"
    table = Table("until step", "kept", "0", "ratio", title=title)
    ends = EVERY * np.arange(2, len(kept) + 2)
    for end, before, after in zip(ends, kept, flushed, strict=True):
        table.add_row(f"{end:,}", f"{before:.1f}", f"{after:.1f}", f"{after / before:.2f}")
    console = Console(width=max(Console().width, 100))
    console.print(table)
    settled = ends > SETTLED
    console.print(f"ratio after {SETTLED:,} steps: {interval(flushed[settled] / kept[settled])}")
    console.print(f"the same episodes: {'yes' if same else 'no'}")
    console.print(f"such numbers at the end, of all that is learnt: {share:.1%}")


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    if arguments.small:
        work(arguments)
    elif arguments.steps < SETTLED + EVERY:
        sys.exit(f"error: --steps must be at least {SETTLED + EVERY}")
    else:
        main(arguments)
