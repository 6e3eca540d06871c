"""A picture of an environment after a reset; of target-reaching a drawing as in figure 7 of arXiv
2104.09122."""

import warnings
from pathlib import Path
from typing import cast

import gymnasium as gym
import numpy as np

from ..envs import load_module, make, without_render_mode
from ..envs.target_reaching import COLOURS, HALF, START, TARGET_BOX, TargetReaching
from .policies import choose_renderer, follow, stem
from .runs import PlotError
from .style import literal, pyplot, save
from .trajectories import is_reaching, plot_region


def report(env_id: str, out: Path, seed: int = 0) -> list[Path]:
    """Writes OUT/environment-ENV.png and .pdf. PlotError: there is no such environment, or it does not
    render."""
    check(env_id)
    reason = "" if is_reaching(env_id) else choose_renderer(env_id)
    if reason:
        raise PlotError(f"--environment {env_id} does not render ({reason})")
    shown = draw if is_reaching(env_id) else photograph
    try:
        with warnings.catch_warnings():
            # Gymnasium has some on old environments, and on what they render.
            warnings.simplefilter("ignore")
            figure = shown(env_id, seed)
    except Exception as error:  # environments raise anything
        raise PlotError(f"--environment {env_id}: {reason_of(error)}") from error
    title = env_id if "fixed_layout=" in env_id else f"{env_id}, seed {seed}"
    figure.suptitle(literal(title), fontsize=8)
    return save(figure, stem(out, "environment", env_id))


def check(env_id: str) -> None:
    """PlotError: Gymnasium knows no such environment."""
    name, _, _ = env_id.partition(",")
    _, _, name = name.rpartition(":")
    try:
        load_module(env_id)
        gym.spec(name)
    except (gym.error.Error, ValueError) as error:
        raise PlotError(f"--environment {env_id}: {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def photograph(env_id: str, seed: int):
    """A figure of what the environment renders after a reset. ValueError: that is no picture."""
    env = make(without_render_mode(env_id), render_mode="rgb_array")
    follow(env)
    env.reset(seed=seed)
    frame = np.asarray(env.render())
    env.close()
    if frame.ndim != 3:
        raise ValueError("what it renders is no picture")
    figure, ax = pyplot().subplots(figsize=(4, 4), layout="constrained")
    ax.imshow(frame)
    ax.set_axis_off()
    return figure


def draw(env_id: str, seed: int):
    """A figure of the layout after a reset, in the plane's units, with a name for each thing in it"""
    world = cast(TargetReaching, make(without_render_mode(env_id)).unwrapped)
    world.reset(seed=seed)
    plt = pyplot()
    figure, ax = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
    world.plot_layout(ax)
    plot_region(ax)
    ax.plot(*START, "o", color=COLOURS["agent"], markersize=6)
    marks = (-HALF, 0, TARGET_BOX, HALF)
    ax.set(xticks=marks, yticks=marks)
    ax.spines[:].set_visible(False)

    sizes = {"agent": 6, "target": 10}
    if world.obstacles:
        sizes["obstacle"] = 10
    handles = []
    for name, size in sizes.items():
        look = {"color": COLOURS[name], "markersize": size, "label": name}
        handles.append(plt.Line2D([], [], marker="o", linestyle="none", **look))
    region, _ = ax.get_legend_handles_labels()
    ax.legend(handles=handles + region, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
