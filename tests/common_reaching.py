"""What the tests of target-reaching's figures share."""

from typing import NamedTuple

import numpy as np

from pmoe.envs.target_reaching import START, TargetReaching

FIXED = "TargetReaching-v0,fixed_layout=2"
DRAWN = "TargetReaching-v0"  # layouts are drawn anew
CUT = ",max_episode_steps=25"
STEPS = 600
RANDOM = {"total_timesteps": STEPS, "random_steps": STEPS, "learning_starts": STEPS, "eval_every": STEPS}
NAMES = ["SAC", "PMOE-SAC K=2", "Gating K=2"]  # as in the papers' legends


class Step(NamedTuple):
    """What an environment did"""

    before: np.ndarray  # the position
    after: np.ndarray
    success: bool
    terminated: bool


def near_targets(patch) -> None:
    """Targets that random steps can reach, and no obstacles"""

    def draw_layout(self, generator):
        self.target = START + generator.uniform(0.6, 1.2, 2)
        self.centres = np.full((self.obstacles, 2), 4.0)
        self.radii = np.full(self.obstacles, 0.3)

    patch.setattr(TargetReaching, "draw_layout", draw_layout)


def record(patch) -> dict[TargetReaching, list[Step]]:
    """The steps that each TargetReaching makes from now on"""
    worlds = {}
    move = TargetReaching.step

    def step(self, action):
        before = self.position.copy()
        result = move(self, action)
        done = Step(before, self.position.copy(), self.success, result[2])
        worlds.setdefault(self, []).append(done)
        return result

    patch.setattr(TargetReaching, "step", step)
    return worlds
