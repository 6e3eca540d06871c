"""What a GPU does with PMOE-SAC: whether it computes the same, and how fast. Under eight minutes.

    pip install -e ".[bench]"
    python benchmarks/gpu.py

Prints, and writes to gpu.md:

    same         after 50 updates the networks of --compile off, on and graph, as relative differences, and
                 after the same resume, where nothing may differ
    launches     what a step asks of the GPU one by one: kernels, copies, graphs
    memory       at its highest, of one process
    speed        steps a second beside Stable-Baselines3's, as benchmarks/throughput.py measures them

Without a GPU, `--device cpu` tries the script itself.
"""

import contextlib
import io
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from throughput import processor
from torch.profiler import ProfilerActivity, profile

from pmoe import pmoe_sac
from pmoe.envs.suites import version_of

START = 300  # steps before the first update
UPDATES = 50
PROFILED = 20  # steps
# What reaches a GPU, in the names of CUDA's calls
CALLS = ("LaunchKernel", "GraphLaunch", "Memcpy", "Memset")


@dataclass
class Args:
    envs: tuple[str, ...] = ("Hopper-v4", "Humanoid-v4")
    ks: tuple[int, ...] = (1, 4)  # numbers of primitives
    seeds: tuple[int, ...] = (1, 4, 16)  # seeds side by side
    device: Literal["cuda", "cpu"] = "cuda"
    seconds: float = 3.0  # of a measurement of speed
    repeats: int = 3  # alternations
    out: Path = Path("gpu.md")


def train(run_dir: str, args: Args, steps: int, **options) -> list[Path]:
    """A quiet run, whose actions are random, so that rounding does not lead it elsewhere"""
    given: dict[str, Any] = {"env_id": args.envs[0], "k": 4, "num_seeds": 2, "device": args.device}
    given |= {"random_steps": 10**9, "learning_starts": START, "eval_every": 10**9, "eval_episodes": 1}
    given |= {"run_dir": run_dir, "total_timesteps": steps}
    with contextlib.redirect_stdout(io.StringIO()):
        return pmoe_sac.train(pmoe_sac.Args(**given | options))


def learnt(path: Path) -> dict[str, torch.Tensor]:
    """The networks of a finished run"""
    (file,) = path.glob("checkpoint/[0-9]*.pt")
    state = torch.load(file, weights_only=True, map_location="cpu")["learnt"]
    return {name: x for name, x in state.items() if x.is_floating_point() and "adam" not in name}


def difference(path: Path, other: Path) -> float:
    """The largest of two runs' networks, relative to the largest weight of its tensor"""
    theirs = learnt(other)
    largest = 0.0
    for name, x in learnt(path).items():
        y = theirs[name]
        largest = max(largest, float((x - y).abs().max() / y.abs().max().clamp(min=1e-6)))
    return largest


def same(args: Args) -> list[str]:
    lines = ["| networks after 50 updates | largest relative difference |", "|---|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for compile in ("off", "on", "graph"):
            (runs[compile], _) = train(f"{folder}/{compile}", args, START + UPDATES, compile=compile)
        for compile in ("on", "graph"):
            lines.append(
                f"| `--compile {compile}` and `off` | {difference(runs[compile], runs['off']):.1e} |"
            )
        train(f"{folder}/resumed", args, START + UPDATES // 2)
        (resumed, _) = train(f"{folder}/resumed", args, START + UPDATES, resume=True)
        lines.append(f"| resumed half-way, and not | {difference(resumed, runs['graph']):.1e} |")
    return lines


class Enough(Exception):
    """Ends a training when its steps have been looked at."""


def launches(args: Args, k: int, seeds: int) -> Counter:
    """Calls of the GPU that a step makes, by their names; on average over some steps"""
    activities = [ProfilerActivity.CPU]
    if args.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    profiler = profile(activities=activities)
    end_of_step = pmoe_sac.Runs.end_of_step
    first = START + 2 * UPDATES

    def look(runs, step, figures):
        end_of_step(runs, step, figures)
        if step == first:
            profiler.start()
        if step == first + PROFILED:
            profiler.stop()
            raise Enough

    pmoe_sac.Runs.end_of_step = look  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
            train(folder, args, 10**6, k=k, num_seeds=seeds, random_steps=START, buffer_size=10**4)
    finally:
        pmoe_sac.Runs.end_of_step = end_of_step  # type: ignore[method-assign]
    counts: Counter = Counter()
    for event in profiler.key_averages():
        for call in CALLS:
            if event.key.startswith(("cuda", "cu")) and call in event.key:
                counts[call] += event.count / PROFILED
    return counts


def table_of_launches(args: Args) -> list[str]:
    lines = [
        f"| a step | {' | '.join(CALLS)} | together | memory, MB |",
        f"|---|{'---:|' * (len(CALLS) + 2)}",
    ]
    for k in args.ks:
        for seeds in (min(args.seeds), max(args.seeds)):
            if args.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            counts = launches(args, k, seeds)
            memory = torch.cuda.max_memory_reserved() / 1e6 if args.device == "cuda" else 0.0
            cells = [f"{counts[call]:.3g}" for call in CALLS]
            total = f"{sum(counts.values()):.3g}"
            lines.append(f"| K = {k}, {seeds} seeds | {' | '.join(cells)} | {total} | {memory:.0f} |")
    return lines


def speed(args: Args, env: str) -> list[str]:
    """The table of throughput.py, in a process of its own"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name("throughput.py")), "--env", env]
        command += ["--ks", *map(str, args.ks), "--seeds", *map(str, args.seeds), "--compile", "graph"]
        command += ["--peers", "sb3", "--no-pairs", "--patience", "0", "--out", f"{folder}/speed"]
        command += ["--warm", "300", "--seconds", str(args.seconds), "--repeats", str(args.repeats)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Path(folder, "speed.md").read_text().splitlines()


def main(args: Args) -> None:
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: there is no GPU; --device cpu tries the script itself")
    names = ("torch", "gymnasium", "mujoco", "stable_baselines3")
    versions = ", ".join(f"{name} {version_of(name)}" for name in names if version_of(name))
    lines = [f"{processor()}; {versions}", ""]
    parts = [same(args), table_of_launches(args)]
    for part in parts:
        lines += [*part, ""]
        print("\n".join(part), flush=True)
    for env in args.envs:
        part = speed(args, env)
        lines += [*part, ""]
        print("\n".join(part), flush=True)
        # What there is stays, should the machine be taken away.
        args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Args))
