"""How many optima a policy knows: `pmoe plot --modes`, on any environment that says `info["mode"]`.

The mode of an episode is what the environment says at its end: a whole number from 0 on, or -1 for none. An
environment's attribute `modes`, if it has one, is how many there are; else they are those that were seen.

Of E episodes with actions drawn as in training, and of as many of each primitive alone:

    modes            in at least 5 % of the policy's episodes
    alone            different modes of the primitives, a primitive's being the most frequent end of its own
                     episodes
    starved          primitives whose most frequent end is none
    no mode          share of the policy's episodes that end at none
    entropy          of the policy's episodes over modes / log of the number of modes
    I / log K        what an action says about the primitive that drew it, I(k; a | s): 0 where primitives are
                     the same or only one is used, 1 where all K are used alike and never confused
    sigma            mean standard deviation of the primitives, before the tanh if there is one
    Q ratio          standard deviation of Q over the mean actions of primitives / over samples of one: below
                     1 the best of K samples is rather luck than a better primitive

I is that of the action that the environment gets, after the tanh or clipping, seen with normal noise of
standard deviation 0.1, a twentieth of an action's range. A tanh alone would change nothing: it is invertible,
and tells 0.9999 from 1.0000. Gaussians before it may hardly overlap where the environment sees one action.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from ..envs import load_module, make, without_render_mode
from ..terminal import tracked
from .policies import (
    Rollout,
    agent_of,
    algorithm,
    bounded,
    colours,
    composes,
    fork_errors,
    make_envs,
    primitive_count,
    rollout,
    stem,
    trained,
    within_bounds,
)
from .runs import PlotError, Run, by_method, grouped
from .style import legend_below, pyplot, save, wrapped
from .tables import mean_cell, number, write

ENOUGH = 0.05  # share of the episodes from which on a mode counts
RESOLUTION = 0.1  # with which actions are seen; they lie in [-1, 1]
POINTS = 256  # of a Gaussian, all as likely; few would lie apart in the action of a wide one
STATES = 256  # at most, for the information and for Q
DRAWS = 4096  # actions for the information, at least, over all states
SAMPLES = 32  # of each primitive, for Q
SHOWN = 30  # paths in a panel
DOTS = 300  # actions in a panel
COLUMNS = 5  # of panels

HEAD = ["environment", "method", "n", "modes, each seed", "modes", "alone", "starved", "no mode, %"]
HEAD += ["entropy", "I / log K", "sigma", "Q ratio", "return"]
FOOT = (
    "Means over n seeds, of modes, I and return with 95 % intervals. Modes: in 5 % of sampled episodes; "
    "alone: different ones that are the most frequent end of a primitive alone; starved: primitives whose "
    "most frequent end is none. I: of primitive and action as the environment gets it, seen with noise of a "
    "twentieth of its range. Q ratio: spread between primitives' mean actions / within a primitive. Of "
    "gating and MCP, weights stand for probabilities."
)


# Measures


def count_modes(ends: np.ndarray) -> int:
    """Modes in at least 5 % of the episodes, whose modes are (E,), -1 for none"""
    _, counts = np.unique(ends[ends >= 0], return_counts=True)
    return int((counts >= ENOUGH * len(ends)).sum())


def usual(ends: np.ndarray) -> int:
    """The most frequent end of episodes (E,); of those as frequent the lowest, -1 before all"""
    values, counts = np.unique(ends, return_counts=True)
    return int(values[counts.argmax()])


def mode_entropy(ends: np.ndarray, modes: int) -> float:
    """Of the episodes (E,) that end at a mode, over the modes: 0 one, 1 all alike; NaN where there is nothing
    to say"""
    _, counts = np.unique(ends[ends >= 0], return_counts=True)
    if modes < 2 or not len(counts):
        return np.nan
    p = counts / counts.sum()
    return abs(float((p * np.log(p)).sum() / np.log(modes)))


def information(
    mean: np.ndarray, log_std: np.ndarray, log_w: np.ndarray, squashed: bool, seed: int = 0
) -> float:
    """I(k; a | s) / log K, the mean over states: mean and log_std (N, K, A), log_w (N, K). Actions are drawn
    and seen with noise; what they say is the divergence of p(k|a, s) from w, on average.

    Each Gaussian has POINTS quantiles, so that its density after tanh and noise is a sum, and actions are
    drawn from the same points: the estimate is without bias for these, and cannot be below 0."""
    n, k, action_size = mean.shape
    if k == 1:
        return np.nan
    generator = np.random.default_rng(seed)
    shares = (np.arange(POINTS) + 0.5) / POINTS
    z = np.array([NormalDist().inv_cdf(share) for share in shares])
    draws = -(-DRAWS // n)
    dimensions = np.arange(action_size)
    total = 0.0
    for state in range(n):
        std = np.exp(log_std[state].astype(float))
        u = mean[state][..., None] + std[..., None] * z
        points = bounded(u, squashed)  # (K, A, POINTS)

        # Actions, as they are seen
        w = np.exp(log_w[state].astype(float))
        chosen = generator.choice(k, draws, p=w / w.sum())
        which = generator.integers(POINTS, size=(draws, action_size))
        action = points[chosen[:, None], dimensions, which]
        action += RESOLUTION * generator.normal(size=action.shape)

        # What they say
        log_p = log_densities(action, points)
        log_joint = log_p + log_w[state]
        log_mixture = np.logaddexp.reduce(log_joint, axis=-1, keepdims=True)
        posterior = np.exp(log_joint - log_mixture)
        total += (posterior * (log_p - log_mixture)).sum(-1).mean()
    return float(total / n / np.log(k))


def log_densities(action: np.ndarray, points: np.ndarray) -> np.ndarray:
    """log p(a|k) of actions (D, A) by primitives whose points are (K, A, P), but for a constant: (D, K)"""
    offset = action[:, None, :, None] - points
    # Actions lie within the bounds, so that no exponent is below what a double can hold.
    density = np.exp(-(offset**2) / (2 * RESOLUTION**2)).mean(-1)  # (D, K, A)
    return np.log(density).sum(-1)


def q_ratio(q: Callable, mean: Tensor, log_std: Tensor, squash: Callable, seed: int = 0) -> float:
    """Standard deviation of Q between the mean actions of primitives / within a primitive, both over all
    states: mean and log_std (N, K, A), q of actions (N, J, A) in these states (N, J); `squash` makes
    actions"""
    n, k, action_size = mean.shape
    if k == 1:
        return np.nan
    between = q(squash(mean)).var(-1).mean()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, k, SAMPLES, action_size, generator=generator)
    u = mean.unsqueeze(2) + log_std.exp().unsqueeze(2) * noise
    each = q(squash(u).flatten(1, 2)).unflatten(1, (k, SAMPLES))
    within = each.var(-1).mean()
    return float((between / within).sqrt())


def critic(run: Run, agent, obs: Tensor) -> Callable | None:
    """Q of a run's last checkpoint in N states (N, O): a function (N, J, A) -> (N, J). None where there is no
    Q of actions: it is in SAC's family, and in PMOE-PPO"""
    on_policy = run.family == "PPO"
    # MCP-PPO has no Q, and DAC one of options.
    if on_policy and not (hasattr(agent, "critic_input") and hasattr(agent, "qf")):
        return None
    learnt = algorithm(run).load_part(run.path, "qf")
    agent.qf.load_state_dict(learnt)
    if on_policy:
        obs = agent.actor.statistics.normalize(obs[None])
        x = agent.critic_input(obs)

    @torch.no_grad()
    def q(action: Tensor) -> Tensor:
        if not on_policy:
            return agent.qf(obs[None], action[None]).amin(1)[0]
        n, j, _ = action.shape
        pairs = torch.cat([x[0].unsqueeze(1).expand(n, j, -1), action], -1)
        return agent.qf(pairs.flatten(0, 1)[None]).view(n, j)

    return q


@dataclass
class Measures:
    """Of a policy with K primitives, in E episodes of its own and of each primitive"""

    ends: np.ndarray  # (E,), the mode of each episode, -1 for none
    alone: np.ndarray  # (K, E), the same of each primitive; (0, E) of one primitive
    returns: np.ndarray  # (1 + K, E), the policy's, then each primitive's
    modes: int  # how many there are, as the environment says; 0: it does not
    information: float  # I / log K
    sigma: np.ndarray  # (K,)
    usage: np.ndarray  # (K,), mean probability
    q_ratio: float

    @property
    def own(self) -> list[int]:
        """The usual end of each primitive"""
        return [usual(ends) for ends in self.alone]

    @property
    def different(self) -> float:
        return len(set(self.own) - {-1}) if len(self.alone) else np.nan

    @property
    def starved(self) -> float:
        return self.own.count(-1) if len(self.alone) else np.nan

    @property
    def highest(self) -> int:
        """The highest mode that was seen, -1 for none"""
        return int(max(self.ends.max(), self.alone.max(initial=-1)))


def measure(run: Run, episodes: int) -> tuple[Measures, Rollout]:
    """What there is to say of a run's policy, and its episodes. PlotError: its environment names no mode."""
    steps = rollout(run, episodes, sample=True)
    ends = ends_of(run, steps)
    k = primitive_count(run)
    alone = []
    returns = [steps.returns]
    if k > 1:
        for primitive in range(k):
            episode = rollout(run, episodes, primitive, sample=True)
            alone.append(ends_of(run, episode))
            returns.append(episode.returns)

    some = states_of(steps)
    # One primitive says nothing of others, and an implicit policy has none.
    known = slice(max(k, 1))
    means, log_stds, log_w = steps.mean[some, known], steps.log_std[some, known], steps.log_w[some, known]
    sigma = np.exp(steps.log_std).mean((0, 2)) if k else np.full(1, np.nan)
    return Measures(
        ends=ends,
        alone=np.array(alone, int).reshape(-1, episodes),
        returns=np.stack(returns),
        modes=modes_of(run),
        information=information(means, log_stds, log_w, run.family == "SAC"),
        sigma=sigma,
        usage=np.exp(steps.log_w).mean(0),
        q_ratio=ratio_of(run, steps.obs[some], means, log_stds),
    ), steps


def states_of(steps: Rollout) -> np.ndarray:
    """Some of the states that were visited, at most STATES, for what takes time"""
    generator = np.random.default_rng(0)
    n = len(steps.obs)
    return generator.choice(n, min(n, STATES), replace=False)


def ends_of(run: Run, steps: Rollout) -> np.ndarray:
    """The mode of each episode, (E,). PlotError: its environment does not name it."""
    ends = []
    for last in steps.ends:
        mode = last.get("mode")
        if mode is None:
            raise PlotError('its environment says no info["mode"] at an episode\'s end')
        if not isinstance(mode, int | np.integer) or mode < -1:
            raise PlotError(f'{run.env} says info["mode"] = {mode!r}, which is no whole number from -1 up')
        ends.append(int(mode))
    return np.array(ends)


def modes_of(run: Run) -> int:
    """How many modes its environment says it has; 0: it does not say"""
    modes = getattr(world_of(run), "modes", 0)
    return modes if isinstance(modes, int) and modes > 0 else 0


def world_of(run: Run):
    """The environment of a run, without wrappers"""
    load_module(run.env)
    return make(without_render_mode(run.env)).unwrapped


def ratio_of(run: Run, obs: np.ndarray, means: np.ndarray, log_stds: np.ndarray) -> float:
    """The Q ratio in some states; NaN where there is no Q, or a fork has another"""
    envs = make_envs(run, 1)

    def squash(u: Tensor) -> Tensor:
        return u.tanh() if run.family == "SAC" else u

    try:
        with fork_errors(run):
            q = critic(run, agent_of(run, envs), torch.from_numpy(obs))
            if q is None:
                return np.nan
            return q_ratio(q, torch.from_numpy(means), torch.from_numpy(log_stds), squash)
    except PlotError:
        return np.nan


# Tables


def report(runs: list[Run], out: Path, episodes: int = 100) -> tuple[list[Path], list[str]]:
    """Writes OUT/modes.csv, .md and .tex of all runs, a row a method, and of environments that can be drawn
    OUT/modes-ENV.png and .pdf, a panel a method, its first seed. Returns the files, and notes. PlotError: no
    environment names modes."""
    measured, shown, notes = measure_all(runs, episodes)
    if not measured:
        raise PlotError(notes[-1])
    rows = []
    records = []
    files = []
    totals = {env: number_of_modes(measured, env) for env in {run.env for run, _ in measured}}
    for group in grouped(measured, lambda pair: (pair[0].env, pair[0].method)).values():
        total = totals[group[0][0].env]
        rows.append(row_of(group, total))
        for run, m in group:
            records += records_of(run, m, total)
    title = f"Modes that policies know, {episodes} episodes"
    files += write(out / "modes", records, [(title, HEAD, rows)], FOOT, notes)
    for env, panels in grouped(shown, lambda panel: panel[0].env).items():
        files += plot(panels, totals[env], stem(out, "modes", env))
    return files, notes


def measure_all(runs: list[Run], episodes: int) -> tuple[list[tuple], list[tuple], list[str]]:
    """(run, measures) of all runs, (run, measures, episodes) of the first of each method, and notes"""
    measured = []
    shown = []
    notes = []
    silent: dict[str, str] = {}  # environments that name no mode
    seen = set()
    for run in tracked(in_order(runs), "modes"):
        if run.env in silent:
            continue
        try:
            trained(run)
            m, steps = measure(run, episodes)
        except PlotError as error:
            if 'info["mode"]' in str(error):
                silent[run.env] = str(error)
                notes.append(f"{run.env}: no modes, as {error}")
            else:
                notes.append(f"{run.env}, {run.method}: not among the modes, as {error}")
            continue
        measured.append((run, m))
        if (run.env, run.method) not in seen:
            shown.append((run, m, steps))
        seen.add((run.env, run.method))
    return measured, shown, notes


def in_order(runs: list[Run]) -> list[Run]:
    """By environment and method"""
    ordered = []
    for methods in by_method(runs).values():
        for group in methods.values():
            ordered += group
    return ordered


def number_of_modes(measured: list[tuple[Run, Measures]], env: str) -> int:
    """As many as the environment says it has, or as were seen"""
    return max(max(m.modes, m.highest + 1) for run, m in measured if run.env == env)


def row_of(group: list[tuple[Run, Measures]], total: int) -> list[str]:
    """Of the table: a method's seeds"""
    run, _ = group[0]
    found = [m for _, m in group]
    counts = [count_modes(m.ends) for m in found]
    each = " ".join(map(str, counts))
    cells = [run.env, run.method, str(len(group)), each, mean_cell(counts, 1, 0, total)]
    cells.append(average([m.different for m in found], 1))
    cells.append(average([m.starved for m in found], 1))
    cells.append(average([100 * share_of_none(m.ends) for m in found], 0))
    cells.append(average([mode_entropy(m.ends, total) for m in found], 2))
    cells.append(mean_cell([m.information for m in found], 2, 0, 1))
    cells.append(average([m.sigma.mean() for m in found], 2))
    cells.append(average([m.q_ratio for m in found], 2))
    cells.append(mean_cell([m.returns[0].mean() for m in found], 2))
    return cells


def share_of_none(ends: np.ndarray) -> float:
    return float((ends < 0).mean())


def average(values: list, digits: int) -> str:
    """Of those that are numbers; – if none is"""
    usable = [x for x in values if not np.isnan(x)]
    return number(float(np.mean(usable)), digits) if usable else "–"


def records_of(run: Run, m: Measures, total: int) -> list[dict]:
    """A record of a run's policy, and one of each primitive"""
    about = {"environment": run.env, "method": run.method, "seed": run.seed, "episodes": len(m.ends)}
    record = about | {"primitive": "all", "return": m.returns[0].mean()} | counts_of(m.ends)
    record |= {"of": total, "entropy": blank_if_nan(mode_entropy(m.ends, total))}
    for name in ("different", "starved", "information", "q_ratio"):
        record[name] = blank_if_nan(getattr(m, name))
    record |= {"sigma": blank_if_nan(m.sigma.mean()), "usage": ""}
    records = [record]
    blank = dict.fromkeys(record, "")
    for primitive, ends in enumerate(m.alone):
        own = {"primitive": primitive, "return": m.returns[1 + primitive].mean()} | counts_of(ends)
        own |= {"sigma": m.sigma[primitive], "usage": m.usage[primitive]}
        records.append(blank | about | own)
    return records


def counts_of(ends: np.ndarray) -> dict[str, float]:
    """Modes, the most frequent end, and the share of none"""
    return {"modes": count_modes(ends), "mode": usual(ends), "none": share_of_none(ends)}


def blank_if_nan(x: float) -> float | str:
    return "" if np.isnan(x) else x


# The figure


def plot(panels: list[tuple], modes: int, file: Path) -> list[Path]:
    """A panel for each (run, measures, episodes): actions on a plane of rewards, or paths; no file where the
    environment shows neither"""
    run, _, steps = panels[0]
    world = world_of(run)
    has_actions = hasattr(world, "reward_of")
    has_paths = all(map(len, steps.paths))
    if not hasattr(world, "plot_layout") or not (has_actions or has_paths):
        return []
    plt = pyplot()
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    titles = [title_of(run, m, modes) for run, m, _ in panels]
    lines = max(title.count("\n") + 1 for title in titles)
    size = (max(3.2, 2.1 * columns), (2.1 + 0.12 * lines) * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, title, (run, _, steps) in zip(axes.flat, titles, panels):
        plot_panel(ax, world, run, steps)
        ax.set_title(title, fontsize=6.5)
    most = max(len(m.sigma) for _, m, _ in panels)
    marks = []
    for primitive, colour in enumerate(colours(most)):
        marks.append(plt.Line2D([], [], marker="o", linestyle="none", color=colour, label=str(primitive)))
    # No title above all panels: where these are square, the layout puts it over theirs.
    title = f"{run.env}, actions drawn as in training" + (", by primitive" if most > 1 else "")
    legend_below(figure, marks, wrapped(title, int(16 * size[0])))
    return save(figure, file)


def title_of(run: Run, m: Measures, modes: int) -> str:
    name = wrapped(f"{run.method}, seed {run.seed}", 30)
    about = f"modes {count_modes(m.ends)} of {modes}"
    if not np.isnan(m.information):
        about += f", I / log K {m.information:.2f}"
    return f"{name}\n{about}"


def plot_panel(ax, world, run: Run, steps: Rollout) -> None:
    world.plot_layout(ax)
    ax.tick_params(labelsize=6)
    k = primitive_count(run)
    shades = np.array(colours(k))
    # Where all act at once, or there are none, no primitive has drawn the action.
    by_all = composes(run) or k == 0
    acting = np.full(len(steps.chosen), "#404040") if by_all else shades[steps.chosen]
    if hasattr(world, "reward_of"):
        plot_actions(ax, world, run, steps, acting, shades)
    else:
        plot_paths(ax, steps, acting)


def plot_actions(ax, world, run: Run, steps: Rollout, acting: np.ndarray, shades: np.ndarray) -> None:
    """Actions in the first state, and of each primitive the mean and what a circle of one sigma becomes"""
    action = steps.action[:DOTS]
    if action.shape[1] == 1:
        place = action[:, 0] * world.action_space.high
        ax.scatter(place, np.zeros(len(action)), s=4, c=acting[:DOTS], linewidths=0)
        return
    ax.scatter(*action[:, :2].T, s=5, c=acting[:DOTS], linewidths=0, alpha=0.7)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    weight = np.exp(steps.log_w[0])
    for primitive, colour in enumerate(shades):
        middle = steps.mean[0, primitive, :2]
        std = np.exp(steps.log_std[0, primitive, :2])
        ring = within_bounds(run, middle + std * circle)
        width = 0.6 + 1.4 * weight[primitive]
        ax.plot(*ring.T, color=colour, linewidth=width)
        ax.plot(*within_bounds(run, middle), "o", color=colour, ms=4, mec="white", mew=0.5)


def plot_paths(ax, steps: Rollout, acting: np.ndarray) -> None:
    """The way of each episode, each step in the colour of the primitive that acted"""
    from matplotlib.collections import LineCollection

    for episode, path in enumerate(steps.paths[:SHOWN]):
        segments = list(np.stack([path[:-1], path[1:]], 1))
        mine = acting[steps.episode == episode]
        lines = LineCollection(segments, colors=mine, linewidths=0.9, alpha=0.8)
        ax.add_collection(lines)
        ax.plot(*path[-1], "o", color=mine[-1], ms=2.5, mew=0)
    ax.autoscale_view()
