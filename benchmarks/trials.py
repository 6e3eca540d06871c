"""What was tried for speed and is not in pmoe: each trial beside what is, in turn, in one process.

    python benchmarks/trials.py --ks 1 4 --repeats 10
    OMP_NUM_THREADS=1 python benchmarks/trials.py

update        PMOE-SAC's compiled update, with its sampling and noise
  bfloat16    the same with matrix products in bfloat16, where the processor has them
  flat Adam   the same with Adam's moments in one vector, and gradients put together into another
environments  a step of S environments, one after the other
  threads     the same in as many threads as there are cores

The table has milliseconds: means and 95 % bootstrap intervals over the repeats, and ratios to the first row
of the group, taken repeat by repeat: above 1 a trial is slower.
"""

import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from bfloat16_gradients import multiplies_in_bfloat16
from rich.console import Console
from rich.table import Table
from throughput import interval, processor

from pmoe import pmoe_sac


@dataclass
class Args:
    env: str = "Hopper-v4"  # Gymnasium environment
    ks: tuple[int, ...] = (1, 4)  # numbers of primitives
    batch_size: int = 256  # transitions of an update
    seeds: tuple[int, ...] = (8, 16)  # numbers of environments
    updates: int = 50  # of a measurement
    repeats: int = 10  # alternations


class FlatAdam(torch.nn.Module):
    """pmoe_sac.Adam, but all parameters' moments are one vector, and so are their gradients"""

    mean: torch.Tensor
    square: torch.Tensor
    powers: torch.Tensor

    def __init__(self, parameters, learning_rate: float):
        super().__init__()
        self.learnt = list(parameters)
        self.learning_rate = learning_rate
        self.sizes = [parameter.numel() for parameter in self.learnt]
        self.register_buffer("mean", torch.zeros(sum(self.sizes)))
        self.register_buffer("square", torch.zeros(sum(self.sizes)))
        self.register_buffer("powers", torch.ones(2, dtype=torch.float64))  # 0.9**step and 0.999**step

    def step(self, loss: torch.Tensor) -> None:
        gradients = torch.autograd.grad(loss.sum(), self.learnt)
        with torch.no_grad():
            gradient = torch.cat([x.flatten() for x in gradients])
            power1, power2 = self.powers
            power1.mul_(0.9)
            power2.mul_(0.999)
            self.mean.lerp_(gradient, 1 - 0.9)
            self.square.lerp_(gradient.square(), 1 - 0.999)
            root = (self.square / (1 - power2)).sqrt() + 1e-8
            steps = self.learning_rate * self.mean / (1 - power1) / root
            for parameter, step in zip(self.learnt, steps.split(self.sizes)):
                parameter.sub_(step.view_as(parameter))


def compiled_update(k: int, args: Args, envs: pmoe_sac.Envs, adam=pmoe_sac.Adam) -> Callable[[], object]:
    """PMOE-SAC's update of one seed, compiled as its training loop compiles it"""
    rng = pmoe_sac.Philox([1])
    kept = pmoe_sac.Adam
    pmoe_sac.Adam = adam  # type: ignore[misc]
    agent = pmoe_sac.Agent(pmoe_sac.Args(k=k), envs.obs_size, envs.action_size, rng)
    pmoe_sac.Adam = kept  # type: ignore[misc]
    buffer: Any = pmoe_sac.ReplayBuffer(1000, envs.obs_size, envs.action_size, rng)
    buffer.rows.normal_()
    buffer.size.fill_(1000)

    def learn():
        batch = buffer.sample(args.batch_size)
        return agent.update(batch, *rng.noise(2 * args.batch_size, agent.draws, envs.action_size))

    return torch.compile(learn, fullgraph=True, dynamic=False)


def in_bfloat16(update: Callable[[], object]) -> Callable[[], object]:
    def call():
        torch.set_float32_matmul_precision("medium")
        update()
        torch.set_float32_matmul_precision("highest")

    return call


def steps_in_threads(envs: pmoe_sac.Envs, pool: ThreadPoolExecutor) -> Callable[[], object]:
    """Moves all environments, each call of `step` in a thread of the pool."""
    action = np.zeros(envs.action_size)

    def step():
        return list(pool.map(lambda i: envs.call_step(i, action), range(envs.n)))

    return step


def steps_in_turn(envs: pmoe_sac.Envs) -> Callable[[], object]:
    action = np.zeros(envs.action_size)
    return lambda: [envs.call_step(i, action) for i in range(envs.n)]


def measured(calls: dict[str, Callable[[], object]], args: Args) -> dict[str, np.ndarray]:
    """Milliseconds of each call, one number a repeat; they take turns"""
    for call in calls.values():
        for _ in range(5):  # compile, warm up
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(args.updates):
                call()
            found[name].append(1000 * (time.perf_counter() - began) / args.updates)
    return {name: np.array(times) for name, times in found.items()}


def main(args: Args) -> None:
    warnings.filterwarnings("ignore")
    torch._dynamo.config.trace_autograd_ops = True
    pmoe_sac.keep_freed_memory()
    threads = torch.get_num_threads()
    title = (
        f"{args.env}, batch {args.batch_size}; {processor()}, {threads} threads; torch {torch.__version__}"
    )
    table = Table("what", "ms", "x the first", title=title)

    def add(calls: dict[str, Callable[[], object]]) -> None:
        times = measured(calls, args)
        first = next(iter(times.values()))
        for name, found in times.items():
            table.add_row(name, interval(found), interval(found / first))
        table.add_section()

    envs = pmoe_sac.Envs(args.env, 1)
    for k in args.ks:
        calls = {f"update, K = {k}": compiled_update(k, args, envs)}
        if multiplies_in_bfloat16():
            calls["  bfloat16"] = in_bfloat16(compiled_update(k, args, envs))
        calls["  flat Adam"] = compiled_update(k, args, envs, FlatAdam)
        add(calls)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for n in args.seeds:
            envs = pmoe_sac.Envs(args.env, n)
            envs.start(range(n))
            add({f"{n} environments": steps_in_turn(envs), "  threads": steps_in_threads(envs, pool)})
    Console(width=max(Console().width, 120)).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
