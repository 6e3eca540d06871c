"""The `pmoe` command: dispatch and nothing else. Heavy imports stand inside the commands, so that `--help` is quick."""

import ast
import dataclasses
import os
import sys
from enum import Enum
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .algorithms import ALGORITHMS, load
from .grid import GridError, as_flags, as_it_stands, nearest, run_paths

app = typer.Typer(
    help="Mixture-of-experts policies for deep reinforcement learning: train, evaluate, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point: whatever goes wrong is one line, with status 2 where the input was bad."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        fail(str(error), 1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error; its class moved between versions of typer
            raise
        fail(error.format_message()) if error.format_message() else sys.exit(2)  # 2: the help was shown


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line for its user; status 2 is bad input, 1 what went wrong on the way."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def source(algo: str) -> str:
    """An algorithm's file; to import it would take seconds."""
    return Path(__file__).parent.joinpath(ALGORITHMS[algo].replace(".", "/") + ".py").read_text()


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Words that may follow `pmoe run ...`: environments after --env, else the algorithms"""
    before = ctx.params.get("words") or []
    if before and before[-1] in ("--env", "--env-id"):
        from gymnasium import registry as words

        import_module(f"{__package__}.envs")
    else:
        words = () if set(before) & set(ALGORITHMS) else ALGORITHMS
    return [word for word in words if word.startswith(incomplete)]


def complete_algo(incomplete: str) -> list[str]:
    return [word for word in ALGORITHMS if word.startswith(incomplete)]


def show_version(value: bool) -> None:
    if value:
        print(f"pmoe {metadata.version('pmoe')}, torch {metadata.version('torch')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
def run(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ALGO [OPTIONS]",
            autocompletion=complete,
            help=f"One of: {', '.join(ALGORITHMS)}; then any of its options, `pmoe run ALGO --help` shows them.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Repeat the run of this config.json; options beside it override.")
    ] = None,
) -> None:
    """Train an agent, as in `pmoe run sac --env Hopper-v4 --k 4 --seed 1`."""
    words = words or []
    if words in (["--help"], ["-h"]):
        return print(ctx.get_help())
    recorded = read_config(config) if config else {}
    alone = [word for word, last in zip(words, ["", *words]) if not word.startswith("-") and not last.startswith("-")]
    algo = next((word for word in [*alone, *words] if word in ALGORITHMS), None)
    argv = [word for i, word in enumerate(words) if algo is None or i != words.index(algo)]
    algo = algo or recorded.get("algo")
    if algo not in ALGORITHMS:
        if not alone:
            fail(f"name an algorithm, as in `pmoe run sac --help`; there are: {', '.join(ALGORITHMS)}")
        fail(f"unknown algorithm {alone[0]!r}; {nearest(alone[0], ALGORITHMS)}")
    module = load(algo)
    args = parse(module.Args, as_flags(recorded.get("args", {})) + argv, algo)
    folder = Path(args.run_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        fail(f"--run-dir {args.run_dir}: {folder} is no folder that can be written to")
    from .claims import TAKEN, claimed

    try:
        with claimed(run_paths(algo, args)):
            if "PMOE_PARENT" in os.environ:  # a worker of a grid
                args = as_it_stands(algo, args)
            try:
                module.train(args)
            except OSError as error:
                fail(f"{error}; the last checkpoint is whole, and --resume goes on from it", 1)
    except BlockingIOError as error:
        if "PMOE_PARENT" in os.environ:  # the log is the other's
            raise SystemExit(TAKEN) from None
        fail(str(error), TAKEN)


def read_config(file: Path) -> dict:
    import json

    try:
        config = json.loads(file.read_text())
        config["algo"], config["args"]["env_id"], config["args"]["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(f"{file} is not the config.json of a run ({type(error).__name__})")
    return config


def parse(args_type: type, argv: list[str], algo: str):
    """tyro.cli, its boxed errors made one line"""
    import contextlib
    import io

    import tyro

    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            args, unknown = tyro.cli(args_type, prog=f"pmoe run {algo}", args=argv, return_unknown_args=True)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        lines = [line.strip("│ \n") for line in box.getvalue().splitlines()[1:]]
        end = next((i for i, line in enumerate(lines) if not line or line[0] in "─╰"), len(lines))
        fail(" ".join(lines[:end]) or box.getvalue())
    if unknown:
        options = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(args_type)]
        near = nearest(unknown[0], [*options, "--env", "--config"])
        fail(f"unknown option {unknown[0]}; {near}; see `pmoe run {algo} --help`")
    return args


class Routing(str, Enum):
    argmax = "argmax"
    sample = "sample"


class Several(typer.core.TyperCommand):
    """Takes more than one number after --obs-noise, as in --obs-noise 0 0.05 0.1"""

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        words, inside = [], False
        for word in args:
            try:
                float(word)
            except ValueError:
                inside = word.partition("=")[0] == "--obs-noise"
            else:
                words += ["--obs-noise"] if inside and words[-1] != "--obs-noise" else []
            words.append(word)
        return super().parse_args(ctx, words)


@app.command("eval", cls=Several)
def evaluate(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs, RUN_DIR/ENV/ALGO-kK/seedN, or folders of runs.")
    ],
    episodes: Annotated[
        int, typer.Option(min=1, max=1000, help="As many as the run's --eval-episodes repeat its last evaluation.")
    ] = 100,
    obs_noise: Annotated[
        list[float],
        typer.Option(min=0.0, max=1e6, metavar="SIGMA...", help="Gaussian noise on observations, as in 0 0.05 0.1."),
    ] = (0.0,),
    routing: Annotated[Routing, typer.Option(help="The likeliest primitive, or one drawn from the router.")] = "argmax",
    primitive: Annotated[int | None, typer.Option(min=0, help="Let this primitive act alone.")] = None,
    video: Annotated[Path | None, typer.Option(help="Film the first episode: an .mp4 file.")] = None,
    out: Annotated[
        Path, typer.Option(file_okay=False, help="The folder for the table of several runs or noises.")
    ] = Path("figures"),
) -> None:
    """Evaluate trained policies: the return of their mean action over EPISODES episodes."""
    if video and (video.suffix != ".mp4" or video.exists() or not video.absolute().parent.is_dir()):
        fail(f"--video {video}: give the name of a new .mp4 file in a folder that exists")
    from .plots.evaluate import report
    from .plots.runs import PlotError

    noises = list(dict.fromkeys(obs_noise))
    try:
        files, notes = report(run_dirs, out, episodes, noises, routing == Routing.sample, primitive, video)
    except PlotError as error:
        fail(str(error))
    for note in notes:
        print(f"note {note}")
    if files or video:
        print(f"wrote {', '.join(map(str, [*files, video] if video else files))}")


POLICIES = "Trained policies"


class Center(str, Enum):
    mean = "mean"
    iqm = "iqm"


class Metric(str, Enum):
    eval = "eval"
    train = "train"


class Axis(str, Enum):
    steps = "steps"
    time = "time"


@app.command()
def plot(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Folders of runs, finished or not; a grid's file.toml."),
    ] = None,
    auc: Annotated[
        bool, typer.Option("--auc", help="Tables of areas under the curves; the paper's where its methods are there.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Performance profiles: the share of runs above each area.")
    ] = False,
    routing: Annotated[
        bool, typer.Option("--routing", help="Which primitive acts when.", rich_help_panel=POLICIES)
    ] = False,
    primitives: Annotated[
        bool,
        typer.Option("--primitives", help="How different they are, and their returns alone.", rich_help_panel=POLICIES),
    ] = False,
    tsne: Annotated[
        bool,
        typer.Option(
            "--tsne", help="t-SNE of states, and of primitives' actions; minutes each.", rich_help_panel=POLICIES
        ),
    ] = False,
    trajectories: Annotated[
        bool,
        typer.Option(
            "--trajectories",
            help="TargetReaching-v0: paths of policies, and of each primitive alone.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    exploration: Annotated[
        bool,
        typer.Option(
            "--exploration",
            help="TargetReaching-v0: where training went, of runs with --keep-replay.",
            rich_help_panel=POLICIES,
        ),
    ] = False,
    episodes: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Of --routing, --primitives and --trajectories.", rich_help_panel=POLICIES),
    ] = 10,
    states: Annotated[
        int,
        typer.Option(min=100, help="Of --tsne; fewer are quicker.", metavar="N", rich_help_panel=POLICIES),
    ] = 10_000,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The method that percents are of; default: SAC for its family, DAC for PPO's.", metavar="METHOD"
        ),
    ] = None,
    metric: Annotated[Metric, typer.Option(help="Returns of evaluations, or of training episodes.")] = "eval",
    center: Annotated[Center, typer.Option(help="Over seeds: mean or interquartile mean.")] = "mean",
    show_seeds: Annotated[bool, typer.Option("--show-seeds", help="A thin line for each seed.")] = False,
    smooth: Annotated[int, typer.Option(min=1, help="Draw means over the last so many values.", metavar="W")] = 1,
    x: Annotated[
        Axis, typer.Option("--x", help="Steps, or hours: of finished runs, their process's time spread evenly.")
    ] = "steps",
    estimators: Annotated[
        bool, typer.Option("--estimators", help="Needs no runs: bias and variance of each method's gradient.")
    ] = False,
    run_dir: Annotated[str | None, typer.Option(help="Where a grid's runs are, instead of the file's.")] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder for what is drawn.")] = Path("figures"),
) -> None:
    """Draw learning curves, as in `pmoe plot runs/ --auc`, with 95 % bootstrap intervals over seeds. Figures are
    written as png and pdf, tables as csv, md and tex."""
    if not paths and not estimators:
        fail("say what to plot: folders of runs, as in `pmoe plot runs/`, or --estimators")
    figures = {"auc": auc, "profile": profile, "routing": routing, "primitives": primitives, "tsne": tsne}
    figures |= {"trajectories": trajectories, "exploration": exploration}
    files, folders, usual = [], [], None
    for path in paths or []:
        if path.suffix != ".toml" or not path.is_file():
            folders.append(path)
            continue
        wanted = read_grid(path, run_dir)
        there = [run for run in wanted.paths if run.exists()]
        print(f"{path}: {len(there)} of its {len(wanted.paths)} runs have begun")
        folders += there
        figures = {name: wished or wanted.plot.get(name, False) for name, wished in figures.items()}
        usual = wanted.plot.get("reference")
    if paths and not folders:
        fail("there is nothing to draw yet")
    if folders:
        from .plots import learning
        from .plots.runs import PlotError

        options = {"areas": figures["auc"], "profiles": figures["profile"], "reference": reference, "usual": usual}
        options |= {"metric": metric.value, "center": center.value, "x": x.value}
        options |= {"show_seeds": show_seeds, "smooth": smooth}
        try:
            options["analyses"] = learning.analyses(figures, episodes, states)
            files += learning.report(folders, out, **options)
        except PlotError as error:
            fail(str(error))
    if estimators:
        from .plots.estimators import report

        files += report(out)
    print(f"wrote {', '.join(map(str, files))}")


@app.command()
def grid(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to run; grids/ has one for each table.")],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes at a time, a thread each; default: the cores, or GPUs x per-gpu."),
    ] = None,
    per_gpu: Annotated[int, typer.Option(min=1, help="Processes that share a GPU.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed job is tried again.")] = 1,
    run_dir: Annotated[str | None, typer.Option(help="Where runs are kept, instead of the file's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the commands and, by a short measurement, the time they take.")
    ] = False,
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit as a job array; needs submitit.")] = False,
    print_sbatch: Annotated[
        bool, typer.Option("--print-sbatch", help="Print the script of a job array, to submit it yourself.")
    ] = False,
    partition: Annotated[str | None, typer.Option(help="Slurm: the partition.")] = None,
    minutes: Annotated[int | None, typer.Option("--time", min=1, help="Slurm: minutes until it is requeued.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Slurm: GPUs of a job.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="Slurm: GB of a job.")] = None,
    job: Annotated[int | None, typer.Option(min=0, hidden=True, help="Only this job, as a job array has it.")] = None,
) -> None:
    """Run a grid of methods, environments and seeds, as in `pmoe grid grids/quick.toml`. Started again it goes on: what
    is finished is skipped, what was interrupted is resumed."""
    from .workers import Workers, places, preview

    wanted = read_grid(file, run_dir)
    if job is not None:
        if job >= len(wanted.jobs):
            fail(f"--job {job}: {file} has jobs 0 to {len(wanted.jobs) - 1}")
        wanted.jobs = [wanted.jobs[job]]
    given = {"partition": partition, "time": minutes, "gpus": gpus, "memory": memory}
    given = {name: value for name, value in given.items() if value is not None}
    wanted.slurm |= given
    if slurm or print_sbatch:
        from . import slurm as cluster

        try:
            return cluster.print_script(wanted, retries) if print_sbatch else cluster.submit(wanted, retries)
        except GridError as error:
            fail(str(error))
    if given:
        fail(f"--{next(iter(given))} is for --slurm and --print-sbatch")
    slots = places(wanted, workers, per_gpu)
    if dry_run:
        return preview(wanted, slots)
    raise SystemExit(Workers(wanted, slots, retries, patient=job is None).run())


def read_grid(file: Path, run_dir: str | None):
    """The grid; ends the program with one line if it is not one."""
    from .grid import read

    try:
        return read(file, ALGORITHMS, run_dir)
    except GridError as error:
        fail(str(error))


@app.command()
def status(
    path: Annotated[Path, typer.Argument(metavar="FILE.toml | PATH", help="A grid, or a folder of runs.")] = "runs",
    run_dir: Annotated[str | None, typer.Option(help="Where a grid's runs are, instead of the file's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON: a state for each run.")] = False,
) -> None:
    """Say of each run whether it is done, running, failed, stale (its process died), stopped or missing. The exit
    status is 0 if all are done, else 1."""
    from .grid import find, show_status, status

    if not path.exists():
        fail(f"{path}: no such file or folder")
    states = status(read_grid(path, run_dir).paths if path.is_file() else find(path))
    if not states:
        fail(f"{path}: no run there")
    if as_json:
        import json

        print(json.dumps({str(run): state for run, state in states.items()}, indent=2))
    else:
        show_status(states)
    raise SystemExit(set(states.values()) != {"done"})


@app.command("list")
def list_algorithms() -> None:
    """The algorithms, and what each is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("algorithm", "file", "what it is", box=None)
    for algo, name in ALGORITHMS.items():
        first_line = ast.get_docstring(ast.parse(source(algo))).splitlines()[0]
        table.add_row(algo, name.replace(".", "/") + ".py", first_line.split(": ", 1)[1])
    Console().print(table)


@app.command()
def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="An algorithm, as `pmoe list` names them.", autocompletion=complete_algo)
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, or a file: your fork.", autocompletion=complete_algo)],
    side_by_side: Annotated[bool, typer.Option("--side-by-side", "-y", help="In two columns.")] = False,
    context: Annotated[int, typer.Option(min=0, help="Lines around a change.")] = 2,
    stat: Annotated[bool, typer.Option("--stat", help="Only count the lines that changed.")] = False,
) -> None:
    """Show what B does otherwise than A: `pmoe diff sac mrp-sac` shows what MRP is. What is the same is left out."""
    from .diff import show

    texts = []
    for name in (a, b):
        if name not in ALGORITHMS and not Path(name).is_file():
            fail(f"{name!r} is neither an algorithm nor a file; {nearest(name, ALGORITHMS)}")
        try:
            texts.append(source(name) if name in ALGORITHMS else Path(name).read_text())
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{name} cannot be read ({type(error).__name__})")
    show(a, b, *texts, side_by_side, context, stat)


if __name__ == "__main__":
    main()
