"""How different the primitives of a policy are, how it uses them, and what each can do alone.

Over the N states that the deterministic policy visits in E episodes: the distance of every two primitives'
Gaussians, before the tanh, and their overlap (a mean distance may be that of a few states); how far apart
their mean actions are; the entropy H of the router's mean probabilities, the effective number of primitives
exp(H), and the mean entropy of its probabilities in a state. What lies between the two entropies is what the
state says about the primitive (their mutual information); what the action says about it, after the tanh, is I
(modes.py). A primitive's own return is that of E episodes in
which it acts alone, which begin as the policy's do.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..terminal import tracked
from .modes import information, states_of
from .policies import analyse, colours, composes, pick, plot_usage, rollout, ticks
from .routing import usage
from .runs import Run
from .style import pyplot, save, wrapped
from .tables import plus_minus, write, write_csv

FOOT = (
    "Over visited states, before the tanh if there is one: distance D, overlap exp(-D), 1 where two are the "
)
FOOT += (
    "same. H in nats. Action gap: 1 for opposite bounds. Of gating and MCP, weights stand for probabilities. "
)
FOOT += (
    "I: what an action says about its primitive, after the tanh, seen with noise of a twentieth of its range."
)
HEAD = ["environment", "method", "seed", "return", "effective number", "H(mean w)", "mean H(w)"]
HEAD += ["smallest distance", "mean overlap", "mean action gap", "I / log K"]
HEAD_EACH = ["environment", "method", "primitive", "probability, %", "steps, %", "return alone"]


# Distances of primitives


def bhattacharyya(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Distance D = -log integral sqrt(N_i N_j) of every two primitives in each state: (N, K, A) twice -> (N,
    K, K)"""
    n, k, _ = mean.shape
    variance = np.exp(2 * log_std.astype(np.float64))
    distance = np.zeros((n, k, k))
    for i, j in pairs(k):
        middle = (variance[:, i] + variance[:, j]) / 2
        apart = (mean[:, i] - mean[:, j]) ** 2
        widths = np.log(middle) - log_std[:, i] - log_std[:, j]
        each = apart / middle / 8 + widths / 2
        distance[:, i, j] = distance[:, j, i] = each.sum(-1)
    return distance


def symmetric_kl(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Mean over states of KL(i || j) + KL(j || i) of every two primitives: (N, K, A) twice -> (K, K)"""
    _, k, _ = mean.shape
    variance = np.exp(2 * log_std.astype(np.float64))
    distance = np.zeros((k, k))
    for i, j in pairs(k):
        apart = (mean[:, i] - mean[:, j]) ** 2
        one = (variance[:, i] + apart) / variance[:, j]
        other = (variance[:, j] + apart) / variance[:, i]
        both = (one + other - 2) / 2
        distance[i, j] = distance[j, i] = both.sum(-1).mean()
    return distance


def action_gap(mean_action: np.ndarray) -> np.ndarray:
    """Root mean square difference of every two primitives' mean actions, 1 for opposite bounds: (N, K, A) ->
    (K, K)"""
    _, k, _ = mean_action.shape
    gap = np.zeros((k, k))
    for i, j in pairs(k):
        difference = (mean_action[:, i] - mean_action[:, j]) / 2
        gap[i, j] = gap[j, i] = np.sqrt((difference**2).mean())
    return gap


def pairs(k: int) -> list[tuple[int, int]]:
    """Every two of k, the higher first"""
    return [(i, j) for i in range(k) for j in range(i)]


def entropy(p: np.ndarray) -> np.ndarray:
    """In nats, over the last axis; in double precision, as a router may give a primitive nothing at all"""
    p = np.asarray(p, float)
    log_p = np.log(np.where(p > 0, p, 1))
    return -(p * log_p).sum(-1)


# What there is to say of a run


@dataclass
class Measures:
    """Of a policy with K primitives in E episodes"""

    states: int
    bhattacharyya: np.ndarray  # (K, K), mean over states
    overlap: np.ndarray  # (K, K)
    symmetric_kl: np.ndarray  # (K, K)
    action_gap: np.ndarray  # (K, K)
    usage: np.ndarray  # (K,), mean probability
    share: np.ndarray  # (K,), of the steps
    entropy: float  # of the mean probabilities
    effective: float  # number of primitives
    conditional: float  # mean entropy of a state's probabilities
    information: float  # I(k; a | s) / log K, of actions as the environment gets them
    returns: np.ndarray  # (1 + K, E), the policy's first, then each primitive's alone


def measure(run: Run, episodes: int) -> Measures:
    steps = rollout(run, episodes)
    returns = [steps.returns]
    for primitive in range(run.args["k"]):
        alone = rollout(run, episodes, primitive)
        returns.append(alone.returns)
    distance = bhattacharyya(steps.mean, steps.log_std)
    some = states_of(steps)
    squashed = run.family == "SAC"
    known = information(steps.mean[some], steps.log_std[some], steps.log_w[some], squashed)
    probability, share = usage(steps)
    h = entropy(probability)
    conditional = entropy(np.exp(steps.log_w)).mean()
    return Measures(
        states=len(steps.obs),
        bhattacharyya=distance.mean(0),
        overlap=np.exp(-distance).mean(0),
        symmetric_kl=symmetric_kl(steps.mean, steps.log_std),
        action_gap=action_gap(steps.mean_action),
        usage=probability,
        share=share,
        entropy=float(h),
        effective=float(np.exp(h)),
        conditional=float(conditional),
        information=known,
        returns=np.stack(returns),
    )


# Tables


def report(runs: list[Run], out: Path, episodes: int = 10) -> tuple[list[Path], list[str]]:
    """Writes OUT/primitives.csv, .md, .tex, .png, .pdf and OUT/primitives_pairs.csv of the first seeds;
    returns them, and notes. PlotError: no policy has several primitives."""
    runs, notes = pick(runs)
    measured = analyse(tracked(runs, "primitives"), partial(measure, episodes=episodes), notes)
    rows = []
    rows_each = []
    records = []
    distances = []
    for run, m in measured:
        rows.append(row_of(run, m))
        rows_each += rows_of_each(run, m)
        records += records_of(run, m)
        distances += distances_of(run, m)
    title = f"Primitives, {episodes} episodes; distance: Bhattacharyya's"
    title_each = "Each primitive: how much it is used, and what it returns alone"
    tables = [(title, HEAD, rows), (title_each, HEAD_EACH, rows_each)]
    files = write(out / "primitives", records, tables, FOOT)
    file = out / "primitives_pairs.csv"
    write_csv(file, distances)
    return [*files, file, *plot(measured, out)], notes


def row_of(run: Run, m: Measures) -> list[str]:
    """Of the table of policies"""
    below = np.tril_indices(len(m.usage), -1)
    numbers = [m.effective, m.entropy, m.conditional]
    numbers.append(m.bhattacharyya[below].min())
    numbers.append(m.overlap[below].mean())
    numbers.append(m.action_gap[below].mean())
    numbers.append(m.information)
    cells = [f"{x:.2f}" for x in numbers]
    return [run.env, run.method, str(run.seed), mean_and_std(m.returns[0]), *cells]


def rows_of_each(run: Run, m: Measures) -> list[list[str]]:
    """Of the table of primitives"""
    rows = []
    for primitive, returns in enumerate(m.returns[1:]):
        probability = f"{100 * m.usage[primitive]:.1f}"
        share = f"{100 * m.share[primitive]:.1f}"
        rows.append([run.env, run.method, str(primitive), probability, share, mean_and_std(returns)])
    return rows


def mean_and_std(returns: np.ndarray) -> str:
    return plus_minus(returns.mean(), returns.std())


def records_of(run: Run, m: Measures) -> list[dict]:
    """A record of the policy, and one of each primitive"""
    about = {"environment": run.env, "method": run.method, "seed": run.seed}
    about |= {"episodes": m.returns.shape[1], "states": m.states}
    entropies = {"effective": m.effective, "entropy": m.entropy, "conditional": m.conditional}
    entropies["information"] = m.information
    record = about | {"primitive": "all"} | figures_of(m.returns[0]) | entropies
    records = [record | {"usage": "", "share": ""}]
    blank = dict.fromkeys(entropies, "")
    for primitive, returns in enumerate(m.returns[1:]):
        record = about | {"primitive": primitive} | figures_of(returns) | blank
        record |= {"usage": m.usage[primitive], "share": m.share[primitive]}
        records.append(record)
    return records


def figures_of(returns: np.ndarray) -> dict[str, float]:
    return {"return_mean": returns.mean(), "return_std": returns.std()}


def distances_of(run: Run, m: Measures) -> list[dict]:
    """A record of every two primitives"""
    records = []
    for i, j in pairs(len(m.usage)):
        record = {"environment": run.env, "method": run.method, "seed": run.seed, "i": j, "j": i}
        record["bhattacharyya"] = m.bhattacharyya[i, j]
        record["overlap"] = m.overlap[i, j]
        record["symmetric_kl"] = m.symmetric_kl[i, j]
        record["action_gap"] = m.action_gap[i, j]
        records.append(record)
    return records


# The figure


def plot(measured: list[tuple[Run, Measures]], out: Path) -> list[Path]:
    """A row a method: distances, gaps of the mean actions, usage, and returns"""
    rows = len(measured)
    figure = pyplot().figure(figsize=(9.5, 2.6 * rows), layout="constrained")
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for part, (run, m) in zip(parts, measured):
        distance, gap, used, alone = part.subplots(1, 4, width_ratios=(1, 1, 1.2, 1.4))
        title = wrapped(f"{run.env}: {run.method}, seed {run.seed}", 130)
        part.suptitle(title, fontsize=9, x=0.01, ha="left")
        plot_matrix(distance, m.bhattacharyya, "Bhattacharyya distance", 5)
        plot_matrix(gap, m.action_gap, "gap of mean actions", 1)
        plot_usage(used, m.usage, m.share)
        kind = "weight" if composes(run) else "probability"
        title = f"mean {kind}, share of steps (hatched)\neffective number {m.effective:.2f}"
        used.set_title(title, fontsize=7)
        plot_returns(alone, m.returns)
    return save(figure, out / "primitives")


def plot_matrix(ax, values: np.ndarray, title: str, black: float) -> None:
    """Values (K, K) as shades of grey up to black and, of few, as numbers"""
    k = len(values)
    ax.imshow(values, cmap="Greys", vmin=0, vmax=black)
    style = {"ha": "center", "va": "center", "fontsize": 6}
    for (i, j), x in np.ndenumerate(values):
        if k > 8:
            break
        text = f"{x:.2g}" if x < 10 else f"{x:.0f}"
        colour = "white" if x > black / 2 else "black"
        ax.text(j, i, text, color=colour, **style)
    ax.set(xticks=ticks(k), yticks=ticks(k))
    ax.set_title(title, fontsize=8)


def plot_returns(ax, returns: np.ndarray) -> None:
    """Returns (1 + K, E): a line for the policy's, bars for each primitive's"""
    whole, *alone = returns.mean(1)
    std, *stds = returns.std(1)
    k = len(alone)
    ax.bar(range(k), alone, yerr=stds, color=colours(k), error_kw={"linewidth": 0.8})
    ax.axhline(whole, color="black", linestyle="--", linewidth=1)
    ax.axhspan(whole - std, whole + std, color="black", alpha=0.1, linewidth=0)
    ax.set(xticks=ticks(k), xlabel="primitive")
    ax.set_title("return alone; dashed: the whole policy", fontsize=8)
