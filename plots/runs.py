"""Finds runs and reads them, finished or not. What is not as it should be becomes a note, never silence."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from ..algorithms import nearest
from ..files import HIGHEST, exports, read_config, read_done, read_text, visible
from ..terminal import spans, tracked

FILES = {  # by --metric
    "eval": ("eval.csv", "return_mean"),
    "train": ("episodes.csv", "episodic_return"),
    "success": ("eval.csv", "success"),
}
ANY = (-np.inf, np.inf)
RANGES = {"eval": ANY, "train": ANY, "success": (0, 1)}  # what its means can be
CURVES = {"eval": "evaluation", "train": "training", "success": "success"}  # what a curve is called
NAMES = {  # in the papers' legends; with one primitive `sac` is SAC, `ppo` PPO
    "sac": "PMOE-SAC",
    "gating-sac": "Gating",
    "mcp-sac": "MCP-SAC",
    "gumbel-sac": "Gumbel",
    "reinforce-sac": "REINFORCE",
    "mrp-sac": "MRP",
    "amortized-sac": "Amortized",
    "ppo": "PMOE-PPO",
    "mcp-ppo": "MCP-PPO",
    "dac": "DAC",
}
LEGEND = ["SAC", "PPO", *NAMES.values()]  # the order of methods
SEPARATE = {"networks": "separate"}
EARLIER = {"ppo": SEPARATE, "mcp-ppo": SEPARATE}  # what runs had before it was an option
LARGEST = 1e100  # a return; sums and squares of such do not overflow
LONGEST = 2**30  # characters of a CSV file
ENDLESS = ("/proc", "/sys")  # whose links lead everywhere

# Options that stand in the label as they are, or have no say in what is learnt.
FREE = {"env_id", "k", "tag", "seed", "num_seeds", "total_timesteps", "run_dir", "device", "compile", "track"}
FREE |= {"eval_every", "eval_episodes", "checkpoint_every", "keep_checkpoints", "keep_replay"}
FREE |= {"resume", "overwrite"}


class PlotError(ValueError):
    """Why there is nothing to plot, in one line"""


class OptionError(PlotError):
    """An option that these runs do not have: a user's mistake, whatever else could be drawn"""


def few(notes: list[str]) -> str:
    """In one line, the first of many"""
    if len(notes) <= 4:
        return "; ".join(notes)
    return "; ".join([*notes[:3], f"and {len(notes) - 3} more"])


@dataclass
class Run:
    """A run directory and its curve."""

    path: Path
    algo: str
    args: dict
    steps: np.ndarray  # (T,)
    returns: np.ndarray  # (T,)
    age: float  # seconds since the curve was written
    wall_time: float | None  # seconds, of a finished run
    notes: list[str]
    file: str = ""  # the algorithm's, where config.json names it
    source: str = ""  # a hash of its text
    setting: str = ""  # what tells it from others of one algorithm and K; empty for none
    method: str = ""  # what it is called: as `name_methods` does, or the user
    checkpoint: str = "last"  # which policy is asked for: the last, the best, that of a step
    policy: tuple | None = None  # step and actor, as `policies.trained` has loaded them
    untold: str = ""  # why it has no curve of success, which may be as it never had any
    success: dict = field(default_factory=dict)  # by sigma: shares (2,) of `pmoe eval`'s episodes
    export: Path | None = None  # the file that it was read from, if not its directory

    @property
    def env(self) -> str:
        return self.args["env_id"]

    @property
    def seed(self) -> int:
        return self.args["seed"]

    @property
    def budget(self) -> int:
        """Steps it is to make"""
        return self.args["total_timesteps"]

    @property
    def annealed(self) -> bool:
        """Whether what it learns depends on its number of steps"""
        return bool(self.args.get("anneal_lr", False))

    @property
    def folder(self) -> str:
        """The name of the directory that its seeds are in"""
        # Where an export was written is not where it is read.
        path = self.path if self.export else self.path.resolve()
        return path.parent.name

    @property
    def tag(self) -> str:
        """What its directory's name says beside algorithm and K"""
        name = os.fsencode(self.folder).decode(errors="replace")
        plain = f"{self.algo}-k{self.args['k']}"
        return name.removeprefix(plain).removeprefix("-")

    @property
    def family(self) -> str:
        """SAC or PPO, of forks too"""
        return "PPO" if "num_steps" in self.args else "SAC"

    @property
    def name(self) -> str:
        """In the papers' legends; a fork has the name of its file"""
        if self.algo in ("sac", "ppo") and self.args["k"] == 1:
            return self.algo.upper()
        return NAMES.get(self.algo, self.algo)

    @property
    def base(self) -> str:
        """The name with its number of primitives, where that says something"""
        if self.name in ("SAC", "PPO"):
            return self.name
        return f"{self.name} K={self.args['k']}"

    @property
    def settings(self) -> dict:
        """Options that make another method; the number of steps does where it changes what is learnt"""
        settings = {name: value for name, value in self.args.items() if name not in FREE}
        if self.annealed:
            settings["total_timesteps"] = self.budget
        return settings


def grouped(items: Iterable, key: Callable) -> dict:
    """Lists of the items that have one key"""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


# Reading


def find(paths: list[Path], metric: str = "eval") -> tuple[list[Run], list[str]]:
    """The runs below the paths and in exports there that have a curve, and notes on what has none. PlotError:
    an export is damaged, or has no such curve, or two have the same run."""
    directories, files, notes = search(paths)
    if files and metric == "train":
        raise PlotError(f"--metric train: {files[0]} is an export, which has no training episodes")
    runs = []
    for directory in tracked(directories, "reading runs"):
        try:
            runs.append(read(directory, metric))
        except PlotError as error:
            notes.append(f"{directory}: {error}; left out")
    for file, record in records_of(files):
        try:
            runs.append(read_record(file, record, metric))
        except PlotError as error:
            notes.append(f"{record.path}: {error}; left out")
    runs = failures(runs, notes)
    return name_methods(runs, notes), notes


def failures(runs: list[Run], notes: list[str]) -> list[Run]:
    """The runs that have a curve; and those without a column of success whose environment tells it in other
    runs, as one that tells nothing but success: theirs is 0. Notes on both kinds."""
    telling = {run.env for run in runs if not run.untold}
    kept = []
    for run in runs:
        if run.untold and run.env not in telling:
            notes.append(f"{run.path}: {run.untold}; left out")
            continue
        if run.untold:
            reason = f"other runs of {run.env} have that column, so that its success counts as 0"
            notes.append(f"{run.path}: {run.untold}; {reason}")
        kept.append(run)
    return kept


def records_of(files: list[Path]) -> list[tuple[Path, exports.Record]]:
    """The runs of exports, each with its export. PlotError: one is damaged, or two have the same run."""
    found = []
    holders: dict[str, Path] = {}
    for file in files:
        try:
            records = exports.read(file)
        except ValueError as error:
            raise PlotError(str(error)) from None
        for record in records:
            other = holders.setdefault(record.name, file)
            if other != file:
                raise PlotError(f"{other} and {file} both have {record.name}; name one of them")
            found.append((file, record))
    return found


def search(paths: list[Path]) -> tuple[list[Path], list[Path], list[str]]:
    """The run directories at and below the paths; exports, where a path is one or there is no run below it;
    and notes on paths without any."""
    directories = {}
    files = {}
    notes = []
    for path in paths:
        if path.suffix == ".csv" and path.is_file():
            files.setdefault(os.path.realpath(path), path)
            continue
        if not path.is_dir():
            reason = "is a file, no folder of runs" if path.exists() else "no such folder"
            notes.append(f"{path}: {reason}")
            continue
        found, exported = below(path, notes)
        if not found and not exported:
            notes.append(f"{path}: no runs there")
        for folder in found:
            directories.setdefault(os.path.realpath(folder), folder)
        # An export of these runs may lie among them.
        if not found:
            for file in exported:
                files.setdefault(os.path.realpath(file), file)
    return list(directories.values()), list(files.values()), notes


def below(path: Path, notes: list[str]) -> tuple[list[Path], list[Path]]:
    """The run directories and the exports at and below a path; folders that cannot be read are added to the
    notes."""
    found = []
    exported = []
    visited = set()

    def note(error: OSError) -> None:
        notes.append(str(error))

    for folder, subfolders, files in os.walk(path, followlinks=True, onerror=note):
        if not {"config.json", "eval.csv", "episodes.csv"}.isdisjoint(files):
            found.append(Path(folder))
        exported += exports.exports_in(Path(folder), files)
        # Links may go in circles.
        place = os.path.realpath(folder)
        if place in visited or is_endless(place):
            subfolders.clear()
        subfolders.sort()
        visited.add(place)
    return found, exported


def is_endless(place: str) -> bool:
    """Whether a folder is one of the system's, where no runs are"""
    return any(Path(place).is_relative_to(system) for system in ENDLESS)


def new_run(directory: Path) -> Run:
    """The run in a directory, its curve not yet read. PlotError: there is none."""
    try:
        config = read_config(directory / "config.json")
    except FileNotFoundError:
        raise PlotError("no run, it has no config.json") from None
    except (OSError, ValueError):
        raise PlotError("no run, its config.json is damaged or of something else") from None
    return run_of(directory, config)


def run_of(path: Path, config: dict) -> Run:
    """The run of a config.json"""
    # Older runs name no file.
    file = config.get("file") or ""
    args = EARLIER.get(config["algo"], {}) | config["args"]
    source = str(config.get("source") or "")
    return Run(path, config["algo"], args, np.zeros(1), np.zeros(1), 0.0, None, [], file, source)


def read(directory: Path, metric: str) -> Run:
    """The run in a directory. PlotError: why there is none."""
    run = new_run(directory)
    name, _ = FILES[metric]
    file = directory / name
    try:
        text = read_text(file, LONGEST, errors="replace")
        run.age = time.time() - file.stat().st_mtime
    except OSError as error:
        raise PlotError(f"{name} cannot be read ({error.strerror})") from None
    add_curve(run, text, metric)

    try:
        done = read_done(directory)
    except ValueError as error:
        run.notes.append(str(error))
        return run
    add_end(run, done, metric)
    return run


def read_record(file: Path, record: exports.Record, metric: str) -> Run:
    """A run of an export. PlotError: why there is none."""
    run = run_of(record.path, record.config)
    run.export = file
    run.age = time.time() - record.written
    add_curve(run, record.curve, metric)
    add_end(run, record.finished, metric)
    return run


def add_curve(run: Run, text: str, metric: str) -> None:
    """Gives a run its curve, of the text of its CSV file. PlotError: there is none."""
    name, column = FILES[metric]
    head, _, _ = text.partition("\n")
    names = head.split(",")
    untold = metric == "success" and column not in names and "step" in names
    try:
        if untold:
            run.untold = f"{name} {no_column(column, head)}"
            run.steps, _, run.notes = read_curve(text, name, "step")
            run.returns = np.zeros(len(run.steps))
            return
        run.steps, run.returns, run.notes = read_curve(text, name, column)
    except ValueError as error:
        raise PlotError(f"{name} {error}") from None


def add_end(run: Run, done: tuple[int, float] | None, metric: str) -> None:
    """Gives a run its wall time if it is finished, by the last step and the seconds of its done.json."""
    if done is None:
        return
    last, wall_time = done
    # A run that is made longer has a larger budget than it had when it was done.
    if last >= run.budget:
        run.wall_time = wall_time
    if metric != "train" and run.steps[-1] < last:
        name, _ = FILES[metric]
        run.notes.append(f"finished, but {name} ends at step {run.steps[-1]:,.0f} of {last:,}")


def read_curve(text: str, name: str, column: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Steps (T,), the column (T,) and notes, of the text of a CSV file of this name; a half-written last line
    is left out. ValueError: there are none."""
    head, _, body = text.partition("\n")
    if not head:
        raise ValueError("is empty")
    names = head.split(",")
    if not {"step", column} <= set(names):
        raise ValueError(no_column(column, head))

    whole, _, rest = body.rpartition("\n")
    notes = []
    if rest:
        notes.append(f"{name} has a half-written last line, left out")
    steps, values = numbers(whole, names, column)

    # NaN is in no range.
    usable = (np.abs(values) <= LARGEST) & (steps >= 0) & (steps <= HIGHEST)
    if not usable.any():
        raise ValueError("has no finite row")
    if not usable.all():
        odd = (~usable).sum()
        notes.append(f"{name}: {odd} of its {len(usable)} rows are not finite or too large, left out")
    steps, values = steps[usable], values[usable]

    backward = np.flatnonzero(np.diff(steps) < 0)
    if len(backward):
        step = steps[backward[0]]
        raise ValueError(f"is damaged: after step {step:.0f} comes an earlier one")

    # Parallel environments end episodes at one step: their mean stands there.
    unique, places = np.unique(steps, return_inverse=True)
    twice = len(steps) - len(unique)
    if twice and column == "return_mean":
        notes.append(f"{name}: {twice} steps stand there more than once, averaged")
    means = np.bincount(places, values) / np.bincount(places)
    return unique, means, notes


def no_column(column: str, head: str) -> str:
    return f"has no column {column!r}: it begins {head[:50]!r}"


def numbers(text: str, names: list[str], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and the column (rows,) of a CSV file's lines below its head. ValueError: why there are none."""
    if not text.strip():
        raise ValueError("has no rows yet")
    lines = text.splitlines()
    commas = np.array([line.count(",") for line in lines])
    wrong = np.flatnonzero(commas != len(names) - 1)
    if len(wrong):
        raise ValueError(f"is damaged: line {wrong[0] + 2} does not have {len(names)} columns")
    columns = (names.index("step"), names.index(column))
    try:
        table = np.loadtxt(lines, delimiter=",", usecols=columns, ndmin=2)
    except ValueError as error:
        reason, *_ = str(error).split(";")
        raise ValueError(f"is damaged: {reason}") from None
    return table[:, 0], table[:, 1]


# Methods


def name_methods(runs: list[Run], notes: list[str]) -> list[Run]:
    """Gives every run its method's label: the paper's name, K, of forks of one name their folder, and, where
    an environment has several configurations of that, the user's tag or else the options that differ. A seed
    that comes twice is left out, with a note."""
    origins = fork_folders(runs)

    def plain_label(run: Run) -> tuple[str, str]:
        origin = origins.get((run.algo, run.file), "")
        return run.base, origin

    for (base, origin), group in grouped(runs, plain_label).items():
        label = f"{base} {origin}".rstrip()
        name_configurations(label, group, notes)
        for run in group:
            run.method = visible(f"{label} {run.setting}".rstrip())
            run.setting = f"{origin} {run.setting}".strip()
    return without_twins(runs, notes)


def fork_folders(runs: list[Run]) -> dict[tuple[str, str], str]:
    """By algorithm and file the folders of forks that share their name with another file, as short as tells
    them apart. The project's own algorithms are the same wherever they are installed."""
    found = {}
    forks = [run for run in runs if run.file and run.algo not in NAMES]
    for algo, group in grouped(forks, lambda run: run.algo).items():
        files = sorted({run.file for run in group})
        if len(files) == 1:
            continue
        folders = [Path(file).parent.parts for file in files]
        deepest = max(map(len, folders))
        for depth in range(1, deepest + 1):
            ends = [parts[-depth:] for parts in folders]
            if len(set(ends)) == len(files):
                break
        for file, end in zip(files, ends):
            # The root of the file system is a part of its own.
            found[algo, file] = "/".join(end).replace("//", "/")
    return found


def name_configurations(label: str, group: list[Run], notes: list[str]) -> None:
    """Gives runs that have one algorithm and K their settings: what differs within an environment."""
    # Older runs lack the newer options.
    known = [set(run.settings) - {"total_timesteps"} for run in group]
    common = set.intersection(*known)
    partly = sorted(set.union(*known) - common)

    different = [name for name in sorted(common) if differs(group, name)]
    tagged = differs(group, "tag")

    def tag_of(run: Run) -> str:
        tag = run.args.get("tag") or ""
        return tag if tagged else ""

    for tag, alike in grouped(group, tag_of).items():
        varied = [name for name in different if differs(alike, name)]
        # A tag stands for its options, unless another folder has it too, for others.
        names = varied if tag else different
        # Of an option that is varied alone, the default is said, too.
        usual = usual_values(group, names) if len(varied) != 1 else {}
        lengths = {run.budget for run in alike if run.annealed}
        for run in alike:
            parts = [tag] if tag else []
            for name in names:
                if str(run.args[name]) != usual.get(name):
                    parts.append(f"{name}={run.args[name]}")
            if run.annealed and len(lengths) > 1:
                parts.append(f"{run.budget:,} steps")
            run.setting = " ".join(parts)

    if partly:
        lacking = ", ".join(partly)
        notes.append(f"{label}: some config.json lack {lacking}, and are taken as by the rest of their name")
        name_by_tag(group)


def differs(group: list[Run], name: str) -> bool:
    """Whether runs of one environment have different values of an option"""
    for runs in grouped(group, lambda run: run.env).values():
        values = {str(run.args.get(name)) for run in runs}
        if len(values) > 1:
            return True
    return False


def usual_values(group: list[Run], names: list[str]) -> dict[str, str]:
    """The values that need not be said: those of runs whose directory has no tag, which are the algorithm's
    defaults, as far as these runs agree"""
    plain = [run for run in group if not run.tag]
    found = {}
    for name in names:
        values = {str(run.args[name]) for run in plain}
        if len(values) == 1:
            found[name] = values.pop()
    return found


def name_by_tag(group: list[Run]) -> None:
    """Tells runs apart that look alike, as something differs that not all of them know: by their directories'
    tags."""
    for alike in grouped(group, lambda run: (run.env, run.setting)).values():
        tags = {run.tag for run in alike}
        if len(tags) == 1:
            continue
        for run in alike:
            run.setting = f"{run.setting} {run.tag}".strip()


def relabel(runs: list[Run], labels: Sequence[str]) -> None:
    """Calls methods as the user does: each label is NAME=TEXT, as in sac-k4-ab12=Mine, where the name is that
    of a folder of seeds or a method's label so far. OptionError: nothing is called so, or two methods of an
    environment would be called alike."""
    methods_of = defaultdict(set)
    for run in runs:
        folder = visible(run.folder)
        methods_of[folder].add(run.method)
        methods_of[run.method].add(run.method)

    texts = {}
    for label in labels:
        name, text = split_label(label, methods_of)
        texts |= dict.fromkeys(methods_of[name], text)
    for env, group in grouped(runs, lambda run: run.env).items():
        methods = dict.fromkeys(run.method for run in group)
        for called, alike in grouped(methods, lambda method: texts.get(method, method)).items():
            if len(alike) > 1:
                both = " and ".join(alike)
                raise OptionError(f"--label: {both} would both be called {called!r}, on {env}")
    for run in runs:
        run.method = texts.get(run.method, run.method)


def split_label(label: str, names: Iterable[str]) -> tuple[str, str]:
    """The name and the text of NAME=TEXT, which may both have a = in them. OptionError: there is none."""
    words = label.split("=")
    for i in range(1, len(words)):
        name = "=".join(words[:i])
        text = "=".join(words[i:]).strip()
        if name in names and text:
            return name, text
    name, *others = words
    if not "".join(others).strip():
        raise OptionError(f"--label {label}: give NAME=TEXT, as in sac-k4=Mine")
    raise OptionError(f"--label {label}: no run is called so; {nearest(name, names)}")


def without_twins(runs: list[Run], notes: list[str]) -> list[Run]:
    """One run of each seed of a method: that which has come furthest, rather a finished one"""

    def rank(run: Run) -> tuple:
        return -run.steps[-1], run.wall_time is None

    kept = []
    for twins in grouped(runs, lambda run: (run.env, run.method, run.seed)).values():
        first, *others = sorted(twins, key=rank)
        kept.append(first)
        for run in others:
            notes.append(f"{run.path}: the same seed of the same method as {first.path}; left out")
    return kept


def by_method(runs: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """{environment: {method: runs}}, methods in the order of the papers' legends"""
    ordered = sorted(runs, key=lambda run: run.seed)
    environments = grouped(ordered, lambda run: run.env)
    found = {}
    for env in sorted(environments):
        methods = grouped(environments[env], lambda run: run.method)
        labels = sorted(methods, key=lambda label: place(methods[label][0]))
        found[env] = {label: methods[label] for label in labels}
    return found


def place(run: Run) -> tuple:
    """Where its method stands among others; forks come last"""
    rank = LEGEND.index(run.name) if run.name in LEGEND else len(LEGEND)
    length = run.budget if run.annealed else 0
    # Not by what the user calls it, which changes neither its place nor its look.
    return rank, run.name, run.args["k"], length, run.setting, run.method


# What was read


def overview(runs: list[Run], metric: str) -> tuple[Table, list[str]]:
    """What was read: a table with a row for each environment and method, and notes on runs that are not
    whole"""
    file, column = FILES[metric]
    title = f"{len(runs)} runs, {column} of {file}"
    table = Table("environment", "method", "seeds", "steps", "state", title=title)
    notes = [f"{run.path}: {note}" for run in runs for note in run.notes]
    few = []
    for env, methods in by_method(runs).items():
        changed = []
        for method, group in methods.items():
            if group[0].tag and not group[0].setting:
                changed.append(f"{method} ({group[0].folder})")
            seeds = spans([run.seed for run in group])
            state = "finished"
            unfinished = [run for run in group if run.wall_time is None]
            if unfinished:
                state = f"{len(unfinished)} unfinished"
                notes.append(f"{env}, {method}: {progress(unfinished)}")
            sources = {run.source: run.path for run in group}
            if len(sources) > 1:
                two = " ".join(str(path) for path in list(sources.values())[:2])
                notes.append(f"{env}, {method}: runs of {len(sources)} texts of its file: pmoe diff {two}")
            if len(group) < 5:
                few.append(f"{env}, {method} ({len(group)})")
            table.add_row(env, method, seeds, reach(group, metric), state)
        table.add_section()
        if changed:
            notes.append(f"{env}, {', '.join(changed)}: not the defaults, but alike here; config.json tells")
    if few:
        short = f"all {len(few)}" if len(few) == table.row_count > 4 else "; ".join(few)
        wide = "fewer than five seeds, so that intervals are wide; of one or two only P(better) has one"
        notes.append(f"{wide}: {short}")
    return table, notes


def progress(unfinished: list[Run]) -> str:
    """How far runs of a method are: seed 1-2 at 3,000; seed 3 at 4,000 of 10,000 steps"""
    stages = []
    for budget, group in sorted(grouped(unfinished, lambda run: run.budget).items()):
        reached = []
        for step, runs in sorted(grouped(group, lambda run: run.steps[-1]).items()):
            seeds = spans([run.seed for run in runs])
            reached.append(f"seed {seeds} at {step:,.0f}")
        stages.append(f"{'; '.join(reached)} of {budget:,}")
    written = ago(min(run.age for run in unfinished))
    return f"unfinished: {'; '.join(stages)} steps, written {written}"


def reach(group: list[Run], metric: str) -> str:
    """The steps that runs of a method have made: 3,000 to 10,000"""
    steps = set()
    for run in group:
        # The last training episode of a finished run ends a little earlier than the run.
        finished = metric == "train" and run.wall_time is not None
        steps.add(run.budget if finished else int(run.steps[-1]))
    first, last = min(steps), max(steps)
    if first == last:
        return f"{last:,}"
    return f"{first:,} to {last:,}"


def ago(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name} ago"
    return f"{max(seconds, 0):.0f} s ago"
