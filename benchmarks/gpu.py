"""What a GPU does with PMOE-SAC: whether it computes the same, and how fast.

    pip install -e ".[bench]"
    python benchmarks/gpu.py

Prints, and writes to gpu.md:

    same         after 50 updates the networks of --compile off, on and graph, as relative differences, and
                 after the same resume, where nothing may differ
    launches     what a step asks of the GPU one by one: kernels, copies, graphs; and how often it waits
    memory       of one process with a replay of 10,000 transitions: what its tensors take at the most, and
                 what torch has reserved
    speed        steps a second beside Stable-Baselines3's, as benchmarks/throughput.py measures them

Every training has a process of its own, and all of a table start at once, as most of the time goes into
compiling. It was made for eight minutes on 16 cores, and has not been run on a GPU yet. What is measured is
written at once. If torch leaves out a CUDA graph, or does not compile a function, the script ends.

Without a GPU, `--device cpu` tries the script itself.
"""

import contextlib
import io
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
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
WAIT = "Synchronize"
GOALS = "Goals: 2,000 steps/s with one seed at K = 4 on Hopper, and 20,000 over 16 seeds."


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
    """A quiet run, whose actions are random, so that rounding does not lead it elsewhere. Ends the program if
    it was to be compiled and was not."""
    torch._inductor.config.triton.cudagraph_or_error = args.device == "cuda"
    given: dict[str, Any] = {"env_id": args.envs[0], "k": 4, "num_seeds": 2, "device": args.device}
    given |= {"random_steps": 10**9, "learning_starts": START, "eval_every": 10**9, "eval_episodes": 1}
    given |= {"run_dir": run_dir, "total_timesteps": steps}
    chosen = pmoe_sac.Args(**given | options)
    with contextlib.redirect_stdout(io.StringIO()):
        paths = pmoe_sac.train(chosen)
    compiled = json.loads((paths[0] / "config.json").read_text())["compiled"]
    if not compiled and chosen.compile != "off":
        sys.exit("error: it was not compiled; pmoe run sac says why")
    return paths


def learnt(path: Path) -> dict[str, torch.Tensor]:
    """The networks of a finished run"""
    (file,) = path.glob("checkpoint/[0-9]*.pt")
    state = torch.load(file, weights_only=True, map_location="cpu")["learnt"]
    return {name: x for name, x in state.items() if x.is_floating_point() and "adam" not in name}


def difference(paths: list[Path], others: list[Path]) -> float:
    """The largest of two runs' networks over all seeds, relative to the largest weight of its tensor; NaN if
    there is one"""
    found = []
    for path, other in zip(paths, others, strict=True):
        theirs = learnt(other)
        for name, x in learnt(path).items():
            y = theirs[name]
            found.append((x - y).abs().max() / y.abs().max().clamp(min=1e-6))
    return torch.stack(found).max().item()


def new_process() -> ProcessPoolExecutor:
    """A process of its own, which inherits nothing of a GPU"""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def same(args: Args) -> list[str]:
    lines = ["| networks after 50 updates | largest relative difference |", "|---|---:|"]
    half = START + UPDATES // 2
    whole = START + UPDATES
    with tempfile.TemporaryDirectory() as folder:
        futures = {}
        for compile in ("off", "on", "graph"):
            run_dir = f"{folder}/{compile}"
            futures[compile] = new_process().submit(train, run_dir, args, whole, compile=compile)
        new_process().submit(train, f"{folder}/resumed", args, half).result()
        again = new_process().submit(train, f"{folder}/resumed", args, whole, resume=True)
        runs = {compile: future.result() for compile, future in futures.items()}
        for compile in ("on", "graph"):
            found = difference(runs[compile], runs["off"])
            lines.append(f"| `--compile {compile}` and `off` | {found:.1e} |")
        lines.append(f"| resumed half-way, and not | {difference(again.result(), runs['graph']):.1e} |")
    return lines


class Enough(Exception):
    """Ends a training when its steps have been looked at."""


def launches(args: Args, k: int, seeds: int) -> tuple[Counter, float, float]:
    """Calls of the GPU in a step, by their names, on average over some; MB allocated and reserved"""
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
        for call in (*CALLS, WAIT):
            if event.key.startswith("cu") and call in event.key:
                counts[call] += event.count / PROFILED
    if args.device == "cpu":
        return counts, 0.0, 0.0
    return counts, torch.cuda.max_memory_allocated() / 1e6, torch.cuda.max_memory_reserved() / 1e6


def table_of_launches(args: Args) -> list[str]:
    head = ["a step", *CALLS, "together", "waits", "MB allocated", "MB reserved"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    futures: dict[tuple[int, int], Future] = {}
    for k in args.ks:
        for seeds in sorted({min(args.seeds), max(args.seeds)}):
            futures[k, seeds] = new_process().submit(launches, args, k, seeds)
    for (k, seeds), future in futures.items():
        counts, allocated, reserved = future.result()
        cells = [f"K = {k}, {seeds} seeds"]
        cells += [f"{counts[call]:.3g}" for call in CALLS]
        cells.append(f"{sum(counts[call] for call in CALLS):.3g}")
        cells += [f"{counts[WAIT]:.3g}", f"{allocated:.0f}", f"{reserved:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
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
    if find_spec("stable_baselines3") is None:
        sys.exit('error: Stable-Baselines3 is missing; pip install -e ".[bench]"')
    names = ("torch", "gymnasium", "mujoco", "stable_baselines3")
    versions = ", ".join(f"{name} {version_of(name)}" for name in names if version_of(name))
    lines = [f"{processor()}; {versions}", "", GOALS, ""]

    def show(part: list[str]) -> None:
        lines.extend([*part, ""])
        print("\n".join(part), flush=True)
        # What there is stays, should the machine be taken away.
        args.out.write_text("\n".join(lines))

    show(same(args))
    show(table_of_launches(args))
    for env in args.envs:
        show(speed(args, env))


if __name__ == "__main__":
    main(tyro.cli(Args))
