"""Environments that do not hold to Gymnasium's contract, each in the way that its option `how` names."""

import random

import gymnasium as gym
import numpy as np
from common import Toy

FLAGS = {
    "flag is None": lambda flag: None,
    "flags are integers": int,
    "flags are numbers": float,
    "flags are arrays": lambda flag: np.array([flag]),
}


def odd_reward(how, reward):
    odd = {
        "reward is an array": np.array([reward]),
        "reward has no axes": np.array(reward),
        "reward is None": None,
        "reward is text": "much",
        "reward has two numbers": np.ones(2),
        "reward is nan": np.nan,
        "reward is infinite": -np.inf,
        "reward is infinite in float32": 1e39,
    }
    return odd.get(how, reward)


def odd_observation(how, obs):
    odd = {
        "observation is a list": list(obs),
        "observation is short": obs[:1],
        "observation has an axis more": obs[None],
        "observation is None": None,
        "observation is nan": np.full(2, np.nan),
        "observation is infinite in float32": np.full(2, 1e300),
    }
    return odd.get(how, obs)


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
        obs, reward, terminated, truncated, info = result
        if self.how == "old gym":
            return obs, reward, terminated or truncated, info
        flag = FLAGS.get(self.how, bool)
        obs = odd_observation(self.how, obs)
        reward = odd_reward(self.how, reward)
        return obs, reward, flag(terminated), flag(truncated), info


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
    generators that all share. It shows in observations and rewards, in rewards alone, or as an exception."""

    def __init__(self, where="own"):
        super().__init__(length=50)
        self.where = where
        self.rng = np.random.default_rng(0)
        self.episodes = 0

    def disturb(self, obs):
        shared = random.random() + np.random.normal()
        values = {"own": self.rng.normal(), "episodes": self.episodes, "shared": shared}
        return obs + values.get(self.where, 0)

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        self.episodes += 1
        return self.disturb(obs), info

    def step(self, action):
        obs, reward, *rest = super().step(action)
        obs = self.disturb(obs)
        if self.where == "reward":
            reward += self.rng.normal()
        # It was reset twice to begin, and then a third time at once: to be replayed.
        if self.where == "raises" and self.episodes == 3 and self.total < 10:
            raise RuntimeError("begun in the middle")
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
