"""What the papers claim of one method against another, held against the runs in results/.

    python benchmarks/claims.py

It writes results/claims/claims.md, .csv and .tex, from the CSV files there alone. In each row the claim is
that the first method has the larger area. The row agrees where the whole 95 % interval of the area in percent
of the other's lies above 100, and contradicts where it lies below. Where the percentage has no interval, as
the other's area may be 0, the probability of improvement decides, against 0.5.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from pmoe.plots.auc import FOOT, Task, against, compare, comparison, pools
from pmoe.plots.runs import Run, find, grouped
from pmoe.plots.stats import bootstrap, improvement, improvement_interval, mean
from pmoe.plots.tables import write

ROOT = Path(__file__).parents[1]


@dataclass
class Args:
    out: Path = ROOT / "results/claims"  # folder for the table


@dataclass
class Claim:
    """That a method has a larger area than others, and the folders of results that have runs of both"""

    text: str
    method: str
    others: tuple[str, ...]
    folders: tuple[str, ...]


# At alpha = 1 the mean actions, which areas are made of, return next to nothing.
UNSHAPED = ("unshaped-alpha0.1", "unshaped-alpha0.01", "unshaped-alpha0.001")
PRINTED = "PMOE-SAC K=4 backprop=max entropy=primitive"
WITH_BASELINE = "REINFORCE K=5 baseline_samples=5"
WITHOUT_BASELINE = "REINFORCE K=5 baseline_samples=0"
NOISY = "PMOE-SAC K=4"  # what is to keep more of its return under noise than others
CLAIMS = [
    Claim("PMOE, table 2", "PMOE-SAC K=4", ("SAC", "MCP-SAC K=4", "Gating K=4"), ("table2",)),
    Claim("PMOE, figure 11", "PMOE-SAC K=4", ("Gumbel K=4", "REINFORCE K=4"), ("table2",)),
    Claim("PMOE, table 3", "PMOE-PPO K=4", ("DAC K=4", "MCP-PPO K=4"), ("table3",)),
    Claim("PMOE, figure 12", "PMOE-PPO K=4", ("PPO",), ("table3",)),
    Claim("PMOE, unshaped rewards", "PMOE-SAC K=5", ("SAC", "Gumbel K=5", WITH_BASELINE), UNSHAPED),
    Claim("PMOE, several optima", PRINTED, ("SAC", "Gumbel K=4"), ("bumps",)),
    Claim("MRP, MuJoCo", "MRP K=4 alpha=0.2", ("SAC", "Gumbel K=4", "REINFORCE K=4"), ("table2",)),
    Claim("MRP, MuJoCo", "MRP K=4 alpha=auto", ("SAC", "Gumbel K=4", "REINFORCE K=4"), ("table2",)),
    Claim("MRP, unshaped rewards", "MRP K=5", ("SAC", WITH_BASELINE, WITHOUT_BASELINE), UNSHAPED),
    Claim("MRP, several optima", "MRP K=4", ("SAC", "Gumbel K=4"), ("bumps",)),
]


def verdict(record: dict) -> str:
    low, high, equal = record["percent_low"], record["percent_high"], 100.0
    if np.isnan(low):
        low, high, equal = record["better_low"], record["better_high"], 0.5
    if low > equal:
        return "agrees"
    if high < equal:
        return "contradicts"
    return "cannot tell"


def record_of(environment: str, tasks: list[Task], claim: Claim, other: str) -> dict:
    """One row of the table"""
    n = sum(len(task.methods[claim.method]) for task in tasks)
    record = {"claim": claim.text, "environment": environment, "steps": tasks[0].budget, "n": n}
    record |= {"method": claim.method, "other": other}
    record |= against(tasks, [claim.method] * len(tasks), mean)
    return record | {"verdict": verdict(record)}


def records_of(claim: Claim, folder: str, runs: list[Run]) -> list[dict]:
    """Rows of a claim, of each environment and of the mean over those that may be pooled"""
    records = []
    methods = {run.method for run in runs}
    for other in claim.others:
        if other not in methods:
            continue
        tasks, _ = compare([run for run in runs if run.method in (claim.method, other)], other)
        for task in tasks:
            records.append(record_of(task.env, [task], claim, other))
        for pool in pools(tasks):
            if len(pool) > 1:
                records.append(record_of(f"mean of {len(pool)} tasks", pool, claim, other))
    return [record | {"folder": folder} for record in records]


def noise_records() -> list[dict]:
    """Rows of table 5, from results/table5: which share of its return a policy keeps under noise"""
    with open(ROOT / "results/table5/eval.csv", newline="") as file:
        found = grouped(csv.DictReader(file), lambda row: (float(row["noise"]), row["method"]))
    returns = {}
    for key, rows in found.items():
        returns[key] = np.array([float(row["return_mean"]) for row in rows])
    return [noise_record(returns, *key) for key in returns if key[0] and key[1] != NOISY]


def noise_record(returns: dict[tuple, np.ndarray], noise: float, other: str) -> dict:
    def kept(method: str, seeds: np.ndarray) -> np.ndarray:
        """Share of the mean return of seeds (..., n)"""
        return returns[noise, method][seeds].mean(-1) / returns[0, method][seeds].mean(-1)

    def percent(drawn: list[np.ndarray]) -> np.ndarray:
        ours, theirs = drawn
        return 100 * kept(NOISY, ours) / kept(other, theirs)

    n = len(returns[noise, NOISY])
    seeds = [np.arange(n), np.arange(len(returns[noise, other]))]
    low, high = bootstrap(seeds, percent)
    record = {
        "claim": f"PMOE, table 5, noise of {noise}",
        "environment": "Hopper-v4",
        "steps": 50_000,
        "n": n,
    }
    record |= {"method": NOISY, "other": other}
    record |= {"percent": percent(seeds), "percent_low": low, "percent_high": high}

    each = [returns[noise, method] / returns[0, method] for method in (NOISY, other)]
    low, high = improvement_interval(*each)
    record |= {"better": improvement(*each), "better_low": low, "better_high": high}
    return record | {"verdict": verdict(record), "folder": "table5"}


def row_of(record: dict) -> list[str]:
    percent, better = comparison(record)
    steps = f"{record['steps']:,}"
    task = [record["other"], record["environment"], steps, str(record["n"])]
    return [*task, percent, better, record["verdict"], record["folder"]]


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    records = []
    for claim in CLAIMS:
        for folder in claim.folders:
            runs, _ = find([ROOT / "results" / folder])
            records += records_of(claim, folder, runs)

    records += noise_records()
    tables = []
    head = ["than", "task", "steps", "n", "percent (95 %)", "P(better) (95 %)", "verdict", "results/"]
    for (text, method), group in grouped(records, lambda record: (record["claim"], record["method"])).items():
        what = "keeps more of its return" if "noise" in text else "has more area"
        title = f"{text}: {method} {what}"
        tables.append((title, head, [row_of(record) for record in group]))
    write(args.out / "claims", records, tables, FOOT)


if __name__ == "__main__":
    main()
