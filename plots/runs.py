"""Finds runs and reads them, finished or not. What is not as it should be becomes a note, never silence."""

import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import track
from rich.table import Table

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
PPO_FAMILY = ("ppo", "mcp-ppo", "dac")
# options that make no other experiment, or stand in the label as they are
FREE = ("env_id", "k", "tag", "seed", "num_seeds", "run_dir", "device", "compile", "checkpoint_every", "resume")
FREE += ("overwrite", "track")


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
    notes: list[str] = field(default_factory=list)
    method: str = ""  # as `name_methods` calls it

    def __post_init__(self):
        self.env, self.seed, self.budget = (self.args[name] for name in ("env_id", "seed", "total_timesteps"))
        self.tag = self.path.absolute().parent.name.removeprefix(f"{self.algo}-k{self.args['k']}").removeprefix("-")
        self.name = NAMES.get(self.algo, self.algo)
        if self.algo in ("sac", "ppo") and self.args["k"] == 1:
            self.name = self.algo.upper()

    @property
    def base(self) -> str:
        """The method with its number of primitives, where that says something"""
        return self.name if self.name in ("SAC", "PPO") else f"{self.name} K={self.args['k']}"


def find(paths: list[Path], metric: str = "eval") -> tuple[list[Run], list[str]]:
    """The runs below the paths that have a curve, and notes on what has none."""
    directories, notes = {}, []
    for path in paths:
        before = len(directories)
        for folder, inner, files in os.walk(path):
            if {"config.json", "eval.csv", "episodes.csv"} & set(files):
                directories.setdefault(os.path.realpath(folder), Path(folder))
                inner.clear()
            inner.sort()
        if len(directories) == before:
            notes.append(f"{path}: no run there" if path.exists() else f"{path}: no such folder")
    runs = []
    for directory in track(directories.values(), "reading runs", transient=True, disable=len(directories) < 100):
        run = read(directory, metric)
        if isinstance(run, Run):
            runs.append(run)
        else:
            notes.append(f"{directory}: {run}; left out")
    return name_methods(runs, notes), notes


def read(directory: Path, metric: str) -> "Run | str":
    """The run in a directory, or why there is none."""
    try:
        config = json.loads((directory / "config.json").read_text())
        algo, args = config["algo"], config["args"]
        [args[name] for name in ("env_id", "k", "seed", "total_timesteps")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no run, its config.json is missing or damaged ({type(error).__name__})"
    file, column = FILES[metric]
    try:
        steps, returns, notes = read_csv(directory / file, column)
        age = time.time() - (directory / file).stat().st_mtime
    except (OSError, ValueError) as error:
        return f"{file} {error if isinstance(error, ValueError) else f'cannot be read ({error.strerror})'}"
    wall_time = None
    if (directory / "done.json").exists():
        try:
            done = json.loads((directory / "done.json").read_text())
            wall_time = done["wall_time"]
            if metric == "eval" and steps[-1] < done["step"]:
                notes.append(f"finished, but {file} ends at step {steps[-1]:,.0f} of {done['step']:,.0f}")
        except (ValueError, KeyError, TypeError):
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
    if not whole:
        raise ValueError("has no rows yet")
    columns = (names.index("step"), names.index(column))
    try:
        steps, values = np.loadtxt(whole.splitlines(), delimiter=",", usecols=columns, ndmin=2).T
    except ValueError as error:
        raise ValueError(f"is damaged: {str(error).split(';')[0]}") from None
    if (np.diff(steps) < 0).any():
        raise ValueError(f"is damaged: after step {steps[:-1][np.diff(steps) < 0][0]:.0f} comes an earlier one")
    finite = np.isfinite(steps) & np.isfinite(values)
    if not finite.all():
        notes.append(f"{file.name}: {(~finite).sum()} of its {len(finite)} rows are not finite, left out")
    if not finite.any():
        raise ValueError("has no finite row")
    return steps[finite], values[finite], notes


def name_methods(runs: list[Run], notes: list[str]) -> list[Run]:
    """Gives every run its method's label: the paper's name, K, and, where an environment has several configurations of
    them, what differs. Runs of one label are one configuration; a seed that comes twice is left out, with a note."""
    alike = defaultdict(list)
    for run in runs:
        alike[run.base].append(run)
    for base, group in alike.items():
        common = set.intersection(*(set(run.args) for run in group)) - set(FREE)
        by_env = defaultdict(list)
        for run in group:
            by_env[run.env].append(run)
        differ = [n for n in common if any(len({json.dumps(r.args[n]) for r in mine}) > 1 for mine in by_env.values())]
        named = any(len({run.args.get("tag") for run in mine}) > 1 for mine in by_env.values())
        tags = defaultdict(set)
        for run in group:
            parts = [run.args["tag"]] if named and run.args.get("tag") else []
            parts += [f"{n}={run.args[n]}".replace("total_timesteps", "steps") for n in sorted(differ)]
            run.method = " ".join([base, *parts])
            tags[run.env, run.method].add(run.tag)
        for run in group:
            if len(tags[run.env, run.method]) > 1:  # something differs that not all of them know
                run.method += f" {run.tag}"
    seen = {}
    for run in runs:
        first = seen.setdefault((run.env, run.method, run.seed), run)
        if first is not run:
            notes.append(f"{run.path}: the same seed of the same method as {first.path}; left out")
    return list(seen.values())


def by_method(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """{environment: {method: runs}}, methods in the order of the papers' legends"""
    order = ["SAC", "PPO", *NAMES.values()]
    groups = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: run.seed):
        groups[run.env][run.method].append(run)

    def place(item) -> tuple:
        run = item[1][0]
        return order.index(run.name) if run.name in order else len(order), run.name, run.args["k"], item[0]

    return {env: dict(sorted(methods.items(), key=place)) for env, methods in sorted(groups.items())}


def overview(runs: list[Run], metric: str) -> tuple[Table, list[str]]:
    """What was read: a table with a row for each environment and method, and notes on runs that are not whole"""
    what = "evaluation" if metric == "eval" else "training"
    table = Table("environment", "method", "seeds", "steps", "state", title=f"{what} returns of {len(runs)} runs")
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
        notes.append(f"fewer than five seeds, so that intervals mean little: {'; '.join(few)}")
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
