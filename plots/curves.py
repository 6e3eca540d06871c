"""Learning curves: one panel an environment, one line a method, an interval over its seeds."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..terminal import tracked
from .runs import CURVES, RANGES, PlotError, Run, by_method
from .stats import CENTERS, bootstrap_curves, trapezoids
from .style import TITLE, legend_below, method_handles, panels, pyplot, save, steps_axis, styles, wrapped

STRETCHES = 200  # the points that many more are reduced to
AXES = {60: "minutes", 3600: "hours"}  # by seconds


@dataclass
class Line:
    """What is plotted of a method in one environment"""

    points: np.ndarray  # (T,), steps or units of time
    curves: np.ndarray  # (n, T), one a seed
    center: np.ndarray  # (T,)
    interval: np.ndarray  # (2, T)


def resample(runs: list[Run], window: int, x: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Points (T,) that all the runs have reached, in steps or, given x, units of x seconds, and their curves
    (n, T), each a mean over its last `window` values; T is 0 where they share none.

    The points are those of any of the runs, whose curves are straight between their own. Of more than twice
    STRETCHES points, as of training episodes, the means over so many stretches are left."""
    curves = []
    for run in runs:
        scale = run.wall_time / run.steps[-1] / x if x else 1
        curves.append((run.steps * scale, smooth(run.returns, window)))
    places = [at for at, _ in curves]
    first = max(at[0] for at in places)
    last = min(at[-1] for at in places)

    points = np.unique(np.concatenate(places))
    points = points[(points >= first) & (points <= last)]
    if len(points) <= 2 * STRETCHES:
        lines = [np.interp(points, at, y) for at, y in curves]
        return points, np.stack(lines)
    edges = np.linspace(first, last, STRETCHES + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    lines = [stretches(at, y, edges) for at, y in curves]
    return middles, np.stack(lines)


def stretches(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the curve y(x) between one edge and the next, by trapezoids"""
    at_edges = np.interp(edges, x, y)
    x = np.concatenate([x, edges])
    y = np.concatenate([y, at_edges])
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]

    sums = np.cumsum(trapezoids(x, y))
    area = np.concatenate([[0], sums])
    return np.diff(np.interp(edges, x, area)) / np.diff(edges)


def smooth(returns: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values, at the beginning of those there are"""
    end = np.arange(len(returns)) + 1
    start = np.maximum(end - window, 0)
    sums = np.cumsum(np.concatenate([[0], returns]))
    return (sums[end] - sums[start]) / (end - start)


def plot(
    runs: list[Run], out: Path, metric: str, center: str, show_seeds: bool, window: int, x: str
) -> tuple[list[Path], list[str]]:
    """Writes OUT/curves.png and OUT/curves.pdf; returns them, and notes on what a curve does not show.
    PlotError: there is nothing to plot."""
    looks = styles(runs)
    notes = []
    unit = None
    if x == "time":
        runs = finished(runs, notes)
        unit = time_unit(runs)

    lines = {}
    for env, methods in tracked(by_method(runs).items(), "curves"):
        lines[env] = {}
        for method, group in methods.items():
            points, curves = resample(group, window, unit)
            if not len(points):
                notes.append(f"{env}, {method}: its seeds have no steps in common yet; not plotted")
                continue
            notes += cut(f"{env}, {method}", group, metric)
            middle = CENTERS[center](curves.T)
            interval = bootstrap_curves(curves, CENTERS[center]).clip(*RANGES[metric])
            lines[env][method] = Line(points, curves, middle, interval)
    if not any(lines.values()):
        reasons = "; ".join(notes) or "no runs"
        raise PlotError(f"nothing to plot: {reasons}")

    plt = pyplot()
    figure, axes = panels(plt, len(lines), 2.6)
    returns = "success rate" if metric == "success" else f"{CURVES[metric]} return"
    center = center.replace("iqm", "IQM")
    numbers = defaultdict(list)
    for ax, (env, methods) in zip(axes, lines.items()):
        plot_panel(ax, methods, looks, show_seeds)
        ax.set_title(wrapped(env, TITLE), fontsize=8)
        if unit:
            ax.set_xlabel(AXES[unit])
        else:
            steps_axis(ax)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(f"{returns},\n{center} and 95 % interval")
        ax.grid(alpha=0.25)
        for method, line in methods.items():
            numbers[method].append(len(line.curves))
    figure.align_ylabels()
    legend_below(figure, method_handles(plt, looks, numbers))
    return save(figure, out / "curves"), notes


def finished(runs: list[Run], notes: list[str]) -> list[Run]:
    """The finished ones, with a note on others"""
    timed = [run for run in runs if run.wall_time is not None]
    others = len(runs) - len(timed)
    if others:
        notes.append(f"{others} unfinished runs have no time yet, so that only finished ones are plotted")
    return timed


def time_unit(runs: list[Run]) -> int:
    """Seconds of an hour, or of a minute where no run took an hour"""
    longest = max((run.wall_time or 0 for run in runs), default=0)
    return 3600 if longest >= 3600 else 60


def cut(name: str, group: list[Run], metric: str) -> list[str]:
    """A note where a method's curve ends before that of one of its seeds"""
    ends = [run.steps[-1] for run in group]
    last = min(ends)
    if last == max(ends):
        return []
    unfinished = any(run.wall_time is None for run in group)
    lengths = {run.budget for run in group}
    # The training episodes of whole runs end where they end.
    if metric == "train" and not unfinished and len(lengths) == 1:
        return []
    return [f"{name}: plotted up to step {last:,.0f}, which all its seeds have reached"]


def plot_panel(ax, lines: dict[str, Line], looks: dict[str, dict], show_seeds: bool) -> None:
    """Plots the methods of one environment."""
    for i, (method, line) in enumerate(lines.items()):
        look = looks[method]
        colour = look["color"]
        # Markers of different methods do not hide each other.
        distance = max(1, len(line.points) // 6)
        begin = i * distance // len(lines)
        look = look | {"markevery": (begin, distance), "markersize": 4, "linewidth": 1.4, "zorder": 3}
        ax.plot(line.points, line.center, **look, label=method)
        low, high = line.interval
        ax.fill_between(line.points, low, high, color=colour, alpha=0.15, linewidth=0.5)
        if show_seeds:
            for curve in line.curves:
                ax.plot(line.points, curve, color=colour, linewidth=0.5, alpha=0.4)
    if lines:
        # The axis follows the runs; an interval of few of them may reach beyond it.
        low = min(line.curves.min() for line in lines.values())
        high = max(line.curves.max() for line in lines.values())
        margin = 0.05 * (high - low) or 1
        ax.set_ylim(low - margin, high + margin)
