"""Environments that do not hold to Gymnasium's contract, each in the way that its option `how` names."""

import random

import gymnasium as gym
import numpy as np
from common import Toy

# What a step returns is changed so, from the step `at` on.
STEPS = {
    "plain": lambda obs, reward, terminated, truncated, info: (obs, reward, terminated, truncated, info),
    "flags are integers": lambda obs, reward, end, cut, info: (obs, reward, int(end), int(cut), info),
    "flags are numbers": lambda obs, reward, end, cut, info: (obs, reward, float(end), float(cut), info),
    "flags are arrays": lambda obs, reward, end, cut, info: (
        obs,
        reward,
        np.array([end]),
        np.array(cut),
        info,
    ),
    "reward is an array": lambda obs, reward, *rest: (obs, np.array([reward]), *rest),
    "reward has no axes": lambda obs, reward, *rest: (obs, np.array(reward), *rest),
    "observation is a list": lambda obs, *rest: (list(obs), *rest),
    "reward is None": lambda obs, reward, *rest: (obs, None, *rest),
    "reward is text": lambda obs, reward, *rest: (obs, "much", *rest),
    "reward has two numbers": lambda obs, reward, *rest: (obs, np.ones(2), *rest),
    "reward is nan": lambda obs, reward, *rest: (obs, np.nan, *rest),
    "reward is infinite": lambda obs, reward, *rest: (obs, -np.inf, *rest),
    "observation is short": lambda obs, *rest: (obs[:1], *rest),
    "observation has an axis more": lambda obs, *rest: (obs[None], *rest),
    "observation is None": lambda obs, *rest: (None, *rest),
    "observation is nan": lambda obs, *rest: (obs * np.nan, *rest),
    "flag is None": lambda obs, reward, end, *rest: (obs, reward, None, *rest),
    "old gym": lambda obs, reward, end, cut, info: (obs, reward, end or cut, info),
}


class Odd(Toy):
    def __init__(self, how="plain", at=1, only_seed=None):
        super().__init__()
        self.how = how
        self.at = at
        self.only_seed = only_seed
        self.first_seed = None

    def reset(self, *, seed=None, options=None):
        self.first_seed = self.first_seed or seed
        result = super().reset(seed=seed)
        if self.how == "reset returns the observation alone":
            return result[0]
        return result

    def step(self, action):
        result = super().step(action)
        is_meant = self.only_seed in (None, self.first_seed)
        if self.total < self.at or not is_meant:
            return result
        if self.how == "step raises":
            raise RuntimeError("the motor\nis broken")
        return STEPS.get(self.how, STEPS["plain"])(*result)


class Unseeded(Toy):
    """An environment of before Gymnasium"""

    def reset(self):
        return super().reset()


class OldGenerator(Toy):
    """Draws from a RandomState, as the environments of dm_control do, in every step."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._np_random = np.random.RandomState(seed)
        self.step_count = 0
        self.noise = self.np_random.normal()
        return self.observe(), {}

    def step(self, action):
        obs, reward, *rest = super().step(action)
        # A normal number more than an even number of them: it keeps the other half.
        return obs, reward + self.np_random.normal(), *rest


class Hidden(Toy):
    """Has a state that no replay brings back: a generator of its own, or a count of its episodes, or the
    generators that all share."""

    def __init__(self, where="own"):
        super().__init__(length=50)
        self.where = where
        self.rng = np.random.default_rng(0)
        self.episodes = 0

    def disturb(self, obs):
        shared = random.random() + np.random.normal()
        values = {"own": self.rng.normal(), "episodes": self.episodes, "shared": shared}
        return obs + values[self.where]

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.episodes += 1
        return self.disturb(obs), info

    def step(self, action):
        obs, reward, *rest = super().step(action)
        obs = self.disturb(obs)
        return obs, reward + obs[0], *rest


class Mapping(Toy):
    """Observations in a Dict or a Tuple"""

    def __init__(self, kind="dict"):
        super().__init__()
        number = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
        which = gym.spaces.Discrete(3)
        self.kind = kind
        self.observation_space = gym.spaces.Tuple([which, number])
        if kind == "dict":
            self.observation_space = gym.spaces.Dict({"which": which, "where": number})

    def observe(self):
        number = np.array([self.noise])
        which = self.step_count % 3
        return {"which": which, "where": number} if self.kind == "dict" else (which, number)


class Whole(Toy):
    action_space = gym.spaces.Box(-3, 3, (2,), np.int64)


class Endless(Toy):
    def __init__(self):
        super().__init__(length=10**9)


def fails_at_once(**options):
    raise OSError(28, "no such robot")


ODD = {
    "Odd-v0": Odd,
    "Unseeded-v0": Unseeded,
    "OldGenerator-v0": OldGenerator,
    "Hidden-v0": Hidden,
    "Mapping-v0": Mapping,
    "Whole-v0": Whole,
    "Endless-v0": Endless,
    "FailsAtOnce-v0": fails_at_once,
}
for name, env in ODD.items():
    gym.register(name, env, disable_env_checker=True)
