"""Steps a second of two checkouts of this project, in alternation: has a change made training slower?

    git worktree add ../old main
    python benchmarks/compare.py ../old . --algos sac ppo --compile graph off --repeats 6

Every measurement is a process of its own, `python pmoe_sac.py ...`, timed between two of its progress lines.
The first of them comes when everything is compiled. Old and new take turns at being first. Look at the ratio:
machines are noisy, so it is taken repeat by repeat, and its interval is that of `pmoe plot`.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from pmoe.plots.stats import bootstrap, mean

FILES = {"sac": "pmoe_sac.py", "ppo": "pmoe_ppo.py"}
STEPS = {"sac": 3000, "ppo": 20_000}
NEVER = "1000000000"
# SAC compiles acting and learning before its first line, at step 1,000; PPO before that of its first rollout
OPTIONS = {
    "sac": ["--random-steps", "400", "--learning-starts", "400", "--buffer-size", "100000"],
    "ppo": [],
}
LINE = re.compile(r"step ([\d,]+)\s")


@dataclass
class Args:
    old: tyro.conf.Positional[Path]  # a checkout
    new: tyro.conf.Positional[Path]  # another
    algos: tuple[Literal["sac", "ppo"], ...] = ("sac", "ppo")
    compile: tuple[Literal["graph", "on", "off"], ...] = ("graph", "off")
    env: str = "Hopper-v4"  # Gymnasium environment
    k: int = 4  # primitives
    steps: int | None = None  # that are timed; default: 3,000 of SAC, 20,000 of PPO
    repeats: int = 6  # alternations


def lines_of(process: subprocess.Popen) -> Iterator[tuple[int, float]]:
    """Step and time of each progress line; ends the program if the process ends."""
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=20)
    for line in process.stdout:
        now = time.perf_counter()
        last.append(line)
        found = LINE.match(line)
        if found:
            step = int(found[1].replace(",", ""))
            yield step, now
    sys.exit("".join(["a run ended:\n", *last]))


def measure(checkout: Path, algo: str, compiled: str, args: Args) -> float:
    """Steps a second"""
    file = checkout.resolve() / FILES[algo]
    steps = args.steps or STEPS[algo]
    command = [sys.executable, str(file), "--env", args.env, "--k", str(args.k), "--compile", compiled]
    command += ["--eval-every", NEVER, "--eval-episodes", "1", "--checkpoint-every", NEVER]
    command += OPTIONS[algo]
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            lines = lines_of(process)
            first, began = next(lines)
            step, now = first, began
            while step < first + steps:
                step, now = next(lines)
        finally:
            process.kill()
            process.wait()
    return (step - first) / (now - began)


def main(args: Args) -> None:
    settings = [(algo, compiled) for algo in args.algos for compiled in args.compile]
    speeds: dict[tuple, list[list[float]]] = {setting: [] for setting in settings}
    for repeat in range(args.repeats):
        for algo, compiled in settings:
            pair = [0.0, 0.0]
            order = [0, 1] if repeat % 2 == 0 else [1, 0]
            for i in order:
                pair[i] = measure([args.old, args.new][i], algo, compiled, args)
            speeds[algo, compiled].append(pair)
            old, new = pair
            print(
                f"{repeat + 1}: {algo} {compiled}  old {old:.1f}  new {new:.1f}  ratio {new / old:.3f}",
                flush=True,
            )
    report(speeds)


def report(speeds: dict[tuple, list[list[float]]]) -> None:
    table = Table(
        "algorithm", "compile", "old, steps/s", "new, steps/s", "new / old", "95 % interval", box=None
    )
    for (algo, compiled), pairs in speeds.items():
        old, new = np.transpose(pairs)
        ratio = new / old
        low, high = bootstrap([ratio], lambda strata: mean(strata[0]))
        row = [f"{old.mean():.1f}", f"{new.mean():.1f}", f"{ratio.mean():.3f}", f"{low:.3f} to {high:.3f}"]
        table.add_row(algo, compiled, *row)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
