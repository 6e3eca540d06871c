"""Performance profiles: which share of a method's runs is better than so many percent of the reference."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from .auc import Task, center_name, common_methods, pool_name, pools, positive
from .runs import Run
from .stats import CENTERS, bootstrap, profile
from .style import TITLE, legend_below, method_handles, panels, pyplot, save, styles, wrapped

THRESHOLDS = 200
REPLICATES = 2000  # of the bootstrap, at each threshold
MARKS = 4  # on a line


def mean_profile(strata: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Mean of the environments' profiles (..., T)"""
    profiles = [profile(scores, thresholds) for scores in strata]
    return np.mean(profiles, 0)


def plot(tasks: list[Task], runs: list[Run], out: Path, center: str) -> tuple[list[Path], list[str]]:
    """Writes OUT/profile.png and .pdf: a panel for the environments of one version and number of steps, a
    line for each method that has runs on all of them, with a 95 % interval at each threshold. Returns the
    files, and notes."""
    with_percents = [task for task in tasks if task.base and positive(task, CENTERS[center])]
    groups = pools(with_percents)
    if not groups:
        return [], ["no performance profile, as there are no percents to plot it of"]
    notes = []
    shared = []
    for pool in groups:
        methods, missing = common_methods(pool)
        shared.append(methods)
        notes += missing

    plt = pyplot()
    looks = looks_of(runs, shared)
    numbers = defaultdict(list)
    figure, axes = panels(plt, len(groups), 2.8)
    for ax, pool, methods in zip(axes, groups, shared):
        scores = percents(pool, methods, center)
        plot_pool(ax, pool, scores, looks, center)
        ax.grid(alpha=0.25)
        for method, strata in scores.items():
            numbers[method].append(sum(map(len, strata)))
    legend_below(figure, method_handles(plt, looks, numbers))
    return save(figure, out / "profile"), notes


def looks_of(runs: list[Run], shared: list[dict[str, list[str]]]) -> dict[str, dict]:
    """The look of each method of the pools, in the order of legends; where its K differs between
    environments, that in the first"""
    looks = styles(runs)
    by_first = {}
    for methods in shared:
        for method, labels in methods.items():
            by_first.setdefault(labels[0], {})[method] = looks[labels[0]]
    found = {}
    for label in looks:
        found |= by_first.get(label, {})
    return found


def plot_pool(
    ax, pool: list[Task], scores: dict[str, list[np.ndarray]], looks: dict[str, dict], center: str
) -> None:
    """Plots the profiles of a pool's methods."""
    values = np.concatenate([areas for strata in scores.values() for areas in strata])
    margin = 0.05 * np.ptp(values) or 1
    thresholds = np.linspace(values.min() - margin, values.max() + margin, THRESHOLDS)

    def statistic(strata: list[np.ndarray]) -> np.ndarray:
        return mean_profile(strata, thresholds)

    for method, strata in scores.items():
        shares = statistic(strata)
        # Markers stand where the line falls: elsewhere all lines lie on each other.
        last_of_all = max(int((shares == 1).sum()) - 1, 0)
        last_of_some = max(int((shares > 0).sum()) - 1, 0)
        marks = np.linspace(last_of_all, last_of_some, MARKS, dtype=int)
        look = looks[method] | {"markevery": list(np.unique(marks)), "markersize": 4}
        low, high = bootstrap(strata, statistic, REPLICATES).clip(0, 1)
        ax.step(thresholds, shares, where="post", **look, label=method)
        ax.fill_between(thresholds, low, high, color=look["color"], alpha=0.15, linewidth=0, step="post")

    title = pool_name(pool)
    if len(pool) > 2:
        title = f"{len(pool)} environments, {pool[0].size}"
    ax.set_title(wrapped(title, TITLE), fontsize=8)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel(wrapped(f"AUC, % of {pool[0].base}'s {center_name(center)}", TITLE))
    ax.set_ylabel("fraction of runs above")


def percents(pool: list[Task], methods: dict[str, list[str]], center: str) -> dict[str, list[np.ndarray]]:
    """By method the areas (n,) of its runs in each task, in percent of the reference's there"""
    scales = [100 / CENTERS[center](task.areas(task.base)) for task in pool]
    found = {}
    for method, labels in methods.items():
        found[method] = []
        for scale, task, label in zip(scales, pool, labels):
            found[method].append(scale * task.areas(label))
    return found
