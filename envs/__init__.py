"""The project's environments. Importing this registers them; Gymnasium itself looks at no entry points since
1.0."""

import ast
import functools
import os
import re
import sys
from importlib import import_module

import gymnasium as gym

from .suites import load_suite

# By ID: where the class is, and the time limit
OURS = {
    "TargetReaching-v0": ("pmoe.envs.target_reaching:TargetReaching", 200),
    "Bumps-v0": ("pmoe.envs.multigoal:Bumps", 1),
    "MultiGoal-v0": ("pmoe.envs.multigoal:MultiGoal", 30),
    "MultiDirection-v0": ("pmoe.envs.multidirection:MultiDirection", 1000),
    "UnshapedAcrobot-v0": ("pmoe.envs.unshaped:UnshapedAcrobot", 1000),
    "UnshapedMountainCar-v0": ("pmoe.envs.unshaped:UnshapedMountainCar", 1000),
    "CosinePendulum-v0": ("pmoe.envs.unshaped:CosinePendulum", 200),
    "SparsePendulum-v0": ("pmoe.envs.unshaped:SparsePendulum", 200),
    "Bimodal-v0": ("pmoe.envs.unshaped:Bimodal", 1),
}
for name, (place, limit) in OURS.items():
    if name not in gym.registry:
        gym.register(name, place, max_episode_steps=limit)


def load_module(env_id: str) -> None:
    """Imports the module of MODULE:ID, which may lie in the current folder, and the suite that an ID is of.
    ValueError: they do not import, or the suite has no such environment."""
    name, _, _ = env_id.partition(",")
    module, colon, _ = name.rpartition(":")
    if colon:
        import_here(module)
    try:
        load_suite(env_id)
    except gym.error.Error as error:
        raise ValueError(str(error)) from None


def import_here(module: str) -> None:
    """Imports a module, which may lie in the current folder. ValueError: it does not import."""
    here = os.getcwd()
    # Last, as a random.py there must not take the place of Python's own.
    if here not in sys.path:
        sys.path.append(here)
    try:
        import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a module may raise anything
        raise ValueError(f"{module} does not import ({type(error).__name__}: {error})") from None


def warn_once(env_id: str) -> None:
    """From now on MuJoCo prints each of its warnings once, and not for every copy of an environment that is
    made; nor into a MUJOCO_LOG.TXT of the current folder."""
    name, _, _ = env_id.partition(",")
    spec = gym.registry.get(name.rpartition(":")[2])
    # It takes a second to be imported, and only its own environments do so anyway.
    if spec is None or "mujoco" not in str(spec.entry_point):
        return
    import mujoco

    mujoco.set_mju_user_warning(print_once)


@functools.cache
def print_once(message: str) -> None:
    # Not into what is caught of an environment that cannot be made
    print(f"MuJoCo warns: {message}", file=sys.__stderr__ or sys.stderr)


def without_render_mode(env_id: str) -> str:
    """An environment without that option, for those who render in their own way"""
    return re.sub(r",render_mode=(?:'[^']*'|[^,']*)", "", env_id)


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
    load_suite(name)
    return gym.make(name, **kwargs)
