"""What trained policies return, also with noise on what they see: `pmoe eval`, and table 5 of arXiv 2104.09122."""

import contextlib
import csv
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from ..algorithms import load
from .paper import PRINTED, PRINTED_K
from .policies import choose_renderer, composes, follow, trained
from .runs import PlotError, Run, by_method, folders, name_methods, read_config
from .tables import plus_minus, show, tracked, write


def evaluate(
    run: Run,
    episodes: int,
    noise: float = 0.0,
    sample: bool = False,
    primitive: int | None = None,
    film: Path | None = None,
) -> np.ndarray:
    """Undiscounted returns (E,) of the policy's mean action, with Gaussian noise of this sigma on the observation; the
    primitive is the likeliest, or drawn from the router (`sample`), or always the same. The first episode is filmed, in
    Gymnasium."""
    module, step = load(run.algo), trained(run)[0]
    options = {"render_mode": "rgb_array"} if film else {"backend": run.args.get("env_backend", "gymnasium")}
    envs = module.Envs(run.env, episodes, **options)
    with recording(module, envs, film) if film else contextlib.nullcontext():
        return envs.evaluate(policy(run, noise, sample, primitive), [run.seed], step)[0]


@contextlib.contextmanager
def recording(module, envs, film: Path):
    """Writes what the first of `envs` does to an mp4, until its episode ends."""
    import imageio

    first = envs.envs[0]
    follow(first)
    with imageio.get_writer(film, fps=first.metadata.get("render_fps", 30)) as writer:

        def step(action: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, ...]:
            if 0 in ids:
                writer.append_data(first.render())
            result = module.Envs.step(envs, action, ids)
            if 0 in ids and (result[2] | result[3])[0]:
                writer.append_data(first.render())
            return result

        envs.step = step
        yield
    first.close()


def policy(run: Run, noise: float, sample: bool, primitive: int | None):
    """A function obs (1, E, O) -> action (1, E, A) for new episodes; DAC's actor keeps the option it is in."""
    (_, actor), generator = trained(run), Generator().manual_seed(run.seed)

    def alone(log_w: Tensor) -> Tensor:
        return torch.full_like(log_w[..., :1], primitive, dtype=torch.long)

    def sampled(log_w: Tensor) -> Tensor:
        return torch.multinomial(log_w.exp().flatten(0, -2), 1, generator=generator).unflatten(0, log_w.shape[:-1])

    choose = alone if primitive is not None else sampled if sample else None
    return lambda obs: actor.act(obs + noise * torch.randn(obs.shape, generator=generator), choose)


def find(paths: list[Path]) -> tuple[list[Run], list[str]]:
    """The runs at and below the paths whose policies can be loaded, and notes on others. PlotError: there are none."""
    (directories, notes), runs = folders(paths), []
    for directory in tracked(directories, "loading policies"):
        try:
            algo, args = read_config(directory)
            run = Run(directory, algo, args, np.zeros(1), np.zeros(1), 0.0, None, [])
            run.steps[0], _ = trained(run)
            runs.append(run)
        except PlotError as error:
            notes.append(str(error) if str(directory) in str(error) else f"{directory}: {error}")
    if not runs:
        raise PlotError("; ".join(notes) + "; a run is a directory like runs/Hopper-v4/sac-k4/seed1")
    return name_methods(runs, notes), notes


def report(
    paths: list[Path],
    out: Path,
    episodes: int,
    noises: list[float],
    sample: bool = False,
    primitive: int | None = None,
    film: Path | None = None,
) -> tuple[list[Path], list[str]]:
    """Prints the return of a run; of several, or of several sigmas, writes OUT/eval.csv, .md and .tex: a table for each
    environment, sigmas along its columns. Returns the files, and notes. PlotError: no run, or no such primitive."""
    if sample and primitive is not None:
        raise PlotError("--routing sample draws a primitive and --primitive names one: give one of them")
    found, notes = find(paths)
    runs, unfit = [], []
    for run in found:
        if primitive is not None and primitive >= run.args["k"]:
            unfit.append(f"--primitive {primitive}: {run.path} has primitives 0 to {run.args['k'] - 1}; left out")
        elif sample and composes(run):
            unfit.append(f"--routing sample: {run.path} composes its primitives and draws none of them; left out")
        else:
            runs.append(run)
    if not runs:
        raise PlotError(unfit[0].removesuffix("; left out"))
    notes += unfit
    if film and len(runs) * len(noises) > 1:
        raise PlotError("--video films one run with one --obs-noise")
    if film and (reason := choose_renderer(runs[0].env)):
        hint = "" if "pygame" in reason else "; try libegl1 or libosmesa6"
        raise PlotError(f"--video cannot render here ({reason}){hint}")
    returns = {}
    for run, noise in tracked(product(runs, noises), "episodes"):
        returns[run.path, noise] = evaluate(run, episodes, noise, sample, primitive, film)
    if len(runs) == len(noises) == 1:
        run, x = runs[0], returns[runs[0].path, noises[0]]
        figures = [f"{y:.1f}" for y in (x.mean(), x.std(), x.min(), x.max())]
        head = ["environment", "step", "episodes", "mean", "std", "min", "max"]
        row = [run.env, str(int(run.steps[0])), str(episodes), *figures]
        show(f"Return of {run.path}{acting(sample, primitive)}", head, [row])
        return [], notes
    records, tables = [], []
    for env, methods in by_method(runs).items():
        for run, noise in product([run for group in methods.values() for run in group], noises):
            x = returns[run.path, noise]
            about = {"environment": env, "method": run.method, "seed": run.seed}
            about |= {"step": int(run.steps[0]), "noise": noise, "episodes": episodes}
            figures = {"return_mean": x.mean(), "return_std": x.std(), "return_min": x.min(), "return_max": x.max()}
            records.append(about | figures)
        for method, group in methods.items():
            if any(run.steps[0] < run.budget for run in group):
                reached = "; ".join(f"seed {run.seed} at {run.steps[0]:,.0f}" for run in group)
                notes.append(f"{env}, {method}: unfinished: {reached} of {group[0].budget:,} steps")
        title, head, rows = layout(env, methods, noises, returns, episodes)
        tables.append((title + acting(sample, primitive), head, rows))
    foot = "Mean ± standard deviation over all episodes of n seeds."
    if any(row[0].startswith("  printed") for _, _, rows in tables for row in rows):
        foot += " Printed: Gym's -v2, the paper's settings."
    return write(out / "eval", records, tables, foot), notes


def acting(sample: bool, primitive: int | None) -> str:
    """Who acts, where that is not the likeliest primitive, for a title"""
    return (
        ", primitives drawn from the router"
        if sample
        else ""
        if primitive is None
        else f", primitive {primitive} alone"
    )


def layout(env: str, methods: dict[str, list[Run]], noises: list[float], returns: dict, episodes: int) -> tuple:
    """Title, head and rows as in table 5, each method's printed numbers below it where there are some"""
    with open(PRINTED) as file:
        printed = {
            (f"{row['env']}-v4", row["method"], float(row["setting"].removeprefix("noise="))): row
            for row in csv.DictReader(file)
            if row["item"] == "table5"
        }
    rows = []
    for method, group in methods.items():
        each = [np.concatenate([returns[run.path, noise] for run in group]) for noise in noises]
        rows.append([method, str(len(group)), *(plus_minus(x.mean(), x.std()) for x in each)])
        known = [printed.get((env, group[0].name, noise)) for noise in noises]
        if any(known):
            cells = [plus_minus(float(row["value"]), float(row["std"])) if row else "" for row in known]
            k = PRINTED_K.get((group[0].name, env.removesuffix("-v4")), 4)
            other = group[0].name.startswith("PMOE") and group[0].args["k"] != k
            rows.append(["  printed" + (f" (K={k})" if other else ""), "", *cells])
    title = f"Return on {env} in {episodes} episodes" + ", Gaussian noise on the observation" * any(noises)
    return title, ["", "n", *(f"sigma {noise:g}" for noise in noises)], rows
