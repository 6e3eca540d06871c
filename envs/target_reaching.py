"""`TargetReaching-v0`: a point, steered by its acceleration, is to reach a target past obstacles. PMOE, appendix C.

gym.make("pmoe.envs:TargetReaching-v0", obstacles=3, fixed_layout=None, speed_reward=0.1, render_mode="rgb_array")
"""

import math
from numbers import Integral, Real
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled

HALF = 5.0  # the plane is [-HALF, HALF]^2
START = np.array([-4.5, -4.5])
TARGET_BOX = 3.0  # the target is in [0, TARGET_BOX]^2
SPREAD = 3.0  # standard deviation of the obstacles' coordinates
ACCELERATION = VELOCITY = 2.0  # limits of each component
TIME_STEP = 0.1
CLEARANCE = TARGET_RADIUS = 0.5
RADII = 0.3, 0.6  # of obstacles
REACHED, TOUCHED = 100.0, -10.0  # rewards
PIXELS, MARGIN = 512, 0.2  # of a frame's side; of the plane's surroundings that it shows
COLOURS = {"target": "#009e73", "obstacle": "#8c8c8c", "agent": "#0072b2", "velocity": "#d55e00", "edge": "#404040"}


def first_touch(start: np.ndarray, move: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Fraction of `move` (2,) done when a point from `start` (2,), outside of all the discs, first touches each of
    them: centres (N, 2), radii (N,) -> (N,); above 1: later, inf: never"""
    offset = centres - start
    gap, towards = (offset**2).sum(-1) - radii**2, offset @ move
    root = towards**2 - move @ move * gap  # discriminant of |start + t move - centre|^2 = radius^2
    touches = (towards > 0) & (root >= 0)
    return np.divide(gap, towards + np.sqrt(root.clip(0)), out=np.full(len(radii), np.inf), where=touches)


class TargetReaching(gym.Env):
    """Lengths are in the plane's units, times in seconds; the agent is a point. Each number has its source:
    P printed in appendix C, R not printed, from the released environment, C in neither, chosen here.

    Plane      [-5, 5]^2 (P)
    Start      (-4.5, -4.5) (P), at rest (R)
    Target     centre uniform in [0, 3]^2 (P), radius 0.5 (R)
    Obstacles  `obstacles`, default 3 (R): discs, coordinates of the centre normal with mean 0 and standard deviation 3
               (P), radius uniform in [0.3, 0.6] (R: one of 0.30, 0.32, ..., 0.58). Each is drawn again, radius too,
               until it is wholly inside the plane, overlaps no target and stays 0.5 away from the start (C; R moves
               centres into the plane, and looks at neither). Obstacles may overlap each other (R)
    Action     acceleration (2,) in [-2, 2]^2 (P); clipped to it (R)
    Motion     time step 0.1 (R): velocity = clip(velocity + 0.1 acceleration), each component to [-2, 2] (P), then
               position += 0.1 velocity (C; R adds half the velocity's change again)
    State      (6 + 2 M,): target - agent, obstacle_i - agent for each i, acceleration, velocity (P), not scaled (C).
               The acceleration is the last action, 0 after a reset (R). Radii are not in it (P; R adds them)
    Reward     100 on touching the target, -10 on touching an edge or an obstacle (P), both end the episode; otherwise
               `speed_reward` times the velocity's Euclidean norm (P), which is 1.0 (P) or the default, 0.1 (R)
    Touching   a distance of the radius or less (C; R: less), anywhere on the straight way of a step (C; R: at its end):
               the longest step, 0.28, could cut across the rim of a disc unnoticed. The agent stops where it first
               touches something, and what that is decides (C)
    Time limit 200 steps, set where it is registered (C): 20 seconds, in which an axis is crossed four times

    fixed_layout: the seed of a target and obstacles that stay at every reset, whatever the seed of the reset.
    `info` holds position (2,), success and collision. These, `target` (2,), `centres` (M, 2), `radii` (M,) and `path`,
    the positions since the reset, are there to be read; the reset's `options` are not used.
    """

    metadata: ClassVar = {"render_modes": ["human", "rgb_array"], "render_fps": round(1 / TIME_STEP)}

    def __init__(
        self,
        obstacles: int = 3,
        fixed_layout: int | None = None,
        speed_reward: float = 0.1,
        render_mode: str | None = None,
    ):
        for name, value in {
            "obstacles": obstacles,
            "fixed_layout": 0 if fixed_layout is None else fixed_layout,
        }.items():
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
                raise ValueError(f"{name} must be a whole number from 0 up, not {value!r}")
        if isinstance(speed_reward, bool) or not isinstance(speed_reward, Real) or not 0 <= speed_reward < math.inf:
            raise ValueError(f"speed_reward must be a number from 0 up, not {speed_reward!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be rgb_array, human or None, not {render_mode!r}")
        self.obstacles, self.fixed_layout, self.speed_reward = obstacles, fixed_layout, float(speed_reward)
        self.render_mode, self.window, self.clock = render_mode, None, None
        high = np.float32([2 * HALF] * (2 + 2 * obstacles) + [ACCELERATION] * 2 + [VELOCITY] * 2)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Box(-ACCELERATION, ACCELERATION, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.draw_layout(self.np_random if self.fixed_layout is None else np.random.default_rng(self.fixed_layout))
        self.position, self.velocity, self.acceleration = START.copy(), np.zeros(2), np.zeros(2)
        self.path, self.success, self.collision = [self.position], False, False
        if self.render_mode == "human":
            self.render()
        return self.observe(), self.info()

    def draw_layout(self, generator: np.random.Generator) -> None:
        self.target = generator.uniform(0, TARGET_BOX, 2)
        self.centres, self.radii = np.zeros((self.obstacles, 2)), np.zeros(self.obstacles)
        for i in range(self.obstacles):
            inside = clear = False
            while not (inside and clear):
                centre, radius = generator.normal(0, SPREAD, 2), generator.uniform(*RADII)
                inside = np.abs(centre).max() + radius <= HALF
                clear = np.linalg.norm(centre - [START, self.target], axis=-1).min() > radius + CLEARANCE
            self.centres[i], self.radii[i] = centre, radius

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.acceleration = np.clip(np.float64(action), -ACCELERATION, ACCELERATION)
        self.velocity = np.clip(self.velocity + TIME_STEP * self.acceleration, -VELOCITY, VELOCITY)
        move = TIME_STEP * self.velocity
        centres, radii = np.vstack([self.target, self.centres]), np.append(TARGET_RADIUS, self.radii)
        edges = (HALF - np.sign(move) * self.position) / np.abs(move).clip(1e-300)
        touches = np.append(first_touch(self.position, move, centres, radii), edges)  # (1 + M + 2,), the target's first
        terminated = bool(touches.min() <= 1)
        self.success = terminated and bool(touches.argmin() == 0)
        self.collision = terminated and not self.success
        self.position = np.clip(self.position + move * min(touches.min(), 1), -HALF, HALF)
        self.path.append(self.position)
        reward = self.speed_reward * float(np.linalg.norm(self.velocity))
        if terminated:
            reward = REACHED if self.success else TOUCHED
        if self.render_mode == "human":
            self.render()
        return self.observe(), reward, terminated, False, self.info()

    def observe(self) -> np.ndarray:
        """(6 + 2 M,)"""
        relative = np.vstack([self.target, self.centres]) - self.position
        return np.concatenate([relative.ravel(), self.acceleration, self.velocity], dtype=np.float32)

    def info(self) -> dict:
        return {"position": self.position.copy(), "success": self.success, "collision": self.collision}

    def plot_layout(self, axes, discs: bool = True) -> None:
        """Edges and, with `discs`, target and obstacles on Matplotlib's axes, in the plane's units"""
        from matplotlib.patches import Circle, Rectangle

        axes.add_patch(Rectangle((-HALF, -HALF), 2 * HALF, 2 * HALF, fc="white", ec=COLOURS["edge"], lw=2))
        if discs:
            axes.add_patch(Circle(self.target, TARGET_RADIUS, color=COLOURS["target"], lw=0))
            for centre, radius in zip(self.centres, self.radii):
                axes.add_patch(Circle(centre, radius, color=COLOURS["obstacle"], lw=0))
        axes.set(xlim=(-HALF - MARGIN, HALF + MARGIN), ylim=(-HALF - MARGIN, HALF + MARGIN), aspect="equal")

    def render(self) -> np.ndarray | None:
        """The frame (512, 512, 3) of uint8, or the same in a window. The arrow is the way of half a second at this
        velocity."""
        if self.render_mode is None:
            gym.logger.warn('render() draws nothing without a render_mode: gym.make(..., render_mode="rgb_array")')
            return None
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure((PIXELS / 100, PIXELS / 100), dpi=100, facecolor="white")
        canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        self.plot_layout(axes)
        axes.plot(*np.transpose(self.path), color=COLOURS["agent"], lw=1.5, alpha=0.6)
        scale = {"angles": "xy", "scale_units": "xy", "scale": 1}
        axes.quiver(*self.position, *self.velocity / 2, color=COLOURS["velocity"], **scale)
        axes.plot(*self.position, "o", color=COLOURS["agent"], ms=7, mew=0)
        canvas.draw()
        frame = np.array(canvas.buffer_rgba())[..., :3]
        return frame if self.render_mode == "rgb_array" else self.show(frame)

    def show(self, frame: np.ndarray) -> None:
        try:
            import pygame
        except ImportError as error:
            raise DependencyNotInstalled("render_mode human needs pygame: pip install pygame-ce") from error
        if self.window is None:
            pygame.display.init()
            self.window, self.clock = pygame.display.set_mode((PIXELS, PIXELS)), pygame.time.Clock()
            pygame.display.set_caption("TargetReaching-v0")
        pygame.surfarray.blit_array(self.window, frame.swapaxes(0, 1))
        pygame.event.pump()  # or the system takes the window for hung
        pygame.display.flip()
        self.clock.tick(self.metadata["render_fps"])

    def close(self) -> None:
        if self.window is not None:
            import pygame

            pygame.display.quit()
            self.window = None
