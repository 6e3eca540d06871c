"""What `pmoe export PATH... -o FILE.csv` does: writes what curves and tables need of many runs into two small
files, which `pmoe plot` reads like the runs."""

from pathlib import Path

from ..algorithms import ALGORITHMS
from ..files import exports, read_config, read_done, read_text, write_whole
from ..terminal import tracked
from .runs import LONGEST, PlotError, few, new_run, search


def report(paths: list[Path], file: Path) -> tuple[list[str], str]:
    """Writes FILE.csv and FILE.runs.csv of the runs below the paths; returns notes on what is left out, and
    how much is written. PlotError: there are no runs, or two would have one name."""
    directories, others, notes = search(paths)
    notes += [f"{other} is an export already; left out" for other in others]
    records = []
    for directory in tracked(directories, "reading runs"):
        try:
            records.append(read(directory))
        except PlotError as error:
            notes.append(f"{directory}: {error}; left out")
    if not records:
        raise PlotError(few(notes))
    check_names(records)

    curves, runs = exports.write(records)
    write_whole(exports.runs_file(file), runs.encode())
    write_whole(file, curves.encode())
    return notes, summary(records)


def read(directory: Path) -> exports.Record:
    """What a run directory holds of its curve. PlotError: why it cannot be read."""
    run = new_run(directory)
    config = read_config(directory / "config.json")
    if config["algo"] in ALGORITHMS:
        # It tells forks apart, and is a path on this machine.
        config.pop("file", None)
    file = directory / "eval.csv"
    try:
        rows = exports.read_rows(read_text(file, LONGEST, errors="replace"))
        written = file.stat().st_mtime
    except OSError as error:
        raise PlotError(f"eval.csv cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise PlotError(f"eval.csv {error}") from None
    try:
        finished = read_done(directory)
    except ValueError:
        finished = None
    return exports.Record(shown(directory), run.tag, config, rows, finished, written)


def shown(directory: Path) -> Path:
    """A path that ends in the names of the run's directories, as one does not that is a link or a dot"""
    real = directory.resolve()
    if directory.parts[-2:] == real.parts[-2:]:
        return directory
    return Path(*real.parts[-3:])


def check_names(records: list[exports.Record]) -> None:
    """PlotError: two runs cannot be told apart in an export."""
    known: dict[str, Path] = {}
    for record in records:
        other = known.setdefault(record.name, record.path)
        if other != record.path:
            both = f"{other} and {record.path}"
            raise PlotError(f"{both} would both be {record.name}; export one of them, or give it a --tag")


def summary(records: list[exports.Record]) -> str:
    """How many runs are exported, and how many of them are not whole"""
    evaluations = sum(len(record.evaluations) for record in records)
    unfinished = 0
    for record in records:
        last, _ = record.finished or (0, 0.0)
        unfinished += last < record.config["args"]["total_timesteps"]
    runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
    text = f"{runs}, {evaluations:,} evaluations"
    return f"{text}; unfinished: {unfinished}" if unfinished else text
