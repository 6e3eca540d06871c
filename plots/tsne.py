"""Whether primitives do different things in like states: states embedded by t-SNE and clustered, and the actions that
each primitive draws in the states of one cluster, embedded too; beside them a number, because a picture proves nothing.

Figures 4 and 10 of arXiv 2104.09122: states of ten trajectories, 10,000 of them; 2 components, perplexity 300, learning
rate 150, 7,000 iterations. Not printed: states are standardised; the clusters are k-means' in the embedding; an action
is drawn from each primitive's Gaussian in every state, also of gating, whose primitives never act alone.

The number is the silhouette of these actions by primitive, in the space of actions and not in the embedding, which may
tear apart what is one: the mean of (b - a) / max(a, b), with a an action's mean distance to those of its primitive and
b to those of the nearest other. 1: primitives are far apart; 0: they overlap. Beside it that of the mean actions: where
only these are apart, primitives differ by less than their own noise.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from .curves import pyplot, save
from .policies import colours, pick, rollout, stem
from .runs import PlotError, Run
from .tables import console, write

TRAJECTORIES, CLUSTERS, EARLY = 10, 8, 250  # EARLY: iterations with exaggeration, van der Maaten's
MOST = 200  # episodes, where short ones have too few states
POINTS = 5000  # of which a silhouette is taken, as its cost is their square


def check() -> None:
    """PlotError: the libraries are not there."""
    try:
        import openTSNE  # noqa: F401
    except ImportError:
        raise PlotError("--tsne needs openTSNE: pip install openTSNE") from None


def embed(points: np.ndarray, seed: int, iterations: int, show=lambda done: None) -> np.ndarray:
    """t-SNE of points (N, D) -> (N, 2); the same for the same seed. `show` is told the iterations done."""
    from openTSNE import TSNE

    perplexity = min(300.0, (len(points) - 1) / 3)
    options = {"learning_rate": 150, "early_exaggeration_iter": min(EARLY, iterations), "neighbors": "exact"}
    options |= {"n_iter": max(iterations - EARLY, 0), "random_state": seed, "negative_gradient_method": "fft"}
    if points.shape[1] == 1 or np.linalg.matrix_rank(points - points.mean(0)) < 2:  # no PCA to begin with
        options["initialization"] = 1e-4 * np.random.default_rng(seed).standard_normal((len(points), 2))
    done = []

    def callback(*_) -> None:
        done.append(10)
        show(sum(done))

    options |= {"callbacks": callback, "callbacks_every_iters": 10, "n_jobs": min(4, torch.get_num_threads())}
    return np.asarray(TSNE(perplexity=perplexity, **options).fit(points))


def states(run: Run, count: int) -> dict[str, np.ndarray]:
    """Different states of ten episodes, or, as far as these have fewer than `count`, of more; `count` of them, evenly
    spaced. PlotError: there are too few."""
    episodes, seen, different = 0, {}, []
    while len(different) < count and episodes < MOST:
        wanted = 1 + int(1.1 * episodes * count / len(different)) if episodes else TRAJECTORIES
        episodes, before = min(MOST, wanted), len(different)
        seen = rollout(run, episodes)
        different = np.sort(np.unique(seen["obs"], axis=0, return_index=True)[1])
        if len(different) == before:  # every episode is the same
            break
    if len(different) < 3 * CLUSTERS:
        raise PlotError(f"{run.path} visits only {len(different)} different states")
    kept = different[np.unique(np.linspace(0, len(different) - 1, count).round().astype(int))]
    names = ("episode", "obs", "mean", "log_std", "each")
    return {name: seen[name][kept] for name in names} | {"bounds": seen["bounds"], "squashed": seen["squashed"]}


def draw_actions(seen: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """An action of every primitive in every state, and its mean action: (2, N, K, A), scaled to [-1, 1]"""
    noise = np.random.default_rng(seed).standard_normal(seen["mean"].shape)
    drawn, (low, high) = seen["mean"] + np.exp(seen["log_std"]) * noise, seen["bounds"]
    drawn = low + (high - low) * (np.tanh(drawn) + 1) / 2 if seen["squashed"] else drawn.clip(low, high)
    return 2 * (np.stack([drawn, seen["each"]]) - low) / (high - low) - 1


def separation(actions: np.ndarray, seed: int) -> float:
    """Silhouette of actions (n, K, A) by primitive; NaN of a single state's"""
    from sklearn.metrics import silhouette_score

    if len(actions) < 2:
        return np.nan
    labels = np.tile(np.arange(actions.shape[1]), len(actions))
    size = min(POINTS, len(labels))
    return float(silhouette_score(actions.reshape(len(labels), -1), labels, sample_size=size, random_state=seed))


def analyse(run: Run, count: int, seed: int = 0, iterations: int = 7000, show=lambda done: None) -> dict:
    """Of a run, the largest cluster being 0 of C: `where` the states are embedded (N, 2), their `cluster` (N,), `drawn`
    actions (N, K, A), `silhouettes` of drawn and of mean actions in each cluster (2, C), `points` where the drawn
    actions of cluster 0 are embedded (n, K, 2), and how many `episodes` it took"""
    from sklearn.cluster import KMeans

    seen = states(run, count)
    obs = seen["obs"].astype(np.float64)
    where = embed((obs - obs.mean(0)) / np.maximum(obs.std(0), 1e-8), seed, iterations, show)
    found = KMeans(CLUSTERS, n_init=10, random_state=seed).fit_predict(where)
    cluster = np.argsort(np.argsort(-np.bincount(found, minlength=CLUSTERS), kind="stable"))[found]
    actions = draw_actions(seen, seed)
    silhouettes = [[separation(x[cluster == c], seed) for c in range(CLUSTERS)] for x in actions]
    shown = actions[0, cluster == 0]
    points = embed(shown.reshape(-1, shown.shape[-1]), seed, iterations, lambda done: show(iterations + done))
    found = {"where": where, "cluster": cluster, "drawn": actions[0], "silhouettes": np.array(silhouettes)}
    return found | {"points": points.reshape(*shown.shape[:2], 2), "episodes": int(seen["episode"].max()) + 1}


def report(
    runs: list[Run], out: Path, count: int = 10_000, seed: int = 0, iterations: int = 7000
) -> tuple[list[Path], list[str]]:
    """Writes OUT/tsne-ENV.png and .pdf for each environment, a row for each of its runs, and OUT/tsne.csv, .md and
    .tex; returns the files, and notes. PlotError: the libraries are not there, or no policy has several primitives."""
    check()
    (runs, notes), analysed = pick(runs), []
    with Progress(console=console(), transient=True, disable=not sys.stdout.isatty()) as bar:
        for run in runs:
            task = bar.add_task(f"t-SNE, {run.env}, {run.method}", total=2 * iterations)
            show = partial(lambda task, done: bar.update(task, completed=done), task)
            try:
                analysed.append((run, analyse(run, count, seed, iterations, show)))
            except PlotError as error:
                notes.append(f"{run.env}, {run.method}: not embedded, as {error}")
    if not analysed:
        raise PlotError(notes[-1])
    records, rows = [], []
    for run, a in analysed:
        about = {"environment": run.env, "method": run.method, "seed": run.seed}
        sizes = np.bincount(a["cluster"], minlength=CLUSTERS)
        for c, (drawn, mean) in enumerate(a["silhouettes"].T):
            records.append(about | {"cluster": c, "states": sizes[c], "drawn": drawn, "mean": mean})
        cells = [f"{len(a['where']):,}", str(a["episodes"])]
        if a["episodes"] != TRAJECTORIES or len(a["where"]) < count:
            notes.append(f"{run.env}, {run.method}: {cells[0]} different states of {cells[1]} episodes")
        for s in a["silhouettes"]:
            mean = np.average(s[sizes > 1], weights=sizes[sizes > 1])
            cells.append(f"{mean:.2f} ({np.nanmin(s):.2f} to {np.nanmax(s):.2f})")
        rows.append([run.env, run.method, str(run.seed), *cells])
    head = ["environment", "method", "seed", "states", "episodes", "drawn actions", "mean actions"]
    title = f"Silhouette of actions by primitive: mean, lowest and highest of {CLUSTERS} clusters of states"
    files = write(out / "tsne", records, [(title, head, rows)])
    for env in dict.fromkeys(run.env for run, _ in analysed):
        files += draw([(run, a) for run, a in analysed if run.env == env], stem(out, "tsne", env))
    return files, notes


def draw(analysed: list[tuple[Run, dict]], file: Path) -> list[Path]:
    """A row a method: its states by cluster, the largest cluster's actions by primitive; and all silhouettes"""
    plt = pyplot()
    figure = plt.figure(figsize=(8.2, 2.9 * len(analysed)), layout="constrained")
    grid = figure.add_gridspec(len(analysed), 3, width_ratios=(1, 1, 0.8))
    beside = figure.add_subplot(grid[:, 2])
    for row, (run, a) in enumerate(analysed):
        left, right = (figure.add_subplot(grid[row, i]) for i in (0, 1))
        shades = plt.get_cmap("tab20")(np.arange(CLUSTERS) * 2 + 1)
        order = np.random.default_rng(0).permutation(len(a["where"]))  # none hides the others
        left.scatter(*a["where"][order].T, s=1, color=shades[a["cluster"][order]], linewidths=0, rasterized=True)
        shown = a["where"][a["cluster"] == 0]
        left.scatter(*shown.T, s=1.5, color="black", linewidths=0, rasterized=True)
        left.set_ylabel(f"{run.method}, seed {run.seed}")
        left.set_title(f"{len(a['where']):,} states; black: {len(shown):,} of them", fontsize=8)
        n, k = a["points"].shape[:2]
        order = np.random.default_rng(0).permutation(n * k)
        points, primitive = a["points"].reshape(-1, 2)[order], np.tile(np.arange(k), n)[order]
        right.scatter(*points.T, s=2, c=np.array(colours(k))[primitive], linewidths=0, rasterized=True)
        for i in range(k):
            right.scatter([], [], s=12, color=colours(k)[i], label=str(i))
        right.set_title(f"their actions, by primitive; silhouette {a['silhouettes'][0, 0]:.2f}", fontsize=8)
        right.legend(frameon=False, fontsize=6, ncols=min(k, 8), loc="upper center", bbox_to_anchor=(0.5, 0.02))
        for ax in (left, right):
            ax.set(xticks=[], yticks=[])
        for s, marker, at, label in zip(a["silhouettes"], "o^", (row - 0.15, row + 0.15), ("drawn", "mean")):
            style = {"marker": marker, "color": "black", "markersize": 4, "linestyle": "none"}
            beside.plot(
                np.full(CLUSTERS, at), s, **style, markerfacecolor="none", label="" if row else f"{label} actions"
            )
            beside.plot(at, s[0], **style)
    beside.axhline(0, color="black", linewidth=0.5)
    lowest = min(-0.3, *(np.nanmin(a["silhouettes"]) - 0.05 for _, a in analysed))
    beside.set(xlim=(-0.6, len(analysed) - 0.4), ylim=(lowest, 1.05), ylabel="silhouette of actions by primitive")
    beside.set_xticks(range(len(analysed)), [run.method.replace(" ", "\n", 1) for run, _ in analysed], fontsize=7)
    beside.set_title(f"{CLUSTERS} clusters; full: the one shown", fontsize=8)
    beside.legend(frameon=False, fontsize=7, loc="best")
    figure.suptitle(analysed[0][0].env, fontsize=9)
    return save(figure, file)
