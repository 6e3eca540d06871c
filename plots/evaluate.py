"""What trained policies return, also with noise on what they see: `pmoe eval`, and table 5 of arXiv
2104.09122."""

import contextlib
import csv
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ..terminal import tracked
from .paper import PRINTED, PRINTED_K
from .policies import (
    algorithm,
    choose_renderer,
    composes,
    follow,
    fork_errors,
    gaussians,
    make_envs,
    primitive_count,
    trained,
)
from .runs import PlotError, Run, by_method, few, grouped, name_methods, new_run, search
from .tables import plus_minus, show, write

HEAD_ONE = ["environment", "step", "episodes", "mean", "std", "min", "max"]
HEAD_SUCCESS = ["success", "final success"]  # at any step of an episode, at its last
FOOT = "Mean ± standard deviation over all episodes of n seeds."
FOOT_PRINTED = " Printed: Gym's -v2, the paper's settings."


# One policy


def evaluate(
    run: Run,
    episodes: int,
    noise: float = 0.0,
    routing: str = "argmax",
    primitive: int | None = None,
    film: Path | None = None,
) -> np.ndarray:
    """Undiscounted returns (E,) of the policy's mean action, with Gaussian noise of this sigma on the
    observation. The primitive is the likeliest (`argmax`), drawn from the router (`sample`), or always the
    same; or all of them act by their weights (`mean`). The first episode is filmed. PlotError: the run is a
    fork's that has other means."""
    options = {"render_mode": "rgb_array"} if film else {}
    envs = make_envs(run, episodes, **options)
    checkpoint, _ = trained(run)
    with fork_errors(run), recording(run, envs, film):
        act = policy(run, noise, routing, primitive)
        returns = envs.evaluate(act, [run.seed], checkpoint)[0]
        # Older forks do not look at it.
        success = getattr(envs, "success", np.full(2, np.nan))
        if not np.isnan(success).all():
            run.success[noise] = np.nan_to_num(success).mean(0)
        return returns


@contextlib.contextmanager
def recording(run: Run, envs, film: Path | None):
    """Writes what the first of a run's `envs` does to an mp4, until its episode ends; without a film
    nothing."""
    if film is None:
        yield
        return
    import imageio

    first = envs.envs[0]
    follow(first)
    # imageio's own type has no append_data.
    writer: Any
    with imageio.get_writer(film, fps=first.metadata.get("render_fps", 30)) as writer:

        def step(action: np.ndarray, ids: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
            running = ids is None or 0 in ids
            if running:
                writer.append_data(first.render())
            result = algorithm(run).Envs.step(envs, action, ids)
            _, _, terminated, truncated = result
            if running and (terminated[0] or truncated[0]):
                writer.append_data(first.render())
            return result

        envs.step = step
        yield
    first.close()


def policy(run: Run, noise: float, routing: str, primitive: int | None) -> Callable:
    """A function obs (1, E, O) -> action (1, E, A) for new episodes; DAC's actor keeps the option it is
    in."""
    _, actor = trained(run)
    generator = Generator().manual_seed(run.seed)

    def alone(log_w: Tensor, chosen: int) -> Tensor:
        return torch.full_like(log_w[..., :1], chosen, dtype=torch.long)

    def from_router(log_w: Tensor) -> Tensor:
        shape = log_w.shape[:-1]
        chosen = torch.multinomial(log_w.exp().flatten(0, -2), 1, generator=generator)
        return chosen.unflatten(0, shape)

    choose: Callable | None = None
    if primitive is not None:
        choose = partial(alone, chosen=primitive)
    elif routing == "sample":
        choose = from_router

    def act(obs: Tensor) -> Tensor:
        normal = torch.randn(obs.shape, generator=generator)
        noisy = obs + noise * normal
        if routing == "mean":
            return mean_action(actor, noisy, run.family == "SAC")
        return actor.act(noisy, choose) if choose else actor.act(noisy)

    return act


def mean_action(actor, obs: Tensor, squashed: bool) -> Tensor:
    """The primitives' mean actions, weighed by the router: obs (1, E, O) -> (1, E, A)"""
    mean, _, log_w = gaussians(actor, obs)
    actions = mean.tanh() if squashed else mean.clamp(-1, 1)
    return (log_w.exp().unsqueeze(-1) * actions).sum(1).unsqueeze(0)


# Several


def find(paths: list[Path], checkpoint: str = "last") -> tuple[list[Run], list[str]]:
    """The runs at and below the paths whose policies can be loaded, and notes on others. PlotError: there are
    none."""
    directories, exports, notes = search(paths)
    notes += [f"{file} is an export, which has no policies" for file in exports]
    runs = []
    for directory in tracked(directories, "loading policies"):
        try:
            runs.append(read(directory, checkpoint))
        except PlotError as error:
            line = str(error)
            notes.append(line if str(directory) in line else f"{directory}: {line}")
    if not runs:
        raise PlotError(f"{few(notes)}; a run is a directory like runs/Hopper-v4/sac-k4/seed1")
    return name_methods(runs, notes), notes


def read(directory: Path, checkpoint: str = "last") -> Run:
    """The run in a directory, its step that of its policy. PlotError: there is none, or it has no policy."""
    run = new_run(directory)
    run.checkpoint = checkpoint
    run.steps[0], _ = trained(run)
    return run


def report(
    paths: list[Path],
    out: Path,
    episodes: int,
    noises: list[float],
    routing: str = "argmax",
    primitive: int | None = None,
    film: Path | None = None,
    checkpoint: str = "last",
) -> tuple[list[Path], list[str]]:
    """Prints the return of a run; of several, or of several sigmas, writes OUT/eval.csv, .md and .tex: a
    table for each environment, sigmas along its columns. Returns the files, and notes. PlotError: no run, or
    no such primitive."""
    if routing != "argmax" and primitive is not None:
        raise PlotError(f"--routing {routing} and --primitive both say who acts: give one of them")
    runs, notes = find(paths, checkpoint)
    runs, unfit = fitting(runs, routing, primitive)
    if not runs:
        raise PlotError(unfit[0].removesuffix("; left out"))
    notes += unfit
    if film:
        check_film(runs, noises)
    returns = {}
    failed = []
    for run, noise in tracked(product(runs, noises), "episodes"):
        try:
            returns[run.path, noise] = evaluate(run, episodes, noise, routing, primitive, film)
        except PlotError as error:
            failed.append(str(error))
    notes += dict.fromkeys(failed)
    one = len(runs) == len(noises) == 1
    runs = [run for run in runs if (run.path, noises[-1]) in returns]
    if not runs:
        raise PlotError(failed[0])
    if one:
        title = f"Return of {runs[0].path}{acting(routing, primitive)}"
        head = HEAD_ONE + (HEAD_SUCCESS if runs[0].success else [])
        show(title, head, [row_of(runs[0], returns[runs[0].path, noises[0]])])
        return [], notes
    notes += unfinished(runs)
    # Some environments tell nothing but success: where other runs have some, a run without any has none.
    telling = {run.env for run in runs if run.success}
    for run, noise in product(runs, noises):
        if run.env in telling:
            run.success.setdefault(noise, np.zeros(2))
    records = []
    tables = []
    for env, methods in by_method(runs).items():
        for group in methods.values():
            records += [record_of(run, noise, returns) for run, noise in product(group, noises)]
        title, head, rows = layout(env, methods, noises, returns, episodes)
        tables.append((title + acting(routing, primitive), head, rows))
    foot = FOOT
    if any(has_printed(rows) for _, _, rows in tables):
        foot += FOOT_PRINTED
    return write(out / "eval", records, tables, foot), notes


def fitting(runs: list[Run], routing: str, primitive: int | None) -> tuple[list[Run], list[str]]:
    """The runs that have this primitive, or route so, and notes on the others"""
    kept = []
    notes = []
    for run in runs:
        k = primitive_count(run)
        if k == 0 and primitive is not None:
            notes.append(f"--primitive {primitive}: {run.path} has no primitives; left out")
        elif k == 0 and routing != "argmax":
            notes.append(f"--routing {routing}: {run.path} has no primitives and no router; left out")
        elif primitive is not None and primitive >= k:
            notes.append(f"--primitive {primitive}: {run.path} has primitives 0 to {k - 1}; left out")
        elif routing == "sample" and composes(run):
            line = f"--routing sample: {run.path} composes its primitives and draws none of them; left out"
            notes.append(line)
        elif routing == "mean" and composes(run):
            notes.append(f"--routing mean: {run.path} composes its primitives in another way; left out")
        elif routing == "mean" and hasattr(trained(run)[1], "option"):
            notes.append(f"--routing mean: {run.path} keeps to the option that it chose; left out")
        else:
            kept.append(run)
    return kept, notes


def check_film(runs: list[Run], noises: list[float]) -> None:
    """PlotError: there is no film of this, or nothing renders here."""
    if len(runs) * len(noises) > 1:
        raise PlotError("--video films one run with one --obs-noise")
    reason = choose_renderer(runs[0].env)
    if reason:
        hint = "" if "pygame" in reason else "; try libegl1 or libosmesa6"
        raise PlotError(f"--video cannot render here ({reason}){hint}")


def unfinished(runs: list[Run]) -> list[str]:
    """A line on each method and number of steps whose runs have not all made them"""
    notes = []
    for env, methods in by_method(runs).items():
        for method, group in methods.items():
            for budget, alike in grouped(group, lambda run: run.budget).items():
                if any(run.steps[0] < budget for run in alike):
                    reached = "; ".join(f"seed {run.seed} at {run.steps[0]:,.0f}" for run in alike)
                    notes.append(f"{env}, {method}: unfinished: {reached} of {budget:,} steps")
    return notes


def acting(routing: str, primitive: int | None) -> str:
    """Who acts, where that is not the likeliest primitive, for a title"""
    if routing == "sample":
        return ", primitives drawn from the router"
    if routing == "mean":
        return ", the mean of all primitives"
    return "" if primitive is None else f", primitive {primitive} alone"


def row_of(run: Run, returns: np.ndarray) -> list[str]:
    """Of the table of one run"""
    figures = (returns.mean(), returns.std(), returns.min(), returns.max())
    cells = [f"{x:.1f}" for x in figures]
    for shares in run.success.values():
        cells += [f"{share:.0%}" for share in shares]
    return [run.env, str(int(run.steps[0])), str(len(returns)), *cells]


def record_of(run: Run, noise: float, returns: dict) -> dict:
    x = returns[run.path, noise]
    record = {"environment": run.env, "method": run.method, "seed": run.seed}
    record |= {"step": int(run.steps[0]), "noise": noise, "episodes": len(x)}
    record |= {"return_mean": x.mean(), "return_std": x.std(), "return_min": x.min(), "return_max": x.max()}
    if noise in run.success:
        record["success"], record["final_success"] = run.success[noise]
    return record


# Table 5


def layout(env: str, methods: dict, noises: list[float], returns: dict, episodes: int) -> tuple:
    """Title, head and rows as in table 5, each method's printed numbers below it where there are some, and
    success where the environment tells it"""
    tells = any(run.success for group in methods.values() for run in group)
    head = ["", "n"]
    for noise in noises:
        head += [f"sigma {noise:g}", *(HEAD_SUCCESS if tells else [])]
    printed = read_printed()
    rows = []
    for method, group in methods.items():
        cells = []
        for noise in noises:
            x = np.concatenate([returns[run.path, noise] for run in group])
            cells.append(plus_minus(x.mean(), x.std()))
            if tells:
                shares = np.mean([run.success[noise] for run in group], 0)
                cells += [f"{share:.0%}" for share in shares]
        rows.append([method, str(len(group)), *cells])
        name = group[0].name
        numbers = [printed.get((env, name, noise), "") for noise in noises]
        if any(numbers):
            rows.append(["  printed" + printed_k(group[0]), "", *numbers])
    title = f"Return on {env} in {episodes} episodes"
    if any(noises):
        title += ", Gaussian noise on the observation"
    return title, head, rows


def read_printed() -> dict[tuple, str]:
    """What table 5 prints of (environment, method, sigma)"""
    printed = {}
    with open(PRINTED) as file:
        for row in csv.DictReader(file):
            if row["item"] == "table5":
                noise = float(row["setting"].removeprefix("noise="))
                cell = plus_minus(float(row["value"]), float(row["std"]))
                printed[f"{row['env']}-v4", row["method"], noise] = cell
    return printed


def printed_k(run: Run) -> str:
    """The paper's number of primitives, where that is another than the run's"""
    k = PRINTED_K.get((run.name, run.env.removesuffix("-v4")), 4)
    other = run.name.startswith("PMOE") and run.args["k"] != k
    return f" (K={k})" if other else ""


def has_printed(rows: list[list[str]]) -> bool:
    return any(row[0].startswith("  printed") for row in rows)
