"""The `pmoe` command: dispatch and nothing else. Heavy imports stand inside the commands, so that `--help` is quick."""

import ast
import difflib
import sys
from enum import Enum
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer

ALGORITHMS = {"sac": "pmoe_sac"}

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
        fail(f"{error}; what was saved before stays, and --resume goes on from there", 1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error; its class moved between versions of typer
            raise
        fail(error.format_message())


def fail(message: str, status: int = 2) -> NoReturn:
    """Ends the program with one line for its user; status 2 is bad input, 1 what went wrong on the way."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


def nearest(word: str, words) -> str:
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.4)
    return f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(words)}"


def source(algo: str) -> ast.Module:
    """An algorithm's file, parsed: to import it would take seconds."""
    return ast.parse(Path(__file__).with_name(ALGORITHMS[algo] + ".py").read_text())


def options(algo: str) -> list[str]:
    args = next(node for node in source(algo).body if isinstance(node, ast.ClassDef) and node.name == "Args")
    names = [node.target.id.replace("_", "-") for node in args.body if isinstance(node, ast.AnnAssign)]
    return ["--" + {"env-id": "env"}.get(name, name) for name in names] + ["--config"]


def complete(ctx: typer.Context, incomplete: str) -> list[str]:
    """Words that may follow `pmoe run ...`: environments after --env, else the algorithms"""
    before = ctx.params.get("words") or []
    if before and before[-1] in ("--env", "--env-id"):
        from gymnasium import registry as words
    else:
        words = () if set(before) & set(ALGORITHMS) else ALGORITHMS
    return [word for word in words if word.startswith(incomplete)]


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


@app.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    options_metavar="[--env ID] [--k K] [--seed N] [--config FILE] [...]",
)
def run(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="ALGO", autocompletion=complete, help=f"One of: {', '.join(ALGORITHMS)}."),
    ] = None,
) -> None:
    """Train an agent. `pmoe run ALGO --help` shows every option; `--config FILE` repeats the run of a config.json."""
    words = words or []
    if words in (["--help"], ["-h"]):
        return print(ctx.get_help())
    algo = next((word for word in words if word in ALGORITHMS), None)
    argv, config = take_config([word for i, word in enumerate(words) if i != (words.index(algo) if algo else None)])
    algo = algo or config.get("algo")
    if algo not in ALGORITHMS:
        alone = [
            word for word, last in zip(words, ["", *words]) if not word.startswith("-") and not last.startswith("-")
        ]
        wrong = next(iter(alone), None)
        if wrong is None:
            fail(f"name an algorithm, as in `pmoe run {next(iter(ALGORITHMS))} --help`; {nearest('', ALGORITHMS)}")
        fail(f"unknown algorithm {wrong!r}; {nearest(wrong, ALGORITHMS)}")
    module = import_module(f"{__package__}.{ALGORITHMS[algo]}")
    module.train(parse(module.Args, as_flags(config.get("args", {})) + argv, algo))


def take_config(words: list[str]) -> tuple[list[str], dict]:
    """Splits `--config FILE` off the words and reads the file."""
    import json

    joined = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    at = words.index("--config") if "--config" in words else None
    if at is not None and at + 1 == len(words):
        fail("--config needs a file")
    file = words[at + 1] if at is not None else joined[0] if joined else None
    if file is None:
        return words, {}
    try:
        config = json.loads(Path(file).read_text())
        config["args"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fail(f"--config {file} is not the config.json of a run: {error}")
    rest = words[:at] + words[at + 2 :] if at is not None else words
    return [word for word in rest if not word.startswith("--config=")], config


def as_flags(args: dict) -> list[str]:
    """The fields of a config.json as options, which those of the command line follow and override"""
    flags = []
    for name, value in args.items():
        option = name.replace("_", "-")
        flags += [f"--{option if value else 'no-' + option}"] if isinstance(value, bool) else [f"--{option}={value}"]
    return flags


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
        fail(" ".join(lines[:end]))
    if unknown:
        fail(f"unknown option {unknown[0]}; {nearest(unknown[0], options(algo))}; see `pmoe run {algo} --help`")
    return args


class Routing(str, Enum):
    argmax = "argmax"
    sample = "sample"


@app.command("eval")
def evaluate(
    run_dir: Annotated[Path, typer.Argument(help="The directory of one seed: RUN_DIR/ENV/ALGO-kK/seedN.")],
    episodes: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    obs_noise: Annotated[float, typer.Option(min=0.0, help="Sigma of Gaussian noise on the observation.")] = 0.0,
    routing: Annotated[Routing, typer.Option(help="The likeliest primitive, or one drawn from the router.")] = "argmax",
    primitive: Annotated[int | None, typer.Option(min=0, help="Let this primitive act alone.")] = None,
    video: Annotated[Path | None, typer.Option(help="Film the first episode: an .mp4 file.")] = None,
) -> None:
    """Evaluate a trained policy: the return of its mean action over EPISODES episodes."""
    if video and (video.suffix != ".mp4" or video.exists() or not video.absolute().parent.is_dir()):
        fail(f"--video {video}: give the name of a new .mp4 file in a folder that exists")
    config_file = run_dir / "config.json"
    if not config_file.is_file():
        fail(f"{run_dir} is no run: it holds no config.json")
    _, config = take_config(["--config", str(config_file)])
    if config.get("algo") not in ALGORITHMS:
        fail(f"{run_dir} is of the algorithm {config.get('algo')!r}, not of pmoe's: {', '.join(ALGORITHMS)}")

    import torch
    from rich.console import Console
    from rich.table import Table

    module = import_module(f"{__package__}.{ALGORITHMS[config['algo']]}")
    actor = module.load_actor(run_dir)
    if primitive is not None and primitive >= actor.k:
        fail(f"--primitive {primitive}: the policy has primitives 0 to {actor.k - 1}")
    env_id, seed = config["args"]["env_id"], config["args"]["seed"]
    step = module.load(run_dir / "checkpoint/state.pt")["step"]
    generator = torch.Generator().manual_seed(seed)

    def act(obs: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(obs.shape, generator=generator)
        return actor.act(obs + obs_noise * noise, routing.value, primitive)

    if video:
        film(module, act, env_id, seed, step, video)
    envs = [module.make_env(env_id) for _ in range(episodes)]
    returns = module.evaluate(act, envs, [seed], step)
    table = Table("run", "step", "episodes", "mean", "std", "min", "max", title=f"Return on {env_id}")
    figures = (returns.mean(), returns.std(), returns.min(), returns.max())
    table.add_row(str(run_dir), str(step), str(episodes), *(f"{x:.1f}" for x in figures))
    Console().print(table)


def film(module, act, env_id: str, seed: int, step: int, file: Path) -> None:
    """Writes an episode as mp4. Without a screen MuJoCo renders through EGL or, where there is none, OSMesa."""
    import os

    import imageio

    screen = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    reasons = []
    for backend in [os.environ.get("MUJOCO_GL")] if screen or "MUJOCO_GL" in os.environ else ["egl", "osmesa"]:
        if backend:
            os.environ["MUJOCO_GL"] = backend
        try:
            env = module.make_env(env_id, render_mode="rgb_array")
            env.reset(seed=seed)
            env.render()
            break
        except Exception as error:  # noqa: BLE001  every graphics library has its own
            reasons.append(f"{backend or 'the screen'}: {' '.join(str(error).split())}")
    else:
        fail(f"--video cannot render; install libegl1 or libosmesa6, or set MUJOCO_GL ({'; '.join(reasons)})")
    frames = []

    def act_and_film(obs):
        frames.append(env.render())
        return act(obs)

    module.evaluate(act_and_film, [env], [seed], step)
    imageio.mimwrite(file, [*frames, env.render()], fps=env.metadata.get("render_fps", 30))
    env.close()


@app.command("list")
def list_algorithms() -> None:
    """The algorithms, and what each is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("algorithm", "file", "what it is", box=None)
    for algo, name in ALGORITHMS.items():
        table.add_row(algo, f"{name}.py", ast.get_docstring(source(algo)).splitlines()[0])
    Console().print(table)
