"""Suites of other projects, whose environments `--env` finds by their names: `dm_control/walker-walk-v0`,
`EnvPool/MetaWorld-Reach-v3`, `PointMaze_UMaze-v3`. A suite is imported when one of its environments is asked
for, and not before: that takes seconds."""

import contextlib
import difflib
import io
import re
import warnings
from importlib import import_module, metadata

import gymnasium as gym
from gymnasium.error import DependencyNotInstalled, NamespaceNotFound

# By how an ID begins: the packages that it needs, and the extra of pmoe that installs them
ROBOTICS = (("gymnasium_robotics",), "robotics")
SUITES = {
    "dm_control/": (("shimmy", "dm_control"), "dmc"),
    "EnvPool/": (("envpool",), "envpool"),
    "PointMaze_": ROBOTICS,
    "AntMaze_": ROBOTICS,
    "AdroitHand": ROBOTICS,
    "Fetch": ROBOTICS,
    "FrankaKitchen-": ROBOTICS,
    "HandManipulate": ROBOTICS,
    "HandReach": ROBOTICS,
}
NAMESPACES = [beginning[:-1] for beginning in SUITES if beginning.endswith("/")]
DMC_STEPS = 1000  # of every task of dm_control's suite but LQR, whose episodes end once the state is at rest


def load_suite(env_id: str) -> None:
    """Registers what ID[,option=value,...] names, where that is of a suite. Gymnasium's errors: the suite is
    not installed or does not run, or it has no such environment."""
    name, _, _ = env_id.partition(",")
    module, _, name = name.rpartition(":")
    if name not in gym.registry:
        for beginning, (packages, extra) in SUITES.items():
            # Another module may have environments that are called alike.
            if name.startswith(beginning) and module in ("", "gymnasium", *packages):
                import_suite(beginning, packages, extra)
        if name.startswith("EnvPool/"):
            from .envpool import register

            register(name)
        check_namespace(name)
    # dm_control's suite ends its episodes itself, and its environments do not say when.
    if re.fullmatch(r"dm_control/(?!lqr)\w+-\w+-v0", name) and name in gym.registry:
        gym.registry[name].max_episode_steps = DMC_STEPS


def import_suite(beginning: str, packages: tuple[str, ...], extra: str) -> None:
    """Imports its packages. DependencyNotInstalled: one is missing, or fails."""
    suite = beginning.rstrip("/_-")
    install = f"in pmoe's folder, pip install '.[{extra}]'"
    for package in packages:
        if not version_of(package):
            raise DependencyNotInstalled(f"{suite} needs {package}: {install}")
    try:
        # They tell of other tasks, or that there is no screen.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            for package in packages:
                import_module(package)
            if "dm_control" in packages:
                import_module("dm_control.mujoco").Physics.from_xml_string("<mujoco/>")
    except Exception as error:  # noqa: BLE001  packages whose versions do not fit fail in any way
        # EnvPool has a MuJoCo of its own.
        involved = packages if extra == "envpool" else (*packages, "mujoco")
        versions = ", ".join(f"{package} {version_of(package)}" for package in involved)
        why = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{suite} does not run with {versions} ({why}); in a venv of its own, {install}"
        raise DependencyNotInstalled(message) from None


def version_of(package: str) -> str:
    """Of an installed package; empty where it is not, although a file may be called like it"""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def check_namespace(name: str) -> None:
    """NamespaceNotFound: NAME/TASK is almost a suite's, of which Gymnasium knows nothing yet, or MetaWorld's
    as it calls itself."""
    metaworld = re.fullmatch("metaworld[/-](.+)", name, re.IGNORECASE)
    if metaworld:
        raise NamespaceNotFound(f"MetaWorld is among EnvPool's tasks: `EnvPool/MetaWorld-{metaworld[1]}`")
    namespace, slash, _ = name.partition("/")
    if not slash or namespace in NAMESPACES:
        return
    by_lower = {known.lower(): known for known in NAMESPACES}
    near = difflib.get_close_matches(namespace.lower(), by_lower, 1)
    if near:
        message = f"Namespace {namespace} not found. Did you mean: `{by_lower[near[0]]}`?"
        raise NamespaceNotFound(message)
