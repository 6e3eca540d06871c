"""Learning curves: one panel an environment, one line a method, an interval over its seeds."""

import zlib
from pathlib import Path

import numpy as np

from .runs import PlotError, Run, by_method
from .stats import CENTERS, bootstrap_curves
from .tables import tracked

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
MARKERS = "s^vPXD<>*o"
SHADES = {4: 0.0, 2: -0.5, 8: 0.25, 10: 0.45, 14: 0.65, 16: 0.8}  # by K; light is below 0, dark above
OTHERS = ("#7F3C8D", "#A5682A", "#6B6B6B", "#1B7C7C")  # of forks


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
    stem.parent.mkdir(parents=True, exist_ok=True)
    for file in files:
        figure.savefig(
            file, dpi=200, bbox_inches="tight", metadata={"CreationDate": None} if file.suffix == ".pdf" else None
        )
    pyplot().close(figure)
    return files


def styles(runs: list[Run]) -> dict[str, dict]:
    """Colour, dashes and marker by method. The algorithm has its colour, the same in every figure; another K is darker
    or lighter, with a dash and marker of its own; of several settings with one K, dash and shade say which."""
    looks = {}
    for base in dict.fromkeys(run.base for run in runs):
        run = next(run for run in runs if run.base == base)
        number = zlib.crc32(run.name.encode())
        unknown = (OTHERS[number % 4], DASHES[number // 4 % len(DASHES)], MARKERS[number // 32 % len(MARKERS)])
        colour, dash, marker = STYLES.get(run.name, unknown)
        k, dark = run.args["k"], 0.0
        if run.base != run.name and k != 4:
            place = list(SHADES).index(k) if k in SHADES else k
            dash, marker = DASHES[place % len(DASHES)], MARKERS[place % len(MARKERS)]
            dark = SHADES.get(k, -0.25)
        variants = sorted({run.method for run in runs if run.base == base} - {base})
        looks[base] = {"color": shade(colour, dark), "linestyle": dash, "marker": marker}
        for i, method in enumerate(variants):
            shaded = shade(colour, dark - 0.7 * (i + 1) / (len(variants) + 1))
            looks[method] = {"color": shaded, "linestyle": DASHES[(i + 1) % len(DASHES)], "marker": marker}
        for method in (base, *variants):
            if run.family == "PPO":  # hollow
                looks[method]["markerfacecolor"] = "white"
    return looks


def shade(colour: str, dark: float) -> tuple[float, ...]:
    """A colour mixed with black (dark up to 1) or with white (down to -1)"""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return tuple(rgb * (1 - min(dark, 0.8)) if dark > 0 else rgb - dark * (1 - rgb))


def resample(runs: list[Run], window: int, x: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Points (T,) that all the runs have reached, in steps or, given x, units of x seconds, and their curves (n, T),
    each a mean over its last `window` values; T is 0 where they share none. Of more than 400 points, as of training
    episodes, the means over 200 stretches are left."""
    scales = [run.wall_time / run.steps[-1] / x if x else 1 for run in runs]
    curves = [(run.steps * scale, smooth(run.returns, window)) for run, scale in zip(runs, scales)]
    first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
    points = np.unique(np.concatenate([at for at, _ in curves]))
    points = points[(points >= first) & (points <= last)]
    if len(points) <= 400:
        return points, np.stack([np.interp(points, at, y) for at, y in curves])
    edges = np.linspace(first, last, 201)
    return (edges[1:] + edges[:-1]) / 2, np.stack([stretches(at, y, edges) for at, y in curves])


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


def panels(plt, legends: list[list[str]], width: float, height: float):
    """A figure with a panel for each legend's entries, at most three in a row; legends of more than four stand below.
    Returns it, the axes and what each legend takes to stand where it should."""
    columns = 2 if len(legends) == 4 else min(3, len(legends))
    rows, lines, places = -(-len(legends) // columns), 0, []
    for entries in legends:
        abreast = 1 if len(entries) < 5 or max(map(len, entries)) > 22 else 2
        outside = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.26), "ncols": abreast}
        places.append({"frameon": False, "fontsize": 7} | (outside if len(entries) > 4 else {}))
        lines = max(lines, -(-len(entries) // abreast) if len(entries) > 4 else 0)
    size = (columns * width, rows * (height + 0.16 * lines))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[len(legends) :]:
        ax.remove()
    return figure, axes.flat[: len(legends)], places


def draw(
    runs: list[Run], out: Path, metric: str, center: str, show_seeds: bool, window: int, x: str
) -> tuple[list[Path], list[str]]:
    """Writes OUT/curves.png and OUT/curves.pdf; returns them, and notes on what a curve does not show. PlotError: there
    is nothing to draw."""
    notes, looks = [], styles(runs)
    timed = [run for run in runs if run.wall_time is not None]
    if x == "time" and len(timed) < len(runs):
        notes.append(f"{len(runs) - len(timed)} unfinished runs have no time yet, so that only finished ones are drawn")
        runs = timed
    unit = None if x == "steps" else 3600 if max((run.wall_time for run in runs), default=0) >= 3600 else 60
    drawn = {env: {} for env in by_method(runs)}
    for env, methods in tracked(by_method(runs).items(), "curves"):
        for method, group in methods.items():
            points, curves = resample(group, window, unit)
            if not len(points):
                notes.append(f"{env}, {method}: its seeds have no steps in common yet; not drawn")
                continue
            last, longest = (end(run.steps[-1] for run in group) for end in (min, max))
            if last < longest and (metric == "eval" or any(run.wall_time is None for run in group)):
                notes.append(f"{env}, {method}: drawn up to step {last:,.0f}, which all its seeds have reached")
            interval = bootstrap_curves(curves, CENTERS[center])
            drawn[env][method] = points, curves, CENTERS[center](curves.T), interval
    if not any(drawn.values()):
        raise PlotError(f"nothing to draw: {'; '.join(notes) or 'no runs'}")
    figure, axes, places = panels(pyplot(), list(map(list, drawn.values())), 3.4, 2.6)
    for ax, place, (env, lines) in zip(axes, places, drawn.items()):
        for i, (method, (points, curves, middle, (low, high))) in enumerate(lines.items()):
            step = max(1, len(points) // 6)
            marks = {"markevery": (i * step // len(lines), step), "markersize": 4, "linewidth": 1.4, "zorder": 3}
            ax.plot(points, middle, **looks[method], **marks, label=f"{method} (n = {len(curves)})")
            ax.fill_between(points, low, high, color=looks[method]["color"], alpha=0.15, linewidth=0.5)
            for curve in curves if show_seeds else ():
                ax.plot(points, curve, color=looks[method]["color"], linewidth=0.5, alpha=0.4)
        ax.set(title=env, xlabel={None: "environment steps", 60: "minutes", 3600: "hours"}[unit])
        if x == "steps":
            ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
        if lines:  # the axis follows the runs; an interval of few of them may reach beyond it
            low, high = (f([f(curves) for _, curves, *_ in lines.values()]) for f in (np.min, np.max))
            margin = 0.05 * (high - low) or 1
            ax.set_ylim(low - margin, high + margin)
        ax.grid(alpha=0.25)
        ax.legend(**place)
    what = "evaluation return" if metric == "eval" else "training return"
    figure.supylabel(f"{what}, {center.replace('iqm', 'IQM')} and 95 % interval", fontsize=8)
    return save(figure, out / "curves"), notes
