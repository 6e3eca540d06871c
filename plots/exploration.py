"""Where training went in its first 10,000 steps, and how often it reached the target since: figure 5 of arXiv
2104.09122, on target-reaching.

Positions come from the replay of a run, which is kept with --keep-replay: those of an episode are its start less how
far the target has come nearer. The number is the area of the cells, 0.25 wide, that the paths lead through.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import pmoe_sac
from ..envs.target_reaching import HALF, REACHED, START
from .curves import panels, pyplot, resample, save, styles
from .policies import stem
from .runs import PlotError, Run, by_method, spans
from .stats import bootstrap, mean
from .tables import number, tracked, with_interval, write
from .trajectories import plane, reaching

STEPS = 10_000  # whose paths are drawn
CELL = 0.25  # in the plane's units
WINDOW = 50  # episodes that a point of the success rate is the mean of, or as many as there are


def experience(run: Run) -> dict[str, np.ndarray]:
    """What a run's replay says of its T steps:

    position, next_position (T, 2)   before and after each
    episode (T,)                     numbered from 0
    ends, success (E,)               the step that ended each whole episode, from 1, and whether at the target

    PlotError: there is none, or nothing in it yet.
    """
    file = run.path / "checkpoint" / "replay.f32"
    if not file.exists():
        how = "PPO's family keeps none" if run.family == "PPO" else "it was not run with --keep-replay"
        raise PlotError(f"{run.path} has no replay: {f'{file} is gone' if run.args.get('keep_replay') else how}")
    size = pmoe_sac.Envs(run.env, 1).obs_size
    sizes = size, 2, size, 1, 1
    rows = np.fromfile(file, np.float32)
    rows = rows[: len(rows) // sum(sizes) * sum(sizes)].reshape(-1, sum(sizes))
    if not len(rows):
        raise PlotError(f"{file} has no steps yet")
    obs, _, next_obs, reward, terminated = np.split(rows, np.cumsum(sizes)[:-1], 1)
    reward, terminated = reward[:, 0], terminated[:, 0]
    last = np.append((terminated[:-1] > 0) | (obs[1:] != next_obs[:-1]).any(-1), terminated[-1:] > 0)  # of an episode
    episode = np.cumsum(np.append(0, last[:-1]))
    first = np.append(0, np.flatnonzero(last[:-1]) + 1)[episode]
    position, next_position = (START + obs[first, :2] - x[:, :2] for x in (obs, next_obs))
    ends = np.flatnonzero(last)
    success = (terminated[ends] > 0) & (reward[ends] == REACHED)
    known = {"position": position, "next_position": next_position, "episode": episode}
    return known | {"ends": ends + 1, "success": success}


def area(position: np.ndarray, next_position: np.ndarray) -> float:
    """Area of the cells that the ways from (T, 2) to (T, 2) lead through, looked at in four places of each"""
    points = np.concatenate([position + t * (next_position - position) for t in (0.25, 0.5, 0.75, 1)])
    cells = np.floor((points + HALF) / CELL).clip(0, 2 * HALF / CELL - 1)
    return len(np.unique(cells, axis=0)) * CELL**2


def figures(seen: dict[str, np.ndarray]) -> dict[str, float]:
    """Of a run's first steps how many there are, their area, episodes and targets, and the success at its end, in %"""
    steps, early = min(STEPS, len(seen["position"])), seen["ends"] <= STEPS
    covered = area(seen["position"][:steps], seen["next_position"][:steps])
    late = seen["success"][-max(1, len(seen["success"]) // 10) :]
    counts = {"episodes": early.sum(), "targets": seen["success"][early].sum()}
    return {"steps": steps, "area": covered} | counts | {"late": 100 * late.mean() if len(late) else np.nan}


def report(runs: list[Run], out: Path) -> tuple[list[Path], list[str]]:
    """Writes OUT/exploration-ENV.png and .pdf, the first method beside each of the others and the success rate, and
    OUT/exploration.csv, .md and .tex; returns the files, and notes. PlotError: no run has a replay."""
    runs, notes = reaching(runs)
    known = {}
    for run in tracked(runs, "exploration"):
        try:
            known[run.path] = experience(run)
        except PlotError as error:
            notes.append(str(error))
    if not known:
        raise PlotError(f"--exploration has nothing to show: {notes[-1]}")
    records, rows, files = [], [], []
    for env, methods in by_method([run for run in runs if run.path in known]).items():
        for method, group in methods.items():
            each = [figures(known[run.path]) for run in group]
            records += [{"environment": env, "method": method, "seed": run.seed} | x for run, x in zip(group, each)]
            most = {"area": 4 * HALF**2, "targets": np.inf, "episodes": np.inf, "late": 100}
            cells = [with_mean([x[name] for x in each], limit) for name, limit in most.items()]
            rows.append([method, env, str(len(group)), *cells])
            if short := [run.seed for run, x in zip(group, each) if x["steps"] < STEPS]:
                notes.append(f"{env}, {method}: seed {spans(short)} has fewer than {STEPS:,} steps")
        files += draw(env, methods, known, stem(out, "exploration", env))
    head = ["method", "environment", "n", "area covered", "targets reached", "episodes", "reached at the end, %"]
    title = f"The first {STEPS:,} steps or fewer, and the last tenth of all episodes: mean of n runs (95 % interval)"
    foot = f"Area of 100 square units, in cells of {CELL} x {CELL}."
    return [*write(out / "exploration", records, [(title, head, rows)], foot), *files], notes


def with_mean(values: list[float], most: float) -> str:
    """The mean of those that are known, with its interval as far as that is possible: from 0 to `most`"""
    values = np.array([x for x in values if not np.isnan(x)] or [np.nan])
    return with_interval(values.mean(), *bootstrap([values], lambda x: mean(x[0])).clip(0, most))


def draw(env: str, methods: dict[str, list[Run]], known: dict, file: Path) -> list[Path]:
    """The paths of the first method and of each other in one panel, and all success rates in the last"""
    looks = styles([run for group in methods.values() for run in group])
    base, *others = methods
    pairs = [(base, other) for other in others] or [(base,)]
    figure, axes, _ = panels(pyplot(), [[*pair] for pair in pairs] + [[*methods]], 2.6, 2.9)
    below = {"frameon": False, "fontsize": 6, "loc": "upper center"}
    for ax, pair in zip(axes, pairs):
        plane(ax, methods[base][0])
        for method in pair:
            run = methods[method][0]
            seen = known[run.path]
            for path in paths(seen, STEPS):
                ax.plot(*path.T, color=looks[method]["color"], linewidth=0.4, alpha=0.5, zorder=2)
            label = f"{method}, seed {run.seed}: area {number(figures(seen)['area'])}"
            ax.plot([], [], color=looks[method]["color"], label=label)
        ax.legend(**below, bbox_to_anchor=(0.5, 0.02))
        steps = min(STEPS, max(len(known[methods[method][0].path]["position"]) for method in pair))
        ax.set_title(f"first {steps:,} steps", fontsize=8)
    ax = axes[-1]
    for i, (method, group) in enumerate(methods.items()):
        curves = [replace(run, steps=known[run.path]["ends"], returns=known[run.path]["success"]) for run in group]
        curves = [run for run in curves if len(run.steps)]
        points, rates = resample(curves, WINDOW, None) if curves else ((), ())
        if not len(points):
            continue
        marks = {"markevery": (i * len(points) // 30, max(1, len(points) // 6)), "markersize": 3, "linewidth": 1.2}
        ax.plot(points, 100 * rates.mean(0), **looks[method], **marks, label=f"{method} (n = {len(rates)})")
        ax.plot(points, 100 * rates.T, color=looks[method]["color"], linewidth=0.5, alpha=0.4)
    ax.set(ylim=(-2, 102), xlabel="environment steps")
    ax.set_title(f"% of {WINDOW} episodes at the target; thin: seeds", fontsize=8)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    ax.grid(alpha=0.25)
    ax.legend(**below, bbox_to_anchor=(0.5, -0.2))
    figure.suptitle(env, fontsize=8)
    return save(figure, file)


def paths(seen: dict[str, np.ndarray], steps: int) -> list[np.ndarray]:
    """The path (T + 1, 2) of each episode in the first steps"""
    episode = seen["episode"][:steps]
    cuts = np.flatnonzero(np.diff(episode)) + 1
    pieces = zip(*(np.split(seen[name][:steps], cuts) for name in ("position", "next_position")))
    return [np.vstack([here, there[-1:]]) for here, there in pieces]
