"""A grid of runs: what a TOML file asks for, what of it is on the disk, and the commands that do the rest.

A file holds options of `pmoe run` by their names, each a value or a list of values, and [[method]] tables with an algo
and more options. Every combination is a run. What a run is called on the disk depends on its options alone, so that a
grid started again skips what is finished, resumes what was interrupted and runs what is missing.
"""

import contextlib
import difflib
import hashlib
import io
import itertools
import json
import re
import typing
from collections import Counter
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from .claims import TAKEN, beside, holder

OWN = {  # what is no option of `pmoe run`, and what it may hold
    "seeds_per_process": int,
    "plot": dict.fromkeys(("auc", "profile", "routing", "primitives", "tsne", "trajectories", "exploration"), bool)
    | {"reference": str},
    "slurm": {"partition": str, "time": int, "gpus": int, "memory": int},
}
STATES = ("done", "running", "failed", "stale", "stopped", "missing")
PROGRESS = re.compile(r"^step (\d+)  return (\S+)  evaluation (\S+)  (\S+) steps/s$", re.MULTILINE)


class GridError(ValueError):
    """What is wrong with a grid, in one line"""


@dataclass
class Job:
    """Seeds of one configuration that one process trains side by side."""

    algo: str
    args: object  # an Args of the algorithm's file
    paths: list[Path]  # a run directory for each seed, the seeds one after the other
    failures: int = 0

    @property
    def name(self) -> str:
        first, last = self.paths[0], self.paths[-1]
        several = f"-{last.name.removeprefix('seed')}" if len(self.paths) > 1 else ""
        return f"{first.parent.parent.name}/{first.parent.name}/{first.name}{several}"

    @property
    def log(self) -> Path:
        return beside(self.paths[0], "log")


@dataclass
class Grid:
    file: Path
    jobs: list[Job]
    plot: dict
    slurm: dict
    run_dir: str | None  # instead of the file's

    @property
    def paths(self) -> list[Path]:
        return [path for job in self.jobs for path in job.paths]


def nearest(word: str, words) -> str:
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.4)
    return f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(words)}"


def run_paths(algo: str, args) -> list[Path]:
    """The directories of a run's seeds, as the algorithm's own `Runs` names them"""
    named = (*import_module(type(args).__module__).FREE, "env_id", "k", "tag", "compile")
    changed = {n: x for n, x in vars(args).items() if n not in named and x != getattr(type(args), n)}
    tag = args.tag or (hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:6] if changed else "")
    name = f"{args.env_id.replace('/', '-')}/{algo}-k{args.k}{tag and '-'}{tag.replace('/', '-')}"
    return [Path(args.run_dir, name, f"seed{args.seed + s}") for s in range(args.num_seeds)]


def read(file: Path, algorithms: dict[str, str], run_dir: str | None = None) -> Grid:
    """What a file asks for; `algorithms` names the module of each, `run_dir` stands in for the file's. GridError: the
    file, the line and what is wrong there."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        text = file.read_text()
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise GridError(f"{file} cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise GridError(f"{file}:{line[1] if line else len(text.splitlines())}: {error}") from None

    def wrong(key: str, message: str, method: int | None = None) -> GridError:
        return GridError(f"{file}:{line_of(text, key, method)}: {message}")

    methods = table.pop("method", None)
    if type(methods) is not list or not methods or not all(type(method) is dict for method in methods):
        raise wrong("method", 'a grid needs [[method]] tables, as in [[method]] algo = "sac"')
    own = {name: table.pop(name, {} if type(kind) is dict else 1) for name, kind in OWN.items()}
    for name, kind in OWN.items():
        if type(kind) is dict and type(own[name]) is not dict:
            raise wrong(name, f"{name} is a table: [{name}]")
        for key, value in own[name].items() if type(kind) is dict else [(name, own[name])]:
            expected = kind.get(key) if type(kind) is dict else kind
            if expected is None:
                raise wrong(key, f"[{name}] has no {key!r}; {nearest(key, kind)}")
            least = 0 if key == "gpus" else 1
            if type(value) is not expected or expected is int and value < least:
                from_least = f" from {least}" if expected is int else ""
                raise wrong(key, f"{key} cannot be {value!r}; it is {described(expected)}{from_least}")
    jobs = {}
    for i, method in enumerate(methods):
        if "algo" not in method:
            raise wrong("method", f"a [[method]] needs an algo, one of: {', '.join(algorithms)}", i)
        given = method.pop("algo")
        for algo in given if type(given) is list else [given]:
            if type(algo) is not str or algo not in algorithms:
                raise wrong("algo", f"unknown algo {algo!r}; {nearest(str(algo), algorithms)}", i)
            args_type = import_module(f"{__package__}.{algorithms[algo]}").Args
            axes = (
                {"seed": [1]} | values_of(table, algo, args_type, wrong) | values_of(method, algo, args_type, wrong, i)
            )
            axes |= {"run_dir": [run_dir]} if run_dir else {}
            for args in combinations(args_type, axes, own["seeds_per_process"], wrong, i):
                job = Job(algo, args, run_paths(algo, args))
                for path in job.paths:
                    other = jobs.setdefault(path, job).args
                    if replace(other, seed=1, num_seeds=1) != replace(args, seed=1, num_seeds=1):
                        raise wrong("algo", f"{path} would be of two methods; give one of them a tag", i)
                    if other != args:
                        raise wrong("seed", f"{path} is asked for twice, beside other seeds", i)
                    if args.tag and (name := differs(path, args)):
                        raise wrong("tag", f"{path} was run with another {name}; give it another tag", i)
    return Grid(file, list({id(job): job for job in jobs.values()}.values()), own["plot"], own["slurm"], run_dir)


def differs(path: Path, args) -> str | None:
    """An option in which a run on the disk is not what `args` say, if there is one"""
    try:
        before = json.loads((path / "config.json").read_text())["args"]
    except (OSError, ValueError, KeyError):
        return None
    free = (*import_module(type(args).__module__).FREE, "compile")
    return next((n for n, x in vars(args).items() if n not in free and before.get(n) != x), None)


def line_of(text: str, key: str, method: int | None) -> int:
    """The line where a key stands: in the i-th [[method]] or, if not there, anywhere above or outside of them"""
    inside, found, count, key = None, {}, -1, field(key)
    for number, line in enumerate(text.splitlines(), 1):
        if head := re.match(r"\s*\[+\s*([\w.-]+)", line):
            count += head[1] == "method"
            inside = count if head[1] == "method" else None
            found.setdefault((inside, head[1]), number)
        elif given := re.match(r"""\s*["']?(.+?)["']?\s*=""", line):
            found.setdefault((inside, field(given[1].rpartition(".")[2])), number)
    where = ((method, key), (None, key), (method or 0, "method"), (None, "method"))
    return next((found[place] for place in where if place in found), 1)


def field(key: str) -> str:
    """The name of an option's field"""
    return {"env": "env_id"}.get(key, key.replace("-", "_"))


def values_of(table: dict, algo: str, args_type: type, wrong, method: int | None = None) -> dict[str, list]:
    """The values of each option, by the field's name"""
    hints, axes = typing.get_type_hints(args_type), {}
    for name in ("num_seeds", "resume", "overwrite"):  # the grid's own business
        del hints[name]
    for key, given in table.items():
        name = field(key)
        if name not in hints:
            raise wrong(
                key, f"{algo} has no option {key!r}; {nearest(key, ['env', 'seeds_per_process', *hints])}", method
            )
        if name in axes:
            raise wrong(key, f"{name} is given twice", method)
        axes[name] = [cast(x, hints[name]) for x in (given if type(given) is list else [given])]
        if None in axes[name] or not axes[name]:
            shown = json.dumps(given, default=str)
            raise wrong(key, f"{key} cannot be {shown}; it is {described(hints[name])}, or a list of such", method)
    return axes


def cast(value, hint):
    """A TOML value as a field's type has it, as the command line would read it; None if it cannot be"""
    kinds = typing.get_args(hint) if typing.get_origin(hint) not in (None, typing.Literal) else (hint,)
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            if value in typing.get_args(kind) and type(value) is str:
                return value
        elif type(value) is kind:
            return value
        elif kind is float and type(value) is int:
            return float(value)
    return None


def described(hint) -> str:
    kinds = typing.get_args(hint) if typing.get_origin(hint) not in (None, typing.Literal) else (hint,)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    literal = [" or ".join(map(repr, typing.get_args(kind))) for kind in kinds if typing.get_origin(kind)]
    return " or ".join([words[kind] for kind in kinds if kind in words] + literal)


def combinations(args_type: type, axes: dict[str, list], together: int, wrong, method: int):
    """Args of every combination, of up to `together` seeds that follow each other"""
    import gymnasium

    import_module(f"{__package__}.envs")
    check = import_module(args_type.__module__).check
    seeds = sorted(set(axes.pop("seed")))
    for env_id in axes.get("env_id", ()):
        try:
            module, _, name = env_id.partition(",")[0].rpartition(":")  # my_module:MyEnv-v0,option=1
            if module:
                import_module(module)
            gymnasium.spec(name)
        except (gymnasium.error.Error, ImportError) as error:
            raise wrong("env", f"{env_id}: {' '.join(str(error).split())}", method) from None
    for values in itertools.product(*axes.values()):
        args = args_type(**dict(zip(axes, values)))
        try:
            with contextlib.redirect_stderr(io.StringIO()) as said:
                check(replace(args, device="auto", seed=seeds[0]))  # a cluster has GPUs where this machine has none
        except SystemExit:
            message = said.getvalue().removeprefix("error: ").strip()
            key = re.match(r"--([\w-]+)|", message)[1] or "algo"
            raise wrong(key, message, method) from None
        rows = itertools.groupby(enumerate(seeds), lambda item: item[1] - item[0])  # 1 2 3, 7 8
        for _, following in rows:
            run = [seed for _, seed in following]
            for start in range(0, len(run), together):
                some = run[start : start + together]
                yield replace(args, seed=some[0], num_seeds=len(some))


def state(path: Path) -> str:
    """Of a run directory, one of STATES. Failed: it ended with an error; stale: its process died without a word;
    stopped: it ended in order, with a checkpoint."""
    if (path / "done.json").exists():
        return "done"
    claim = holder(path)
    if claim and claim["alive"]:
        return "running"
    if beside(path, "failed").exists():
        return "failed"
    return "stale" if claim else "stopped" if path.exists() else "missing"


def unfinished(job: Job) -> list[Job]:
    """What is left of a job, divided where seeds stand at different checkpoints"""
    parts = []
    for path in job.paths:
        if (path / "done.json").exists():
            parts.append(None)
            continue
        mine = {file.name for file in path.glob("checkpoint/*.pt")}
        if parts and parts[-1]:
            group, theirs = parts[-1]
            last = min((max(x) for x in [*theirs, mine] if x), default=None)
            if bool(mine) == bool(theirs[0]) and all(last in x for x in [*theirs, mine] if last):
                group.append(path)
                theirs.append(mine)
                continue
        parts.append(([path], [mine]))
    return [replace(job, paths=part[0]) for part in parts if part]


def checkpoint(job: Job) -> int:
    """The step from which a job goes on"""
    return min(max((int(file.stem) for file in path.glob("checkpoint/*.pt")), default=0) for path in job.paths)


def as_flags(args: dict) -> list[str]:
    """Fields of an Args as options of the command line"""
    flags = []
    for name, value in args.items():
        option = name.replace("_", "-")
        flags += [f"--{option if value else 'no-' + option}"] if isinstance(value, bool) else [f"--{option}={value}"]
    return flags


def command(job: Job) -> list[str]:
    """The words after `pmoe` that train a job from its beginning; `going_on` has what is to be added to go on"""
    seed = int(job.paths[0].name.removeprefix("seed"))
    args = replace(job.args, seed=seed, num_seeds=len(job.paths))
    changed = {n: x for n, x in vars(args).items() if n not in ("env_id", "k") and x != getattr(type(args), n)}
    return ["run", job.algo, f"--env={args.env_id}", f"--k={args.k}", *as_flags(changed)]


def going_on(paths: list[Path]) -> dict[str, bool]:
    """The option with which `pmoe run` goes on with these runs, which stand alike: resume, or overwrite where they were
    killed before their first checkpoint, or none"""
    if any(paths[0].glob("checkpoint/*.pt")):
        return {"resume": True}
    return {"overwrite": True} if any(path.exists() for path in paths) else {}


def as_it_stands(algo: str, args):
    """The args with which a worker's process goes on with runs that it has just claimed. SystemExit with status TAKEN:
    they are not as they were when the worker looked."""
    job = Job(algo, args, run_paths(algo, args))
    if [part.paths for part in unfinished(job)] != [job.paths]:
        raise SystemExit(TAKEN)
    return replace(args, **going_on(job.paths))


def progress(job: Job) -> tuple[int, str, float] | None:
    """Step, last evaluation and steps a second that a job's log says; None: nothing yet"""
    try:
        with open(job.log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            last = PROGRESS.findall(file.read().decode(errors="replace"))[-1]
        return int(last[0]), last[2], float(last[3])
    except (FileNotFoundError, IndexError):
        return None


def find(folder: Path) -> list[Path]:
    """The run directories below a folder, or itself; those that are only claimed or have failed too"""
    marks = [*folder.rglob("config.json"), *folder.rglob("seed*.claim"), *folder.rglob("seed*.failed")]
    runs = {mark.parent if mark.name == "config.json" else mark.with_suffix("") for mark in marks}
    return sorted(run for run in runs if re.fullmatch(r"seed\d+", run.absolute().name))


def status(paths: list[Path]) -> dict[Path, str]:
    return {path: state(path) for path in paths}


def count(states: dict[Path, str]) -> str:
    """12 done, 3 running, ..."""
    numbers = Counter(states.values())
    return ", ".join(f"{numbers[name]} {name}" for name in STATES if numbers[name]) or "no runs"


def show_status(states: dict[Path, str]) -> None:
    """Prints a table: a row for each configuration, the seeds in each state."""
    from rich.table import Table

    from .plots.runs import spans
    from .plots.tables import console

    used = [name for name in STATES if name in states.values()]
    table = Table("environment", "method", *used, box=None)
    for folder in dict.fromkeys(path.parent for path in states):
        mine = {path: name for path, name in states.items() if path.parent == folder}
        seeds = {name: [int(path.name.removeprefix("seed")) for path in mine if mine[path] == name] for name in used}
        table.add_row(folder.parent.name, folder.name, *(spans(seeds[name]) for name in used))
    console().print(table)
    print(count(states))
