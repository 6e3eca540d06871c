"""Which primitive acts when: the router along an episode, five of its moments, and how often each primitive is used.

Figures 8 and 9 of arXiv 2104.09122. Of gating and MCP, where all primitives act at once, the weights are drawn.
"""

from pathlib import Path

import numpy as np

from .curves import pyplot, save
from .policies import COLOURS, choose_renderer, colours, composes, pick, rollout, stem, ticks, usage_bars
from .runs import Run
from .tables import tracked, write_csv

MOMENTS = 5


def report(runs: list[Run], out: Path, episodes: int = 10) -> tuple[list[Path], list[str]]:
    """Writes OUT/routing-ENV-METHOD.png and .pdf for each method, and OUT/routing.csv of their episodes; returns the
    files, and notes. PlotError: no policy has several primitives."""
    (runs, notes), files, renders, records = pick(runs), [], {}, []
    for run in tracked(runs, "routing"):
        if run.env not in renders:
            renders[run.env] = choose_renderer(run.env)
            if renders[run.env]:
                notes.append(f"{run.env}: drawn without frames, as nothing renders here ({renders[run.env]})")
        seen = rollout(run, episodes)
        about = {"environment": run.env, "method": run.method, "seed": run.seed}
        for step in np.flatnonzero(seen["episode"] == 0):
            for i, probability in enumerate(np.exp(seen["log_w"][step])):
                acts = int(seen["chosen"][step] == i)
                records.append(about | {"step": step, "primitive": i, "probability": probability, "acts": acts})
        files += draw(run, seen, stem(out, "routing", run.env, run.method), episodes, not renders[run.env])
    write_csv(out / "routing.csv", records)
    return [*files, out / "routing.csv"], notes


def usage(seen: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean probability of each primitive (K,), and its share of the steps (K,), over all episodes"""
    k = seen["log_w"].shape[-1]
    return np.exp(seen["log_w"]).mean(0), np.bincount(seen["chosen"], minlength=k) / len(seen["chosen"])


def moments(length: int) -> np.ndarray:
    """Steps in the middle of as many equal parts of an episode, fewer if it has not so many"""
    return np.unique(((np.arange(MOMENTS) + 0.5) * length / MOMENTS).astype(int))


def draw(run: Run, seen: dict[str, np.ndarray], file: Path, episodes: int, renders: bool) -> list[Path]:
    first = seen["episode"] == 0
    probabilities, chosen = np.exp(seen["log_w"][first]), seen["chosen"][first]  # (T, K), (T,)
    at = moments(len(chosen))
    frames = rollout(run, episodes, frames_at=at)["frames"] if renders else []  # once more: now its length is known
    k, plt, composing = probabilities.shape[1], pyplot(), composes(run)
    figure = plt.figure(figsize=(8, 4.6 if frames else 3.4), layout="constrained")
    heights = [1.3, 0.14, *([1.1] if frames else []), 0.6]
    grid = figure.add_gridspec(len(heights), MOMENTS + 2, height_ratios=heights)

    along = figure.add_subplot(grid[0, :MOMENTS])
    edges = np.arange(len(chosen) + 1)
    bottom = np.zeros(len(edges))
    for i in range(k):  # as steps, each as wide as it lasts
        top = bottom + np.append(probabilities[:, i], probabilities[-1, i])
        along.fill_between(edges, bottom, top, step="post", color=colours(k)[i], linewidth=0, label=str(i))
        bottom = top
    along.set(xlim=(0, len(chosen)), ylim=(0, 1), ylabel="weight" if composing else "probability")
    along.set_title(
        f"{run.env}, {run.method}, seed {run.seed}: an episode of return {seen['returns'][0]:.0f}", fontsize=8
    )
    for step in at:
        along.axvline(step + 0.5, color="white", linewidth=1.6)
        along.axvline(step + 0.5, color="black", linewidth=0.6)
    along.tick_params(labelbottom=False)

    strip = figure.add_subplot(grid[1, :MOMENTS], sharex=along)
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    strip.imshow(rgb[chosen % len(rgb)][None], aspect="auto", extent=(0, len(chosen), 0, 1), interpolation="nearest")
    strip.set(yticks=[], xlabel="step; the strip: " + ("the largest weight" if composing else "who acts"))

    used = figure.add_subplot(grid[:2, MOMENTS:])
    usage_bars(used, *usage(seen))
    used.set_title(
        f"usage in {episodes} episodes: mean {'weight' if composing else 'probability'}\nand (hatched) share of steps",
        fontsize=7,
    )

    for i, step in enumerate(at):
        if frames:
            picture = figure.add_subplot(grid[2, i])
            picture.imshow(frames[i])
            picture.set_axis_off()
        below = figure.add_subplot(grid[-1, i])
        below.bar(range(k), probabilities[step], color=colours(k))
        below.set(ylim=(0, 1), xticks=ticks(k), xlabel=f"step {step}")
        below.tick_params(labelleft=i == 0)
    return save(figure, file)
