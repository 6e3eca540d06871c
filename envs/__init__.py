"""The project's environments. Importing this registers them; Gymnasium itself looks at no entry points since
1.0."""

import ast
import re

import gymnasium as gym

if "TargetReaching-v0" not in gym.registry:
    gym.register("TargetReaching-v0", "pmoe.envs.target_reaching:TargetReaching", max_episode_steps=200)


def make(env_id: str, **kwargs) -> gym.Env:
    """gym.make of ID[,option=value,...], read as every algorithm's file reads it; values are numbers, True,
    False, None or text in single quotes"""
    outside_quotes = r"(?=(?:[^']*'[^']*')*[^']*$)"  # an even number of quotes follows
    name, *options = re.split(rf",(?=\w+=){outside_quotes}", env_id)
    for option in options:
        key, _, value = option.partition("=")
        try:
            kwargs[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            line = f"{option} is not a number, True, False, None, or text in single quotes"
            raise ValueError(line) from None
    return gym.make(name, **kwargs)
