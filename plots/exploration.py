"""Where training went in its first 10,000 steps, and how often it reached the target since: figure 5 of arXiv
2104.09122, on target-reaching.

Positions come from the replay of a run: those of an episode are its start less how far the target has come
nearer. The numbers are the area of the cells, 0.25 wide, that the paths lead through, and how many steps
ended in the region [0, 3]^2 where targets are drawn.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gymnasium.spaces import flatdim

from ..envs.target_reaching import HALF, REACHED, START, TARGET_BOX
from ..terminal import spans, tracked
from .curves import resample
from .policies import stem
from .runs import PlotError, Run, by_method
from .style import panels, pyplot, save, steps_axis, styles, wrapped
from .tables import mean_cell, number, write
from .trajectories import make_world, plot_plane, plot_region, reaching

STEPS = 10_000  # whose paths are shown
CELL = 0.25  # in the plane's units
WINDOW = 50  # episodes that a point of the success rate is the mean of, or as many as there are
# the highest that each can be
MOST = {"area": 4 * HALF**2, "region": STEPS, "targets": np.inf, "episodes": np.inf, "late": 100}
HEAD = ["method", "environment", "n", "area covered", "steps in the target region"]
HEAD += ["targets reached", "episodes", "reached at the end, %"]
FOOT = f"Area of 100 square units, in cells of {CELL} x {CELL}; the target region is [0, 3] x [0, 3]."


@dataclass
class Experience:
    """T steps of a run and its E whole episodes"""

    position: np.ndarray  # (T, 2), before each step
    next_position: np.ndarray  # (T, 2), after it
    episode: np.ndarray  # (T,), numbered from 0
    ends: np.ndarray  # (E,), the step that ended each episode, from 1
    success: np.ndarray  # (E,), whether at the target


# What a replay says


def experience(run: Run) -> Experience:
    """PlotError: the run has no replay, or nothing in it yet."""
    obs, _, next_obs, reward, terminated = replay(run)
    reached = reward[:, 0] == REACHED
    terminated = terminated[:, 0] > 0

    # The last step of an episode is terminated, or what follows does not begin where it ended.
    last = terminated.copy()
    last[:-1] |= (obs[1:] != next_obs[:-1]).any(-1)
    ends = np.flatnonzero(last)

    # The first is the one after that, and episodes are numbered by these.
    first = np.append(True, last[:-1])
    episode = np.cumsum(first) - 1

    # The target's offset is the first two of an observation.
    offset = obs[:, :2]
    start = offset[first][episode]
    position = START + start - offset
    next_position = START + start - next_obs[:, :2]
    success = terminated[ends] & reached[ends]
    return Experience(position, next_position, episode, ends + 1, success)


def replay(run: Run) -> list[np.ndarray]:
    """Of a run's T steps obs (T, O), action, next_obs, reward (T, 1) and terminated. PlotError: there are
    none."""
    file = run.path / "checkpoint" / "replay.f32"
    if not file.is_file():
        raise PlotError(f"{run.path} has no replay: {why_no_replay(run, file)}")
    obs_size = flatdim(make_world(run).observation_space)
    sizes = [obs_size, 2, obs_size, 1, 1]
    numbers = np.fromfile(file, np.float32)
    # The last row may be half written.
    steps = len(numbers) // sum(sizes)
    if not steps:
        raise PlotError(f"{file} has no steps yet")
    rows = numbers[: steps * sum(sizes)].reshape(steps, -1)
    return np.split(rows, np.cumsum(sizes)[:-1], 1)


def why_no_replay(run: Run, file: Path) -> str:
    if run.args.get("keep_replay"):
        return f"{file} is gone"
    if run.family == "PPO":
        return "PPO's family keeps none"
    return "it was run with --no-keep-replay"


def area(position: np.ndarray, next_position: np.ndarray) -> float:
    """Area of the cells that the ways from (T, 2) to (T, 2) lead through, looked at in four places of each"""
    way = next_position - position
    points = np.concatenate([position + t * way for t in (0.25, 0.5, 0.75, 1)])
    cells = np.floor((points + HALF) / CELL)
    # What is on the upper edge is in the last cell.
    cells = cells.clip(0, 2 * HALF / CELL - 1)
    return len(np.unique(cells, axis=0)) * CELL**2


def in_region(position: np.ndarray) -> np.ndarray:
    """Whether positions (T, 2) are where targets are drawn: (T,)"""
    inside = (position >= 0) & (position <= TARGET_BOX)
    return inside[:, 0] & inside[:, 1]


def paths(known: Experience, steps: int) -> list[np.ndarray]:
    """The path (T + 1, 2) of each episode in the first steps"""
    episode = known.episode[:steps]
    cuts = np.flatnonzero(np.diff(episode)) + 1
    positions = np.split(known.position[:steps], cuts)
    next_positions = np.split(known.next_position[:steps], cuts)
    pieces = zip(positions, next_positions)
    return [np.vstack([before, after[-1:]]) for before, after in pieces]


def figures(known: Experience) -> dict[str, float]:
    """Of a run's first steps how many there are, their area, how many and what % end in the target region,
    episodes and targets, and the success at the run's end, in %"""
    steps = min(STEPS, len(known.position))
    early = known.ends <= STEPS
    tenth = max(1, len(known.success) // 10)
    late = known.success[-tenth:]
    inside = in_region(known.next_position[:steps])
    return {
        "steps": steps,
        "area": area(known.position[:steps], known.next_position[:steps]),
        "region": inside.sum(),
        "region_share": 100 * inside.mean(),
        "episodes": early.sum(),
        "targets": known.success[early].sum(),
        "late": 100 * late.mean() if len(late) else np.nan,
    }


# The table


def report(runs: list[Run], out: Path) -> tuple[list[Path], list[str]]:
    """Writes OUT/exploration-ENV.png and .pdf, the first method beside each of the others and the success
    rate, and OUT/exploration.csv, .md and .tex; returns the files, and notes. PlotError: no run has a
    replay."""
    runs, notes = reaching(runs)
    known = read(runs, notes)
    records = []
    rows = []
    files = []
    for env, methods in by_method([run for run in runs if run.path in known]).items():
        for method, group in methods.items():
            each = [figures(known[run.path]) for run in group]
            for run, x in zip(group, each):
                records.append({"environment": env, "method": method, "seed": run.seed} | x)
            rows.append([method, env, str(len(group)), *cells_of(each)])
            short = [run.seed for run, x in zip(group, each) if x["steps"] < STEPS]
            if short:
                notes.append(f"{env}, {method}: seed {spans(short)} has fewer than {STEPS:,} steps")
        files += plot(env, methods, known, stem(out, "exploration", env))
    title = f"The first {STEPS:,} steps or fewer, and the last tenth of all episodes: "
    title += "mean of n runs (95 % interval)"
    tables = write(out / "exploration", records, [(title, HEAD, rows)], FOOT)
    return [*tables, *files], notes


def read(runs: list[Run], notes: list[str]) -> dict[Path, Experience]:
    """What each run's replay says; notes on runs without one. PlotError: no run has one."""
    known = {}
    for run in tracked(runs, "exploration"):
        try:
            known[run.path] = experience(run)
        except PlotError as error:
            notes.append(str(error))
    if not known:
        raise PlotError(f"--exploration has nothing to show: {notes[-1]}")
    return known


def cells_of(each: list[dict]) -> list[str]:
    """The mean of each figure over runs, with its interval"""
    cells = []
    for name, most in MOST.items():
        values = [x[name] for x in each]
        cells.append(mean_cell(values, least=0, most=most))
    return cells


# The figure


def plot(env: str, methods: dict[str, list[Run]], known: dict[Path, Experience], file: Path) -> list[Path]:
    """The paths of the first method and of each other in one panel, and all success rates in the last"""
    looks = styles([run for group in methods.values() for run in group])
    base, *others = methods
    pairs = [[base, other] for other in others] or [[base]]
    figure, axes = panels(pyplot(), len(pairs) + 1, 2.9)
    *planes, rates = axes
    below = {"frameon": False, "fontsize": 6, "loc": "upper center"}
    for ax, pair in zip(planes, pairs):
        shown = [methods[method][0] for method in pair]
        plot_paths(ax, shown, known, looks)
        ax.legend(**below, bbox_to_anchor=(0.5, 0.02))
    plot_success(rates, methods, known, looks)
    rates.legend(**below, bbox_to_anchor=(0.5, -0.2))
    figure.suptitle(wrapped(env, 100), fontsize=8)
    return save(figure, file)


def plot_paths(ax, runs: list[Run], known: dict[Path, Experience], looks: dict) -> None:
    """The paths of the first steps of a few runs, of one environment"""
    plot_plane(ax, runs[0])
    longest = 0
    for run in runs:
        colour = looks[run.method]["color"]
        for path in paths(known[run.path], STEPS):
            ax.plot(*path.T, color=colour, linewidth=0.4, alpha=0.5, zorder=2)
        x = figures(known[run.path])
        numbers = f"area {number(x['area'])}, {number(x['region_share'])} % of steps in the region"
        ax.plot([], [], color=colour, label=f"{wrapped(run.method)}, seed {run.seed}:\n{numbers}")
        longest = max(longest, len(known[run.path].position))
    plot_region(ax)
    ax.set_title(f"first {min(STEPS, longest):,} steps", fontsize=8)


def plot_success(ax, methods: dict[str, list[Run]], known: dict[Path, Experience], looks: dict) -> None:
    """How often each method reached the target: the mean over its runs, and a thin line for each"""
    for i, (method, group) in enumerate(methods.items()):
        curves = success_curves(group, known)
        if not curves:
            continue
        points, rates = resample(curves, WINDOW, None)
        if not len(points):
            continue
        look = looks[method]
        step = max(1, len(points) // 6)
        start = i * step // len(methods)
        marks = {"markevery": (start, step), "markersize": 3, "linewidth": 1.2}
        ax.plot(points, 100 * rates.mean(0), **look, **marks, label=f"{wrapped(method)} (n = {len(rates)})")
        ax.plot(points, 100 * rates.T, color=look["color"], linewidth=0.5, alpha=0.4)
    ax.set_ylim(-2, 102)
    steps_axis(ax)
    ax.set_title(f"% of {WINDOW} episodes at the target; thin: seeds", fontsize=8)
    ax.grid(alpha=0.25)


def success_curves(group: list[Run], known: dict[Path, Experience]) -> list[Run]:
    """The runs that have whole episodes, their curve being whether each of these reached the target"""
    curves = []
    for run in group:
        x = known[run.path]
        if len(x.ends):
            curves.append(replace(run, steps=x.ends, returns=x.success))
    return curves
