"""How far do products of matrices in bfloat16 move the gradients of a run of SAC or PMOE-SAC?

    pmoe run sac --k 4 --total-timesteps 50000
    python benchmarks/bfloat16_gradients.py runs/Hopper-v4/sac-k4/seed1

It takes networks and replay from the run's last checkpoint, and computes the gradients of the same batches
with the same random numbers twice: with products in float32, and in bfloat16 with sums in float32. A row for
each run and loss has

error     the root mean square of the difference, in percent of how far float32's gradient lies from its mean,
          which is the noise of drawing a batch
bias      the length of the mean difference, in percent of the mean gradient's; the squares of both are freed
          of what the noise adds to them. 0 where the rest is negative
winners   of the states, how many have another best primitive
Q         the root mean square of the difference of Q, in percent of its standard deviation over the states

The noise of a batch is that of its states and of the actions drawn in them. Gradients are those of the update
as written, not compiled. A processor whose products are the same with both settings is an error.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from throughput import processor
from torch import Tensor

from pmoe import pmoe_sac


@dataclass
class Args:
    runs: tyro.conf.Positional[tuple[Path, ...]]  # run directories of pmoe_sac.py, with their replays
    batches: int = 1000  # for each run


def multiplies_in_bfloat16() -> bool:
    """Whether products of matrices differ here between highest and medium precision"""
    x = torch.rand(256, 256)
    torch.set_float32_matmul_precision("highest")
    full = x @ x
    torch.set_float32_matmul_precision("medium")
    half = x @ x
    torch.set_float32_matmul_precision("highest")
    return not torch.equal(full, half)


def loaded(path: Path) -> tuple[pmoe_sac.Agent, pmoe_sac.ReplayBuffer]:
    """The agent (S = 1) of a run's last checkpoint, and its replay"""
    config = pmoe_sac.load(path / "config.json")
    replay = path / "checkpoint/replay.f32"
    if config["algo"] != pmoe_sac.ALGO or not replay.exists():
        sys.exit(f"error: {path} is not a run of pmoe_sac.py with its replay")
    options = pmoe_sac.Args(**config["args"])
    envs = pmoe_sac.Envs(options.env_id, 1)
    rng = pmoe_sac.Philox([options.seed])
    agent = pmoe_sac.Agent(options, envs.obs_size, envs.action_size, rng)
    for part in ("actor", "qf", "qf_target", "temperature"):
        agent.get_submodule(part).load_state_dict(pmoe_sac.load_part(path, part))
    rows = np.fromfile(replay, np.float32).reshape(1, -1, 2 * envs.obs_size + envs.action_size + 2)
    buffer: Any = pmoe_sac.ReplayBuffer(rows.shape[1], envs.obs_size, envs.action_size, rng)
    buffer.rows.copy_(torch.from_numpy(rows))
    buffer.size.fill_(buffer.capacity)
    return agent, buffer


def flat(loss: Tensor, module: torch.nn.Module) -> Tensor:
    """The gradient as one vector, in float64"""
    gradients = torch.autograd.grad(loss.sum(), list(module.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients]).double()


def compute(agent: pmoe_sac.Agent, batch: pmoe_sac.Batch, noise: Tensor, uniform: Tensor) -> list[Tensor]:
    """Gradients of an update, of critics and policy, and the smaller Q of each primitive's action (B, K)"""
    next_noise, noise = noise.chunk(2, 1)
    next_uniform, uniform = uniform.chunk(2, 1)
    alpha = agent.temperature().detach()
    critic_loss, _ = agent.critic_loss(batch, next_noise, next_uniform, alpha)
    policy_loss, _, _ = agent.policy_loss(batch.obs, noise, uniform, alpha)
    with torch.no_grad():
        action, _, _ = agent.propose(batch.obs, noise)
        q = agent.qf(batch.obs, action).amin(1).squeeze(0)
    return [flat(critic_loss, agent.qf), flat(policy_loss, agent.actor), q]


class Moments:
    """Mean and variance of a vector, summed over its entries"""

    def __init__(self):
        self.n = 0
        self.sum: Tensor | float = 0.0
        self.squares = 0.0

    def add(self, x: Tensor) -> None:
        self.n += 1
        self.sum = self.sum + x
        self.squares += x.square().sum().item()

    def mean_square(self) -> float:
        return self.squares / self.n

    def variance(self) -> float:
        mean = torch.as_tensor(self.sum) / self.n
        return (self.mean_square() - mean.square().sum().item()) * self.n / (self.n - 1)

    def square_of_mean(self) -> float:
        """Without what the variance adds to it, or 0"""
        return max(self.mean_square() - self.variance(), 0.0)


def measure(path: Path, batches: int) -> list[tuple[str, ...]]:
    """Rows of the table"""
    agent, buffer = loaded(path)
    losses = ("critics", "policy")
    gradients = {loss: Moments() for loss in losses}
    differences = {loss: Moments() for loss in losses}
    q_square = Moments()
    winners = 0.0
    qs = []
    for _ in range(batches):
        batch = buffer.sample(agent.args.batch_size)
        action_size = batch.action.shape[-1]
        noise = agent.rng.noise(2 * agent.args.batch_size, agent.draws, action_size)
        torch.set_float32_matmul_precision("highest")
        *full, full_q = compute(agent, batch, *noise)
        torch.set_float32_matmul_precision("medium")
        *half, half_q = compute(agent, batch, *noise)
        for loss, of_full, of_half in zip(losses, full, half):
            gradients[loss].add(of_full)
            differences[loss].add(of_half - of_full)
        q_square.add(half_q - full_q)
        winners += (half_q.argmax(-1) != full_q.argmax(-1)).float().mean().item() / batches
        qs.append(full_q)

    spread = torch.cat(qs).std().item()
    q_error = (q_square.mean_square() / qs[0].numel()) ** 0.5 / spread
    rows: list[tuple[str, ...]] = []
    for loss in losses:
        error = (differences[loss].mean_square() / gradients[loss].variance()) ** 0.5
        bias = (differences[loss].square_of_mean() / gradients[loss].square_of_mean()) ** 0.5
        rows.append((str(path), loss, f"{error:.2%}", f"{bias:.2%}", f"{winners:.2%}", f"{q_error:.2%}"))
    return rows


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    warnings.filterwarnings("ignore")
    if not multiplies_in_bfloat16():
        sys.exit("error: this processor does not multiply in bfloat16")
    title = f"{processor()}; torch {torch.__version__}; {args.batches} batches"
    table = Table("run", "loss", "error", "bias", "winners", "Q", title=title)
    for path in args.runs:
        for row in measure(path, args.batches):
            table.add_row(*row)
    Console(width=max(Console().width, 110)).print(table)


if __name__ == "__main__":
    main()
