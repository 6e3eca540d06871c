"""Which primitive acts when: the router along an episode, five of its moments, and how often each primitive
is used.

Figures 8 and 9 of arXiv 2104.09122. Of gating and MCP, where all primitives act at once, the weights are
shown.
"""

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
from .runs import Run
from .style import literal, pyplot, save
from .tables import write_csv

MOMENTS = 5


def report(runs: list[Run], out: Path, episodes: int = 10) -> tuple[list[Path], list[str]]:
    """Writes OUT/routing-ENV-METHOD.png and .pdf for each method, and OUT/routing.csv of their episodes;
    returns the files, and notes. PlotError: no policy has several primitives."""
    runs, notes = pick(runs)
    filmed = set()
    for env in dict.fromkeys(run.env for run in runs):
        reason = choose_renderer(env)
        if reason:
            notes.append(f"{env}: drawn without frames, as nothing renders here ({reason})")
        else:
            filmed.add(env)
    analysis = partial(watch, episodes=episodes, filmed=filmed)
    files = []
    records = []
    for run, (steps, frames) in analyse(tracked(runs, "routing"), analysis, notes):
        records += records_of(run, steps)
        files += plot(run, steps, frames, stem(out, "routing", run.env, run.method))
    file = out / "routing.csv"
    write_csv(file, records)
    return [*files, file], notes


def watch(run: Run, episodes: int, filmed: set[str]) -> tuple[Rollout, list[np.ndarray]]:
    """What a policy does, and pictures of the first episode's moments where its environment is filmed"""
    steps = rollout(run, episodes)
    if run.env not in filmed:
        return steps, []
    # Once more, as its length is known only now.
    times = moments(len(first_episode(steps)))
    return steps, rollout(run, episodes, frames_at=times).frames


def first_episode(steps: Rollout) -> np.ndarray:
    """Its steps, (T,)"""
    return np.flatnonzero(steps.episode == 0)


def records_of(run: Run, steps: Rollout) -> list[dict]:
    """A record for each step of the first episode and each primitive"""
    records = []
    for step in first_episode(steps):
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
    """Steps in the middle of as many equal parts of an episode, fewer if it has not so many"""
    middles = (np.arange(MOMENTS) + 0.5) * length / MOMENTS
    return np.unique(middles.astype(int))


def plot(run: Run, steps: Rollout, frames: list[np.ndarray], file: Path) -> list[Path]:
    """The router along the first episode, below it frames, if there are any, and its bars at five moments"""
    first = first_episode(steps)
    probabilities = np.exp(steps.log_w[first])  # (T, K)
    times = moments(len(first))
    figure = pyplot().figure(figsize=(8, 4.6 if frames else 3.4), layout="constrained")
    heights = [1.3, 0.14, 0.6]
    if frames:
        heights.insert(2, 1.1)
    grid = figure.add_gridspec(len(heights), MOMENTS + 2, height_ratios=heights)

    along = figure.add_subplot(grid[0, :MOMENTS])
    plot_router(along, probabilities, times)
    along.set_ylabel("weight" if composes(run) else "probability")
    title = f"{run.env}, {run.method}, seed {run.seed}: an episode of return {steps.returns[0]:.0f}"
    along.set_title(literal(title), fontsize=8)

    strip = figure.add_subplot(grid[1, :MOMENTS], sharex=along)
    plot_strip(strip, steps.chosen[first])
    strip.set_xlabel("step; the strip: " + ("the largest weight" if composes(run) else "who acts"))

    used = figure.add_subplot(grid[:2, MOMENTS:])
    plot_usage(used, *usage(steps))
    kind = "weight" if composes(run) else "probability"
    title = f"usage in {len(steps.returns)} episodes: mean {kind}\nand (hatched) share of steps"
    used.set_title(title, fontsize=7)

    for i, time in enumerate(times):
        if frames:
            picture = figure.add_subplot(grid[2, i])
            picture.imshow(frames[i])
            picture.set_axis_off()
        below = figure.add_subplot(grid[-1, i])
        plot_moment(below, probabilities[time])
        below.set_xlabel(f"step {time}")
        below.tick_params(labelleft=i == 0)
    return save(figure, file)


def plot_router(ax, probabilities: np.ndarray, times: np.ndarray) -> None:
    """Probabilities (T, K) on top of each other, and lines at some times"""
    length, k = probabilities.shape
    edges = np.arange(length + 1)
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
    ax.set(xlim=(0, length), ylim=(0, 1))
    ax.tick_params(labelbottom=False)


def plot_strip(ax, chosen: np.ndarray) -> None:
    """The colour of who acts, (T,)"""
    rgb = np.array([rgb_of(colour) for colour in COLOURS])
    row = rgb[chosen % len(rgb)]
    extent = (0, len(chosen), 0, 1)
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
