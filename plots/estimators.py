"""How far each method's gradient is from that of E[Q - alpha log pi], and how noisy: a one-step problem with
two modes.

The policy is a mixture of K = 3 Gaussians under a tanh, its means, log sigmas and router logits free; Q is
known, with two peaks of different height. The gradient of the objective is integrated on a grid. Every
estimator is the `policy_loss` of its algorithm file, called as in training but for the actor, which hands out
the free parameters, and for the critic, which is Q. A sample is what the loss makes of one state; its critic
evaluations are counted.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from .. import pmoe_sac
from ..baselines import gumbel_sac, mrp_sac, reinforce_sac
from .style import pyplot, save
from .tables import write

K = 3
ALPHA = 0.2
SAMPLES = 400_000
GROUPS = ("means", "log sigmas", "router")
COLOURS = ("#0072B2", "#E69F00", "#009E73")  # of the groups
MARKERS = ("o", "s", "^")
ESTIMATORS: dict[str, tuple[ModuleType, dict]] = {  # its file and options
    "PMOE max": (pmoe_sac, {"backprop": "max"}),
    "PMOE all": (pmoe_sac, {"backprop": "all"}),
    "MRP": (mrp_sac, {"estimator": "marginal"}),
    "half-reparameterised": (mrp_sac, {"estimator": "half", "baseline": False}),
    "half, baseline": (mrp_sac, {"estimator": "half", "baseline": True}),
    "score function": (reinforce_sac, {"baseline_samples": 0}),
    "score function, baseline": (reinforce_sac, {"baseline_samples": K}),
    "Gumbel": (gumbel_sac, {}),
}


# The problem


def q_value(action: Tensor) -> Tensor:
    """Q of actions (..., A) in (-1, 1)^A: peaks of height 2 at (-0.6, ...) and of height 1.5 at (0.5, ...)"""
    high = peak(action, 2.0, -0.6, 0.25)
    low = peak(action, 1.5, 0.5, 0.2)
    return high + low


def peak(action: Tensor, height: float, centre: float, width: float) -> Tensor:
    distance = -(action - centre).square().sum(-1)
    return height * (distance / (2 * width**2)).exp()


def parameters(dims: int) -> list[Tensor]:
    """Means (K, A), log sigmas (K, A) before the tanh, and logits (K,) of the policy"""
    means = torch.tensor([[-0.9], [0.1], [0.8]]).repeat(1, dims) + 0.1 * torch.arange(dims)
    log_stds = torch.tensor([[-0.7], [-0.3], [-1.0]]).repeat(1, dims)
    logits = torch.tensor([0.3, -0.2, 0.1])
    return [means.double(), log_stds.double(), logits.double()]


def log_density(u: Tensor, means: Tensor, log_stds: Tensor, logits: Tensor) -> Tensor:
    """log pi(a) of a = tanh(u), u (1, 1, J, A) -> (1, 1, J)"""
    log_w = logits.log_softmax(-1)
    mixture = [x[None, None] for x in (means, log_stds, log_w)]  # (1, 1, K, ...), of one state
    log_prob = pmoe_sac.mixture_log_density(u, *mixture)
    return log_prob - pmoe_sac.tanh_log_det(u).sum(-1)


def points(line: Tensor, dims: int) -> Tensor:
    """The grid of these coordinates, (1, 1, J, A)"""
    axes = torch.meshgrid(*[line] * dims, indexing="ij")
    return torch.stack(axes, -1).view(1, 1, -1, dims)


def true_gradient(dims: int) -> list[Tensor]:
    """Of E[Q - alpha log pi] with respect to the parameters, by the trapezoid rule over u, a = tanh(u)"""
    leaves = [x.requires_grad_() for x in parameters(dims)]
    line = torch.linspace(-6, 6, 4001 if dims == 1 else 601, dtype=torch.float64)
    u = points(line, dims)
    action = u.tanh()
    log_prob = log_density(u, *leaves)
    value = q_value(action) - ALPHA * log_prob
    jacobian = (1 - action.square()).prod(-1)  # da/du
    integrand = log_prob.exp() * jacobian * value  # 0 at the edges
    area = (line[1] - line[0]) ** dims
    return list(torch.autograd.grad(integrand.sum() * area, leaves))


# The estimators


class Known(torch.nn.Module):
    """Q in the critic's place, counting the actions it is asked for: obs, action (S, B, K, A) -> (S, 2, B,
    K)"""

    evaluations = 0

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        self.evaluations += action.shape[2]
        return q_value(action).unsqueeze(1).expand(-1, 2, -1, -1)


def sample_gradients(label: str, dims: int, samples: int, generator) -> tuple[list[Tensor], int]:
    """Ascent directions (samples, ...) for each group of parameters, and critic evaluations a sample"""
    module, options = ESTIMATORS[label]
    args = module.Args(k=K, alpha=ALPHA, **options)
    agent = module.Agent(args, 1, dims, module.Philox([0])).double()
    agent.qf = Known()

    # The parameters of each sample are leaves of their own, so that each has its gradient.
    leaves = []
    for x in parameters(dims):
        copies = x.expand(1, samples, *x.shape).clone()
        leaves.append(copies.requires_grad_())
    mean, log_std, logits = leaves
    agent.actor.forward = lambda obs: (mean, log_std, logits.log_softmax(-1))

    shape = (1, samples, agent.draws)
    noise = torch.randn(*shape, dims, generator=generator, dtype=torch.float64)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    obs = torch.zeros(1, samples, 1, dtype=torch.float64)
    alpha = torch.full((1, 1, 1), ALPHA, dtype=torch.float64)
    loss, *_ = agent.policy_loss(obs, noise, uniform, alpha)
    # The loss is a mean over samples.
    gradients = torch.autograd.grad(-loss.sum() * samples, leaves)
    return [x[0].flatten(1) for x in gradients], agent.qf.evaluations


@dataclass
class Finding:
    """On one estimator and group of parameters"""

    dims: int
    estimator: str
    group: str
    evaluations: int  # of the critic, a sample
    bias: float  # norm, relative to the true gradient's
    error: float  # its standard error, relative as well
    chi2: float  # n b' C^-1 b / d, about 1 if unbiased
    variance: float  # trace of a sample's covariance C


def study(dims: int, samples: int = SAMPLES, seed: int = 0, progress: bool = False) -> list[Finding]:
    """A finding for each estimator and group of parameters"""
    truth = [x.flatten() for x in true_gradient(dims)]
    generator = torch.Generator().manual_seed(seed)
    findings = []
    for label in track(ESTIMATORS, f"{dims} action dimensions", disable=not progress):
        gradients, evaluations = sample_gradients(label, dims, samples, generator)
        for group, true, x in zip(GROUPS, truth, gradients):
            bias = x.mean(0) - true
            covariance = torch.cov(x.T).view(len(true), -1)
            variance = covariance.trace()
            error = (variance / samples).sqrt()
            chi2 = samples * bias @ torch.linalg.pinv(covariance, hermitian=True) @ bias
            # Softmax does not see what all logits share.
            free = len(true) - 1 if group == "router" else len(true)
            finding = Finding(
                dims=dims,
                estimator=label,
                group=group,
                evaluations=evaluations,
                bias=(bias.norm() / true.norm()).item(),
                error=(error / true.norm()).item(),
                chi2=chi2.item() / free,
                variance=variance.item(),
            )
            findings.append(finding)
    return findings


# Table and figure


def report(out: Path, samples: int = SAMPLES) -> list[Path]:
    """Runs the study in one and two action dimensions; writes OUT/estimators.csv, .md, .tex, .png and
    .pdf."""
    out.mkdir(parents=True, exist_ok=True)
    findings = study(1, samples, progress=True) + study(2, samples, progress=True)
    head = ["A", "estimator", "critic"]
    for quantity in ("bias", "variance"):
        head += [f"{quantity}, {group}" for group in GROUPS]
    head.append("variance x critic")
    rows = []
    for dims in (1, 2):
        rows += [row_of(findings, dims, label) for label in ESTIMATORS]
    title = f"K = {K}, alpha = {ALPHA}, {samples} samples; bias: |mean - gradient| / |gradient|"
    records = [asdict(finding) for finding in findings]
    return write(out / "estimators", records, [(title, head, rows)]) + plot(findings, out)


def row_of(findings: list[Finding], dims: int, label: str) -> list[str]:
    """Of the table: an estimator in so many dimensions"""
    groups = [f for f in findings if f.dims == dims and f.estimator == label]
    evaluations = groups[0].evaluations
    biases = [f"{f.bias:.3f} ± {f.error:.3f}" for f in groups]
    variances = [f"{f.variance:.3g}" for f in groups]
    cost = sum(f.variance for f in groups) * evaluations
    return [str(dims), label, str(evaluations), *biases, *variances, f"{cost:.3g}"]


def plot(findings: list[Finding], out: Path) -> list[Path]:
    """A row for each number of dimensions: the problem, the bias and the variance of each estimator"""
    shape = {"figsize": (10, 6), "width_ratios": (1, 1.3, 1.3), "layout": "constrained"}
    figure, axes = pyplot().subplots(2, 3, **shape)
    for dims, (problem, bias, variance) in zip((1, 2), axes):
        plot_problem(problem, dims)
        for group in GROUPS:
            plot_group(bias, variance, [f for f in findings if f.dims == dims and f.group == group])
        bias.set_xscale("symlog", linthresh=0.01)
        bias.set(xlim=(0, None), title="bias", xlabel="|mean - gradient| / |gradient|")
        variance.set(xscale="log", title="variance", xlabel="trace of one sample's covariance")
        y = range(len(ESTIMATORS))
        bias.set_yticks(y, ESTIMATORS)
        variance.set_yticks(y, [""] * len(y))
        for ax in (bias, variance):
            ax.invert_yaxis()
            ax.grid(axis="x", alpha=0.3)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper right", ncols=3)
    return save(figure, out / "estimators")


def plot_group(bias, variance, findings: list[Finding]) -> None:
    """A group of parameters on both axes, an estimator a line"""
    group = findings[0].group
    i = GROUPS.index(group)
    y = np.arange(len(findings)) + 0.2 * (i - 1)
    style = {"color": COLOURS[i], "markersize": 4}
    errors = [1.96 * f.error for f in findings]
    bias.errorbar([f.bias for f in findings], y, xerr=errors, fmt=MARKERS[i], label=group, **style)
    variance.plot([f.variance for f in findings], y, MARKERS[i], **style)


def plot_problem(ax, dims: int) -> None:
    """Q and the policy's density"""
    line = torch.linspace(-0.999, 0.999, 301, dtype=torch.float64)
    action = points(line, dims)
    shape = [len(line)] * dims
    density = log_density(action.atanh(), *parameters(dims)).exp().view(shape)
    q = q_value(action).view(shape)
    if dims == 1:
        ax.plot(line, q, "k-", label="Q")
        ax.plot(line, density, "--", color="#D55E00", label="density of the policy")
        ax.set(xlabel="action", title="one action dimension", ylim=(0, 2.7))
        ax.legend(frameon=False)
    else:
        ax.contourf(line, line, q, 12, cmap="Greys")
        ax.contour(line, line, density, 6, colors="#D55E00", linewidths=0.8)
        ax.set(xlabel="first action", ylabel="second action", aspect="equal")
        ax.set_title("two: Q (grey), density (lines)")
