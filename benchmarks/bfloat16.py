"""Does PMOE-SAC learn as well with its matrix products in bfloat16?

    python benchmarks/bfloat16.py FOLDER --workers 2

FOLDER gets a fork of pmoe_sac.py with one line more, a grid, its 320 runs and their areas. Started again, it
goes on. 32 million steps take about 32 hours of a core.

Stated before the first run: bfloat16 learns as well if the 90 % interval of its area in percent of float32's,
on average over both tasks and both K, lies within 90 and 110 (two one-sided tests at 5 %). It learns worse if
the whole interval lies below 100. Both may hold: then it is worse by less than a tenth. If neither holds, the
runs do not tell.

Why 40 seeds: areas of seeds differ by 30 % (standard deviation of SAC and PMOE-SAC in results/table2, over
50,000 steps of Hopper). If that holds here, 40 seeds show in four of five cases that equal methods are equal.
Ten would leave 10 or 11 % to each side, and hardly ever show it.
"""

import csv
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from bfloat16_gradients import multiplies_in_bfloat16
from rich.console import Console
from rich.table import Table

from pmoe.plots.tables import with_interval

NORMAL = 1.644854  # the 95 % quantile of the normal distribution
FLOAT32 = "sac"
BFLOAT16 = "bfloat16_sac"
LINE = 'torch.set_float32_matmul_precision("medium")'
SEEDS = list(range(1, 41))
GRID = f"""\
# SAC and PMOE-SAC with products in float32 and in bfloat16; benchmarks/bfloat16.py writes the fork.
seed = {SEEDS}
seeds_per_process = 5
total_timesteps = 100_000

[plot]
auc = true

[[method]]  # the paper's K
algo = ["./bfloat16_sac.py", "sac"]
env = "Hopper-v4"
k = [1, 4]

[[method]]
algo = ["./bfloat16_sac.py", "sac"]
env = "HalfCheetah-v4"
k = [1, 2]
"""

Areas = dict[tuple[str, str], dict[str, list[float]]]  # of an environment and K, by algorithm


@dataclass
class Args:
    folder: tyro.conf.Positional[Path]
    workers: int = 1  # processes of one thread each


def write(folder: Path) -> None:
    """The fork and the grid, unless they are there"""
    if (folder / "grid.toml").exists():
        return
    text = (Path(__file__).parents[1] / "pmoe_sac.py").read_text()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{BFLOAT16}.py").write_text(text.replace("\nALGO = ", f"\n{LINE}\nALGO = ", 1))
    (folder / "grid.toml").write_text(GRID)


def pmoe(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "pmoe", *words], cwd=folder, check=True)


def read(file: Path) -> Areas:
    """The areas in auc_runs.csv, as `pmoe plot --auc` writes it"""
    areas: Areas = defaultdict(lambda: defaultdict(list))
    with open(file, newline="") as rows:
        for row in csv.DictReader(rows):
            algo, k = Path(row["path"]).parts[-2].split("-k")
            areas[row["environment"], f"K = {k}"][algo].append(float(row["auc"]))
    return areas


def ratio(half: np.ndarray, full: np.ndarray) -> tuple[float, float]:
    """Of the means of two groups of runs, and its standard error (by the delta method)"""
    value = half.mean() / full.mean()
    variance = 0.0
    for areas in (half, full):
        variance += areas.var(ddof=1) / len(areas) / areas.mean() ** 2
    return float(value), float(value * variance**0.5)


def percent(value: float, error: float) -> str:
    """With its 90 % interval"""
    low, high = value - NORMAL * error, value + NORMAL * error
    return with_interval(100 * value, 100 * low, 100 * high, 1)


def report(areas: Areas) -> None:
    table = Table("task", "", "seeds", "float32", "bfloat16", "percent (90 % interval)")
    ratios = []
    errors = []
    for (environment, k), methods in sorted(areas.items()):
        half = np.array(methods[BFLOAT16])
        full = np.array(methods[FLOAT32])
        value, error = ratio(half, full)
        ratios.append(value)
        errors.append(error)
        seeds = f"{len(full)}, {len(half)}"
        table.add_row(
            environment, k, seeds, f"{full.mean():.1f}", f"{half.mean():.1f}", percent(value, error)
        )

    average = sum(ratios) / len(ratios)
    error = sum(error**2 for error in errors) ** 0.5 / len(errors)
    table.add_row("average", "", "", "", "", percent(average, error))
    Console().print(table)


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    if not multiplies_in_bfloat16():
        sys.exit("error: this processor does not multiply in bfloat16")
    write(args.folder)
    pmoe(args.folder, "grid", "grid.toml", "--workers", str(args.workers))
    pmoe(args.folder, "plot", "grid.toml", "--auc", "--out", ".")
    report(read(args.folder / "auc_runs.csv"))


if __name__ == "__main__":
    main()
