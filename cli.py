"""The `pmoe` command: dispatch and nothing else. Heavy imports stand inside the commands, so that `--help` is
quick."""

import contextlib
import copy
import dataclasses
import errno
import io
import os
import re
import sys
import typing
from collections.abc import Mapping
from enum import Enum
from importlib import import_module, metadata, util
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer

from . import algorithms, files
from .algorithms import ALGORITHMS, AlgorithmError, is_algorithm, nearest
from .files import exports
from .grid.read import (
    GridError,
    as_flags,
    as_it_stands,
    described,
    field_of,
    number_of,
    read_grid,
    read_plot,
)

app = typer.Typer(
    help="Mixture-of-experts policies for deep reinforcement learning: train, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a disk, a quota, a limit


def main() -> None:
    """The entry point: whatever goes wrong is one line, with status 2 where the input was bad."""
    status: Any = 130  # of Ctrl-C
    with contextlib.suppress(KeyboardInterrupt):
        try:
            open_streams()
            run_command()
        except SystemExit as stop:
            status = flushed(stop.code)
    sys.exit(status)


def open_streams() -> None:
    """Where stdout or stderr is closed, what is printed goes nowhere; names of files may be no UTF-8."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would be stdout.
            taken = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(taken, True)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flushed(status):
    """An exit status, once all is written; 1 instead of 0 where that fails, as behind `head`, which has seen
    enough"""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # Python itself tries again at its end, and has more to say of it.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            status = status or 1
            if error.errno != errno.EPIPE:
                print(f"error: what was printed is not whole: {error.strerror}", file=sys.stderr)
    return status


def run_command() -> NoReturn:
    """Does what the command line says, and ends the program."""
    for word in sys.argv[1:]:
        if files.CONTROL.search(word):
            fail(f"{word!a} has a control character, or is not UTF-8")
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except (AlgorithmError, GridError) as error:
        fail(str(error))
    except OSError as error:
        fail(str(error), 1)
    except MemoryError:
        fail("there is not enough memory for this", 1)
    except Exception as error:
        # A usage error; its class moved between versions of typer.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if message:
            fail(message)
        sys.exit(2)  # the help was shown


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line for its user; status 2 is bad input, 1 what went wrong on the way."""
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Words that may follow `pmoe run ...`: environments after --env, else algorithms and files"""
    before = ctx.params.get("words") or []
    if before and before[-1] in ("--env", "--env-id"):
        from gymnasium import registry

        import_module(f"{__package__}.envs")
        return [word for word in registry if word.startswith(incomplete)]
    if any(is_algorithm(word) for word in before):
        return []
    return complete_algo(incomplete)


def complete_algo(incomplete: str) -> list[str]:
    """Algorithms and, once a name has begun, Python files"""
    words = [word for word in ALGORITHMS if word.startswith(incomplete)]
    if incomplete:
        import glob

        words += glob.glob(f"{glob.escape(incomplete)}*.py")
    return words


def show_version(value: bool) -> None:
    if value:
        print(f"pmoe {metadata.version('pmoe')}, torch {metadata.version('torch')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


class WithOptions(typer.core.TyperCommand):
    """Completes the options of the algorithm that the command line names, beside its own"""

    def shell_complete(self, ctx, incomplete: str) -> list:
        words = ctx.params.get("words") or []
        algo = next(filter(is_algorithm, words), None)
        options = algorithms.options_of(algo) if algo else {}
        (pattern,) = [param for param in self.params if "--config" in param.opts]
        for name, help_text in options.items():
            option: Any = copy.copy(pattern)
            option.name = name
            option.opts = [name]
            option.help = help_text
            self.params.append(option)
        return super().shell_complete(ctx, incomplete)


@app.command(cls=WithOptions, context_settings={"ignore_unknown_options": True, "help_option_names": []})
def run(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ALGO [OPTIONS]",
            autocompletion=complete,
            help=f"One of: {', '.join(ALGORITHMS)}; or a file, as in ./my_idea.py. Then any of its options: "
            "`pmoe run ALGO --help` shows them.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Repeat the run of this config.json; options beside it override.")
    ] = None,
) -> None:
    """Train an agent, as in `pmoe run sac --env Hopper-v4 --k 4 --seed 1`."""
    words = words or []
    if words in (["--help"], ["-h"]):
        print(ctx.get_help())
        return
    recorded = read_config(config) if config else {}
    names = alone(words)
    algo = next((word for word in [*names, *words] if is_algorithm(word)), None)
    options = list(words)
    if algo:
        module = algorithms.load(algo)
        options.remove(algo)
    elif recorded:
        module = algorithms.load_of_config(recorded)
        algo = module.ALGO
    elif names:
        fail(f"unknown algorithm {names[0]!r}; {algorithms.nearest_algorithm(names[0])}")
    else:
        fail(f"name an algorithm, as in `pmoe run sac --help`; the algorithms are: {', '.join(ALGORITHMS)}")
    repeated = as_flags(recorded.get("args", {}))
    for word in repeated:
        if files.CONTROL.search(word):
            fail(f"{config}: {word!a} has a control character")
    args = parse(module.Args, repeated + options, algo)
    load_env_module(args.env_id)
    module.check(args)
    check_folders(module, args)
    train(module, args)


def alone(words: list[str]) -> list[str]:
    """Those that are neither options nor, as far as one can tell, an option's value"""
    found = []
    for before, word in zip(["", *words], words):
        if not before.startswith("-") and not word.startswith("-"):
            found.append(word)
    return found


def read_config(file: Path) -> dict:
    try:
        return files.read_config(file)
    except (OSError, ValueError):
        fail(f"{file} is not the config.json of a run")


def parse(args_type: type, argv: list[str], algo: str):
    """tyro.cli, its boxed errors made one line"""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    whole = tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda x: type(x) is int,
        str_from_instance=lambda x: [str(x)],
    )
    registry.primitive_rule(lambda info: whole if info.type is int else None)
    box = io.StringIO()
    args: Any
    try:
        with registry, contextlib.redirect_stderr(box):
            args, unknown = tyro.cli(args_type, prog=f"pmoe run {algo}", args=argv, return_unknown_args=True)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        fail(plainly(first_paragraph(box.getvalue()), args_type))
    if unknown:
        options = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(args_type)]
        near = nearest(unknown[0], [*options, "--env", "--config"])
        fail(f"unknown option {unknown[0]}; {near}; see `pmoe run {algo} --help`")
    return args


def whole_number(text: str) -> int:
    """Of 1e6 a million, as in a grid; ValueError: it is no whole number"""
    with contextlib.suppress(ValueError):
        value = number_of(text)
        if type(value) is int:
            return value
    return int(text)


def first_paragraph(box: str) -> str:
    """What tyro says in a box, up to its first rule or empty line"""
    text = []
    for line in box.splitlines()[1:]:
        content = line.strip("│ ")
        if content.strip("─╰╯-"):
            text.append(content)
        # Where a terminal is ASCII's, a rule is below the title as well.
        elif text:
            break
    return " ".join(text) or box


def plainly(message: str, args_type: type) -> str:
    """What tyro says of a value that is of another kind than its option, or is missing, as `check` of an
    algorithm's file would say it; another message as it is"""
    patterns = (
        r"Error parsing --(?P<name>[\w-]+): .*'(?P<value>[^']*)'\]?\.?$",
        r"invalid choice '(?P<value>[^']*)' for argument '--(?P<name>[\w-]+)'",
    )
    hints = typing.get_type_hints(args_type)
    for pattern in patterns:
        found = re.match(pattern, message)
        hint = hints.get(field_of(found["name"])) if found else None
        # An option of a fork's may be of a kind that has no words here.
        if found and described(hint):
            return f"--{found['name']} must be {described(hint)}, not {found['value']!r}"
    missing = re.match(r"Missing value for argument '([\w/-]+)'", message)
    if missing:
        return f"{missing[1]} needs a value"
    return message


def load_env_module(env_id: str) -> None:
    """Imports the module of --env MODULE:ID."""
    from .envs import load_module, warn_once

    try:
        load_module(env_id)
    except ValueError as error:
        fail(f"--env {env_id}: {error}")
    warn_once(env_id)


def check_folders(module: ModuleType, args) -> None:
    """Ends the program where a run directory cannot be made."""
    (path,) = module.run_paths(dataclasses.replace(args, num_seeds=1))
    for name in path.parts:
        if len(name.encode()) > files.LONGEST:
            fail(f"no folder can be called {name[:40]}...: that is longer than {files.LONGEST} bytes")
    folder = Path(args.run_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        fail(f"--run-dir {args.run_dir}: {folder} is not a folder that you can write to")


def train(module: ModuleType, args) -> None:
    """Trains, if no other process does; a grid's worker goes on from where its runs stand."""
    from .grid.claims import TAKEN, claimed

    is_worker = "PMOE_PARENT" in os.environ
    try:
        with claimed(module.run_paths(args)):
            if is_worker:
                args = as_it_stands(module, args)
            try:
                module.train(args)
            except OSError as error:
                fail(told(error, module.run_paths(args)), 1)
    except BlockingIOError as error:
        # The log is the other worker's.
        if is_worker:
            raise SystemExit(TAKEN) from None
        fail(str(error), TAKEN)


def told(error: OSError, paths: list[Path]) -> str:
    """What went wrong in training, and how to go on where the disk is full"""
    if error.errno not in FULL:
        return str(error)
    if all(files.checkpoints(path) for path in paths):
        return f"{error}; the last checkpoint is whole, and --resume goes on from it"
    return f"{error}; there is no checkpoint yet: make room, and start again with --overwrite"


CHECKPOINT = "last|best|STEP"
WHICH = "Which policy: the last, the best by evaluation, or that of a step whose checkpoint was kept."


class Routing(str, Enum):
    argmax = "argmax"
    sample = "sample"
    mean = "mean"


class Several(typer.core.TyperCommand):
    """Takes more than one number after --obs-noise, as in --obs-noise 0 0.05 0.1"""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        words: list[str] = []
        inside = False
        for word in args:
            try:
                float(word)
                if inside and words[-1] != "--obs-noise":
                    words.append("--obs-noise")
            except ValueError:
                option = word.partition("=")[0]
                inside = option == "--obs-noise"
            words.append(word)
        return super().parse_args(ctx, words)


@app.command("eval", cls=Several)
def evaluate(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Run directories, or folders of runs."),
    ],
    episodes: Annotated[
        int,
        typer.Option(
            min=1, max=1000, help="Number of episodes; the run's --eval-episodes repeats its last evaluation."
        ),
    ] = 100,
    obs_noise: Annotated[
        list[float],
        typer.Option(
            min=0.0,
            max=1e6,
            metavar="SIGMA...",
            help="Standard deviations, not variances, of Gaussian noise on observations, as in 0 0.05 0.1.",
        ),
    ] = [0.0],  # noqa: B006
    routing: Annotated[
        Routing,
        typer.Option(
            help="Which primitive acts: the likeliest, one drawn from the router, or all by their weights."
        ),
    ] = Routing.argmax,
    primitive: Annotated[int | None, typer.Option(min=0, help="Let this primitive act alone.")] = None,
    checkpoint: Annotated[str, typer.Option(metavar=CHECKPOINT, help=WHICH)] = "last",
    video: Annotated[Path | None, typer.Option(help="Film the first episode into this .mp4 file.")] = None,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the table of several runs or noise levels.")
    ] = Path("figures"),
) -> None:
    """Evaluate trained policies: the returns of their mean actions in EPISODES episodes."""
    if video and (video.suffix != ".mp4" or video.exists() or not video.absolute().parent.is_dir()):
        fail(f"--video {video}: give the name of a new .mp4 file in an existing folder")
    from .plots.evaluate import report
    from .plots.runs import PlotError

    check_checkpoint(checkpoint)
    noises = list(dict.fromkeys(obs_noise))
    try:
        files, notes = report(run_dirs, out, episodes, noises, routing.value, primitive, video, checkpoint)
    except PlotError as error:
        fail(str(error))
    for note in notes:
        print(f"note {note}")
    if video:
        files.append(video)
    if files:
        show_written(files)


@app.command()
def export(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="A run directory and FILE.onnx or FILE.pt2, for a policy; folders of runs, or a grid's TOML "
            "file, for curves.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE.csv", help="For curves; FILE.runs.csv is written beside it."
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(metavar=CHECKPOINT, help=WHICH)] = "last",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a trained policy as one file for other programs, as in `pmoe export RUN_DIR policy.onnx`:
    observations in, actions within the environment's bounds out. Or write the curves of many runs, as in
    `pmoe export runs/ -o table.csv`: two small files, which `pmoe plot table.csv` reads like the runs."""
    if out is None:
        if len(paths) != 2:
            fail("give RUN_DIR FILE.onnx, for a policy, or PATH... -o FILE.csv, for the curves of runs")
        run_dir, file = paths
        export_policy(run_dir, file, checkpoint, overwrite)
        return
    if checkpoint != "last":
        fail("--checkpoint is for a policy: pmoe export RUN_DIR FILE.onnx")
    export_runs(paths, out, overwrite)


def export_policy(run_dir: Path, file: Path, checkpoint: str, overwrite: bool) -> None:
    """Writes a policy as an .onnx or a .pt2 file."""
    if file.suffix == ".csv":
        fail(f"{file}: curves need -o, as in `pmoe export {run_dir} -o {file}`")
    if file.suffix not in (".onnx", ".pt2"):
        fail(f"{file}: give the name of an .onnx or a .pt2 file")
    if not file.absolute().parent.is_dir():
        fail(f"{file}: there is no folder {file.parent}")
    if file.exists() and not (overwrite and file.is_file()):
        fail(f"{file} exists; --overwrite replaces a file")
    from .policy import load
    from .policy.export import CHECKS, NEEDED, ExportError
    from .policy.export import export as exported

    check_checkpoint(checkpoint)
    lacking = [name for name in NEEDED if not util.find_spec(name)]
    if file.suffix == ".onnx" and lacking:
        fail(f"an .onnx file needs {', '.join(lacking)}: pip install {' '.join(lacking)}")
    try:
        content, words = exported(load(run_dir, checkpoint), file)
    except ExportError as error:
        fail(f"{run_dir}: {error}", 1)
    except (FileNotFoundError, ValueError) as error:
        fail(str(error))
    files.write_whole(file, content)
    print(f"wrote {file}: {words}; it does as the policy does on {CHECKS} random observations")


def export_runs(paths: list[Path], file: Path, overwrite: bool) -> None:
    """Writes the curves of runs as FILE.csv and FILE.runs.csv."""
    if file.suffix != ".csv" or file.name.endswith(exports.ENDING):
        fail(f"-o {file}: give the name of a .csv file, as in table.csv")
    if not file.absolute().parent.is_dir():
        fail(f"-o {file}: there is no folder {file.parent}")
    beside = exports.runs_file(file)
    for each in (file, beside):
        if each.exists() and not overwrite:
            fail(f"{each} exists; --overwrite replaces an export")
        # A run's eval.csv, say, is nothing to replace.
        if each.exists() and not exports.begins_as_export(each):
            fail(f"{each} exists, and is no export")
    folders = []
    for path in paths:
        begun, _ = asked_at(path, None)
        folders += begun
    if not folders:
        fail("there is nothing to export yet")
    from .plots.export import report
    from .plots.runs import PlotError

    try:
        notes, summary = report(folders, file)
    except PlotError as error:
        fail(str(error))
    for note in notes:
        print(f"note {note}")
    print(f"wrote {file}, {beside}: {summary}")


def asked_at(path: Path, run_dir: str | None) -> tuple[list[Path], dict]:
    """The runs that a path of the command line means, those of a grid that have begun, and what its [plot]
    asks for"""
    if path.suffix != ".toml" or not path.is_file():
        return [path], {}
    asked = read_grid(path, run_dir)
    begun = [run for run in asked.paths if run.exists()]
    print(f"{path}: {len(begun)} of {len(asked.paths)} runs have begun")
    return begun, asked.plot


def check_checkpoint(checkpoint: str) -> None:
    if checkpoint not in ("last", "best") and not (checkpoint.isascii() and checkpoint.isdecimal()):
        fail(f"--checkpoint must be last, best or a step, not {checkpoint!r}")


def show_written(files: list[Path]) -> None:
    print(f"wrote {', '.join(map(str, files))}")


POLICIES = "Trained policies"
WITH_EPISODES = ("routing", "primitives", "modes", "trajectories")
NO_POLICIES = ("auc", "profile", "reference", "metric")  # what of a grid's [plot] an export can show


class Center(str, Enum):
    mean = "mean"
    iqm = "iqm"


class Metric(str, Enum):
    eval = "eval"
    train = "train"
    success = "success"


class Axis(str, Enum):
    steps = "steps"
    time = "time"


@app.command()
def plot(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH...",
            help="Folders of runs, finished or not, a grid's TOML file, or what `pmoe export` wrote.",
        ),
    ] = None,
    auc: Annotated[
        bool,
        typer.Option(
            "--auc",
            help="Tables of areas under the curves, and the paper's tables where its methods have runs.",
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Performance profiles: the share of runs whose area exceeds each value."
        ),
    ] = False,
    routing: Annotated[
        bool, typer.Option("--routing", help="Which primitive acts when.", rich_help_panel=POLICIES)
    ] = False,
    primitives: Annotated[
        bool,
        typer.Option(
            "--primitives",
            help="How much primitives differ, and what each returns alone.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    modes: Annotated[
        bool,
        typer.Option(
            "--modes",
            help="How many optima policies know, where the environment names them.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    tsne: Annotated[
        bool,
        typer.Option(
            "--tsne",
            help="t-SNE of states, and of what all methods' primitives do in the same ones; takes minutes.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    trajectories: Annotated[
        bool,
        typer.Option(
            "--trajectories",
            help="TargetReaching-v0: the paths of policies, and of each primitive alone.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    exploration: Annotated[
        bool,
        typer.Option(
            "--exploration",
            help="TargetReaching-v0: where the agent went while training.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    episodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Episodes for --routing, --primitives and --trajectories, default 10, and --modes, default "
            "100.",
            rich_help_panel=POLICIES,
        ),
    ] = None,
    only_primitives: Annotated[
        str | None,
        typer.Option(
            help="For --trajectories: only these primitives, as in 0,1, in one panel below each policy.",
            metavar="K,...",
            rich_help_panel=POLICIES,
        ),
    ] = None,
    states: Annotated[
        int | None,
        typer.Option(
            min=100,
            help="States for --tsne, default 10,000; fewer are quicker.",
            metavar="N",
            rich_help_panel=POLICIES,
        ),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(
            "--from", min=0, help="First step of the episode for --routing.", rich_help_panel=POLICIES
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--to", min=1, help="Where that part ends: before this step.", rich_help_panel=POLICIES),
    ] = None,
    moments: Annotated[
        str | None,
        typer.Option(
            help="Steps of that part, from 0, whose frames and bars are shown, as in 1,3,5,6,7.",
            metavar="M,...",
            rich_help_panel=POLICIES,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The method that percentages refer to; default: SAC in its family, DAC in PPO's.",
            metavar="METHOD",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="What to call a method, as in sac-k4-ab12=Mine: NAME is that of its folder, or its label so "
            "far. Repeatable.",
            metavar="NAME=TEXT",
        ),
    ] = None,
    printed: Annotated[
        bool,
        typer.Option(
            "--printed", help="With --auc: the paper's numbers also below runs that are not as long."
        ),
    ] = False,
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="Returns of evaluations or of training episodes, or success of evaluations; default: eval."
        ),
    ] = None,
    center: Annotated[
        Center, typer.Option(help="Average over seeds by the mean, or by the interquartile mean.")
    ] = Center.mean,
    show_seeds: Annotated[bool, typer.Option("--show-seeds", help="Add a thin line for each seed.")] = False,
    smooth: Annotated[
        int, typer.Option(min=1, help="Average each curve over its last W values.", metavar="W")
    ] = 1,
    x: Annotated[
        Axis,
        typer.Option(
            "--x", help="The axis: steps, or hours (finished runs only; their wall time is spread evenly)."
        ),
    ] = Axis.steps,
    estimators: Annotated[
        bool,
        typer.Option(
            "--estimators",
            help="Bias and variance of each method's gradient, and what entropy does to a policy; no runs.",
        ),
    ] = False,
    environment: Annotated[
        str | None,
        typer.Option(help="A picture of this environment, as in TargetReaching-v0; no runs.", metavar="ID"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of --environment's reset; default: 0.")
    ] = None,
    run_dir: Annotated[
        str | None, typer.Option(help="Folder of the grid's runs, if not the one its file names.")
    ] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for figures and tables.")] = Path(
        "figures"
    ),
) -> None:
    """Draw learning curves, as in `pmoe plot runs/ --auc`, with 95 % bootstrap intervals over seeds. Figures
    are saved as PNG and PDF, tables as CSV, Markdown and LaTeX."""
    if not paths and not estimators and environment is None:
        fail("name folders of runs, as in `pmoe plot runs/`, or give --estimators or --environment")
    from .plots.runs import PlotError

    figures = {"auc": auc, "profile": profile, "routing": routing, "primitives": primitives, "tsne": tsne}
    figures |= {"modes": modes, "trajectories": trajectories, "exploration": exploration}
    part = {"from": first, "to": last, "moments": read_moments(moments)}
    files = []
    folders = []
    plots = []
    for path in paths or []:
        begun, asked = asked_at(path, run_dir)
        beside = exports.grid_in(path)
        if beside:
            asked = {name: x for name, x in read_plot(beside).items() if name in NO_POLICIES}
            print(f"{beside}: of its [plot], what needs no policies")
        folders += begun
        for name in figures:
            figures[name] = figures[name] or asked.get(name, False)
        if asked:
            plots.append(asked)
    for name, value in part.items():
        part[name] = agreed(plots, name) if value is None else value
    default_reference = None if reference else agreed(plots, "reference")
    if metric is None:
        metric = Metric(agreed(plots, "metric") or "eval")
    if paths and not folders:
        fail("there is nothing to draw yet")
    if states is not None and not figures["tsne"]:
        fail("--states is for --tsne")
    if episodes is not None and not any(figures[name] for name in WITH_EPISODES):
        fail("--episodes is for --routing, --primitives, --modes and --trajectories")
    if only_primitives is not None and not figures["trajectories"]:
        fail("--only-primitives is for --trajectories")
    if printed and not figures["auc"]:
        fail("--printed is for --auc")
    if seed is not None and environment is None:
        fail("--seed is for --environment")
    if environment is not None:
        from .plots.environment import report as picture

        try:
            files += picture(environment, out, seed or 0)
        except PlotError as error:
            fail(str(error))
    if folders:
        from .plots import learning

        given = {name: value for name, value in part.items() if value is not None}
        try:
            files += learning.report(
                folders,
                out,
                areas=figures["auc"],
                profiles=figures["profile"],
                reference=reference,
                default_reference=default_reference,
                metric=metric.value,
                center=center.value,
                show_seeds=show_seeds,
                smooth=smooth,
                x=x.value,
                labels=label or [],
                printed=printed,
                analyses=learning.analyses(figures, episodes, states or 10_000, given, only_primitives),
            )
        except PlotError as error:
            fail(str(error))
    if estimators:
        from .plots import estimators as of_gradients
        from .plots import stationary

        files += of_gradients.report(out)
        files += stationary.report(out)
    show_written(files)


def agreed(plots: list[dict], name: str):
    """What all [plot] say of an option; None where they differ, and a line says so, or where none says
    anything"""
    values = [asked.get(name) for asked in plots]
    if all(value == values[0] for value in values):
        return values[0] if values else None
    print(f"the [plot] of these files differ in {name}, which is left out: --{name} says what to take")
    return None


def read_moments(text: str | None) -> list[int] | None:
    """The steps of 1,3,5"""
    if text is None:
        return None
    words = text.split(",")
    if not all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        fail(f"--moments {text}: give steps from 0 on with commas between them, as in 1,3,5")
    return [int(word) for word in words]


@app.command()
def grid(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.toml", help="The grid to run; grids/ has one for each table of the paper."
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes at a time, one thread each; default: one per core, or GPUs x per-gpu."
        ),
    ] = None,
    per_gpu: Annotated[int, typer.Option(min=1, help="Processes on each GPU.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed job is tried again.")] = 1,
    run_dir: Annotated[
        str | None, typer.Option(help="Folder for the runs, if not the one the file names.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only print the commands, and how long they take, estimated from a short measurement.",
        ),
    ] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit as a job array; needs submitit.")] = False,
    print_sbatch: Annotated[
        bool, typer.Option("--print-sbatch", help="Print a job array's script, for you to submit.")
    ] = False,
    partition: Annotated[str | None, typer.Option(help="Slurm: partition.")] = None,
    minutes: Annotated[
        int | None,
        typer.Option(
            "--time", min=1, help="Slurm: time limit of a job in minutes; an unfinished job is queued again."
        ),
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Slurm: GPUs per job.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="Slurm: memory per job, in GB.")] = None,
    job: Annotated[
        int | None,
        typer.Option(min=0, hidden=True, help="Run only this job of the grid, as a job array does."),
    ] = None,
) -> None:
    """Run a grid of methods, environments and seeds, as in `pmoe grid grids/quick.toml`. Started again, it
    goes on: finished runs are skipped, interrupted ones are resumed."""
    asked = read_grid(file, run_dir)
    if job is not None:
        if job >= len(asked.jobs):
            fail(f"--job {job}: {file} has jobs 0 to {len(asked.jobs) - 1}")
        asked.jobs = [asked.jobs[job]]
    options = {"partition": partition, "time": minutes, "gpus": gpus, "memory": memory}
    options = {name: value for name, value in options.items() if value is not None}
    asked.slurm |= options
    if print_sbatch:
        from .grid.slurm import print_script

        print_script(asked, retries)
        return
    if slurm:
        from .grid.slurm import submit

        submit(asked, retries)
        return
    if options:
        fail(f"--{next(iter(options))} is for --slurm and --print-sbatch")
    from .grid.workers import Workers, places, preview

    slots = places(asked, workers, per_gpu)
    if dry_run:
        preview(asked, slots)
        return
    raise SystemExit(Workers(asked, slots, retries, patient=job is None).run())


@app.command()
def status(
    path: Annotated[
        Path, typer.Argument(metavar="FILE.toml | PATH", help="A grid, or a folder of runs.")
    ] = Path("runs"),
    run_dir: Annotated[
        str | None, typer.Option(help="Folder of the grid's runs, if not the one its file names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the state of each run.")] = False,
) -> None:
    """Show for each run whether it is done, running, failed, stale (its process died), stopped, damaged
    or missing; and the step and the time left of what is not done. The exit status is 0 if all are done, and
    1 otherwise."""
    from .grid import read

    if not path.exists():
        fail(f"{path}: no such file or folder")
    steps: Mapping[Path, int | None]
    if path.is_file():
        steps = read_grid(path, run_dir).steps
    else:
        steps = dict.fromkeys(read.find(path))
    states = read.status(steps)
    if not states:
        fail(f"{path}: no runs there")
    if as_json:
        import json

        print(json.dumps({str(run): state for run, state in states.items()}, indent=2))
    else:
        read.show_status(states, steps)
    raise SystemExit(set(states.values()) != {"done"})


@app.command("list")
def list_algorithms() -> None:
    """List the algorithms, and say what each one is."""
    import ast

    from rich.console import Console
    from rich.table import Table

    table = Table("algorithm", "file", "what it is", box=None)
    for algo, name in ALGORITHMS.items():
        code = ast.parse(algorithms.read_text(algo))  # to import it would take seconds
        title = str(ast.get_docstring(code)).splitlines()[0]
        table.add_row(algo, name.replace(".", "/") + ".py", title.partition(": ")[2])
    Console().print(table)


@app.command()
def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="An algorithm, as `pmoe list` names them, or a run directory.",
            autocompletion=complete_algo,
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="Another algorithm, the file of your fork, or another run directory.",
            autocompletion=complete_algo,
        ),
    ],
    side_by_side: Annotated[bool, typer.Option("--side-by-side", "-y", help="In two columns.")] = False,
    context: Annotated[int, typer.Option(min=0, help="Unchanged lines to show around each change.")] = 2,
    stat: Annotated[bool, typer.Option("--stat", help="Only count the changed lines.")] = False,
) -> None:
    """Show how B differs from A: `pmoe diff sac mrp-sac` shows what makes MRP. Lines that are the same are
    left out. Of two run directories, options and code."""
    a = algorithms.completed(a)
    b = algorithms.completed(b)
    paths = [Path(a), Path(b)]
    if all(map(algorithms.is_run, paths)) and not algorithms.show_runs(*paths):
        return
    algorithms.show_diff(a, b, side_by_side, context, stat)


if __name__ == "__main__":
    main()
