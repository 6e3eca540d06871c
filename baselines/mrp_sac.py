"""MRP SAC: soft actor-critic with a mixture of K Gaussians and the marginalised reparameterisation estimator.

pi(a|s) = sum_k w_k(s) N_k(a|s). Drawing k cannot be differentiated, but K is small: the expectation over k is written
out, that over each a_k reparameterised. The loss is sum_k w_k (alpha log pi(a_k|s) - Q(s, a_k)), differentiated through
w_k and a_k: an unbiased gradient of SAC's objective with less variance than the plain score function's, for K critic
evaluations (He et al., arXiv 2605.09157). K = 1 is SAC (arXiv 1812.05905). Targets draw a' from the mixture.
--estimator half draws one k and takes the score function for it alone: log w_k times the constant alpha log pi(a_k|s)
- (Q(s, a_k) - b), plus alpha log pi(a_k|s) - Q(s, a_k); b = sum_j w_j Q(s, a_j), which does not depend on k. K = 5 and
the tuned temperature are the paper's, the rest PMOE's settings. Evaluation by the likeliest mean.

    python baselines/mrp_sac.py --env Hopper-v4 --k 5 --seed 1 --num-seeds 5   # seeds 1 to 5; --resume goes on
"""

import ast
import ctypes
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

ALGO = Path(__file__).stem.replace("_", "-")  # in the name of its runs; a fork's is its own
FREE = ("seed", "num_seeds", "run_dir", "device", "checkpoint_every", "resume", "overwrite", "keep_replay", "track")
CSV = {"episodes": "step,episodic_return,episodic_length\n", "eval": "step,return_mean,return_std,episodes\n"}


@dataclass
class Args:
    """MRP SAC: soft actor-critic with a mixture policy, marginalised over its primitives. K = 1 is SAC."""

    env_id: Annotated[str, tyro.conf.arg(aliases=["--env"])] = "Hopper-v4"  # Gymnasium ID, or ID,option=value,...
    k: int = 5  # number of primitives
    seed: int = 1  # the first seed
    num_seeds: int = 1  # seeds trained side by side in this process: seed, seed + 1, ...
    total_timesteps: int = 1_000_000  # environment steps of each seed
    run_dir: str = "runs"  # where runs are kept: RUN_DIR/ENV/ALGO-kK[-TAG]/seedN
    tag: str = ""  # name of this configuration; default: a hash of what differs from the defaults, if anything does
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: cuda where there is one
    compile: Literal["graph", "on", "off"] = "graph"  # torch.compile; graph: on a GPU replay it as a CUDA graph too
    env_backend: Literal["gymnasium", "envpool"] = "gymnasium"  # envpool: in threads, for many seeds on many cores
    eval_every: int = 10_000  # steps between evaluations of the deterministic policy
    eval_episodes: int = 10  # episodes of an evaluation
    checkpoint_every: int = 10_000  # steps between checkpoints; Ctrl-C and SIGTERM write one too
    resume: bool = False  # go on from the last checkpoint
    overwrite: bool = False  # delete an earlier run of the same name first
    keep_replay: bool = False  # keep the transitions of a finished run, in checkpoint/replay.f32
    track: bool = False  # log to Weights & Biases too; needs wandb
    gamma: float = 0.99  # discount factor
    tau: float = 0.005  # target networks: target <- (1 - tau) target + tau online, every update
    batch_size: int = 100  # transitions of an update
    buffer_size: int = 1_000_000  # transitions the replay buffer holds
    learning_rate: float = 1e-3  # Adam's, for policy, critics and temperature
    random_steps: int = 10_000  # uniformly random actions at the start
    learning_starts: int = 1_000  # steps before the first update; one update a step from then on
    alpha: float | Literal["auto"] = "auto"  # entropy temperature, or auto: tuned to the target entropy -dim(A)
    estimator: Literal["marginal", "half"] = "marginal"  # sum over the primitives, or draw one
    baseline: bool = True  # of half: subtract the mean of Q over the primitives


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


class Linear(nn.Module):  # Copied from pmoe_sac.Linear
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
    def __init__(self, obs_size: int, low, high, k: int, generators: list[Generator]):
        """The mixture policy (eq. 4) of S seeds, a generator each; low and high are the bounds of the action, (A,)."""
        super().__init__()
        self.k = k
        for name, x in (("scale", (high - low) / 2), ("shift", (high + low) / 2)):  # (S, 1, 1, A)
            self.register_buffer(name, torch.tensor(x, device=generators[0].device).repeat(len(generators), 1, 1, 1))
        self.fc1, self.fc2 = Linear(obs_size, 256, generators), Linear(256, 256, generators)
        self.mean_log_std, self.router = (Linear(256, n, generators) for n in (2 * k * len(low), k))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """obs (S, B, O) -> mean (S, B, K, A), log_std (S, B, K, A), log_w (S, B, K)"""
        x = self.fc2(self.fc1(obs).relu()).relu()
        mean, log_std = self.mean_log_std(x).unflatten(-1, (2, self.k, -1)).unbind(2)
        log_w = self.router(x).log_softmax(-1)
        return mean, -5 + 3.5 * (torch.tanh(log_std) + 1), log_w  # log_std in [-5, 2]

    @torch.no_grad()
    def act(self, obs: Tensor, choose=None) -> Tensor:  # Copied from pmoe_sac.Actor.act
        """Mean action (S, B, A) of the primitive that `choose` takes by log_w (S, B, K), or of the likeliest"""
        mean, _, log_w = self(obs.to(self.scale.device))
        chosen = choose(log_w) if choose else log_w.argmax(-1, keepdim=True)
        return (self.shift + self.scale * mean.take_along_dim(chosen.unsqueeze(-1), 2).tanh()).squeeze(2).cpu()


class Critic(nn.Module):  # Copied from pmoe_sac.Critic
    def __init__(self, fan_in: int, generators: list[Generator]):
        """Twin Q-functions of S seeds as 2S networks side by side, those of seed s numbered 2s and 2s + 1."""
        super().__init__()
        twins = [generator for generator in generators for _ in range(2)]
        self.fc1, self.fc2, self.fc3 = (Linear(*x, twins) for x in ((fan_in, 256), (256, 256), (256, 1)))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """obs (S, B, O), K actions a state (S, B, K, A) -> Q1 and Q2, (S, 2, B, K)"""
        x = torch.cat([obs.unsqueeze(2).expand(*action.shape[:3], -1), action], -1).flatten(1, 2)  # (S, B*K, O+A)
        x = self.fc2(self.fc1(x.repeat_interleave(2, 0)).relu()).relu()  # (2S, B*K, 256)
        q = (x * self.fc3.weight.mT).sum(-1) + self.fc3.bias.squeeze(-1)  # a product with one column is slow
        return q.view(len(obs), 2, *action.shape[1:3])


def draw_primitive(log_w: Tensor, uniform: Tensor) -> Tensor:  # Copied from pmoe_sac.draw_primitive
    """J draws k ~ w a state, by the inverse of its distribution function: (S, B, K), (S, B, J) -> (S, B, J)"""
    return (log_w.exp().cumsum(-1).unsqueeze(2) < uniform.unsqueeze(-1)).sum(-1).clamp(max=log_w.shape[-1] - 1)


def log_density(u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:  # Copied from pmoe_sac.log_density
    """log N(u; mean, std^2), summed over the last axis"""
    return (-0.5 * ((u - mean) / log_std.exp()).square() - log_std - 0.9189385332046727).sum(-1)  # log sqrt(2 pi)


def mixture_log_density(u, mean, log_std, log_w) -> Tensor:  # Copied from pmoe_sac.mixture_log_density
    """log sum_k w_k N_k(u) (eq. 4, before tanh) of J points a state: u (S, B, J, A) -> (S, B, J)"""
    log_prob = log_density(u.unsqueeze(3), mean.unsqueeze(2), log_std.unsqueeze(2))  # (S, B, J, K)
    return torch.logsumexp(log_w.unsqueeze(2) + log_prob, -1)


def marginal_loss(log_w: Tensor, log_prob: Tensor, q: Tensor, alpha) -> Tensor:
    """sum_k w_k (alpha log pi(a_k|s) - Q(s, a_k)): (S, B, K) -> (S, B)"""
    return (log_w.exp() * (alpha * log_prob - q)).sum(-1)


def half_loss(log_w: Tensor, log_prob: Tensor, q: Tensor, baseline, alpha) -> Tensor:
    """The score function for the drawn k, reparameterisation for a_k: (S, B, 1) -> (S, B)"""
    return (log_w * (alpha * log_prob - (q - baseline)).detach() + alpha * log_prob - q).sum(-1)


class Agent(nn.Module):
    def __init__(self, args: Args, obs_size: int, low, high, generators: list[Generator]):
        """Networks and update of S seeds, independent: a loss is summed over them, and Adam is elementwise."""
        super().__init__()
        self.args, self.draws = args, args.k  # random vectors that the policy takes for a state
        self.actor = Actor(obs_size, low, high, args.k, generators)
        self.qf, self.qf_target = (Critic(obs_size + len(low), generators) for _ in range(2))
        self.qf_target.requires_grad_(False).load_state_dict(self.qf.state_dict())
        alpha = torch.full((len(generators), 1, 1), 1.0 if args.alpha == "auto" else max(args.alpha, 1e-30)).log()
        self.log_alpha = nn.Parameter(alpha.to(generators[0].device), requires_grad=args.alpha == "auto")
        self.learning = [*self.actor.parameters(), *self.qf.parameters(), self.log_alpha]
        self.adam = nn.ModuleList(nn.ParameterList([x * 0, x * 0, *x.new_ones(2).double()]) for x in self.learning)

    def minimize(self, loss: Tensor, parameters: list[nn.Parameter]) -> None:  # Copied from pmoe_sac.Agent.minimize
        """A step of Adam (arXiv 1412.6980) on tensors alone: torch.compile takes it into the graph of the update."""
        moments = [x for p in parameters for q, x in zip(self.learning, self.adam) if q is p]
        gradients = torch.autograd.grad(loss.sum(), parameters)
        with torch.no_grad():
            for p, gradient, (m, v, beta1, beta2) in zip(parameters, gradients, moments):  # 0.9**step, 0.999**step
                beta1.mul_(0.9), beta2.mul_(0.999)
                m.lerp_(gradient, 1 - 0.9)
                v.lerp_(gradient.square(), 1 - 0.999)
                p.sub_(self.args.learning_rate * m / (1 - beta1) / ((v / (1 - beta2)).sqrt() + 1e-8))

    def propose(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A reparameterised action of each primitive (S, B, K, A), its log pi(a|s) (S, B, K), and log_w (S, B, K)"""
        mean, log_std, log_w = self.actor(obs)
        u = mean + log_std.exp() * noise
        log_det = 2 * (0.6931471805599453 - u - nn.functional.softplus(-2 * u)) + self.actor.scale.log()  # log |da/du|
        log_prob = mixture_log_density(u, mean, log_std, log_w) - log_det.sum(-1)
        return self.actor.shift + self.actor.scale * u.tanh(), log_prob, log_w

    @torch.no_grad()
    def draw(self, obs, noise, uniform) -> tuple[Tensor, Tensor]:  # Copied from pmoe_sac.Agent.draw
        """An action from the mixture, k ~ w and a ~ N_k: (S, B, 1, A), and its log-density (S, B, 1)"""
        action, log_prob, log_w = self.propose(obs, noise)
        chosen = draw_primitive(log_w, uniform[..., :1])
        return action.take_along_dim(chosen.unsqueeze(-1), 2), log_prob.gather(-1, chosen)

    def policy_loss(self, obs, noise, uniform, alpha) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The actor's loss on states (S, B, O), (S,); log-densities for the temperature to hold, (S, B, 1); figures"""
        action, log_prob, log_w = self.propose(obs, noise)
        if self.args.estimator == "marginal":
            loss = marginal_loss(log_w, log_prob, self.qf(obs, action).amin(1), alpha).mean(-1)
            log_prob = (log_w.exp() * log_prob).sum(-1, keepdim=True)
        else:
            chosen = draw_primitive(log_w, uniform[..., :1])
            with torch.no_grad():
                q = self.qf(obs, action).amin(1) if self.args.baseline else torch.zeros_like(log_w)
            baseline, log_prob = (log_w.exp() * q).sum(-1, keepdim=True), log_prob.gather(-1, chosen)
            q = self.qf(obs, action.take_along_dim(chosen.unsqueeze(-1), 2)).amin(1)
            loss = half_loss(log_w.gather(-1, chosen), log_prob, q, baseline, alpha).mean(-1)
        figures = {f"routing/usage_{k}": x for k, x in enumerate(log_w.exp().mean(1).unbind(-1))}
        figures |= {"losses/actor": loss, "routing/entropy": -(log_w.exp() * log_w).sum(-1).mean(-1)}
        return loss, log_prob, figures

    def update(self, obs, action, next_obs, reward, terminated, noise, uniform):  # Copied from pmoe_sac.Agent.update
        """A step of all that is learnt on a batch (S, B, .), with normal noise (S, 2B, J, A) and uniform (S, 2B, J)"""
        args, qf, alpha = self.args, self.qf, self.log_alpha.detach().exp()
        (next_noise, noise), (next_uniform, uniform) = noise.chunk(2, 1), uniform.chunk(2, 1)
        next_action, next_log_prob = self.draw(next_obs, next_noise, next_uniform)
        with torch.no_grad():
            next_q = self.qf_target(next_obs, next_action).amin(1)  # (S, B, 1)
        target = reward + args.gamma * (1 - terminated) * (next_q - alpha * next_log_prob)  # through time limits
        critic_loss = (qf(obs, action.unsqueeze(2)) - target.unsqueeze(1)).square().mean((2, 3)).sum(1)  # (S,)
        self.minimize(critic_loss, list(qf.parameters()))
        loss, log_prob, figures = self.policy_loss(obs, noise, uniform, alpha)
        self.minimize(loss, list(self.actor.parameters()))
        if args.alpha == "auto":  # arXiv 1812.05905, eq. 18
            excess = (log_prob.detach() - action.shape[-1]).mean(1, keepdim=True)
            self.minimize(-self.log_alpha.exp() * excess, [self.log_alpha])
        torch._foreach_lerp_(list(self.qf_target.parameters()), [x.detach() for x in qf.parameters()], args.tau)
        figures |= {"losses/critic": critic_loss, "losses/alpha": alpha.flatten()}
        return {name: x.detach() for name, x in figures.items()}


class ReplayBuffer:  # Copied from pmoe_sac.ReplayBuffer
    def __init__(self, capacity: int, obs_size: int, action_size: int, generators: list[Generator]):
        """The last `capacity` transitions of S seeds, a row each: obs, action, next_obs, reward, terminated."""
        self.generators, self.sizes = generators, (obs_size, action_size, obs_size, 1, 1)
        self.rows = torch.empty(len(generators), capacity, sum(self.sizes), device=generators[0].device)

    def sample(self, size: int, batch_size: int) -> tuple[Tensor, ...]:
        """From the first `size` rows, uniformly, with replacement, each seed from its own: (S, B, .) each"""
        index = [torch.randint(size, (batch_size,), generator=g, device=g.device) for g in self.generators]
        return torch.stack([rows[i] for rows, i in zip(self.rows, index)]).split(self.sizes, -1)


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


def load_actor(run_dir: str | Path) -> Actor:  # Copied from pmoe_sac.load_actor
    """The policy in a run's checkpoint, S = 1, on the CPU; ends the program if there is none."""
    learnt = load(max(Path(run_dir).glob("checkpoint/*.pt"), default=Path(run_dir, "checkpoint")))["learnt"]
    state = {name.removeprefix("actor."): x for name, x in learnt.items() if name.startswith("actor.")}
    bound, k = state["scale"].flatten().numpy(), state["router.weight"].shape[-1]
    actor = Actor(state["fc1.weight"].shape[1], -bound, bound, k, [Generator()])
    actor.load_state_dict(state)
    return actor


def train(args: Args) -> list[Path]:  # Copied from pmoe_sac.train
    """Trains seeds args.seed, args.seed + 1, ... side by side; returns their run directories. Ends the program with one
    line on bad input (status 2), a number that is not finite (1), Ctrl-C (130), SIGTERM (143). OSError: a full disk."""
    check(args)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-1, 2**30), libc.mallopt(-3, 2**25), libc.mallopt(-3, 2**30)  # keep freed memory: faults are slow
    device = torch.device("cuda" if torch.cuda.is_available() and args.device != "cpu" else "cpu")
    seeds = range(args.seed, args.seed + args.num_seeds)
    envs, eval_envs = (Envs(args.env_id, n * len(seeds), args.env_backend) for n in (1, args.eval_episodes))
    runs = Runs(args, device)
    generators = [Generator(device).manual_seed(seed) for seed in seeds]
    agent = Agent(args, envs.obs_size, envs.low, envs.high, generators)
    capacity = min(args.buffer_size, args.total_timesteps)
    buffer = ReplayBuffer(capacity, envs.obs_size, len(envs.low), generators)
    update, draw, figures, last, returns = agent.update, agent.draw, {}, np.nan, np.array(np.nan)
    tools = shutil.which(os.environ.get("CXX", "g++")) and Path(sysconfig.get_path("include"), "Python.h").exists()
    if args.compile != "off" and tools:
        torch._dynamo.config.trace_autograd_ops = True  # takes the backward passes into the graph too
        options = {"triton.cudagraphs": device.type == "cuda" and args.compile == "graph"}
        update, draw = (torch.compile(f, fullgraph=True, dynamic=False, options=options) for f in (update, draw))
    envs.start([seed + runs.start for seed in seeds])

    def noise(n: int) -> tuple[Tensor, Tensor]:  # normal (S, n, J, A) and uniform (S, n, J)
        shapes = ((torch.randn, (n, agent.draws, len(envs.low))), (torch.rand, (n, agent.draws)))
        return tuple(torch.stack([f(shape, generator=g, device=device) for g in generators]) for f, shape in shapes)

    def learnt(s: int) -> dict[str, Tensor]:  # by seed s; the first axis of all but Adam's powers is S or, of twins, 2S
        return {n: x.unflatten(0, (len(seeds), -1))[s] if x.dim() else x for n, x in agent.state_dict().items()}

    def state(s: int, step: int) -> dict:  # all that an exact resume of seed s needs, beside its replay.f32
        with open(runs.paths[s] / "checkpoint/replay.f32", "ab") as file:
            new = np.arange(file.tell() // buffer.rows[s, 0].nbytes, step) % capacity
            buffer.rows[s, new].cpu().numpy().tofile(file)
            os.fsync(file)
        random = {"generator": generators[s].get_state(), "random_state": envs.random_state[s]}
        random |= {"actions": torch.tensor(np.array(envs.actions[s])), "replay": step * buffer.rows[s, 0].nbytes}
        return random | {"learnt": {name: x.clone() for name, x in learnt(s).items()}}

    for s, (path, saved) in enumerate(zip(runs.paths, runs.states)):
        os.truncate(path / "checkpoint/replay.f32", saved["replay"])
        rows = np.fromfile(path / "checkpoint/replay.f32", "f4").reshape(-1, sum(buffer.sizes))[-capacity:]
        buffer.rows[s, np.arange(runs.start - len(rows), runs.start) % capacity] = torch.from_numpy(rows).to(device)
        torch._foreach_copy_(list(learnt(s).values()), list(saved["learnt"].values()))
        generators[s].set_state(saved["generator"])
        envs.reset(s, saved["random_state"], saved["actions"].numpy())
    print(*runs.paths, f"on {device}, from step {runs.start}", flush=True)
    obs = torch.tensor(envs.obs, dtype=torch.float32, device=device).unsqueeze(1)  # (S, 1, O)
    runs.save(runs.start, [state(s, runs.start) for s in range(len(seeds))])
    for step in range(runs.start + 1, args.total_timesteps + 1):
        end = step == args.total_timesteps
        save = end or bool(runs.stop) or step % min(args.checkpoint_every, capacity) == 0
        if step > args.random_steps:
            action = draw(obs, *noise(1))[0].flatten(1).cpu().numpy()
        else:
            action = envs.low + (envs.high - envs.low) * noise(len(envs.low))[1][..., 0].cpu().numpy()  # uniform
        if step > args.learning_starts:  # before the environments move: on a GPU the two overlap
            figures = update(*buffer.sample(min(step - 1, capacity), args.batch_size), *noise(2 * args.batch_size))
        if save or step % 100 == 0 or not np.isfinite(action).all():
            broken = [n for n, x in (figures | agent.state_dict()).items() if not x.isfinite().all()]
            if broken or not np.isfinite(action).all():
                fail(f"{[*broken, 'an action'][0]} is not finite at step {step}; the last checkpoint is from before", 1)
        rows = [envs.obs.copy(), action.clip(envs.low, envs.high).astype(np.float32)]
        next_obs, reward, terminated, truncated = envs.step(rows[1], np.arange(len(seeds), dtype=np.int32))
        for s in np.flatnonzero(terminated | truncated):
            last, length = envs.returns[s], len(envs.actions[s])
            runs.record(s, "episodes", step, episodic_return=last, episodic_length=length)
            envs.reset(s)
        rows += [next_obs, reward, terminated, envs.obs]  # to the device in one transfer
        sent = torch.from_numpy(np.column_stack(rows).astype(np.float32)).to(device, non_blocking=True)
        buffer.rows[:, (step - 1) % capacity] = sent[:, : -envs.obs_size]
        obs.copy_(sent[:, None, -envs.obs_size :])
        if end or step % args.eval_every == 0:
            returns = eval_envs.evaluate(agent.actor.act, seeds, step)
            for s, r in enumerate(returns):
                runs.record(s, "eval", step, eval_return=r.mean(), eval_return_std=r.std(), eval_episodes=len(r))
        if end or step % 1000 == 0:
            speed = step / (time.monotonic() - runs.began)
            print(f"step {step}  return {last:.0f}  evaluation {returns.mean():.0f}  {speed:.0f} steps/s", flush=True)
            for name, x in (figures | {"charts/SPS": torch.full((len(seeds),), speed)}).items():
                for writer, value in zip(runs.writers, x.cpu()):
                    writer.add_scalar(name, value, step)
        if save:
            runs.save(step, [state(s, step) for s in range(len(seeds))])
        if save and runs.stop:
            print(f"stopped at step {step}; the same command with --resume goes on")
            raise SystemExit(128 + runs.stop[0])
    for path, writer in zip(runs.paths, runs.writers):
        head, *_, values = (line.split(",") for line in (path / "eval.csv").read_text().split())
        done = dict(zip(head, map(float, values)), step=args.total_timesteps, wall_time=time.monotonic() - runs.began)
        (path / "done.json").write_text(json.dumps(done, indent=2))
        if not args.keep_replay:
            (path / "checkpoint/replay.f32").unlink()  # it served to go on
        writer.close()
    for number, handler in runs.handlers.items():
        signal.signal(number, handler)
    return runs.paths


if __name__ == "__main__":
    train(tyro.cli(Args))
