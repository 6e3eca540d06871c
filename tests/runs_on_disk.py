"""Run directories written by hand, what damages them, and what is read of them."""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import MODULES

from pmoe.plots import auc, runs

UNIT = np.array([0, 0.5, 1.5, 2])  # a curve of area 1 that ends at 2
HEADER = "step,return_mean,return_std,episodes\n"
EPISODES_HEADER = "step,episodic_return,episodic_length\n"


# Writing


def make(
    root: Path,
    algo: str = "sac",
    returns=UNIT,
    *,
    steps=None,
    done: bool = True,
    wall_time: float = 3600.0,
    lacks=(),
    file: str = "",
    **fields,
) -> Path:
    """A run directory as an algorithm leaves it; its evaluations, and its training episodes with 1000 more,
    stand at equal distances up to the last step, or at `steps`. Its config.json names the algorithm's `file`,
    and `lacks` options. Defaults: Hopper-v4, K = 4, seed 1, 1,000,000 steps"""
    module = MODULES.get(algo, MODULES["sac"])  # a fork's
    fields = {"env_id": "Hopper-v4", "total_timesteps": 1_000_000} | fields
    args = asdict(module.Args(**fields))
    budget = args["total_timesteps"]
    path = root / args["env_id"] / folder_name(algo, args) / f"seed{args['seed']}"
    path.mkdir(parents=True)

    known = {name: value for name, value in args.items() if name not in lacks}
    config = {"algo": algo, "device": "cpu", "args": known}
    if file:
        config["file"] = file
    write_json(path / "config.json", config)

    if steps is None:
        n = len(returns)
        steps = [budget * (i + 1) // n for i in range(n)]
    evaluations = [HEADER]
    episodes = [EPISODES_HEADER]
    for step, value in zip(steps, returns, strict=True):
        evaluations.append(f"{step},{value},0.5,10\n")
        episodes.append(f"{step},{value + 1000},200\n")
    (path / "eval.csv").write_text("".join(evaluations))
    (path / "episodes.csv").write_text("".join(episodes))

    if done:
        figures = {"step": budget, "return_mean": float(returns[-1]), "return_std": 0.5, "episodes": 10.0}
        figures["wall_time"] = wall_time
        write_json(path / "done.json", figures)
    return path


def folder_name(algo: str, args: dict) -> str:
    """ALGO-kK[-TAG], the tag a hash of what is not the default"""
    module = MODULES.get(algo, MODULES["sac"])
    default = asdict(module.Args())
    changed = {}
    for name, value in args.items():
        if name not in runs.FREE and value != default[name]:
            changed[name] = value
    if args.get("anneal_lr"):
        changed["total_timesteps"] = args["total_timesteps"]
    tag = args["tag"]
    if changed and not tag:
        text = json.dumps(changed)
        tag = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{algo}-k{args['k']}-{tag}".removesuffix("-")


def write_json(file: Path, content) -> None:
    file.write_text(json.dumps(content, indent=2))


def seeds(root: Path, algo: str, areas, **fields) -> list[Path]:
    """A run for each area under its curve, seeds 1, 2, ..."""
    return [make(root, algo, area * UNIT, seed=seed, **fields) for seed, area in enumerate(areas, 1)]


# Damaging; each gives a function of a run's directory


def edit(name: str, *replacement: str, count: int = -1) -> Callable:
    """Replaces text in a run's file."""
    old, _ = replacement

    def change(path: Path) -> None:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(*replacement, count))

    return change


def put(name: str, content: str | bytes) -> Callable:
    """Replaces a file's content."""
    if isinstance(content, str):
        content = content.encode()

    def change(path: Path) -> None:
        (path / name).write_bytes(content)

    return change


def remove(name: str) -> Callable:
    """Removes a file."""

    def change(path: Path) -> None:
        (path / name).unlink()

    return change


def set_arg(name: str, value) -> Callable:
    """Changes an option in config.json, or what else stands there."""

    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        if name in config["args"]:
            config["args"][name] = value
        else:
            config[name] = value
        write_json(path / "config.json", config)

    return change


# Reading


def labels(root: Path) -> dict[str, str]:
    """Each run's method, by its directory"""
    found, _ = runs.find([root])
    return {str(run.path.relative_to(root)): run.method for run in found}


def read_all(*paths: Path, metric: str = "eval") -> tuple[list[runs.Run], str]:
    """The runs, and all notes on them and on their comparison, a line each; nothing is plotted"""
    found, notes = runs.find(list(paths), metric)
    if found:
        _, on_runs = runs.overview(found, metric)
        _, on_tasks = auc.compare(found)
        notes = notes + on_runs + on_tasks
    return found, "\n".join(notes)


def compared(root: Path, reference: str | None = None) -> tuple[list[auc.Task], list[str]]:
    found, _ = runs.find([root])
    return auc.compare(found, reference)


def records_of(file: Path) -> list[dict]:
    """The rows of a CSV file"""
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def words_of(text: str) -> str:
    """What is printed, without the distances between its cells"""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "\n".join(lines)
