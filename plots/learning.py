"""What `pmoe plot PATH...` does: reads the runs, says what it read, plots and tabulates, and says what it
left out."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from rich.text import Text

from ..terminal import console
from . import auc, curves, paper, profile
from .runs import OptionError, PlotError, Run, few, find, overview, relabel

# The files that it writes
PATTERNS = ["auc*", "table[2-4].*", "profile.*", "curves.*"]
PATTERNS += ["routing*", "primitives*", "tsne*", "trajectories*", "exploration*", "modes*"]


def report(
    paths: list[Path],
    out: Path,
    *,
    areas: bool = False,
    profiles: bool = False,
    reference: str | None = None,
    default_reference: str | None = None,
    metric: str = "eval",
    center: str = "mean",
    show_seeds: bool = False,
    smooth: int = 1,
    x: str = "steps",
    labels: Sequence[str] = (),
    printed: bool = False,
    analyses: Sequence = (),
) -> list[Path]:
    """Writes what was asked for below `out` and returns the files. Percents are of the method `reference`, or
    of the `default_reference` if that has runs already; `labels` are names of methods as `runs.relabel` takes
    them; with `printed` the paper's numbers stand below runs of any length; `analyses` are functions (runs,
    out) -> (files, notes) that show policies. PlotError: there is nothing to plot, or no such reference."""
    runs, notes = find(paths, metric)
    if not runs:
        raise PlotError(few(notes))
    relabel(runs, labels)
    if reference:
        reference = auc.reference_name(runs, reference)
    elif default_reference:
        try:
            reference = auc.reference_name(runs, default_reference)
        except PlotError as error:
            notes.append(f"{error}; percents are of the default")
    table, on_runs = overview(runs, metric)
    console().print(table)

    files, on_policies, failures = analyse(runs, out, analyses)
    if failures and not files and not areas and not profiles:
        raise PlotError("; ".join(dict.fromkeys(failures)))

    written, on_curves = curves.plot(runs, out, metric, center, show_seeds, smooth, x)
    files += written
    notes += on_runs + on_curves
    if areas or profiles:
        tasks, on_tasks = auc.compare(runs, reference, center)
        notes += on_tasks
    if areas:
        written, on_areas = auc.report(tasks, out, center, metric, notes)
        files += written
        notes += on_areas
        # The paper's tables are of returns.
        if metric != "success":
            written, on_tables = paper.report(runs, out, center, metric, printed)
            files += written
            notes += on_tables
    if profiles:
        written, on_profiles = profile.plot(tasks, runs, out, center)
        files += written
        notes += on_profiles
    notes += earlier(out, files)
    for note in dict.fromkeys(notes + on_policies + failures):
        console().print(Text("note ", "yellow") + Text(note), soft_wrap=True)
    return files


def analyse(runs: list[Run], out: Path, analyses: Sequence) -> tuple[list[Path], list[str], list[str]]:
    """The files of the figures of policies, notes on them, and why others cannot be"""
    files = []
    notes = []
    failures = []
    with_policies = [run for run in runs if not run.export]
    exports = dict.fromkeys(str(run.export) for run in runs if run.export)
    if analyses and exports:
        where = ", ".join(exports)
        lines = notes if with_policies else failures
        lines.append(f"exports have no policies, whose figures need run directories: {where}")
    if not with_policies:
        return files, notes, failures
    for analysis in analyses:
        try:
            written, found = analysis(with_policies, out)
        except OptionError:
            raise
        except PlotError as error:
            failures.append(str(error))
        else:
            files += written
            notes += found
    return files, notes, failures


def earlier(out: Path, files: list[Path]) -> list[str]:
    """A note on what an earlier call wrote and this one did not"""
    written = {file.name for file in files}
    found = {file.name for pattern in PATTERNS for file in out.glob(pattern)}
    old = sorted(found - written)
    if not old:
        return []
    return [f"{out} has {', '.join(old)} of an earlier call"]


def analyses(
    wanted: dict[str, bool],
    episodes: int | None,
    states: int,
    part: dict | None = None,
    only_primitives: str | None = None,
) -> list[Callable]:
    """Functions (runs, out) -> (files, notes) that plot the figures of policies that are wanted; `part` has
    from, to and moments of --routing; without `episodes` each figure has its own number of them. PlotError: a
    library is missing, or there is no such part."""
    if part and not wanted["routing"]:
        raise PlotError("--from, --to and --moments are for --routing")
    number = {} if episodes is None else {"episodes": episodes}
    options: dict[str, dict] = {
        # First, as the runs may lack its primitives.
        "trajectories": {**number, "only": only_primitives},
        "routing": dict(number),
        "primitives": number,
        "modes": number,
        "tsne": {"count": states},
        "exploration": {},
    }
    functions: list[Callable] = []
    for name, arguments in options.items():
        if not wanted.get(name):
            continue
        module = import_module(f"{__package__}.{name}")
        if name == "routing":
            arguments["part"] = module.read_part(part or {})
        if name == "tsne":
            module.check()
        functions.append(partial(module.report, **arguments))
    return functions
