"""Tasks with a known number of optima: `Bumps-v0`, one step, and `MultiGoal-v0`, a point that may go to
any of several goals.

    gym.make("pmoe.envs:Bumps-v0", bumps=4, height=5, width=0.2, dimensions=2, unequal=0)
    gym.make("pmoe.envs:MultiGoal-v0", goals=4, action_cost=30, distance_cost=1, bonus=10, scale=0.1)

`info["mode"]` says which optimum an episode has reached, from 0 on; -1: none. `modes` is how many there are.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np

from .target_reaching import check_whole

RADIUS = 0.7  # of the circle on which the bumps lie
APART = 3.0  # widths from a bump to the next, at least: nearer ones run into each other
MOST = 1000  # bumps, dimensions

HALF = 7.0  # the goals' plane is [-HALF, HALF]^2
DISTANCE = 5.0  # of the goals from the middle
REACH = 1.0  # of a goal
MOST_GOALS = 15  # that do not touch
START_SPREAD = 0.1  # standard deviation of the start's coordinates

PIXELS = 512  # of a frame's side
COLOURS = {"goal": "#009e73", "agent": "#0072b2"}


class Bumps(gym.Env):
    """An action, and its reward: a bandit whose best actions are the tops of the bumps.

    Bumps      `bumps`, default 4, on a circle of radius 0.7 in the first two dimensions, the first in the
               direction of the first axis; with one dimension from -0.7 to 0.7; one alone is in the middle.
               They are at least three widths apart
    Action     (A,) in [-1, 1]^A, A = `dimensions`, default 2; clipped to it
    Reward     sum over the bumps m of h_m exp(-|a - c_m|^2 / (2 width^2)); `width`, default 0.2; h_m falls
               evenly from `height`, default 5, at the first bump to (1 - unequal) height at the last, and
               `unequal` is from 0, the default, to less than 1
    State      (1,), always 1
    Episode    one step

    The mode is that of the bump that the action is on: not farther from its top than where it is half as
    high, 1.18 widths. `centres` (M, A), `heights` (M,) and `action`, the last, may be read.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    bound = 1.0  # of an action

    def __init__(
        self,
        bumps: int = 4,
        height: float = 5.0,
        width: float = 0.2,
        dimensions: int = 2,
        unequal: float = 0.0,
        render_mode: str | None = None,
    ):
        check_count("bumps", bumps, MOST)
        check_count("dimensions", dimensions, MOST)
        check_number("height", height)
        check_number("width", width)
        if not is_number(unequal) or not 0 <= unequal < 1:
            raise ValueError(f"unequal must be a number from 0 to less than 1, not {unequal!r}")
        check_render_mode(self, render_mode)

        self.modes = bumps
        self.width = float(width)
        self.centres = places(bumps, dimensions)
        self.heights = height * np.linspace(1, 1 - unequal, bumps)
        if bumps > 1:
            gap = np.linalg.norm(self.centres[1] - self.centres[0])
            if gap < APART * width:
                widest = math.floor(100 * gap / APART) / 100
                raise ValueError(f"{bumps} bumps of width {width} run into each other; at most {widest}")
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-self.bound, self.bound, (dimensions,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.action: np.ndarray | None = None
        return np.ones(1, np.float32), {"mode": -1}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.action = np.clip(np.asarray(action, np.float64), -self.bound, self.bound)
        reward = float(self.reward_of(self.action))
        return np.ones(1, np.float32), reward, True, False, {"mode": self.mode_of(self.action)}

    def reward_of(self, action: np.ndarray) -> np.ndarray:
        """(..., A) -> (...)"""
        offset = action[..., None, :] - self.centres
        squared = (offset**2).sum(-1)
        return (self.heights * np.exp(-squared / (2 * self.width**2))).sum(-1)

    def mode_of(self, action: np.ndarray) -> int:
        """The bump that an action (A,) is on, -1 if on none"""
        distance = np.linalg.norm(action - self.centres, axis=-1)
        nearest = int(distance.argmin())
        half = self.width * math.sqrt(2 * math.log(2))
        return nearest if distance[nearest] <= half else -1

    def plot_layout(self, axes) -> None:
        """Rewards of the first two dimensions' actions as shades of grey, and the tops, on Matplotlib's axes;
        of one dimension, the reward as a curve"""
        ticks = np.linspace(-1, 1, 201)
        dimensions = self.centres.shape[1]
        if dimensions == 1:
            actions = np.linspace(-self.bound, self.bound, 801)
            axes.plot(actions, self.reward_of(actions[:, None]), color="#8c8c8c")
            axes.set(xlim=(-self.bound, self.bound))
            return
        actions = np.zeros((201, 201, dimensions))
        actions[..., 0], actions[..., 1] = np.meshgrid(ticks, ticks)
        look: dict[str, Any] = {"extent": (-1, 1, -1, 1), "origin": "lower", "cmap": "Greys"}
        # A bump is grey and not black, so that what is drawn on it can be seen.
        axes.imshow(self.reward_of(actions), **look, vmin=0, vmax=2 * self.heights.max())
        axes.plot(*self.centres[:, :2].T, "+", color="black", ms=5, mew=0.8)
        axes.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")

    def render(self) -> np.ndarray | None:
        """The frame (512, 512, 3) of uint8: the rewards, and the action as a dot"""
        return frame(self, self.plot)

    def plot(self, axes) -> None:
        self.plot_layout(axes)
        if self.action is not None:
            x = self.action[0]
            y = self.action[1] if len(self.action) > 1 else self.reward_of(self.action)
            axes.plot(x, y, "o", color=COLOURS["agent"], ms=9, mew=0)


class MultiGoal(gym.Env):
    """A point in a plane, moved by its action, and goals around it, all as good: after the environment of
    Haarnoja et al., "Reinforcement Learning with Deep Energy-Based Policies" (arXiv 1702.08165), as it stands
    in their softlearning (multi_goal.py). The same as there unless marked: C, chosen here.

    Plane      [-7, 7]^2; the point is kept in it
    Goals      `goals`, default 4 (C: any number), at distance 5 from the middle, the first in the direction
               of x; four lie on the axes
    Start      normal, mean 0 and standard deviation 0.1, from the environment's own generator (C; there from
               numpy's global one)
    Action     (2,) in [-1, 1]^2, the way of a step; clipped to it
    State      (2,), the position
    Reward     scale * (-action_cost |a|^2 - distance_cost d^2), d the distance from the nearest goal after
               the step, action_cost 30 and distance_cost 1; at a goal + scale * bonus, 10. `scale` is 0.1:
               the factor that their training has, and not their environment (C)
    Goal       a distance below 1 at the end of a step; it ends the episode
    Time limit 30 steps, set where it is registered, as in their example

    The mode is the goal at which the episode ended, -1 before (C). `centres` (M, 2) and `path`, the positions
    since the reset, may be read.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        goals: int = 4,
        action_cost: float = 30.0,
        distance_cost: float = 1.0,
        bonus: float = 10.0,
        scale: float = 0.1,
        render_mode: str | None = None,
    ):
        check_count("goals", goals, MOST_GOALS)
        costs = {"action_cost": action_cost, "distance_cost": distance_cost, "bonus": bonus}
        for name, value in costs.items():
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, not {value!r}")
        check_number("scale", scale)
        check_render_mode(self, render_mode)

        self.modes = goals
        self.centres = DISTANCE * circle(goals)
        self.action_cost = float(action_cost)
        self.distance_cost = float(distance_cost)
        self.bonus = float(bonus)
        self.scale = float(scale)
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-HALF, HALF, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = self.np_random.normal(0, START_SPREAD, 2)
        self.path = [self.position]
        return self.observe(), self.info(-1)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        action = np.clip(np.asarray(action, np.float64), -1, 1)
        self.position = np.clip(self.position + action, -HALF, HALF)
        self.path.append(self.position)

        distances = np.linalg.norm(self.position - self.centres, axis=-1)
        nearest = int(distances.argmin())
        terminated = bool(distances[nearest] < REACH)
        cost = self.action_cost * (action @ action) + self.distance_cost * distances[nearest] ** 2
        reward = self.scale * (self.bonus * terminated - cost)
        mode = nearest if terminated else -1
        return self.observe(), float(reward), terminated, False, self.info(mode)

    def observe(self) -> np.ndarray:
        return self.position.astype(np.float32)

    def info(self, mode: int) -> dict:
        return {"position": self.position.copy(), "mode": mode}

    def plot_layout(self, axes) -> None:
        """Goals, and lines of equal distance from the nearest of them, on Matplotlib's axes"""
        from matplotlib.patches import Circle

        ticks = np.linspace(-HALF, HALF, 141)
        points = np.stack(np.meshgrid(ticks, ticks), -1)
        offset = points[..., None, :] - self.centres
        distance = np.linalg.norm(offset, axis=-1).min(-1)
        axes.contour(ticks, ticks, distance, np.arange(1, 10), colors="#d0d0d0", linewidths=0.5)
        for centre in self.centres:
            goal = Circle(tuple(centre), REACH, color=COLOURS["goal"], alpha=0.35, lw=0)
            axes.add_patch(goal)
        axes.set(xlim=(-HALF, HALF), ylim=(-HALF, HALF), aspect="equal")

    def render(self) -> np.ndarray | None:
        """The frame (512, 512, 3) of uint8: the goals, and the way to where the point is"""
        return frame(self, self.plot)

    def plot(self, axes) -> None:
        self.plot_layout(axes)
        axes.plot(*np.transpose(self.path), color=COLOURS["agent"], lw=1.5, alpha=0.6)
        axes.plot(*self.position, "o", color=COLOURS["agent"], ms=9, mew=0)


def places(number: int, dimensions: int) -> np.ndarray:
    """Evenly on a circle in the first two dimensions, or on a line; one alone in the middle: (M, A)"""
    centres = np.zeros((number, dimensions))
    if number == 1:
        return centres
    if dimensions == 1:
        centres[:, 0] = np.linspace(-RADIUS, RADIUS, number)
        return centres
    centres[:, :2] = RADIUS * circle(number)
    return centres


def circle(number: int) -> np.ndarray:
    """Points evenly on the unit circle, the first in the direction of x: (M, 2)"""
    angle = 2 * np.pi * np.arange(number) / number
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def frame(env: gym.Env, plot: Callable) -> np.ndarray | None:
    """What a function draws on Matplotlib's axes, as a picture"""
    if env.render_mode is None:
        gym.logger.warn('render() draws nothing without gym.make(..., render_mode="rgb_array")')
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((PIXELS / 100, PIXELS / 100), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    plot(axes)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_count(name: str, value: Any, most: int) -> None:
    check_whole(name, value)
    if not 1 <= value <= most:
        raise ValueError(f"{name} must be from 1 to {most}, not {value}")


def check_number(name: str, value: Any) -> None:
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")


def check_render_mode(env: gym.Env, mode: Any) -> None:
    if mode not in (None, *env.metadata["render_modes"]):
        raise ValueError(f"render_mode must be rgb_array or None, not {mode!r}")
