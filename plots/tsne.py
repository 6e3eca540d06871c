"""Whether primitives do different things in the same states: states of an environment embedded by t-SNE and
clustered, and the actions that each primitive of each method draws in the states of one cluster, embedded
too; beside them a number, because a picture proves nothing.

Figures 4 and 10 of arXiv 2104.09122: states of ten trajectories, 10,000 of them; 2 components, perplexity
300, learning rate 150, 7,000 iterations. The paper does not say whose states these are. Here every method's
policy visits as many of them, they are embedded together, and all methods are asked in all of them, so that
none is favoured. The paper does not say the following either. States are standardised. K-means finds the
clusters in the embedding, and the one shown is that of which each method visits most. An action is drawn from
each primitive's Gaussian in every state, also of gating, whose primitives never act alone.

The number is the silhouette of these actions by primitive, in the space of actions and not in the embedding,
which may tear apart what is one: the mean of (b - a) / max(a, b), with a an action's mean distance to those
of its primitive and b to those of the nearest other. 1: primitives are far apart; 0: they overlap. Beside it
that of the mean actions: where only these are apart, primitives differ by less than their own noise.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from ..terminal import console, tracked
from .policies import Rollout, analyse, colours, gaussians_in, pick, rollout, stem, within_bounds
from .runs import PlotError, Run, grouped
from .style import pyplot, save, styles, wrapped
from .tables import write

TRAJECTORIES = 10
CLUSTERS = 8
EARLY = 250  # iterations with exaggeration, van der Maaten's
MOST = 200  # episodes, where short ones have too few states
POINTS = 5000  # of which a silhouette is taken, as its cost is their square
HEAD = ["environment", "method", "seed", "states", "own", "episodes", "drawn actions", "mean actions"]
FOOT = "All methods of an environment are asked in the same states; own: those that the method's own policy "
FOOT += "visited, in so many episodes. 1: primitives are far apart; 0: they overlap."


def check() -> None:
    """PlotError: the libraries are not there."""
    try:
        import openTSNE  # noqa: F401
    except ImportError:
        raise PlotError("--tsne needs openTSNE: pip install openTSNE") from None


def embed(points: np.ndarray, seed: int, iterations: int, show=lambda done: None) -> np.ndarray:
    """t-SNE of points (N, D) -> (N, 2); the same for the same seed. `show` is told the iterations done."""
    from openTSNE import TSNE

    options = {"learning_rate": 150, "early_exaggeration_iter": min(EARLY, iterations), "neighbors": "exact"}
    options |= {"n_iter": max(iterations - EARLY, 0), "random_state": seed, "negative_gradient_method": "fft"}
    options["perplexity"] = min(300.0, (len(points) - 1) / 3)
    # It begins with two principal components, which a line or a point has not.
    centred = points - points.mean(0)
    if points.shape[1] == 1 or np.linalg.matrix_rank(centred) < 2:
        options["initialization"] = 1e-4 * np.random.default_rng(seed).standard_normal((len(points), 2))
    done = 0

    def callback(*_) -> None:
        nonlocal done
        done += 10
        show(done)

    options |= {"callbacks": callback, "callbacks_every_iters": 10, "n_jobs": min(4, torch.get_num_threads())}
    return np.asarray(TSNE(**options).fit(points))


@dataclass
class Visits:
    """Different states that a policy visits"""

    obs: np.ndarray  # (n, O), what the policy was told, in the environment's own units
    episode: np.ndarray  # (n,), in which it was, numbered from 0


def visit(run: Run, count: int, episodes: int) -> Visits:
    """States of so many episodes or, as far as these have fewer than `count` different ones, of more.
    PlotError: there are too few."""
    steps = rollout(run, episodes)
    different = first_visits(steps)
    while len(different) < count and episodes < MOST:
        needed = 1 + int(1.1 * episodes * count / len(different))
        episodes = min(MOST, needed)
        before = len(different)
        steps = rollout(run, episodes)
        different = first_visits(steps)
        # Every episode may be the same.
        if len(different) == before:
            break
    if len(different) < 3 * CLUSTERS:
        raise PlotError(f"{run.path} visits only {len(different)} different states")
    obs = steps.obs[different]
    # Whoever cannot be asked about others' states has no say in which these are.
    gaussians_in(run, obs)
    return Visits(obs, steps.episode[different])


def first_visits(steps: Rollout) -> np.ndarray:
    """The steps whose states have not been there before"""
    _, first = np.unique(steps.obs, axis=0, return_index=True)
    return np.sort(first)


def evenly(visits: Visits, count: int) -> Visits:
    """As many of them, or all if they are fewer, evenly spaced"""
    last = len(visits.obs) - 1
    spaced = np.linspace(0, last, min(count, last + 1)).round()
    index = spaced.astype(int)
    return Visits(visits.obs[index], visits.episode[index])


def draw_actions(run: Run, obs: np.ndarray, seed: int) -> np.ndarray:
    """An action of every primitive in every state, and its mean action: (2, N, K, A)"""
    mean, log_std = gaussians_in(run, obs)
    noise = np.random.default_rng(seed).standard_normal(mean.shape)
    drawn = mean + np.exp(log_std) * noise
    return within_bounds(run, np.stack([drawn, mean]))


def separation(actions: np.ndarray, seed: int) -> float:
    """Silhouette of actions (n, K, A) by primitive; NaN of a single state's"""
    from sklearn.metrics import silhouette_score

    n, k, action_size = actions.shape
    if n < 2:
        return np.nan
    points = actions.reshape(n * k, action_size)
    primitive = np.tile(np.arange(k), n)
    return float(silhouette_score(points, primitive, sample_size=min(POINTS, n * k), random_state=seed))


@dataclass
class States:
    """N states that the policies of M methods visited, in C clusters"""

    obs: np.ndarray  # (N, O)
    visitor: np.ndarray  # (N,), the number of the method
    episodes: list[int]  # (M,), that each took
    where: np.ndarray  # (N, 2)
    cluster: np.ndarray  # (N,), 0 is the one whose actions are shown

    @property
    def sizes(self) -> np.ndarray:
        """States of each method in each cluster, (M, C)"""
        return sizes_of(self.visitor, self.cluster, len(self.episodes))


@dataclass
class Actions:
    """What the K primitives of a method do in N states"""

    drawn: np.ndarray  # (N, K, A), an action of each in each
    silhouettes: np.ndarray  # (2, C), of drawn and of mean actions in each cluster
    points: np.ndarray  # (n, K, 2), where the actions drawn in cluster 0 are


def embed_states(visits: list[Visits], seed: int, iterations: int, show=lambda done: None) -> States:
    """Of methods' visits, all together"""
    obs = np.concatenate([each.obs for each in visits])
    lengths = [len(each.obs) for each in visits]
    visitor = np.repeat(np.arange(len(visits)), lengths)
    episodes = [int(each.episode.max()) + 1 for each in visits]
    precise = obs.astype(np.float64)
    standard = (precise - precise.mean(0)) / np.maximum(precise.std(0), 1e-8)
    where = embed(standard, seed, iterations, show)
    return States(obs, visitor, episodes, where, clusters(where, visitor, seed))


def embed_actions(run: Run, states: States, seed: int, iterations: int, show=lambda done: None) -> Actions:
    """Of a run's primitives in the states"""
    actions = draw_actions(run, states.obs, seed)
    silhouettes = np.zeros((2, CLUSTERS))
    for kind, c in np.ndindex(2, CLUSTERS):
        silhouettes[kind, c] = separation(actions[kind, states.cluster == c], seed)
    drawn = actions[0]
    shown = drawn[states.cluster == 0]
    n, k, action_size = shown.shape
    points = embed(shown.reshape(n * k, action_size), seed, iterations, show)
    return Actions(drawn, silhouettes, points.reshape(n, k, 2))


def clusters(where: np.ndarray, visitor: np.ndarray, seed: int) -> np.ndarray:
    """The cluster of each point (N, 2), (N,). They are numbered by how many states the method has there that
    has fewest, then by size: 0 is no method's own, if there is such a cluster."""
    from sklearn.cluster import KMeans

    labels = KMeans(CLUSTERS, n_init=10, random_state=seed).fit_predict(where)
    sizes = sizes_of(visitor, labels, visitor.max() + 1)
    order = np.lexsort((-sizes.sum(0), -sizes.min(0)))
    rank = np.argsort(order)
    return rank[labels]


def sizes_of(visitor: np.ndarray, cluster: np.ndarray, methods: int) -> np.ndarray:
    """States of each method in each cluster, (M, C)"""
    sizes = np.zeros((methods, CLUSTERS), int)
    np.add.at(sizes, (visitor, cluster), 1)
    return sizes


def report(
    runs: list[Run], out: Path, count: int = 10_000, seed: int = 0, iterations: int = 7000
) -> tuple[list[Path], list[str]]:
    """Writes OUT/tsne-ENV.png and .pdf for each environment, of all its methods in the same states, and
    OUT/tsne.csv, .md and .tex; returns the files, and notes. PlotError: the libraries are not there, or no
    policy has several primitives."""
    check()
    runs, notes = pick(runs)
    methods = {env: len(group) for env, group in grouped(runs, lambda run: run.env).items()}

    def analysis(run: Run) -> Visits:
        number = methods[run.env]
        return visit(run, math.ceil(count / number), math.ceil(TRAJECTORIES / number))

    visits = analyse(tracked(runs, "episodes"), analysis, notes)
    files = []
    records = []
    rows = []
    for env, group in grouped(visits, lambda pair: pair[0].env).items():
        group = comparable(group, notes)
        shown = [run for run, _ in group]
        chosen, lines = share([each for _, each in group], count)
        notes += [f"{env}, {shown[number].method}: {line}" for number, line in lines]
        states, actions = embed_all(shown, chosen, seed, iterations)
        if states.sizes[:, 0].min() == 0:
            notes.append(f"{env}: no cluster has states of every method; the largest is shown")
        for number, (run, each) in enumerate(zip(shown, actions)):
            records += records_of(run, number, states, each)
            rows.append(row_of(run, number, states, each))
        files += plot(shown, states, actions, stem(out, "tsne", env))
    title = f"Silhouette of actions by primitive: mean, lowest and highest of {CLUSTERS} clusters of states"
    return write(out / "tsne", records, [(title, HEAD, rows)], FOOT) + files, notes


def comparable(group: list[tuple[Run, Visits]], notes: list[str]) -> list[tuple[Run, Visits]]:
    """Those whose states have as many numbers as the first's: a fork may tell its policy more of them."""
    _, first = group[0]
    kept = []
    for run, visits in group:
        if visits.obs.shape[1] == first.obs.shape[1]:
            kept.append((run, visits))
        else:
            notes.append(
                f"{run.env}, {run.method}: not shown, as its states are not those of {group[0][0].method}"
            )
    return kept


def share(visits: list[Visits], count: int) -> tuple[list[Visits], list[tuple[int, str]]]:
    """`count` states, as many of each method; fewer where one has not so many. With lines on methods, by
    their numbers."""
    wanted = math.ceil(count / len(visits))
    fewest = min(len(each.obs) for each in visits)
    planned = math.ceil(TRAJECTORIES / len(visits))
    chosen = []
    lines = []
    for number, each in enumerate(visits):
        taken = evenly(each, min(wanted, fewest))
        chosen.append(taken)
        episodes = int(taken.episode.max()) + 1
        if episodes != planned or len(taken.obs) < wanted:
            lines.append((number, f"{len(taken.obs):,} different states of {episodes} episodes"))
    return chosen, lines


def embed_all(
    runs: list[Run], visits: list[Visits], seed: int, iterations: int
) -> tuple[States, list[Actions]]:
    """The states of an environment, and the actions of each method in them"""
    hidden = not sys.stdout.isatty()
    with Progress(console=console(), transient=True, disable=hidden) as bar:
        task = bar.add_task(f"t-SNE, {runs[0].env}: states", total=(1 + len(runs)) * iterations)
        states = embed_states(visits, seed, iterations, lambda done: bar.update(task, completed=done))
        actions = []
        for number, run in enumerate(runs, 1):
            bar.update(task, description=f"t-SNE, {run.env}: actions of {run.method}")

            def show(done: int, before: int = number * iterations) -> None:
                bar.update(task, completed=before + done)

            actions.append(embed_actions(run, states, seed, iterations, show))
    return states, actions


def records_of(run: Run, number: int, states: States, actions: Actions) -> list[dict]:
    """A record of each cluster"""
    records = []
    for c, size in enumerate(states.sizes.sum(0)):
        drawn, mean = actions.silhouettes[:, c]
        record = {"environment": run.env, "method": run.method, "seed": run.seed}
        record |= {"cluster": c, "states": size, "own": states.sizes[number, c]}
        records.append(record | {"drawn": drawn, "mean": mean})
    return records


def row_of(run: Run, number: int, states: States, actions: Actions) -> list[str]:
    """Of the table: mean over states, lowest and highest of the clusters' silhouettes"""
    sizes = states.sizes.sum(0)
    own = states.sizes[number].sum()
    cells = [f"{sizes.sum():,}", f"{own:,}", str(states.episodes[number])]
    several = sizes > 1
    for silhouettes in actions.silhouettes:
        mean = np.average(silhouettes[several], weights=sizes[several])
        lowest = np.nanmin(silhouettes)
        highest = np.nanmax(silhouettes)
        cells.append(f"{mean:.2f} ({lowest:.2f} to {highest:.2f})")
    return [run.env, run.method, str(run.seed), *cells]


# The figure


def plot(runs: list[Run], states: States, actions: list[Actions], file: Path) -> list[Path]:
    """The states by cluster and, of several methods, by who visited them; each method's actions in one
    cluster by primitive; and all silhouettes"""
    beside = len(runs) > 1
    panels = 1 + beside + len(runs)
    rows = math.ceil(panels / 2)
    figure = pyplot().figure(figsize=(8.2, 2.9 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 3, width_ratios=(1, 1, 0.8))
    axes = [figure.add_subplot(grid[divmod(i, 2)]) for i in range(panels)]
    last = figure.add_subplot(grid[:, 2])
    plot_states(axes[0], states)
    if beside:
        plot_visitors(axes[1], runs, states)
    for number, (run, each) in enumerate(zip(runs, actions)):
        plot_actions(axes[number - len(runs)], run, each)
        plot_silhouettes(last, number, each)
    lowest = min(np.nanmin(each.silhouettes) for each in actions)
    last.axhline(0, color="black", linewidth=0.5)
    last.set(xlim=(-0.6, len(runs) - 0.4), ylim=(min(-0.3, lowest - 0.05), 1.05))
    last.set_ylabel("silhouette of actions by primitive")
    names = [wrapped(run.method, max(8, 42 // len(runs))) for run in runs]
    last.set_xticks(range(len(runs)), names, fontsize=7)
    last.set_title(f"{CLUSTERS} clusters; full: the black one", fontsize=8)
    last.legend(frameon=False, fontsize=7, loc="best")
    figure.suptitle(wrapped(runs[0].env, 120), fontsize=9)
    return save(figure, file)


def shuffled(n: int) -> np.ndarray:
    """An order of n points in which none of a kind hides the others"""
    return np.random.default_rng(0).permutation(n)


def plot_states(ax, states: States) -> None:
    """States in the colours of their clusters, those of the one whose actions are shown in black"""
    shades = pyplot().get_cmap("tab20")(np.arange(CLUSTERS) * 2 + 1)
    order = shuffled(len(states.where))
    x, y = states.where[order].T
    ax.scatter(x, y, s=1, color=shades[states.cluster[order]], linewidths=0, rasterized=True)
    x, y = states.where[states.cluster == 0].T
    ax.scatter(x, y, s=1.5, color="black", linewidths=0, rasterized=True)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{len(states.where):,} states; black: {len(x):,} of them", fontsize=8)


def plot_visitors(ax, runs: list[Run], states: States) -> None:
    """States in the colours of the methods whose policies visited them"""
    looks = styles(runs)
    shades = np.array([looks[run.method]["color"] for run in runs])
    order = shuffled(len(states.where))
    x, y = states.where[order].T
    ax.scatter(x, y, s=1, color=shades[states.visitor[order]], linewidths=0, rasterized=True)
    for run, colour, own in zip(runs, shades, states.sizes):
        label = f"{run.method}: {own[0]:,} of the black"
        ax.scatter([], [], s=12, color=colour, label=wrapped(label, 40))
    ax.set(xticks=[], yticks=[])
    ax.set_title("the same, by the method that visited them", fontsize=8)
    legend(ax, 1)


def plot_actions(ax, run: Run, actions: Actions) -> None:
    """Actions that a method draws in one cluster, in the colours of its primitives"""
    n, k, _ = actions.points.shape
    order = shuffled(n * k)
    x, y = actions.points.reshape(n * k, 2)[order].T
    primitive = np.tile(np.arange(k), n)[order]
    ax.scatter(x, y, s=2, c=np.array(colours(k))[primitive], linewidths=0, rasterized=True)
    for i, colour in enumerate(colours(k)):
        ax.scatter([], [], s=12, color=colour, label=str(i))
    ax.set(xticks=[], yticks=[])
    name = wrapped(f"{run.method}, seed {run.seed}")
    about = f"actions in the black states; silhouette {actions.silhouettes[0, 0]:.2f}"
    ax.set_title(f"{name}\n{about}", fontsize=8)
    legend(ax, min(k, 8))


def legend(ax, columns: int) -> None:
    """Below a panel"""
    ax.legend(frameon=False, fontsize=6, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, 0.02))


def plot_silhouettes(ax, number: int, actions: Actions) -> None:
    """Those of each cluster, of drawn and of mean actions beside each other"""
    drawn, mean = actions.silhouettes
    kinds = [("drawn actions", drawn, "o", number - 0.15), ("mean actions", mean, "^", number + 0.15)]
    for label, silhouettes, marker, x in kinds:
        style = {"marker": marker, "color": "black", "markersize": 4, "linestyle": "none"}
        if number == 0:
            style["label"] = label
        ax.plot(np.full(CLUSTERS, x), silhouettes, **style, markerfacecolor="none")
        style["label"] = ""
        ax.plot(x, silhouettes[0], **style)
