"""How far each method's gradient is from that of E[Q - alpha log pi], and how noisy: a one-step problem with two modes.

The policy is a mixture of K = 3 Gaussians under a tanh, its means, log sigmas and router logits free; Q is known, with
two peaks of different height. The gradient of the objective is integrated on a grid. Every estimator is the
`policy_loss` of its algorithm file, called as in training but for the actor, which hands out the free parameters, and
for the critic, which is Q. A sample is what the loss makes of one state; its critic evaluations are counted.
"""

import math
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from .. import pmoe_sac
from ..baselines import gumbel_sac, mrp_sac, reinforce_sac
from .curves import pyplot, save
from .tables import write

K, ALPHA, GROUPS = 3, 0.2, ("means", "log sigmas", "router")
ESTIMATORS = {  # its file and options
    "PMOE max": (pmoe_sac, {"backprop": "max"}),
    "PMOE all": (pmoe_sac, {"backprop": "all"}),
    "MRP": (mrp_sac, {"estimator": "marginal"}),
    "half-reparameterised": (mrp_sac, {"estimator": "half", "baseline": False}),
    "half, baseline": (mrp_sac, {"estimator": "half", "baseline": True}),
    "score function": (reinforce_sac, {"baseline_samples": 0}),
    "score function, baseline": (reinforce_sac, {"baseline_samples": K}),
    "Gumbel": (gumbel_sac, {}),
}


def q_value(action: Tensor) -> Tensor:
    """Q of actions (..., A) in (-1, 1)^A: peaks of height 2 at (-0.6, ...) and of height 1.5 at (0.5, ...)"""
    peaks = ((2.0, -0.6, 0.25), (1.5, 0.5, 0.2))
    return sum(height * (-(action - at).square().sum(-1) / (2 * width**2)).exp() for height, at, width in peaks)


def parameters(dims: int) -> list[Tensor]:
    """Means (K, A), log sigmas (K, A) before the tanh, and logits (K,) of the policy"""
    means = torch.tensor([[-0.9], [0.1], [0.8]]).repeat(1, dims) + 0.1 * torch.arange(dims)
    log_stds = torch.tensor([[-0.7], [-0.3], [-1.0]]).repeat(1, dims)
    return [x.double() for x in (means, log_stds, torch.tensor([0.3, -0.2, 0.1]))]


def log_density(u: Tensor, means: Tensor, log_stds: Tensor, logits: Tensor) -> Tensor:
    """log pi(a) of a = tanh(u), u (1, 1, J, A) -> (1, 1, J)"""
    log_prob = pmoe_sac.mixture_log_density(u, *(x[None, None] for x in (means, log_stds, logits.log_softmax(-1))))
    return log_prob - (2 * (math.log(2) - u - torch.nn.functional.softplus(-2 * u))).sum(-1)


def true_gradient(dims: int) -> list[Tensor]:
    """Of E[Q - alpha log pi] with respect to the parameters, by the trapezoid rule over u, a = tanh(u)"""
    means, log_stds, logits = (x.requires_grad_() for x in parameters(dims))
    line = torch.linspace(-6, 6, 4001 if dims == 1 else 601, dtype=torch.float64)
    u = torch.stack(torch.meshgrid(*[line] * dims, indexing="ij"), -1).view(1, 1, -1, dims)
    log_prob = log_density(u, means, log_stds, logits)
    action = u.tanh()
    integrand = log_prob.exp() * (1 - action.square()).prod(-1) * (q_value(action) - ALPHA * log_prob)  # pi(a) da/du
    area = (line[1] - line[0]) ** dims  # the integrand is 0 at the edges
    return list(torch.autograd.grad(integrand.sum() * area, (means, log_stds, logits)))


class Known(torch.nn.Module):
    """Q in the critic's place, counting the actions it is asked for: obs, action (S, B, K, A) -> (S, 2, B, K)"""

    evaluations = 0

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        self.evaluations += action.shape[2]
        return q_value(action).unsqueeze(1).expand(-1, 2, -1, -1)


def sample_gradients(label: str, dims: int, samples: int, generator: torch.Generator) -> tuple[list[Tensor], int]:
    """Ascent directions (samples, ...) for each group of parameters, and critic evaluations a sample"""
    module, options = ESTIMATORS[label]
    bounds = -np.ones(dims, np.float32), np.ones(dims, np.float32)
    agent = module.Agent(module.Args(k=K, alpha=ALPHA, **options), 1, *bounds, [torch.Generator()]).double()
    agent.qf = Known()
    mean, log_std, logits = leaves = [x.expand(1, samples, *x.shape).clone().requires_grad_() for x in parameters(dims)]
    agent.actor.forward = lambda obs: (mean, log_std, logits.log_softmax(-1))
    shape = (1, samples, agent.draws)
    noise = torch.randn(*shape, dims, generator=generator, dtype=torch.float64)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    obs = torch.zeros(1, samples, 1, dtype=torch.float64)
    loss = agent.policy_loss(obs, noise, uniform, torch.full((1, 1, 1), ALPHA, dtype=torch.float64))[0]
    gradients = torch.autograd.grad(-loss.sum() * samples, leaves)
    return [x[0].flatten(1) for x in gradients], agent.qf.evaluations


def study(dims: int, samples: int = 400_000, seed: int = 0, progress: bool = False) -> list[dict]:
    """A row for each estimator and group of parameters: the norm of the bias b and its standard error, relative to the
    true gradient's norm; chi2 = n b' C^-1 b / d, about 1 if unbiased; the variance, trace C; the critic evaluations"""
    truth, generator, rows = [x.flatten() for x in true_gradient(dims)], torch.Generator().manual_seed(seed), []
    for label in track(ESTIMATORS, f"{dims} action dimensions", disable=not progress):
        gradients, evaluations = sample_gradients(label, dims, samples, generator)
        for group, true, x in zip(GROUPS, truth, gradients):
            bias, covariance = x.mean(0) - true, torch.cov(x.T).view(len(true), -1)
            chi2 = samples * bias @ torch.linalg.pinv(covariance, hermitian=True) @ bias
            free = len(true) - (group == "router")  # softmax does not see what all logits share
            error = (covariance.trace() / samples).sqrt()
            rows.append({"dims": dims, "estimator": label, "group": group, "evaluations": evaluations})
            rows[-1] |= {"bias": (bias.norm() / true.norm()).item(), "error": (error / true.norm()).item()}
            rows[-1] |= {"chi2": chi2.item() / free, "variance": covariance.trace().item()}
    return rows


def report(out: Path, samples: int = 400_000) -> list[Path]:
    """Runs the study in one and two action dimensions; writes OUT/estimators.csv, .md, .tex, .png and .pdf."""
    out.mkdir(parents=True, exist_ok=True)
    records = [row for dims in (1, 2) for row in study(dims, samples, progress=True)]
    bias, variance = ([f"{what}, {group}" for group in GROUPS] for what in ("bias", "variance"))
    head, rows = ["A", "estimator", "critic", *bias, *variance, "variance x critic"], []
    for dims in (1, 2):
        for label in ESTIMATORS:
            mine = [row for row in records if (row["dims"], row["estimator"]) == (dims, label)]
            rows.append([str(dims), label, str(mine[0]["evaluations"])])
            rows[-1] += [f"{row['bias']:.3f} ± {row['error']:.3f}" for row in mine]
            rows[-1] += [f"{row['variance']:.3g}" for row in mine]
            rows[-1] += [f"{sum(row['variance'] for row in mine) * mine[0]['evaluations']:.3g}"]
    title = f"K = {K}, alpha = {ALPHA}, {samples} samples; bias: |mean - gradient| / |gradient|"
    return write(out / "estimators", records, [(title, head, rows)]) + draw(records, out)


def draw(rows: list[dict], out: Path) -> list[Path]:
    plt = pyplot()
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), width_ratios=(1, 1.3, 1.3), layout="constrained")
    colours, y = ("#0072B2", "#E69F00", "#009E73"), np.arange(len(ESTIMATORS))
    for dims, (problem, bias, variance) in zip((1, 2), axes):
        landscape(problem, dims)
        for g, group in enumerate(GROUPS):
            mine = [row for row in rows if (row["dims"], row["group"]) == (dims, group)]
            style = {"fmt": "os^"[g], "color": colours[g], "markersize": 4, "label": group}
            errors = [1.96 * row["error"] for row in mine]
            bias.errorbar([row["bias"] for row in mine], y + 0.2 * (g - 1), xerr=errors, **style)
            variance.plot(
                [row["variance"] for row in mine], y + 0.2 * (g - 1), style["fmt"][0], color=colours[g], markersize=4
            )
        bias.set_xscale("symlog", linthresh=0.01)
        bias.set(xlim=(0, None), title="bias", xlabel="|mean - gradient| / |gradient|")
        variance.set(xscale="log", title="variance", xlabel="trace of one sample's covariance")
        for ax in (bias, variance):
            ax.set_yticks(y, ESTIMATORS if ax is bias else [""] * len(y))
            ax.invert_yaxis()
            ax.grid(axis="x", alpha=0.3)
    figure.legend(*axes[0, 1].get_legend_handles_labels(), frameon=False, loc="outside upper right", ncols=3)
    return save(figure, out / "estimators")


def landscape(ax, dims: int) -> None:
    """Q and the policy's density"""
    a = torch.linspace(-0.999, 0.999, 301, dtype=torch.float64)
    action = torch.stack(torch.meshgrid(*[a] * dims, indexing="ij"), -1).view(1, 1, -1, dims)
    density = log_density(action.atanh(), *parameters(dims)).exp().view([301] * dims)
    q = q_value(action).view([301] * dims)
    if dims == 1:
        ax.plot(a, q, "k-", label="Q")
        ax.plot(a, density, "--", color="#D55E00", label="density of the policy")
        ax.set(xlabel="action", title="one action dimension", ylim=(0, 2.7))
        ax.legend(frameon=False)
    else:
        ax.contourf(a, a, q, 12, cmap="Greys")
        ax.contour(a, a, density, 6, colors="#D55E00", linewidths=0.8)
        ax.set(xlabel="first action", ylabel="second action", title="two: Q (grey), density (lines)", aspect="equal")
