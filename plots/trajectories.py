"""Trajectories of each policy on target-reaching, and of each of its primitives alone: figure 3 of arXiv
2104.09122.

Actions are drawn as in training. A primitive acts alone where the router gives it all the weight. Where the
run's environment has no fixed_layout, episodes have layout 0. With --only-primitives a figure has the
policies in a row and below each, as in (e), its chosen primitives in one panel.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from ..envs import load_module, make, without_render_mode
from ..envs.target_reaching import COLOURS, START, TARGET_BOX, TargetReaching
from ..terminal import tracked
from .policies import (
    analyse,
    colours,
    fork_errors,
    make_envs,
    pick,
    primitive_count,
    sampler,
    stem,
    trained,
)
from .runs import OptionError, PlotError, Run
from .style import pyplot, save, styles, wrapped
from .tables import number, write

ENDS = {"reached": ("o", "#009e73"), "collided": ("X", "#d55e00"), "out of time": ("s", "#404040")}
MOST = 8  # primitives that the figure shows
HEAD = ["method", "K", "environment", *ENDS, "return", "steps"]
FOOT = "Actions are drawn as in training. A primitive acts alone where the router gives it all the weight. "
FOOT += "Without a fixed_layout: layout 0."


@dataclass
class Walk:
    """E episodes of a policy, or of a primitive alone"""

    paths: list[np.ndarray]  # (T, 2) each
    ends: list[str]  # as in ENDS
    returns: np.ndarray  # (E,)


def chosen(text: str, runs: list[Run]) -> list[int]:
    """The primitives that --only-primitives names, as in 0,1. OptionError: it names none, or one that a
    policy of several lacks."""
    several = [run for run in runs if primitive_count(run) > 1]
    if not several:
        raise OptionError("--only-primitives: no policy here has several primitives")
    fewest = min(several, key=lambda run: run.args["k"])
    k = fewest.args["k"]
    words = [word.strip() for word in text.split(",")]
    known = [str(primitive) for primitive in range(k)]
    for word in words:
        if word not in known:
            line = f"{word!r} is no primitive of {fewest.method}: give some of 0 to {k - 1}, as in 0,1"
            raise OptionError(f"--only-primitives {text}: {line}")
    return [known.index(word) for word in dict.fromkeys(words)]


def is_reaching(env_id: str) -> bool:
    """Whether an environment is target-reaching"""
    name, _, _ = env_id.partition(",")
    return name.endswith("TargetReaching-v0")


def reaching(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """Those on target-reaching, whose positions are known, and a note on the others. PlotError: there is
    none."""
    ours = []
    others = set()
    for run in runs:
        if is_reaching(run.env):
            ours.append(run)
        else:
            others.add(run.env)
    names = ", ".join(sorted(others))
    if not ours:
        raise PlotError(f"trajectories and exploration are of TargetReaching-v0; the runs are of {names}")
    notes = [f"no trajectories and no exploration of {names}"] if others else []
    return ours, notes


def make_world(run: Run) -> TargetReaching:
    """The environment of a run on target-reaching. PlotError: it cannot be made."""
    try:
        load_module(run.env)
        return cast(TargetReaching, make(without_render_mode(run.env)).unwrapped)
    except Exception as error:  # environments raise anything
        raise PlotError(f"{run.path}: its environment {run.env} cannot be made ({error})") from error


def walk(run: Run, episodes: int, primitive: int | None = None) -> Walk:
    """What a policy does, or a primitive alone. PlotError: the run is a fork's that has other means."""
    envs = make_envs(run, episodes)
    worlds = [env.unwrapped for env in envs.envs]
    for world in worlds:
        world.fixed_layout = world.fixed_layout or 0
    with fork_errors(run):
        act = sampler(run, envs, primitive)
        checkpoint, _ = trained(run)
        returns = envs.evaluate(act, [run.seed], checkpoint)[0]
    paths = [np.array(world.path) for world in worlds]
    return Walk(paths, [end_of(world) for world in worlds], returns)


def end_of(world: TargetReaching) -> str:
    """How its episode ended"""
    if world.success:
        return "reached"
    return "collided" if world.collision else "out of time"


def walks(run: Run, episodes: int, only: list[int] | None = None) -> dict[int | None, Walk]:
    """Of the policy, None, and of each of several primitives, or only of these"""
    found: dict[int | None, Walk] = {None: walk(run, episodes)}
    k = primitive_count(run)
    if k > 1:
        for primitive in only or range(k):
            found[primitive] = walk(run, episodes, primitive)
    return found


def report(
    runs: list[Run], out: Path, episodes: int = 10, only: str | None = None
) -> tuple[list[Path], list[str]]:
    """Writes OUT/trajectories-ENV.png and .pdf, a row a method, and OUT/trajectories.csv, .md and .tex;
    returns the files, and notes. With `only` some primitives, as in 0,1, it has a column a method. PlotError:
    there is no policy of this environment, or no such primitive."""
    runs, notes = reaching(runs)
    primitives = None if only is None else chosen(only, runs)
    picked, shown = pick(runs, several=False)
    analysis = partial(walks, episodes=episodes, only=primitives)
    walked = analyse(tracked(picked, "trajectories"), analysis, notes)
    records = []
    rows = []
    for run, each in walked:
        k = primitive_count(run)
        for primitive, what in each.items():
            records.append(record_of(run, primitive, what))
            rows.append(row_of(run, primitive, what))
        if k > MOST and only is None:
            left_out = f"primitives {MOST} to {k - 1} are in the table, not in the figure"
            notes.append(f"{run.env}, {run.method}: {left_out}")
    title = f"Ends of {episodes} trajectories"
    files = write(out / "trajectories", records, [(title, HEAD, rows)], FOOT)
    for env in dict.fromkeys(run.env for run, _ in walked):
        panel = [(run, each) for run, each in walked if run.env == env]
        draw = plot if only is None else plot_together
        files += draw(panel, stem(out, "trajectories", env))
    return files, notes + shown


def count_ends(what: Walk) -> dict[str, int]:
    return {end: what.ends.count(end) for end in ENDS}


def mean_steps(what: Walk) -> float:
    steps = [len(path) - 1 for path in what.paths]
    return float(np.mean(steps))


def record_of(run: Run, primitive: int | None, what: Walk) -> dict:
    record = {"environment": run.env, "method": run.method, "k": run.args["k"], "seed": run.seed}
    record["primitive"] = "all" if primitive is None else primitive
    record["episodes"] = len(what.paths)
    return record | count_ends(what) | {"return": what.returns.mean(), "steps": mean_steps(what)}


def row_of(run: Run, primitive: int | None, what: Walk) -> list[str]:
    """Of the table"""
    name = run.method if primitive is None else f"  primitive {primitive}"
    counts = [str(count) for count in count_ends(what).values()]
    return [name, str(run.args["k"]), run.env, *counts, number(what.returns.mean()), number(mean_steps(what))]


def plot(walked: list[tuple[Run, dict]], file: Path) -> list[Path]:
    """A row a method: trajectories of its policy, and of each primitive alone"""
    looks = styles([run for run, _ in walked])
    most = max(len(each) for _, each in walked)
    figure, axes = planes(len(walked), min(1 + MOST, most))
    for (run, each), row in zip(walked, axes):
        for ax, (primitive, what) in zip(row, each.items()):
            plot_plane(ax, run, 0)
            plot_walk(ax, what, looks[run.method]["color"])
            name = label_of(run) if primitive is None else f"primitive {primitive} alone"
            set_title(ax, name, [what])
    return finish(figure, walked[0][0], [], file)


def plot_together(walked: list[tuple[Run, dict]], file: Path) -> list[Path]:
    """A column a method: trajectories of its policy and, below, of some primitives in one panel"""
    looks = styles([run for run, _ in walked])
    figure, axes = planes(2, len(walked))
    lines = {}
    for (run, each), (above, below) in zip(walked, axes.T):
        plot_plane(above, run, 0)
        plot_walk(above, each[None], looks[run.method]["color"])
        set_title(above, label_of(run), [each[None]])
        primitives = [primitive for primitive in each if primitive is not None]
        if not primitives:
            continue
        plot_plane(below, run, 0)
        for primitive in primitives:
            colour = colours(run.args["k"])[primitive]
            plot_walk(below, each[primitive], colour)
            lines[primitive] = pyplot().Line2D([], [], color=colour, label=f"primitive {primitive}")
        kind = "primitives" if len(primitives) > 1 else "primitive"
        alone = f"{kind} {', '.join(map(str, primitives))} alone, K={run.args['k']}"
        set_title(below, alone, [each[primitive] for primitive in primitives])
    return finish(figure, walked[0][0], list(lines.values()), file)


def planes(rows: int, columns: int):
    """A figure of so many panels, and its axes, not yet shown"""
    size = (1.75 * columns, 1.95 * rows + 0.4)
    figure, axes = pyplot().subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def label_of(run: Run) -> str:
    """Method, K, which some names do not say, and seed"""
    k = "" if run.base != run.name else f" K={run.args['k']}"
    return f"{run.method}{k}, seed {run.seed}"


def set_title(ax, name: str, shown: list[Walk]) -> None:
    """The name, and how often each of these reached the target"""
    reached = [str(what.ends.count("reached")) for what in shown]
    episodes = len(shown[0].ends)
    ax.set_title(f"{wrapped(name, 32)}\n{', '.join(reached)} of {episodes} reached", fontsize=6.5)


def finish(figure, run: Run, lines: list, file: Path) -> list[Path]:
    """Saves a figure, below it what its marks and lines mean."""
    marks = []
    for end, (marker, colour) in ENDS.items():
        marks.append(pyplot().Line2D([], [], marker=marker, color=colour, linestyle="none", label=end))
    handles = lines + marks
    columns = 3 if len(handles) > 5 else len(handles)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=7)
    title = f"{run.env}, actions drawn as in training"
    figure.suptitle(wrapped(title, int(16 * figure.get_size_inches()[0])), fontsize=8)
    return save(figure, file)


def plot_walk(ax, what: Walk, colour) -> None:
    """Paths, and a mark where each ends"""
    for path, end in zip(what.paths, what.ends):
        ax.plot(*path.T, color=colour, linewidth=0.8, alpha=0.7)
        marker, shade = ENDS[end]
        ax.plot(*path[-1], marker, color=shade, markersize=4, markeredgecolor="white", markeredgewidth=0.4)


def plot_plane(ax, run: Run, layout: int | None = None) -> None:
    """The world of a run, with its layout if that is fixed, or else this one or none"""
    world = make_world(run)
    if world.fixed_layout is None:
        world.fixed_layout = layout
    world.reset(seed=0)
    world.plot_layout(ax, discs=world.fixed_layout is not None)
    ax.plot(*START, "o", color="black", markersize=3)
    ax.set_axis_off()


def plot_region(ax) -> None:
    """Where targets are drawn, [0, 3]^2, seen through, above all paths"""
    look = {"facecolor": f"{COLOURS['target']}20", "edgecolor": COLOURS["target"], "linestyle": "--"}
    region = pyplot().Rectangle((0, 0), TARGET_BOX, TARGET_BOX, **look, zorder=3, label="target region")
    ax.add_patch(region)
