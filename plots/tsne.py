"""Whether primitives do different things in like states: states embedded by t-SNE and clustered, and the
actions that each primitive draws in the states of one cluster, embedded too; beside them a number, because a
picture proves nothing.

Figures 4 and 10 of arXiv 2104.09122: states of ten trajectories, 10,000 of them; 2 components, perplexity
300, learning rate 150, 7,000 iterations. Not printed: states are standardised; the clusters are k-means' in
the embedding; an action is drawn from each primitive's Gaussian in every state, also of gating, whose
primitives never act alone.

The number is the silhouette of these actions by primitive, in the space of actions and not in the embedding,
which may tear apart what is one: the mean of (b - a) / max(a, b), with a an action's mean distance to those
of its primitive and b to those of the nearest other. 1: primitives are far apart; 0: they overlap. Beside it
that of the mean actions: where only these are apart, primitives differ by less than their own noise.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from ..terminal import console
from .policies import Rollout, analyse, colours, pick, rollout, select, stem
from .runs import PlotError, Run
from .style import literal, pyplot, save
from .tables import write

TRAJECTORIES = 10
CLUSTERS = 8
EARLY = 250  # iterations with exaggeration, van der Maaten's
MOST = 200  # episodes, where short ones have too few states
POINTS = 5000  # of which a silhouette is taken, as its cost is their square
HEAD = ["environment", "method", "seed", "states", "episodes", "drawn actions", "mean actions"]


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


def states(run: Run, count: int) -> Rollout:
    """Different states of ten episodes, or, as far as these have fewer than `count`, of more; `count` of
    them, evenly spaced. PlotError: there are too few."""
    episodes = TRAJECTORIES
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
    spaced = np.linspace(0, len(different) - 1, count).round()
    return select(steps, different[np.unique(spaced.astype(int))])


def first_visits(steps: Rollout) -> np.ndarray:
    """The steps whose states have not been there before"""
    _, first = np.unique(steps.obs, axis=0, return_index=True)
    return np.sort(first)


def draw_actions(steps: Rollout, seed: int) -> np.ndarray:
    """An action of every primitive in every state, and its mean action: (2, N, K, A)"""
    noise = np.random.default_rng(seed).standard_normal(steps.mean.shape)
    drawn = steps.mean + np.exp(steps.log_std) * noise
    drawn = np.tanh(drawn) if steps.squashed else drawn.clip(-1, 1)
    return np.stack([drawn, steps.mean_action])


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
class Embedding:
    """States of a run in C clusters, 0 the largest, and what its primitives do there"""

    where: np.ndarray  # (N, 2), of each state
    cluster: np.ndarray  # (N,)
    drawn: np.ndarray  # (N, K, A), an action of each primitive in each state
    silhouettes: np.ndarray  # (2, C), of drawn and of mean actions in each cluster
    points: np.ndarray  # (n, K, 2), where the actions drawn in cluster 0 are
    episodes: int  # that it took

    @property
    def sizes(self) -> np.ndarray:
        """States in each cluster, (C,)"""
        return np.bincount(self.cluster, minlength=CLUSTERS)


def embed_run(run: Run, count: int, seed: int, iterations: int, show=lambda done: None) -> Embedding:
    """Of `count` states of a run, or fewer. PlotError: there are too few."""
    steps = states(run, count)
    obs = steps.obs.astype(np.float64)
    standard = (obs - obs.mean(0)) / np.maximum(obs.std(0), 1e-8)
    where = embed(standard, seed, iterations, show)
    cluster = clusters(where, seed)
    actions = draw_actions(steps, seed)
    silhouettes = np.zeros((2, CLUSTERS))
    for kind, c in np.ndindex(2, CLUSTERS):
        silhouettes[kind, c] = separation(actions[kind, cluster == c], seed)
    drawn = actions[0]
    shown = drawn[cluster == 0]
    n, k, action_size = shown.shape
    points = embed(shown.reshape(n * k, action_size), seed, iterations, lambda done: show(iterations + done))
    episodes = int(steps.episode.max()) + 1
    return Embedding(where, cluster, drawn, silhouettes, points.reshape(n, k, 2), episodes)


def clusters(where: np.ndarray, seed: int) -> np.ndarray:
    """The cluster of each point (N, 2), 0 being the largest: (N,)"""
    from sklearn.cluster import KMeans

    labels = KMeans(CLUSTERS, n_init=10, random_state=seed).fit_predict(where)
    sizes = np.bincount(labels, minlength=CLUSTERS)
    largest_first = np.argsort(-sizes, kind="stable")
    rank = np.argsort(largest_first)
    return rank[labels]


def report(
    runs: list[Run], out: Path, count: int = 10_000, seed: int = 0, iterations: int = 7000
) -> tuple[list[Path], list[str]]:
    """Writes OUT/tsne-ENV.png and .pdf for each environment, a row for each of its runs, and OUT/tsne.csv,
    .md and .tex; returns the files, and notes. PlotError: the libraries are not there, or no policy has
    several primitives."""
    check()
    runs, notes = pick(runs)
    with Progress(console=console(), transient=True, disable=not sys.stdout.isatty()) as bar:

        def analysis(run: Run) -> Embedding:
            task = bar.add_task(f"t-SNE, {run.env}, {run.method}", total=2 * iterations)
            return embed_run(run, count, seed, iterations, lambda done: bar.update(task, completed=done))

        embedded = analyse(runs, analysis, notes)
    records = []
    rows = []
    for run, e in embedded:
        records += records_of(run, e)
        rows.append(row_of(run, e))
        if e.episodes != TRAJECTORIES or len(e.where) < count:
            shown = f"{len(e.where):,} different states of {e.episodes} episodes"
            notes.append(f"{run.env}, {run.method}: {shown}")
    title = f"Silhouette of actions by primitive: mean, lowest and highest of {CLUSTERS} clusters of states"
    files = write(out / "tsne", records, [(title, HEAD, rows)])
    for env in dict.fromkeys(run.env for run, _ in embedded):
        panel = [(run, e) for run, e in embedded if run.env == env]
        files += plot(panel, stem(out, "tsne", env))
    return files, notes


def records_of(run: Run, e: Embedding) -> list[dict]:
    """A record of each cluster"""
    records = []
    for c, size in enumerate(e.sizes):
        drawn, mean = e.silhouettes[:, c]
        record = {"environment": run.env, "method": run.method, "seed": run.seed}
        records.append(record | {"cluster": c, "states": size, "drawn": drawn, "mean": mean})
    return records


def row_of(run: Run, e: Embedding) -> list[str]:
    """Of the table: mean over states, lowest and highest of the clusters' silhouettes"""
    cells = [f"{len(e.where):,}", str(e.episodes)]
    several = e.sizes > 1
    for silhouettes in e.silhouettes:
        mean = np.average(silhouettes[several], weights=e.sizes[several])
        lowest = np.nanmin(silhouettes)
        highest = np.nanmax(silhouettes)
        cells.append(f"{mean:.2f} ({lowest:.2f} to {highest:.2f})")
    return [run.env, run.method, str(run.seed), *cells]


# The figure


def plot(embedded: list[tuple[Run, Embedding]], file: Path) -> list[Path]:
    """A row a method: its states by cluster, the largest cluster's actions by primitive; and all
    silhouettes"""
    rows = len(embedded)
    figure = pyplot().figure(figsize=(8.2, 2.9 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 3, width_ratios=(1, 1, 0.8))
    beside = figure.add_subplot(grid[:, 2])
    for row, (run, e) in enumerate(embedded):
        left = figure.add_subplot(grid[row, 0])
        right = figure.add_subplot(grid[row, 1])
        plot_states(left, e)
        left.set_ylabel(f"{literal(run.method)}, seed {run.seed}")
        plot_actions(right, e)
        plot_silhouettes(beside, row, e)
    lowest = min(np.nanmin(e.silhouettes) for _, e in embedded)
    beside.axhline(0, color="black", linewidth=0.5)
    beside.set(xlim=(-0.6, rows - 0.4), ylim=(min(-0.3, lowest - 0.05), 1.05))
    beside.set_ylabel("silhouette of actions by primitive")
    names = [literal(run.method).replace(" ", "\n", 1) for run, _ in embedded]
    beside.set_xticks(range(rows), names, fontsize=7)
    beside.set_title(f"{CLUSTERS} clusters; full: the one shown", fontsize=8)
    beside.legend(frameon=False, fontsize=7, loc="best")
    figure.suptitle(literal(embedded[0][0].env), fontsize=9)
    return save(figure, file)


def shuffled(n: int) -> np.ndarray:
    """An order of n points in which none of a kind hides the others"""
    return np.random.default_rng(0).permutation(n)


def plot_states(ax, e: Embedding) -> None:
    """States in the colours of their clusters, those of the largest in black"""
    shades = pyplot().get_cmap("tab20")(np.arange(CLUSTERS) * 2 + 1)
    order = shuffled(len(e.where))
    x, y = e.where[order].T
    ax.scatter(x, y, s=1, color=shades[e.cluster[order]], linewidths=0, rasterized=True)
    x, y = e.where[e.cluster == 0].T
    ax.scatter(x, y, s=1.5, color="black", linewidths=0, rasterized=True)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{len(e.where):,} states; black: {len(x):,} of them", fontsize=8)


def plot_actions(ax, e: Embedding) -> None:
    """Actions drawn in the largest cluster, in the colours of their primitives"""
    n, k, _ = e.points.shape
    order = shuffled(n * k)
    x, y = e.points.reshape(n * k, 2)[order].T
    primitive = np.tile(np.arange(k), n)[order]
    ax.scatter(x, y, s=2, c=np.array(colours(k))[primitive], linewidths=0, rasterized=True)
    for i, colour in enumerate(colours(k)):
        ax.scatter([], [], s=12, color=colour, label=str(i))
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"their actions, by primitive; silhouette {e.silhouettes[0, 0]:.2f}", fontsize=8)
    ax.legend(frameon=False, fontsize=6, ncols=min(k, 8), loc="upper center", bbox_to_anchor=(0.5, 0.02))


def plot_silhouettes(ax, row: int, e: Embedding) -> None:
    """Those of each cluster, of drawn and of mean actions beside each other"""
    drawn, mean = e.silhouettes
    kinds = [("drawn actions", drawn, "o", row - 0.15), ("mean actions", mean, "^", row + 0.15)]
    for label, silhouettes, marker, x in kinds:
        style = {"marker": marker, "color": "black", "markersize": 4, "linestyle": "none"}
        if row == 0:
            style["label"] = label
        ax.plot(np.full(CLUSTERS, x), silhouettes, **style, markerfacecolor="none")
        style["label"] = ""
        ax.plot(x, silhouettes[0], **style)
