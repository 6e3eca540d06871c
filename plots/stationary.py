"""What entropy does to a policy on the bandit of two narrow peaks (envs/unshaped.py): the policies at which
the gradient of E[r] + alpha H vanishes, H the entropy.

On the line, a Gaussian has few of them, in closed form, and above some alpha none. With
z = (a - mean) / sigma, the derivative by log sigma is alpha - E[r (1 - z^2)]. Where 0 <= r <= r_max, the
expectation is at most r_max E[max(0, 1 - z^2)] = 2 phi(1) r_max, phi the standard normal density.

Under a tanh, as in SAC's files, H has a maximum, and so there always is such a policy. The true gradient
leads to it, of one Gaussian or of a mixture, and E[r] there is compared with that of the soft optimum, which
is the best of all densities and proportional to exp(r / alpha).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import pmoe_sac
from ..envs.unshaped import Bimodal
from .style import pyplot, save
from .tables import write

LEFT = (1.5, 0.75)  # height of the left peak: the symmetric and the asymmetric bandit
ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 2.25)
KS = (1, 5)
SHOWN = 0.6  # the alpha whose policies are drawn
BOUND = 2 * math.exp(-0.5) / math.sqrt(2 * math.pi)  # 2 phi(1)
CLAIM = 1.5  # alpha / r_max, above which MRP's paper says that there is none
STARTS = 4
PEAKS = (-0.55, 0.55)  # where they are before the tanh
STEPS = 600
COLOURS = {1: "#000000", 5: "#56B4E9"}  # of K
BRANCHES = {"left": ("#D55E00", "o", 4), "between": ("#8C8C8C", "o", 2), "right": ("#009E73", "o", 2)}


# On the line


def derivatives(bandit: Bimodal, mean: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of E[r] by the mean and, with the sign turned, by log sigma, a ~ N(mean, sigma^2)"""
    by_mean = np.zeros(np.broadcast(mean, sigma).shape)
    by_log_sigma = np.zeros_like(by_mean)
    variance = bandit.width**2 + sigma**2
    for [centre], height in zip(bandit.centres, bandit.heights):
        offset = mean - centre
        expected = height * bandit.width / np.sqrt(variance) * np.exp(-(offset**2) / (2 * variance))
        by_mean -= expected * offset / variance
        by_log_sigma += expected * (sigma**2 / variance) * (1 - offset**2 / variance)
    return by_mean, by_log_sigma


@dataclass
class Point:
    """A Gaussian on the line that is stationary for its alpha"""

    branch: str  # where its mean is
    mean: float
    sigma: float
    alpha: float


def stationary(bandit: Bimodal) -> list[list[Point]]:
    """Stationary points of every alpha, in curves along sigma: a mean at which E[r] has slope 0 does not
    depend on alpha, and alpha is what holds the sigma there."""
    means = np.linspace(-1.5, 1.5, 3002)  # 0 is between two of them
    curves: dict[tuple, list[Point]] = {}
    for sigma in np.geomspace(1e-3, 30, 800):
        slope, _ = derivatives(bandit, means, sigma)
        turns = np.flatnonzero(np.sign(slope[:-1]) != np.sign(slope[1:]))
        for i, turn in enumerate(turns):
            share = slope[turn] / (slope[turn] - slope[turn + 1])
            mean = means[turn] + share * (means[turn + 1] - means[turn])
            _, alpha = derivatives(bandit, mean, sigma)
            point = Point(branch_of(mean), float(mean), float(sigma), float(alpha))
            curves.setdefault((len(turns), i), []).append(point)
    return list(curves.values())


def branch_of(mean: float) -> str:
    if abs(mean) < 0.75:
        return "between"
    return "left" if mean < 0 else "right"


def count(curves: list[list[Point]], alpha: float) -> int:
    """How many Gaussians are stationary for this alpha: how often the curves cross it"""
    crossings = 0
    for curve in curves:
        above = np.array([point.alpha > alpha for point in curve])
        crossings += int((above[:-1] != above[1:]).sum())
    return crossings


def highest(curves: list[list[Point]]) -> float:
    """The alpha above which there is none"""
    return max(point.alpha for curve in curves for point in curve)


# Under a tanh


def grid() -> tuple[Tensor, Tensor]:
    """Points u (J,), close together where tanh is not flat, and what of du belongs to each"""
    t = torch.linspace(-4.5, 4.5, 901, dtype=torch.float64)
    return t.sinh(), t.cosh() * (t[1] - t[0])


def reward_of(bandit: Bimodal, u: Tensor) -> Tensor:
    action = bandit.bound * u.tanh()
    return torch.from_numpy(bandit.reward_of(action.unsqueeze(-1).numpy()))


def log_density(u: Tensor, mean: Tensor, log_std: Tensor, log_w: Tensor) -> Tensor:
    """log pi(a) of a = tanh(u), u (J,), of policies (P, K) -> (P, J)"""
    mixture = [x.unsqueeze(1) for x in (mean.unsqueeze(-1), log_std.unsqueeze(-1), log_w)]  # (P, 1, K, ...)
    points = u.view(1, 1, -1, 1).expand(len(mean), 1, -1, 1)
    log_prob = pmoe_sac.mixture_log_density(points, *mixture).squeeze(1)
    return log_prob - pmoe_sac.tanh_log_det(u)


def probability(u: Tensor, du: Tensor, log_prob: Tensor) -> Tensor:
    """Of each point's surroundings, of log pi(a) (P, J)"""
    # Where the tanh is flat, da itself is 0 in a float.
    return (log_prob + pmoe_sac.tanh_log_det(u)).exp() * du


def starts(k: int) -> list[Tensor]:
    """Mean, log sigma and logits (STARTS, K) where the ascent begins: twice about as a file does, and twice
    with narrow primitives on the peaks, because it does not find them from everywhere."""
    generator = torch.Generator().manual_seed(0)
    mean = 0.7 * torch.randn(STARTS, k, generator=generator, dtype=torch.float64)
    log_std = torch.full_like(mean, -1.5)
    if k == 1:
        mean[2:, 0] = torch.tensor(PEAKS)
        log_std[2:] = -3.5
    else:
        mean[2:, :2] = torch.tensor(PEAKS)
        log_std[2:, :2] = -3.5
        log_std[2:, 2:] = 0.0
    return [mean, log_std, torch.zeros_like(mean)]


def ascend(bandit: Bimodal, k: int, alphas: tuple = ALPHAS, steps: int = STEPS) -> list[Tensor]:
    """Mean, log sigma and log w (N, K) of the best policy that the true gradient of E[r] + alpha H leads to,
    for each of N alphas, from STARTS starts"""
    leaves = []
    for start in starts(k):
        copies = start.repeat(len(alphas), 1)  # (N STARTS, K)
        leaves.append(copies.requires_grad_())
    alpha = torch.tensor(alphas, dtype=torch.float64).repeat_interleave(STARTS).unsqueeze(-1)

    u, du = grid()
    reward = reward_of(bandit, u)
    adam = torch.optim.Adam(leaves, 0.03)
    for _ in range(steps):
        log_prob = log_density(u, leaves[0], leaves[1], leaves[2].log_softmax(-1))
        value = reward - alpha * log_prob
        objective = (probability(u, du, log_prob) * value).sum(-1)
        adam.zero_grad()
        (-objective.sum()).backward()
        adam.step()
        with torch.no_grad():
            leaves[1].clamp_(-5, 2)  # as the files bound it
    best = objective.detach().view(len(alphas), STARTS).argmax(-1)
    rows = torch.arange(len(alphas)) * STARTS + best
    mean, log_std, logits = [leaf.detach()[rows] for leaf in leaves]
    return [mean, log_std, logits.log_softmax(-1)]


def expected_reward(bandit: Bimodal, mean: Tensor, log_std: Tensor, log_w: Tensor) -> Tensor:
    """E[r] of policies (P, K), (P,)"""
    u, du = grid()
    log_prob = log_density(u, mean, log_std, log_w)
    return (probability(u, du, log_prob) * reward_of(bandit, u)).sum(-1)


def soft_optimum(bandit: Bimodal, alpha: float) -> float:
    """E[r] of the density proportional to exp(r / alpha)"""
    action = np.linspace(-bandit.bound, bandit.bound, 8001)
    reward = bandit.reward_of(action[:, None])
    density = np.exp((reward - reward.max()) / alpha)
    return float((density * reward).sum() / density.sum())


# Table and figure


@dataclass
class Finding:
    """On a bandit and an alpha"""

    left: float
    alpha: float
    on_the_line: int  # Gaussians that are stationary
    gaussian: float  # E[r], under a tanh
    mixture: float
    best: float  # of the soft optimum


@dataclass
class Study:
    """Of a bandit"""

    bandit: Bimodal
    curves: list[list[Point]]  # its stationary Gaussians on the line
    policies: dict[int, list]  # the best under a tanh, for each alpha, by K
    findings: list[Finding]  # for each alpha


def study(left: float, alphas: tuple = ALPHAS, steps: int = STEPS) -> Study:
    bandit = Bimodal(left)
    curves = stationary(bandit)
    policies = {k: ascend(bandit, k, alphas, steps) for k in KS}
    rewards = [expected_reward(bandit, *policies[k]).tolist() for k in KS]
    findings = []
    for alpha, gaussian, mixture in zip(alphas, *rewards):
        best = soft_optimum(bandit, alpha)
        findings.append(Finding(left, alpha, count(curves, alpha), gaussian, mixture, best))
    return Study(bandit, curves, policies, findings)


def report(out: Path) -> list[Path]:
    """Writes OUT/stationary.csv, .md, .tex, .png and .pdf."""
    studies = [study(left) for left in LEFT]
    records = []
    tables = []
    head = ["alpha", "stationary on the line", *(f"E[r], K = {k}" for k in KS), "E[r], soft optimum"]
    for left, studied in zip(LEFT, studies):
        records += [asdict(finding) for finding in studied.findings]
        fold = highest(studied.curves)
        title = (
            f"Bimodal-v0,left={left}: a Gaussian on the line has no stationary point above alpha = {fold:.3f}"
        )
        tables.append((title, head, [row_of(finding) for finding in studied.findings]))
    return write(out / "stationary", records, tables) + plot(studies, out)


def row_of(finding: Finding) -> list[str]:
    rewards = [f"{x:.3f}" for x in (finding.gaussian, finding.mixture, finding.best)]
    return [f"{finding.alpha:g}", str(finding.on_the_line), *rewards]


def plot(studies: list[Study], out: Path) -> list[Path]:
    """A row for each bandit: rewards and policies, stationary points on the line, E[r] under a tanh"""
    figure, axes = pyplot().subplots(len(studies), 3, figsize=(10, 5.6), layout="constrained", squeeze=False)
    for row, studied in zip(axes, studies):
        plot_policies(row[0], studied)
        plot_line(row[1], studied)
        plot_rewards(row[2], studied.findings)
    return save(figure, out / "stationary")


def plot_policies(ax, studied: Study) -> None:
    """Rewards, and the policies under a tanh for the alpha that is shown"""
    bandit = studied.bandit
    bandit.plot_layout(ax)
    alphas = [finding.alpha for finding in studied.findings]
    at = alphas.index(SHOWN)
    u = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    for k, policy in studied.policies.items():
        density = log_density(u, *[x[at : at + 1] for x in policy])[0].exp() / bandit.bound
        action = bandit.bound * u.tanh()
        ax.plot(action, density, color=COLOURS[k], lw=1.2, label=f"density, K = {k}")
    ax.lines[0].set_label("reward")
    ax.set(xlabel="action", ylim=(0, 2.6), title=f"left peak {bandit.heights[0]:g}; alpha = {SHOWN}")
    ax.legend(frameon=False, fontsize=7, loc="upper left")


def plot_line(ax, studied: Study) -> None:
    """Sigma of the Gaussians that are stationary on the line, by alpha"""
    on_the_line = [point for curve in studied.curves for point in curve]
    for branch, (colour, marker, size) in BRANCHES.items():
        points = [point for point in on_the_line if point.branch == branch and point.alpha > 0]
        x = [point.alpha for point in points]
        y = [point.sigma for point in points]
        ax.plot(x, y, marker, color=colour, ms=size, mew=0, label=branch)
    most = studied.bandit.heights.max()
    lines = {"2 phi(1) r_max": BOUND * most, "3/2 r_max": CLAIM * most}
    for (label, alpha), dash in zip(lines.items(), (":", "--")):
        ax.axvline(alpha, color="#000000", lw=0.8, ls=dash, label=label)
    ax.set(xscale="log", yscale="log", xlim=(0.01, 60), ylim=(0.003, 30), xlabel="alpha", ylabel="sigma")
    ax.set_title("stationary Gaussians on the line")
    ax.legend(frameon=False, fontsize=7, loc="center right")


def plot_rewards(ax, findings: list[Finding]) -> None:
    """E[r] of the policies under a tanh, by alpha"""
    alphas = [finding.alpha for finding in findings]
    best = [finding.best for finding in findings]
    gaussian = [finding.gaussian for finding in findings]
    mixture = [finding.mixture for finding in findings]
    ax.plot(alphas, best, ":", color="#8C8C8C", label="soft optimum")
    ax.plot(alphas, gaussian, "-o", color=COLOURS[1], ms=3, label="K = 1")
    ax.plot(alphas, mixture, "-X", color=COLOURS[5], ms=4, label="K = 5")
    ax.set(xscale="log", ylim=(0, None), xlabel="alpha", title="under a tanh: E[r] at the best one found")
    ax.set_xticks(alphas, [f"{alpha:g}" for alpha in alphas])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=7)
