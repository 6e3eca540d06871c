"""A grid of runs: what a TOML file asks for, what of it is on the disk, and the commands that do the rest.

A file holds options of `pmoe run` by their names, each a value or a list of values, and [[method]] tables
with an algo and more options. Every combination is a run. What a run is called on the disk depends on its
options alone, so that a grid started again skips what is finished, resumes what was interrupted and runs what
is missing. One that asks for more steps than before goes on with what is finished.
"""

import contextlib
import io
import itertools
import json
import math
import re
import sys
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..algorithms import ALGORITHMS, AlgorithmError, is_algorithm, load, nearest
from ..files import CONTROL, HIGHEST, last_step, read_config, read_done, read_speed, read_text, visible
from ..files import checkpoints as checkpoint_files
from .claims import TAKEN, beside, holder

FIGURES = ("auc", "profile", "routing", "primitives", "modes", "tsne", "trajectories", "exploration")
METRICS = typing.Literal["eval", "train", "success"]
TABLES: dict[str, dict[str, Any]] = {  # that are no options of `pmoe run`, and what they may hold
    "plot": {
        **dict.fromkeys(FIGURES, bool),
        "reference": str,
        "metric": METRICS,
        "from": int,
        "to": int,
        "moments": list,
    },
    "slurm": {"partition": str, "time": int, "gpus": int, "memory": int},
}
MOST_RUNS = 20_000  # of a method; to read them takes 10 s
STATES = ("done", "running", "failed", "stale", "stopped", "damaged", "missing")
HALF = ("running", "failed", "stale", "stopped")  # those that have something left to do
DEEPEST = 5  # of lists and tables in each other; a list in a [[method]] stands 4 deep
RANGE = r"(?: \([^()]* to [^()]*\))?"  # of several seeds
PROGRESS = re.compile(
    r"^step (?P<step>[\d,]+) of [\d,]+ \(\S+%\)"
    rf"  return \S+{RANGE}"
    rf"  evaluation (?P<evaluation>\S+{RANGE})"
    r"  (?P<speed>\S+) steps/s"
    r"  (?P<left>.+) left$",
    re.MULTILINE,
)


class GridError(ValueError):
    """What is wrong with a grid, in one line"""


@dataclass
class Job:
    """Seeds of one configuration that one process trains side by side."""

    algo: str  # a name, or a file as the command line is to have it
    args: Any  # an Args of the algorithm's file
    paths: list[Path]  # a run directory for each seed, the seeds one after the other
    failures: int = 0

    @property
    def name(self) -> str:
        first, last = self.paths[0], self.paths[-1]
        method = first.parent
        several = f"-{last.name.removeprefix('seed')}" if len(self.paths) > 1 else ""
        return f"{method.parent.name}/{method.name}/{first.name}{several}"

    @property
    def log(self) -> Path:
        return beside(self.paths[0], "log")

    @property
    def steps(self) -> int:
        """That each seed is to make"""
        return self.args.total_timesteps


@dataclass
class Grid:
    file: Path
    jobs: list[Job]
    plot: dict = field(default_factory=dict)
    slurm: dict = field(default_factory=dict)
    run_dir: str | None = None  # instead of the file's
    forks: dict[str, Path] = field(default_factory=dict)  # files of algorithms, as the TOML file names them

    @property
    def paths(self) -> list[Path]:
        return [path for job in self.jobs for path in job.paths]

    @property
    def steps(self) -> dict[Path, int]:
        """That each run is to make"""
        return {path: job.steps for job in self.jobs for path in job.paths}


# What a file asks for


@dataclass
class Source:
    """A TOML file's text, to say where in it something is wrong"""

    file: Path
    text: str

    def error(self, key: str, message: str, method: int | None = None) -> GridError:
        """About a key of the i-th [[method]] or, if it is not there, of anywhere above or outside of them"""
        return GridError(f"{self.file}:{self.line_of(key, method)}: {message}")

    def line_of(self, key: str, method: int | None) -> int:
        key = field_of(key)
        lines = self.lines()
        above = 0 if method is None else method
        for place in ((method, key), (None, key), (above, "method"), (None, "method")):
            if place in lines:
                return lines[place]
        return 1

    def lines(self) -> dict[tuple[int | None, str], int]:
        """Of each key, by the number of its [[method]], where it stands first"""
        method = None
        count = -1
        lines: dict[tuple[int | None, str], int] = {}
        for number, line in enumerate(self.text.splitlines(), 1):
            head = re.match(r"\s*\[+\s*([\w.-]+)", line)
            key, equals, _ = line.partition("=")
            if head:
                count += head[1] == "method"
                method = count if head[1] == "method" else None
                lines.setdefault((method, head[1]), number)
            elif equals:
                key = key.strip().strip("\"'").rpartition(".")[2]
                lines.setdefault((method, field_of(key)), number)
        return lines


def read_grid(file: Path, run_dir: str | None = None) -> Grid:
    """What a file asks for; `run_dir` stands in for the file's. GridError: the file, the line and what is
    wrong there."""
    source, table = parse(file)
    methods = table.pop("method", None)
    whole = type(methods) is list and all(type(method) is dict for method in methods)
    if not methods or not whole:
        raise source.error("method", 'a grid needs [[method]] tables, as in [[method]] algo = "sac"')
    grid = Grid(file, [], run_dir=run_dir)
    grid.plot = sub_table(source, table, "plot")
    grid.slurm = sub_table(source, table, "slurm")
    together = table.pop("seeds_per_process", 1)
    check_value(source, "seeds_per_process", together, int)
    jobs: dict[Path, Job] = {}
    for i, method in enumerate(methods):
        if "algo" not in method:
            raise source.error("method", f"a [[method]] needs an algo, one of: {', '.join(ALGORITHMS)}", i)
        given = method.pop("algo")
        for name in as_list(given):
            algo = command_word(source, name, i)
            if algo != name or name not in ALGORITHMS:
                grid.forks[name] = Path(algo).absolute()
            module = load_method(source, algo, i)
            axes: dict[str, list] = {"seed": [1]}
            axes |= values_of(source, table, algo, module.Args)
            axes |= values_of(source, method, algo, module.Args, i)
            if run_dir:
                axes["run_dir"] = [run_dir]
            for args in combinations(source, module, axes, together, i):
                job = Job(algo, args, module.run_paths(args))
                add(source, jobs, job, i)
    grid.jobs = [job for path, job in jobs.items() if path == job.paths[0]]
    return grid


def read_plot(file: Path) -> dict:
    """What the [plot] of a file asks for, whose algorithms need not be there. GridError: what is wrong with
    it."""
    source, table = parse(file)
    return sub_table(source, table, "plot")


def parse(file: Path) -> tuple[Source, dict]:
    """The text of a TOML file and what it holds"""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        source = Source(file, read_text(file))
    except OSError as error:
        raise GridError(f"{file} cannot be read ({error.strerror})") from None
    try:
        table = tomllib.loads(source.text, parse_float=number_of)
    except RecursionError:
        raise GridError(f"{file} is nested too deeply") from None
    # A number of thousands of digits is an error of Python's own.
    except ValueError as error:
        place = re.search(r"at line (\d+)", str(error))
        line = place[1] if place else len(source.text.splitlines())
        raise GridError(f"{file}:{line}: {error}") from None
    check_texts(source, table)
    return source, table


def number_of(text: str) -> int | float:
    """Of 1e6 a million, a whole number; of 4.0 none, though it is one"""
    value = float(text)
    if value.is_integer() and "e" in text.lower():
        return int(value)
    return value


def check_texts(source: Source, table: dict) -> None:
    """Raises where a key or a value holds a control character, or lists and tables stand too deep in each
    other."""
    waiting: list[tuple[str, Any, int]] = [("", table, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        if depth > DEEPEST:
            raise source.error(key, f"{visible(key)} is nested too deeply")
        if type(value) is str and CONTROL.search(value):
            raise source.error(key, f"{visible(key)} cannot be {value!r}: that has a control character")
        if type(value) is list:
            waiting += [(key, each, depth + 1) for each in value]
        if type(value) is dict:
            waiting += [(name, name, depth) for name in value]
            waiting += [(name, each, depth + 1) for name, each in value.items()]


def sub_table(source: Source, table: dict, name: str) -> dict:
    """Takes [plot] or [slurm] out of a file's content."""
    kinds = TABLES[name]
    values = table.pop(name, {})
    if type(values) is not dict:
        raise source.error(name, f"{name} is a table: [{name}]")
    for key, value in values.items():
        if key not in kinds:
            raise source.error(key, f"[{name}] has no {key!r}; {nearest(key, kinds)}")
        check_value(source, key, value, kinds[key])
    return values


def check_value(source: Source, key: str, value, kind) -> None:
    """Raises what is wrong with a value that is no option of `pmoe run`."""
    least = 0 if key in ("gpus", "from") else 1
    fits = cast(value, kind) is not None
    if fits and kind is int:
        fits = value >= least
    if fits and kind is list:
        fits = all(type(each) is int and each >= 0 for each in value)
    if not fits:
        from_least = f" from {least}" if kind is int else ""
        raise source.error(key, f"{key} cannot be {value!r}; it is {described(kind)}{from_least}")


def as_list(given) -> list:
    return given if type(given) is list else [given]


def command_word(source: Source, name, method: int) -> str:
    """An algo of the file as the command line is to have it: the path of a fork starts where the file is."""
    if type(name) is not str or not is_algorithm(name):
        raise source.error("algo", f"unknown algo {name!r}; {nearest(str(name), ALGORITHMS)}", method)
    if name in ALGORITHMS:
        return name
    return str(source.file.parent / name)


def load_method(source: Source, algo: str, method: int) -> ModuleType:
    try:
        return load(algo)
    except AlgorithmError as error:
        raise source.error("algo", str(error), method) from None


def add(source: Source, jobs: dict[Path, Job], job: Job, method: int) -> None:
    """Adds a job under each of its paths, if it is the only one there."""
    for path in job.paths:
        other = jobs.setdefault(path, job)
        if other.algo != job.algo:
            raise source.error("algo", f"{path} would be of two methods; give one of them a tag", method)
        name = first_difference(vars(other.args), vars(job.args), ("seed", "num_seeds"))
        if name:
            message = f"{path} would be of two methods, with another {name}; give one of them a tag"
            raise source.error("algo", message, method)
        if other.args != job.args:
            raise source.error("seed", f"{path} is asked for twice, beside other seeds", method)
        name = changed_since(path, job)
        if name:
            raise source.error("tag", f"{path} was run with another {name}; give it another tag", method)


def first_difference(a: dict, b: dict, free: tuple[str, ...]) -> str | None:
    """The first name, but those that are free, under which two tables do not have the same"""
    for name, value in b.items():
        if name not in free and a.get(name) != value:
            return name
    return None


def changed_since(path: Path, job: Job) -> str | None:
    """An option in which a tagged run on the disk is not what its job says, if there is one"""
    if not job.args.tag:
        return None
    try:
        config = read_config(path / "config.json")
    except (OSError, ValueError):
        return None
    module = import_module(type(job.args).__module__)
    free = (*module.free_options(job.args), "compile")
    return first_difference(config["args"], vars(job.args), free)


def field_of(key: str) -> str:
    """The name of an option's field"""
    return "env_id" if key == "env" else key.replace("-", "_")


def values_of(
    source: Source, table: dict, algo: str, args_type: type, method: int | None = None
) -> dict[str, list]:
    """The values of each option, by the field's name"""
    hints = typing.get_type_hints(args_type)
    for name in ("num_seeds", "resume", "overwrite"):  # the grid's business
        del hints[name]
    axes = {}
    for key, given in table.items():
        name = field_of(key)
        if name == "seeds_per_process":
            raise source.error(key, f"{key} is for all methods: write it above the first [[method]]", method)
        if name not in hints:
            hint = nearest(key, ["env", "seeds_per_process", *hints])
            raise source.error(key, f"{algo} has no option {key!r}; {hint}", method)
        if name in axes:
            raise source.error(key, f"{name} is given twice", method)
        axes[name] = [cast(value, hints[name]) for value in as_list(given)]
        if None in axes[name] or not axes[name]:
            shown = json.dumps(given, default=str)
            kind = described(hints[name])
            raise source.error(key, f"{key} cannot be {shown}; it is {kind}, or a list of such", method)
    return axes


def kinds_of(hint) -> tuple:
    """The types that a field may have; a Literal is one of them"""
    if typing.get_origin(hint) in (None, typing.Literal):
        return (hint,)
    return typing.get_args(hint)


def cast(value, hint):
    """A TOML value as a field's type has it, as the command line would read it; None if it cannot be"""
    for kind in kinds_of(hint):
        if typing.get_origin(kind) is typing.Literal:
            if type(value) is str and value in typing.get_args(kind):
                return value
        elif type(value) is kind:
            return value
        elif kind is float and type(value) is int:
            return float(value)
    return None


def described(hint) -> str:
    """What a field may hold, in words"""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    words[list] = "a list of whole numbers from 0"
    kinds = kinds_of(hint)
    plain = [words[kind] for kind in kinds if kind in words]
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            plain += map(repr, typing.get_args(kind))
    return " or ".join(plain)


def combinations(source: Source, module: ModuleType, axes: dict, together: int, method: int) -> Iterator:
    """Args of every combination, of up to `together` seeds that follow each other"""
    seeds = sorted(set(axes.pop("seed")))
    number = len(seeds) * math.prod(map(len, axes.values()))
    if number > MOST_RUNS:
        message = f"this method asks for {number:,} runs; a grid has at most {MOST_RUNS:,} of a method"
        raise source.error("algo", message, method)
    parts = groups(seeds, together)
    most = max(map(len, parts))
    for env_id in axes.get("env_id", ()):
        check_env(source, env_id, method)
    for values in itertools.product(*axes.values()):
        options = dict(zip(axes, values))
        args = module.Args(**options)
        for seed in sorted({seeds[0], seeds[-1]}):
            # A cluster has GPUs where this machine has none.
            check_args(source, module, replace(args, device="auto", seed=seed, num_seeds=most), method)
        for group in parts:
            yield replace(args, seed=group[0], num_seeds=len(group))


def check_env(source: Source, env_id: str, method: int) -> None:
    import gymnasium

    from ..envs import load_module

    name = env_id.partition(",")[0]  # my_module:MyEnv-v0,option=1
    _, _, name = name.rpartition(":")
    try:
        load_module(env_id)
        gymnasium.spec(name)
    except (gymnasium.error.Error, ValueError) as error:
        message = " ".join(str(error).split())
        raise source.error("env", f"{env_id}: {message}", method) from None


def check_args(source: Source, module: ModuleType, args, method: int) -> None:
    """Raises what the algorithm's own `check` would end a run with, or its `check_method` if it has one."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            module.check(args)
            if hasattr(module, "check_method"):
                module.check_method(args)
    except SystemExit:
        message = stderr.getvalue().removeprefix("error: ").strip()
        option = re.match(r"--([\w-]+)", message)
        raise source.error(option[1] if option else "algo", message, method) from None


def groups(seeds: list[int], together: int) -> list[list[int]]:
    """1 2 3 7 8, two together -> 1 2, 3, 7 8"""
    found: list[list[int]] = []
    for seed in seeds:
        last = found[-1] if found else []
        if last and len(last) < together and seed == last[-1] + 1:
            last.append(seed)
        else:
            found.append([seed])
    return found


# What of it is on the disk


def finished(path: Path, steps: int | None = None) -> bool:
    """Whether a run has made so many steps; None: as many as it was to make"""
    try:
        done = read_done(path)
    except ValueError:
        return False
    if done is None:
        return False
    last, _ = done
    return not is_damaged(path) and (steps is None or last >= steps)


def state(path: Path, steps: int | None = None) -> str:
    """Of a run directory, one of STATES. Done: it has made so many steps. Failed: it ended with an error.
    Stale: its process died without a word. Stopped: it ended in order, with a checkpoint. Damaged: its
    config.json cannot be read."""
    if finished(path, steps):
        return "done"
    claim = holder(path)
    if claim and claim["alive"]:
        return "running"
    if beside(path, "failed").exists():
        return "failed"
    if claim:
        return "stale"
    if not path.exists():
        return "missing"
    return "damaged" if is_damaged(path) else "stopped"


def is_damaged(path: Path) -> bool:
    """Whether a run's config.json cannot be read; a process that was killed at its beginning leaves none."""
    return (path / "config.json").exists() and config_of(path) is None


def config_of(path: Path) -> dict | None:
    """The config.json of a run; None: it cannot be read"""
    try:
        return read_config(path / "config.json")
    except (OSError, ValueError):
        return None


def checkpoints(path: Path) -> set[int]:
    """The steps at which a run has a checkpoint; more than one while the next is being written"""
    return set(checkpoint_files(path))


def unfinished(job: Job) -> list[Job]:
    """What is left of a job, divided where seeds stand at different checkpoints"""
    parts: list[list[Path]] = []
    adjoins = False  # whether the path before is in the last part
    for path in job.paths:
        if finished(path, job.steps):
            adjoins = False
            continue
        if adjoins and stand_alike([*parts[-1], path]):
            parts[-1].append(path)
        else:
            parts.append([path])
        adjoins = True
    return [replace(job, paths=paths) for paths in parts]


def stand_alike(paths: list[Path]) -> bool:
    """Whether seeds can go on in one process: none has a checkpoint, or all have that at which the slowest
    is"""
    steps = [checkpoints(path) for path in paths]
    if not all(steps):
        return not any(steps)
    slowest = min(max(each) for each in steps)
    return all(slowest in each for each in steps)


def checkpoint(job: Job) -> int:
    """The step from which a job goes on"""
    return min(max(checkpoints(path), default=0) for path in job.paths)


def progress(job: Job) -> dict[str, str] | None:
    """Step, last evaluation, steps a second and time left that a job's log says; None: nothing yet"""
    try:
        with open(job.log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    lines = list(PROGRESS.finditer(text))
    return lines[-1].groupdict() if lines else None


def find(folder: Path) -> list[Path]:
    """The run directories below a folder, or itself; those that are only claimed or have failed too"""
    runs = {file.parent for file in folder.rglob("config.json")}
    for pattern in ("seed*.claim", "seed*.failed"):
        runs |= {mark.with_suffix("") for mark in folder.rglob(pattern)}
    return sorted(run for run in runs if re.fullmatch(r"seed\d+", run.absolute().name))


def status(steps: Mapping[Path, int | None]) -> dict[Path, str]:
    """The state of each run, by the steps that it is to make"""
    return {path: state(path, total) for path, total in steps.items()}


def count(states: dict[Path, str]) -> str:
    """12 done, 3 running, ..."""
    numbers = Counter(states.values())
    parts = [f"{numbers[name]} {name}" for name in STATES if name in numbers]
    return ", ".join(parts) or "no runs"


def reached(path: Path, state: str, total: int) -> tuple[int, float | None]:
    """Where a run stands that is to make `total` steps: its step, and the seconds that are left; None: nobody
    knows. Where it is not running, it will go on from its last checkpoint."""
    files = checkpoint_files(path)
    step = max(files, default=0)
    speed = 0.0
    # The next may have taken its place by now.
    with contextlib.suppress(ValueError):
        made, seconds = read_speed(files[step]) if files else (0, 0.0)
        speed = made / max(seconds, 1e-3)
    if state == "running":
        step = max(step, last_step(path / "eval.csv"), last_step(path / "episodes.csv"))
    left = max(total - step, 0)
    return step, left / speed if speed else None


def show_reached(states: dict[Path, str], steps: Mapping[Path, int | None]) -> None:
    """Prints a table of the runs that are under way or stand half-done: their steps and the time left."""
    from rich.table import Table

    from ..terminal import console, spans

    groups: dict[tuple, list[tuple]] = {}
    for path, name in states.items():
        config = config_of(path)
        # A run that has only just begun has none.
        if name in HALF and config:
            total = steps[path] or config["args"]["total_timesteps"]
            seed = int(path.name.removeprefix("seed"))
            groups.setdefault((path.parent, name, total), []).append((seed, *reached(path, name, total)))
    table = Table("environment", "method", "seed", "state", "step", "left", box=None)
    for (folder, name, total), group in groups.items():
        seeds, made, times = zip(*group)
        span = "" if min(made) == max(made) else f" to {max(made):,}"
        step = f"{min(made):,}{span} of {total:,} ({min(made) / total:.0%})"
        known = [time for time in times if time is not None]
        left = "-"
        if known:
            # A damaged checkpoint may have been very slow.
            left = str(timedelta(seconds=min(round(max(known)), HIGHEST)))
        table.add_row(folder.parent.name, folder.name, spans(seeds), name, step, left)
    if groups:
        console().print(table)


def show_status(states: dict[Path, str], steps: Mapping[Path, int | None]) -> None:
    """Prints a table: a row for each configuration, the seeds in each state. And how far they are."""
    from rich.table import Table

    from ..terminal import console, spans

    used = [name for name in STATES if name in states.values()]
    seeds: dict[Path, dict[str, list[int]]] = {}
    for path in states:
        seeds[path.parent] = {name: [] for name in used}
    for path, name in states.items():
        seed = path.name.removeprefix("seed")
        seeds[path.parent][name].append(int(seed))
    table = Table("environment", "method", *used, box=None)
    for folder, by_state in seeds.items():
        cells = [spans(numbers) for numbers in by_state.values()]
        table.add_row(folder.parent.name, folder.name, *cells)
    console().print(table)
    show_reached(states, steps)
    print(count(states))


# The commands that do the rest

PACKAGE = __package__.rpartition(".")[0]
# `python -m` would look for modules in the current folder first, where a random.py would be taken for
# Python's. Its option -P, which does not, came with Python 3.11.
PROGRAM = "import sys; sys.path = [x for x in sys.path if x]; sys.argv[0] = 'pmoe'; "
PROGRAM += f"from {PACKAGE}.cli import main; main()"


def program() -> list[str]:
    """The words that start `pmoe` as a process of its own, without its arguments"""
    return [sys.executable, "-c", PROGRAM]


def as_flags(args: dict) -> list[str]:
    """Fields of an Args as options of the command line"""
    flags = []
    for name, value in args.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{option}" if value else f"--no-{option}")
        else:
            flags.append(f"--{option}={value}")
    return flags


def command(job: Job) -> list[str]:
    """The words after `pmoe` that train a job from its beginning; `going_on` has what is to be added to go
    on"""
    first = job.paths[0].name
    seed = int(first.removeprefix("seed"))
    args = replace(job.args, seed=seed, num_seeds=len(job.paths))
    defaults = type(args)
    changed = {}
    for name, value in vars(args).items():
        if name not in ("env_id", "k") and value != getattr(defaults, name):
            changed[name] = value
    return ["run", job.algo, f"--env={args.env_id}", f"--k={args.k}", *as_flags(changed)]


def going_on(paths: list[Path]) -> dict[str, bool]:
    """The option with which `pmoe run` goes on with these runs, which stand alike: resume, or overwrite where
    they were killed before their first checkpoint, or none"""
    if checkpoints(paths[0]):
        return {"resume": True}
    if any(path.exists() for path in paths):
        return {"overwrite": True}
    return {}


def as_it_stands(module: ModuleType, args):
    """The args with which a worker's process goes on with runs that it has just claimed. SystemExit with
    status TAKEN: they are not as they were when the worker looked."""
    job = Job(module.ALGO, args, module.run_paths(args))
    parts = [part.paths for part in unfinished(job)]
    if parts != [job.paths]:
        raise SystemExit(TAKEN)
    return replace(args, **going_on(job.paths))
