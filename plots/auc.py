"""Areas under learning curves: each run is one number, its mean return over the steps that all compared runs reached.

Compared are runs of one environment and one number of steps. Percents are of a reference method, as in tables 2 to 4 of
arXiv 2104.09122. The bootstrap draws runs, in each environment and method among themselves.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .runs import PlotError, Run, by_method
from .stats import CENTERS, auc, bootstrap, improvement
from .tables import number, tracked, with_interval, write, write_csv

REFERENCES = {"SAC": "SAC", "PPO": "DAC"}  # by family, as in the paper
FOOT = "Intervals: 95 %, bootstrap over runs, widened for few of them (docs/comparing.md)."
Pairs = list[tuple[np.ndarray, np.ndarray]]  # areas of a method and of the reference in each task, (..., n), (..., m)


@dataclass
class Task:
    """Runs that are compared: those of one environment and number of steps."""

    env: str
    budget: int
    family: str  # SAC or PPO; all where the user names the reference
    first: float  # the steps that all of them reached: from here
    last: float  # to here
    methods: dict[str, list[Run]]  # the reference first
    base: str | None  # the reference method, if it has runs here

    @property
    def label(self) -> str:
        return f"{self.env}, {self.budget:,} steps" + ("" if self.family == "all" else f", {self.family} family")

    def areas(self, method: str) -> np.ndarray:
        """Areas (n,) of a method's runs"""
        return np.array([auc(run.steps, run.returns, self.first, self.last) for run in self.methods[method]])

    def finals(self, method: str, metric: str) -> np.ndarray:
        """Returns (n,) at the last step compared, of training the mean over the last tenth of the steps compared"""
        start = self.last - (0.1 * (self.last - self.first) if metric == "train" else 0)
        return np.array([auc(run.steps, run.returns, start, self.last) for run in self.methods[method]])


def compare(runs: list[Run], reference: str | None = None, center: str = "mean") -> tuple[list[Task], list[str]]:
    """Runs that may be compared, and notes on what may not."""
    groups, tasks, notes = defaultdict(list), [], []
    for run in runs:
        groups[run.env, run.budget, "all" if reference else run.family].append(run)
    for (env, budget, family), group in sorted(groups.items()):
        first, last = max(run.steps[0] for run in group), min(run.steps[-1] for run in group)
        methods, name = by_method(group)[env], reference or REFERENCES.get(family)
        matching = named(methods, name)
        base = matching[0] if len(matching) == 1 else None
        methods = {m: methods[m] for m in sorted(methods, key=lambda m: m != base)}
        task = Task(env, budget, family, first, last, methods, base)
        shortest = min(group, key=lambda run: run.steps[-1])
        beyond = sum(run.steps[-1] > last for run in group)
        if first >= last:
            where = f"{shortest.path} ends at step {last:,.0f}"
            notes.append(f"{task.label}: no areas, as {where} and the first step of all is {first:,.0f}")
            continue
        if beyond and (shortest.wall_time is None or last < 0.99 * budget):  # training episodes end where they end
            path = shortest.path
            notes.append(f"{task.label}: areas up to step {last:,.0f}, where {path} ends; {beyond} runs go further")
        if base is None:
            which = f"{name} may be {' or '.join(matching)}" if matching else f"no {name}"
            notes.append(f"{task.label}: {which}; percents need --reference, one of: {', '.join(methods)}")
        elif CENTERS[center](task.areas(base)) <= 0:
            notes.append(f"{task.label}: the area of {base} is not positive, so that percents of it mean nothing")
        tasks.append(task)
    return tasks, notes


def named(methods: dict[str, list[Run]], name: str) -> list[str]:
    """The methods of this name: those of this label, or else of the paper's name, with K or without"""
    for spell in ("method", "base", "name"):
        matching = [method for method, group in methods.items() if getattr(group[0], spell).lower() == name.lower()]
        if matching:
            return matching
    return []


def reference_name(runs: list[Run], given: str) -> str:
    """The name of the method that a user means: a label or the paper's name, else an algorithm as `sac-k2` or `dac`.
    PlotError: no run is of it."""
    methods = {run.method: [run] for run in runs}
    if named(methods, given):
        return given
    by_algo = {f"{run.algo}-k{run.args['k']}": run.base for run in runs} | {run.algo: run.name for run in runs}
    if given.lower() not in by_algo:
        raise PlotError(f"--reference {given}: no run is of it; there are: {', '.join(methods)}")
    return by_algo[given.lower()]


def percent(pairs: Pairs, center: Callable) -> np.ndarray:
    """Center of the method's areas in percent of that of the reference's (...), the mean over tasks; NaN where a
    reference's is not positive"""
    return np.mean([100 * center(x) / np.where(center(y) > 0, center(y), np.nan) for x, y in pairs], 0)


def better(pairs: Pairs) -> np.ndarray:
    """Probability of improvement over the reference (...), the mean over tasks"""
    return np.mean([improvement(x, y) for x, y in pairs], 0)


def against(tasks: list[Task], labels: list[str], center: Callable) -> dict[str, float]:
    """A method, by its label in each task, against the references there: `percent` and `better`, with _low and _high"""
    figures = {name + end: np.nan for name in ("percent", "better") for end in ("", "_low", "_high")}
    bases = [task.base for task in tasks]
    if None in bases:
        return figures
    pairs = [(task.areas(label), task.areas(base)) for task, label, base in zip(tasks, labels, bases)]
    figures["percent"] = float(percent(pairs, center))
    if labels == bases:
        return figures
    figures["better"] = float(better(pairs))
    strata = [x for pair in pairs for x in pair]
    figures["percent_low"], figures["percent_high"] = bootstrap(strata, lambda x: percent(paired(x), center))
    if 0 < figures["better"] < 1:  # where no run is out of order, drawing them again shows no doubt
        figures["better_low"], figures["better_high"] = bootstrap(strata, lambda x: better(paired(x))).clip(0, 1)
    return {name: float(x) for name, x in figures.items()}


def paired(strata: list[np.ndarray]) -> Pairs:
    return list(zip(strata[::2], strata[1::2]))


def across(tasks: list[Task]) -> dict[str, list[str | None]]:
    """Each method's label in every task, None where it has no runs. One that has another K in another task, and never
    two in one, is one method."""
    found, alike = {}, defaultdict(list)
    for task in tasks:
        for label, group in task.methods.items():
            alike[group[0].name, label.removeprefix(group[0].base)].append((task, label, group[0].args["k"]))
    for (name, rest), there in alike.items():
        labels, ks = dict.fromkeys(label for _, label, _ in there), dict.fromkeys(str(k) for *_, k in there)
        if len(ks) > 1 and len({id(task) for task, *_ in there}) == len(there):
            in_task = {id(task): label for task, label, _ in there}
            found[f"{name} K={'/'.join(ks)}{rest}"] = [in_task.get(id(task)) for task in tasks]
        else:
            found |= {label: [label if label in task.methods else None for task in tasks] for label in labels}
    return found


def pools(tasks: list[Task]) -> list[list[Task]]:
    """Tasks that have a reference and may be pooled: different environments of one version and number of steps"""
    groups = defaultdict(list)
    for task in tasks:
        if task.base:
            groups[task.family, task.env.rpartition("-v")[2], task.budget].append(task)
    return list(groups.values())


def pooled(pool: list[Task]) -> str:
    """A pool's name in a title"""
    if len(pool) == 1:
        return pool[0].label
    envs = ", ".join(task.env for task in pool)
    return f"{len(pool)} environments ({envs}), {pool[0].label.partition(', ')[2]}"


def everywhere(pool: list[Task]) -> tuple[dict[str, list[str]], list[str]]:
    """The methods that are in all tasks of a pool, by their label in each, and notes on the others"""
    there, notes = {}, []
    for method, labels in across(pool).items():
        missing = [task.env for task, label in zip(pool, labels) if label is None]
        if missing:
            notes.append(f"{method} is not among {pooled(pool)}: it has no runs on {', '.join(missing)}")
            continue
        there[method] = labels
        settings = [task.methods[label][0].settings for task, label in zip(pool, labels)]
        differ = [name for name in settings[0] if len({str(each.get(name)) for each in settings}) > 1]
        if differ:
            notes.append(f"{method} is not the same in all of {pooled(pool)}: {', '.join(differ)} differ")
    return there, notes


def report(
    runs: list[Run], out: Path, reference: str | None, center: str, metric: str, said: list[str] = ()
) -> tuple[list[Path], list[str]]:
    """Writes and prints OUT/auc.csv, .md and .tex, writes the runs' own figures to OUT/auc_runs.csv; returns the files,
    and notes on what is not compared. Below the tables stand these and what has been `said` of the runs."""
    tasks, notes = compare(runs, reference, center)
    if not tasks:
        return [], notes
    parts = [alone(task, center, metric) for task in tracked(tasks, "areas")]
    for pool in pools(tasks):
        if len(pool) > 1:
            methods, missing = everywhere(pool)
            parts.append(together(pool, methods, center))
            notes += missing
    tables, records = [table for table, _ in parts], [record for _, some in parts for record in some]
    for record in records:
        each = [len(group) for task in tasks if task.env in record["environment"] for group in task.methods.values()]
        missing = np.isnan(record["percent_low"]) and not np.isnan([record["percent"], record["better"]]).any()
        if missing and min(each) > 2:
            where = f"{record['environment']}, {record['method']}"
            notes.append(
                f"{where}: no interval of the percents: drawn again, the reference's area is not always positive"
            )
    each = []
    for task in tasks:
        for method, group in task.methods.items():
            for run, area, final in zip(group, task.areas(method), task.finals(method, metric)):
                each.append({"path": run.path, "environment": run.env, "steps": run.budget, "method": method})
                each[-1] |= {"seed": run.seed, "first": int(task.first), "last": int(task.last)}
                each[-1] |= {"auc": area, "final": final}
    write_csv(out / "auc_runs.csv", each)
    return [*write(out / "auc", records, tables, FOOT, [*said, *notes]), out / "auc_runs.csv"], notes


def alone(task: Task, center: str, metric: str) -> tuple[tuple, list[dict]]:
    """The table of one environment, and its records"""
    curve, other = "evaluation" if metric == "eval" else "training", "iqm" if center == "mean" else "mean"
    head = ["method", "n", f"AUC, {shown(center)} (95 %)", f"AUC, {shown(other)}", "final return"]
    head += [f"% of {task.base} (95 %)", f"P(better than {task.base})"] if task.base else []
    records, rows = [], []
    for method, group in task.methods.items():
        x, final = task.areas(method), task.finals(method, metric).mean()
        low, high = bootstrap([x], lambda drawn: CENTERS[center](drawn[0]))
        record = {"environment": task.env, "steps": task.budget, "first": int(task.first), "last": int(task.last)}
        record |= {"method": method, "n": len(group), "center": center, "low": low, "high": high}
        record |= {name: f(x) for name, f in CENTERS.items()} | {"final": final, "reference": task.base}
        records.append(record | against([task], [method], CENTERS[center]))
        rows.append([method, str(len(group)), with_interval(record[center], low, high), number(record[other])])
        rows[-1] += [number(final), *(comparison(records[-1]) if task.base else [])]
    title = f"{task.label}: area under the {curve} curve from step {task.first:,.0f} to {task.last:,.0f}"
    return (title, head, rows), records


def together(pool: list[Task], methods: dict[str, list[str]], center: str) -> tuple[tuple, list[dict]]:
    """The table of several environments, and its records"""
    records, rows, base = [], [], pool[0].methods[pool[0].base][0].name
    for method, labels in methods.items():
        n = sum(len(task.methods[label]) for task, label in zip(pool, labels))
        record = {"environment": ", ".join(task.env for task in pool), "steps": pool[0].budget, "method": method}
        record |= {"n": n, "center": center, "reference": base, **against(pool, labels, CENTERS[center])}
        records.append(record)
        rows.append([method, str(n), *comparison(record)])
    head = ["method", "n", f"% of {base}, {shown(center)} (95 %)", f"P(better than {base})"]
    return (f"{pooled(pool)}: mean over environments", head, rows), records


def shown(center: str) -> str:
    return "IQM" if center == "iqm" else center


def comparison(record: dict) -> list[str]:
    """The cells of a record's percent and probability of improvement"""
    cells = []
    for name, digits in (("percent", 1), ("better", 2)):
        cells.append(with_interval(*(record[name + end] for end in ("", "_low", "_high")), digits))
    return cells
