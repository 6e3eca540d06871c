"""Tables 2 to 4 of arXiv 2104.09122 in their layout, with its printed numbers below what runs as long as its
own give."""

import csv
from dataclasses import dataclass
from pathlib import Path

from .auc import FOOT, Task, across, against, comparison, new_task, shortened
from .runs import Run, grouped
from .stats import CENTERS
from .tables import write

PRINTED = Path(__file__).with_name("paper_results.csv")  # item, env, method, setting, value, std, unit
TABLES = {  # the reference, and what the numbers are
    "table2": ("SAC", "Table 2: area under the {} curve in percent of SAC's"),
    "table3": ("DAC", "Table 3: area under the {} curve in percent of DAC's"),
    "table4": ("PMOE-SAC K=2", "Table 4: area under the {} curve by K, in percent of that of K = 2"),
}
LENGTH = 1_000_000  # steps: most axes of its figures 1 and 2 go there
PRINTED_K = {  # of tables 2 and 3; else 4
    ("PMOE-SAC", "HalfCheetah"): 2,
    ("PMOE-SAC", "HumanoidStandup"): 10,
    ("PMOE-PPO", "Humanoid"): 8,
    ("PMOE-PPO", "HumanoidStandup"): 8,
}


@dataclass
class Printed:
    """A table as it is printed"""

    item: str  # table2, table3 or table4
    values: dict[tuple[str, str, str], str]  # by environment, method, setting

    def key(self, run: Run) -> tuple[str, str, str]:
        """Where a run's method stands"""
        setting = f"k={run.args['k']}" if self.item == "table4" else ""
        return printed_env(run), run.name, setting

    def rank(self, name: str) -> int:
        """The place of an environment or a method among the rows and columns"""
        names = dict.fromkeys(name for key in self.values for name in key)
        return list(names).index(name)

    def k(self, run: Run) -> int:
        """The number of primitives that the printed value is of"""
        if self.item == "table4":
            return run.args["k"]
        return PRINTED_K.get((run.name, printed_env(run)), 4)


def printed_env(run: Run) -> str:
    """Its environment's name in the paper"""
    return run.env.removesuffix("-v4")


def read_printed(item: str) -> Printed:
    values = {}
    with open(PRINTED) as file:
        for row in csv.DictReader(file):
            if row["item"] == item:
                values[row["env"], row["method"], row["setting"]] = row["value"]
    return Printed(item, values)


def report(
    runs: list[Run], out: Path, center: str, metric: str, always: bool = False
) -> tuple[list[Path], list[str]]:
    """Writes and prints OUT/table2 to table4 as .csv, .md and .tex, each where its reference and another of
    its methods have runs on a -v4 environment, the counterpart of the paper's -v2; returns the files, and
    notes. Printed numbers stand below runs of the paper's length, or `always`."""
    files = []
    notes = []
    for item, (reference, title) in TABLES.items():
        printed = read_printed(item)
        tasks, cuts = compared(runs, printed, reference)
        if not tasks:
            continue
        number = item.removeprefix("table")
        notes += [f"table {number}: {note}" for note in cuts]

        others = [task for task in tasks if not always and not is_printed_length(task)]
        if others:
            names = ", ".join(f"{task.env} ({task.last:,.0f})" for task in others)
            hint = f"the paper's runs are {LENGTH:,} steps long; --printed shows its numbers"
            notes.append(f"table {number}: no printed numbers below shorter or longer runs: {names}; {hint}")

        shown = {task.env for task in tasks} - {task.env for task in others}
        columns, records = cells(printed, tasks, shown, center)
        curve = "evaluation" if metric == "eval" else "training"
        table = layout(item, title.format(curve), tasks, columns)
        comparisons = "; ".join(extent(task) for task in tasks)
        foot = f"{FOOT} Compared: {comparisons}"
        if shown:
            foot = f"{foot}. Printed: Gym's -v2, the paper's settings, {LENGTH:,} steps in most tasks"
        files += write(out / item, records, [table], foot)
    return files, notes


def compared(runs: list[Run], printed: Printed, reference: str) -> tuple[list[Task], list[str]]:
    """Tasks in the table's order, of the runs that it has, and notes on what ends a comparison early"""
    known = [run for run in runs if run.env.endswith("-v4") and printed.key(run) in printed.values]
    tasks = []
    notes = []
    for group in grouped(known, printed_env).values():
        task = new_task(group, "all", reference)
        if task.first < task.last and task.base and len(task.methods) > 1:
            tasks.append(task)
            notes += shortened(task, group)
    tasks.sort(key=lambda task: printed.rank(task.env.removesuffix("-v4")))
    return tasks, notes


def is_printed_length(task: Task) -> bool:
    """Whether it compares as many steps as the paper; training episodes end a little before the last"""
    return 0.99 * LENGTH <= task.last <= LENGTH


def extent(task: Task) -> str:
    """What is compared in a task"""
    fewest = min(len(group) for group in task.methods.values())
    return f"{task.label} from {task.first:,.0f} to {task.last:,.0f}, {fewest} runs or more"


def cells(
    printed: Printed, tasks: list[Task], shown: set[str], center: str
) -> tuple[dict[str, list], list[dict]]:
    """By method its cell and the printed one in every task, and records; printed ones are empty but of the
    environments where they are `shown`"""
    columns = {}
    names = {}  # in the paper, by method
    records = []
    for method, labels in across(tasks).items():
        columns[method] = []
        for task, label in zip(tasks, labels):
            if not label:
                columns[method].append(("", ""))
                continue
            run = task.methods[label][0]
            names[method] = run.name
            figures = against([task], [label], CENTERS[center])
            value = printed.values[printed.key(run)]
            k = printed.k(run)
            records.append(cell_record(task, label, figures, float(value), k))
            if run.name.startswith("PMOE") and k != run.args["k"]:
                value = f"{value} (K={k})"
            if task.env not in shown:
                value = ""
            percent, _ = comparison(figures)
            columns[method].append((percent, value))

    def rank(method: str) -> int:
        return printed.rank(names[method])

    ordered = {method: columns[method] for method in sorted(columns, key=rank)}
    return ordered, records


def cell_record(task: Task, label: str, figures: dict[str, float], value: float, k: int) -> dict:
    record = {"environment": task.env, "steps": task.budget, "first": int(task.first), "last": int(task.last)}
    record |= {"method": label, "n": len(task.methods[label])}
    for name in ("percent", "percent_low", "percent_high"):
        record[name] = figures[name]
    return record | {"printed": value, "printed_k": k}


def layout(item: str, title: str, tasks: list[Task], columns: dict[str, list[tuple[str, str]]]) -> tuple:
    """Title, head and rows: environments along the columns or, in table 4, K; below each row the printed
    one, if that is shown"""
    envs = [task.env for task in tasks]
    lines: list[tuple]
    if item == "table4":
        head = [method.removeprefix("PMOE-SAC ") for method in columns]
        lines = list(zip(envs, zip(*columns.values())))
    else:
        head = envs
        lines = list(columns.items())
    rows = []
    for name, pairs in lines:
        rows.append([name, *(percent for percent, _ in pairs)])
        values = [value for _, value in pairs]
        if any(values):
            rows.append(["  printed", *values])
    return title, ["", *head], rows
