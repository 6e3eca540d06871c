"""What the figures of trained policies share: which runs they show, and what a policy does in its episodes."""

import contextlib
import copy
import io
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from ..algorithms import ALGORITHMS, load
from .runs import PlotError, Run, by_method

# of primitives: Okabe and Ito's, then others
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
COLOURS += ("#7F3C8D", "#A5682A", "#8C8C8C", "#1B7C7C", "#B3DE69", "#FB9A99", "#6A3D9A", "#B15928")


def pick(runs: list[Run], several: bool = True) -> tuple[list[Run], list[str]]:
    """The first seed of every method whose policy can be loaded, with `several` only of those with several primitives,
    and notes on what is shown and what is not. PlotError: there is none."""
    picked, notes = [], []
    for env, methods in by_method(runs).items():
        for method, group in methods.items():
            if several and group[0].args["k"] == 1:
                notes.append(f"{env}, {method}: its policy is not shown, as it has one primitive")
                continue
            for run in group:
                try:
                    step, _ = trained(run)
                except PlotError as error:
                    notes.append(f"{env}, {method}: a policy is not shown, as {error}")
                    continue
                picked.append(run)
                notes.append(f"{env}, {method}: the policy shown is {run.path} at step {step:,}")
                break
    if not picked:
        raise PlotError(f"no trained policy{' of several primitives' * several} to show: {'; '.join(notes)}")
    return picked, notes


def trained(run: Run) -> tuple:
    """Step and actor of a run's last checkpoint; of one that is still trained, the same at every call. A new copy of
    the actor, as DAC's keeps its option. PlotError: it cannot be loaded."""
    if run.algo not in ALGORITHMS:
        raise PlotError(f"{run.path} is of the algorithm {run.algo!r}, not of pmoe's: {', '.join(ALGORITHMS)}")
    while run.policy is None:
        file = max(run.path.glob("checkpoint/*.pt"), default=None)
        if file is None:
            raise PlotError(f"{run.path} has no checkpoint")
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                actor = load(run.algo).load_actor(run.path)
        except (SystemExit, KeyError, IndexError, RuntimeError):
            if file.exists():  # or training went on to the next
                raise PlotError(f"{file} is damaged or no checkpoint of {run.algo}") from None
            continue
        if file == max(run.path.glob("checkpoint/*.pt"), default=None) and file.stem.isdigit():
            run.policy = int(file.stem), actor
        elif not file.stem.isdigit():
            raise PlotError(f"{file} is no checkpoint")
    step, actor = run.policy
    return step, copy.deepcopy(actor)


def colours(k: int) -> list[str]:
    """Of k primitives"""
    return [COLOURS[i % len(COLOURS)] for i in range(k)]


def usage_bars(ax, mean: np.ndarray, share: np.ndarray) -> None:
    """Mean probability (K,) and, hatched, share of the steps (K,) of each primitive"""
    k = len(mean)
    bars = {"color": colours(k), "edgecolor": "black", "linewidth": 0.5}
    ax.bar(np.arange(k) - 0.2, mean, 0.38, **bars)
    ax.bar(np.arange(k) + 0.2, share, 0.38, **bars, hatch="////", alpha=0.6)
    ax.set(xticks=ticks(k), ylim=(0, 1), xlabel="primitive")


def stem(out: Path, figure: str, *words: str) -> Path:
    """OUT/FIGURE-WORDS, without what file systems or `with_suffix` take for something else"""
    return out / "-".join([figure, *(re.sub(r"[^\w-]+", "-", word.replace("=", "")) for word in words)])


def ticks(k: int) -> range:
    """Primitives that an axis names: at most eight"""
    return range(0, k, -(-k // 8))


def composes(run: Run) -> bool:
    """Whether the policy makes one action of all its primitives' (gating, MCP) instead of choosing a primitive"""
    return hasattr(load(run.algo), "compose")


def rollout(run: Run, episodes: int, primitive: int | None = None, frames_at=()) -> dict[str, np.ndarray]:
    """What the deterministic policy does in the episodes of `pmoe eval`, always in Gymnasium, or what a primitive alone
    does; N steps of E episodes, the first episode first:

    episode, time (N,)   which episode, and which of its steps
    obs (N, O)           what the policy saw
    action (N, A)        what it did, within the bounds
    reward (N,)          what it got
    done (N,)            whether the episode ended with it
    log_w (N, K)         log-probabilities of the primitives; DAC: log pi_H given the option before; MCP, whose gates
                         have no sum: each gate's share of it
    chosen (N,)          the primitive that acted; of gating and MCP, where all act, the one of the largest weight
    mean, log_std (N, K, A)   each primitive's Gaussian, in SAC's family before the tanh
    each (N, K, A)       each primitive's mean action, within the bounds
    bounds (2, A)        of the action
    squashed             whether its bounds come from a tanh, as in SAC's family, or from clipping
    returns (E,)         undiscounted
    frames               pictures of the first episode before its steps `frames_at`, (H, W, 3) each
    """
    module, (at, actor) = load(run.algo), trained(run)
    envs = module.Envs(run.env, episodes, **({"render_mode": "rgb_array"} if len(frames_at) else {}))
    steps, frames, composing = [], [], composes(run)
    if len(frames_at):
        follow(envs.envs[0])

    def act(obs: Tensor) -> Tensor:
        if len(steps) in frames_at:
            frames.append(envs.envs[0].render())
        mean, log_std, log_w = gaussians(actor, obs)
        said = {"obs": obs[0].clone(), "log_w": log_w, "mean": mean, "log_std": log_std}

        def choose(log_w: Tensor) -> Tensor:
            said["log_w"] = log_w[0]
            best = log_w.argmax(-1, keepdim=True)
            return best if primitive is None else torch.full_like(best, primitive)

        action = actor.act(obs, None if composing and primitive is None else choose)
        said["log_w"] = said["log_w"].log_softmax(-1)
        said["chosen"] = said["log_w"].argmax(-1) if primitive is None else torch.full((episodes,), primitive)
        steps.append(said)
        return action

    def step(action: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, ...]:
        result = module.Envs.step(envs, action, ids)
        said = {name: x.numpy()[ids] for name, x in steps[-1].items()}
        said |= {"episode": ids, "time": np.full(len(ids), len(steps) - 1), "action": action}
        steps[-1] = said | {"reward": result[1], "done": result[2] | result[3]}
        return result

    envs.step = step
    returns = envs.evaluate(act, [run.seed], at)[0]
    for env in envs.envs:
        env.close()
    order = np.concatenate([x["episode"] for x in steps]).argsort(kind="stable")
    seen = {name: np.concatenate([x[name] for x in steps])[order] for name in steps[0]}
    squashed, bounds = hasattr(actor, "scale"), np.stack([envs.low, envs.high])
    scale, shift = (getattr(actor, name).numpy()[0] if squashed else None for name in ("scale", "shift"))
    each = shift + scale * np.tanh(seen["mean"]) if squashed else seen["mean"].clip(*bounds)
    seen |= {"each": each, "bounds": bounds, "squashed": squashed}
    return seen | {"returns": returns, "frames": frames}


def sampler(run: Run, envs, primitive: int | None = None):
    """A function obs (1, E, O) -> action (1, E, A) that draws as in training, or as where the router gives all the
    weight to one primitive, for all `envs` of an algorithm's `Envs` at each call"""
    module = load(run.algo)
    known = {field.name for field in fields(module.Args)}
    args = module.Args(**{name: x for name, x in run.args.items() if name in known} | {"num_seeds": 1})
    bounds = (envs.low, envs.high) if run.family == "SAC" else (len(envs.low),)
    agent, generator = module.Agent(args, envs.obs_size, *bounds, [Generator()]), Generator().manual_seed(run.seed)
    _, agent.actor = trained(run)
    if hasattr(agent.actor, "statistics"):
        agent.actor.statistics.update = lambda obs: None  # those of training
    if hasattr(agent, "option"):  # DAC's, one for each environment
        agent.option = torch.full((1, envs.n, 1), -1.0)
    forward = agent.actor.forward

    def alone(obs: Tensor) -> tuple[Tensor, ...]:
        mean, log_std, log_w, *more = forward(obs)
        others = torch.arange(log_w.shape[-1]) != primitive
        return mean, log_std, others.mul(-1e9).expand_as(log_w), *more

    if primitive is not None:
        agent.actor.forward = alone

    def act(obs: Tensor) -> Tensor:
        shape = (1, envs.n, agent.draws)
        noise = torch.randn(*shape, len(envs.low), generator=generator)
        drawn = agent.draw(obs, noise, torch.rand(shape, generator=generator))
        return drawn[0].squeeze(2) if run.family == "SAC" else drawn[..., envs.obs_size :][..., : len(envs.low)]

    return act


def gaussians(actor, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """obs (1, B, O) -> mean (B, K, A), log_std (B, K, A) and log_w (B, K) of a policy of any algorithm"""
    if hasattr(actor, "statistics"):
        obs = actor.statistics.normalize(obs)
    mean, log_std, log_w, *_ = actor(obs)
    return tuple(x[0].detach() for x in (mean, log_std.expand_as(mean), log_w))


def follow(env) -> None:
    """Renders by the camera that goes with the body, where a MuJoCo model has one; Gymnasium's own stands still."""
    inner = env.unwrapped
    if hasattr(inner, "mujoco_renderer"):
        import mujoco

        inner.mujoco_renderer.camera_id = mujoco.mj_name2id(inner.model, mujoco.mjtObj.mjOBJ_CAMERA, "track")  # or -1


def choose_renderer(env_id: str) -> str:
    """Sets MUJOCO_GL to what works here: without a screen EGL or, where there is none, OSMesa. Each is tried in a
    process of its own, because a library that failed once spoils the next. Returns why none does, or nothing."""
    screen = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    given = "MUJOCO_GL" in os.environ or screen
    package = __package__.rpartition(".")[0]
    probe = f"import sys, gymnasium, {package}.envs; e = gymnasium.make(sys.argv[1], render_mode='rgb_array'); "
    probe += "e.reset(); e.render()"
    reasons = []
    for choice in [{}] if given else [{"MUJOCO_GL": "egl"}, {"MUJOCO_GL": "osmesa"}]:
        command = [sys.executable, "-W", "ignore", "-c", probe, env_id.partition(",")[0]]
        tried = subprocess.run(command, env=os.environ | choice, capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            os.environ.update(choice)
            return ""
        reasons.append((tried.stderr.splitlines() or ["?"])[-1])
    return "; ".join(dict.fromkeys(reasons))
