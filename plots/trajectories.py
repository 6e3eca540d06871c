"""Trajectories of each policy on target-reaching, and of each of its primitives alone: figure 3 of arXiv 2104.09122.

Actions are drawn as in training. A primitive acts alone where the router gives it all the weight. Where the run's
environment has no fixed_layout, episodes have layout 0.
"""

from pathlib import Path

import numpy as np

from .. import pmoe_sac
from ..algorithms import load
from ..envs.target_reaching import START
from .curves import pyplot, save, styles
from .policies import pick, sampler, stem, trained
from .runs import PlotError, Run
from .tables import number, tracked, write

ENDS = {"reached": ("o", "#009e73"), "collided": ("X", "#d55e00"), "out of time": ("s", "#404040")}
MOST = 8  # primitives that the figure shows
FOOT = "Actions are drawn as in training. A primitive acts alone where the router gives it all the weight. "
FOOT += "Without a fixed_layout: layout 0."


def reaching(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Those on target-reaching, whose positions are known, and a note on the others. PlotError: there is none."""
    there = [run for run in runs if run.env.partition(",")[0].endswith("TargetReaching-v0")]
    others = sorted({run.env for run in runs} - {run.env for run in there})
    if not there:
        raise PlotError(f"trajectories and exploration are of TargetReaching-v0; the runs are of {', '.join(others)}")
    return there, [f"no trajectories and no exploration of {', '.join(others)}"] if others else []


def walk(run: Run, episodes: int, primitive: int | None = None) -> tuple[list[np.ndarray], list[str], np.ndarray]:
    """The paths (T, 2) of a policy's episodes, or of a primitive's alone; how each ended; their returns (E,)"""
    envs = load(run.algo).Envs(run.env, episodes)
    worlds = [env.unwrapped for env in envs.envs]
    for world in worlds:
        world.fixed_layout = world.fixed_layout or 0
    returns = envs.evaluate(sampler(run, envs, primitive), [run.seed], trained(run)[0])[0]
    ends = ["reached" if world.success else "collided" if world.collision else "out of time" for world in worlds]
    return [np.array(world.path) for world in worlds], ends, returns


def report(runs: list[Run], out: Path, episodes: int = 10) -> tuple[list[Path], list[str]]:
    """Writes OUT/trajectories-ENV.png and .pdf, a row a method, and OUT/trajectories.csv, .md and .tex; returns the
    files, and notes. PlotError: there is no policy of this environment."""
    runs, notes = reaching(runs)
    picked, shown = pick(runs, several=False)
    records, rows, walked = [], [], []
    for run in tracked(picked, "trajectories"):
        each, k = {}, run.args["k"]
        for primitive in [None, *range(k)] if k > 1 else [None]:
            paths, ends, returns = each[primitive] = walk(run, episodes, primitive)
            who = "all" if primitive is None else primitive
            counts = {end: ends.count(end) for end in ENDS}
            about = {"environment": run.env, "method": run.method, "seed": run.seed, "primitive": who}
            steps = np.mean([len(path) - 1 for path in paths])
            records.append(about | {"episodes": episodes} | counts | {"return": returns.mean(), "steps": steps})
            cells = [*map(str, counts.values()), number(returns.mean()), number(steps)]
            rows.append([run.method if primitive is None else f"  primitive {primitive}", run.env, *cells])
        walked.append((run, each))
        if k > MOST:
            notes.append(f"{run.env}, {run.method}: primitives {MOST} to {k - 1} are in the table, not in the figure")
    head = ["method", "environment", *ENDS, "return", "steps"]
    files = write(out / "trajectories", records, [(f"Ends of {episodes} trajectories", head, rows)], FOOT)
    for env in dict.fromkeys(run.env for run in picked):
        files += draw([x for x in walked if x[0].env == env], stem(out, "trajectories", env))
    return files, notes + shown


def draw(walked: list[tuple[Run, dict]], file: Path) -> list[Path]:
    """A row a method: trajectories of its policy, and of each primitive alone"""
    plt, looks = pyplot(), styles([run for run, _ in walked])
    columns = min(1 + MOST, max(len(each) for _, each in walked))
    shape = {"figsize": (1.75 * columns, 1.95 * len(walked) + 0.4), "layout": "constrained"}
    figure, axes = plt.subplots(len(walked), columns, squeeze=False, **shape)
    for ax in axes.flat:
        ax.set_axis_off()
    for (run, each), row in zip(walked, axes):
        for ax, (primitive, (paths, ends, _)) in zip(row, each.items()):
            plane(ax, run, 0)
            for path, end in zip(paths, ends):
                ax.plot(*path.T, color=looks[run.method]["color"], linewidth=0.8, alpha=0.7)
                marker, colour = ENDS[end]
                ax.plot(*path[-1], marker, color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.4)
            who = f"{run.method}, seed {run.seed}" if primitive is None else f"primitive {primitive} alone"
            ax.set_title(f"{who}\n{ends.count('reached')} of {len(ends)} reached", fontsize=6.5)
    marks = [plt.Line2D([], [], marker=m, color=c, linestyle="none", label=end) for end, (m, c) in ENDS.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(ENDS), frameon=False, fontsize=7)
    figure.suptitle(f"{walked[0][0].env}, actions drawn as in training", fontsize=8)
    return save(figure, file)


def plane(ax, run: Run, layout: int | None = None) -> None:
    """The world of a run, with its layout if that is fixed, or else this one or none"""
    world = pmoe_sac.Envs(run.env, 1).envs[0].unwrapped
    if world.fixed_layout is None:
        world.fixed_layout = layout
    world.reset(seed=0)
    world.plot_layout(ax, discs=world.fixed_layout is not None)
    ax.plot(*START, "o", color="black", markersize=3)
    ax.set_axis_off()
