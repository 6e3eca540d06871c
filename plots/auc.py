"""Areas under learning curves: each run is one number, its mean return over the steps that all compared runs
reached.

Only runs of the same environment are compared. Percents are of a reference method, as in tables 2 to 4 of
arXiv 2104.09122. The bootstrap draws runs, in each environment and method among themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..terminal import tracked
from .runs import CURVES, RANGES, PlotError, Run, by_method, grouped
from .stats import CENTERS, auc, bootstrap, improvement, improvement_interval, mean_interval
from .tables import number, with_interval, write, write_csv

REFERENCES = {"SAC": "SAC", "PPO": "DAC"}  # by family, as in the paper
FOOT = (
    "Intervals: 95 %, bootstrap over runs, widened for few of them; of P(better) Wilson's "
    "(docs/comparing.md)."
)
MOST = 1e6  # a percentage that means something
FINAL = {  # what is compared at the last step, and decimal places
    "eval": ("final return", None),  # as large as it is
    "train": ("final return", None),
    "success": ("final success", 3),
}
Pairs = list[
    tuple[np.ndarray, np.ndarray]
]  # areas of a method and of the reference in each task, (..., n), (..., m)


# Which runs are compared


@dataclass
class Task:
    """Runs that are compared: those of one environment."""

    env: str
    budget: int  # steps that the shortest of them are to make
    family: str  # SAC or PPO; all where the user names the reference
    first: float  # the steps that all of them reached: from here
    last: float  # to here
    methods: dict[str, list[Run]]  # the reference first
    base: str  # the reference method; empty where it has no runs
    found: dict = field(default_factory=dict, compare=False)  # by method and first step what `means` gives

    @property
    def size(self) -> str:
        """What a title says of tasks that may be pooled"""
        steps = f"{self.budget:,} steps"
        if self.family == "all":
            return steps
        return f"{steps}, {self.family} family"

    @property
    def label(self) -> str:
        return f"{self.env}, {self.size}"

    def areas(self, method: str) -> np.ndarray:
        """Areas (n,) of a method's runs"""
        return self.means(method, self.first)

    def finals(self, method: str, metric: str) -> np.ndarray:
        """Returns (n,) at the last step compared, of training the mean over the last tenth of the steps
        compared"""
        tenth = 0.1 * (self.last - self.first)
        start = self.last - tenth if metric == "train" else self.last
        return self.means(method, start)

    def means(self, method: str, start: float) -> np.ndarray:
        """Mean returns (n,) of a method's runs from a step to the last"""
        if (method, start) not in self.found:
            areas = [auc(run.steps, run.returns, start, self.last) for run in self.methods[method]]
            self.found[method, start] = np.array(areas)
        return self.found[method, start]


def compare(
    runs: list[Run], reference: str | None = None, center: str = "mean"
) -> tuple[list[Task], list[str]]:
    """Runs that may be compared, and notes on what may not."""

    def place(run: Run) -> tuple[str, str]:
        family = "all" if reference else run.family
        return run.env, family

    tasks = []
    notes = []
    for (_, family), group in sorted(grouped(runs, place).items()):
        name = reference or REFERENCES[family]
        task = new_task(group, family, name)
        if task.first >= task.last:
            notes.append(no_areas(task, group))
            continue
        notes += shortened(task, group)
        if not task.base:
            notes.append(no_reference(task, name))
        elif not positive(task, CENTERS[center]):
            label = f"{task.label}: the area of {task.base}"
            notes.append(f"{label} is 0 or less, or next to nothing, so that percentages of it mean nothing")
        tasks.append(task)
    return tasks, notes


def new_task(runs: list[Run], family: str, reference: str) -> Task:
    """A task of runs of one environment, compared up to what all have reached"""
    env = runs[0].env
    budget = min(run.budget for run in runs)
    first = max(run.steps[0] for run in runs)
    last = min(run.steps[-1] for run in runs)
    methods = by_method(runs)[env]
    matching = named(methods, reference)
    base = ""
    if len(matching) == 1:
        (base,) = matching
        methods = {base: methods[base]} | methods
    return Task(env, budget, family, first, last, methods, base)


def last_step(run: Run) -> float:
    return run.steps[-1]


def no_areas(task: Task, runs: list[Run]) -> str:
    """The note on runs that have no steps in common"""
    shortest = min(runs, key=last_step)
    end = f"{shortest.path} ends at step {task.last:,.0f}"
    return f"{task.label}: no areas, as {end} and the first step of all is {task.first:,.0f}"


def shortened(task: Task, runs: list[Run]) -> list[str]:
    """A note where a run ends the comparison that others would go on with"""
    shortest = min(runs, key=last_step)
    longer = [run for run in runs if last_step(run) > task.last]
    longest = max(run.budget for run in runs)
    # Training episodes end where they end, a little before the last step.
    whole = shortest.wall_time is not None and task.last >= 0.99 * longest
    if whole or not longer:
        return []
    end = f"areas up to step {task.last:,.0f}, where {shortest.path} ends"
    return [f"{task.label}: {end}; {len(longer)} runs go further"]


def no_reference(task: Task, name: str) -> str:
    """The note on a task without a reference"""
    matching = named(task.methods, name)
    if matching:
        return f"{task.label}: {name} may be {' or '.join(matching)}; percents need --reference"
    return f"{task.label}: no {name}; percents need --reference, one of: {', '.join(task.methods)}"


def positive(task: Task, center: Callable) -> bool:
    """Whether percents of the reference's area mean something: it is above 0, and not next to nothing"""
    areas = [center(task.areas(method)) for method in task.methods]
    return bool(100 * max(areas) < MOST * center(task.areas(task.base)))


def named(methods: dict[str, list[Run]], name: str) -> list[str]:
    """The methods of this name: those of this label, or else of the paper's name, with K or without"""
    for attribute in ("method", "base", "name"):
        matching = []
        for method, group in methods.items():
            spelling = getattr(group[0], attribute)
            if spelling.lower() == name.lower():
                matching.append(method)
        if matching:
            return matching
    return []


def reference_name(runs: list[Run], given: str) -> str:
    """The name of the method that a user means: a label or the paper's name, an algorithm as `sac-k2` or
    `dac`, or else a folder's name with its tag. PlotError: no run is of it."""
    methods = {run.method: [run] for run in runs}
    if named(methods, given):
        return given
    folders = {run.folder: run.method for run in runs}
    plain = given.lower() in {f"{run.algo}-k{run.args['k']}" for run in runs}
    if given in folders and not plain:
        return folders[given]
    names = {}
    for run in runs:
        names[f"{run.algo}-k{run.args['k']}"] = run.base
        names[run.algo] = run.name
    if given.lower() not in names:
        raise PlotError(f"--reference {given}: no run is of it; there are: {', '.join(methods)}")
    return names[given.lower()]


# Figures against a reference


def percent(pairs: Pairs, center: Callable) -> np.ndarray:
    """Center of the method's areas in percent of that of the reference's (...), the mean over tasks; NaN
    where a reference's is not positive"""
    percents = []
    for areas, of_reference in pairs:
        whole = center(of_reference)
        whole = np.where(whole > 0, whole, np.nan)
        percents.append(100 * center(areas) / whole)
    return np.mean(percents, 0)


def better(pairs: Pairs) -> tuple[float, float, float]:
    """Probability of improvement over the reference, the mean over tasks, and its 95 % interval"""
    estimates = []
    intervals = []
    for areas, of_reference in pairs:
        estimates.append(improvement(areas, of_reference))
        intervals.append(improvement_interval(areas, of_reference))
    low, high = mean_interval(np.array(estimates), np.array(intervals))
    return float(np.mean(estimates)), float(low), float(high)


def against(
    tasks: list[Task], labels: list[str], center: Callable, least: float = -np.inf
) -> dict[str, float]:
    """A method, by its label in each task, against the references there: `percent` and `better`, with _low
    and _high. An area is `least` or more: 0 or, where returns may be negative, minus infinity"""
    figures = dict.fromkeys(("percent", "percent_low", "percent_high"), np.nan)
    figures |= dict.fromkeys(("better", "better_low", "better_high"), np.nan)
    bases = [task.base for task in tasks]
    if "" in bases:
        return figures
    pairs = []
    for task, label in zip(tasks, labels):
        pairs.append((task.areas(label), task.areas(task.base)))
    if all(positive(task, center) for task in tasks):
        figures["percent"] = float(percent(pairs, center))
    if labels == bases:
        return figures

    strata = [areas for pair in pairs for areas in pair]
    low, high = bootstrap(strata, lambda drawn: percent(paired(drawn), center)).clip(least)
    # Where the reference may be nothing, nothing bounds the percentage.
    if np.isnan(figures["percent"]) or high > MOST:
        low = high = np.nan
    figures |= {"percent_low": float(low), "percent_high": float(high)}
    probability, low, high = better(pairs)
    return figures | {"better": probability, "better_low": low, "better_high": high}


def paired(strata: list[np.ndarray]) -> Pairs:
    return list(zip(strata[::2], strata[1::2]))


# Several environments


def across(tasks: list[Task]) -> dict[str, list[str]]:
    """Each method's label in every task, empty where it has no runs. One that has another K in another task,
    and never two in one, is one method, and so is what the user calls alike."""
    places = []  # number of the task, label, run
    for i, task in enumerate(tasks):
        for label, group in task.methods.items():
            places.append((i, label, group[0]))

    def without_k(place: tuple) -> tuple[str, str]:
        _, label, run = place
        if not label.startswith(run.base):
            return "", label
        return run.name, label.removeprefix(run.base)

    found = {}
    for (name, rest), alike in grouped(places, without_k).items():
        numbers = [i for i, *_ in alike]
        ks = dict.fromkeys(str(run.args["k"]) for *_, run in alike)
        if name and len(ks) > 1 and len(set(numbers)) == len(numbers):
            by_task = {i: label for i, label, _ in alike}
            method = f"{name} K={'/'.join(ks)}{rest}"
            found[method] = [by_task.get(i, "") for i in range(len(tasks))]
            continue
        for _, label, _ in alike:
            found[label] = [label if label in task.methods else "" for task in tasks]
    return found


def pools(tasks: list[Task]) -> list[list[Task]]:
    """Tasks that have a reference and may be pooled: different environments of one version and number of
    steps"""

    def kind(task: Task) -> tuple[str, str, int]:
        _, _, version = task.env.rpartition("-v")
        return task.family, version, task.budget

    with_reference = [task for task in tasks if task.base]
    return list(grouped(with_reference, kind).values())


def pool_name(pool: list[Task]) -> str:
    """A pool's name in a title"""
    if len(pool) == 1:
        return pool[0].label
    envs = ", ".join(task.env for task in pool)
    return f"{len(pool)} environments ({envs}), {pool[0].size}"


def common_methods(pool: list[Task]) -> tuple[dict[str, list[str]], list[str]]:
    """The methods that are in all tasks of a pool, by their label in each, and notes on the others"""
    common = {}
    notes = []
    for method, labels in across(pool).items():
        missing = [task.env for task, label in zip(pool, labels) if not label]
        if missing:
            envs = ", ".join(missing)
            notes.append(f"{method} is not among {pool_name(pool)}: it has no runs on {envs}")
            continue
        common[method] = labels
        settings = [task.methods[label][0].settings for task, label in zip(pool, labels)]
        names = different(settings)
        if names:
            notes.append(f"{method} is not the same in all of {pool_name(pool)}: {', '.join(names)} differ")
    return common, notes


def different(settings: list[dict]) -> list[str]:
    """The names of options that are not the same everywhere, among those of the first"""
    names = []
    for name in settings[0]:
        values = {str(each.get(name)) for each in settings}
        if len(values) > 1:
            names.append(name)
    return names


# Tables


def report(
    tasks: list[Task], out: Path, center: str, metric: str, notes: Sequence[str] = ()
) -> tuple[list[Path], list[str]]:
    """Writes and prints OUT/auc.csv, .md and .tex, writes the runs' own figures to OUT/auc_runs.csv; returns
    the files, and new notes on what is not compared. Below the tables stand these and the notes on what was
    read and compared."""
    if not tasks:
        return [], []
    tables = []
    records = []
    found = []
    for task in tracked(tasks, "areas"):
        table, some = task_table(task, center, metric)
        tables.append(table)
        records += some
    for pool in pools(tasks):
        if len(pool) == 1:
            continue
        methods, missing = common_methods(pool)
        table, some = pool_table(pool, methods, center, metric)
        tables.append(table)
        records += some
        found += missing
    found += no_intervals(tasks, records)
    each = out / "auc_runs.csv"
    write_csv(each, run_records(tasks, metric))
    files = write(out / "auc", records, tables, FOOT, [*notes, *found])
    return [*files, each], found


def no_intervals(tasks: list[Task], records: list[dict]) -> list[str]:
    """Notes on percentages without an interval where the runs are enough for one"""
    without: dict[str, list[str]] = {}
    for record in records:
        compared = not np.isnan([record["percent"], record["better"]]).any()
        if compared and np.isnan(record["percent_low"]) and fewest_runs(tasks, record) > 2:
            without.setdefault(record["environment"], []).append(record["method"])
    reason = "in some bootstrap draws the reference's area is 0 or less, or next to nothing"
    return [
        f"{env}: no interval of the percentages of {', '.join(methods)}: {reason}"
        for env, methods in without.items()
    ]


def fewest_runs(tasks: list[Task], record: dict) -> int:
    """Of a record's method and of its reference, in one environment"""
    envs = record["environment"].split(", ")
    counts = []
    for task in tasks:
        for label, runs in task.methods.items():
            compared = label == task.base or record["method"] in (label, runs[0].name)
            if task.env in envs and compared:
                counts.append(len(runs))
    return min(counts)


def run_records(tasks: list[Task], metric: str) -> list[dict]:
    """The figures of each run"""
    records = []
    for task in tasks:
        for method, group in task.methods.items():
            for run, area, final in zip(group, task.areas(method), task.finals(method, metric)):
                record = {"path": run.path, "environment": run.env, "steps": run.budget, "method": method}
                record |= {"seed": run.seed, "first": int(task.first), "last": int(task.last)}
                record |= {"auc": area, "final": final}
                records.append(record)
    return records


def task_table(task: Task, center: str, metric: str) -> tuple[tuple, list[dict]]:
    """The table of one environment, and its records"""
    other = "iqm" if center == "mean" else "mean"
    final, digits = FINAL[metric]
    head = ["method", "n", f"AUC, {center_name(center)} (95 %)", f"AUC, {center_name(other)}", final]
    if task.base:
        head += [f"% of {task.base} (95 %)", f"P(better than {task.base}) (95 %)"]
    records = []
    rows = []
    for method, group in task.methods.items():
        record = task_record(task, method, center, metric)
        area = with_interval(record[center], record["low"], record["high"], digits)
        row = [method, str(len(group)), area, number(record[other], digits), number(record["final"], digits)]
        if task.base:
            row += comparison(record)
        records.append(record)
        rows.append(row)
    steps = f"from step {task.first:,.0f} to {task.last:,.0f}"
    title = f"{task.label}: area under the {CURVES[metric]} curve {steps}"
    return (title, head, rows), records


def task_record(task: Task, method: str, center: str, metric: str) -> dict:
    """The figures of a method in one environment"""
    areas = task.areas(method)
    least, most = RANGES[metric]
    low, high = bootstrap([areas], lambda drawn: CENTERS[center](drawn[0])).clip(least, most)
    record = {"environment": task.env, "steps": task.budget, "first": int(task.first), "last": int(task.last)}
    record |= {"method": method, "n": len(areas), "center": center, "low": low, "high": high}
    for name, function in CENTERS.items():
        record[name] = function(areas)
    record["final"] = task.finals(method, metric).mean()
    record["reference"] = task.base
    return record | against([task], [method], CENTERS[center], least)


def pool_table(
    pool: list[Task], methods: dict[str, list[str]], center: str, metric: str
) -> tuple[tuple, list[dict]]:
    """The table of several environments, and its records"""
    first = pool[0]
    base = first.base
    if any(task.base != base for task in pool):
        # Its K differs between environments.
        base = first.methods[base][0].name
    envs = ", ".join(task.env for task in pool)
    least, _ = RANGES[metric]
    records = []
    rows = []
    for method, labels in methods.items():
        n = sum(len(task.methods[label]) for task, label in zip(pool, labels))
        record = {"environment": envs, "steps": first.budget, "method": method}
        record |= {"n": n, "center": center, "reference": base}
        record |= against(pool, labels, CENTERS[center], least)
        records.append(record)
        rows.append([method, str(n), *comparison(record)])
    percents = f"% of {base}, {center_name(center)} (95 %)"
    head = ["method", "n", percents, f"P(better than {base}) (95 %)"]
    return (f"{pool_name(pool)}: mean over environments", head, rows), records


def center_name(center: str) -> str:
    """As a reader knows it"""
    return "IQM" if center == "iqm" else center


def comparison(record: dict) -> list[str]:
    """The cells of a record's percent and probability of improvement"""
    percents = with_interval(record["percent"], record["percent_low"], record["percent_high"])
    chances = with_interval(record["better"], record["better_low"], record["better_high"], 2)
    return [percents, chances]
