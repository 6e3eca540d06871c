"""Tables 2 to 4 of arXiv 2104.09122 in their layout, with its printed numbers beside what the runs give."""

import csv
from pathlib import Path

from .auc import Task, across, against, compare, comparison
from .runs import Run
from .stats import CENTERS
from .tables import write

PRINTED = Path(__file__).with_name("paper_results.csv")  # item, env, method, setting, value, std, unit
TABLES = {  # the reference, and what the numbers are
    "table2": ("SAC", "Table 2: area under the learning curve in percent of SAC's"),
    "table3": ("DAC", "Table 3: area under the learning curve in percent of DAC's"),
    "table4": ("PMOE-SAC K=2", "Table 4: area under the learning curve by K, in percent of that of K = 2"),
}
PRINTED_K = {("PMOE-SAC", "HalfCheetah"): 2, ("PMOE-SAC", "HumanoidStandup"): 10}  # of tables 2 and 3; else 4
PRINTED_K |= {("PMOE-PPO", "Humanoid"): 8, ("PMOE-PPO", "HumanoidStandup"): 8}


def report(runs: list[Run], out: Path, center: str) -> list[Path]:
    """Writes and prints OUT/table2 to table4 as .csv, .md and .tex, each where its reference and another of its methods
    have runs on a -v4 environment, the counterpart of the paper's -v2; returns the files."""
    with open(PRINTED) as file:
        printed = list(csv.DictReader(file))
    files = []
    for item, (reference, title) in TABLES.items():
        values = {(p["env"], p["method"], p["setting"]): p["value"] for p in printed if p["item"] == item}
        mine = [run for run in runs if run.env.endswith("-v4") and key(item, run) in values]
        tasks = [task for task in compare(mine, reference)[0] if task.has_percents and len(task.methods) > 1]
        if tasks:
            records, columns = cells(item, tasks, values, CENTERS[center])
            files += write(out / item, records, [layout(item, title, tasks, columns)])
    return files


def key(item: str, run: Run) -> tuple[str, str, str]:
    """Where a run's method stands in the printed table: environment, method, setting"""
    return run.env.removesuffix("-v4"), run.name, f"k={run.args['k']}" if item == "table4" else ""


def cells(item: str, tasks: list[Task], values: dict, center) -> tuple[list[dict], dict[str, list[tuple[str, str]]]]:
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
            records.append(
                {"environment": task.env, "steps": task.budget, "method": label, "n": len(task.areas[label])}
            )
            records[-1] |= {name: x for name, x in figures.items() if name.startswith("percent")}
            records[-1] |= {"printed": float(value), "printed_k": k if item != "table4" else run.args["k"]}
    return records, table


def layout(item: str, title: str, tasks: list[Task], table: dict[str, list[tuple[str, str]]]) -> tuple:
    """Title, head and rows: environments along the columns or, in table 4, K; below each row the printed one"""
    twice = {task.env for task in tasks if sum(task.env == other.env for other in tasks) > 1}
    names = [task.env + (f", {task.budget:,} steps" if task.env in twice else "") for task in tasks]
    if item == "table4":
        by_task = zip(names, zip(*table.values()))
        lines = [(name, pairs) for name, pairs in by_task]
        names = [method.removeprefix("PMOE-SAC ") for method in table]
    else:
        lines = table.items()
    rows = [row for name, pairs in lines for row in zip((name, "  printed"), *pairs)]
    return title, ["", *names], [list(row) for row in rows]
