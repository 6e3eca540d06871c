"""Performance profiles: which share of a method's runs is better than so many percent of the reference."""

from functools import partial
from pathlib import Path

import numpy as np

from .auc import across, compare, pools
from .curves import pyplot, save, styles
from .runs import Run
from .stats import bootstrap, mean, profile


def pooled_profile(strata: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    return profile(np.concatenate(strata, -1), thresholds)


def draw(runs: list[Run], out: Path, reference: str | None) -> tuple[list[Path], list[str]]:
    """Writes OUT/profile.png and .pdf: a panel for the environments of one version and number of steps, a line for each
    method that has runs on all of them, with a 95 % interval at each threshold. Returns the files, and notes."""
    tasks, notes = compare(runs, reference)
    groups = pools(tasks)
    if not groups:
        return [], [*notes, "no performance profile, as there is no reference to give percents of"]
    plt, looks = pyplot(), styles(runs)
    figure, axes = plt.subplots(1, len(groups), figsize=(3.6 * len(groups), 2.8), squeeze=False, layout="constrained")
    for ax, pool in zip(axes.flat, groups):
        scores = {}
        for method, labels in across(pool).items():
            if None in labels:
                notes.append(f"{method} is not in the profile: it has no runs on one of its environments")
            else:
                strata = [100 * task.areas[m] / mean(task.areas[task.base]) for task, m in zip(pool, labels)]
                scores[method] = looks[labels[0]] | {"marker": ""}, strata
        every = np.concatenate([x for _, strata in scores.values() for x in strata])
        thresholds = np.linspace(min(0, every.min()), 1.05 * every.max(), 200)
        for method, (look, strata) in scores.items():
            low, high = bootstrap(strata, partial(pooled_profile, thresholds=thresholds), 2000)
            label = f"{method} (n = {sum(map(len, strata))})"
            ax.step(thresholds, pooled_profile(strata, thresholds), where="post", **look, label=label)
            ax.fill_between(thresholds, low, high, color=look["color"], alpha=0.15, linewidth=0, step="post")
        ax.set(xlabel=f"AUC, % of {pool[0].base}", ylabel="fraction of runs above", ylim=(0, 1.02))
        ax.set_title("\n".join(task.env for task in pool), fontsize=8)
        ax.legend(frameon=False, fontsize=7)
        ax.grid(alpha=0.25)
    return save(figure, out / "profile"), notes
