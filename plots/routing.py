"""Which primitive acts when: the router along an episode or a part of it, some moments there, and how often
each primitive is used.

Figures 8 and 9 of arXiv 2104.09122, which show one stride. Of gating and MCP, where all primitives act at
once, the weights are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..terminal import tracked
from .policies import (
    COLOURS,
    Rollout,
    analyse,
    choose_renderer,
    colours,
    composes,
    pick,
    plot_usage,
    rollout,
    stem,
    ticks,
)
from .runs import PlotError, Run
from .style import pyplot, save, wrapped
from .tables import write_csv

MOMENTS = 5
MOST = 10  # moments that can be seen beside each other


@dataclass
class Part:
    """The steps of an episode that are shown, from the first to before the last, and moments, which count
    from the first: those given, or five in the middle of equal parts"""

    first: int = 0
    last: int | None = None  # the episode's end
    given: Sequence[int] = ()

    def steps(self, length: int) -> range:
        """Those of an episode of so many steps; it may end before the part does."""
        last = length if self.last is None else min(self.last, length)
        return range(self.first, last)

    def moments(self, length: int) -> list[int]:
        """Steps of that episode at which frames and bars are shown"""
        steps = self.steps(length)
        wanted = sorted(set(self.given)) or moments(len(steps)).tolist()
        times = [self.first + moment for moment in wanted]
        return [time for time in times if time in steps]


WHOLE = Part()


def read_part(options: dict) -> Part:
    """What --from, --to and --moments say. PlotError: there are no such steps, or not all moments are
    theirs."""
    part = Part(options.get("from", 0), options.get("to"), options.get("moments", ()))
    if len(set(part.given)) > MOST:
        raise PlotError(f"--moments: a figure shows at most {MOST}")
    if part.last is None:
        return part
    if part.last <= part.first:
        raise PlotError(f"--from {part.first} --to {part.last}: there is no step between them")
    latest = part.last - part.first - 1
    if part.given and max(part.given) > latest:
        raise PlotError(
            f"--moments: {max(part.given)} is not in the part shown, whose moments are 0 to {latest}"
        )
    return part


def report(
    runs: list[Run], out: Path, episodes: int = 10, part: Part = WHOLE
) -> tuple[list[Path], list[str]]:
    """Writes OUT/routing-ENV-METHOD.png and .pdf for each method, and OUT/routing.csv of that part of their
    first episodes; returns the files, and notes. PlotError: no policy has several primitives, or no episode
    has this part."""
    runs, notes = pick(runs)
    filmed = set()
    for env in dict.fromkeys(run.env for run in runs):
        reason = choose_renderer(env)
        if reason:
            notes.append(f"{env}: drawn without frames, as nothing renders here ({reason})")
        else:
            filmed.add(env)
    analysis = partial(watch, episodes=episodes, filmed=filmed, part=part)
    files = []
    records = []
    for run, (steps, frames) in analyse(tracked(runs, "routing"), analysis, notes):
        records += records_of(run, steps, part)
        files += plot(run, steps, frames, stem(out, "routing", run.env, run.method), part)
        length = len(first_episode(steps))
        missing = len(set(part.given)) - len(part.moments(length))
        if part.given and missing:
            notes.append(f"{run.env}, {run.method}: {missing} of the moments lie behind its {length} steps")
    file = out / "routing.csv"
    write_csv(file, records)
    return [*files, file], notes


def watch(run: Run, episodes: int, filmed: set[str], part: Part) -> tuple[Rollout, list[np.ndarray]]:
    """What a policy does, and pictures of the first episode's moments where its environment is filmed.
    PlotError: this episode ends before the part begins, or has none of its moments."""
    steps = rollout(run, episodes)
    length = len(first_episode(steps))
    times = part.moments(length)
    if not times:
        wanted = "moments" if part.steps(length) else f"steps from {part.first} on"
        raise PlotError(f"the first episode of {run.path} has {length} steps, and none of the {wanted}")
    if run.env not in filmed:
        return steps, []
    # Once more, as its length is known only now.
    return steps, rollout(run, episodes, frames_at=times).frames


def first_episode(steps: Rollout) -> np.ndarray:
    """Its steps, (T,)"""
    return np.flatnonzero(steps.episode == 0)


def records_of(run: Run, steps: Rollout, part: Part) -> list[dict]:
    """A record for each step of that part of the first episode, and each primitive"""
    records = []
    for step in part.steps(len(first_episode(steps))):
        chosen = steps.chosen[step]
        for primitive, probability in enumerate(np.exp(steps.log_w[step])):
            record = {"environment": run.env, "method": run.method, "seed": run.seed, "step": step}
            record |= {"primitive": primitive, "probability": probability, "acts": int(chosen == primitive)}
            records.append(record)
    return records


def usage(steps: Rollout) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of each primitive (K,), and its share of the steps (K,), over all episodes"""
    n, k = steps.log_w.shape
    counts = np.bincount(steps.chosen, minlength=k)
    return np.exp(steps.log_w).mean(0), counts / n


def moments(length: int) -> np.ndarray:
    """The middles of as many equal parts of so many steps, fewer if these are fewer"""
    middles = (np.arange(MOMENTS) + 0.5) * length / MOMENTS
    return np.unique(middles.astype(int))


def plot(run: Run, steps: Rollout, frames: list[np.ndarray], file: Path, part: Part) -> list[Path]:
    """The router along that part of the first episode, below it frames, if there are any, and its bars at
    the moments"""
    length = len(first_episode(steps))
    shown = part.steps(length)
    probabilities = np.exp(steps.log_w[shown])  # (T, K)
    times = part.moments(length)
    columns = max(MOMENTS, len(times))
    beside = round(0.4 * columns)
    width = max(8, 0.8 * (columns + beside))
    figure = pyplot().figure(figsize=(width, 4.6 if frames else 3.4), layout="constrained")
    heights = [1.3, 0.14, 0.6]
    if frames:
        heights.insert(2, 1.1)
    grid = figure.add_gridspec(len(heights), columns + beside, height_ratios=heights)

    along = figure.add_subplot(grid[0, :columns])
    plot_router(along, probabilities, times, part.first)
    along.set_ylabel("weight" if composes(run) else "probability")
    which = "" if len(shown) == length else f"steps {shown[0]} to {shown[-1]} of "
    title = f"{run.env}, {run.method}, seed {run.seed}: {which}an episode of return {steps.returns[0]:.0f}"
    along.set_title(wrapped(title, 80), fontsize=8)

    strip = figure.add_subplot(grid[1, :columns], sharex=along)
    plot_strip(strip, steps.chosen[shown], part.first)
    strip.set_xlabel("step; the strip: " + ("the largest weight" if composes(run) else "who acts"))

    used = figure.add_subplot(grid[:2, columns:])
    plot_usage(used, *usage(steps))
    kind = "weight" if composes(run) else "probability"
    episodes = "1 episode" if len(steps.returns) == 1 else f"{len(steps.returns)} episodes"
    title = f"usage in {episodes}: mean {kind}\nand (hatched) share of steps"
    used.set_title(title, fontsize=7)

    for i, time in enumerate(times):
        if frames:
            picture = figure.add_subplot(grid[2, i])
            picture.imshow(frames[i])
            picture.set_axis_off()
        below = figure.add_subplot(grid[-1, i])
        plot_moment(below, probabilities[time - part.first])
        below.set_xlabel(f"step {time}")
        below.tick_params(labelleft=i == 0)
    return save(figure, file)


def plot_router(ax, probabilities: np.ndarray, times: list[int], first: int) -> None:
    """Probabilities (T, K) from a first step on, on top of each other, and lines at some times"""
    length, k = probabilities.shape
    edges = first + np.arange(length + 1)
    bottom = np.zeros(length + 1)
    for i, colour in enumerate(colours(k)):
        # As steps, each as wide as it lasts
        heights = np.append(probabilities[:, i], probabilities[-1, i])
        top = bottom + heights
        ax.fill_between(edges, bottom, top, step="post", color=colour, linewidth=0, label=str(i))
        bottom = top
    for time in times:
        ax.axvline(time + 0.5, color="white", linewidth=1.6)
        ax.axvline(time + 0.5, color="black", linewidth=0.6)
    ax.set(xlim=(first, first + length), ylim=(0, 1))
    ax.tick_params(labelbottom=False)


def plot_strip(ax, chosen: np.ndarray, first: int) -> None:
    """The colour of who acts, (T,), from a first step on"""
    rgb = np.array([rgb_of(colour) for colour in COLOURS])
    row = rgb[chosen % len(rgb)]
    extent = (first, first + len(chosen), 0, 1)
    ax.imshow(row[None], aspect="auto", extent=extent, interpolation="nearest")
    ax.set_yticks([])


def rgb_of(colour: str) -> list[float]:
    """Red, green and blue of #rrggbb, from 0 to 1"""
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def plot_moment(ax, probabilities: np.ndarray) -> None:
    """Bars of probabilities (K,)"""
    k = len(probabilities)
    ax.bar(range(k), probabilities, color=colours(k))
    ax.set(ylim=(0, 1), xticks=ticks(k))
