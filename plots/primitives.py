"""How different the primitives of a policy are, how it uses them, and what each can do alone.

Over the N states that the deterministic policy visits in E episodes: the distance of every two primitives' Gaussians,
before the tanh, and their overlap (a mean distance may be that of a few states); how far apart their mean actions are;
the entropy H of the router's mean probabilities, the effective number of primitives exp(H), and the mean entropy of its
probabilities in a state. What lies between the two entropies is what the state says about the primitive (their mutual
information). A primitive's own return is that of E episodes in which it acts alone, which begin as the policy's do.
"""

from pathlib import Path

import numpy as np

from .curves import pyplot, save
from .policies import colours, composes, pick, rollout, ticks, usage_bars
from .routing import usage
from .runs import Run
from .tables import plus_minus, tracked, write, write_csv

FOOT = "Over visited states, before the tanh if there is one: distance D, overlap exp(-D), 1 where two are the same. "
FOOT += "H in nats. Action gap: 1 for opposite bounds. Of gating and MCP, weights stand for probabilities."


def bhattacharyya(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Distance D = -log integral sqrt(N_i N_j) of every two primitives in each state: (N, K, A) twice -> (N, K, K)"""
    var = np.exp(2 * log_std.astype(np.float64))
    distance = np.zeros((len(mean), mean.shape[1], mean.shape[1]))
    for i, j in pairs(mean.shape[1]):
        middle = (var[:, i] + var[:, j]) / 2
        each = (mean[:, i] - mean[:, j]) ** 2 / middle / 8 + (np.log(middle) - log_std[:, i] - log_std[:, j]) / 2
        distance[:, i, j] = distance[:, j, i] = each.sum(-1)
    return distance


def symmetric_kl(mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
    """Mean over states of KL(i || j) + KL(j || i) of every two primitives: (N, K, A) twice -> (K, K)"""
    var = np.exp(2 * log_std.astype(np.float64))
    distance = np.zeros((mean.shape[1],) * 2)
    for i, j in pairs(mean.shape[1]):
        apart = (mean[:, i] - mean[:, j]) ** 2
        both = (var[:, i] + apart) / var[:, j] + (var[:, j] + apart) / var[:, i] - 2
        distance[i, j] = distance[j, i] = (both / 2).sum(-1).mean()
    return distance


def action_gap(each: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Root mean square difference of every two primitives' mean actions, 1 for opposite bounds: (N, K, A) -> (K, K)"""
    gap = np.zeros((each.shape[1],) * 2)
    for i, j in pairs(each.shape[1]):
        gap[i, j] = gap[j, i] = np.sqrt((((each[:, i] - each[:, j]) / (high - low)) ** 2).mean())
    return gap


def pairs(k: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(k) for j in range(i)]


def entropy(p: np.ndarray) -> np.ndarray:
    """In nats, over the last axis; in double precision, as a router may give a primitive nothing at all"""
    p = np.asarray(p, float)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def measure(run: Run, episodes: int) -> dict:
    """Figures of a run: distances (K, K), usage and share (K,), entropies, returns (1 + K, E), the policy's first"""
    seen = rollout(run, episodes)
    k = run.args["k"]
    mean, share = usage(seen)
    alone = [rollout(run, episodes, primitive)["returns"] for primitive in range(k)]
    distance = bhattacharyya(seen["mean"], seen["log_std"])
    figures = {"bhattacharyya": distance.mean(0), "overlap": np.exp(-distance).mean(0)}
    figures |= {"symmetric_kl": symmetric_kl(seen["mean"], seen["log_std"])}
    figures |= {"action_gap": action_gap(seen["each"], *seen["bounds"])}
    figures |= {"usage": mean, "share": share, "entropy": float(entropy(mean))}
    figures |= {"effective": float(np.exp(entropy(mean))), "conditional": float(entropy(np.exp(seen["log_w"])).mean())}
    return figures | {"returns": np.stack([seen["returns"], *alone]), "states": len(seen["obs"])}


def report(runs: list[Run], out: Path, episodes: int = 10) -> tuple[list[Path], list[str]]:
    """Writes OUT/primitives.csv, .md, .tex, .png, .pdf and OUT/primitives_pairs.csv of the first seeds; returns them,
    and notes. PlotError: no policy has several primitives."""
    runs, notes = pick(runs)
    measured = [(run, measure(run, episodes)) for run in tracked(runs, "primitives")]
    whole, each, records, distances = [], [], [], []
    for run, m in measured:
        about, k = {"environment": run.env, "method": run.method, "seed": run.seed}, run.args["k"]
        between = np.tril_indices(k, -1)
        total, cells = m["returns"][0], [m["effective"], m["entropy"], m["conditional"]]
        cells += [m["bhattacharyya"][between].min(), m["overlap"][between].mean(), m["action_gap"][between].mean()]
        cells = [plus_minus(total.mean(), total.std()), *(f"{x:.2f}" for x in cells)]
        whole.append([run.env, run.method, str(run.seed), *cells])
        row = about | {"episodes": episodes, "states": m["states"]}
        names = ("effective", "entropy", "conditional")
        blank = dict.fromkeys(names, "")
        for i, returns in enumerate(m["returns"], -1):
            own = {n: m[n] for n in names} | {"usage": "", "share": ""}
            own = own if i < 0 else blank | {"usage": m["usage"][i], "share": m["share"][i]}
            figures = {"return_mean": returns.mean(), "return_std": returns.std()}
            records.append(row | {"primitive": "all" if i < 0 else i} | figures | own)
            if i >= 0:
                cells = [f"{100 * x[i]:.1f}" for x in (m["usage"], m["share"])]
                each.append([run.env, run.method, str(i), *cells, plus_minus(returns.mean(), returns.std())])
        for i, j in pairs(k):
            kinds = ("bhattacharyya", "overlap", "symmetric_kl", "action_gap")
            distances.append(about | {"i": j, "j": i} | {kind: m[kind][i, j] for kind in kinds})
    head = ["environment", "method", "seed", "return", "effective number", "H(mean w)", "mean H(w)"]
    head += ["smallest distance", "mean overlap", "mean action gap"]
    title = f"Primitives, {episodes} episodes; distance: Bhattacharyya's"
    heads = ["environment", "method", "primitive", "probability, %", "steps, %", "return alone"]
    tables = [(title, head, whole), ("Each primitive: how much it is used, and what it returns alone", heads, each)]
    files = write(out / "primitives", records, tables, FOOT)
    write_csv(out / "primitives_pairs.csv", distances)
    return [*files, out / "primitives_pairs.csv", *draw(measured, out)], notes


def draw(measured: list[tuple[Run, dict]], out: Path) -> list[Path]:
    """A row a method: distances, gaps of the mean actions, usage, and returns"""
    plt = pyplot()
    shape = {"figsize": (9.5, 2.4 * len(measured)), "width_ratios": (1, 1, 1.2, 1.4), "layout": "constrained"}
    figure, axes = plt.subplots(len(measured), 4, squeeze=False, **shape)
    for (run, m), (far, gap, used, alone) in zip(measured, axes):
        k = run.args["k"]
        matrix(far, m["bhattacharyya"], "Bhattacharyya distance", 5)
        matrix(gap, m["action_gap"], "gap of mean actions", 1)
        far.set_ylabel(f"{run.env}\n{run.method}, seed {run.seed}")
        usage_bars(used, m["usage"], m["share"])
        what = f"mean {'weight' if composes(run) else 'probability'}, share of steps (hatched)"
        used.set_title(f"{what}\neffective number {m['effective']:.2f}", fontsize=7)
        middle, std = m["returns"].mean(1), m["returns"].std(1)
        alone.bar(range(k), middle[1:], yerr=std[1:], color=colours(k), error_kw={"linewidth": 0.8})
        alone.axhline(middle[0], color="black", linestyle="--", linewidth=1)
        alone.axhspan(middle[0] - std[0], middle[0] + std[0], color="black", alpha=0.1, linewidth=0)
        alone.set(xticks=ticks(k), xlabel="primitive")
        alone.set_title("return alone; dashed: the whole policy", fontsize=8)
    return save(figure, out / "primitives")


def matrix(ax, values: np.ndarray, title: str, black: float) -> None:
    """Values (K, K) as shades of grey up to black and, of few, as numbers"""
    k = len(values)
    ax.imshow(values, cmap="Greys", vmin=0, vmax=black)
    for i, j in np.ndindex(k, k) if k <= 8 else ():
        x, style = values[i, j], {"ha": "center", "va": "center", "fontsize": 6}
        ax.text(j, i, f"{x:.2g}" if x < 10 else f"{x:.0f}", color="white" if x > black / 2 else "black", **style)
    ax.set(xticks=ticks(k), yticks=ticks(k))
    ax.set_title(title, fontsize=8)
