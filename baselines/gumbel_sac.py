"""Gumbel SAC: soft actor-critic with a mixture of K Gaussians whose router learns by Gumbel-softmax.

A baseline of Ren et al., "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning",
arXiv 2104.09122, figure 11; eq. 4 is theirs. SAC is arXiv 1812.05905, Gumbel-softmax arXiv 1611.01144 and
1611.00712.

    policy      pi(a|s) = sum_k w_k(s) N_k(a|s)                                                  eq. 4
    draw        k = argmax_j log w_j + g_j, g_j standard Gumbel: then k ~ w
    action      a = tanh(sum_j d_j u_j), u_j ~ N_j, d the one-hot of k; where the gradient asks, d is
                softmax((log w + g) / T): straight through
    loss        alpha log pi(a|s) - Q(s, a), for primitives and router alike                     SAC, eq. 7

The gradient of the router is biased. With K = 1 this file is SAC. The paper gives no T: here it is 0.1.
Targets draw a' from the mixture and take its density. Evaluation is by the mean action of the likeliest
primitive.

    python baselines/gumbel_sac.py --env Hopper-v4 --k 4 --seed 1                      # one seed
    python baselines/gumbel_sac.py --env Hopper-v4 --k 4 --seed 1 --num-seeds 5        # seeds 1 to 5
    python baselines/gumbel_sac.py --env Hopper-v4 --k 4 --seed 1 --temperature 1.0    # smoother, more biased

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
from torch import Tensor, nn
from torch.nn.functional import softplus

# Names the run directories; a fork has its own name.
ALGO = Path(__file__).stem.replace("gumbel_sac", "gumbel-sac")


@dataclass
class Args:
    """Gumbel SAC: soft actor-critic with a mixture policy, its router by Gumbel-softmax. K = 1 is SAC."""

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
    keep_checkpoints: int = 1  # how many of the last checkpoints stay; the best policy stays as well
    resume: bool = False  # go on from the last checkpoint
    overwrite: bool = False  # delete an earlier run with the same name first
    keep_replay: bool = True  # keep a finished run's replay, so that the run can be made longer
    track: bool = False  # also log to Weights & Biases; needs wandb

    # This algorithm
    hidden: int = 256  # units in each of a network's two hidden layers
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # target networks: target <- (1 - tau) target + tau online, every update
    batch_size: int = 100  # transitions in each update
    buffer_size: int = 1_000_000  # transitions the replay buffer holds
    learning_rate: float = 1e-3  # Adam's learning rate, for policy, critics and temperature
    random_steps: int = 10_000  # steps with uniformly random actions, at the start
    learning_starts: int = 1_000  # steps before the first update; one update a step from then on
    alpha: float | Literal["auto"] = 0.2  # entropy temperature; auto: tuned to a target entropy of -dim(A)
    temperature: float = 0.1  # T of the Gumbel-softmax; the entropy's temperature is alpha


# --------------------------------------------------------------------------------------------------- networks


class Actor(nn.Module):
    """The mixture policy (eq. 4) on actions in [-1, 1]: a trunk, K Gaussians squashed by tanh, a router"""

    # Copied from gating_sac.Actor.__init__
    def __init__(self, obs_size: int, action_size: int, k: int, hidden: int, rng: "Philox"):
        super().__init__()
        self.k = k
        self.fc1 = Linear(obs_size, hidden, rng)
        self.fc2 = Linear(hidden, hidden, rng)
        self.mean_log_std = Linear(hidden, 2 * k * action_size, rng)
        self.router = Linear(hidden, k, rng)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # Copied from gating_sac.Actor.forward
        """obs (S, B, O) -> mean (S, B, K, A), log_std (S, B, K, A), log_w (S, B, K)"""
        x = self.fc1(obs).relu()
        x = self.fc2(x).relu()
        mean, log_std = self.mean_log_std(x).unflatten(-1, (2, self.k, -1)).unbind(2)
        log_std = -5 + 3.5 * (log_std.tanh() + 1)  # in [-5, 2]
        log_w = self.router(x).log_softmax(-1)
        return mean, log_std, log_w

    @torch.no_grad()
    def act(self, obs: Tensor, choose=None) -> Tensor:  # Copied from pmoe_sac.Actor.act
        """Mean action (S, B, A) of the likeliest primitive, or one that `choose` draws by log_w (S, B, K)"""
        mean, _, log_w = self(obs.to(self.fc1.weight.device))
        chosen = choose(log_w) if choose else log_w.argmax(-1, keepdim=True)
        return pick(mean, chosen).squeeze(2).tanh().cpu()


class Critic(nn.Module):  # Copied from pmoe_sac.Critic
    """Twin Q-functions: 2S networks side by side, those of seed s numbered 2s and 2s + 1"""

    def __init__(self, input_size: int, hidden: int, rng: "Philox"):
        super().__init__()
        self.fc1 = Linear(input_size, hidden, rng, 2)
        self.fc2 = Linear(hidden, hidden, rng, 2)
        self.fc3 = Linear(hidden, 1, rng, 2)

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


# Copied from pmoe_sac.mixture_log_density
def mixture_log_density(u: Tensor, mean: Tensor, log_std: Tensor, log_w: Tensor) -> Tensor:
    """log sum_k w_k N_k(u) (eq. 4, before the tanh) of J points per state: u (S, B, J, A) -> (S, B, J)"""
    log_prob = log_density(u.unsqueeze(3), mean.unsqueeze(2), log_std.unsqueeze(2))  # (S, B, J, K)
    return torch.logsumexp(log_w.unsqueeze(2) + log_prob, -1)


def tanh_log_det(u: Tensor) -> Tensor:  # Copied from pmoe_sac.tanh_log_det
    """log |d tanh(u) / du|, stable where tanh saturates"""
    log_2 = 0.6931471805599453
    return 2 * (log_2 - u - softplus(-2 * u))


def gumbel_softmax(log_w: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """One-hot of k ~ w with the gradient of softmax((log w + g) / T), g standard Gumbel; all (S, B, K)"""
    gumbel = -(-uniform.clamp(min=1e-10).log()).log()
    temperature = max(temperature, 1e-6)  # towards 0 the gradient is 0
    soft = ((log_w + gumbel) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())


def sac_loss(log_prob: Tensor, q: Tensor, alpha: Tensor) -> Tensor:  # Copied from gating_sac.sac_loss
    """alpha log pi(a|s) - Q(s, a) (SAC, eq. 7): (S, B, 1) -> (S, B)"""
    return (alpha * log_prob - q).squeeze(-1)


# ------------------------------------------------------------------------------------------------------ agent


class Agent(nn.Module):
    """Networks and update of S seeds, which do not mix: losses are summed over seeds, Adam is elementwise."""

    def __init__(self, args: Args, obs_size: int, action_size: int, rng: "Philox"):
        super().__init__()
        self.args = args
        self.rng = rng  # its state is saved with what is learnt
        self.draws = args.k  # random vectors that the policy takes for a state
        self.actor = Actor(obs_size, action_size, args.k, args.hidden, rng)
        self.qf = Critic(obs_size + action_size, args.hidden, rng)
        self.qf_target = as_buffers(deepcopy(self.qf))  # they follow, and are not learnt

        self.temperature = Temperature(args.alpha, -action_size, args.learning_rate, rng)
        self.actor_adam = Adam(self.actor.parameters(), args.learning_rate)
        self.qf_adam = Adam(self.qf.parameters(), args.learning_rate)

    def propose(self, obs: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A reparameterised action of the mixture (S, B, 1, A), its log-density (S, B, 1), log_w (S, B, K)"""
        mean, log_std, log_w = self.actor(obs)
        one_hot = gumbel_softmax(log_w, uniform, self.args.temperature).unsqueeze(-1)  # (S, B, K, 1)
        u = mean + log_std.exp() * noise  # of every primitive
        u = (one_hot * u).sum(2, keepdim=True)
        log_prob = mixture_log_density(u, mean, log_std, log_w) - tanh_log_det(u).sum(-1)
        return u.tanh(), log_prob, log_w

    @torch.no_grad()
    def draw(self, obs: Tensor, noise: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """An action from the mixture (S, B, 1, A) and its log-density (S, B, 1)"""
        action, log_prob, _ = self.propose(obs, noise, uniform)
        return action, log_prob

    # Copied from gating_sac.Agent.critic_loss
    def critic_loss(self, batch: "Batch", noise, uniform, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of both Q against r + gamma (min Q'(s', a') - alpha log p(a')), a' by `draw`;
        and the mean of Q; (S,) each"""
        with torch.no_grad():
            next_action, next_log_prob = self.draw(batch.next_obs, noise, uniform)
            next_q = self.qf_target(batch.next_obs, next_action).amin(1)  # (S, B, 1)
        # A time limit ends an episode and not the task: only terminations cut the future off.
        discount = self.args.gamma * (1 - batch.terminated)
        target = batch.reward + discount * (next_q - alpha * next_log_prob)
        q = self.qf(batch.obs, batch.action.unsqueeze(2))  # (S, 2, B, 1)
        loss = (q - target.unsqueeze(1)).square().mean((2, 3)).sum(1)
        return loss, q.mean((1, 2, 3))

    def policy_loss(self, obs: Tensor, noise, uniform, alpha: Tensor) -> tuple[Tensor, Tensor, dict]:
        """Loss of the policy (S,), log-densities for the temperature (S, B, 1), figures (S,)"""
        action, log_prob, log_w = self.propose(obs, noise, uniform)
        q = self.qf(obs, action).amin(1)  # (S, B, 1)
        loss = sac_loss(log_prob, q, alpha).mean(-1)
        return loss, log_prob, {"losses/actor": loss, **routing_figures(log_w)}

    # Copied from pmoe_sac.Agent.update
    def update(self, batch: "Batch", noise: Tensor, uniform: Tensor) -> dict[str, Tensor]:
        """One step of all that is learnt; returns figures to log. The noise is drawn outside, for the next
        states and for the policy: normal (S, 2B, J, A), uniform (S, 2B, J), J = self.draws. No branch depends
        on a tensor, so that torch.compile takes the whole update into one graph."""
        next_noise, noise = noise.chunk(2, 1)
        next_uniform, uniform = uniform.chunk(2, 1)
        alpha = self.temperature()

        # Critics
        critic_loss, q = self.critic_loss(batch, next_noise, next_uniform, alpha)
        self.qf_adam.step(critic_loss)

        # Policy
        policy_loss, log_prob, figures = self.policy_loss(batch.obs, noise, uniform, alpha)
        self.actor_adam.step(policy_loss)

        # Temperature
        self.temperature.step(log_prob)

        # Targets
        online = [parameter.detach() for parameter in self.qf.parameters()]
        torch._foreach_lerp_(list(self.qf_target.buffers()), online, self.args.tau)

        figures |= {"losses/critic": critic_loss, "losses/q": q, "losses/alpha": alpha.flatten()}
        return {name: figure.detach() for name, figure in figures.items()}


# ---------------------------------------------------------------------------------------------- training loop


def train(args: Args) -> list[Path]:  # Copied from pmoe_sac.train
    """Trains the seeds side by side; returns their run directories. Ends the program with one line on bad
    input (2), a number that is not finite, a faulty environment or a full disk (1), or a signal (128 + n)."""
    rng, envs = begin(args, on_gpu=args.device != "cpu")
    agent = Agent(args, envs.obs_size, envs.action_size, rng)
    buffer = ReplayBuffer(capacity(args), envs.obs_size, envs.action_size, rng)
    figures = {}

    def act(obs: Tensor) -> Tensor:
        """(S, O) -> (S, A)"""
        action, _ = agent.draw(obs.unsqueeze(1), *rng.noise(1, agent.draws, envs.action_size))
        return action.flatten(1)

    def learn() -> dict[str, Tensor]:
        batch = buffer.sample(args.batch_size)
        return agent.update(batch, *rng.noise(2 * args.batch_size, agent.draws, envs.action_size))

    with Runs(args, agent, envs, buffer) as runs:  # new, or as at their last checkpoint
        act, learn = runs.compiled(act, learn)
        for step in range(runs.step + 1, args.total_timesteps + 1):
            # Act
            obs = envs.obs.copy()  # (S, O)
            if step > args.random_steps:
                action = act(to_device(obs, rng.device))
            else:
                action = 2 * rng.uniform(envs.action_size) - 1
            action = action.cpu().numpy()  # (S, A)
            if not np.isfinite(action).all():
                fail(f"an action is not finite at step {step}; the last checkpoint is from before that", 1)

            # Learn; before the environments move, so that on a GPU the two overlap
            if step > args.learning_starts:
                figures = learn()

            # Step
            next_obs, reward, terminated, truncated = envs.step(action)
            buffer.add(obs, action, next_obs, reward, terminated)
            for s in np.flatnonzero(terminated | truncated):
                runs.record_episode(s, step)
                envs.reset(s)

            # Look: evaluation, progress, checkpoint, where they are due
            runs.end_of_step(step, figures)
        return runs.finish()


def load_actor(run_dir: str | Path, checkpoint: str = "last") -> Actor:  # Copied from pmoe_sac.load_actor
    """The policy of a run, S = 1, on the CPU: its last one, the best one by evaluation ("best") or that of a
    step whose checkpoint was kept. Ends the program if there is none."""
    state = load_part(run_dir, "actor", checkpoint)
    _, obs_size, hidden = state["fc1.weight"].shape
    k = state["router.weight"].shape[-1]
    action_size = state["mean_log_std.weight"].shape[-1] // (2 * k)
    actor = Actor(obs_size, action_size, k, hidden, Philox([0]))
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
import errno
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import traceback
import zipfile
from dataclasses import asdict, replace
from datetime import timedelta
from importlib import import_module, metadata, util
from typing import NoReturn, get_args, get_origin, get_type_hints

import gymnasium as gym
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Column
from torch.utils.tensorboard import SummaryWriter


class Linear(nn.Module):
    """n = S each linear layers side by side, (n, B, in) -> (n, B, out)"""

    def __init__(self, fan_in: int, fan_out: int, rng: "Philox", each: int = 1):
        super().__init__()
        bound = fan_in**-0.5
        weight = rng.uniform(each, fan_in, fan_out).flatten(0, 1)
        bias = rng.uniform(each, 1, fan_out).flatten(0, 1)
        self.weight = nn.Parameter(bound * (2 * weight - 1))
        self.bias = nn.Parameter(bound * (2 * bias - 1))

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


class Temperature(nn.Module):
    """alpha of each seed, fixed or tuned until the entropy is at its target (arXiv 1812.05905, eq. 18)"""

    def __init__(self, alpha: float | Literal["auto"], target: float, learning_rate: float, rng: "Philox"):
        super().__init__()
        self.target = target
        self.is_tuned = alpha == "auto"
        start = 1.0 if self.is_tuned else max(alpha, 1e-30)  # of 0 there is no logarithm
        log_alpha = torch.full((rng.num_seeds, 1, 1), start, device=rng.device).log()
        if self.is_tuned:
            self.log_alpha = nn.Parameter(log_alpha)
            self.adam = Adam([self.log_alpha], learning_rate)
        else:
            self.register_buffer("log_alpha", log_alpha)

    def forward(self) -> Tensor:
        """alpha, (S, 1, 1)"""
        return self.log_alpha.detach().exp()

    def loss(self, log_prob: Tensor) -> Tensor:
        """alpha (entropy - its target), (S,), from log-densities (S, B, 1)"""
        excess = -(log_prob.detach() + self.target).mean((1, 2))
        return self.log_alpha.exp().flatten() * excess

    def step(self, log_prob: Tensor) -> None:
        if self.is_tuned:
            self.adam.step(self.loss(log_prob))


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


class Batch(NamedTuple):
    """B transitions of each seed, drawn from its replay; each field has the shape (S, B, .)"""

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    reward: Tensor
    terminated: Tensor


class ReplayBuffer(nn.Module):
    """The last `capacity` transitions of S seeds, a row each, with the fields of Batch side by side"""

    def __init__(self, capacity: int, obs_size: int, action_size: int, rng: "Philox"):
        super().__init__()
        self.capacity = capacity
        self.rng = rng
        self.count = 0  # transitions ever added
        self.sizes = (obs_size, action_size, obs_size, 1, 1)
        self.row_bytes = 4 * sum(self.sizes)
        rows = torch.empty(rng.num_seeds, capacity, sum(self.sizes), device=rng.device)
        self.register_buffer("rows", rows)
        self.register_buffer("size", torch.zeros((), dtype=torch.int64, device=rng.device))

    def add(self, *fields: np.ndarray) -> None:
        """A transition of each seed, in the order of Batch: arrays (S, .) or (S,), in one transfer"""
        row = to_device(np.column_stack(fields), self.rows.device)
        self.rows[:, self.count % self.capacity] = row
        self.count += 1
        self.size.fill_(min(self.count, self.capacity))

    def sample(self, batch_size: int) -> Batch:
        """Uniformly, with replacement, each seed from its own replay"""
        # Some rows are likelier than others, by size / 2^32 at most.
        index = (self.rng.words(batch_size) * self.size) >> 32
        rows = self.rows.take_along_dim(index.unsqueeze(-1), 1)
        return Batch(*rows.split(self.sizes, -1))

    def needs(self, args: Args) -> str:
        """In words: the space that it will take"""
        on_disk = max(1, self.row_bytes * args.total_timesteps / 1e6)
        in_memory = max(1, self.row_bytes * min(self.capacity, args.total_timesteps) / 1e6)
        sizes = f"{in_memory:,.0f} MB of memory and {on_disk:,.0f} MB of disk space"
        at_the_end = "--no-keep-replay deletes it" if args.keep_replay else "it is deleted"
        return f"each seed's replay will take {sizes}; {at_the_end} at the end"

    def check_file(self, path: Path, saved: dict) -> None:
        """Ends the program where the file is not whole. ValueError: the checkpoint is damaged."""
        if saved["replay"] != saved["step"] * self.row_bytes:
            raise ValueError("replay")
        if not path.exists() or path.stat().st_size < saved["replay"]:
            fail(f"{path} is missing or damaged; start again with --overwrite")

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
        self.size.fill_(len(rows))


def to_device(x: np.ndarray, device: torch.device) -> Tensor:
    """In float32. From pinned memory a copy to a GPU does not wait for what is computed there."""
    copied = torch.tensor(x, dtype=torch.float32)
    if device.type == "cuda":
        copied = copied.pin_memory()
    return copied.to(device, non_blocking=True)


def capacity(args: Args) -> int:
    """Transitions that a replay has room for"""
    # The compiled update holds this number, so short runs share one. Memory is taken only as rows are filled.
    return min(args.buffer_size, max(args.total_timesteps, 100_000))


def memory_needed(args: Args, envs: "Envs") -> float:
    """Bytes at least, for the replay and for one layer of both critics in an update"""
    transitions = min(args.buffer_size, args.total_timesteps)
    replay = transitions * (2 * envs.obs_size + envs.action_size + 2)
    critics = args.batch_size * args.k * 2 * args.hidden
    return 4 * args.num_seeds * (replay + critics)


# -------------------------------------------------------------------------------- the PPO family has this too

FREE = ("seed", "num_seeds", "total_timesteps", "run_dir", "device", "eval_every", "eval_episodes")
FREE += ("checkpoint_every", "keep_checkpoints", "resume", "overwrite", "keep_replay", "track")
LOW = 2**32 - 1  # the lower 32 bits of a whole number
INFINITE = 3.4e38  # what is larger has no place in float32
HEADERS = {"episodes": "step,episodic_return,episodic_length", "eval": "step,return_mean,return_std,episodes"}
SUCCESS = ",success,final_success"  # where the environment tells it: at any step of the episode, at the last


class Philox(nn.Module):
    """Random numbers of S seeds by Philox 4x32-10 (Salmon et al. 2011), on tensors alone: functions of seed
    and count of calls. Whole and uniform ones are the same bits on every device and beside other seeds."""

    def __init__(self, seeds, device="cpu"):
        super().__init__()
        self.num_seeds = len(seeds)
        self.device = device
        halves = torch.tensor([[seed & LOW, seed >> 32] for seed in seeds])  # (S, 2)
        rounds = torch.arange(10).view(10, 1, 1)
        keys = (halves + rounds * torch.tensor([0x9E3779B9, 0xBB67AE85])) & LOW
        self.register_buffer("keys", keys.to(device), persistent=False)  # of each round, (10, S, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64, device=device))

    def words(self, n: int) -> Tensor:
        """n whole numbers in [0, 2^32) of each seed, (S, n). The counter is their place and the call."""
        place = torch.arange((n + 3) // 4, device=self.device).expand(self.num_seeds, -1)
        zero = torch.zeros_like(place)
        drawn = philox(self.keys, place, zero, zero + (self.calls & LOW), zero + (self.calls >> 32))
        self.calls += 1
        return torch.stack(drawn, -1).flatten(1)[:, :n]

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), (S, *shape)"""
        words = self.words(torch.Size(shape).numel()).view(-1, *shape)
        return (words >> 8).float() * 2**-24  # as many bits as a float32 holds

    def normal(self, *shape: int) -> Tensor:
        """(S, *shape), by Box and Muller: two from two uniform numbers"""
        n = torch.Size(shape).numel()
        u, v = self.uniform(2, (n + 1) // 2).unbind(1)
        radius = (-2 * (1 - u).log()).sqrt()
        angle = 6.283185307179586 * v
        return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[:, :n].view(-1, *shape)

    def noise(self, n: int, draws: int, action_size: int) -> tuple[Tensor, Tensor]:
        """Normal (S, n, J, A) and uniform (S, n, J) numbers, as the policies take them"""
        return self.normal(n, draws, action_size), self.uniform(n, draws)


def philox(keys: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Ten rounds: a counter's four words of 32 bits, (S, n) each in int64 -> four random ones"""
    for key in keys:
        # A product of 64 bits may be negative: the shift brings ones, which the mask takes away.
        product = a * 0xD2511F53
        other = c * 0xCD9E8D57
        a = ((other >> 32) & LOW) ^ b ^ key[:, :1]
        b = other & LOW
        c = ((product >> 32) & LOW) ^ d ^ key[:, 1:]
        d = product & LOW
    return a, b, c, d


class Envs:
    """n environments of one task, whose actions are in [-1, 1], in units of their bounds. None resets itself:
    an episode's last observation is the true one. What they return is held to Gymnasium's contract."""

    def __init__(self, env_id: str, n: int, **kwargs):
        """Ends the program where there is no such environment, or its spaces do not suit the method."""
        self.env_id = env_id
        self.n = n
        try:
            self.envs = [flattened(make_env(env_id, **kwargs)) for _ in range(n)]
        except (Exception, SystemExit) as error:  # noqa: BLE001  environments raise anything
            fail(f"--env {env_id}: {described(error)}")  # Gymnasium's messages name what is near
        obs_space = self.envs[0].observation_space
        self.action_space = self.envs[0].action_space
        for kind, space in (("Observation", obs_space), ("Action", self.action_space)):
            if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
                words = f"must have flat Boxes of observations and actions, but has {space}"
                fail(f"--env {env_id} {words}; gymnasium.wrappers.Transform{kind} can make one")
        if not np.issubdtype(self.action_space.dtype, np.floating):
            fail(f"--env {env_id} must have actions that are real numbers, but has {self.action_space}")
        low = self.action_space.low.astype(float)
        high = self.action_space.high.astype(float)
        self.scale = high / 2 - low / 2
        # Some environments have float32's largest number for infinity.
        if not (self.scale < 1e30).all() or not self.scale.all():
            words = f"must have finite, distinct action bounds, but has {self.action_space}"
            fail(f"--env {env_id} {words}; gymnasium.wrappers.TransformAction can give it others")
        self.shift = low + self.scale
        self.obs_size = obs_space.shape[0]
        self.action_size = len(low)
        self.obs = np.zeros((n, self.obs_size))
        self.returns = np.zeros(n)
        self.success = np.full((n, 2), np.nan)  # at any step of the episode, at its last; NaN: not told
        self.moves = 0  # of all environments together
        # With the random state at the last reset and the actions since then, an episode can be replayed.
        self.random_state = [{}] * n
        self.actions = [[] for _ in range(n)]

    def fault(self, i: int, what: str) -> NoReturn:
        """Ends the program: environment i does not hold to the contract. While training, Runs' own does."""
        fail(f"--env {self.env_id}: the environment's {what}")

    def start(self, seeds, stops=()) -> None:
        """Begins anew, each environment from its seed, until there is something in `stops`."""
        for i, seed in enumerate(seeds):
            if not stops:
                self.call_reset(i, seed=int(seed))  # gives it its generator
                self.reset(i)

    def reset(self, i: int, random_state: dict | None = None) -> None:
        """The next episode of environment i, or the one that began with its generator in this state"""
        if random_state:
            set_random_state(self.envs[i], random_state)
        try:
            self.random_state[i] = random_state_of(self.envs[i])
        except Exception as error:  # noqa: BLE001
            self.fault(i, f"np_random is no generator of numpy's: {described(error)}")
        self.call_reset(i)
        self.returns[i] = 0
        self.success[i] = np.nan
        self.actions[i] = []

    def replay(self, i: int, random_state: dict, actions: np.ndarray, obs: np.ndarray, total: float) -> bool:
        """Brings environment i to where it was, at obs (O,) with a total of rewards, by the actions (T, A)
        since its last reset. False: they led elsewhere, and an episode has begun."""
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            self.reset(i, random_state)
            for action in actions:
                _, _, terminated, truncated = self.step(action[None], [i])
                if terminated or truncated:
                    break
        now = [*self.obs[i], self.returns[i]]
        same = len(self.actions[i]) == len(actions) and np.allclose(now, [*obs, total], 1e-9, 1e-12)
        if not same:
            self.reset(i)
        return same

    def step(self, action: np.ndarray, ids=None) -> tuple[np.ndarray, ...]:
        """Moves all, or `ids`: action (n, A) -> next_obs (n, O), reward, terminated, truncated (n,)"""
        if ids is None:
            ids = range(self.n)
            self.moves += 1
        space = self.action_space
        scaled = (self.shift + self.scale * action).astype(space.dtype).clip(space.low, space.high)
        outcomes = []
        for j, i in enumerate(ids):
            self.actions[i].append(action[j])
            outcomes.append(self.call_step(i, scaled[j]))
        reward, terminated, truncated = map(np.array, zip(*outcomes))
        self.returns[ids] += reward
        return self.obs[ids], reward, terminated, truncated

    def call_reset(self, i: int, **seed) -> None:
        try:
            obs, _ = self.envs[i].reset(**seed)
        except Exception as error:  # noqa: BLE001
            self.fault(i, f"reset failed: {described(error)}")
        self.observe(i, obs)

    def call_step(self, i: int, action: np.ndarray) -> tuple[float, bool, bool]:
        try:
            obs, reward, terminated, truncated, info = self.envs[i].step(action)
            told = np.asarray(info.get("success", info.get("is_success")))
        except Exception as error:  # noqa: BLE001
            self.fault(i, f"step failed: {described(error)}")
        self.observe(i, obs)
        # One number, or it counts as not told: None, and anything odd
        last = np.clip(told.item(), 0, 1) if told.size == 1 and told.dtype.kind in "biuf" else np.nan
        self.success[i] = np.fmax(self.success[i, 0], last), last
        terminated = self.number(i, "terminated", terminated) != 0
        truncated = self.number(i, "truncated", truncated) != 0
        return self.number(i, "reward", reward), terminated, truncated

    def observe(self, i: int, obs) -> None:
        """Keeps environment i's observation, a copy: it may write into its array."""
        try:
            obs = np.asarray(obs, float)
        except (TypeError, ValueError):
            self.fault(i, f"observation is no array of numbers but {shortened(repr(obs))}")
        if obs.shape != (self.obs_size,):
            self.fault(i, f"observation has the shape {obs.shape}, its space {(self.obs_size,)}")
        if not (abs(obs) < INFINITE).all():  # NaN too
            self.fault(i, f"observation is not finite: {shortened(repr(obs))}")
        self.obs[i] = obs

    def number(self, i: int, name: str, value) -> float:
        """What environment i returned, a number or an array of one"""
        try:
            number = float(np.asarray(value).item())
        except (TypeError, ValueError):
            self.fault(i, f"{name} is {shortened(repr(value))}, not a number")
        if not abs(number) < INFINITE:  # NaN too
            self.fault(i, f"{name} is {number}")
        return number

    def evaluate(self, act, seeds, step: int, stops=()) -> np.ndarray:
        """Undiscounted returns (S, E) of new episodes, others at every step; act: (S, E, O) -> (S, E, A).
        They end early once there is something in `stops`. Their `success` is kept."""
        episodes = self.n // len(seeds)
        self.start(np.concatenate([random_seeds(episodes, seed, step) for seed in seeds]), stops)
        running = np.arange(self.n)
        while len(running) and not stops:
            obs = torch.as_tensor(self.obs, dtype=torch.float32).unflatten(0, (len(seeds), episodes))
            action = act(obs).flatten(0, 1).numpy()
            _, _, terminated, truncated = self.step(action[running], running)
            running = running[~(terminated | truncated)]
        return self.returns.reshape(len(seeds), episodes).copy()


def make_env(env_id: str, **kwargs) -> gym.Env:
    """gym.make of ID[,option=value,...]; values are numbers, True, False, None or text in single quotes"""
    with contextlib.suppress(ModuleNotFoundError):
        import_module("pmoe.envs").load_suite(env_id)  # where pmoe is installed: it registers environments
    outside_quotes = r"(?=(?:[^']*'[^']*')*[^']*$)"  # an even number of quotes follows
    name, *options = re.split(rf",(?=\w+=){outside_quotes}", env_id)
    for option in options:
        key, _, value = option.partition("=")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kinds = "a number, True, False, None, or text in single quotes"
            raise ValueError(f"{option} is not {kinds}") from None
    limit = kwargs.get("max_episode_steps")
    # To Gymnasium -1 means none, and an evaluation may then never end.
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"max_episode_steps={limit!r} is not a whole number above 0")
    return gym.make(name, **kwargs)


def flattened(env: gym.Env) -> gym.Env:
    """With observations that are vectors, where Gymnasium can make one of them, as of a Dict"""
    space = env.observation_space
    if space.is_np_flattenable and not (isinstance(space, gym.spaces.Box) and len(space.shape) == 1):
        return gym.wrappers.FlattenObservation(env)
    return env


def random_state_of(env: gym.Env) -> dict:
    """The state of an environment's generator, a new or an old one of numpy's"""
    generator = env.unwrapped.np_random
    if isinstance(generator, np.random.RandomState):
        return plain(generator.get_state(legacy=False))
    return plain(generator.bit_generator.state)


def set_random_state(env: gym.Env, state: dict) -> None:
    generator = env.unwrapped.np_random
    if isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def global_state() -> dict:
    return plain({"random": random.getstate(), "numpy": np.random.get_state(legacy=False)})


def set_global_state(state: dict) -> None:
    version, numbers, gauss = state["random"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])


def plain(state) -> dict:
    """With lists for tuples and arrays, as a checkpoint may hold them"""
    return json.loads(json.dumps(state, default=np.ndarray.tolist))


def random_seeds(n: int, *entropy: int) -> np.ndarray:
    """n seeds for environments, (n,)"""
    return np.random.SeedSequence(entropy).generate_state(n) // 2


def cxx_compiler() -> str:
    """The C++ compiler for torch.compile, which takes one word only: of CXX="ccache g++" the last program"""
    programs = [word for word in os.environ.get("CXX", "g++").split() if shutil.which(word)]
    return programs[-1] if programs else ""


def can_compile(args: Args) -> bool:
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return args.compile != "off" and headers and bool(cxx_compiler())


def keep_freed_memory() -> None:
    """Keeps what is freed in the process: memory from the system costs page faults, which are slow."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
        for size in (2**25, 2**30):  # older C libraries refuse the second
            ctypes.CDLL(None).mallopt(-3, size)  # M_MMAP_THRESHOLD


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
        tag = hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:10]
    folder = Path(args.run_dir, re.sub("[/:]", "-", args.env_id), f"{ALGO}-k{args.k}-{tag}".removesuffix("-"))
    return [folder / f"seed{seed}" for seed in range(args.seed, args.seed + args.num_seeds)]


class Runs:
    """The run directories of S seeds: configuration, CSV files, TensorBoard, checkpoints; and the progress"""

    def __init__(self, args: Args, agent: nn.Module, envs: Envs, buffer=None):
        """New directories, or everything as at the last checkpoint. Ends the program, having changed nothing,
        where that cannot be. Inside `with`, Ctrl-C, SIGTERM and SIGHUP end training at a checkpoint."""
        self.args = args
        self.device = agent.rng.device
        self.agent = agent
        self.envs = envs
        self.buffer = buffer  # of the SAC family
        self.paths = run_paths(args)
        self.seeds = range(args.seed, args.seed + args.num_seeds)
        self.eval_envs = Envs(args.env_id, args.num_seeds * args.eval_episodes)
        self.last_returns = {}  # of each seed
        self.last_evaluations = {}
        self.best = {}  # of each seed: the policy of the best evaluation
        self.signals = []
        self.compiles = can_compile(args)
        self.is_compiling = False
        self.evaluating = 0  # the step of an evaluation that goes on, or that a signal has cut short
        self.finished = 0  # the step at which a run that is made longer was finished
        self.inexact = set()  # seeds that could not be brought back to where they were
        self.other_versions = set()  # runs beside these that an earlier version of this file has made

        self.refuse_others()
        for path in self.paths:
            self.refuse(path)
        # An environment that cannot be reset or moved ends the program before anything is on the disk.
        self.eval_envs.start(self.seeds)
        self.eval_envs.call_step(0, self.eval_envs.shift.astype(self.eval_envs.action_space.dtype))
        saved = self.restore() if args.resume else []
        self.step = saved[0]["step"] if saved else 0
        self.began = time.monotonic() - (saved[0]["wall_time"] if saved else 0.0)
        for s in range(len(self.paths)):
            if saved:
                self.rewind(s, saved[s])
            else:
                self.create(s)
        self.first_step = self.step
        self.envs.fault = self.eval_envs.fault = self.fault

        say(*self.paths, f"on {self.device}, from step {self.step:,}")
        self.say_what_is_odd()
        if args.track:
            wandb = import_module("wandb")
            wandb.tensorboard.patch(root_logdir=os.path.commonpath(self.paths), pytorch=True)
            wandb.init(project="pmoe", name=str(self.paths[0]), config=asdict(args))
        self.writers = [SummaryWriter(path, purge_step=self.step + 1) for path in self.paths]
        for s, writer in enumerate(self.writers):
            options = [f"    {name}: {value}" for name, value in self.args_of(s).items()]
            writer.add_text("options", "\n".join(options), self.step)
        self.save(self.step)

    def __enter__(self):
        self.handlers = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                self.handlers[number] = signal.signal(number, self.on_signal)
        console = Console()
        # No automatic refresh: a thread of its own would take time from training.
        self.bar = Progress(
            TextColumn("step {task.completed:,} of {task.total:,} ({task.percentage:.0f}%)"),
            TextColumn("{task.description}", table_column=Column()),  # a column that may wrap
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
        if self.evaluating:
            self.evaluate(self.step)
            if self.signals:
                self.stop()
            self.save(self.step)
        return self

    def __exit__(self, kind, error, _) -> None:
        self.hide_bar()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for writer in self.writers:
            writer.close()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fail(f"{error}; the last checkpoint is whole, and --resume goes on from it", 1)

    # Compiling

    def compiled(self, *functions) -> list:
        """The functions, by torch.compile where there is a C++ compiler, on a GPU as CUDA graphs"""
        keep_freed_memory()
        if not self.compiles:
            if self.args.compile != "off":
                say("not compiled, and therefore slower: a C++ compiler or Python.h is missing")
            return list(functions)
        say("compiling at the first update, which takes up to a minute; --compile off skips it")
        os.environ["CXX"] = cxx_compiler()
        torch._dynamo.config.trace_autograd_ops = True  # takes the backward passes into the graph too
        return [self.compiled_when_called(f) for f in functions]

    def compiled_when_called(self, function):
        """The function, which its first call compiles; uncompiled where that fails"""
        options = {"triton.cudagraphs": self.device.type == "cuda" and self.args.compile == "graph"}
        fast = torch.compile(function, fullgraph=True, dynamic=False, options=options)
        used = None  # until it is known whether it can be compiled

        def call(*inputs):
            nonlocal used
            if used:
                return used(*inputs)
            self.is_compiling = True
            try:
                outputs = fast(*inputs)
                used = fast
            except Exception as error:  # noqa: BLE001  a compiler may fail in many ways
                say(f"not compiled, and therefore slower: {shortened(described(error), 200)}")
                for path in self.paths:
                    write_json(path / "config.json", load(path / "config.json") | {"compiled": False})
                outputs = function(*inputs)
                used = function
            self.is_compiling = False
            return outputs

        return call

    # Ends

    def on_signal(self, number: int, _) -> None:
        """The first signal ends training after this step. While it compiles, which takes long, that is at
        once, and so is a second Ctrl-C; a closing terminal may send several others."""
        if self.signals and number != signal.SIGINT:
            return
        self.signals.append(number)
        if len(self.signals) > 1 or self.is_compiling:
            self.hide_bar()
            say("stopped at once, without a checkpoint; the same command with --resume goes on from the last")
            raise SystemExit(128 + number)

    def stop(self) -> NoReturn:
        """Ends the program after a signal and a checkpoint."""
        self.hide_bar()
        say(f"stopped at step {self.step:,}; the same command with --resume goes on")
        raise SystemExit(128 + self.signals[0])

    def hide_bar(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            self.bar.stop()

    def fault(self, i: int, what: str) -> NoReturn:
        """Ends the program: environment i breaks its contract. An exception's last frames go to seedN.log."""
        self.hide_bar()
        each = self.envs.n // len(self.paths)
        when = f"at step {self.first_step + each * self.envs.moves:,}"
        if self.evaluating:
            each = self.args.eval_episodes
            when = f"in the evaluation at step {self.evaluating:,}"
        s = i // each
        what = f"the environment's {what} {when} (seed {self.seeds[s]})"
        if sys.exc_info()[1]:
            log = self.paths[s].with_name(f"{self.paths[s].name}.log")
            with open(log, "a") as file:
                traceback.print_exc(limit=-5, file=file)
            what += f", see {log}"
        fail(f"--env {self.args.env_id}: {what}; the last checkpoint is from before that", 1)

    # Beginning, and going on

    def refuse_others(self) -> None:
        """Ends the program where a folder holds runs of another algorithm of this one's name."""
        for config in self.paths[0].parent.glob("seed*/config.json"):
            recorded = content_of(config)
            file = recorded.get("file")
            if type(file) is not str or recorded.get("source") == source_hash():
                continue
            if file != str(Path(__file__).resolve()):
                which = f"{file}, another algorithm or another version of this file"
                fail(f"{config.parent} holds runs of {which}; give this one a --tag")
            self.other_versions.add(str(config.parent))

    def refuse(self, path: Path) -> None:
        """Ends the program where a run must not be begun, or cannot be gone on with."""
        if not path.exists() or self.args.overwrite:
            if self.args.resume:
                fail(f"{path} does not exist, so there is nothing to --resume{self.nearest(path)}")
            return
        config = load(path / "config.json")
        changed = self.changes(config)
        if changed:
            fail(f"{path} was started with {', '.join(changed)}; keep it, or start another run with a --tag")
        if self.args.resume and config.get("source", source_hash()) != source_hash():
            file = Path(__file__).name
            fail(f"{path} was started with another {file}; to --resume it, cp {path}/source.py {file}")
        finished = finished_step(path)
        is_longer = self.args.total_timesteps > finished
        # A program that is killed while it finishes leaves some seeds finished and others not.
        all_finished = all(finished_step(other) for other in self.paths)
        if finished and not (self.args.resume and (is_longer or not all_finished)):
            longer = "--resume with a larger --total-timesteps makes it longer"
            fail(f"{path} is finished at step {finished:,}; {longer}, --overwrite starts again")
        if not self.args.resume:
            fail(f"{path} exists; --resume continues it, --overwrite starts again")
        if finished and is_longer:
            self.finished = finished
            rollout = getattr(self.args, "num_envs", 1) * getattr(self.args, "num_steps", 1)
            if finished % rollout:
                fail(f"{path} cannot be made longer: its last rollout was cut short at step {finished:,}")
            if self.buffer and not (path / "checkpoint/replay.f32").exists():
                fail(f"{path} cannot be made longer: its replay was deleted, as --no-keep-replay asked")

    def changes(self, config: dict) -> list[str]:
        """What a run's config.json has otherwise, of what must stay the same on resume"""
        before = {**config["args"], "device": config.get("device")}
        now = {**vars(self.args), "device": str(self.device)}
        changed = []
        for name, value in now.items():
            free = name in free_options(self.args) and name != "device"
            if not free and before.get(name) != value:
                changed.append(f"--{name.replace('_', '-')} {before.get(name)}, not {value}")
        return changed

    def nearest(self, path: Path) -> str:
        """In words: the run of this algorithm and environment that differs least, if there is one"""
        others = {}
        for config in sorted(path.parents[1].glob(f"{ALGO}-k*/seed*/config.json")):
            with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                changed = self.changes(load(config))
                if config.parent.name != path.name:
                    changed.append(f"{config.parent.name}, not {path.name}")
                if changed:
                    others[config.parent] = changed
        if not others:
            return ""
        other = min(others, key=lambda other: len(others[other]))
        return f"; {other} was started with {' and '.join(others[other])}"

    def restore(self) -> list[dict]:
        """All seeds, without their files, at the last step of which each has a checkpoint; returns these."""
        last = min(max(path.glob("checkpoint/[0-9]*.pt"), default=path).name for path in self.paths)
        saved = []
        for s, path in enumerate(self.paths):
            file = path / "checkpoint" / last
            if not file.exists() and any(path.glob("checkpoint/[0-9]*.pt")):
                lacks = f"{path} has no checkpoint of step {int(file.stem):,}, as another seed has"
                fail(f"{lacks}; --resume seeds that stand at different steps one by one")
            state = load(file)
            try:
                self.take_up(s, state)
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
                fail(f"{file} is damaged ({described(error)}); start again with --overwrite")
            if state["step"] > self.args.total_timesteps:
                fail(f"{path} is already at step {state['step']:,}, beyond --total-timesteps")
            saved.append(state)
        return saved

    def take_up(self, s: int, saved: dict) -> None:
        """Seed s as it was at a checkpoint, but for its files. Many errors: the checkpoint is damaged."""
        if not 0 <= saved["step"] <= 10**12 or not 0 <= saved["wall_time"] < 10**12:
            raise ValueError("step or wall_time")
        for name, header in HEADERS.items():
            text = saved["csv"][name]
            if text.partition("\n")[0] not in (header, header + SUCCESS) or not text.isascii():
                raise ValueError(f"{name}.csv")
            last_row(text)
        if self.buffer:
            self.buffer.check_file(self.paths[s] / "checkpoint/replay.f32", saved)
        for name, x in self.learnt(s).items():
            y = saved["learnt"][name]
            # copy_ would take other shapes and types.
            if x.shape != y.shape or x.dtype != y.dtype or not y.isfinite().all():
                raise ValueError(name)
            x.copy_(y)
        best = saved["best"]
        if best:
            if type(best["return_mean"]) is not float:
                raise ValueError("best")
            self.best[s] = best
        self.evaluating = saved["step"] if saved["evaluating"] else 0
        episodes = [saved[name] for name in ("random_state", "actions", "obs", "returns")]
        for i, random_state, actions, obs, total in zip(self.envs_of(s), *episodes, strict=True):
            actions = actions.reshape(len(actions), self.envs.action_size)
            if not self.envs.replay(i, random_state, actions.numpy(), obs.numpy(), total.item()):
                self.inexact.add(s)
        set_global_state(saved["global_random_state"])  # last, as environments may draw from it

    def create(self, s: int) -> None:
        """A new run directory of seed s"""
        path = self.paths[s]
        shutil.rmtree(path, ignore_errors=True)  # there is none, or --overwrite
        (path / "checkpoint").mkdir(parents=True)
        file = Path(__file__).resolve()
        config = {"algo": ALGO, "file": str(file), "source": source_hash(), "device": str(self.device)}
        config |= {"compiled": self.compiles, "command": sys.argv, "commit": commit_of(file)}
        config["env"] = self.envs.envs[0].spec.id  # with its version, which the option may leave out
        packages = {"torch", "gymnasium", "numpy", "mujoco"}
        packages |= {"dm_control", "shimmy", "envpool", "gymnasium_robotics"}
        config["versions"] = {name: metadata.version(name) for name in sorted(packages & set(sys.modules))}
        config["args"] = self.args_of(s)
        write_json(path / "config.json", config)
        shutil.copyfile(file, path / "source.py")
        for name, header in HEADERS.items():
            (path / f"{name}.csv").write_text(f"{header}\n")

    def rewind(self, s: int, saved: dict) -> None:
        """The files of seed s as they were at a checkpoint"""
        path = self.paths[s]
        (path / "done.json").unlink(missing_ok=True)  # first: the run is made longer, and may be killed here
        for name in HEADERS:
            (path / f"{name}.csv").write_text(saved["csv"][name])
        if self.buffer:
            self.buffer.read_from(path / "checkpoint/replay.f32", s, saved["replay"])
        episode = last_row(saved["csv"]["episodes"])
        if episode:
            self.last_returns[s] = episode["episodic_return"]
        evaluation = last_row(saved["csv"]["eval"])
        if evaluation:
            self.last_evaluations[s] = evaluation["return_mean"]
        config = load(path / "config.json")
        config |= {"args": self.args_of(s), "compiled": self.compiles}  # which may change
        if s in self.inexact:
            config["inexact_resumes"] = [*config.get("inexact_resumes", []), saved["step"]]
        write_json(path / "config.json", config)

    def say_what_is_odd(self) -> None:
        """What its user should know about a run before it begins"""
        env_id = self.args.env_id
        if self.other_versions:
            old = ", ".join(sorted(self.other_versions))
            say(f"note: {Path(__file__).name} has changed since it began {old}; one curve will mix the two")
        if self.finished:
            say(f"finished at step {self.finished:,}; made longer, to {self.args.total_timesteps:,}")
        for s in sorted(self.inexact):
            why = f"not all of the state of {env_id} is in its np_random"
            say(f"note: seed {self.seeds[s]} cannot be resumed exactly and begins a new episode: {why}")
        env = self.envs.envs[0]
        if isinstance(env, gym.wrappers.FlattenObservation):
            space = shortened(str(env.env.observation_space), 200)
            say(f"observations are flattened to {self.envs.obs_size} numbers: {space}")
        if env.spec and env.spec.max_episode_steps is None:
            limit = f"--env {env_id},max_episode_steps=1000"
            say(f"note: {env_id} has no time limit, and an episode may never end; {limit} would set one")
        if self.buffer:
            say(self.buffer.needs(self.args))

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
            # The first axis is S, or a multiple where a seed has several networks. All seeds share the rest.
            state[name] = x.unflatten(0, (len(self.paths), -1))[s] if x.dim() > 1 else x
        return state

    # While it runs

    def due(self, every: int, step: int) -> bool:
        """Whether a multiple of `every` lies between the last step looked at and this one"""
        return step // every > self.step // every

    def end_of_step(self, step: int, figures: dict[str, Tensor]) -> None:
        """Evaluation, progress, TensorBoard and checkpoint, where they are due; the end, after a signal"""
        last = step == self.args.total_timesteps
        if self.due(self.args.eval_every, step):
            self.check_finite(step, figures)
            self.evaluate(step)
        stop = bool(self.signals)
        # A buffer that is full overwrites its oldest rows, which the file must have by then.
        checkpoint_every = min(self.args.checkpoint_every, self.buffer.capacity if self.buffer else 10**12)
        save = last or stop or self.due(checkpoint_every, step)
        if save or self.due(100, step) or step > self.step + 1:
            self.check_finite(step, figures)
        if last or self.due(1000, step):
            self.log(step, figures)
        elif time.monotonic() > self.shown + 1:
            self.show(step)
        self.step = step
        if save:
            self.save(step)
        if stop:
            self.stop()

    def check_finite(self, step: int, figures: dict[str, Tensor]) -> None:
        """Ends the program where a figure, or anything that is learnt, is not finite."""
        for name, x in {**figures, **self.agent.state_dict()}.items():
            if not x.isfinite().all():
                self.hide_bar()  # it takes what goes to stderr
                fail(f"{name} is not finite at step {step}; the last checkpoint is from before that", 1)

    def evaluate(self, step: int) -> None:
        """Returns of the deterministic policy in other environments; on resume if a signal cut it short"""
        self.evaluating = step
        before = global_state()
        actor = copy.deepcopy(self.agent.actor)  # a policy with a memory begins anew
        returns = self.eval_envs.evaluate(actor.act, self.seeds, step, self.signals)
        # Training goes on as if there had been no evaluation, also where environments draw from it.
        set_global_state(before)
        if self.signals:
            return
        self.evaluating = 0
        success = self.eval_envs.success.reshape(*returns.shape, 2)
        for s, of_seed in enumerate(returns):
            mean, std = of_seed.mean(), of_seed.std()
            values = {"eval_return": mean, "eval_return_std": std, "eval_episodes": len(of_seed)}
            self.record(s, "eval", step, values, success[s])
            self.last_evaluations[s] = mean
            if s not in self.best or mean > self.best[s]["return_mean"]:
                learnt = {name: x.clone() for name, x in self.learnt(s).items() if name.startswith("actor.")}
                self.best[s] = {"step": step, "return_mean": float(mean), "learnt": learnt}

    def record_episode(self, i: int, step: int) -> None:
        """The episode that environment i has just finished"""
        s = i // (self.envs.n // len(self.paths))
        self.last_returns[s] = self.envs.returns[i]
        values = {"episodic_return": self.envs.returns[i], "episodic_length": len(self.envs.actions[i])}
        self.record(s, "episodes", step, values, self.envs.success[[i]])

    def record(self, s: int, name: str, step: int, values: dict, success: np.ndarray) -> None:
        """A line of seed s's NAME.csv, and the same in TensorBoard; success (E, 2) of the line's episodes"""
        path = self.paths[s] / f"{name}.csv"
        with open(path) as file:
            has_success = SUCCESS in file.readline()
        if not has_success and not np.isnan(success).all():
            # The first that is told. Where none was told before, none was reached.
            header, *rows = path.read_text().splitlines()
            lines = [header + SUCCESS, *(f"{row},0.0,0.0" for row in rows), ""]
            write_whole(path, "\n".join(lines).encode())
            has_success = True
        if has_success:
            share, final_share = np.nan_to_num(success).mean(0)
            values |= {f"{name}_success": share, f"{name}_final_success": final_share}
        with open(path, "a") as file:
            print(step, *values.values(), sep=",", file=file)
        for key, value in values.items():
            self.writers[s].add_scalar(f"charts/{key}", value, step)

    def log(self, step: int, figures: dict[str, Tensor]) -> None:
        """Figures to TensorBoard, progress to the terminal or, where there is none, as a line"""
        self.show(step)
        if self.bar.disable:
            share = f"{self.args.total_timesteps:,} ({self.task.percentage:.0f}%)"
            say(f"step {step:,} of {share}  {self.task.description}")
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
        with contextlib.suppress(OSError):  # the terminal is gone
            self.bar.refresh()

    def save(self, step: int) -> None:
        """A checkpoint of every seed. Those before go once all are on the disk."""
        files = [path / f"checkpoint/{step:010}.pt" for path in self.paths]
        for s, file in enumerate(files):
            self.writers[s].flush()
            content = io.BytesIO()
            torch.save(self.state(s, step), content)  # to memory first: torch has no words for a full disk
            write_whole(file, content.getbuffer())
        for s, file in enumerate(files):
            self.save_best(s)
            written = sorted(file.parent.glob("[0-9]*.pt"))
            until_now = written[: written.index(file) + 1]
            for old in set(written) - set(until_now[-self.args.keep_checkpoints :]):
                old.unlink()

    def save_best(self, s: int) -> None:
        """checkpoint/best.pt of seed s: the policy alone; none before the first evaluation"""
        file = self.paths[s] / "checkpoint/best.pt"
        if s in self.best:
            content = io.BytesIO()
            torch.save(self.best[s], content)
            write_whole(file, content.getbuffer())
        else:
            file.unlink(missing_ok=True)

    def state(self, s: int, step: int) -> dict:
        """All that an exact resume of seed s needs"""
        path = self.paths[s]
        state = {
            "step": step,
            "wall_time": time.monotonic() - self.began,
            "csv": {name: (path / f"{name}.csv").read_text() for name in HEADERS},
            "learnt": {name: x.clone() for name, x in self.learnt(s).items()},
            "best": self.best.get(s, {}),
            "evaluating": bool(self.evaluating),
            "global_random_state": global_state(),
            "random_state": [self.envs.random_state[i] for i in self.envs_of(s)],
            "actions": [torch.tensor(np.array(self.envs.actions[i])) for i in self.envs_of(s)],
            "obs": torch.tensor(self.envs.obs[self.envs_of(s)]),
            "returns": torch.tensor(self.envs.returns[self.envs_of(s)]),
        }
        if self.buffer:
            state["replay"] = self.buffer.append_to(path / "checkpoint/replay.f32", s)
        return state

    def finish(self) -> list[Path]:
        """The last evaluation, where it was not due anyway, and done.json; returns the run directories."""
        total = self.args.total_timesteps
        if any(last_row((path / "eval.csv").read_text()).get("step") != total for path in self.paths):
            # A run that is made longer would not have made this one: no checkpoint holds it.
            self.evaluate(total)
            if self.signals:
                self.stop()
            self.hide_bar()
            say(f"evaluation at step {total:,}: {spread(self.last_evaluations)}")
        for s, path in enumerate(self.paths):
            self.save_best(s)
            figures = {"step": total, "wall_time": time.monotonic() - self.began}
            write_json(path / "done.json", last_row((path / "eval.csv").read_text()) | figures)
        # Now that all are done: those that are not are resumed with their replay.
        if self.buffer and not self.args.keep_replay:
            for path in self.paths:
                (path / "checkpoint/replay.f32").unlink()
        return self.paths


def say(*words) -> None:
    """Prints a line. Where nobody reads any more (`| head -1`, a terminal that is gone), training goes on."""
    try:
        print(*words, flush=True)
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO):
            # So that neither the next line nor the interpreter's own end fails.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def described(error: BaseException) -> str:
    """An exception in one line; the messages of Gymnasium, and of ValueErrors, need no name."""
    message = " ".join(str(error).split())
    if message and isinstance(error, (gym.error.Error, ValueError)):
        return message
    return f"{type(error).__name__}: {message}"


def shortened(text: str, length: int = 60) -> str:
    """In one line, its end cut off"""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[:length]}..."


def commit_of(file: Path) -> str:
    """The commit of the repository that a file belongs to; "" where there is none, or it only surrounds it"""
    git = ["git", "-C", str(file.parent)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True)
        describe = [*git, "describe", "--always", "--dirty"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def spread(values: dict[int, float]) -> str:
    """130, or, of several seeds, their mean and range: 130 (90 to 170)"""
    if not values:
        return "-"
    numbers = list(values.values())
    mean = f"{np.mean(numbers):.0f}"
    return mean if len(numbers) == 1 else f"{mean} ({min(numbers):.0f} to {max(numbers):.0f})"


def last_row(text: str) -> dict[str, float]:
    """The last row of a CSV text by its columns; empty if there is none. ValueError: these are no numbers."""
    names, *rows = text.split()
    if not rows:
        return {}
    return dict(zip(names.split(","), map(float, rows[-1].split(",")), strict=True))


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


def content_of(file: Path) -> dict:
    """What a JSON file holds; empty where it is damaged"""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def finished_step(path: Path) -> int:
    """The step at which a run was finished; 0: it is not, or its done.json is damaged"""
    step = content_of(path / "done.json").get("step")
    return step if type(step) is int else 0


def load(path: Path) -> dict:
    """A config.json or a checkpoint, on the CPU; ends the program if it is damaged."""
    try:
        if path.suffix == ".json":
            config = json.loads(path.read_text())
            return {**config, "args": dict(config["args"])}
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch does not look at them
                raise ValueError("a checksum does not match")
        return dict(torch.load(path, "cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001  torch raises many kinds
        anew = "start again, without --resume or with --overwrite"
        fail(f"{path} is missing or damaged ({shortened(described(error), 100)}); {anew}")


def load_part(run_dir: str | Path, part: str, checkpoint: str = "last") -> dict[str, Tensor]:
    """The state_dict of a part of the agent, as "actor", in the last checkpoint, the best or a step's"""
    folder = Path(run_dir, "checkpoint")
    if checkpoint == "last":
        file = max(folder.glob("[0-9]*.pt"), default=folder)
    elif checkpoint == "best":
        file = folder / "best.pt"
    else:
        file = folder / f"{int(checkpoint):010}.pt"
    learnt = load(file).get("learnt")
    if type(learnt) is not dict:
        fail(f"{file} is damaged; start again, without --resume or with --overwrite")
    return {name.removeprefix(f"{part}."): x for name, x in learnt.items() if name.startswith(f"{part}.")}


def check(args: Args) -> None:
    """Ends the program where a value is out of its range, or two options contradict each other."""
    from_zero = ("seed", "random_steps", "baseline_samples")
    highest = dict.fromkeys(("gamma", "gae_lambda", "tau", "learning_rate", "alpha_learning_rate"), 1)
    highest |= dict.fromkeys(("k", "num_seeds", "eval_episodes", "num_envs", "update_epochs"), 1000)
    highest["hidden"] = 10_000
    hints = get_type_hints(Args)
    for name, value in asdict(args).items():
        option = f"--{name.replace('_', '-')}"
        if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            fail(f"{option} must be {' or '.join(get_args(hints[name]))}, not {value}")
        if type(value) in (int, float):
            low = 1 if hints[name] is int and name not in from_zero else 0
            high = highest.get(name, 10**12)
            # A fork may give an option a default outside this range. Then the range is the fork's own affair.
            default = getattr(Args, name)
            has_own_range = type(default) in (int, float) and not low <= default <= high
            if not has_own_range and not low <= value <= high:  # NaN too
                fail(f"{option} must be from {low} to {high:g}, not {value}")
        # Control characters, and halves of characters, which no file can hold
        if type(value) is str and re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", value):
            fail(f"{option} must be printable text, not {value!r}")
    for name in ("eval_episodes", "num_envs"):
        if args.num_seeds * getattr(args, name, 1) > 10_000:
            fail(f"--num-seeds times --{name.replace('_', '-')} must be at most 10,000 environments")
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


def check_memory(args: Args, device: torch.device, envs: Envs) -> None:
    """Ends the program where training certainly needs more memory than there is."""
    needed = memory_needed(args, envs)
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError, IndexError):  # no container, or one without a limit
        group = Path("/proc/self/cgroup").read_text().split("::")[1].strip()
        sizes.append(int(Path(f"/sys/fs/cgroup{group}/memory.max").read_text()))
    if device.type == "cuda":
        sizes = [torch.cuda.mem_get_info(device)[1]]
    if needed > min(sizes):
        needs = f"{needed / 1e9:,.1f} GB of memory at least, and there are {min(sizes) / 1e9:,.1f} GB"
        fail(f"this would take {needs}; fewer seeds, or a smaller buffer or batch, need less")


def begin(args: Args, on_gpu: bool) -> tuple[Philox, Envs]:
    """Random numbers and environments of all seeds. Ends the program on bad options or for want of memory."""
    check(args)
    random.seed(args.seed)  # some environments draw from these
    np.random.seed(args.seed % 2**32)
    seeds = range(args.seed, args.seed + args.num_seeds)
    rng = Philox(seeds, torch.device("cuda" if on_gpu and torch.cuda.is_available() else "cpu"))
    starts = seeds
    if hasattr(args, "num_envs"):  # the PPO family; the 1 tells them from an evaluation's at step 0
        starts = np.concatenate([random_seeds(args.num_envs, seed, 0, 1) for seed in seeds])
    envs = Envs(args.env_id, len(starts))
    envs.start(starts)
    check_memory(args, rng.device, envs)
    # Moments of units that died decay to numbers below 1e-38, with which processors are slow. They become 0.
    torch.set_flush_denormal(True)
    return rng, envs


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line; status 2 is bad input, 1 what went wrong on the way."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    try:
        train(tyro.cli(Args))
    except OSError as error:
        fail(str(error), 1)
