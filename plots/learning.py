"""What `pmoe plot PATH...` does: reads the runs, says what it read, draws and tabulates, and says what it left out."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from rich.text import Text

from . import auc, curves, paper, profile
from .runs import PlotError, find, overview
from .tables import console

OWN = ("auc*", "table[2-4].*", "profile.*", "curves.*")  # what it writes
OWN += ("routing*", "primitives*", "tsne*", "trajectories*", "exploration*")


def report(
    paths: list[Path],
    out: Path,
    *,
    areas: bool = False,
    profiles: bool = False,
    reference: str | None = None,
    usual: str | None = None,
    metric: str = "eval",
    center: str = "mean",
    show_seeds: bool = False,
    smooth: int = 1,
    x: str = "steps",
    analyses: Sequence = (),
) -> list[Path]:
    """Writes what was asked for below `out` and returns the files. Percents are of the method `reference`, or of the
    `usual` one if that has runs already; `analyses` are functions (runs, out) -> (files, notes) that show policies.
    PlotError: there is nothing to draw, or no such reference."""
    runs, notes = find(paths, metric)
    if not runs:
        raise PlotError("; ".join([*notes[:3], f"and {len(notes) - 3} more"] if len(notes) > 4 else notes))
    if reference:
        reference = auc.reference_name(runs, reference)
    elif usual:
        try:
            reference = auc.reference_name(runs, usual)
        except PlotError as error:
            notes.append(f"{error}; percents are of the default")
    table, more = overview(runs, metric)
    console().print(table)
    files, shown, failed = [], [], []
    for analysis in analyses:
        try:
            written, said = analysis(runs, out)
            files, shown = files + written, shown + said
        except PlotError as error:
            failed.append(str(error))
    if failed and not files and not areas and not profiles:
        raise PlotError("; ".join(dict.fromkeys(failed)))
    written, unseen = curves.draw(runs, out, metric, center, show_seeds, smooth, x)
    files, notes = files + written, notes + more + unseen
    if areas:
        written, more = auc.report(runs, out, reference, center, metric, notes)
        files, notes = files + written, notes + more
        written, more = paper.report(runs, out, center, metric)
        files, notes = files + written, notes + more
    if profiles:
        written, more = profile.draw(runs, out, reference, center)
        files, notes = files + written, notes + more
    old = {file.name for pattern in OWN for file in out.glob(pattern)} - {file.name for file in files}
    if old:
        notes.append(f"{out} has {', '.join(sorted(old))} of an earlier call")
    for note in dict.fromkeys(notes + shown + failed):
        console().print(Text("note ", "yellow") + Text(note), soft_wrap=True)
    return files


def analyses(wanted: dict[str, bool], episodes: int, states: int) -> list[Callable]:
    """Functions (runs, out) -> (files, notes) that draw the figures of policies that are wanted. PlotError: a library
    is missing."""
    takes = {"routing": {"episodes": episodes}, "primitives": {"episodes": episodes}, "tsne": {"count": states}}
    takes |= {"trajectories": {"episodes": episodes}, "exploration": {}}
    modules = {name: import_module(f"{__package__}.{name}") for name in takes if wanted[name]}
    if "tsne" in modules:
        modules["tsne"].check()
    return [partial(module.report, **takes[name]) for name, module in modules.items()]
