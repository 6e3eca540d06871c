"""What the figures of trained policies share: which runs they show, and what a policy does in its episodes.

They ask of an algorithm's file, a fork's too, what every file has. An actor is called with observations and
gives mean, log_std and log_w; it acts, and lets one choose the primitive. A fork that is otherwise is named
in a line.
"""

import contextlib
import copy
import io
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Generator, Tensor

from .. import algorithms
from ..algorithms import AlgorithmError
from ..envs import load_module, warn_once, without_render_mode
from ..files import checkpoints
from .runs import PlotError, Run, by_method, few

PACKAGE = __package__.rpartition(".")[0]
# of primitives: Okabe and Ito's, then others
COLOURS: tuple[str, ...] = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
COLOURS += ("#000000", "#7F3C8D", "#A5682A", "#8C8C8C", "#1B7C7C", "#B3DE69", "#FB9A99", "#6A3D9A", "#B15928")


# What a process runs to find out whether an environment can be rendered; the current folder, from which `-c`
# imports first, is taken from the path.
PROBE = f"""
import sys
sys.path = [place for place in sys.path if place]
from {PACKAGE} import envs
envs.load_module(sys.argv[1])
env = envs.make(sys.argv[1], render_mode="rgb_array")
env.reset()
env.render()
"""


# Which policies there are


def pick(runs: list[Run], several: bool = True) -> tuple[list[Run], list[str]]:
    """The first seed of every method whose policy can be loaded, with `several` only of those with several
    primitives, and notes on what is shown and what is not. PlotError: there is none."""
    picked = []
    notes = []
    for env, methods in by_method(runs).items():
        for method, group in methods.items():
            run, lines = first_policy(group, several)
            notes += [f"{env}, {method}: {line}" for line in lines]
            if run:
                picked.append(run)
    if not picked:
        kind = "no trained policy of several primitives" if several else "no trained policy"
        raise PlotError(f"{kind} to show: {few(notes)}")
    return picked, notes


def first_policy(group: list[Run], several: bool) -> tuple[Run | None, list[str]]:
    """The first of a method's runs whose policy can be loaded, if there is one, and what to say of it and of
    others"""
    if several and group[0].args["k"] == 1:
        return None, ["its policy is not shown, as it has one primitive"]
    lines = []
    for run in group:
        try:
            step, _ = trained(run)
        except PlotError as error:
            lines.append(f"a policy is not shown, as {error}")
        else:
            if several and primitive_count(run) == 0:
                return None, ["its policy is not shown, as it is implicit and has no primitives"]
            return run, [*lines, f"the policy shown is {run.path} at step {step:,}"]
    return None, lines


def analyse(runs: Iterable[Run], analysis: Callable, notes: list[str]) -> list[tuple]:
    """(run, analysis(run)) of each run. A PlotError becomes a note; it is raised where no run is left."""
    results = []
    for run in runs:
        try:
            results.append((run, analysis(run)))
        except PlotError as error:
            notes.append(f"{run.env}, {run.method}: not shown, as {error}")
    if not results:
        raise PlotError(notes[-1])
    return results


# From a run to its policy


def algorithm(run: Run) -> ModuleType:
    """The file that a run came from. PlotError: it is gone, or does not load."""
    try:
        return algorithms.load_of_run(run.path)
    except AlgorithmError as error:
        raise PlotError(str(error)) from None


def make_envs(run: Run, n: int, **kwargs):
    """n environments as the run had them, but for how they are rendered: an `Envs` of its algorithm.
    PlotError: they cannot be made."""
    module = algorithm(run)
    env_id = without_render_mode(run.env)
    said = io.StringIO()
    try:
        load_module(env_id)
        warn_once(env_id)
        with contextlib.redirect_stderr(said):
            envs = module.Envs(env_id, n, **kwargs)
    except (Exception, SystemExit) as error:  # environments raise anything
        # An algorithm's file ends the program with a line of its own.
        reason = said.getvalue().strip() or f"{type(error).__name__}: {error}"
        raise PlotError(f"{run.path}: its environment cannot be made ({reason})") from error
    check_fit(run, envs)
    return envs


def check_fit(run: Run, envs) -> None:
    """PlotError: the policy is of another environment, or has another K than its config.json says."""
    _, actor = trained(run)
    obs = torch.zeros(1, 1, envs.obs_size)
    try:
        mean, _, _ = gaussians(actor, obs)
    # A fork raises anything, and is told of where it does more than this.
    except Exception as error:  # noqa: BLE001
        fits = not isinstance(error, RuntimeError)
    else:
        _, k, action_size = mean.shape
        fits = action_size == envs.action_size and k == run.args["k"]
    if not fits and is_own(algorithm(run)):
        raise PlotError(f"{run.path}: its checkpoint is of another environment or K than its config.json")


def is_own(module: ModuleType) -> bool:
    """Whether a file is one of the project's, and no fork"""
    return module.__name__.startswith(f"{PACKAGE}.")


@contextlib.contextmanager
def fork_errors(run: Run):
    """Where a fork's code cannot do what is asked here, a PlotError says so; errors of the project's own
    files stay."""
    try:
        yield
    except PlotError:
        raise
    except Exception as error:  # a fork raises anything
        module = algorithm(run)
        if is_own(module):
            raise
        message = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {message}"
        raise PlotError(f"{run.path}: {module.__file__} is too different for this ({reason})") from error


def trained(run: Run) -> tuple:
    """Step and actor of the checkpoint that is asked for; of a run that is still trained, the same at every
    call. A new copy of the actor, as DAC's keeps its option. PlotError: it cannot be loaded."""
    while run.policy is None:
        step, file = checkpoint_of(run)
        actor = load_actor(run, file)
        # Training may have gone on to the next.
        if checkpoint_of(run) == (step, file):
            run.policy = step, actor
    step, actor = run.policy
    return step, copy.deepcopy(actor)


def checkpoint_of(run: Run) -> tuple[int, Path]:
    """Step and file of the run's `checkpoint`. PlotError: there is none."""
    known = checkpoints(run.path)
    if run.checkpoint == "best":
        return best_checkpoint(run)
    if run.checkpoint != "last":
        step = int(run.checkpoint)
        if step not in known:
            steps = ", ".join(map(str, sorted(known))) or "none"
            raise PlotError(f"{run.path} has no checkpoint of step {step}, but of {steps}")
        return step, known[step]
    file = max(run.path.glob("checkpoint/[0-9]*.pt"), default=None)
    if file is None:
        raise PlotError(f"{run.path} has no checkpoint")
    for step, other in known.items():
        if other == file:
            return step, file
    raise PlotError(f"{file} is no checkpoint")


def best_checkpoint(run: Run) -> tuple[int, Path]:
    """Step and file of the policy of the best evaluation. PlotError: there is none."""
    file = run.path / "checkpoint/best.pt"
    if not file.exists():
        raise PlotError(f"{run.path} has no best policy yet: none was evaluated, or it is an older run")
    try:
        return int(torch.load(file, "cpu", weights_only=True)["step"]), file
    except Exception:  # noqa: BLE001  torch raises many kinds
        raise PlotError(f"{file} is damaged") from None


def load_actor(run: Run, file: Path):
    """The actor in the file of a run's `checkpoint`; None where training has replaced that. PlotError: it
    cannot be loaded."""
    module = algorithm(run)
    # Older forks load the last one only, and take no word for it.
    which = [] if run.checkpoint == "last" else [run.checkpoint]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            actor = module.load_actor(run.path, *which)
    except (Exception, SystemExit) as error:  # a fork raises anything
        if not file.exists():
            return None
        if isinstance(error, SystemExit):
            raise PlotError(f"{file} is damaged or no checkpoint of {run.algo}") from None
        raise PlotError(f"{file} does not fit the Actor of {module.__file__}") from error
    for name, x in actor.state_dict().items():
        if not x.isfinite().all():
            raise PlotError(f"{file} is damaged: {name} is not finite")
    return actor


def composes(run: Run) -> bool:
    """Whether the policy makes one action of all its primitives' (gating, MCP) instead of choosing a
    primitive"""
    return hasattr(algorithm(run), "compose")


def primitive_count(run: Run) -> int:
    """K, or 0 of an implicit policy (amortized), which makes its actions of noise; what its actor gives in
    the place of primitives are a few of its actions"""
    with contextlib.suppress(PlotError):  # the file is gone
        if getattr(algorithm(run).Actor, "is_implicit", False):
            return 0
    return run.args["k"]


# What a policy does


@dataclass
class Rollout:
    """N steps of E episodes, the first episode first"""

    # Each step
    episode: np.ndarray  # (N,), numbered from 0
    time: np.ndarray  # (N,), which step of its episode
    obs: np.ndarray  # (N, O), what the policy was told
    action: np.ndarray  # (N, A), what it did; the bounds are -1 and 1
    reward: np.ndarray  # (N,)
    done: np.ndarray  # (N,), whether the episode ended with it

    # The policy in it; each primitive's Gaussian is in SAC's family that before the tanh
    mean: np.ndarray  # (N, K, A)
    log_std: np.ndarray  # (N, K, A)
    mean_action: np.ndarray  # (N, K, A), each primitive's; the bounds are -1 and 1
    # Log-probabilities of the primitives; of DAC log pi_H given the option before; of MCP, whose gates do not
    # sum to 1, the log of each gate's share of their sum
    log_w: np.ndarray  # (N, K)
    # The primitive that acted; of gating and MCP, where all act, that of the largest weight; of an implicit
    # policy 0
    chosen: np.ndarray  # (N,)

    # All of them
    returns: np.ndarray  # (E,), undiscounted
    frames: list[np.ndarray]  # (H, W, 3) each
    ends: list[dict]  # what the environment said at each episode's end, its last `info`
    paths: list[np.ndarray]  # (T + 1, 2) each, where it went, of an environment that keeps its `path`


def rollout(
    run: Run, episodes: int, primitive: int | None = None, frames_at=(), sample: bool = False
) -> Rollout:
    """What the deterministic policy does in the episodes of `pmoe eval`, or what a primitive alone does; with
    pictures of the first episode before its steps `frames_at`; with `sample`, actions are drawn as in
    training. PlotError: the run is a fork's that has other means."""
    module = algorithm(run)
    checkpoint, actor = trained(run)
    composed = primitive is None and composes(run)
    options = {"render_mode": "rgb_array"} if len(frames_at) else {}
    envs = make_envs(run, episodes, **options)
    first = envs.envs[0]
    if len(frames_at):
        follow(first)
    said = [last_info(env) for env in envs.envs]
    decision = {}  # the last
    records = []
    frames = []
    draw = None
    if sample:
        with fork_errors(run):
            draw = drawer(run, envs, primitive)

    def act(obs: Tensor) -> Tensor:
        if len(records) in frames_at:
            frames.append(first.render())
        if draw:
            action, chosen = draw(obs)
            _, about = decide(actor, obs, chosen, composed)
        else:
            action, about = decide(actor, obs, primitive, composed)
        decision.update(about)
        return action

    def step(action: np.ndarray, ids: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        ids = np.arange(episodes) if ids is None else ids
        result = module.Envs.step(envs, action, ids)
        _, reward, terminated, truncated = result
        record = {name: x.numpy()[ids] for name, x in decision.items()}
        record |= {"episode": ids, "time": np.full(len(ids), len(records))}
        record["action"] = action.clip(-1, 1)
        record |= {"reward": reward, "done": terminated | truncated}
        records.append(record)
        return result

    envs.step = step
    with fork_errors(run):
        returns = envs.evaluate(act, [run.seed], checkpoint)[0]
        steps = by_episode(records)
    for env in envs.envs:
        env.close()
    mean_action = within_bounds(run, steps["mean"])
    paths = [np.array(getattr(env.unwrapped, "path", [])) for env in envs.envs]
    return Rollout(**steps, mean_action=mean_action, returns=returns, frames=frames, ends=said, paths=paths)


def within_bounds(run: Run, u: np.ndarray) -> np.ndarray:
    """Actions from what a primitive's Gaussian gives: a tanh keeps them there in SAC's family, or clipping"""
    return bounded(u, run.family == "SAC")


def last_info(env) -> dict:
    """What an environment says of its last step, from now on: its `info`"""
    last: dict = {}
    move = env.step

    def step(action):
        result = move(action)
        last.clear()
        last.update(result[-1])
        return result

    env.step = step
    return last


def bounded(u: np.ndarray, squashed: bool) -> np.ndarray:
    """What the environment gets, in units of its bounds, of what a Gaussian draws"""
    return np.tanh(u) if squashed else u.clip(-1, 1)


def decide(
    actor, obs: Tensor, primitive: int | Tensor | None, composed: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The action (1, E, A) of a policy, of a primitive alone or of one for each observation (E,), on obs (1,
    E, O), and how it came about: the fields of a Rollout, (E, ...) each"""
    mean, log_std, log_w = gaussians(actor, obs)
    weights = [log_w]

    def choose(log_w: Tensor) -> Tensor:
        # DAC's are given the option before.
        weights.append(log_w[0])
        likeliest = log_w.argmax(-1, keepdim=True)
        if isinstance(primitive, Tensor):
            return primitive.view_as(likeliest)
        return likeliest if primitive is None else torch.full_like(likeliest, primitive)

    action = actor.act(obs) if composed else actor.act(obs, choose)
    log_w = weights[-1].log_softmax(-1)
    chosen = log_w.argmax(-1)
    if isinstance(primitive, Tensor):
        chosen = primitive
    elif primitive is not None:
        chosen = torch.full_like(chosen, primitive)
    decision = {"obs": obs[0].clone(), "mean": mean, "log_std": log_std, "log_w": log_w, "chosen": chosen}
    return action, decision


def by_episode(records: list[dict]) -> dict[str, np.ndarray]:
    """Records of one step of some episodes, (n, ...) each -> all steps, the first episode's, the second's,
    ..."""
    steps = {}
    for name in records[0]:
        steps[name] = np.concatenate([record[name] for record in records])
    order = steps["episode"].argsort(kind="stable")
    return {name: x[order] for name, x in steps.items()}


def gaussians_in(run: Run, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean and log_std (N, K, A) of a policy's primitives in states (N, O), whoever visited them: what it
    kept of an episode, as DAC its option, decides who acts and not what each would do. PlotError: it is a
    fork that cannot be asked so."""
    _, actor = trained(run)
    with fork_errors(run):
        mean, log_std, _ = gaussians(actor, torch.from_numpy(obs).unsqueeze(0))
    return mean.numpy(), log_std.numpy()


def gaussians(actor, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """obs (1, B, O) -> mean (B, K, A), log_std (B, K, A) and log_w (B, K) of a policy of any algorithm"""
    if hasattr(actor, "statistics"):
        obs = actor.statistics.normalize(obs)
    mean, log_std, log_w, *_ = actor(obs)
    if mean.dim() != 4 or log_w.shape != mean.shape[:3]:
        raise ValueError("its actor does not give mean (S, B, K, A), log_std and log_w (S, B, K)")
    log_std = log_std.expand_as(mean)
    return mean[0].detach(), log_std[0].detach(), log_w[0].detach()


def sampler(run: Run, envs, primitive: int | None = None) -> Callable:
    """A function obs (1, E, O) -> action (1, E, A) that samples as in training, or as where the router gives
    all the weight to one primitive, for all `envs` of an algorithm's `Envs` at each call"""
    draw = drawer(run, envs, primitive)

    def act(obs: Tensor) -> Tensor:
        action, _ = draw(obs)
        return action

    return act


def drawer(run: Run, envs, primitive: int | None = None) -> Callable:
    """The same, its function giving also the primitive that drew each action, (E,); where all act at once,
    that of the largest weight"""
    agent = agent_of(run, envs)
    if primitive is not None:
        only(agent.actor, primitive)
    generator = Generator().manual_seed(run.seed)
    another = Generator().manual_seed(run.seed)

    def draw(obs: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, envs.n, agent.draws)
        noise = torch.randn(*shape, envs.action_size, generator=generator)
        uniform = torch.rand(shape, generator=generator)
        sample = agent.draw(obs, noise, uniform)
        if run.family == "PPO":
            action = sample.action
            # PMOE-PPO and DAC keep it; MCP has none.
            known = getattr(sample, "primitive", getattr(sample, "option", None))
            if known is not None:
                return action, known[0, :, 0].long()
        else:
            action, _ = sample  # (1, E, 1, A)
            action = action.squeeze(2)
        mean, log_std, log_w = gaussians(agent.actor, obs)
        if composes(run) or primitive_count(run) == 0:
            return action, log_w.argmax(-1)
        return action, responsible(action[0], mean, log_std, log_w, another)

    return draw


def responsible(action: Tensor, mean: Tensor, log_std: Tensor, log_w: Tensor, generator) -> Tensor:
    """A primitive for each action (E, A) that is squashed by a tanh, drawn from p(k|a, s): together they are
    as if k had been drawn from the router and a from primitive k. (E,)"""
    # At 1 itself the inverse is infinite.
    u = action.double().clamp(-1 + 1e-7, 1 - 1e-7).atanh().unsqueeze(1)
    z = (u - mean) / log_std.exp()
    log_prob = log_w - (z.square() / 2 + log_std).sum(-1)
    return torch.multinomial(log_prob.softmax(-1), 1, generator=generator).squeeze(-1)


def agent_of(run: Run, envs):
    """The agent of a run, with its trained actor, for all `envs`; what is learnt beside the actor is not the
    run's. PlotError: there is none."""
    module = algorithm(run)
    # Files from before commit ba5f7ce take a list of generators.
    rng = module.Philox([0]) if hasattr(module, "Philox") else [Generator()]
    names = {field.name for field in fields(module.Args)}
    args = {name: value for name, value in run.args.items() if name in names}
    args = module.Args(**args | {"num_seeds": 1})
    try:
        agent = module.Agent(args, envs.obs_size, envs.action_size, rng)
    except Exception as error:  # an option may be of any kind
        reason = f"its config.json makes no agent ({type(error).__name__}: {error})"
        raise PlotError(f"{run.path}: {reason}") from error
    _, agent.actor = trained(run)
    # Observations are normalised as at the end of training.
    if hasattr(agent.actor, "statistics"):
        agent.actor.statistics.update = lambda obs: None
    # DAC's option, one for each environment; -1: there is none yet.
    if hasattr(agent, "option"):
        agent.option = torch.full((1, envs.n, 1), -1.0)
    return agent


def only(actor, primitive: int) -> None:
    """From now on the actor's router gives all the weight to this primitive."""
    forward = actor.forward

    def alone(obs: Tensor) -> tuple[Tensor, ...]:
        mean, log_std, log_w, *rest = forward(obs)
        others = torch.arange(log_w.shape[-1]) != primitive
        log_w = others.mul(-1e9).expand_as(log_w)
        return mean, log_std, log_w, *rest

    actor.forward = alone


# How figures show primitives


def colours(k: int) -> list[str]:
    """Of k primitives"""
    return [COLOURS[i % len(COLOURS)] for i in range(k)]


def ticks(k: int) -> range:
    """Primitives that an axis names: at most eight"""
    return range(0, k, -(-k // 8))


def plot_usage(ax, mean: np.ndarray, share: np.ndarray) -> None:
    """Mean probability (K,) and, hatched, share of the steps (K,) of each primitive"""
    k = len(mean)
    bars = {"color": colours(k), "edgecolor": "black", "linewidth": 0.5}
    ax.bar(np.arange(k) - 0.2, mean, 0.38, **bars)
    ax.bar(np.arange(k) + 0.2, share, 0.38, **bars, hatch="////", alpha=0.6)
    ax.set(xticks=ticks(k), ylim=(0, 1), xlabel="primitive")


def stem(out: Path, figure: str, *words: str) -> Path:
    """OUT/FIGURE-WORDS, without what file systems or `with_suffix` take for something else"""
    parts = [figure]
    for word in words:
        word = word.replace("=", "")
        parts.append(re.sub(r"[^\w-]+", "-", word))
    name = "-".join(parts)
    # No file can be called longer than 255 bytes.
    if len(name.encode()) > 240:
        name = f"{name[:50]}-{zlib.crc32(name.encode()):08x}"
    return out / name


# Pictures of an environment


def follow(env) -> None:
    """Renders by the camera that goes with the body, where a MuJoCo model has one; Gymnasium's own stands
    still."""
    inner = env.unwrapped
    if hasattr(inner, "mujoco_renderer"):
        import mujoco

        camera = mujoco.mj_name2id(inner.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        inner.mujoco_renderer.camera_id = camera  # -1, Gymnasium's, if there is none


def choose_renderer(env_id: str) -> str:
    """Sets MUJOCO_GL to what works here: without a screen EGL or, where there is none, OSMesa. Each is tried
    in a process of its own, because a library that failed once spoils the next. Returns why none does, or
    nothing."""
    screen = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    given = "MUJOCO_GL" in os.environ or screen
    command = [sys.executable, "-W", "ignore", "-c", PROBE, without_render_mode(env_id)]
    reasons = []
    choices = [{"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "osmesa"}]
    if given:
        choices = [{}]
    for choice in choices:
        trial = subprocess.run(command, env=os.environ | choice, capture_output=True, text=True, check=False)
        if trial.returncode == 0:
            os.environ.update(choice)
            return ""
        lines = trial.stderr.splitlines()
        reasons.append(lines[-1] if lines else "its process died")
    return "; ".join(dict.fromkeys(reasons))
