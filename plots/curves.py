"""Learning curves: one panel an environment, one line a method, an interval over its seeds."""

import math
import zlib
from pathlib import Path

import numpy as np

from .runs import Run, by_method
from .stats import CENTERS, bootstrap_curves

# Okabe and Ito's colours, which the colour-blind tell apart; dashes and markers do it in black and white
STYLES = {
    "SAC": ("#000000", "-", "o"),
    "PMOE-SAC": ("#0072B2", "-", "s"),
    "Gating": ("#E69F00", "--", "^"),
    "MCP-SAC": ("#009E73", "-.", "D"),
    "Gumbel": ("#D55E00", ":", "v"),
    "REINFORCE": ("#CC79A7", "--", "P"),
    "MRP": ("#56B4E9", "-.", "X"),
    "PPO": ("#000000", "--", "o"),
    "PMOE-PPO": ("#0072B2", "--", "s"),
    "MCP-PPO": ("#009E73", "--", "D"),
    "DAC": ("#D55E00", "-", "v"),
}
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = "sD^vPX*<>o"
OTHERS = ("#7F3C8D", "#A5682A", "#6B6B6B", "#1B7C7C")  # of forks
K = (4, 2, 8, 10, 14, 16)  # the paper's; the first is drawn as the method is


def pyplot():
    """matplotlib's, without a screen, and the look of every figure; PDFs embed their fonts as TrueType"""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"pdf.fonttype": 42, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    return plt


def save(figure, stem: Path) -> list[Path]:
    """Writes STEM.png and STEM.pdf; returns them."""
    files = [stem.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for file in files:
        figure.savefig(file, dpi=200, metadata={"CreationDate": None} if file.suffix == ".pdf" else None)
    pyplot().close(figure)
    return files


def styles(runs: list[Run]) -> dict[str, dict]:
    """Colour, dashes and marker by method. The algorithm has its colour, the same in every figure; another K is darker
    or lighter, with a dash and marker of its own; of several settings with one K, dash and shade say which."""
    looks = {}
    for base in dict.fromkeys(run.base for run in runs):
        run = next(run for run in runs if run.base == base)
        unknown = (OTHERS[zlib.crc32(run.name.encode()) % len(OTHERS)], ":", "*")
        colour, dash, marker = STYLES.get(run.name, unknown)
        k, dark = run.args["k"], 0.0
        if run.base != run.name and k != K[0]:
            place = K.index(k) if k in K else k
            dash, marker = DASHES[place % len(DASHES)], MARKERS[place % len(MARKERS)]
            dark = -0.4 if k < K[0] else 0.2 * math.log2(k / K[0])
        variants = sorted({run.method for run in runs if run.base == base})
        for i, method in enumerate(variants):
            middle = i - (len(variants) - 1) / 2
            shaded = shade(colour, dark + 0.8 * middle / len(variants))
            dash = dash if len(variants) == 1 else DASHES[i % len(DASHES)]
            looks[method] = {"color": shaded, "linestyle": dash, "marker": marker}
    return looks


def shade(colour: str, dark: float) -> tuple[float, ...]:
    """A colour mixed with black (dark up to 1) or with white (down to -1)"""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return tuple(rgb * (1 - min(dark, 0.8)) if dark > 0 else rgb - dark * (1 - rgb))


def resample(runs: list[Run], window: int, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (T,) that all the runs have reached and their curves (n, T), each a mean over its last `window` values. Of
    more than 400 points, as of training episodes, the means over 200 stretches are left."""
    hours = [run.wall_time / run.steps[-1] / 3600 if x == "time" else 1 for run in runs]
    xs = [run.steps * scale for run, scale in zip(runs, hours)]
    ys = [smooth(run.returns, window) for run in runs]
    first, last = max(x[0] for x in xs), min(x[-1] for x in xs)
    points = np.unique(np.concatenate(xs))
    points = points[(points >= first) & (points <= last)]
    if len(points) <= 400:
        return points, np.stack([np.interp(points, x, y) for x, y in zip(xs, ys)])
    edges = np.linspace(first, last, 201)
    return (edges[1:] + edges[:-1]) / 2, np.stack([stretches(x, y, edges) for x, y in zip(xs, ys)])


def stretches(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the curve y(x) between one edge and the next, by trapezoids"""
    x, y = np.concatenate([x, edges]), np.concatenate([y, np.interp(edges, x, y)])
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    area = np.concatenate([[0], np.cumsum((y[1:] + y[:-1]) / 2 * np.diff(x))])
    return np.diff(np.interp(edges, x, area)) / np.diff(edges)


def smooth(returns: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values, at the beginning of those there are"""
    sums, end = np.cumsum(np.concatenate([[0], returns])), np.arange(1, len(returns) + 1)
    start = np.maximum(end - window, 0)
    return (sums[end] - sums[start]) / (end - start)


def draw(
    runs: list[Run], out: Path, metric: str, center: str, show_seeds: bool, window: int, x: str
) -> tuple[list[Path], list[str]]:
    """Writes OUT/curves.png and OUT/curves.pdf; returns them, and notes on what a curve does not show."""
    plt, notes, panels, looks = pyplot(), [], by_method(runs), styles(runs)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (3.4 * columns, 2.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (env, methods) in zip(axes.flat, panels.items()):
        for method, group in methods.items():
            if x == "time" and any(run.wall_time is None for run in group):
                notes.append(f"{env}, {method}: unfinished runs have no time; only finished ones are drawn")
                group = [run for run in group if run.wall_time is not None]
            if not group:
                continue
            longest = max(run.steps[-1] for run in group)
            points, curves = resample(group, window, x)
            if not len(points):
                notes.append(f"{env}, {method}: its seeds have no steps in common yet; not drawn")
                continue
            if metric == "eval" and x == "steps" and points[-1] < longest:
                notes.append(f"{env}, {method}: drawn up to step {points[-1]:,.0f}, which all its seeds have reached")
            look = looks[method]
            low, high = bootstrap_curves(curves, CENTERS[center])
            marks = {"markevery": max(1, len(points) // 6), "markersize": 4, "linewidth": 1.4}
            ax.plot(points, CENTERS[center](curves.T), **look, **marks, label=f"{method} (n = {len(group)})")
            ax.fill_between(points, low, high, color=look["color"], alpha=0.15, linewidth=0)
            for curve in curves if show_seeds else ():
                ax.plot(points, curve, color=look["color"], linewidth=0.5, alpha=0.6)
        ax.set(title=env, xlabel="hours" if x == "time" else "environment steps")
        if x == "steps":
            ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
        ax.grid(alpha=0.25)
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22), "ncols": 2} if len(methods) > 4 else {}
        ax.legend(frameon=False, fontsize=7, **below)
    what = "evaluation return" if metric == "eval" else "training return"
    figure.supylabel(f"{what}, {center.replace('iqm', 'IQM')} and 95 % interval", fontsize=8)
    return save(figure, out / "curves"), notes
