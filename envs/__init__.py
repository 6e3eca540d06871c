"""The project's environments. Importing this registers them; Gymnasium itself looks at no entry points since
1.0."""

import ast
import re

import gymnasium as gym

OPTION = r",(\w+)=([-+\d.e]+|True|False|None|'[^']*')"

if "TargetReaching-v0" not in gym.registry:
    gym.register("TargetReaching-v0", "pmoe.envs.target_reaching:TargetReaching", max_episode_steps=200)


def make(env_id: str, **kwargs) -> gym.Env:
    """gym.make of ID or ID,option=value,..., which every algorithm's file reads in the same way"""
    parts = re.split(OPTION, env_id)  # ID, option, value, rest, option, value, rest, ...
    name = "".join(parts[::3])
    values = map(ast.literal_eval, parts[2::3])
    options = dict(zip(parts[1::3], values))
    return gym.make(name, **options, **kwargs)
