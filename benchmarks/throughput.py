"""Environment steps a second of PMOE-SAC or PMOE-PPO beside other people's: same task, same settings, in alternation.

    pip install -e ".[bench]"
    python benchmarks/throughput.py --env Hopper-v4 --repeats 5
    python benchmarks/throughput.py --algo ppo --env HalfCheetah-v4 --repeats 5

Every method trains in a process of its own, which compiles and warms up and then waits. In every repeat each of them
runs alone for some seconds, one after the other, beside a measurement of the machine's matrix products: the machines
are noisy, so look at the ratios, which are taken repeat by repeat. The shares of time are the host's; on a GPU most of
the update shows where the next action waits for it. A step of SAC is one environment step of one seed and one gradient
step of networks of 256-256; of PPO one environment step and its share of 20 passes over every 2,000 of them, networks
of 64-64, observations and rewards normalised. `bound` is the speed at which SAC's matrix products alone would run.
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
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from pmoe import pmoe_ppo, pmoe_sac


@dataclass
class Args:
    algo: Literal["sac", "ppo"] = "sac"
    env: str = "Hopper-v4"  # Gymnasium environment
    batch_size: int | None = None  # transitions of an update; default: SAC 256, PPO 64
    ks: tuple[int, ...] = (1, 4, 16)  # numbers of primitives
    seeds: tuple[int, ...] = (1, 2, 8)  # seeds side by side
    compile: tuple[str, ...] = ("off", "graph")  # pmoe's --compile; on a GPU: off on graph
    peers: tuple[str, ...] = ("sb3", "sbx")  # the peers, those not installed are left out
    pairs: bool = True  # also two processes of one seed and one thread each
    env_backend: str = "gymnasium"  # pmoe's --env-backend
    seconds: float = 4.0  # of a measurement
    repeats: int = 5  # alternations
    out: Path = Path("throughput")  # OUT.csv: every measurement, OUT.md: the table
    worker: str = ""  # what one of the processes runs


PARTS = ("environment", "acting", "sampling", "update", "logging")


def work(method: dict, args: Args) -> None:
    """Trains for ever; at every line that comes in goes on for `seconds`, and prints steps/s and shares of time."""
    spent, state = (
        dict.fromkeys(PARTS, 0.0),
        {"steps": 0, "first": 0, "until": 0.0, "began": 0.0, "timing": False},
    )

    def timed(part: str, function):
        def call(*arguments, **kwargs):
            if state["timing"]:  # within another part, as the eager update acts
                return function(*arguments, **kwargs)
            began, state["timing"] = time.perf_counter(), True
            result = function(*arguments, **kwargs)
            spent[part] += time.perf_counter() - began
            state["timing"] = False
            return result

        return call

    def step() -> None:
        state["steps"] += 1  # PPO: of whole rollouts, each with what is learnt from it
        begins = args.algo == "sac" or state["steps"] % 2000 == 1
        if state["steps"] < 300 or not begins or time.perf_counter() < state["until"]:
            return
        seconds, steps = time.perf_counter() - state["began"], state["steps"] - state["first"]
        shares = {part: x / seconds for part, x in spent.items()}
        print(json.dumps({"speed": steps / seconds} | shares), file=out, flush=True)
        if not sys.stdin.readline():  # the parent is gone
            sys.exit()
        spent.update(dict.fromkeys(PARTS, 0.0))
        state.update(
            first=state["steps"], began=time.perf_counter(), until=time.perf_counter() + args.seconds
        )

    warnings.filterwarnings("ignore")
    out, sys.stdout = sys.stdout, sys.stderr  # what the methods print is not for the parent
    if method["name"] == "pmoe":
        compiler, module = torch.compile, {"sac": pmoe_sac, "ppo": pmoe_ppo}[args.algo]
        part = {"update": "update", "draw": "acting"}
        torch.compile = lambda function, **options: timed(
            part[function.__name__], compiler(function, **options)
        )
        if method["compile"] == "off":
            for name, of in part.items():
                setattr(module.Agent, name, timed(of, getattr(module.Agent, name)))
        if args.algo == "sac":
            module.ReplayBuffer.sample = timed("sampling", module.ReplayBuffer.sample)
        torch.randn, torch.rand = timed("sampling", torch.randn), timed("sampling", torch.rand)
        module.Runs.record = timed("logging", module.Runs.record)
        module.SummaryWriter.add_scalar = timed("logging", module.SummaryWriter.add_scalar)
        move = timed("environment", module.Envs.step)
        module.Envs.step = lambda *arguments: (step(), move(*arguments))[1]
        settings = {
            "env_id": args.env,
            "k": method["k"],
            "num_seeds": method["seeds"],
            "compile": method["compile"],
        }
        settings |= {"env_backend": args.env_backend, "eval_every": 10**9, "checkpoint_every": 10**9}
        own = {
            "batch_size": batch_size(args),
            "learning_starts": 200,
            "random_steps": 200,
            "buffer_size": 10**5,
        }
        own = own if args.algo == "sac" else {"minibatch_size": batch_size(args), "total_timesteps": 10**9}
        with tempfile.TemporaryDirectory() as run_dir:
            module.train(module.Args(**settings, **own, eval_episodes=1, run_dir=run_dir))
    else:
        module = import_module({"sb3": "stable_baselines3", "sbx": "sbx"}[method["name"]])
        settings = {"batch_size": batch_size(args), "seed": 1}
        if args.algo == "sac":
            settings |= {"learning_starts": 200, "learning_rate": 1e-3, "ent_coef": 0.2, "buffer_size": 10**5}
            settings |= {"policy_kwargs": {"net_arch": [256, 256]}}
            model = module.SAC("MlpPolicy", gym.make(args.env), **settings)
        else:
            vector = import_module("stable_baselines3.common.vec_env")  # SBX builds on it
            env = vector.VecNormalize(vector.DummyVecEnv([lambda: gym.make(args.env)]))
            settings |= {"n_steps": 2000, "n_epochs": 20, "policy_kwargs": {"net_arch": [64, 64]}}
            model = module.PPO("MlpPolicy", env, **settings)
        model.learn(10**9, callback=lambda *_: step() or True)


def batch_size(args: Args) -> int:
    return args.batch_size or {"sac": 256, "ppo": 64}[args.algo]


def flops(k: int, args: Args) -> int:
    """Floating-point operations of the matrix products of one seed's update"""
    env = gym.make(args.env)
    obs_size, size = env.observation_space.shape[0], env.action_space.shape[0]
    agent = pmoe_sac.Agent(
        pmoe_sac.Args(k=k), obs_size, *np.float32([[-1] * size, [1] * size]), [torch.Generator()]
    )
    batch = [torch.zeros(1, batch_size(args), n) for n in (obs_size, size, obs_size, 1, 1)]
    noise = torch.zeros(1, 2 * batch_size(args), k, size), torch.zeros(1, 2 * batch_size(args), 1)
    with FlopCounterMode(display=False) as counter:
        agent.update(*batch, *noise)
    return counter.get_total_flops()


def matrix_products() -> float:
    """Floating-point operations a second of products of this machine's default device"""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(1024, 1024, device=device)
    for n in (3, 20):
        began = time.perf_counter()
        for _ in range(n):
            y = x @ x
        y.sum().item()
    return n * 2 * 1024**3 / (time.perf_counter() - began)


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval"""
    means = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    mean, low, high = (f"{x:.0f}" if x >= 1000 else f"{x:.3g}" for x in (values.mean(), low, high))
    return f"{mean} ({low} to {high})"


def main(args: Args) -> None:
    threads = torch.get_num_threads()
    methods = [{"name": name, "threads": threads, "copies": 1} for name in args.peers if has(name)]
    for k in args.ks:
        for seeds in args.seeds:
            one = {"name": "pmoe", "threads": threads, "copies": 1, "k": k, "seeds": seeds}
            methods += [one | {"compile": how} for how in (args.compile if seeds == 1 else args.compile[-1:])]
        if args.pairs:
            methods.append(one | {"compile": args.compile[-1], "seeds": 1, "threads": 1, "copies": 2})
    for method in methods:
        environ = os.environ | {"OMP_NUM_THREADS": str(method["threads"])}
        if method["threads"] == 1:
            environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        flags = f"--algo {args.algo} --env {args.env} --batch-size {batch_size(args)} --seconds {args.seconds}".split()
        command = [
            sys.executable,
            __file__,
            *flags,
            "--env-backend",
            args.env_backend,
            "--worker",
            json.dumps(method),
        ]
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.DEVNULL,
            "text": True,
        }
        method["processes"] = [
            subprocess.Popen(command, env=environ, **pipes) for _ in range(method["copies"])
        ]
        for process in method["processes"]:
            process.stdout.readline()  # compiled and warm
    rows = []
    for repeat in range(args.repeats):
        peak = matrix_products()
        for i, method in enumerate(methods):
            for process in method["processes"]:
                print(file=process.stdin, flush=True)
            reports = [json.loads(process.stdout.readline() or "null") for process in method["processes"]]
            if None in reports:
                sys.exit(f"{label(method)} failed: {' '.join(method['processes'][0].args)} says why")
            speed = sum(report["speed"] for report in reports) * method.get("seeds", 1)
            rows.append({"repeat": repeat, "method": i, "label": label(method), "steps_per_second": speed})
            rows[-1] |= {"matrix_products": peak} | {part: reports[0][part] for part in PARTS}
    for method in methods:
        for process in method["processes"]:
            process.stdin.close()
    with open(args.out.with_suffix(".csv"), "w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report(methods, rows, args)


def has(name: str) -> bool:
    return find_spec({"sb3": "stable_baselines3", "sbx": "sbx"}[name]) is not None


def label(method: dict) -> str:
    if method["name"] != "pmoe":
        return {"sb3": "Stable-Baselines3", "sbx": "SBX"}[method["name"]]
    seeds = (
        "2 processes of 1 thread"
        if method["copies"] == 2
        else f"{method['seeds']} seed{'s'[: method['seeds'] > 1]}"
    )
    how = {"off": ", eager", "on": ", compiled", "graph": ""}[method["compile"]]
    return f"pmoe, K = {method['k']}, {seeds}{how}"


def report(methods: list[dict], rows: list[dict], args: Args) -> None:
    speeds = np.array(
        [[row["steps_per_second"] for row in rows if row["method"] == i] for i in range(len(methods))]
    )
    head = ["method", "steps/s", *(f"x {label(m)}" for m in methods if m["name"] != "pmoe")]
    head += [*["of the bound"] * (args.algo == "sac"), *PARTS, "the rest"]
    lines = []
    for i, method in enumerate(methods):
        cells = [label(method), interval(speeds[i])]
        cells += [interval(speeds[i] / speeds[j]) for j, peer in enumerate(methods) if peer["name"] != "pmoe"]
        mine = [row for row in rows if row["method"] == i]
        if method["name"] == "pmoe":
            if args.algo == "sac":
                bound = np.mean([row["matrix_products"] for row in mine]) / flops(method["k"], args)
                cells.append(f"{speeds[i].mean() / bound:.0%}")
            parts = [np.mean([row[part] for row in mine]) for part in PARTS]
            cells += [f"{x:.0%}" for x in (*parts, 1 - sum(parts))]
        else:
            cells += [""] * (len(head) - len(cells))
        lines.append(cells)
    names = ("torch", "gymnasium", "mujoco", "stable_baselines3", "sbx-rl")
    versions = ", ".join(f"{name} {version(name)}" for name in names if version(name))
    peak = np.mean([row["matrix_products"] for row in rows]) / 1e9
    title = f"{args.algo.upper()}, {args.env}, batch {batch_size(args)}, {processor()}, {torch.get_num_threads()} threads, "
    title += f"{peak:.0f} GFLOP/s in matrix products, {versions}; {args.repeats} alternations of {args.seconds:g} s, "
    title += "mean and 95 % interval"
    table = Table(*head, title=title)
    for cells in lines:
        table.add_row(*cells)
    Console(width=max(Console().width, 220)).print(table)
    text = [title, "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    text += ["| " + " | ".join(cells) + " |" for cells in lines]
    args.out.with_suffix(".md").write_text("\n".join(text) + "\n")


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    work(json.loads(arguments.worker), arguments) if arguments.worker else main(arguments)
