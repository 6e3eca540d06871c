"""What trained policies return, also with noise on what they see: `pmoe eval`, and table 5 of arXiv 2104.09122."""

import csv
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from ..algorithms import ALGORITHMS, load
from .paper import PRINTED, PRINTED_K
from .policies import composes, follow, step_of
from .runs import PlotError, Run, by_method, name_methods
from .tables import number, show, tracked, write


def evaluate(
    run: Run,
    episodes: int,
    noise: float = 0.0,
    sample: bool = False,
    primitive: int | None = None,
    film: Path | None = None,
) -> np.ndarray:
    """Undiscounted returns (E,) of the policy's mean action, with Gaussian noise of this sigma on the observation; the
    primitive is the likeliest, or drawn from the router (`sample`), or always the same. The first episode is filmed."""
    module, act = load(run.algo), policy(run, noise, sample, primitive)
    if not film:
        envs = module.Envs(run.env, episodes, run.args.get("env_backend", "gymnasium"))
        return envs.evaluate(act, [run.seed], step_of(run))[0]
    import imageio

    envs = module.Envs(run.env, episodes, render_mode="rgb_array")
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
        returns = envs.evaluate(act, [run.seed], step_of(run))[0]
    first.close()
    return returns


def policy(run: Run, noise: float, sample: bool, primitive: int | None):
    """A function obs (1, E, O) -> action (1, E, A) for new episodes; DAC's actor keeps the option it is in."""
    actor, generator = load(run.algo).load_actor(run.path), Generator().manual_seed(run.seed)

    def alone(log_w: Tensor) -> Tensor:
        return torch.full_like(log_w[..., :1], primitive, dtype=torch.long)

    def sampled(log_w: Tensor) -> Tensor:
        return torch.multinomial(log_w.exp().flatten(0, -2), 1, generator=generator).unflatten(0, log_w.shape[:-1])

    choose = alone if primitive is not None else sampled if sample else None
    return lambda obs: actor.act(obs + noise * torch.randn(obs.shape, generator=generator), choose)


def find(paths: list[Path]) -> tuple[list[Run], list[str]]:
    """The runs at and below the paths, and notes on what is none. PlotError: a path has no run that can be loaded."""
    runs, notes = [], []
    for path in paths:
        here = (path / "config.json").exists()
        folders = [path] if here else sorted(file.parent for file in path.rglob("config.json"))
        found = [read(folder) for folder in folders]
        runs += [run for run in found if isinstance(run, Run)]
        wrong = [run for run in found if not isinstance(run, Run)]
        if len(wrong) == len(found):
            kind = "is no run; a run is a directory like runs/Hopper-v4/sac-k4/seed1, with a config.json in it"
            raise PlotError(wrong[0] if wrong else f"{path} {kind}")
        notes += wrong
    return name_methods(list({run.path.resolve(): run for run in runs}.values()), notes), notes


def read(folder: Path) -> "Run | str":
    """The run in a directory, without its curve, or why there is none"""
    try:
        config = json.loads((folder / "config.json").read_text())
        algo, args = config["algo"], config["args"]
        args["env_id"], args["seed"], args["k"], args["total_timesteps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder / 'config.json'} is not the config.json of a run ({type(error).__name__})"
    if algo not in ALGORITHMS:
        return f"{folder} is of the algorithm {algo!r}, not of pmoe's: {', '.join(ALGORITHMS)}"
    steps = [int(file.stem) for file in folder.glob("checkpoint/*.pt")]
    if not steps:
        return f"{folder} has no checkpoint"
    return Run(folder, algo, args, np.array([max(steps)]), np.array([np.nan]), 0.0, None, [])


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
    runs, notes = find(paths)
    for run in runs:
        if primitive is not None and primitive >= run.args["k"]:
            raise PlotError(f"--primitive {primitive}: {run.path} has primitives 0 to {run.args['k'] - 1}")
        if sample and composes(run):
            raise PlotError(f"--routing sample: {run.algo} composes its primitives and draws none of them")
    returns = {}
    for run, noise in tracked(product(runs, noises), "episodes"):
        returns[run.path, noise] = evaluate(run, episodes, noise, sample, primitive, film)
    if len(returns) == 1:
        ((run, x),) = zip(runs, returns.values())
        figures = [f"{y:.1f}" for y in (x.mean(), x.std(), x.min(), x.max())]
        head = ["environment", "step", "episodes", "mean", "std", "min", "max"]
        show(f"Return of {run.path}", head, [[run.env, str(step_of(run)), str(episodes), *figures]])
        return [], notes
    records, tables = [], []
    for env, methods in by_method(runs).items():
        for run, noise in product([run for group in methods.values() for run in group], noises):
            x = returns[run.path, noise]
            about = {"environment": env, "method": run.method, "seed": run.seed, "step": step_of(run), "noise": noise}
            figures = {"return_mean": x.mean(), "return_std": x.std(), "return_min": x.min(), "return_max": x.max()}
            records.append(about | {"episodes": episodes} | figures)
        tables.append(layout(env, methods, noises, returns, episodes))
    foot = "Mean ± standard deviation over all episodes of n seeds. Printed: Gym's -v2, the paper's settings."
    return write(out / "eval", records, tables, foot), notes


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
    title = f"Return on {env} in {episodes} episodes, with Gaussian noise on the observation"
    return title, ["", "n", *(f"sigma {noise:g}" for noise in noises)], rows


def plus_minus(mean: float, std: float) -> str:
    return f"{number(mean)} ± {number(std)}"
