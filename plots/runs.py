"""Finds runs and reads them, finished or not. What is not as it should be becomes a note, never silence."""

import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from .tables import tracked

FILES = {"eval": ("eval.csv", "return_mean"), "train": ("episodes.csv", "episodic_return")}  # by --metric
NAMES = {  # in the papers' legends; with one primitive `sac` is SAC, `ppo` PPO
    "sac": "PMOE-SAC",
    "gating-sac": "Gating",
    "mcp-sac": "MCP-SAC",
    "gumbel-sac": "Gumbel",
    "reinforce-sac": "REINFORCE",
    "mrp-sac": "MRP",
    "ppo": "PMOE-PPO",
    "mcp-ppo": "MCP-PPO",
    "dac": "DAC",
}
# options that make no other experiment, or stand in the label as they are
FREE = ("env_id", "k", "tag", "seed", "num_seeds", "run_dir", "device", "compile", "checkpoint_every", "resume")
FREE += ("overwrite", "keep_replay", "track")


class PlotError(ValueError):
    """Why there is nothing to draw, in one line"""


@dataclass
class Run:
    """A run directory and its curve."""

    path: Path
    algo: str
    args: dict
    steps: np.ndarray  # (T,)
    returns: np.ndarray  # (T,)
    age: float  # seconds since the curve was written
    wall_time: float | None  # seconds, of a finished run
    notes: list[str]
    method: str = ""  # as `name_methods` calls it
    policy: tuple | None = None  # step and actor, as `policies.trained` has loaded them

    @property
    def env(self) -> str:
        return self.args["env_id"]

    @property
    def seed(self) -> int:
        return self.args["seed"]

    @property
    def budget(self) -> int:
        """Steps it is to make"""
        return self.args["total_timesteps"]

    @property
    def tag(self) -> str:
        """What its directory's name says beside algorithm and K"""
        folder = os.fsencode(self.path.resolve().parent.name).decode(errors="replace")
        return folder.removeprefix(f"{self.algo}-k{self.args['k']}").removeprefix("-")

    @property
    def family(self) -> str:
        """SAC or PPO, of forks too"""
        return "PPO" if "num_steps" in self.args else "SAC"

    @property
    def name(self) -> str:
        """In the papers' legends; a fork's is its own"""
        plain = self.algo in ("sac", "ppo") and self.args["k"] == 1
        return self.algo.upper() if plain else NAMES.get(self.algo, self.algo)

    @property
    def base(self) -> str:
        """The name with its number of primitives, where that says something"""
        return self.name if self.name in ("SAC", "PPO") else f"{self.name} K={self.args['k']}"

    @property
    def settings(self) -> dict:
        return {name: x for name, x in self.args.items() if name not in FREE}


def find(paths: list[Path], metric: str = "eval") -> tuple[list[Run], list[str]]:
    """The runs below the paths that have a curve, and notes on what has none."""
    directories, notes = folders(paths)
    read_ones = [(directory, read(directory, metric)) for directory in tracked(directories, "reading runs")]
    notes += [f"{directory}: {run}; left out" for directory, run in read_ones if not isinstance(run, Run)]
    return name_methods([run for _, run in read_ones if isinstance(run, Run)], notes), notes


def folders(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """The run directories at and below the paths, and notes on paths without any"""
    found, notes = {}, []
    for path in paths:
        if not path.is_dir():
            notes.append(f"{path}: {'is a file, no folder of runs' if path.exists() else 'no such folder'}")
            continue
        there, seen = False, set()
        for folder, inner, files in os.walk(path, followlinks=True, onerror=lambda error: notes.append(str(error))):
            if {"config.json", "eval.csv", "episodes.csv"} & set(files):
                there = bool(found.setdefault(os.path.realpath(folder), Path(folder)))
            inner[:] = sorted(inner) if os.path.realpath(folder) not in seen else []  # links may go in circles
            seen.add(os.path.realpath(folder))
        if not there:
            notes.append(f"{path}: no run there")
    return list(found.values()), notes


def read_config(directory: Path) -> tuple[str, dict]:
    """Algorithm and options of a run. PlotError: it is none."""
    try:
        config = json.loads((directory / "config.json").read_text())
        algo, args = config["algo"], config["args"]
        fields = {"env_id": str, "k": int, "seed": int, "total_timesteps": int}
        if type(algo) is not str or any(type(args[name]) is not kind for name, kind in fields.items()):
            raise ValueError
    except FileNotFoundError:
        raise PlotError("no run, it has no config.json") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise PlotError("no run, its config.json is damaged or of something else") from None
    return algo, args


def read(directory: Path, metric: str) -> "Run | str":
    """The run in a directory, or why there is none."""
    try:
        algo, args = read_config(directory)
    except PlotError as error:
        return str(error)
    file, column = FILES[metric]
    try:
        steps, returns, notes = read_csv(directory / file, column)
        age = time.time() - (directory / file).stat().st_mtime
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})"
    except ValueError as error:
        return f"{file} {error}"
    wall_time = None
    try:
        done = json.loads((directory / "done.json").read_text())
        last, wall_time = int(done["step"]), float(done["wall_time"])
        if metric == "eval" and steps[-1] < last:
            notes.append(f"finished, but {file} ends at step {steps[-1]:,.0f} of {last:,}")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError):
        notes.append("done.json is damaged; taken as unfinished")
    return Run(directory, algo, args, steps, returns, age, wall_time, notes)


def read_csv(file: Path, column: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Steps (T,), the column (T,) and notes; a half-written last line is left out. ValueError: there are none."""
    head, _, body = file.read_text(errors="replace").partition("\n")
    names = head.split(",")
    if not {"step", column} <= set(names):
        raise ValueError(f"has no column {column!r}: it begins {head[:50]!r}" if head else "is empty")
    whole, _, rest = body.rpartition("\n")
    notes = [f"{file.name} has a half-written last line, left out"] if rest else []
    if not whole.strip():
        raise ValueError("has no rows yet")
    lines = whole.splitlines()
    if odd := [i for i, line in enumerate(lines, 2) if line.count(",") != len(names) - 1]:
        raise ValueError(f"is damaged: line {odd[0]} has not {len(names)} columns")
    columns = (names.index("step"), names.index(column))
    try:
        steps, values = np.loadtxt(lines, delimiter=",", usecols=columns, ndmin=2).T
    except ValueError as error:
        raise ValueError(f"is damaged: {str(error).split(';')[0]}") from None
    finite = np.isfinite(steps) & np.isfinite(values)
    if not finite.all():
        notes.append(f"{file.name}: {(~finite).sum()} of its {len(finite)} rows are not finite, left out")
    if not finite.any():
        raise ValueError("has no finite row")
    back = np.flatnonzero(np.diff(steps[finite]) < 0)
    if len(back):
        raise ValueError(f"is damaged: after step {steps[finite][back[0]]:.0f} comes an earlier one")
    steps, where = np.unique(steps[finite], return_inverse=True)  # parallel environments end episodes at one step
    if column == "return_mean" and len(steps) < len(where):
        notes.append(f"{file.name}: {len(where) - len(steps)} steps stand there more than once, averaged")
    return steps, np.bincount(where, values[finite]) / np.bincount(where), notes


def name_methods(runs: list[Run], notes: list[str]) -> list[Run]:
    """Gives every run its method's label: the paper's name, K, and, where an environment has several configurations of
    that, the user's tag and the options that differ. A seed that comes twice is left out, with a note."""
    alike = defaultdict(list)
    for run in runs:
        alike[run.base].append(run)
    for base, group in alike.items():
        by_env = defaultdict(list)
        for run in group:
            by_env[run.env].append(run)
        common = set.intersection(*(set(run.settings) for run in group))
        differ = [n for n in sorted(common) if any(len({str(r.args[n]) for r in mine}) > 1 for mine in by_env.values())]
        tagged = any(len({run.args.get("tag") for run in mine}) > 1 for mine in by_env.values())
        tags = defaultdict(set)
        for run in group:
            parts = [run.args["tag"]] if tagged and run.args.get("tag") else []
            parts += [f"{run.budget:,} steps" if n == "total_timesteps" else f"{n}={run.args[n]}" for n in differ]
            run.method = " ".join([base, *parts])
            tags[run.env, run.method].add(run.tag)
        for run in group:
            if len(tags[run.env, run.method]) > 1:  # something differs that not all of them know
                run.method += f" {run.tag}" if run.tag else ""
        if unknown := sorted(set.union(*(set(run.settings) for run in group)) - common):
            notes.append(
                f"{base}: some config.json lack {', '.join(unknown)}, and are taken as by the rest of their name"
            )
    kept = {}
    for run in runs:
        one = run.env, run.method, run.seed
        first, second = sorted([kept.get(one, run), run], key=lambda r: (r.wall_time is None, -r.steps[-1]))
        if first is not second:
            notes.append(f"{second.path}: the same seed of the same method as {first.path}; left out")
        kept[one] = first
    return list(kept.values())


def by_method(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """{environment: {method: runs}}, methods in the order of the papers' legends"""
    order = ["SAC", "PPO", *NAMES.values()]
    groups = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: run.seed):
        groups[run.env][run.method].append(run)

    def place(item) -> tuple:
        run = item[1][0]
        rank = order.index(run.name) if run.name in order else len(order)
        return rank, run.name, run.args["k"], run.budget, item[0]

    return {env: dict(sorted(methods.items(), key=place)) for env, methods in sorted(groups.items())}


def overview(runs: list[Run], metric: str) -> tuple[Table, list[str]]:
    """What was read: a table with a row for each environment and method, and notes on runs that are not whole"""
    title = f"{len(runs)} runs, {' of '.join(reversed(FILES[metric]))}"
    table = Table("environment", "method", "seeds", "steps", "state", title=title)
    notes = [f"{run.path}: {note}" for run in runs for note in run.notes]
    few = []
    for env, methods in by_method(runs).items():
        for method, group in methods.items():
            missing = [run for run in group if run.wall_time is None]
            if missing:
                at = defaultdict(list)
                for run in missing:
                    at[run.steps[-1]].append(run.seed)
                reached = "; ".join(f"seed {spans(seeds)} at {step:,.0f}" for step, seeds in sorted(at.items()))
                written = ago(min(run.age for run in missing))
                notes.append(f"{env}, {method}: unfinished: {reached} of {group[0].budget:,} steps, written {written}")
            if len(group) < 5:
                few.append(f"{env}, {method} ({len(group)})")
            reach = sorted(
                {int(run.steps[-1]) for run in (group if metric == "eval" else missing)} or {group[0].budget}
            )
            steps = f"{reach[0]:,}" + (f" to {reach[-1]:,}" if len(reach) > 1 else "")
            state = f"{len(missing)} unfinished" if missing else "finished"
            table.add_row(env, method, spans([run.seed for run in group]), steps, state)
        table.add_section()
    if few:
        notes.append(
            f"fewer than five seeds, so that intervals are wide, of one or two there is none: {'; '.join(few)}"
        )
    return table, notes


def spans(seeds: list[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7"""
    text = []
    for seed in sorted(seeds):
        if text and seed == text[-1][1] + 1:
            text[-1][1] = seed
        else:
            text.append([seed, seed])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in text)


def ago(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"
