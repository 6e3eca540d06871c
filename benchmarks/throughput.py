"""Environment steps a second of PMOE-SAC or PMOE-PPO beside other people's: same task, same settings.

    pip install -e ".[bench]"
    python benchmarks/throughput.py --env Hopper-v4 --repeats 5
    python benchmarks/throughput.py --algo ppo --env HalfCheetah-v4 --num-envs 4 --repeats 5

Every method trains in a process of its own, which compiles and warms up and then waits. In every repeat each
of them runs alone for some seconds, one after the other, beside a measurement of the machine's matrix
products. Machines are noisy: look at the ratios, which are taken repeat by repeat. Before it begins it waits
for a quiet machine, and says so where there was none. The shares of time are the host's; on a GPU most of the
update shows where the next action waits for it. The update samples its batch and its noise.

A step of SAC is one environment step of one seed and one gradient step of networks of 256-256; of PPO one
environment step and its share of 20 passes over every 2,000 of them, networks of 64-64, observations and
rewards normalised. `bound` is the speed at which SAC's matrix products alone would run.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TextIO

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from pmoe import pmoe_ppo, pmoe_sac
from pmoe.envs.suites import version_of


@dataclass
class Args:
    algo: Literal["sac", "ppo"] = "sac"
    env: str = "Hopper-v4"  # Gymnasium environment
    batch_size: int | None = None  # transitions of an update; default: SAC 256, PPO 64
    num_envs: int = 1  # PPO's environments of each seed; must divide 2,000
    ks: tuple[int, ...] = (1, 4, 16)  # numbers of primitives
    seeds: tuple[int, ...] = (1, 2, 8)  # seeds side by side
    compile: tuple[str, ...] = ("off", "graph")  # pmoe's --compile; on a GPU: off on graph
    peers: tuple[str, ...] = ("sb3", "sbx")  # the peers, those not installed are left out
    pairs: bool = True  # also two processes of one seed and one thread each
    warm: int = 3000  # steps of each seed before the first measurement: later ones may take longer
    seconds: float = 4.0  # of a measurement
    repeats: int = 5  # alternations
    patience: float = 10.0  # minutes to wait for a quiet machine
    out: Path = Path("throughput")  # OUT.csv: every measurement, OUT.md: the table
    worker: str = ""  # what one of the processes runs


@dataclass
class Method:
    """What one or more processes train"""

    name: str  # pmoe, sb3 or sbx
    threads: int
    k: int = 1
    seeds: int = 1
    compile: str = ""
    copies: int = 1  # processes

    @property
    def label(self) -> str:
        if self.name != "pmoe":
            return PEERS[self.name].label
        how = {"off": ", eager", "on": ", compiled", "graph": ""}[self.compile]
        if self.copies > 1:
            seeds = f"{self.copies} processes of 1 thread"
        elif self.seeds > 1:
            seeds = f"{self.seeds} seeds"
        else:
            seeds = "1 seed"
        return f"pmoe, K = {self.k}, {seeds}{how}"


@dataclass
class Peer:
    label: str
    module: str


PEERS = {"sb3": Peer("Stable-Baselines3", "stable_baselines3"), "sbx": Peer("SBX", "sbx")}
PARTS = ("environment", "acting", "update", "logging")
QUIET = 0.3  # processors that others may use
ROLLOUT = 2000  # steps of PPO
NEVER = 10**9


# ----------------------------------------------------------------------------- one process that trains


class Meter:
    """Counts the steps of a training that never ends, and the time that each part of it takes. Whenever a
    line comes in, it measures for some seconds and prints steps a second and shares of time."""

    def __init__(self, args: Args, out: TextIO):
        self.args = args
        self.out = out
        self.steps = 0
        self.until = 0.0
        self.inside = False
        self.begin()

    def begin(self) -> None:
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.first = self.steps
        self.began = time.perf_counter()

    def timed(self, part: str, function):
        def call(*arguments, **kwargs):
            if self.inside:  # another part, as the eager update acts
                return function(*arguments, **kwargs)
            self.inside = True
            began = time.perf_counter()
            result = function(*arguments, **kwargs)
            self.spent[part] += time.perf_counter() - began
            self.inside = False
            return result

        return call

    def patch(self, owner, name: str, part: str) -> None:
        function = getattr(owner, name)
        setattr(owner, name, self.timed(part, function))

    def count_step(self) -> None:
        self.steps += self.args.num_envs
        # Of PPO whole rollouts are measured, each with what is learnt from it
        whole = self.args.algo == "sac" or self.steps % ROLLOUT == self.args.num_envs % ROLLOUT
        if self.steps < self.args.warm or not whole or time.perf_counter() < self.until:
            return
        self.report()
        line = sys.stdin.readline()
        if not line:  # the parent is gone
            sys.exit()
        self.begin()
        self.until = self.began + self.args.seconds

    def report(self) -> None:
        seconds = time.perf_counter() - self.began
        figures = {part: spent / seconds for part, spent in self.spent.items()}
        figures["speed"] = (self.steps - self.first) / seconds
        print(json.dumps(figures), file=self.out, flush=True)


def work(method: Method, args: Args) -> None:
    """Trains for ever."""
    warnings.filterwarnings("ignore")
    meter = Meter(args, sys.stdout)
    sys.stdout = sys.stderr  # what the methods print is not for the parent
    if method.name == "pmoe":
        train_pmoe(method, args, meter)
    elif args.algo == "sac":
        train_peer_sac(method, args, meter)
    else:
        train_peer_ppo(method, args, meter)


def train_pmoe(method: Method, args: Args, meter: Meter) -> None:
    module: Any = {"sac": pmoe_sac, "ppo": pmoe_ppo}[args.algo]
    compiled = module.Runs.compiled
    parts = {"act": "acting", "draw": "acting", "learn": "update"}

    def timed_compiled(runs, *functions):
        fast = compiled(runs, *functions)
        return [meter.timed(parts[slow.__name__], f) for slow, f in zip(functions, fast, strict=True)]

    module.Runs.compiled = timed_compiled
    meter.patch(module.Runs, "record", "logging")
    meter.patch(module.SummaryWriter, "add_scalar", "logging")
    move = meter.timed("environment", module.Envs.step)

    def counted_step(*arguments, **kwargs):
        meter.count_step()
        return move(*arguments, **kwargs)

    module.Envs.step = counted_step
    with tempfile.TemporaryDirectory() as run_dir:
        module.train(module.Args(**pmoe_options(method, args), run_dir=run_dir))


def pmoe_options(method: Method, args: Args) -> dict[str, Any]:
    options: dict[str, Any] = {
        "env_id": args.env,
        "k": method.k,
        "num_seeds": method.seeds,
        "compile": method.compile,
        "eval_every": NEVER,
        "eval_episodes": 1,
        "checkpoint_every": NEVER,
        "total_timesteps": NEVER,
    }
    if args.algo == "ppo":
        options |= {"num_envs": args.num_envs, "num_steps": ROLLOUT // args.num_envs}
        # As the others have them
        return options | {"minibatch_size": batch_size(args), "networks": "separate"}
    options |= {"learning_starts": 200, "random_steps": 200, "buffer_size": 10**5}
    return options | {"batch_size": batch_size(args)}


def train_peer_sac(method: Method, args: Args, meter: Meter) -> None:
    module = import_module(PEERS[method.name].module)
    model = module.SAC(
        "MlpPolicy",
        gym.make(args.env),
        batch_size=batch_size(args),
        seed=1,
        learning_starts=200,
        learning_rate=1e-3,
        ent_coef=0.2,
        buffer_size=10**5,
        policy_kwargs={"net_arch": [256, 256]},
    )
    learn(model, meter)


def train_peer_ppo(method: Method, args: Args, meter: Meter) -> None:
    module = import_module(PEERS[method.name].module)
    vector = import_module("stable_baselines3.common.vec_env")  # SBX builds on it
    env = vector.DummyVecEnv([lambda: gym.make(args.env)] * args.num_envs)
    model = module.PPO(
        "MlpPolicy",
        vector.VecNormalize(env),
        batch_size=batch_size(args),
        seed=1,
        n_steps=ROLLOUT // args.num_envs,
        n_epochs=20,
        policy_kwargs={"net_arch": [64, 64]},
    )
    learn(model, meter)


def learn(model, meter: Meter) -> None:
    def callback(*_) -> bool:
        meter.count_step()
        return True

    model.learn(NEVER, callback=callback)


def batch_size(args: Args) -> int:
    return args.batch_size or {"sac": 256, "ppo": 64}[args.algo]


# --------------------------------------------------------------------------------------- the machine


class Counted(Exception):
    """Ends a training once its update's operations are counted."""


def flops(k: int, args: Args) -> int:
    """Floating-point operations of the matrix products of one seed's update"""
    update = pmoe_sac.Agent.update
    counter = FlopCounterMode(display=False)

    def counted(*arguments):
        with counter:
            update(*arguments)
        raise Counted

    method = Method("pmoe", threads=1, k=k, compile="off")
    pmoe_sac.Agent.update = counted  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as run_dir:
            pmoe_sac.train(pmoe_sac.Args(**pmoe_options(method, args), run_dir=run_dir))
    except Counted:
        pass
    finally:
        pmoe_sac.Agent.update = update  # type: ignore[method-assign]
    return counter.get_total_flops()


def load() -> float:
    """Processors in use over the last minute"""
    one_minute, _, _ = os.getloadavg()
    return one_minute


def wait_until_quiet(minutes: float) -> float:
    """Waits until nothing else computes, or as long as this; returns the load that is left"""
    until = time.monotonic() + 60 * minutes
    while load() > QUIET and time.monotonic() < until:
        time.sleep(5)
    return load()


def matrix_products(dtype=torch.float32) -> float:
    """Floating-point operations a second of products of this machine's default device"""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    n = 1024
    x = torch.randn(n, n, device=device).to(dtype)
    multiply(x, 3)  # warm up
    repeats = 20
    began = time.perf_counter()
    multiply(x, repeats)
    return repeats * 2 * n**3 / (time.perf_counter() - began)


def multiply(x: torch.Tensor, repeats: int) -> None:
    for _ in range(repeats):
        y = x @ x
    y.sum().item()  # waits for a GPU


def processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


# --------------------------------------------------------------------------------------- alternation


def chosen_methods(args: Args) -> list[Method]:
    threads = torch.get_num_threads()
    methods = [Method(name, threads) for name in args.peers if find_spec(PEERS[name].module)]
    for k in args.ks:
        for seeds in args.seeds:
            # Only one seed is tried in every way
            ways = args.compile if seeds == 1 else args.compile[-1:]
            methods += [Method("pmoe", threads, k, seeds, way) for way in ways]
        if args.pairs:
            methods.append(Method("pmoe", 1, k, 1, args.compile[-1], copies=2))
    return methods


def start(method: Method, args: Args) -> list[subprocess.Popen[str]]:
    """Its processes, which write a line once they are compiled and warm"""
    environ = os.environ | {"OMP_NUM_THREADS": str(method.threads)}
    if method.threads == 1:
        environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    command = [sys.executable, __file__, "--algo", args.algo, "--env", args.env]
    command += ["--batch-size", str(batch_size(args)), "--num-envs", str(args.num_envs)]
    command += ["--warm", str(args.warm), "--seconds", str(args.seconds)]
    command += ["--worker", json.dumps(vars(method))]
    processes = []
    for _ in range(method.copies):
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
    return processes


def read(process: subprocess.Popen[str]) -> dict[str, float]:
    """What it measured; ends the program if it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a process failed; this says why: {process.args!r}")
    return json.loads(line)


def ask(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    print(file=process.stdin, flush=True)


def measure(method: Method, processes: list[subprocess.Popen[str]]) -> dict[str, float]:
    """Steps a second of all its processes and seeds, and the first process's shares of time"""
    for process in processes:
        ask(process)
    reports = [read(process) for process in processes]
    speed = sum(report["speed"] for report in reports)
    shares = {part: reports[0][part] for part in PARTS}
    return {"steps_per_second": speed * method.seeds, **shares}


def main(args: Args) -> None:
    methods = chosen_methods(args)
    busy = wait_until_quiet(args.patience)
    half_products = matrix_products(torch.bfloat16)
    processes = [start(method, args) for method in methods]
    for group in processes:
        for process in group:
            read(process)
    rows: list[dict[str, Any]] = []
    for repeat in range(args.repeats):
        peak = matrix_products()
        for i, method in enumerate(methods):
            row = {"repeat": repeat, "method": i, "label": method.label, "matrix_products": peak}
            rows.append(row | measure(method, processes[i]))
    for group in processes:
        for process in group:
            process.kill()
    with open(args.out.with_suffix(".csv"), "w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report(methods, rows, heading(rows, half_products, busy, args), args)


# ---------------------------------------------------------------------------------------- the table


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval"""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(draws.mean(1), (0.025, 0.975))
    return f"{number(values.mean())} ({number(low)} to {number(high)})"


def number(x: float) -> str:
    return f"{x:.0f}" if x >= 1000 else f"{x:.3g}"


def report(methods: list[Method], rows: list[dict[str, Any]], title: str, args: Args) -> None:
    rows_of: list[list[dict[str, Any]]] = [[] for _ in methods]
    for row in rows:
        rows_of[row["method"]].append(row)
    speeds = [column(of_method, "steps_per_second") for of_method in rows_of]
    peers = [i for i, method in enumerate(methods) if method.name != "pmoe"]

    head = ["method", "steps/s"]
    head += [f"x {methods[i].label}" for i in peers]
    if args.algo == "sac":
        head.append("of the bound")
    head += [*PARTS, "the rest"]
    lines = []
    for i, method in enumerate(methods):
        cells = [method.label, interval(speeds[i])]
        cells += [interval(speeds[i] / speeds[peer]) for peer in peers]
        if method.name == "pmoe":
            cells += shares(method, rows_of[i], args)
        cells += [""] * (len(head) - len(cells))
        lines.append(cells)

    table = Table(*head, title=title)
    for cells in lines:
        table.add_row(*cells)
    Console(width=max(Console().width, 220)).print(table)

    rule = "|---" * len(head) + "|"
    text = [title, "", markdown(head), rule, *map(markdown, lines)]
    args.out.with_suffix(".md").write_text("\n".join(text) + "\n")


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


def markdown(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def shares(method: Method, rows: list[dict[str, Any]], args: Args) -> list[str]:
    """How near the bound it comes, and what its time goes to"""
    cells = []
    if args.algo == "sac":
        bound = column(rows, "matrix_products").mean() / flops(method.k, args)
        speed = column(rows, "steps_per_second").mean()
        cells.append(f"{speed / bound:.0%}")
    parts = [column(rows, part).mean() for part in PARTS]
    rest = 1 - sum(parts)
    return cells + [f"{share:.0%}" for share in [*parts, rest]]


def heading(rows: list[dict[str, Any]], half_products: float, busy: float, args: Args) -> str:
    names = ("torch", "gymnasium", "mujoco", "stable_baselines3", "sbx-rl")
    versions = [f"{name} {version_of(name)}" for name in names if version_of(name)]
    products = column(rows, "matrix_products") / 1e9
    slowest = products.min()
    fastest = products.max()
    half = half_products / 1e9
    said = [
        f"{args.algo.upper()}, {args.num_envs} x {args.env}, batch {batch_size(args)}",
        f"{processor()}, {torch.get_num_threads()} threads",
        f"GFLOP/s in matrix products: float32 {slowest:.0f} to {fastest:.0f}, bfloat16 {half:.0f}",
        ", ".join(versions),
        f"after {args.warm:,} steps, {args.repeats} alternations of {args.seconds:g} s",
        "mean and 95 % interval",
    ]
    if busy > QUIET:
        said.append(f"NOT a quiet machine: others used {busy:.1f} processors at the start")
    return "; ".join(said)


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    if arguments.num_envs > 1 and (arguments.algo == "sac" or ROLLOUT % arguments.num_envs):
        sys.exit(f"--num-envs is PPO's, and must divide {ROLLOUT}")
    if arguments.worker:
        work(Method(**json.loads(arguments.worker)), arguments)
    else:
        main(arguments)
