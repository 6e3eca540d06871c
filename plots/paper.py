"""Tables 2 to 4 of arXiv 2104.09122 in their layout, with its printed numbers below what the runs give."""

import csv
from collections.abc import Callable
from pathlib import Path

from .auc import FOOT, Task, across, against, compare, comparison
from .runs import Run
from .stats import CENTERS
from .tables import write

PRINTED = Path(__file__).with_name("paper_results.csv")  # item, env, method, setting, value, std, unit
TABLES = {  # the reference, and what the numbers are
    "table2": ("SAC", "Table 2: area under the {} curve in percent of SAC's"),
    "table3": ("DAC", "Table 3: area under the {} curve in percent of DAC's"),
    "table4": ("PMOE-SAC K=2", "Table 4: area under the {} curve by K, in percent of that of K = 2"),
}
PRINTED_K = {("PMOE-SAC", "HalfCheetah"): 2, ("PMOE-SAC", "HumanoidStandup"): 10}  # of tables 2 and 3; else 4
PRINTED_K |= {("PMOE-PPO", "Humanoid"): 8, ("PMOE-PPO", "HumanoidStandup"): 8}


def report(runs: list[Run], out: Path, center: str, metric: str) -> tuple[list[Path], list[str]]:
    """Writes and prints OUT/table2 to table4 as .csv, .md and .tex, each where its reference and another of its methods
    have runs on a -v4 environment, the counterpart of the paper's -v2; returns the files, and notes."""
    with open(PRINTED) as file:
        printed = list(csv.DictReader(file))
    files, notes = [], []
    for item, (reference, title) in TABLES.items():
        values = {(p["env"], p["method"], p["setting"]): p["value"] for p in printed if p["item"] == item}
        places = {name: i for i, name in enumerate(dict.fromkeys(name for key in values for name in key))}
        mine = [run for run in runs if run.env.endswith("-v4") and key(item, run) in values]
        tasks, more = compare(mine, reference, center)
        tasks = [task for task in tasks if task.base and len(task.methods) > 1]
        if not tasks:
            continue
        notes += [f"table {item[-1]}: {note}" for note in more if "areas up to" in note]
        tasks.sort(key=lambda task: places[task.env.removesuffix("-v4")])
        records, columns = cells(item, tasks, values, CENTERS[center])
        columns = dict(sorted(columns.items(), key=lambda column: places[column[0].partition(" K=")[0]]))
        title = title.format("evaluation" if metric == "eval" else "training")
        foot = f"{FOOT} Printed: Gym's -v2, the paper's settings. Compared: " + "; ".join(
            f"{t.label} from {t.first:,.0f} to {t.last:,.0f}, {len(min(t.methods.values(), key=len))} runs or more"
            for t in tasks
        )
        files += write(out / item, records, [layout(item, title, tasks, columns)], foot)
    return files, notes


def key(item: str, run: Run) -> tuple[str, str, str]:
    """Where a run's method stands in the printed table: environment, method, setting"""
    return run.env.removesuffix("-v4"), run.name, f"k={run.args['k']}" if item == "table4" else ""


def cells(item: str, tasks: list[Task], values: dict, center: Callable) -> tuple[list[dict], dict[str, list]]:
    """Records, and by method its cell and the printed one in every task"""
    records, table = [], {}
    for method, labels in across(tasks).items():
        table[method] = []
        for task, label in zip(tasks, labels):
            if label is None:
                table[method].append(("", ""))
                continue
            run, figures = task.methods[label][0], against([task], [label], center)
            value, k = values[key(item, run)], PRINTED_K.get((run.name, run.env.removesuffix("-v4")), 4)
            other = run.name.startswith("PMOE") and item != "table4" and k != run.args["k"]
            table[method].append((comparison(figures)[0], value + (f" (K={k})" if other else "")))
            records.append({"environment": task.env, "steps": task.budget, "first": int(task.first)})
            records[-1] |= {"last": int(task.last), "method": label, "n": len(task.methods[label])}
            records[-1] |= {name: x for name, x in figures.items() if name.startswith("percent")}
            records[-1] |= {"printed": float(value), "printed_k": run.args["k"] if item == "table4" else k}
    return records, table


def layout(item: str, title: str, tasks: list[Task], table: dict[str, list[tuple[str, str]]]) -> tuple:
    """Title, head and rows: environments along the columns or, in table 4, K; below each row the printed one"""
    twice = {task.env for task in tasks if sum(task.env == other.env for other in tasks) > 1}
    names = [task.env + (f", {task.budget:,} steps" if task.env in twice else "") for task in tasks]
    lines = table.items()
    if item == "table4":
        lines = list(zip(names, zip(*table.values())))
        names = [method.removeprefix("PMOE-SAC ") for method in table]
    rows = [list(row) for name, pairs in lines for row in zip((name, "  printed"), *pairs)]
    return title, ["", *names], rows
