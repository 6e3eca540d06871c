"""PMOE-PPO: proximal policy optimisation whose policy is a mixture of K Gaussian primitives behind a router.

The policy is pi(a|s) = sum_k w_k(s) N_k(a|s) (eq. 4). The clipped surrogate takes the ratio of mixture densities or,
with --surrogate primitive, of those of the primitive that acted (eq. 10). A critic Q(s, a), regressed on the lambda-
return, names the best of K fresh actions (eq. 6) for the frequency loss (eq. 7). K = 1 is PPO (arXiv 1707.06347).

Ren et al., "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning", arXiv 2104.09122, sections 3.2
to 3.5, table 1b. It does not say where Q comes from; this is its co-author's recipe. Not printed: running statistics of
observations and rewards, log sigma without the state, no tanh, a detached router, minibatches across passes.

    python pmoe_ppo.py --env HalfCheetah-v4 --k 4 --seed 1 --num-seeds 5   # --k 1 is PPO; --resume goes on
"""

import ast
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass, replace
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Generator, Tensor, nn
from torch.utils.tensorboard import SummaryWriter

ALGO = Path(__file__).stem.replace("pmoe_ppo", "ppo")  # in the name of its runs; a fork's is its own
FREE = ("seed", "num_seeds", "run_dir", "device", "checkpoint_every", "resume", "overwrite", "track")
CSV = {"episodes": "step,episodic_return,episodic_length\n", "eval": "step,return_mean,return_std,episodes\n"}


@dataclass
class Args:
    """PMOE-PPO: proximal policy optimisation with a mixture of K Gaussian primitives behind a router. K = 1 is PPO."""

    env_id: Annotated[str, tyro.conf.arg(aliases=["--env"])] = "HalfCheetah-v4"  # Gymnasium ID, or ID,option=value,...
    k: int = 4  # number of primitives; the paper: 4, Humanoid and HumanoidStandup 8
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds trained side by side in this process: seed, seed + 1, ...
    total_timesteps: int = 1_000_000  # environment steps of each seed
    run_dir: str = "runs"  # where runs are kept: RUN_DIR/ENV/ALGO-kK[-TAG]/seedN
    tag: str = ""  # name of this configuration; default: a hash of what differs from the defaults, if anything does
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cpu, as is usual for networks this small
    compile: Literal["graph", "on", "off"] = "graph"  # torch.compile; graph: on a GPU replay it as a CUDA graph too
    env_backend: Literal["gymnasium", "envpool"] = "gymnasium"  # envpool: in threads, for many seeds on many cores
    eval_every: int = 10_000  # steps between evaluations of the deterministic policy, made at the end of a rollout
    eval_episodes: int = 10  # episodes of an evaluation
    checkpoint_every: int = 10_000  # steps between checkpoints, made at the end of a rollout; Ctrl-C and SIGTERM too
    resume: bool = False  # go on from the last checkpoint
    overwrite: bool = False  # delete an earlier run of the same name first
    track: bool = False  # log to Weights & Biases too; needs wandb
    num_envs: int = 1  # environments of each seed
    num_steps: int = 2000  # steps of a rollout in each environment
    gamma: float = 0.99  # discount factor
    gae_lambda: float = 0.95  # lambda of generalised advantage estimation
    learning_rate: float = 3e-4  # Adam's, for policy and critics
    anneal_lr: bool = False  # let the learning rate fall to 0 over the run
    minibatch_size: int = 64  # transitions of a minibatch
    update_epochs: int = 20  # passes over a rollout
    clip_coef: float = 0.2  # the ratio is clipped to 1 - clip_coef and 1 + clip_coef
    ent_coef: float = 0.0  # weight of the joint entropy of primitive and action; the paper prints 0.2, no code has it
    vf_coef: float = 0.5  # weight of the value loss
    max_grad_norm: float = 0.5  # each seed's gradient is clipped to it
    target_kl: float | None = None  # beyond 1.5 times this approximate KL a seed waits for the next rollout
    surrogate: Literal["mixture", "primitive"] = "mixture"  # ratio of pi, or of the acting primitive (router: eq. 7)
    detach_router: bool = True  # keep the router's losses out of the trunk


def fail(message: str, status: int = 2) -> NoReturn:  # Copied from pmoe_sac.fail
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)  # 2: bad input, 1: it went wrong on the way


def check(args: Args) -> None:  # Copied from pmoe_sac.check
    for name, value in asdict(args).items():
        low = 0 if type(value) is float or name in ("seed", "random_steps", "baseline_samples") else 1
        high = 1 if name in ("gamma", "gae_lambda", "tau", "learning_rate") else 10**12
        if type(value) in (int, float) and not low <= value <= high:  # NaN too
            fail(f"--{name.replace('_', '-')} must be from {low} to {high:g}, not {value}")
    if args.resume and args.overwrite:
        fail("--resume goes on with a run and --overwrite deletes it: give one of them")
    if args.track and not util.find_spec("wandb"):
        fail("--track needs wandb: pip install wandb")
    if args.device == "cuda" and not torch.cuda.is_available():
        fail("--device cuda: torch finds no CUDA GPU here; use --device cpu or auto")


class Envs:  # Copied from pmoe_sac.Envs
    def __init__(self, env_id: str, n: int, backend: str = "gymnasium", **kwargs):
        """n environments of one task with flat Box spaces. None resets itself: the last observation is the true one."""
        parts = re.split(r",(\w+)=([-+\d.e]+|True|False|None|'[^']*')", env_id)  # ID, option, value, rest, option, ...
        try:
            name, options = "".join(parts[::3]), dict(zip(parts[1::3], map(ast.literal_eval, parts[2::3])))
            self.envs = [gym.make(name, **options, **kwargs) for _ in range(n if backend == "gymnasium" else 0)]
            self.new_pool = lambda **seed: import_module("envpool").make_gymnasium(name, num_envs=n, **options, **seed)
            self.pool = None if self.envs else self.new_pool()
        except Exception as error:  # noqa: BLE001  environments raise anything; the messages name what is near
            fail(f"--env {env_id}, --env-backend {backend}: {error}")
        spaces = [getattr(self.pool or self.envs[0], f"{name}_space") for name in ("observation", "action")]
        if not all(isinstance(x, gym.spaces.Box) and len(x.shape) == 1 for x in spaces) or not spaces[1].is_bounded():
            fail(f"--env {env_id} needs flat Box spaces, bounded for actions, but has {spaces[0]} and {spaces[1]}")
        self.obs_size, (self.low, self.high) = spaces[0].shape[0], np.float32([spaces[1].low, spaces[1].high])
        self.n, self.obs, self.returns = n, np.zeros((n, self.obs_size)), np.zeros(n)
        self.random_state, self.actions = [{}] * n, [[] for _ in range(n)]  # at the last reset, and since then

    def start(self, seeds) -> None:
        """Begins anew, each environment from its seed."""
        self.pool = self.pool and self.new_pool(seed=[*map(int, seeds)])
        for env, seed in zip(self.envs, seeds):
            env.reset(seed=int(seed))  # gives it its generator
        for i in range(self.n):
            self.reset(i)

    def reset(self, i: int, random_state: dict | None = None, actions=()) -> None:
        """The next episode of environment i, or an earlier one up to where it was; EnvPool's begins a new one."""
        if self.envs:
            generator = self.envs[i].unwrapped.np_random.bit_generator
            generator.state = self.random_state[i] = random_state or generator.state
        self.obs[i] = self.pool.reset(np.int32([i]))[0][0] if self.pool else self.envs[i].reset()[0]
        self.returns[i], self.actions[i] = 0, []
        for action in actions if self.envs else ():
            self.step(action[None], np.int32([i]))

    def step(self, action: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """Moves environments `ids`: (n, A) -> next_obs (n, O), reward, terminated and truncated (n,)"""
        each = (self.envs[i].step(a.copy()) for i, a in zip(ids, action))
        results = self.pool.step(action, ids) if self.pool else zip(*each)
        self.obs[ids], reward, terminated, truncated = (np.array(x) for _, x in zip(range(4), results))
        self.returns[ids] += reward
        for i, a in zip(ids, action):
            self.actions[i].append(a)
        return self.obs[ids], reward, terminated, truncated

    def evaluate(self, act, seeds, step: int) -> np.ndarray:
        """Undiscounted returns (S, E), new episodes at every step of a run; act: (S, E, O) -> (S, E, A)"""
        n, running = self.n // len(seeds), np.arange(self.n, dtype=np.int32)
        self.start(np.concatenate([np.random.SeedSequence([seed, step]).generate_state(n) // 2 for seed in seeds]))
        while len(running):
            action = act(torch.as_tensor(self.obs, dtype=torch.float32).unflatten(0, (-1, n))).flatten(0, 1).numpy()
            _, _, terminated, truncated = self.step(action[running].clip(self.low, self.high), running)
            running = running[~(terminated | truncated)]
        return self.returns.reshape(-1, n).copy()


class Linear(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, gain: float, generators: list[Generator]):
        """S linear layers side by side, (S, B, in) -> (S, B, out), each orthogonal at first, by its generator."""
        super().__init__()
        empty = (torch.empty(fan_in, fan_out, device=g.device) for g in generators)
        weight = torch.stack([nn.init.orthogonal_(x, gain, g) for x, g in zip(empty, generators)])
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros_like(weight[:, :1]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Statistics(nn.Module):
    def __init__(self, size: int, generators: list[Generator]):
        """Mean and spread of all that each of S seeds has seen, from its sums of 1, x and x^2 in double precision."""
        super().__init__()
        self.register_buffer("sums", torch.zeros(len(generators), 3, size, device=generators[0].device).double())

    def update(self, x: Tensor) -> None:  # (S, B, size)
        self.sums += torch.stack([torch.ones_like(x), x, x.double().square()], 1).sum(2)

    def normalize(self, x: Tensor, centered: bool = True) -> Tensor:
        """x (S, B, size) in standard deviations, from the mean or from 0, at most 10"""
        mean, square = (self.sums[:, 1:] / self.sums[:, :1].clamp(min=1)).split(1, 1)
        return ((x - mean * centered) / (square - mean.square()).clamp(min=1e-8).sqrt()).clamp(-10, 10).to(x.dtype)


class Actor(nn.Module):
    def __init__(self, obs_size: int, k: int, action_size: int, generators: list[Generator], detach_router=True):
        """The mixture policy (eq. 4) of S seeds, a generator each, and the statistics of the observations it saw."""
        super().__init__()
        self.k, self.detach_router, self.statistics = k, detach_router, Statistics(obs_size, generators)
        self.fc1, self.fc2 = (Linear(n, 64, 2**0.5, generators) for n in (obs_size, 64))
        self.mean, self.router = (Linear(64, n, 0.01, generators) for n in (k * action_size, k))
        self.log_std = nn.Parameter(torch.zeros(len(generators), k, action_size, device=generators[0].device))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """normalised obs (S, B, O) -> mean (S, B, K, A), log_std (S, 1, K, A), log_w (S, B, K)"""
        x = torch.tanh(self.fc2(torch.tanh(self.fc1(obs))))
        log_w = self.router(x.detach() if self.detach_router else x).log_softmax(-1)
        return self.mean(x).unflatten(-1, (self.k, -1)), self.log_std.unsqueeze(1), log_w

    @torch.no_grad()
    def act(self, obs: Tensor, choose=None) -> Tensor:
        """Mean action (S, B, A) of the primitive that `choose` takes by log_w (S, B, K), or of the likeliest"""
        mean, _, log_w = self(self.statistics.normalize(obs.to(self.log_std.device)))
        chosen = choose(log_w) if choose else log_w.argmax(-1, keepdim=True)
        return mean.take_along_dim(chosen.unsqueeze(-1), 2).squeeze(2).cpu()


def mlp(fan_in: int, fan_out: int, gain: float, generators: list[Generator]) -> nn.Module:
    """A network for each generator, as V and Q are: (S, B, fan_in) -> (S, B, fan_out)"""
    fc1, fc2, fc3 = (Linear(*x, generators) for x in ((fan_in, 64, 2**0.5), (64, 64, 2**0.5), (64, fan_out, gain)))
    return nn.Sequential(fc1, nn.Tanh(), fc2, nn.Tanh(), fc3)


def draw_primitive(log_w: Tensor, uniform: Tensor) -> Tensor:  # Copied from pmoe_sac.draw_primitive
    """J draws k ~ w a state, by the inverse of its distribution function: (S, B, K), (S, B, J) -> (S, B, J)"""
    return (log_w.exp().cumsum(-1).unsqueeze(2) < uniform.unsqueeze(-1)).sum(-1).clamp(max=log_w.shape[-1] - 1)


def log_density(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:  # Copied from pmoe_sac.log_density
    """log N(u; mean, std^2), summed over the last axis"""
    return (-0.5 * ((u - mean) / log_std.exp()).square() - log_std - 0.9189385332046727).sum(-1)  # log sqrt(2 pi)


def frequency_loss(log_w: Tensor, best: Tensor) -> Tensor:  # Copied from pmoe_sac.frequency_loss
    """sum_k (v_k - w_k)^2 with v the one-hot of the best primitive (eq. 7): (S, B, K), (S, B, 1) -> (S, B)"""
    return (torch.zeros_like(log_w).scatter(-1, best, 1.0) - log_w.exp()).square().sum(-1)


def surrogate_loss(ratio: Tensor, advantage: Tensor, clip_coef: float) -> Tensor:
    """-min(r A, clip(r, 1 - c, 1 + c) A) with the ratio r = pi(a|s) / pi_old(a|s) (arXiv 1707.06347, eq. 7)"""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_coef, 1 + clip_coef) * advantage)


def gae(reward, value, next_value, terminated, done, gamma, gae_lambda) -> Tensor:
    """Generalised advantages (arXiv 1506.02438, eq. 16), (S, T, E, 1). next_value is of true next observations: time
    limits bootstrap from it, terminations (also `done`) do not. Within a chain the next step's value itself counts."""
    next_value = torch.cat([torch.where(done[:, :-1] > 0, next_value[:, :-1], value[:, 1:]), next_value[:, -1:]], 1)
    advantage = reward + gamma * (1 - terminated) * next_value - value
    steps, keep = advantage.unbind(1), (gamma * gae_lambda * (1 - done)).unbind(1)
    for t in reversed(range(len(steps) - 1)):
        steps[t].addcmul_(keep[t], steps[t + 1])
    return advantage


class Agent(nn.Module):
    def __init__(self, args: Args, obs_size: int, action_size: int, generators: list[Generator]):
        """Networks and update of S seeds, independent: a loss is summed over them, gradients are clipped one by one."""
        super().__init__()
        self.args, self.draws = args, args.k  # random vectors that the policy takes for a state
        self.actor = Actor(obs_size, args.k, action_size, generators, args.detach_router)
        self.vf, self.qf = (mlp(n, 1, 1.0, generators) for n in (obs_size, obs_size + action_size))
        self.returns, self.sizes = Statistics(1, generators), (obs_size, action_size, 1, 1)  # of discounted returns
        self.register_buffer("discounted", torch.zeros(len(generators), args.num_envs, 1, device=generators[0].device))
        self.register_buffer("rate", self.discounted[:, :1] + args.learning_rate)  # of each seed
        self.learning = [*self.actor.parameters(), *self.vf.parameters(), *self.qf.parameters()]
        self.adam = nn.ModuleList(nn.ParameterList([x * 0, x * 0, *x.new_ones(2, len(x), 1, 1)]) for x in self.learning)

    def minimize(self, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        """A step of Adam (arXiv 1412.6980) on tensors alone, each seed's gradient clipped; none where its rate is 0."""
        moments = [x for p in parameters for q, x in zip(self.learning, self.adam) if q is p]
        gradients = torch.autograd.grad(loss.sum(), parameters)
        with torch.no_grad():
            norm = sum(x.square().sum((1, 2), keepdim=True) for x in gradients).sqrt()  # (S, 1, 1)
            clip, active = (self.args.max_grad_norm / (norm + 1e-6)).clamp(max=1), (self.rate > 0).to(norm.dtype)
            for p, gradient, (m, v, beta1, beta2) in zip(parameters, gradients, moments):  # 0.9**step, 0.999**step
                beta1.mul_(1 - 0.1 * active), beta2.mul_(1 - 0.001 * active)
                gradient = torch.where(active > 0, gradient * clip, 0)
                m.lerp_(gradient, 0.1 * active), v.lerp_(gradient.square(), 0.001 * active)
                p.sub_(self.rate * m / (1 - beta1 + 1e-12) / ((v / (1 - beta2 + 1e-12)).sqrt() + 1e-5))  # not 0/0

    def log_prob(self, action: Tensor, chosen: Tensor, mean: Tensor, log_std: Tensor, log_w: Tensor) -> Tensor:
        """log pi(a|s) or, with --surrogate primitive, log N_k(a|s) (eq. 10) of what the actor says of s, (S, B, 1)"""
        own = log_density(action.unsqueeze(2), mean, log_std)  # (S, B, K)
        mixture = self.args.surrogate == "mixture"
        return torch.logsumexp(log_w + own, -1, keepdim=True) if mixture else own.gather(-1, chosen.long())

    @torch.no_grad()
    def draw(self, obs: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
        """Sees obs (S, E, O), draws k ~ w and a ~ N_k: normalised obs, a, k, log-density in one, (S, E, O + A + 2)"""
        self.actor.statistics.update(obs)
        obs = self.actor.statistics.normalize(obs)
        mean, log_std, log_w = self.actor(obs)
        chosen = draw_primitive(log_w, uniform[..., :1])
        action = (mean + log_std.exp() * noise).take_along_dim(chosen.unsqueeze(-1), 2).squeeze(2)
        return torch.cat([obs, action, chosen, self.log_prob(action, chosen, mean, log_std, log_w)], -1)

    @torch.no_grad()
    def rollout(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """T steps (S, T, E, .), what `draw` said, next_obs, reward, terminated and done -> rows (S, T E, O + A + 4) to
        learn from, what `draw` said, advantage and lambda-return; and the explained variance (S,)"""
        drawn, next_obs, reward, terminated, done = steps.split((sum(self.sizes), self.sizes[0], 1, 1, 1), -1)
        returns = reward.clone()
        for now, cut in zip(returns.unbind(1), done.unbind(1)):
            now.add_(self.discounted, alpha=self.args.gamma)
            self.discounted.copy_(now * (1 - cut))
        self.returns.update(returns.flatten(1, 2))
        reward = self.returns.normalize(reward.flatten(1, 2), centered=False).view_as(done)
        next_obs = self.actor.statistics.normalize(next_obs.flatten(1, 2))
        value, next_value = (self.vf(x).view_as(done) for x in (drawn.flatten(1, 2)[..., : self.sizes[0]], next_obs))
        advantage = gae(reward, value, next_value, terminated, done, self.args.gamma, self.args.gae_lambda)
        rows = torch.cat([drawn, advantage, advantage + value], -1).flatten(1, 2)
        return rows, 1 - rows[..., -2].var(1) / rows[..., -1].var(1)

    def update(self, rows: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """A step of all that is learnt on B of a rollout's rows, with normal noise (S, B, K, A)"""
        args, (mean, log_std, log_w) = self.args, self.actor(rows[..., : self.sizes[0]])
        obs, action, chosen, old_log_prob, advantage, returns = rows.split((*self.sizes, 1, 1), -1)
        log_ratio = self.log_prob(action, chosen, mean, log_std, log_w) - old_log_prob
        ratio, approx_kl = log_ratio.exp(), (log_ratio.exp() - 1 - log_ratio).mean((1, 2))  # (S,)
        if args.target_kl is not None:
            self.rate.mul_((approx_kl <= 1.5 * args.target_kl).view(-1, 1, 1))
        advantage = (advantage - advantage.mean(1, True)) / (advantage.std(1, keepdim=True) + 1e-8)
        policy_loss = surrogate_loss(ratio, advantage, args.clip_coef).mean((1, 2))
        value_loss = 0.5 * (self.vf(obs) - returns).square().mean((1, 2))
        entropy = (log_w.exp() * ((log_std + 1.4189385332046727).sum(-1) - log_w)).sum(-1).mean(1)  # log sqrt(2 pi e)
        loss = policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy
        figures = {"losses/policy": policy_loss, "losses/value": value_loss, "losses/approx_kl": approx_kl}
        if args.k > 1:
            with torch.no_grad():
                proposed = mean + log_std.exp() * noise  # (S, B, K, A)
                q = self.qf(torch.cat([obs.unsqueeze(2).expand(*proposed.shape[:3], -1), proposed], -1).flatten(1, 2))
            router_loss = frequency_loss(log_w, q.view_as(log_w).argmax(-1, keepdim=True)).mean(1)  # eq. 6
            q_loss = 0.5 * (self.qf(torch.cat([obs, action], -1)) - returns).square().mean((1, 2))
            self.minimize(q_loss, list(self.qf.parameters()))
            loss, figures = loss + router_loss, figures | {"losses/frequency": router_loss, "losses/q": q_loss}
        self.minimize(loss, [*self.actor.parameters(), *self.vf.parameters()])
        figures |= {"losses/clip_fraction": ((ratio - 1).abs() > args.clip_coef).float().mean((1, 2))}
        figures |= {"losses/entropy": entropy, "routing/entropy": -(log_w.exp() * log_w).sum(-1).mean(-1)}
        figures |= {f"routing/usage_{k}": x for k, x in enumerate(log_w.exp().mean(1).unbind(-1))}
        return {name: x.detach() for name, x in figures.items()}


def load(path: Path) -> dict:  # Copied from pmoe_sac.load
    """The content of a .json file or of a checkpoint, tensors on the CPU; ends the program if it cannot be had."""
    try:
        return dict(json.loads(path.read_text()) if path.suffix == ".json" else torch.load(path, "cpu"))  # weights only
    except Exception as error:  # noqa: BLE001  torch raises many kinds
        fail(f"{path} is missing or damaged ({type(error).__name__}); start anew, without --resume or with --overwrite")


class Runs:  # Copied from pmoe_sac.Runs
    def __init__(self, args: Args, device: torch.device):
        """The directories RUN_DIR/ENV/ALGO-kK[-TAG]/seedN, new or as at the last checkpoints, which are `states`. Ends
        the program, and changes nothing, where this cannot be. From then on, Ctrl-C and SIGTERM fill `stop`."""
        named = (*FREE, "env_id", "k", "tag", "compile")  # in the path itself, or without a say but in the last digits
        changed = {n: x for n, x in vars(args).items() if n not in named and x != getattr(Args, n)}
        tag = args.tag or (hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6] if changed else "")
        name = f"{args.env_id.replace('/', '-')}/{ALGO}-k{args.k}{tag and '-'}{tag.replace('/', '-')}"
        self.paths = [Path(args.run_dir, name, f"seed{args.seed + s}") for s in range(args.num_seeds)]
        for path in self.paths:
            done = (path / "done.json").exists()
            if path.exists() and not args.overwrite and (done or not args.resume):
                fail(f"{path} {'is finished' if done else 'exists; --resume goes on with it'}; --overwrite starts anew")
            before = load(path / "config.json") if args.resume else {}
            changed = [n for n, x in vars(args).items() if n not in FREE and before.get("args", {}).get(n) != x]
            if args.resume and (changed or before.get("device") != str(device)):
                fail(f"{path} was started with another {(changed or ['device'])[0]}; give the same, or a new --tag")
        last = [max(path.glob("checkpoint/*.pt"), default=path).name for path in self.paths if args.resume]
        self.states = [load(path / "checkpoint" / min(last)) for path in self.paths if args.resume]
        for path, state in zip(self.paths, self.states):
            if sum(file.stat().st_size for file in path.glob("checkpoint/replay.f32")) < state.get("replay", 0):
                fail(f"{path}/checkpoint/replay.f32 is missing or damaged; start anew with --overwrite")
        commit = os.popen(f"git -C '{Path(__file__).parent}' describe --always --dirty 2>/dev/null").read().strip()
        about = {"algo": ALGO, "device": str(device), "command": sys.argv, "commit": commit}
        about["versions"] = {name: metadata.version(name) for name in ("torch", "gymnasium", "mujoco", "numpy")}
        for s, path in enumerate(self.paths):
            if not args.resume:
                shutil.rmtree(path, ignore_errors=True)  # there is none, or --overwrite
                (path / "checkpoint").mkdir(parents=True)
                about["args"] = asdict(replace(args, seed=args.seed + s, num_seeds=1, overwrite=False))
                (path / "config.json").write_text(json.dumps(about, indent=2))
            for name, text in (self.states[s]["csv"] if args.resume else CSV).items():
                (path / f"{name}.csv").write_text(text)
        self.start, spent = (self.states[0][name] if args.resume else 0 for name in ("step", "wall_time"))
        self.began, self.stop = time.monotonic() - spent, []
        if args.track:
            (wb := import_module("wandb")).tensorboard.patch(root_logdir=os.path.commonpath(self.paths), pytorch=True)
            wb.init(project="pmoe", name=str(self.paths[0]), config=asdict(args))
        self.writers = [SummaryWriter(path, purge_step=self.start + 1) for path in self.paths]
        self.handlers = {n: signal.signal(n, lambda n, _: self.stop.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}

    def record(self, s: int, name: str, step: int, **values) -> None:
        """A line of seed s's NAME.csv, and the same in TensorBoard"""
        with open(self.paths[s] / f"{name}.csv", "a") as file:
            print(step, *values.values(), sep=",", file=file)
        for key, value in values.items():
            self.writers[s].add_scalar(f"charts/{key}", value, step)

    def save(self, step: int, states: list[dict]) -> None:
        """Every seed's checkpoint; those before go once all are on the disk."""
        files = [path / f"checkpoint/{step:010}.pt" for path in self.paths]
        for path, new, state, writer in zip(self.paths, files, states, self.writers):
            writer.flush()
            state |= {"step": step, "wall_time": time.monotonic() - self.began}
            state["csv"] = {name: (path / f"{name}.csv").read_text() for name in CSV}
            torch.save(state, whole := io.BytesIO())  # which has no words for a full disk
            with open(new.with_name("new.tmp"), "wb") as file:
                file.write(whole.getbuffer())
                file.flush(), os.fsync(file)
            os.replace(file.name, new)
        for old in {old for new in files for old in new.parent.glob("*.pt")} - set(files):
            old.unlink()


def load_actor(run_dir: str | Path) -> Actor:
    """The policy in a run's checkpoint, S = 1, on the CPU; ends the program if there is none."""
    learnt = load(max(Path(run_dir).glob("checkpoint/*.pt"), default=Path(run_dir, "checkpoint")))["learnt"]
    state = {name.removeprefix("actor."): x for name, x in learnt.items() if name.startswith("actor.")}
    actor = Actor(state["fc1.weight"].shape[1], *state["log_std"].shape[1:], [Generator()])
    actor.load_state_dict(state)
    return actor


def train(args: Args) -> list[Path]:
    """Trains seeds args.seed, args.seed + 1, ... side by side; returns their run directories. Ends the program with one
    line on bad input (status 2), a number that is not finite (1), Ctrl-C (130), SIGTERM (143). OSError: a full disk."""
    check(args)
    if args.total_timesteps % args.num_envs or not 2 <= args.minibatch_size <= args.num_envs * args.num_steps:
        fail("--total-timesteps must be a multiple of --num-envs, --minibatch-size from 2 to num-envs x num-steps")
    device = torch.device("cuda" if args.device == "cuda" else "cpu")
    seeds, n, batch = range(args.seed, args.seed + args.num_seeds), args.num_envs, args.minibatch_size
    envs, eval_envs = (Envs(args.env_id, m * len(seeds), args.env_backend) for m in (n, args.eval_episodes))
    runs = Runs(args, device)
    generators = [Generator(device).manual_seed(seed) for seed in seeds]
    agent = Agent(args, envs.obs_size, len(envs.low), generators)
    update, draw, last, returns = agent.update, agent.draw, np.nan, np.array(np.nan)
    tools = shutil.which(os.environ.get("CXX", "g++")) and Path(sysconfig.get_path("include"), "Python.h").exists()
    if args.compile != "off" and tools:
        torch._dynamo.config.trace_autograd_ops = True  # takes the backward passes into the graph too
        options = {"triton.cudagraphs": device.type == "cuda" and args.compile == "graph"}
        update, draw = (torch.compile(f, fullgraph=True, dynamic=False, options=options) for f in (update, draw))
    envs.start(np.concatenate([np.random.SeedSequence([s, runs.start, 1]).generate_state(n) // 2 for s in seeds]))

    def noise(n: int) -> tuple[Tensor, Tensor]:  # normal (S, n, J, A) and uniform (S, n, J)
        shapes = ((torch.randn, (n, agent.draws, len(envs.low))), (torch.rand, (n, agent.draws)))
        return tuple(torch.stack([f(shape, generator=g, device=device) for g in generators]) for f, shape in shapes)

    def state(s: int) -> dict:  # all that an exact resume of seed s needs
        random = {"generator": generators[s].get_state(), "random_state": envs.random_state[s * n : s * n + n]}
        random |= {"actions": [torch.tensor(np.array(x)) for x in envs.actions[s * n : s * n + n]]}
        return random | {"learnt": {name: x.chunk(len(seeds))[s].clone() for name, x in agent.state_dict().items()}}

    for s, saved in enumerate(runs.states):
        for name, x in agent.state_dict().items():
            x.chunk(len(seeds))[s].copy_(saved["learnt"][name])
        generators[s].set_state(saved["generator"])
        for i, random_state, actions in zip(range(s * n, s * n + n), saved["random_state"], saved["actions"]):
            envs.reset(i, random_state, actions.numpy())
    print(*runs.paths, f"on {device}, from step {runs.start}", flush=True)
    sent = torch.tensor(envs.obs, dtype=torch.float32, device=device).unflatten(0, (-1, n))  # (S, E, O)
    runs.save(step := runs.start, [state(s) for s in range(len(seeds))])
    while step < args.total_timesteps:
        before, size, seen, figures = step, min(args.num_steps, (args.total_timesteps - step) // n), [], {}
        for normal, uniform in zip(*(x.unflatten(1, (size, n)).transpose(0, 1).contiguous() for x in noise(size * n))):
            step += n
            drawn = draw(sent[..., -envs.obs_size :].contiguous(), normal, uniform)
            action = drawn.flatten(0, 1)[:, envs.obs_size :][:, : len(envs.low)].cpu().numpy()
            action = np.nan_to_num(action).clip(envs.low, envs.high)  # NaN: the run ends with the rollout
            next_obs, reward, terminated, truncated = envs.step(action, np.arange(envs.n, dtype=np.int32))
            done = terminated | truncated
            for i in np.flatnonzero(done):
                last = envs.returns[i]
                runs.record(i // n, "episodes", step, episodic_return=last, episodic_length=len(envs.actions[i]))
                envs.reset(i)
            row = np.column_stack([next_obs, reward, terminated, done, envs.obs]).astype(np.float32)
            sent = torch.from_numpy(row).to(device).unflatten(0, (-1, n))  # (S, E, .) in one transfer
            seen.append(torch.cat([drawn, sent[..., : -envs.obs_size]], -1))
        rows, explained = agent.rollout(torch.stack(seen, 1))
        agent.rate.fill_(args.learning_rate * (1 - before / args.total_timesteps if args.anneal_lr else 1))
        order = [torch.rand(args.update_epochs, n * size, generator=g, device=device).argsort() for g in generators]
        for index in torch.stack(order).flatten(1).split(batch, 1)[: args.update_epochs * n * size // batch]:
            figures = update(torch.stack([x[i] for x, i in zip(rows, index)]), noise(batch)[0])
        end = step == args.total_timesteps
        for name, x in (figures | agent.state_dict()).items():
            if not x.isfinite().all():
                fail(f"{name} is not finite at step {step}; the last checkpoint is from before", 1)
        if end or step // args.eval_every > before // args.eval_every:
            returns = eval_envs.evaluate(agent.actor.act, seeds, step)
            for s, r in enumerate(returns):
                runs.record(s, "eval", step, eval_return=r.mean(), eval_return_std=r.std(), eval_episodes=len(r))
        speed = step / (time.monotonic() - runs.began)
        print(f"step {step}  return {last:.0f}  evaluation {returns.mean():.0f}  {speed:.0f} steps/s", flush=True)
        figures |= {"losses/explained_variance": explained, "charts/SPS": torch.full((len(seeds),), speed)}
        for name, x in figures.items():
            for writer, value in zip(runs.writers, x.cpu()):
                writer.add_scalar(name, value, step)
        if end or runs.stop or step // args.checkpoint_every > before // args.checkpoint_every:
            runs.save(step, [state(s) for s in range(len(seeds))])
        if runs.stop:
            print(f"stopped at step {step}; the same command with --resume goes on")
            raise SystemExit(128 + runs.stop[0])
    for path, writer in zip(runs.paths, runs.writers):
        head, *_, values = (line.split(",") for line in (path / "eval.csv").read_text().split())
        done = dict(zip(head, map(float, values)), step=args.total_timesteps, wall_time=time.monotonic() - runs.began)
        (path / "done.json").write_text(json.dumps(done, indent=2))
        writer.close()
    for number, handler in runs.handlers.items():
        signal.signal(number, handler)
    return runs.paths


if __name__ == "__main__":
    train(tyro.cli(Args))
