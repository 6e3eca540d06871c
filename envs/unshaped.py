"""Tasks whose rewards say little about the way: classic control without shaping, and a bandit of two modes.

    gym.make("pmoe.envs:UnshapedAcrobot-v0")
    gym.make("pmoe.envs:UnshapedMountainCar-v0")
    gym.make("pmoe.envs:CosinePendulum-v0")
    gym.make("pmoe.envs:SparsePendulum-v0", tolerance=1.0)
    gym.make("pmoe.envs:Bimodal-v0", left=1.5)

They are the tasks of pranayajajoo/policy-parameterization (2024), public code of the group that wrote
"Revisiting Mixture Policies in Entropy-Regularized Actor-Critic" (arXiv 2605.09157); Acrobot's physics and
limits as in its DenseAcrobot.py. The same as there unless marked: C, chosen here. The motion is Gymnasium's,
whose classes these are. Time limits are set where the tasks are registered.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import AcrobotEnv, Continuous_MountainCarEnv, PendulumEnv

from .multigoal import Bumps, check_number


class UnshapedAcrobot(AcrobotEnv):
    """Acrobot-v1 with a torque between its three.

    Action     (1,) in [-1, 1], the torque; clipped to it
    Reward     -1 a step, 0 for the one that ends the episode
    State      (4,): both angles in [-pi, pi], and their velocities
    Start      hanging at rest
    Time limit 1,000 steps
    """

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        high = np.array([np.pi, np.pi, self.MAX_VEL_1, self.MAX_VEL_2], np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        return super().reset(seed=seed, options={"low": 0.0, "high": 0.0})

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        # Gymnasium's step looks its torque up.
        torque = float(np.clip(action[0], -1, 1))
        self.AVAIL_TORQUE = [torque]
        return super().step(0)

    def _get_ob(self) -> np.ndarray:
        return np.array(self.state, np.float32)


class UnshapedMountainCar(Continuous_MountainCarEnv):
    """MountainCarContinuous-v0, where a step costs as much as any other.

    Reward     -1 a step, the last one too
    Time limit 1,000 steps

    There the goal is at 0.45 and a start in [-0.6, -0.4], as here: gym's values at that time.
    """

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, -1.0, terminated, truncated, info


class CosinePendulum(PendulumEnv):
    """Pendulum-v1, rewarded for its height.

    Reward     cos(theta) after the step, from -1 where it hangs to 1 where it stands
    State      (2,): theta in [-pi, pi] and its velocity
    Start      hanging at rest
    Time limit 200 steps

    The angle moves by the velocity after that is limited to [-8, 8], as in Pendulum-v1 (C; there by the one
    before).
    """

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        high = np.array([np.pi, self.max_speed], np.float32)
        self.observation_space = gym.spaces.Box(-high, high)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state = np.array([-np.pi, 0.0])
        return self._get_obs(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, math.cos(self.state[0]), terminated, truncated, info

    def _get_obs(self) -> np.ndarray:
        theta, velocity = self.state
        return np.array([normalized(theta), velocity], np.float32)


class SparsePendulum(PendulumEnv):
    """Pendulum-v1, rewarded where it stands, and nowhere else.

    Reward     1 where |theta| is less than `tolerance` degrees, default 1, before the step; else 0
    State      (3,): Pendulum-v1's, cos(theta), sin(theta) and the velocity
    Start      Pendulum-v1's: an angle in [-pi, pi], a velocity in [-1, 1]
    Time limit 200 steps (C; no file there trains on it)

    The angle moves as in Pendulum-v1 (C; see CosinePendulum).
    """

    def __init__(self, tolerance: float = 1.0, render_mode: str | None = None):
        check_number("tolerance", tolerance)
        if tolerance > 180:
            raise ValueError(f"tolerance is in degrees, 180 at most, not {tolerance!r}")
        super().__init__(render_mode)
        self.tolerance = math.radians(tolerance)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        theta = normalized(self.state[0])
        reward = float(abs(theta) < self.tolerance)
        obs, _, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, info


class Bimodal(Bumps):
    """Two narrow bumps, far from each other: a bandit.

    Action     (1,) in [-2, 2]; clipped to it (C; there it is not, as their policies are squashed to it)
    Reward     left exp(-(a + 1)^2 / (2 width^2)) + 1.5 exp(-(a - 1)^2 / (2 width^2)), width 0.05; `left`,
               default 1.5, is 0.75 in their asymmetric bandit. Without noise (C; the one that theirs adds
               unless it is told not to would end their program)
    State      (1,), always 1 (C; there the action is added after the step, which nothing reads)
    Episode    one step

    The rest is that of Bumps: `mode` 0 is the bump at -1, and 1 that at 1.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012
    bound = 2.0

    def __init__(self, left: float = 1.5, render_mode: str | None = None):
        check_number("left", left)
        super().__init__(bumps=2, width=0.05, dimensions=1, render_mode=render_mode)
        self.centres = np.array([[-1.0], [1.0]])
        self.heights = np.array([left, 1.5])


def normalized(angle: float) -> float:
    """The same angle in [-pi, pi)"""
    return (angle + np.pi) % (2 * np.pi) - np.pi
