"""MCP SAC: soft actor-critic whose policy is the product of K Gaussian primitives, each raised to a gate.

Peng et al., "MCP: Learning Composable Hierarchical Control with Multiplicative Compositional Policies",
arXiv 1905.09808. Ren et al., arXiv 2104.09122, compare PMOE with it. SAC is arXiv 1812.05905.

    policy      pi(u|s) proportional to prod_k N(u; mu_k, sigma_k^2)^w_k(s), a = tanh(u)
    gates       w_k in (0, 1), each a sigmoid of its own
    product     u ~ N(mu, s^2), 1 / s^2 = sum_k w_k / sigma_k^2, mu = s^2 sum_k w_k mu_k / sigma_k^2,
                in each dimension
    loss        alpha log pi(a|s) - Q(s, a), for primitives and gates alike                      SAC, eq. 7

The policy has one mode, a reparameterised sample and an exact log-density. With K = 1 the gate is held open,
w = 1, and this file is SAC. Departures: MCP's primitives are trained before and do not see the goal; here all
is learnt at once from one trunk, as in the comparison. s is at most e^2 times the widest sigma_k, so that
gates that are all shut do not make an endless Gaussian. Evaluation is by the mean, tanh(mu).

    python baselines/mcp_sac.py --env Hopper-v4 --k 4 --seed 1                  # one seed
    python baselines/mcp_sac.py --env Hopper-v4 --k 4 --seed 1 --num-seeds 5    # seeds 1 to 5, side by side
    python baselines/mcp_sac.py --env Hopper-v4 --k 1 --seed 1                  # plain SAC

The method comes first. Stop reading at the line THE SAME IN EVERY FILE: what follows it (environments,
replay, run directories, exact resume) is no part of the method.
Shapes: S seeds, B states of a batch, K primitives, O and A the sizes of an observation and an action.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import tyro
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid, softplus

# Names the run directories; a fork has its own name.
ALGO = Path(__file__).stem.replace("mcp_sac", "mcp-sac")


@dataclass
class Args:
    """MCP SAC: soft actor-critic whose policy is the product of K gated Gaussian primitives. K = 1 is SAC."""

    # The same in every file
    env_id: Annotated[str, tyro.conf.arg(aliases=["--env"])] = "Hopper-v4"  # Gymnasium ID[,option=value,...]
    k: int = 4  # number of primitives; in the paper 4, on HalfCheetah 2, on HumanoidStandup 10
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds trained side by side in this process: seed, seed + 1, ...
    total_timesteps: int = 1_000_000  # environment steps for each seed; a finished run can be made longer
    run_dir: str = "runs"  # folder for the runs: RUN_DIR/ENV/ALGO-kK[-TAG]/seedN
    tag: str = ""  # a name for this configuration; default: a hash of the options that you changed
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda if there is a GPU
    compile: Literal["graph", "on", "off"] = "graph"  # use torch.compile; graph: as a CUDA graph, on a GPU
    eval_every: int = 10_000  # steps between evaluations of the deterministic policy
    eval_episodes: int = 10  # episodes in each evaluation
    checkpoint_every: int = 10_000  # steps between checkpoints; Ctrl-C and SIGTERM also write one
    resume: bool = False  # go on from the last checkpoint
    overwrite: bool = False  # delete an earlier run with the same name first
    keep_replay: bool = True  # keep a finished run's replay, so that the run can be made longer
    track: bool = False  # also log to Weights & Biases; needs wandb

    # This algorithm
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # target networks: target <- (1 - tau) target + tau online, every update
    batch_size: int = 100  # transitions in each update
    buffer_size: int = 1_000_000  # transitions the replay buffer holds
    learning_rate: float = 1e-3  # Adam's learning rate, for policy, critics and temperature
    random_steps: int = 10_000  # steps with uniformly random actions, at the start
    learning_starts: int = 1_000  # steps before the first update; one update a step from then on
    alpha: float | Literal["auto"] = 0.2  # entropy temperature; auto: tuned to a target entropy of -dim(A)


# --------------------------------------------------------------------------------------------------- networks


class Actor(nn.Module):
    """Gated primitives on actions in [-1, 1]: a trunk, K Gaussians, K gates, tanh of the product"""

    # Copied from gating_sac.Actor.__init__
    def __init__(self, obs_size: int, action_size: int, k: int, generators: list[Generator]):
        super().__init__()
        self.k = k
        self.fc1 = Linear(obs_size, 256, generators)
        self.fc2 = Linear(256, 256, generators)
        self.mean_log_std = Linear(256, 2 * k * action_size, generators)
        self.router = Linear(256, k, generators)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """obs (S, B, O) -> mean (S, B, K, A), log_std (S, B, K, A), log_w (S, B, K)"""
        x = self.fc1(obs).relu()
        x = self.fc2(x).relu()
        mean, log_std = self.mean_log_std(x).unflatten(-1, (2, self.k, -1)).unbind(2)
        log_std = -5 + 3.5 * (log_std.tanh() + 1)  # in [-5, 2]
        log_w = logsigmoid(self.router(x))
        if self.k == 1:
            # One gate alone stays open. A product and not zeros, so that the router has a gradient.
            log_w = 0 * log_w
        return mean, log_std, log_w

    @torch.no_grad()
    def act(self, obs: Tensor, choose=None) -> Tensor:  # Copied from gating_sac.Actor.act
        """Mean action (S, B, A), or that of the primitive that `choose` makes of log_w (S, B, K)"""
        mean, log_std, log_w = self(obs.to(self.fc1.weight.device))
        if choose:
            mean = pick(mean, choose(log_w))
        else:
            mean, _ = compose(mean, log_std, log_w)
        return mean.squeeze(2).tanh().cpu()


class Critic(nn.Module):  # Copied from pmoe_sac.Critic
    """Twin Q-functions: 2S networks side by side, those of seed s numbered 2s and 2s + 1"""

    def __init__(self, input_size: int, generators: list[Generator]):
        super().__init__()
        twins = [generator for generator in generators for _ in range(2)]
        self.fc1 = Linear(input_size, 256, twins)
        self.fc2 = Linear(256, 256, twins)
        self.fc3 = Linear(256, 1, twins)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """obs (S, B, O), K actions per state (S, B, K, A) -> Q1 and Q2, (S, 2, B, K)"""
        S, B, K, _ = action.shape
        x = torch.cat([obs.unsqueeze(2).expand(S, B, K, -1), action], -1)
        x = x.flatten(1, 2).repeat_interleave(2, 0)  # (2S, B K, O + A)
        x = self.fc1(x).relu()
        x = self.fc2(x).relu()
        # This is fc3(x), written out: a batched matrix product with one column is slow.
        q = (x * self.fc3.weight.mT).sum(-1) + self.fc3.bias.squeeze(-1)
        return q.view(S, 2, B, K)


# --------------------------------------------------------------------------------------- densities and losses


def pick(x: Tensor, chosen: Tensor) -> Tensor:  # Copied from pmoe_sac.pick
    """x (S, B, K, A) of the chosen primitives (S, B, J) -> (S, B, J, A)"""
    return x.take_along_dim(chosen.unsqueeze(-1), 2)


def log_density(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:  # Copied from pmoe_sac.log_density
    """log N(u; mean, std^2), summed over the last axis"""
    log_sqrt_2pi = 0.9189385332046727
    z = (u - mean) / log_std.exp()
    return (-0.5 * z.square() - log_std - log_sqrt_2pi).sum(-1)


def compose(mean: Tensor, log_std: Tensor, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log sigma (S, B, 1, A) of the product of N_k^w_k: its precision is sum_k w_k / sigma_k^2"""
    log_precision = log_w.unsqueeze(-1) - 2 * log_std  # (S, B, K, A)
    mean = (log_precision.softmax(2) * mean).sum(2, keepdim=True)
    widest = log_std.amax(2, keepdim=True) + 2  # shut gates do not make an endless Gaussian
    log_std = -0.5 * log_precision.logsumexp(2, keepdim=True)
    return mean, torch.minimum(log_std, widest)


def tanh_log_det(u: Tensor) -> Tensor:  # Copied from pmoe_sac.tanh_log_det
    """log |d tanh(u) / du|, stable where tanh saturates"""
    log_2 = 0.6931471805599453
    return 2 * (log_2 - u - softplus(-2 * u))


def sac_loss(log_prob: Tensor, q: Tensor, alpha: Tensor) -> Tensor:  # Copied from gating_sac.sac_loss
    """alpha log pi(a|s) - Q(s, a) (SAC, eq. 7): (S, B, 1) -> (S, B)"""
    return (alpha * log_prob - q).squeeze(-1)


# ------------------------------------------------------------------------------------------------------ agent


class Batch(NamedTuple):  # Copied from pmoe_sac.Batch
    """B transitions of each seed, drawn from its replay; each field has the shape (S, B, .)"""

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    reward: Tensor
    terminated: Tensor


class Agent(nn.Module):
    """Networks and update of S seeds, which do not mix: losses are summed over seeds, Adam is elementwise."""

    # Copied from gating_sac.Agent.__init__
    def __init__(self, args: Args, obs_size: int, action_size: int, generators: list[Generator]):
        super().__init__()
        self.args = args
        self.draws = 1  # random vectors that the policy takes for a state
        self.actor = Actor(obs_size, action_size, args.k, generators)
        self.qf = Critic(obs_size + action_size, generators)
        self.qf_target = as_buffers(deepcopy(self.qf))  # they follow, and are not learnt

        self.target_entropy = -action_size
        self.tunes_alpha = args.alpha == "auto"
        alpha = 1.0 if self.tunes_alpha else max(args.alpha, 1e-30)
        log_alpha = torch.full((len(generators), 1, 1), alpha, device=generators[0].device).log()
        if self.tunes_alpha:
            self.log_alpha = nn.Parameter(log_alpha)
            self.alpha_adam = Adam([self.log_alpha], args.learning_rate)
        else:
            self.register_buffer("log_alpha", log_alpha)

        self.actor_adam = Adam(self.actor.parameters(), args.learning_rate)
        self.qf_adam = Adam(self.qf.parameters(), args.learning_rate)

    def propose(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A reparameterised action (S, B, 1, A), its log-density (S, B, 1), and log_w (S, B, K)"""
        mean, log_std, log_w = self.actor(obs)
        mean, log_std = compose(mean, log_std, log_w)
        u = mean + log_std.exp() * noise
        log_prob = log_density(u, mean, log_std) - tanh_log_det(u).sum(-1)
        return u.tanh(), log_prob, log_w

    # Copied from gating_sac.Agent.draw
    @torch.no_grad()
    def draw(self, obs: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """An action (S, B, 1, A) and its log-density (S, B, 1); the uniform numbers are not needed"""
        action, log_prob, _ = self.propose(obs, noise)
        return action, log_prob

    # Copied from pmoe_sac.Agent.critic_loss
    def critic_loss(self, batch: Batch, noise: Tensor, uniform: Tensor, alpha: Tensor) -> Tensor:
        """Squared error of both Q against r + gamma (min Q'(s', a') - alpha log p(a')), a' by `draw`"""
        with torch.no_grad():
            next_action, next_log_prob = self.draw(batch.next_obs, noise, uniform)
            next_q = self.qf_target(batch.next_obs, next_action).amin(1)  # (S, B, 1)
        # A time limit ends an episode and not the task: only terminations cut the future off.
        discount = self.args.gamma * (1 - batch.terminated)
        target = batch.reward + discount * (next_q - alpha * next_log_prob)
        q = self.qf(batch.obs, batch.action.unsqueeze(2))  # (S, 2, B, 1)
        return (q - target.unsqueeze(1)).square().mean((2, 3)).sum(1)

    def policy_loss(self, obs: Tensor, noise: Tensor, uniform: Tensor, alpha: Tensor) -> tuple:
        """Loss of the policy (S,), log-densities for the temperature (S, B, 1), figures (S,)"""
        action, log_prob, log_w = self.propose(obs, noise)
        q = self.qf(obs, action).amin(1)  # (S, B, 1)
        loss = sac_loss(log_prob, q, alpha).mean(-1)
        figures = {"losses/actor": loss, **routing_figures(log_w)}
        del figures["routing/entropy"]  # the gates are no distribution
        return loss, log_prob, figures

    def temperature_loss(self, log_prob: Tensor) -> Tensor:  # Copied from pmoe_sac.Agent.temperature_loss
        """alpha (entropy - its target), (S,), from log-densities (S, B, 1) (arXiv 1812.05905, eq. 18)"""
        excess = -(log_prob.detach() + self.target_entropy).mean((1, 2))
        return self.log_alpha.exp().flatten() * excess

    # Copied from pmoe_sac.Agent.update
    def update(self, batch: Batch, noise: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        """One step of all that is learnt; returns figures to log. The noise is drawn outside, for the next
        states and for the policy: normal (S, 2B, K, A), uniform (S, 2B, K). No branch depends on a tensor, so
        that torch.compile takes the whole update into one graph."""
        next_noise, noise = noise.chunk(2, 1)
        next_uniform, uniform = uniform.chunk(2, 1)
        alpha = self.log_alpha.detach().exp()

        # Critics
        critic_loss = self.critic_loss(batch, next_noise, next_uniform, alpha)
        self.qf_adam.step(critic_loss)

        # Policy
        policy_loss, log_prob, figures = self.policy_loss(batch.obs, noise, uniform, alpha)
        self.actor_adam.step(policy_loss)

        # Temperature
        if self.tunes_alpha:
            self.alpha_adam.step(self.temperature_loss(log_prob))

        # Targets
        online = [parameter.detach() for parameter in self.qf.parameters()]
        torch._foreach_lerp_(list(self.qf_target.buffers()), online, self.args.tau)

        figures |= {"losses/critic": critic_loss, "losses/alpha": alpha.flatten()}
        return {name: figure.detach() for name, figure in figures.items()}


# ---------------------------------------------------------------------------------------------- training loop


def train(args: Args) -> list[Path]:  # Copied from pmoe_sac.train
    """Trains the seeds side by side; returns their run directories. Ends the program with one line on bad
    input (status 2), numbers that are not finite (1), Ctrl-C (130), SIGTERM (143). OSError: a full disk."""
    check(args)
    device = torch.device("cuda" if torch.cuda.is_available() and args.device != "cpu" else "cpu")
    seeds = range(args.seed, args.seed + args.num_seeds)
    generators = [Generator(device).manual_seed(seed) for seed in seeds]
    envs = Envs(args.env_id, len(seeds))
    envs.start(seeds)
    agent = Agent(args, envs.obs_size, envs.action_size, generators)
    capacity = min(args.buffer_size, args.total_timesteps)
    buffer = ReplayBuffer(capacity, envs.obs_size, envs.action_size, generators)
    figures = {}

    with Runs(args, device, agent, envs, generators, buffer) as runs:  # new, or as at their last checkpoint
        update, draw = compiled(args, device, agent.update, agent.draw)
        for step in range(runs.step + 1, args.total_timesteps + 1):
            # Act
            obs = envs.obs.copy()  # (S, O)
            if step > args.random_steps:
                noise = draw_noise(generators, 1, agent.draws, envs.action_size)
                action, _ = draw(torch.tensor(obs, dtype=torch.float32, device=device).unsqueeze(1), *noise)
                action = action.flatten(1).cpu().numpy()  # (S, A)
            else:
                action = draw_uniform(generators, envs.action_size)
            if not np.isfinite(action).all():
                fail(f"an action is not finite at step {step}; the last checkpoint is from before that", 1)

            # Learn; before the environments move, so that on a GPU the two overlap
            if step > args.learning_starts:
                batch = buffer.sample(args.batch_size)
                noise = draw_noise(generators, 2 * args.batch_size, agent.draws, envs.action_size)
                figures = update(batch, *noise)

            # Step
            next_obs, reward, terminated, truncated = envs.step(action)
            buffer.add(obs, action, next_obs, reward, terminated)
            for s in np.flatnonzero(terminated | truncated):
                runs.record_episode(s, step)
                envs.reset(s)

            # Look: evaluation, progress, checkpoint, where they are due
            runs.end_of_step(step, figures)
        return runs.finish()


def load_actor(run_dir: str | Path) -> Actor:  # Copied from pmoe_sac.load_actor
    """The policy in a run's last checkpoint, S = 1, on the CPU; ends the program if there is none."""
    state = load_part(run_dir, "actor")
    obs_size = state["fc1.weight"].shape[1]
    k = state["router.weight"].shape[-1]
    action_size = state["mean_log_std.weight"].shape[-1] // (2 * k)
    actor = Actor(obs_size, action_size, k, [Generator()])
    actor.load_state_dict(state)
    return actor


# ============================================================================================================
# THE SAME IN EVERY FILE of the SAC family, letter for letter, and no part of the method: layers of many
# seeds, replay, environments, run directories, checkpoints. `python tests/test_copies.py --write` copies it.
# ============================================================================================================

import ast
import contextlib
import copy
import ctypes
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict, replace
from datetime import timedelta
from importlib import import_module, metadata, util
from typing import NoReturn

import gymnasium as gym
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from torch.utils.tensorboard import SummaryWriter


class Linear(nn.Module):
    """n linear layers side by side, (n, B, in) -> (n, B, out), each initialised by its generator"""

    def __init__(self, fan_in: int, fan_out: int, generators: list[Generator]):
        super().__init__()
        n = len(generators)
        device = generators[0].device
        self.weight = nn.Parameter(torch.empty(n, fan_in, fan_out, device=device))
        self.bias = nn.Parameter(torch.empty(n, 1, fan_out, device=device))
        bound = fan_in**-0.5
        for parameter in (self.weight, self.bias):
            for x, generator in zip(parameter.data, generators):
                x.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Adam(nn.Module):
    """Adam (arXiv 1412.6980) on tensors alone, so that torch.compile takes its step into the graph of the
    update, as it does not with torch.optim. Its state is in buffers, and so in the agent's state_dict."""

    def __init__(self, parameters, learning_rate: float):
        super().__init__()
        self.learnt = list(parameters)  # in a plain list: they belong to another module
        self.learning_rate = learning_rate
        for i, parameter in enumerate(self.learnt):
            self.register_buffer(f"mean{i}", torch.zeros_like(parameter))
            self.register_buffer(f"square{i}", torch.zeros_like(parameter))
            powers = torch.ones(2, dtype=torch.float64, device=parameter.device)  # 0.9**step and 0.999**step
            self.register_buffer(f"powers{i}", powers)

    def step(self, loss: Tensor) -> None:
        """A step down the gradient of the loss (S,), summed over the seeds"""
        gradients = torch.autograd.grad(loss.sum(), self.learnt)
        with torch.no_grad():
            for i, (parameter, gradient) in enumerate(zip(self.learnt, gradients)):
                mean = getattr(self, f"mean{i}")
                square = getattr(self, f"square{i}")
                power1, power2 = getattr(self, f"powers{i}")
                power1.mul_(0.9)
                power2.mul_(0.999)
                mean.lerp_(gradient, 1 - 0.9)
                square.lerp_(gradient.square(), 1 - 0.999)
                root = (square / (1 - power2)).sqrt() + 1e-8
                parameter.sub_(self.learning_rate * mean / (1 - power1) / root)


def as_buffers(module: nn.Module) -> nn.Module:
    """Makes buffers of a module's parameters, so that it has a state and nothing to learn."""
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            delattr(layer, name)
            layer.register_buffer(name, parameter.detach())
    return module


def routing_figures(log_w: Tensor) -> dict[str, Tensor]:
    """What TensorBoard shows of the router, (S,) each: its entropy, and how much it uses each primitive"""
    w = log_w.exp()
    figures = {"routing/entropy": -(w * log_w).sum(-1).mean(-1)}
    for k, usage in enumerate(w.mean(1).unbind(-1)):
        figures[f"routing/usage_{k}"] = usage
    return figures


def draw_uniform(generators: list[Generator], action_size: int) -> np.ndarray:
    """A uniformly random action of each seed, (S, A)"""
    uniform = [torch.rand(action_size, generator=g, device=g.device) for g in generators]
    return 2 * torch.stack(uniform).cpu().numpy() - 1


class ReplayBuffer:
    """The last `capacity` transitions of S seeds, a row each, with the fields of Batch side by side"""

    def __init__(self, capacity: int, obs_size: int, action_size: int, generators: list[Generator]):
        self.capacity = capacity
        self.generators = generators
        self.count = 0  # transitions ever added
        self.sizes = (obs_size, action_size, obs_size, 1, 1)
        self.rows = torch.empty(len(generators), capacity, sum(self.sizes), device=generators[0].device)
        self.row_bytes = 4 * sum(self.sizes)

    def add(self, *fields: np.ndarray) -> None:
        """A transition of each seed, in the order of Batch: arrays (S, .) or (S,), in one transfer"""
        row = torch.from_numpy(np.column_stack(fields).astype(np.float32))
        self.rows[:, self.count % self.capacity] = row.to(self.rows.device, non_blocking=True)
        self.count += 1

    def sample(self, batch_size: int) -> Batch:
        """Uniformly, with replacement, each seed from its own replay"""
        size = min(self.count, self.capacity)
        drawn = []
        for rows, generator in zip(self.rows, self.generators):
            index = torch.randint(size, (batch_size,), generator=generator, device=rows.device)
            drawn.append(rows[index])
        return Batch(*torch.stack(drawn).split(self.sizes, -1))

    def append_to(self, path: Path, s: int) -> int:
        """Appends what the file of seed s does not have yet; returns the bytes that it then has."""
        with open(path, "ab") as file:
            new = np.arange(file.tell() // self.row_bytes, self.count) % self.capacity
            self.rows[s, new].cpu().numpy().tofile(file)
            os.fsync(file)
        return self.row_bytes * self.count

    def read_from(self, path: Path, s: int, size: int) -> None:
        """Takes up the first `size` bytes of seed s's file, and cuts off what came after the checkpoint."""
        os.truncate(path, size)
        self.count = size // self.row_bytes
        forgotten = max(0, self.count - self.capacity)
        rows = np.fromfile(path, np.float32, offset=forgotten * self.row_bytes).reshape(-1, sum(self.sizes))
        place = np.arange(self.count - len(rows), self.count) % self.capacity
        self.rows[s, place] = torch.from_numpy(rows).to(self.rows.device)


# -------------------------------------------------------------------------------- the PPO family has this too

FREE = ("seed", "num_seeds", "total_timesteps", "run_dir", "device", "eval_every", "eval_episodes")
FREE += ("checkpoint_every", "resume", "overwrite", "keep_replay", "track")  # no say in what is learnt
HEADERS = {
    "episodes": "step,episodic_return,episodic_length\n",
    "eval": "step,return_mean,return_std,episodes\n",
}


def draw_noise(generators: list[Generator], n: int, draws: int, action_size: int) -> tuple[Tensor, Tensor]:
    """Normal (S, n, J, A) and uniform (S, n, J) numbers, each seed's from its own generator"""
    device = generators[0].device
    normal = [torch.randn((n, draws, action_size), generator=g, device=device) for g in generators]
    uniform = [torch.rand((n, draws), generator=g, device=device) for g in generators]
    return torch.stack(normal), torch.stack(uniform)


class Envs:
    """n environments of one task, whose actions are in [-1, 1], in units of their bounds. None resets itself:
    an episode's last observation is the true one."""

    def __init__(self, env_id: str, n: int, **kwargs):
        try:
            self.envs = [make_env(env_id, **kwargs) for _ in range(n)]
        except Exception as error:  # noqa: BLE001  environments raise anything
            fail(f"--env {env_id}: {error}")  # Gymnasium's messages name what is near
        obs_space = self.envs[0].observation_space
        self.action_space = self.envs[0].action_space
        for space in (obs_space, self.action_space):
            if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
                fail(f"--env {env_id} must have flat Boxes of observations and actions, but has {space}")
        low = self.action_space.low.astype(float)
        high = self.action_space.high.astype(float)
        self.scale = high / 2 - low / 2
        if not np.isfinite(self.scale).all() or not self.scale.all():
            fail(f"--env {env_id} must have finite, distinct action bounds, but has {self.action_space}")
        self.shift = low + self.scale
        self.n = n
        self.obs_size = obs_space.shape[0]
        self.action_size = len(low)
        self.obs = np.zeros((n, self.obs_size))
        self.returns = np.zeros(n)
        # With the random state at the last reset and the actions since then, an episode can be replayed.
        self.random_state = [{}] * n
        self.actions = [[] for _ in range(n)]

    def start(self, seeds) -> None:
        """Begins anew, each environment from its seed."""
        for i, (env, seed) in enumerate(zip(self.envs, seeds)):
            env.reset(seed=int(seed))  # gives it its generator
            self.reset(i)

    def reset(self, i: int, random_state: dict | None = None, actions=()) -> None:
        """The next episode of environment i, or an earlier one up to where it was"""
        generator = self.envs[i].unwrapped.np_random.bit_generator
        if random_state:
            generator.state = random_state
        self.random_state[i] = generator.state
        self.obs[i], _ = self.envs[i].reset()
        self.returns[i] = 0
        self.actions[i] = []
        for action in actions:
            self.step(action[None], [i])

    def step(self, action: np.ndarray, ids=None) -> tuple[np.ndarray, ...]:
        """Moves all, or `ids`: action (n, A) -> next_obs (n, O), reward, terminated, truncated (n,)"""
        ids = range(self.n) if ids is None else ids
        space = self.action_space
        scaled = (self.shift + self.scale * action).astype(space.dtype).clip(space.low, space.high)
        obs, reward, terminated, truncated, _ = zip(*[self.envs[i].step(a) for i, a in zip(ids, scaled)])
        for i, a in zip(ids, action):
            self.actions[i].append(a)
        self.obs[ids] = obs
        self.returns[ids] += reward
        return np.array(obs), np.array(reward), np.array(terminated), np.array(truncated)

    def evaluate(self, act, seeds, step: int) -> np.ndarray:
        """Undiscounted returns (S, E) of new episodes, others at every step; act: (S, E, O) -> (S, E, A)"""
        episodes = self.n // len(seeds)
        self.start(np.concatenate([random_seeds(episodes, seed, step) for seed in seeds]))
        running = np.arange(self.n)
        while len(running):
            obs = torch.as_tensor(self.obs, dtype=torch.float32).unflatten(0, (len(seeds), episodes))
            action = act(obs).flatten(0, 1).numpy()
            _, _, terminated, truncated = self.step(action[running], running)
            running = running[~(terminated | truncated)]
        return self.returns.reshape(len(seeds), episodes).copy()


def make_env(env_id: str, **kwargs) -> gym.Env:
    """gym.make of ID[,option=value,...]; values are numbers, True, False, None or text in single quotes"""
    with contextlib.suppress(ModuleNotFoundError):
        import_module("pmoe.envs")  # registers its environments, where pmoe is installed
    outside_quotes = r"(?=(?:[^']*'[^']*')*[^']*$)"  # an even number of quotes follows
    name, *options = re.split(rf",(?=\w+=){outside_quotes}", env_id)
    for option in options:
        key, _, value = option.partition("=")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise ValueError(
                f"{option} is not a number, True, False, None, or text in single quotes"
            ) from None
    return gym.make(name, **kwargs)


def random_seeds(n: int, *entropy: int) -> np.ndarray:
    """n seeds for environments, (n,)"""
    return np.random.SeedSequence(entropy).generate_state(n) // 2


def compiled(args: Args, device: torch.device, *functions) -> list:
    """The functions, by torch.compile where there is a C++ compiler, on a GPU as CUDA graphs"""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        # Keep freed memory: to get it from the system again costs page faults, which are slow.
        for option, value in ((-1, 2**30), (-3, 2**25), (-3, 2**30)):
            ctypes.CDLL(None).mallopt(option, value)
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    if args.compile == "off":
        return list(functions)
    if not compiler or not headers:
        print("not compiled, and therefore slower: a C++ compiler or Python.h is missing", flush=True)
        return list(functions)
    print("compiling at the first update, which takes up to a minute; --compile off skips it", flush=True)
    torch._dynamo.config.trace_autograd_ops = True  # takes the backward passes into the graph too
    options = {"triton.cudagraphs": device.type == "cuda" and args.compile == "graph"}
    return [torch.compile(f, fullgraph=True, dynamic=False, options=options) for f in functions]


def free_options(args: Args) -> tuple[str, ...]:
    """Options that have no say in what is learnt"""
    if getattr(args, "anneal_lr", False):  # the learning rate depends on how long the run is
        return tuple(name for name in FREE if name != "total_timesteps")
    return FREE


def run_paths(args: Args) -> list[Path]:
    """RUN_DIR/ENV/ALGO-kK[-TAG]/seedN of each seed; TAG is by default a hash of what is not the default"""
    elsewhere = (*free_options(args), "env_id", "k", "tag", "compile")  # in the path itself, or without a say
    changed = {}
    for name, value in vars(args).items():
        if name not in elsewhere and value != getattr(Args, name):
            changed[name] = value
    tag = args.tag.replace("/", "-")
    if changed and not tag:
        tag = hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6]
    method = f"{ALGO}-k{args.k}-{tag}".removesuffix("-")
    folder = Path(args.run_dir, args.env_id.replace("/", "-"), method)
    return [folder / f"seed{seed}" for seed in range(args.seed, args.seed + args.num_seeds)]


class Runs:
    """The run directories of S seeds: configuration, CSV files, TensorBoard, checkpoints; and the progress"""

    def __init__(self, args: Args, device, agent: nn.Module, envs: Envs, generators, buffer=None):
        """New directories, or everything as at the last checkpoint. Ends the program, having changed nothing,
        where that cannot be. Inside `with`, Ctrl-C and SIGTERM end training at a checkpoint."""
        self.args = args
        self.device = device
        self.agent = agent
        self.envs = envs
        self.generators = generators
        self.buffer = buffer  # of the SAC family
        self.paths = run_paths(args)
        self.seeds = range(args.seed, args.seed + args.num_seeds)
        self.eval_envs = Envs(args.env_id, args.num_seeds * args.eval_episodes)
        self.last_returns = {}  # of each seed
        self.last_evaluations = {}
        self.signals = []
        self.other_versions = set()  # runs beside these that an earlier version of this file has made

        for path in self.paths:
            self.refuse(path)
        saved = self.last_checkpoints() if args.resume else []
        self.step = saved[0]["step"] if saved else 0
        self.began = time.monotonic() - (saved[0]["wall_time"] if saved else 0.0)
        for s in range(len(self.paths)):
            if saved:
                self.restore(s, saved[s])
            else:
                self.create(s)

        print(*self.paths, f"on {device}, from step {self.step:,}", flush=True)
        if self.other_versions:
            others = ", ".join(sorted(self.other_versions))
            print(
                f"note: {Path(__file__).name} has changed since it began {others}; one curve will mix the two"
            )
        if buffer:
            size = max(1, buffer.row_bytes * args.total_timesteps / 1e6)
            end = "--no-keep-replay deletes it at the end" if args.keep_replay else "it is deleted at the end"
            print(f"each seed's replay will take {size:,.0f} MB of disk space; {end}", flush=True)
        if args.track:
            wandb = import_module("wandb")
            wandb.tensorboard.patch(root_logdir=os.path.commonpath(self.paths), pytorch=True)
            wandb.init(project="pmoe", name=str(self.paths[0]), config=asdict(args))
        self.writers = [SummaryWriter(path, purge_step=self.step + 1) for path in self.paths]
        self.save(self.step)

    def __enter__(self):
        self.handlers = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            self.handlers[number] = signal.signal(number, lambda number, _: self.signals.append(number))
        console = Console()
        columns = [
            TextColumn("step {task.completed:,} of {task.total:,} ({task.percentage:.0f}%)"),
            BarColumn(bar_width=20),
            TextColumn("{task.description}", table_column=Column()),  # a column that may wrap
        ]
        if console.width < 120:
            del columns[1]
        # No automatic refresh: a thread of its own would take time from training.
        self.bar = Progress(
            *columns,
            console=console,
            auto_refresh=False,
            speed_estimate_period=100,  # seconds; a rollout and an evaluation may take long
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self.bar.add_task("", total=self.args.total_timesteps, completed=self.step)
        self.task = self.bar.tasks[0]
        self.shown = time.monotonic()
        self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        self.bar.stop()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for writer in self.writers:
            writer.close()

    # Beginning, and going on

    def refuse(self, path: Path) -> None:
        """Ends the program where a run must not be begun, or cannot be gone on with."""
        for config in path.parent.glob("seed*/config.json"):
            other, source = recorded_file(config)
            if source == source_hash():
                continue
            if other != Path(__file__).resolve():
                which = f"{other}, another algorithm or another version of this file"
                fail(f"{config.parent} holds runs of {which}; give this one a --tag")
            self.other_versions.add(str(config.parent))
        if not path.exists() or self.args.overwrite:
            if self.args.resume:
                fail(f"{path} does not exist, so there is nothing to --resume{self.nearest(path)}")
            return
        finished = (path / "done.json").exists() and load(path / "done.json").get("step", 0)
        if finished and (not self.args.resume or self.args.total_timesteps <= finished):
            longer = "--resume with a larger --total-timesteps makes it longer"
            fail(f"{path} is finished at step {finished:,}; {longer}, --overwrite starts again")
        if not self.args.resume:
            fail(f"{path} exists; --resume continues it, --overwrite starts again")
        changed = self.changes(load(path / "config.json"))
        if changed:
            fail(f"{path} was started with {', '.join(changed)}; keep it, or start another run with a --tag")
        if finished:
            self.refuse_longer(path, finished)

    def changes(self, config: dict) -> list[str]:
        """What a run's config.json has otherwise, of what must stay the same on resume"""
        before = {**config.get("args", {}), "device": config.get("device")}
        now = {**vars(self.args), "device": str(self.device)}
        changed = []
        for name, value in now.items():
            free = name in free_options(self.args) and name != "device"
            if not free and before.get(name) != value:
                changed.append(f"--{name.replace('_', '-')} {before.get(name)}, not {value}")
        return changed

    def nearest(self, path: Path) -> str:
        """In words: the run of this algorithm, K and seed whose options differ least, if there is one"""
        others = {}
        for config in path.parents[1].glob(f"{ALGO}-k{self.args.k}*/{path.name}/config.json"):
            others[config.parent] = self.changes(load(config))
        if not others:
            return ""
        other = min(others, key=lambda other: len(others[other]))
        return f"; {other} was started with {' and '.join(others[other])}"

    def refuse_longer(self, path: Path, finished: int) -> None:
        """Ends the program where a finished run cannot be made longer."""
        rollout = getattr(self.args, "num_envs", 1) * getattr(self.args, "num_steps", 1)
        if finished % rollout:
            fail(f"{path} cannot be made longer: its last rollout was cut short at step {finished:,}")
        if self.buffer and not (path / "checkpoint/replay.f32").exists():
            fail(f"{path} cannot be made longer: its replay was deleted, as --no-keep-replay asked")

    def last_checkpoints(self) -> list[dict]:
        """Of each seed, that of the last step at which all have one"""
        last = min(max(path.glob("checkpoint/*.pt"), default=path).name for path in self.paths)
        saved = [load(path / "checkpoint" / last) for path in self.paths]
        for path, state in zip(self.paths, saved):
            replay = path / "checkpoint/replay.f32"
            if state.get("replay") and (not replay.exists() or replay.stat().st_size < state["replay"]):
                fail(f"{replay} is missing or damaged; start again with --overwrite")
            if state["step"] > self.args.total_timesteps:
                fail(f"{path} is already at step {state['step']:,}, beyond --total-timesteps")
        return saved

    def create(self, s: int) -> None:
        """A new run directory of seed s"""
        path = self.paths[s]
        shutil.rmtree(path, ignore_errors=True)  # there is none, or --overwrite
        (path / "checkpoint").mkdir(parents=True)
        file = Path(__file__).resolve()
        git = ["git", "-C", str(file.parent), "describe", "--always", "--dirty"]
        config = {"algo": ALGO, "file": str(file), "source": source_hash(), "device": str(self.device)}
        config["command"] = sys.argv
        with contextlib.suppress(OSError):  # there is no git
            config["commit"] = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        packages = ("torch", "gymnasium", "mujoco", "numpy")
        config["versions"] = {name: metadata.version(name) for name in packages}
        config["args"] = self.args_of(s)
        write_json(path / "config.json", config)
        for name, header in HEADERS.items():
            (path / f"{name}.csv").write_text(header)

    def restore(self, s: int, saved: dict) -> None:
        """Seed s as it was at a checkpoint"""
        path = self.paths[s]
        (path / "done.json").unlink(missing_ok=True)  # first: the run is made longer, and may be killed here
        for name in HEADERS:
            (path / f"{name}.csv").write_text(saved["csv"][name])
        if self.buffer:
            self.buffer.read_from(path / "checkpoint/replay.f32", s, saved["replay"])
        for name, x in self.learnt(s).items():
            x.copy_(saved["learnt"][name])
        self.generators[s].set_state(saved["generator"])
        for i, random_state, actions in zip(self.envs_of(s), saved["random_state"], saved["actions"]):
            self.envs.reset(i, random_state, actions.numpy())
        episode = last_row(path / "episodes.csv")
        if episode:
            self.last_returns[s] = episode["episodic_return"]
        evaluation = last_row(path / "eval.csv")
        if evaluation:
            self.last_evaluations[s] = evaluation["return_mean"]
        config = load(path / "config.json")
        config["args"] = self.args_of(s)  # some of them may change
        write_json(path / "config.json", config)

    def args_of(self, s: int) -> dict:
        """The options of seed s alone, as its config.json has them"""
        return asdict(replace(self.args, seed=self.seeds[s], num_seeds=1, resume=False, overwrite=False))

    def envs_of(self, s: int) -> range:
        """The numbers of seed s's environments"""
        each = self.envs.n // len(self.paths)
        return range(s * each, (s + 1) * each)

    def learnt(self, s: int) -> dict[str, Tensor]:
        """Seed s's part of the agent, as views"""
        state = {}
        for name, x in self.agent.state_dict().items():
            # The first axis is S or, where a seed has several networks, a multiple; Adam's powers have none.
            state[name] = x.unflatten(0, (len(self.paths), -1))[s] if x.dim() > 1 else x
        return state

    # While it runs

    def due(self, every: int, step: int) -> bool:
        """Whether a multiple of `every` lies between the last step looked at and this one"""
        return step // every > self.step // every

    def end_of_step(self, step: int, figures: dict[str, Tensor]) -> None:
        """Evaluation, progress, TensorBoard and checkpoint, where they are due; the end, after a signal"""
        stop = list(self.signals)
        last = step == self.args.total_timesteps
        # A buffer that is full overwrites its oldest rows, which the file must have by then.
        checkpoint_every = min(self.args.checkpoint_every, self.buffer.capacity if self.buffer else 10**12)
        save = last or bool(stop) or self.due(checkpoint_every, step)
        if save or self.due(100, step) or step > self.step + 1:
            self.check_finite(step, figures)
        if self.due(self.args.eval_every, step):
            self.evaluate(step)
        if last or self.due(1000, step):
            self.log(step, figures)
        elif time.monotonic() > self.shown + 1:
            self.show(step)
        self.step = step
        if save:
            self.save(step)
        if stop:
            self.bar.stop()
            print(f"stopped at step {step:,}; the same command with --resume goes on")
            raise SystemExit(128 + stop[0])

    def check_finite(self, step: int, figures: dict[str, Tensor]) -> None:
        """Ends the program where a figure, or anything that is learnt, is not finite."""
        for name, x in {**figures, **self.agent.state_dict()}.items():
            if not x.isfinite().all():
                self.bar.stop()  # it takes what goes to stderr
                fail(f"{name} is not finite at step {step}; the last checkpoint is from before that", 1)

    def evaluate(self, step: int) -> None:
        """Returns of the deterministic policy in environments of its own"""
        actor = copy.deepcopy(self.agent.actor)  # a policy with a memory begins anew
        for s, returns in enumerate(self.eval_envs.evaluate(actor.act, self.seeds, step)):
            mean, std = returns.mean(), returns.std()
            self.record(s, "eval", step, eval_return=mean, eval_return_std=std, eval_episodes=len(returns))
            self.last_evaluations[s] = mean

    def record_episode(self, i: int, step: int) -> None:
        """The episode that environment i has just finished"""
        s = i // (self.envs.n // len(self.paths))
        self.last_returns[s] = self.envs.returns[i]
        length = len(self.envs.actions[i])
        self.record(s, "episodes", step, episodic_return=self.envs.returns[i], episodic_length=length)

    def record(self, s: int, name: str, step: int, **values) -> None:
        """A line of seed s's NAME.csv, and the same in TensorBoard"""
        with open(self.paths[s] / f"{name}.csv", "a") as file:
            print(step, *values.values(), sep=",", file=file)
        for key, value in values.items():
            self.writers[s].add_scalar(f"charts/{key}", value, step)

    def log(self, step: int, figures: dict[str, Tensor]) -> None:
        """Figures to TensorBoard, progress to the terminal or, where there is none, as a line"""
        self.show(step)
        if self.bar.disable:
            percent = f"({self.task.percentage:.0f}%)"
            total = self.args.total_timesteps
            print(f"step {step:,} of {total:,} {percent}  {self.task.description}", flush=True)
        for s, writer in enumerate(self.writers):
            writer.add_scalar("charts/SPS", self.speed(step), step)
            for name, figure in figures.items():
                writer.add_scalar(name, figure[s], step)

    def speed(self, step: int) -> float:
        """Steps a second of each seed over the last while or, before there are two looks, since the start"""
        return self.task.speed or step / (time.monotonic() - self.began)

    def show(self, step: int) -> None:
        """Brings the bar up to date."""
        self.shown = time.monotonic()
        self.bar.update(self.task.id, completed=step)
        left = timedelta(seconds=round((self.args.total_timesteps - step) / self.speed(step)))
        returns = f"return {spread(self.last_returns)}  evaluation {spread(self.last_evaluations)}"
        self.bar.update(self.task.id, description=f"{returns}  {self.speed(step):.0f} steps/s  {left} left")
        self.bar.refresh()

    def save(self, step: int) -> None:
        """A checkpoint of every seed. Those before go once all are on the disk."""
        files = [path / f"checkpoint/{step:010}.pt" for path in self.paths]
        for s, file in enumerate(files):
            self.writers[s].flush()
            content = io.BytesIO()
            torch.save(self.state(s, step), content)  # to memory first: torch has no words for a full disk
            write_whole(file, content.getbuffer())
        for path, file in zip(self.paths, files):
            for old in set(path.glob("checkpoint/*.pt")) - {file}:
                old.unlink()

    def state(self, s: int, step: int) -> dict:
        """All that an exact resume of seed s needs"""
        path = self.paths[s]
        state = {
            "step": step,
            "wall_time": time.monotonic() - self.began,
            "csv": {name: (path / f"{name}.csv").read_text() for name in HEADERS},
            "learnt": {name: x.clone() for name, x in self.learnt(s).items()},
            "generator": self.generators[s].get_state(),
            "random_state": [self.envs.random_state[i] for i in self.envs_of(s)],
            "actions": [torch.tensor(np.array(self.envs.actions[i])) for i in self.envs_of(s)],
        }
        if self.buffer:
            state["replay"] = self.buffer.append_to(path / "checkpoint/replay.f32", s)
        return state

    def finish(self) -> list[Path]:
        """The last evaluation, where it was not due anyway, and done.json; returns the run directories."""
        total = self.args.total_timesteps
        if any(last_row(path / "eval.csv").get("step") != total for path in self.paths):
            # A run that is made longer would not have made this one: no checkpoint holds it.
            self.evaluate(total)
        for path in self.paths:
            done = last_row(path / "eval.csv")
            done |= {"step": total, "wall_time": time.monotonic() - self.began}
            write_json(path / "done.json", done)
            if self.buffer and not self.args.keep_replay:
                (path / "checkpoint/replay.f32").unlink()
        return self.paths


def spread(values: dict[int, float]) -> str:
    """130, or, of several seeds, their mean and range: 130 (90 to 170)"""
    if not values:
        return "-"
    numbers = list(values.values())
    mean = f"{np.mean(numbers):.0f}"
    return mean if len(numbers) == 1 else f"{mean} ({min(numbers):.0f} to {max(numbers):.0f})"


def last_row(file: Path) -> dict[str, float]:
    """The last row of a CSV file of numbers by its columns; empty if there is none"""
    names, *rows = file.read_text().split()
    return dict(zip(names.split(","), map(float, rows[-1].split(",")))) if rows else {}


def write_json(path: Path, content: dict) -> None:
    write_whole(path, json.dumps(content, indent=2).encode())


def write_whole(path: Path, content) -> None:
    """Writes bytes to a file wholly or not at all."""
    temporary = path.with_name("new.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file)
    os.replace(temporary, path)


def source_hash() -> str:
    """Of this file's text"""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:10]


def recorded_file(config: Path) -> tuple[Path, str]:
    """The algorithm file that a config.json names, and its hash; this file's, where it names none"""
    try:
        recorded = json.loads(config.read_text())
        return Path(recorded["file"]), recorded["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return Path(__file__).resolve(), source_hash()


def load(path: Path) -> dict:
    """The content of a .json file or of a checkpoint, on the CPU; ends the program if it cannot be read."""
    try:
        if path.suffix == ".json":
            return dict(json.loads(path.read_text()))
        return dict(torch.load(path, "cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001  torch raises many kinds
        anew = "start again, without --resume or with --overwrite"
        fail(f"{path} is missing or damaged ({type(error).__name__}); {anew}")


def load_part(run_dir: str | Path, part: str) -> dict[str, Tensor]:
    """The state_dict of a part of the agent, as "actor", in a run's last checkpoint"""
    file = max(Path(run_dir).glob("checkpoint/*.pt"), default=Path(run_dir, "checkpoint"))
    learnt = load(file)["learnt"]
    return {name.removeprefix(f"{part}."): x for name, x in learnt.items() if name.startswith(f"{part}.")}


def check(args: Args) -> None:
    """Ends the program where a value is out of its range, or two options contradict each other."""
    from_zero = ("seed", "random_steps", "baseline_samples")
    up_to_one = ("gamma", "gae_lambda", "tau", "learning_rate")
    for name, value in asdict(args).items():
        if type(value) in (int, float):
            low = 0 if type(value) is float or name in from_zero else 1
            high = 1 if name in up_to_one else 10**12
            if not low <= value <= high:  # NaN too
                fail(f"--{name.replace('_', '-')} must be from {low} to {high:g}, not {value}")
    if hasattr(args, "num_envs"):  # the PPO family
        if args.total_timesteps % args.num_envs:
            fail("--total-timesteps must be a multiple of --num-envs")
        if not 2 <= args.minibatch_size <= args.num_envs * args.num_steps:
            fail("--minibatch-size must be from 2 to --num-envs times --num-steps")
    if args.resume and args.overwrite:
        fail("--resume continues a run and --overwrite deletes it: give only one of them")
    if args.track and not util.find_spec("wandb"):
        fail("--track needs wandb: pip install wandb")
    if args.device == "cuda" and not torch.cuda.is_available():
        fail("--device cuda: torch finds no CUDA GPU; use --device cpu or auto")


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line; status 2 is bad input, 1 what went wrong on the way."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    train(tyro.cli(Args))
