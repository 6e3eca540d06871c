"""`MultiDirection-v0`: Ant-v5, rewarded for getting away from where it started, whatever the direction.

    gym.make("pmoe.envs:MultiDirection-v0", sectors=8)

It stands in a file of its own because Gymnasium's ant imports MuJoCo, which the other tasks do without.
"""

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.utils import EzPickle

from .multigoal import check_count

MOST = 360  # sectors
LEAST = 1.0  # distance in metres, below which it went nowhere


class MultiDirection(AntEnv):
    """The ant looks the same after a quarter of a turn: whatever it can do in one direction, it can do in
    three others as well. Ant-v5's, but for

    Reward     the speed at which the distance from the start grows, in any direction, in place of the speed
               along x
    State      (29,): with the position in the plane, without which nobody could say which way leads away, and
               without the 78 contact forces

    The mode is the sector of the way from the start to where it is, of `sectors`, default 8, the first in the
    middle of the direction of x; -1 within 1 m of the start. `path`, the positions (2,) since the reset, may
    be read.
    """

    def __init__(self, sectors: int = 8, render_mode: str | None = None):
        check_count("sectors", sectors, MOST)
        self.modes = sectors
        self.path: list[np.ndarray] = []
        super().__init__(
            exclude_current_positions_from_observation=False,
            include_cfrc_ext_in_observation=False,
            render_mode=render_mode,
        )
        # A copy is made of this class's arguments, not of the ant's.
        EzPickle.__init__(self, sectors, render_mode)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        obs, info = super().reset(seed=seed, options=options)
        self.path = [self.position()]
        return obs, info | self.about()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.float64, bool, bool, dict]:
        before = self.distance()
        obs, _, terminated, truncated, info = super().step(action)
        self.path.append(self.position())
        speed = (self.distance() - before) / self.dt
        reward = speed + info["reward_survive"] + info["reward_ctrl"] + info["reward_contact"]
        info["reward_forward"] = speed
        return obs, np.float64(reward), terminated, truncated, info | self.about()

    def position(self) -> np.ndarray:
        """Of the torso in the plane, (2,)"""
        return self.data.qpos[:2].copy()

    def distance(self) -> float:
        """From the start"""
        return float(np.linalg.norm(self.path[-1] - self.path[0]))

    def about(self) -> dict:
        """Position and mode"""
        return {"position": self.path[-1].copy(), "mode": self.mode()}

    def mode(self) -> int:
        x, y = self.path[-1] - self.path[0]
        if self.distance() < LEAST:
            return -1
        sector = np.arctan2(y, x) / (2 * np.pi / self.modes)
        return round(sector) % self.modes

    def plot_layout(self, axes) -> None:
        """Borders of the sectors on Matplotlib's axes"""
        for sector in range(self.modes):
            angle = 2 * np.pi * (sector + 0.5) / self.modes
            end = (np.cos(angle), np.sin(angle))
            axes.axline((0, 0), end, color="#d0d0d0", lw=0.5)
        axes.set(aspect="equal")
