"""Areas under learning curves: each run is one number, its mean return over the steps that all compared runs reached.

Compared are runs of one environment and one number of steps. Percents are of a reference method, as in tables 2 to 4 of
arXiv 2104.09122. The bootstrap draws runs, in each environment and method among themselves.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .runs import PPO_FAMILY, Run, by_method
from .stats import CENTERS, auc, bootstrap, improvement, mean
from .tables import number, with_interval, write

REFERENCES = {"SAC": "SAC", "PPO": "DAC"}  # by family, as in the paper


@dataclass
class Task:
    """Runs that are compared: those of one environment and number of steps."""

    env: str
    budget: int
    family: str  # SAC or PPO; all where the user names the reference
    first: float  # the steps that all of them reached: from here
    last: float  # to here
    methods: dict[str, list[Run]]  # the reference first
    areas: dict[str, np.ndarray]  # by method, (n,) each
    base: str | None  # the reference method, if it has runs here

    @property
    def has_percents(self) -> bool:
        return self.base is not None and mean(self.areas[self.base]) > 0

    def final(self, method: str) -> float:
        """Mean return at the last step compared"""
        return float(np.mean([np.interp(self.last, run.steps, run.returns) for run in self.methods[method]]))


def compare(runs: list[Run], reference: str | None = None) -> tuple[list[Task], list[str]]:
    """Runs that may be compared, and notes on what may not."""
    groups, tasks, notes = defaultdict(list), [], []
    for run in runs:
        family = "all" if reference else "PPO" if run.algo in PPO_FAMILY else "SAC"
        groups[run.env, run.budget, family].append(run)
    for (env, budget, family), group in sorted(groups.items()):
        first, last = max(run.steps[0] for run in group), min(run.steps[-1] for run in group)
        shortest = min(group, key=lambda run: run.steps[-1])
        beyond = sum(run.steps[-1] > last for run in group)
        what = f"{env}, {budget:,} steps"
        if first > last:
            notes.append(f"{what}: {shortest.path} ends before another begins, so there are no areas yet")
            continue
        if beyond and last < 0.99 * budget:  # training episodes end where they end
            notes.append(f"{what}: areas up to step {last:,.0f}, where {shortest.path} ends; {beyond} runs go further")
        methods, name = by_method(group)[env], reference or REFERENCES[family]
        matching = named(methods, name)
        base = matching[0] if len(matching) == 1 else None
        if base is None:
            which = f"{name} may be {' or '.join(matching)}" if matching else f"no {name}"
            notes.append(f"{what}: {which}; percents need --reference, one of: {', '.join(methods)}")
        methods = {m: methods[m] for m in sorted(methods, key=lambda m: m != base)}
        areas = {m: np.array([auc(run.steps, run.returns, first, last) for run in methods[m]]) for m in methods}
        if base and mean(areas[base]) <= 0:
            notes.append(f"{what}: the area of {base} is not positive, so that percents of it mean nothing")
        tasks.append(Task(env, budget, family, first, last, methods, areas, base))
    return tasks, notes


def named(methods: dict[str, list[Run]], name: str) -> list[str]:
    """The methods that a user may mean: by label, else by the paper's name, else by algorithm, as `sac-k2` or `sac`"""
    for spell in (
        lambda run: run.method,
        lambda run: run.base,
        lambda run: run.name,
        lambda run: f"{run.algo}-k{run.args['k']}",
        lambda run: run.algo,
    ):
        matching = [method for method, group in methods.items() if spell(group[0]).lower() == name.lower()]
        if matching:
            return matching
    return []


def check_reference(runs: list[Run], reference: str) -> None:
    """ValueError: the user named a method that no run is of."""
    methods = {run.method: [run] for run in runs}
    if not named(methods, reference):
        raise ValueError(f"--reference {reference}: no run is of it; there are: {', '.join(methods)}")


def percent(strata: list[np.ndarray], center) -> np.ndarray:
    """Areas (..., n) of a method in some tasks, then those of the reference in the same tasks -> the center of the
    method's, pooled, in percent of its task's reference's (...); NaN where a reference's is not positive"""
    tasks, scores = len(strata) // 2, []
    for x, y in zip(strata[:tasks], strata[tasks:]):
        scale = center(y)
        scores.append(100 * x / np.where(scale > 0, scale, np.nan)[..., None])
    return center(np.concatenate(scores, -1))


def better(strata: list[np.ndarray]) -> np.ndarray:
    """Of the same strata the probability of improvement over the reference, the mean over the tasks"""
    tasks = len(strata) // 2
    return np.mean([improvement(x, y) for x, y in zip(strata[:tasks], strata[tasks:])], 0)


def against(tasks: list[Task], methods: list[str], center) -> dict[str, float]:
    """A method, by its label in each task, against the references: percent, probability of improvement, intervals"""
    figures = {name + end: np.nan for name in ("percent", "better") for end in ("", "_low", "_high")}
    if not all(task.has_percents for task in tasks):
        return figures
    bases = [task.base for task in tasks]
    if methods == bases:
        return figures | {"percent": 100.0}
    strata = [task.areas[label] for labels in (methods, bases) for task, label in zip(tasks, labels)]
    for name, statistic in (("percent", partial(percent, center=center)), ("better", better)):
        low, high = bootstrap(strata, statistic)
        figures |= {name: float(statistic(strata)), f"{name}_low": float(low), f"{name}_high": float(high)}
    return figures


def across(tasks: list[Task]) -> dict[str, list[str | None]]:
    """Each method's label in every task, None where it has no runs. One that has another K in another task, and never
    two in one, is one method."""
    found, names = {}, dict.fromkeys(group[0].name for task in tasks for group in task.methods.values())
    for name in names:
        there = [[m for m, group in task.methods.items() if group[0].name == name] for task in tasks]
        labels = list(dict.fromkeys(label for each in there for label in each))
        if len(labels) > 1 and all(len(each) <= 1 for each in there):
            ks = dict.fromkeys(str(task.methods[m][0].args["k"]) for task, each in zip(tasks, there) for m in each)
            found[f"{name} K={'/'.join(ks)}"] = [each[0] if each else None for each in there]
        else:
            found |= {label: [label if label in each else None for each in there] for label in labels}
    return found


def pools(tasks: list[Task]) -> list[list[Task]]:
    """Tasks whose percents may be pooled: different environments of one version and number of steps"""
    groups = defaultdict(list)
    for task in tasks:
        if task.has_percents:
            groups[task.family, task.env.rpartition("-v")[2], task.budget].append(task)
    return list(groups.values())


def report(runs: list[Run], out: Path, reference: str | None, center: str, metric: str) -> tuple[list[Path], list[str]]:
    """Writes OUT/auc.csv, .md and .tex and prints them; returns the files, and notes on what is not compared."""
    tasks, notes = compare(runs, reference)
    tables, records = map(list, zip(*(alone(task, center, metric) for task in tasks))) if tasks else ([], [])
    for pool in pools(tasks):
        if len(pool) > 1:
            table, pooled, missing = together(pool, center)
            tables.append(table)
            records.append(pooled)
            notes += missing
    return write(out / "auc", [row for rows in records for row in rows], tables) if tables else [], notes


def alone(task: Task, center: str, metric: str) -> tuple[tuple, list[dict]]:
    """The table of one environment, and its records"""
    curve, other = "evaluation" if metric == "eval" else "training", "iqm" if center == "mean" else "mean"
    head = ["method", "n", f"AUC, {named_center(center)} (95 %)", f"AUC, {named_center(other)}", "final return"]
    head += [f"% of {task.base} (95 %)", f"P(better than {task.base})"] if task.base else []
    records, rows = [], []
    for method, x in task.areas.items():
        low, high = bootstrap([x], lambda drawn: CENTERS[center](drawn[0]))
        record = {"environment": task.env, "steps": task.budget, "first": int(task.first), "last": int(task.last)}
        record |= {"method": method, "n": len(x), "center": center, "low": low, "high": high}
        record |= {name: f(x) for name, f in CENTERS.items()} | {"final": task.final(method), "reference": task.base}
        records.append(record | against([task], [method], CENTERS[center]))
        rows.append([method, str(len(x)), with_interval(record[center], low, high), number(record[other])])
        rows[-1] += [number(record["final"]), *comparison(records[-1])[: len(head) - 5]]
    title = f"{task.env}: area under the {curve} curve, steps {task.first:,.0f} to {task.last:,.0f}"
    return (title, head, rows), records


def together(pool: list[Task], center: str) -> tuple[tuple, list[dict], list[str]]:
    """The table of several environments, its records, and notes on methods that are not in all of them"""
    records, rows, notes, base = [], [], [], pool[0].methods[pool[0].base][0].name
    envs = ", ".join(task.env for task in pool)
    for method, labels in across(pool).items():
        missing = [task.env for task, label in zip(pool, labels) if label is None]
        if missing:
            notes.append(f"{method} is not in the table of {len(pool)} environments: no runs on {', '.join(missing)}")
            continue
        n = sum(len(task.areas[label]) for task, label in zip(pool, labels))
        record = {"environment": envs, "steps": pool[0].budget, "method": method, "n": n, "center": center}
        records.append(record | {"reference": base, **against(pool, labels, CENTERS[center])})
        rows.append([method, str(n), *comparison(records[-1])])
    head = ["method", "n", f"% of {base}, {named_center(center)} (95 %)", f"P(better than {base})"]
    return (f"{len(pool)} environments together: {envs}", head, rows), records, notes


def named_center(center: str) -> str:
    return "IQM" if center == "iqm" else center


def comparison(record: dict) -> list[str]:
    """The cells of a record's percent and probability of improvement"""
    cells = []
    for name, digits in (("percent", 1), ("better", 2)):
        cells.append(with_interval(*(record[name + end] for end in ("", "_low", "_high")), digits))
    return cells
