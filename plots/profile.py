"""Performance profiles: which share of a method's runs is better than so many percent of the reference."""

from pathlib import Path

import numpy as np

from .auc import compare, everywhere, pooled, pools
from .curves import panels, pyplot, save, styles
from .runs import Run
from .stats import CENTERS, bootstrap, profile


def mean_profile(strata: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Mean of the environments' profiles (..., T)"""
    return np.mean([profile(x, thresholds) for x in strata], 0)


def draw(runs: list[Run], out: Path, reference: str | None, center: str) -> tuple[list[Path], list[str]]:
    """Writes OUT/profile.png and .pdf: a panel for the environments of one version and number of steps, a line for each
    method that has runs on all of them, with a 95 % interval at each threshold. Returns the files, and notes."""
    tasks, notes = compare(runs, reference, center)
    groups = pools([task for task in tasks if task.base and CENTERS[center](task.areas(task.base)) > 0])
    if not groups:
        return [], [*notes, "no performance profile, as there are no percents to draw it of"]
    looks, shared = styles(runs), []
    for pool in groups:
        methods, missing = everywhere(pool)
        shared.append(methods)
        notes += missing
    figure, axes, places = panels(pyplot(), list(map(list, shared)), 3.6, 2.8)
    for ax, place, pool, methods in zip(axes, places, groups, shared):
        scale = [100 / CENTERS[center](task.areas(task.base)) for task in pool]
        scores = {m: [s * task.areas(x) for s, task, x in zip(scale, pool, methods[m])] for m in methods}
        every = np.concatenate([x for strata in scores.values() for x in strata])
        thresholds = np.linspace(every.min() - 0.05 * np.ptp(every), every.max() + 0.05 * np.ptp(every), 200)
        for i, (method, strata) in enumerate(scores.items()):
            low, high = bootstrap(strata, lambda drawn, at=thresholds: mean_profile(drawn, at), 2000).clip(0, 1)
            look = looks[methods[method][0]] | {"markevery": (4 * i, 40), "markersize": 4}
            label = f"{method} (n = {sum(map(len, strata))})"
            ax.step(thresholds, mean_profile(strata, thresholds), where="post", **look, label=label)
            ax.fill_between(thresholds, low, high, color=look["color"], alpha=0.15, linewidth=0, step="post")
        ax.set(xlabel=f"AUC, % of {pool[0].base}'s {center.replace('iqm', 'IQM')}", ylabel="fraction of runs above")
        ax.set_ylim(-0.02, 1.02)
        title = pooled(pool) if len(pool) < 3 else f"{len(pool)} environments, {pool[0].label.partition(', ')[2]}"
        ax.set_title(title, fontsize=8)
        ax.legend(**place)
        ax.grid(alpha=0.25)
    return save(figure, out / "profile"), notes
