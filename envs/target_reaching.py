"""`TargetReaching-v0`: a point, steered by its acceleration, is to reach a target past obstacles.

The environment of PMOE's appendix C:

    gym.make("pmoe.envs:TargetReaching-v0", obstacles=3, fixed_layout=None, speed_reward=0.1)
"""

import math
from numbers import Integral, Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

HALF = 5.0  # the plane is [-HALF, HALF]^2
START = np.array([-4.5, -4.5])
TARGET_BOX = 3.0  # the target is in [0, TARGET_BOX]^2
TARGET_RADIUS = 0.5
SPREAD = 3.0  # standard deviation of the obstacles' coordinates
RADII = (0.3, 0.6)  # of obstacles
CLEARANCE = 0.5  # between an obstacle's rim and the start or the target's centre
ACCELERATION = 2.0  # limit of each component
VELOCITY = 2.0  # limit of each component
TIME_STEP = 0.1
REACHED = 100.0  # reward for the target
TOUCHED = -10.0  # reward for an obstacle or an edge

PIXELS = 512  # of a frame's side
MARGIN = 0.2  # of the plane's surroundings that a frame shows
COLOURS = {
    "target": "#009e73",
    "obstacle": "#8c8c8c",
    "agent": "#0072b2",
    "velocity": "#d55e00",
    "edge": "#404040",
}


def first_touch(start: np.ndarray, move: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The fraction of `move` (2,) at which a point that begins at `start` (2,), outside of all the discs,
    first touches each of them, inf if never: centres (N, 2), radii (N,) -> (N,)"""
    # The smaller root t of |start + t move - centre|^2 = radius^2, in the form that does not cancel
    offset = centres - start
    gap = (offset**2).sum(-1) - radii**2
    towards = offset @ move
    discriminant = towards**2 - move @ move * gap
    touches = (towards > 0) & (discriminant >= 0)
    root = np.sqrt(discriminant.clip(0))
    never = np.full(len(radii), np.inf)
    return np.divide(gap, towards + root, out=never, where=touches)


class TargetReaching(gym.Env):
    """Lengths are in the plane's units, times in seconds; the agent is a point. Each number has its source:
    P printed in appendix C, R not printed, from the released environment, C in neither, chosen here.

    Plane      [-5, 5]^2 (P)
    Start      (-4.5, -4.5) (P), at rest (R)
    Target     centre uniform in [0, 3]^2 (P), radius 0.5 (R)
    Obstacles  `obstacles`, default 3 (R): discs, coordinates of the centre normal with mean 0 and standard
               deviation 3 (P), radius uniform in [0.3, 0.6] (R: one of 0.30, 0.32, ..., 0.58). Each is drawn
               again, radius too, until it is wholly inside the plane, overlaps no target and stays 0.5 away
               from the start (C; R moves centres into the plane, and looks at neither). Obstacles may overlap
               each other (R)
    Action     acceleration (2,) in [-2, 2]^2 (P); clipped to it (R)
    Motion     time step 0.1 (R): velocity = clip(velocity + 0.1 acceleration), each component to [-2, 2] (P),
               then position += 0.1 velocity (C; R adds half the velocity's change again)
    State      (6 + 2 M,): target - agent, obstacle_i - agent for each i, acceleration, velocity (P), not
               scaled (C). The acceleration is the last action, 0 after a reset (R). Radii are not in it (P; R
               adds them)
    Reward     100 on touching the target, -10 on touching an edge or an obstacle (P), both end the episode;
               otherwise `speed_reward` times the velocity's Euclidean norm (P), which is 1.0 (P) or the
               default, 0.1 (R)
    Touching   a distance of the radius or less (C; R: less), anywhere on the straight way of a step (C; R: at
               its end): the longest step, 0.28, could cut across the rim of a disc unnoticed. The agent stops
               where it first touches something, and what that is decides (C)
    Time limit 200 steps, set where it is registered (C): 20 seconds, in which an axis is crossed four times

    fixed_layout: the seed of a target and obstacles that stay at every reset, whatever the seed of the reset.
    `info` holds position (2,), success and collision. These, `target` (2,), `centres` (M, 2), `radii` (M,)
    and `path`, the positions since the reset, may be read; the reset's `options` are not used.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it so
        "render_modes": ["human", "rgb_array"],
        "render_fps": round(1 / TIME_STEP),
    }

    def __init__(
        self,
        obstacles: int = 3,
        fixed_layout: int | None = None,
        speed_reward: float = 0.1,
        render_mode: str | None = None,
    ):
        check_whole("obstacles", obstacles)
        if fixed_layout is not None:
            check_whole("fixed_layout", fixed_layout)
        is_number = isinstance(speed_reward, Real) and not isinstance(speed_reward, bool)
        if not is_number or not 0 <= speed_reward < math.inf:
            raise ValueError(f"speed_reward must be a number from 0 up, not {speed_reward!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be rgb_array, human or None, not {render_mode!r}")

        self.obstacles = obstacles
        self.fixed_layout = fixed_layout
        self.speed_reward = float(speed_reward)
        self.render_mode = render_mode
        self.window: Any = None
        self.clock: Any = None

        farthest = [2 * HALF] * (2 + 2 * obstacles)
        high = np.array([*farthest, ACCELERATION, ACCELERATION, VELOCITY, VELOCITY], np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Box(-ACCELERATION, ACCELERATION, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        generator = self.np_random
        if self.fixed_layout is not None:
            generator = np.random.default_rng(self.fixed_layout)
        self.draw_layout(generator)

        self.position = START.copy()
        self.velocity = np.zeros(2)
        self.acceleration = np.zeros(2)
        self.path = [self.position]
        self.success = False
        self.collision = False
        if self.render_mode == "human":
            self.render()
        return self.observe(), self.info()

    def draw_layout(self, generator: np.random.Generator) -> None:
        self.target = generator.uniform(0, TARGET_BOX, 2)
        self.centres = np.zeros((self.obstacles, 2))
        self.radii = np.zeros(self.obstacles)
        for i in range(self.obstacles):
            self.centres[i], self.radii[i] = self.draw_obstacle(generator)

    def draw_obstacle(self, generator: np.random.Generator) -> tuple[np.ndarray, float]:
        """Centre and radius of a disc inside the plane that leaves room around the start and the target"""
        while True:
            centre = generator.normal(0, SPREAD, 2)
            radius = generator.uniform(*RADII)
            inside = np.abs(centre).max() + radius <= HALF
            distances = np.linalg.norm(centre - [START, self.target], axis=-1)
            if inside and distances.min() > radius + CLEARANCE:
                return centre, radius

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        # Motion
        self.acceleration = np.clip(np.asarray(action, np.float64), -ACCELERATION, ACCELERATION)
        self.velocity = np.clip(self.velocity + TIME_STEP * self.acceleration, -VELOCITY, VELOCITY)
        move = TIME_STEP * self.velocity
        touches = self.touches(move)
        first = touches.min()
        position = self.position + move * min(first, 1)
        self.position = np.clip(position, -HALF, HALF)
        self.path.append(self.position)

        # What it met
        terminated = bool(first <= 1)
        self.success = terminated and bool(touches.argmin() == 0)
        self.collision = terminated and not self.success
        if self.success:
            reward = REACHED
        elif self.collision:
            reward = TOUCHED
        else:
            reward = self.speed_reward * float(np.linalg.norm(self.velocity))

        if self.render_mode == "human":
            self.render()
        return self.observe(), reward, terminated, False, self.info()

    def touches(self, move: np.ndarray) -> np.ndarray:
        """The fraction of `move` at which the agent touches the target, each obstacle and the edges in x and
        in y: (1 + M + 2,)"""
        centres = np.vstack([self.target, self.centres])
        radii = np.append(TARGET_RADIUS, self.radii)
        discs = first_touch(self.position, move, centres, radii)
        way_to_edge = HALF - np.sign(move) * self.position
        edges = way_to_edge / np.abs(move).clip(1e-300)
        return np.append(discs, edges)

    def observe(self) -> np.ndarray:
        """(6 + 2 M,)"""
        relative = np.vstack([self.target, self.centres]) - self.position
        return np.concatenate([relative.ravel(), self.acceleration, self.velocity], dtype=np.float32)

    def info(self) -> dict:
        return {"position": self.position.copy(), "success": self.success, "collision": self.collision}

    def plot_layout(self, axes, discs: bool = True) -> None:
        """Edges and, with `discs`, target and obstacles on Matplotlib's axes, in the plane's units"""
        from matplotlib.patches import Circle, Rectangle

        plane = Rectangle((-HALF, -HALF), 2 * HALF, 2 * HALF, fc="white", ec=COLOURS["edge"], lw=2)
        axes.add_patch(plane)
        if discs:
            target = Circle(tuple(self.target), TARGET_RADIUS, color=COLOURS["target"], lw=0)
            axes.add_patch(target)
            for centre, radius in zip(self.centres, self.radii):
                obstacle = Circle(tuple(centre), radius, color=COLOURS["obstacle"], lw=0)
                axes.add_patch(obstacle)
        limits = (-HALF - MARGIN, HALF + MARGIN)
        axes.set(xlim=limits, ylim=limits, aspect="equal")

    def render(self) -> np.ndarray | None:
        """The frame (512, 512, 3) of uint8, or the same in a window. The arrow shows where this velocity
        leads in half a second."""
        if self.render_mode is None:
            gym.logger.warn(
                'render() draws nothing without a render_mode: gym.make(..., render_mode="rgb_array")'
            )
            return None
        frame = self.frame()
        if self.render_mode == "rgb_array":
            return frame
        self.show(frame)
        return None

    def frame(self) -> np.ndarray:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure((PIXELS / 100, PIXELS / 100), dpi=100, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        self.plot_layout(axes)
        axes.plot(*np.transpose(self.path), color=COLOURS["agent"], lw=1.5, alpha=0.6)
        arrow = self.velocity / 2
        scale: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axes.quiver(*self.position, *arrow, color=COLOURS["velocity"], **scale)
        axes.plot(*self.position, "o", color=COLOURS["agent"], ms=7, mew=0)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]

    def show(self, frame: np.ndarray) -> None:
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled("render_mode human needs pygame: pip install pygame-ce") from error
        if self.window is None:
            pygame.display.init()
            self.window = pygame.display.set_mode((PIXELS, PIXELS))
            self.clock = pygame.time.Clock()
            pygame.display.set_caption("TargetReaching-v0")
        pygame.surfarray.blit_array(self.window, frame.swapaxes(0, 1))
        # Without this the system takes the window for hung
        pygame.event.pump()
        pygame.display.flip()
        self.clock.tick(self.metadata["render_fps"])

    def close(self) -> None:
        if self.window is not None:
            import pygame

            pygame.display.quit()
            self.window = None


def check_whole(name: str, value: Any) -> None:
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < 0:
        raise ValueError(f"{name} must be a whole number from 0 up, not {value!r}")
