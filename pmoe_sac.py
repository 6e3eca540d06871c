"""PMOE-SAC: soft actor-critic whose policy is a mixture of K Gaussian primitives behind a router.

The policy is pi(a|s) = sum_k w_k(s) N_k(a|s) (eq. 4). Drawing k from w cannot be differentiated, so router and
primitives learn apart. Each primitive proposes an action; the critic names the best, j = argmax_k Q(s, a_k) (eq. 6).
The frequency loss pulls w towards the one-hot of j: w_k becomes how often primitive k is best (eq. 7). Backprop-max
trains the primitive that won (eq. 9), backprop-all trains all (eq. 8). With K = 1 the file is SAC (arXiv 1812.05905).

Ren et al., "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning", arXiv 2104.09122, sections 3.2
to 3.5, table 1a. Departures: targets draw a' from the mixture, as algorithm 1 does (not the max of eq. 11), with no
target policies (in no released code); the router reads the trunk detached (the paper: disjoint parameters); log sigma
is bounded to [-5, 2] by a tanh (released: clamped to [-20, 2]). Where the paper is silent: 10,000 uniformly random
steps, updates from step 1,000 on, evaluation by the mean of the likeliest primitive.

    python pmoe_sac.py --env Hopper-v4 --k 4 --seed 1                 # the printed hyperparameters; --k 1 is SAC
    python pmoe_sac.py --env Hopper-v4 --k 4 --seed 1 --num-seeds 5   # seeds 1 to 5 side by side in one process
    python pmoe_sac.py --env Hopper-v4 --k 4 --seed 1 --resume        # go on after an interruption
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass, replace
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from rich.progress import Progress, TextColumn
from torch import Generator, Tensor, nn
from torch.utils.tensorboard import SummaryWriter

ALGO = Path(__file__).stem.replace("pmoe_sac", "sac")  # in the name of its runs; a fork's is its own
FREE = ("seed", "num_seeds", "run_dir", "device", "checkpoint_every", "resume", "overwrite", "track")  # not in a tag
FILES = ("episodes.csv", "eval.csv", "checkpoint/replay.f32")  # these grow, and are cut back to resume
warnings.filterwarnings("ignore", message=".*out of date")  # Gymnasium, of -v4: the paper's tables need it


@dataclass
class Args:
    """PMOE-SAC: soft actor-critic with a mixture of K Gaussian primitives behind a router. K = 1 is SAC."""

    env_id: Annotated[str, tyro.conf.arg(aliases=["--env"])] = "Hopper-v4"  # Gymnasium environment
    k: int = 4  # number of primitives; the paper: 4, HalfCheetah 2, HumanoidStandup 10
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds trained side by side in this process: seed, seed + 1, ...
    total_timesteps: int = 1_000_000  # environment steps of each seed
    run_dir: str = "runs"  # where runs are kept: RUN_DIR/ENV/ALGO-kK[-TAG]/seedN
    tag: str = ""  # name of this configuration; default: a hash of what differs from the defaults, if anything does
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    eval_every: int = 10_000  # steps between evaluations of the deterministic policy
    eval_episodes: int = 10  # episodes of an evaluation
    checkpoint_every: int = 10_000  # steps between checkpoints; Ctrl-C and SIGTERM write one too
    resume: bool = False  # go on from the last checkpoint
    overwrite: bool = False  # delete an earlier run of the same name first
    track: bool = False  # log to Weights & Biases too; needs wandb
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # target networks: target <- (1 - tau) target + tau online, every update
    batch_size: int = 100  # transitions of an update
    buffer_size: int = 1_000_000  # transitions the replay buffer holds
    learning_rate: float = 1e-3  # Adam's, for policy, critics and temperature
    random_steps: int = 10_000  # uniformly random actions at the start
    learning_starts: int = 1_000  # steps before the first update; one update a step from then on
    alpha: float | Literal["auto"] = 0.2  # entropy temperature, or auto: tuned to the target entropy -dim(A)
    backprop: Literal["max", "all"] = "max"  # primitives that learn from a state: the best (eq. 9) or all (eq. 8)
    entropy: Literal["primitive", "mixture"] = "primitive"  # whose log-density stands in the entropy term
    detach_router: bool = True  # keep the frequency loss out of the trunk


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line for its user; status 2 is bad input, 1 what went wrong on the way."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def check(args: Args) -> None:
    for name, value in asdict(args).items():
        low = 0 if name in ("seed", "random_steps", "alpha", "gamma", "tau", "learning_rate") else 1
        high = 1 if name in ("gamma", "tau", "learning_rate") else 10**12
        if type(value) in (int, float) and not low <= value <= high:  # NaN too
            fail(f"--{name.replace('_', '-')} must be from {low} to {high:g}, not {value}")
    if args.resume and args.overwrite:
        fail("--resume goes on with a run and --overwrite deletes it: give one of them")
    if args.track and not util.find_spec("wandb"):
        fail("--track needs wandb: pip install wandb")
    if args.device == "cuda" and not torch.cuda.is_available():
        fail("--device cuda: torch finds no CUDA GPU here; use --device cpu or auto")


def make_env(env_id: str, **kwargs) -> gym.wrappers.RecordEpisodeStatistics:
    """`gym.make` of flat Box spaces. A single environment never resets itself: its last observation is the true one."""
    try:
        env = gym.make(env_id, **kwargs)
    except Exception as error:  # noqa: BLE001  environments raise anything; Gymnasium's own messages name what is near
        fail(f"--env {env_id}: {error}")
    if not all(isinstance(x, gym.spaces.Box) and len(x.shape) == 1 for x in (env.observation_space, env.action_space)):
        fail(f"--env {env_id} needs flat Box spaces, but has {env.observation_space} and {env.action_space}")
    if not env.action_space.is_bounded():
        fail(f"--env {env_id} needs bounded actions, but has {env.action_space}")
    return gym.wrappers.RecordEpisodeStatistics(env)


def evaluate(act, envs: list[gym.Env], seeds: range, step: int) -> np.ndarray:
    """Undiscounted returns (S, E) of E episodes a seed, new at every step of a run; act: (S, E, O) -> (S, E, A)"""
    starts = [np.random.SeedSequence([seed, step]).generate_state(len(envs) // len(seeds)) for seed in seeds]
    obs = np.stack([env.reset(seed=int(start))[0] for env, start in zip(envs, np.concatenate(starts))])
    running, low, high = list(range(len(envs))), envs[0].action_space.low, envs[0].action_space.high
    while running:
        action = act(torch.as_tensor(obs, dtype=torch.float32).unflatten(0, (len(seeds), -1))).flatten(0, 1).numpy()
        for i in running.copy():
            obs[i], _, terminated, truncated, _ = envs[i].step(action[i].clip(low, high))
            if terminated or truncated:
                running.remove(i)
    return np.reshape([env.episode_returns for env in envs], (len(seeds), -1))


class Linear(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, generators: list[Generator]):
        """n linear layers side by side, (n, B, in) -> (n, B, out), each initialised as torch does, by its generator."""
        super().__init__()
        weight, bias = (torch.empty(len(generators), n, fan_out, device=generators[0].device) for n in (fan_in, 1))
        for x, generator in zip((*weight, *bias), generators * 2):
            x.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Actor(nn.Module):
    def __init__(self, obs_size: int, low, high, k: int, generators: list[Generator], detach_router: bool = True):
        """The mixture policy (eq. 4) of S seeds, a generator each; low and high are the bounds of the action, (A,)."""
        super().__init__()
        self.k, self.detach_router, self.generators = k, detach_router, generators
        low, high = (torch.as_tensor(x, dtype=torch.float32, device=generators[0].device) for x in (low, high))
        self.register_buffer("scale", ((high - low) / 2).repeat(len(generators), 1, 1, 1))  # (S, 1, 1, A)
        self.register_buffer("shift", ((high + low) / 2).repeat(len(generators), 1, 1, 1))
        self.fc1, self.fc2 = Linear(obs_size, 256, generators), Linear(256, 256, generators)
        self.mean, self.log_std, self.router = (Linear(256, n, generators) for n in (k * len(low), k * len(low), k))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """obs (S, B, O) -> mean (S, B, K, A), log_std (S, B, K, A), log_w (S, B, K)"""
        x = F.relu(self.fc2(F.relu(self.fc1(obs))))
        mean, log_std = (head(x).unflatten(-1, (self.k, -1)) for head in (self.mean, self.log_std))
        log_w = F.log_softmax(self.router(x.detach() if self.detach_router else x), -1)
        return mean, -5 + 3.5 * (torch.tanh(log_std) + 1), log_w  # log_std in [-5, 2]

    def draw_primitive(self, log_w: Tensor) -> Tensor:
        """k ~ w by the inverse of its distribution function: (S, B, K) -> (S, B, 1)"""
        u = torch.stack([torch.rand(len(w), 1, generator=g, device=g.device) for w, g in zip(log_w, self.generators)])
        return (log_w.exp().cumsum(-1) < u).sum(-1, keepdim=True).clamp(max=self.k - 1)

    @torch.no_grad()
    def act(self, obs: Tensor, routing: Literal["argmax", "sample"] = "argmax", primitive: int | None = None) -> Tensor:
        """Mean action of the likeliest primitive, of one drawn from w, or of the one given: (S, B, O) -> (S, B, A)"""
        mean, _, log_w = self(obs.to(self.scale.device))
        chosen = log_w.argmax(-1, keepdim=True) if routing == "argmax" else self.draw_primitive(log_w)
        chosen = chosen if primitive is None else torch.full_like(chosen, primitive)
        return (self.shift + self.scale * mean.take_along_dim(chosen.unsqueeze(-1), 2).tanh()).squeeze(2).cpu()


class Critic(nn.Module):
    def __init__(self, obs_size: int, action_size: int, generators: list[Generator]):
        """Twin Q-functions of S seeds as 2S networks side by side, those of seed s numbered 2s and 2s + 1."""
        super().__init__()
        twins = [generator for generator in generators for _ in range(2)]
        self.fc1, self.fc2 = Linear(obs_size + action_size, 256, twins), Linear(256, 256, twins)
        self.fc3 = Linear(256, 1, twins)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """obs (S, B, O), K actions a state (S, B, K, A) -> Q1 and Q2, (S, 2, B, K)"""
        x = torch.cat([obs.unsqueeze(2).expand(*action.shape[:3], -1), action], -1).flatten(1, 2)  # (S, B*K, O+A)
        x = F.relu(self.fc2(F.relu(self.fc1(x.repeat_interleave(2, 0)))))  # (2S, B*K, 256)
        return self.fc3(x).view(len(obs), 2, *action.shape[1:3])


def log_density(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(u; mean, std^2), summed over the last axis"""
    return (-0.5 * ((u - mean) / log_std.exp()).square() - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)


def mixture_log_density(u: Tensor, mean: Tensor, log_std: Tensor, log_w: Tensor) -> Tensor:
    """log sum_k w_k N_k(u) (eq. 4, before tanh) of J points a state: u (S, B, J, A) -> (S, B, J)"""
    log_prob = log_density(u.unsqueeze(3), mean.unsqueeze(2), log_std.unsqueeze(2))  # (S, B, J, K)
    return torch.logsumexp(log_w.unsqueeze(2) + log_prob, -1)


def bellman_target(reward: Tensor, terminated: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha, gamma: float):
    """r + gamma (1 - terminated) (min Q'(s', a') - alpha log pi(a'|s')) (algorithm 1), through time limits"""
    return reward + gamma * (1 - terminated) * (next_q - alpha * next_log_prob)


def frequency_loss(log_w: Tensor, best: Tensor) -> Tensor:
    """sum_k (v_k - w_k)^2 with v the one-hot of the best primitive (eq. 7): (S, B, K), (S, B, 1) -> (S, B)"""
    return (torch.zeros_like(log_w).scatter(-1, best, 1.0) - log_w.exp()).square().sum(-1)


def primitive_loss(log_prob: Tensor, q: Tensor, alpha) -> Tensor:
    """sum of alpha log pi_k(a_k|s) - q_k over those that learn: all (eq. 8) or the best (eq. 9); (S, B, J) -> (S, B)"""
    return (alpha * log_prob - q).sum(-1)


class Agent(nn.Module):
    def __init__(self, args: Args, obs_size: int, low: np.ndarray, high: np.ndarray, generators: list[Generator]):
        """Networks and update of S seeds. A loss is a mean over the batch and a sum over the seeds, and Adam is
        elementwise, so the seeds stay independent. The update is all tensors and never waits for the device."""
        super().__init__()
        self.args, self.generators, self.target_entropy = args, generators, -float(len(low))
        self.actor = Actor(obs_size, low, high, args.k, generators, args.detach_router)
        self.qf, self.qf_target = (Critic(obs_size, len(low), generators) for _ in range(2))
        self.qf_target.requires_grad_(False).load_state_dict(self.qf.state_dict())
        alpha = torch.full((len(generators), 1, 1), 1.0 if args.alpha == "auto" else max(args.alpha, 1e-30)).log()
        self.log_alpha = nn.Parameter(alpha.to(generators[0].device), requires_grad=args.alpha == "auto")
        self.optimizer = torch.optim.Adam(self.parameters(), args.learning_rate, fused=True)

    def minimize(self, loss: Tensor, parameters) -> None:
        self.optimizer.zero_grad()  # to None: Adam passes over all but `parameters`
        loss.sum().backward(inputs=list(parameters))
        self.optimizer.step()

    def propose(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A reparameterised action of each primitive (S, B, K, A), its log-density (S, B, K), and log_w (S, B, K). The
        density is the primitive's own or the mixture's, from which the router does not learn: it has eq. 7."""
        mean, log_std, log_w = self.actor(obs)
        noise = [torch.randn(x.shape, generator=g, device=g.device) for x, g in zip(mean, self.generators)]
        u = mean + log_std.exp() * torch.stack(noise)
        own = self.args.entropy == "primitive"
        log_prob = log_density(u, mean, log_std) if own else mixture_log_density(u, mean, log_std, log_w.detach())
        log_det = 2 * (np.log(2) - u - F.softplus(-2 * u)) + self.actor.scale.log()  # log |da/du|, cannot underflow
        return self.actor.shift + self.actor.scale * u.tanh(), log_prob - log_det.sum(-1), log_w

    @torch.no_grad()
    def draw(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """An action from the mixture, k ~ w and a ~ N_k: (S, B, 1, A), and its log-density (S, B, 1)"""
        action, log_prob, log_w = self.propose(obs)
        chosen = self.actor.draw_primitive(log_w)
        return action.take_along_dim(chosen.unsqueeze(-1), 2), log_prob.gather(-1, chosen)

    def tensors(self) -> dict[str, Tensor]:
        """All that is learnt, Adam's moments too; the first axis is S or, of twins, 2S"""
        adam = [(f"adam.{n}.{m}", x) for n, p in self.named_parameters() for m, x in self.optimizer.state[p].items()]
        return self.state_dict() | dict(adam)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.load_state_dict({name: tensors[name] for name in self.state_dict()})
        for name, p in self.named_parameters():
            moments = {m: tensors.get(f"adam.{name}.{m}") for m in ("step", "exp_avg", "exp_avg_sq")}
            self.optimizer.state[p].update({m: x.to(p.device) for m, x in moments.items() if x is not None})

    def update(self, obs: Tensor, action: Tensor, next_obs: Tensor, reward: Tensor, terminated: Tensor) -> dict:
        """One step of critics, policy, temperature and targets on a batch, (S, B, .) each; returns figures to log."""
        args, qf, alpha = self.args, self.qf, self.log_alpha.detach().exp()
        next_action, next_log_prob = self.draw(next_obs)
        next_q = self.qf_target(next_obs, next_action).amin(1)  # (S, B, 1)
        target = bellman_target(reward, terminated, next_q, next_log_prob, alpha, args.gamma)
        critic_loss = (qf(obs, action.unsqueeze(2)) - target.unsqueeze(1)).square().mean((2, 3)).sum(1)  # (S,)
        self.minimize(critic_loss, qf.parameters())

        action, log_prob, log_w = self.propose(obs)
        winner_only = args.backprop == "max" and args.k > 1
        with torch.set_grad_enabled(not winner_only):
            q = qf(obs, action).amin(1)  # (S, B, K)
        best = q.argmax(-1, keepdim=True)  # eq. 6
        best_log_prob = log_prob.gather(-1, best)
        if winner_only:  # it alone needs a graph through the critic
            log_prob, q = best_log_prob, qf(obs, action.take_along_dim(best.unsqueeze(-1), 2)).amin(1)  # (S, B, 1)
        actor_loss, router_loss = primitive_loss(log_prob, q, alpha).mean(-1), frequency_loss(log_w, best).mean(-1)
        self.minimize(actor_loss + router_loss, self.actor.parameters())
        if args.alpha == "auto":  # arXiv 1812.05905, eq. 18
            excess = (best_log_prob.detach() + self.target_entropy).mean(1, keepdim=True)
            self.minimize(-self.log_alpha.exp() * excess, [self.log_alpha])
        with torch.no_grad():
            torch._foreach_lerp_(list(self.qf_target.parameters()), list(qf.parameters()), args.tau)
            usage, entropy = log_w.exp().mean(1), -(log_w.exp() * log_w).sum(-1).mean(-1)
        losses = {"critic": critic_loss, "actor": actor_loss, "frequency": router_loss, "alpha": alpha.flatten()}
        routing = {f"routing/usage_{k}": usage[:, k] for k in range(args.k)} | {"routing/entropy": entropy}
        return {f"losses/{name}": x.detach() for name, x in losses.items()} | routing


class ReplayBuffer:
    def __init__(self, capacity: int, obs_size: int, action_size: int, generators: list[Generator]):
        """The last `capacity` transitions of S seeds, a row each: obs, action, next_obs, reward, terminated."""
        self.capacity, self.generators, self.added = capacity, generators, 0
        self.sizes = (obs_size, action_size, obs_size, 1, 1)
        self.rows = torch.empty(len(generators), capacity, sum(self.sizes), device=generators[0].device)

    def add(self, rows: Tensor) -> None:  # (S, .)
        self.rows[:, self.added % self.capacity] = rows.to(self.rows.device)
        self.added += 1

    def sample(self, batch_size: int) -> tuple[Tensor, ...]:
        """Uniform, with replacement, each seed from its own: (S, B, .) each"""
        size, device = min(self.added, self.capacity), self.rows.device
        index = [torch.randint(size, (batch_size,), generator=g, device=device) for g in self.generators]
        return torch.stack([rows[i] for rows, i in zip(self.rows, index)]).split(self.sizes, -1)


def run_path(args: Args, seed: int) -> Path:
    """RUN_DIR/ENV/ALGO-kK[-TAG]/seedN"""
    named = (*FREE, "env_id", "k", "tag")
    changed = {n: x for n, x in vars(args).items() if n not in named and x != getattr(Args, n)}
    tag = args.tag or (hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6] if changed else "")
    name = f"{ALGO}-k{args.k}-{tag}" if tag else f"{ALGO}-k{args.k}"
    return Path(args.run_dir, args.env_id.replace("/", "-"), name.replace("/", "-"), f"seed{seed}")


def load(path: Path) -> dict:
    """The content of a .json file or of a checkpoint, tensors on the CPU; ends the program if it cannot be had."""
    try:
        return dict(json.loads(path.read_text()) if path.suffix == ".json" else torch.load(path, "cpu"))  # weights only
    except Exception as error:  # noqa: BLE001  torch raises many kinds
        fail(f"{path} is missing or damaged ({type(error).__name__}); start anew, without --resume or with --overwrite")


def load_states(args: Args, paths: list[Path], device: torch.device) -> list[dict]:
    """Every seed's checkpoint, none for new runs; ends the program, and changes nothing, if neither is possible."""
    for path in paths:
        done = (path / "done.json").exists()
        if path.exists() and not args.overwrite and (done or not args.resume):
            fail(f"{path} {'is finished' if done else 'exists; --resume goes on with it'}; --overwrite starts it anew")
        before = load(path / "config.json") if args.resume else {}
        changed = [n for n, x in vars(args).items() if n not in FREE and before.get("args", {}).get(n) != x]
        if args.resume and (changed or before.get("device") != str(device)):
            fail(f"{path} was started with another {(changed or ['device'])[0]}; give the same, or a new --tag")
    states = [load(path / "checkpoint/state.pt") for path in paths if args.resume]
    step = max((x["step"] for x in states), default=0)
    late = [path for x, path in zip(states, paths) if x["step"] < step]  # killed at the end of `checkpoint`
    states = [load(path / "checkpoint/state.tmp") if path in late else x for x, path in zip(states, paths)]
    for x, path in zip(states, paths):
        whole = all((path / f).exists() and (path / f).stat().st_size >= size for f, size in x["sizes"].items())
        if not whole or x["step"] != step:
            fail(f"{path} has a damaged checkpoint, or of another step than its fellows; then resume it alone")
    for path in late:
        os.replace(path / "checkpoint/state.tmp", path / "checkpoint/state.pt")
    return states


def load_actor(run_dir: str | Path) -> Actor:
    """The policy in a run's checkpoint, S = 1, on the CPU; ends the program if there is none."""
    state = load(Path(run_dir, "checkpoint/state.pt"))["learnt"]
    state = {name.removeprefix("actor."): x for name, x in state.items() if name.startswith("actor.")}
    bound, k = state["scale"].flatten(), state["router.weight"].shape[-1]
    actor = Actor(state["fc1.weight"].shape[1], -bound, bound, k, [Generator()])
    actor.load_state_dict(state)
    return actor


def train(args: Args) -> list[Path]:
    """Trains seeds args.seed, args.seed + 1, ... side by side; returns their run directories. Ends the program with one
    line on bad input (status 2), a number that is not finite (1), Ctrl-C (130), SIGTERM (143). OSError: a full disk."""
    check(args)
    device = torch.device("cuda" if torch.cuda.is_available() and args.device != "cpu" else "cpu")
    seeds = range(args.seed, args.seed + args.num_seeds)
    envs, eval_envs = ([make_env(args.env_id) for _ in range(n * len(seeds))] for n in (1, args.eval_episodes))
    obs_size, low, high = envs[0].observation_space.shape[0], envs[0].action_space.low, envs[0].action_space.high
    paths = [run_path(args, seed) for seed in seeds]
    states = load_states(args, paths, device)
    generators = [Generator(device).manual_seed(seed) for seed in seeds]
    agent = Agent(args, obs_size, low, high, generators)
    buffer = ReplayBuffer(min(args.buffer_size, args.total_timesteps), obs_size, len(low), generators)
    start, began, obs, random_state = 0, time.monotonic(), [None] * len(seeds), [""] * len(seeds)
    latest, best, stop, figures = np.full(len(seeds), np.nan), np.full(len(seeds), np.nan), [], {}

    def reset(s: int) -> None:
        random_state[s] = json.dumps(envs[s].unwrapped.np_random.bit_generator.state)
        obs[s] = np.array(envs[s].reset()[0])

    if args.track:
        wandb = import_module("wandb")
        wandb.tensorboard.patch(root_logdir=os.path.commonpath(paths), pytorch=True)
        wandb.init(project="pmoe", name=str(paths[0]), config=asdict(args))
    if not states:
        commit = subprocess.getoutput(f"git -C '{Path(__file__).parent}' describe --always --dirty 2>/dev/null")
        about = {"algo": ALGO, "device": str(device), "command": sys.argv, "commit": commit}
        about["versions"] = {name: metadata.version(name) for name in ("torch", "gymnasium", "mujoco", "numpy")}
        for s, (path, seed) in enumerate(zip(paths, seeds)):
            if args.overwrite:
                shutil.rmtree(path, ignore_errors=True)
            (path / "checkpoint").mkdir(parents=True)
            about["args"] = asdict(replace(args, seed=seed, num_seeds=1, resume=False, overwrite=False))
            (path / "config.json").write_text(json.dumps(about, indent=2))
            (path / "episodes.csv").write_text("step,episodic_return,episodic_length\n")
            (path / "eval.csv").write_text("step,return_mean,return_std,episodes\n")
            envs[s].reset(seed=seed)  # gives the environment its generator
            reset(s)
    else:
        start, buffer.added, began = states[0]["step"], states[0]["step"], began - states[0]["wall_time"]
        learnt = {name: [state["learnt"][name] for state in states] for name in states[0]["learnt"]}
        agent.load_tensors({name: torch.cat(x) if x[0].dim() else x[0] for name, x in learnt.items()})
        for s, (path, state) in enumerate(zip(paths, states)):
            generators[s].set_state(state["generator"])
            for file, size in state["sizes"].items():
                os.truncate(path / file, size)
            file, first, best[s] = path / FILES[2], max(0, start - buffer.capacity), state["best"]
            rows = (np.memmap(file, np.float32, "r") if start else np.empty(0, "f4")).reshape(-1, sum(buffer.sizes))
            buffer.rows[s, torch.arange(first, start) % buffer.capacity] = torch.tensor(rows[first:], device=device)
            envs[s].unwrapped.np_random.bit_generator.state = json.loads(state["random_state"])
            reset(s)
            for row in rows[start - state["episode_length"] :]:  # plays the unfinished episode again
                obs[s] = np.array(envs[s].step(np.array(row[obs_size : obs_size + len(low)]))[0])
    logs = [open(path / "checkpoint/replay.f32", "ab", buffering=0) for path in paths]  # noqa: SIM115
    writers = [SummaryWriter(path, purge_step=start + 1) for path in paths]
    for w in writers:
        w.add_text("hyperparameters", "|field|value|\n|-|-|\n" + "".join(f"|{n}|{x}|\n" for n, x in vars(args).items()))

    def checkpoint(step: int) -> None:
        for s, path in enumerate(paths):
            writers[s].flush()
            os.fsync(logs[s])
            learnt = {n: x.unflatten(0, (len(seeds), -1))[s] if x.dim() else x for n, x in agent.tensors().items()}
            state = {"step": step, "wall_time": time.monotonic() - began, "generator": generators[s].get_state()}
            state |= {"sizes": {file: (path / file).stat().st_size for file in FILES}, "best": float(best[s])}
            state |= {"random_state": random_state[s], "episode_length": envs[s].episode_lengths}
            with open(path / "checkpoint/state.tmp", "wb") as file:
                torch.save(state | {"learnt": {n: x.clone() for n, x in learnt.items()}}, file)
                file.flush()
                os.fsync(file)
        for path in paths:  # only now, when every seed's is whole
            os.replace(path / "checkpoint/state.tmp", path / "checkpoint/state.pt")

    def record(s: int, name: str, step: int, **values) -> None:
        with open(paths[s] / f"{name}.csv", "a") as file:
            print(step, *values.values(), sep=",", file=file)
        for key, value in values.items():
            writers[s].add_scalar(f"charts/{key}", value, step)

    handlers = {n: signal.signal(n, lambda number, _: stop.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    print(*paths, f"on {device}, from step {start}", flush=True)
    bar = Progress(*Progress.get_default_columns(), TextColumn("{task.fields[text]}"), disable=not sys.stdout.isatty())
    task = bar.add_task("", total=args.total_timesteps, completed=start, text="")
    checkpoint(start)
    with bar:
        for step in range(start + 1, args.total_timesteps + 1):
            end = step == args.total_timesteps
            save = end or bool(stop) or step % args.checkpoint_every == 0
            if step > args.random_steps:
                now = torch.as_tensor(np.stack(obs), dtype=torch.float32, device=device)
                action = agent.draw(now.unsqueeze(1))[0].flatten(1).cpu().numpy()
            else:
                action = np.stack([torch.rand(low.shape, generator=g, device=device).cpu() for g in generators])
                action = low + (high - low) * action
            if step > args.learning_starts:  # before the environments move: on a GPU the two overlap
                figures = agent.update(*buffer.sample(args.batch_size))
            if save or step % 100 == 0 or not np.isfinite(action).all():
                for name, x in (figures | agent.tensors()).items():
                    if not x.isfinite().all():
                        fail(f"{name} is not finite at step {step}; the last checkpoint is from before", 1)
            action = action.clip(low, high).astype(np.float32)
            results = [env.step(a.copy()) for env, a in zip(envs, action)]
            rows = [np.concatenate([o, a, r[0], r[1:3]], dtype=np.float32) for o, a, r in zip(obs, action, results)]
            buffer.add(torch.from_numpy(np.stack(rows)))
            for s, (next_obs, _, terminated, truncated, _) in enumerate(results):
                logs[s].write(rows[s].tobytes())
                obs[s] = np.array(next_obs)
                if terminated or truncated:
                    latest[s], length = envs[s].episode_returns, envs[s].episode_lengths
                    record(s, "episodes", step, episodic_return=latest[s], episodic_length=length)
                    reset(s)
            if end or step % args.eval_every == 0:
                returns = evaluate(agent.actor.act, eval_envs, seeds, step)
                best = np.fmax(best, returns.mean(1))
                for s, r in enumerate(returns):
                    record(s, "eval", step, eval_return=r.mean(), eval_return_std=r.std(), eval_episodes=len(r))
            if save or step % 100 == 0:
                speed = bar.tasks[0].speed or 0.0
                text = f"step {step}  return {latest.mean():.0f}  best eval {best.mean():.0f}  {speed:.0f} steps/s"
                bar.update(task, completed=step, text=text)
            if end or step % 1000 == 0:
                if bar.disable:
                    print(text, flush=True)
                for name, x in (figures | {"charts/SPS": torch.full((len(seeds),), speed)}).items():
                    for writer, value in zip(writers, x.cpu()):
                        writer.add_scalar(name, value, step)
            if save:
                checkpoint(step)
            if save and stop:
                print(f"stopped at step {step}; the same command with --resume goes on")
                raise SystemExit(128 + stop[0])
    for path, writer in zip(paths, writers):
        step, mean, std, _ = map(float, (path / "eval.csv").read_text().split()[-1].split(","))
        done = {"step": int(step), "return_mean": mean, "return_std": std, "wall_time": time.monotonic() - began}
        (path / "done.json").write_text(json.dumps(done, indent=2))
        (path / "checkpoint/replay.f32").unlink()  # it served to go on
        writer.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return paths


if __name__ == "__main__":
    train(tyro.cli(Args))
