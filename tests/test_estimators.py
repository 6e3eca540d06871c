"""The study of the gradient estimators: its truth against finite differences, what it finds, and what it leaves."""

import csv

import numpy as np
import pytest
import torch
from common import refused
from matplotlib import image, pyplot

from pmoe.plots import estimators
from pmoe.plots.estimators import ALPHA, ESTIMATORS, GROUPS, K

UNBIASED = ["MRP", "half-reparameterised", "half, baseline", "score function", "score function, baseline"]


def objective(dims, parameters):
    """E[Q - alpha log pi] with numpy alone, by the midpoint rule over u, a = tanh(u)"""
    means, log_stds, logits = np.split(parameters, [K * dims, 2 * K * dims])
    n = 1500 if dims == 1 else 300
    line = (np.arange(n) + 0.5) / n * 14 - 7
    u = np.stack(np.meshgrid(*[line] * dims, indexing="ij"), -1).reshape(-1, 1, dims)
    z = (u - means.reshape(K, dims)) / np.exp(log_stds.reshape(K, dims))
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) / np.exp(log_stds.reshape(K, dims))
    density = density.prod(-1) @ (np.exp(logits) / np.exp(logits).sum())
    a = np.tanh(u[:, 0])
    q = sum(h * np.exp(-((a - x) ** 2).sum(-1) / 2 / s**2) for h, x, s in ((2, -0.6, 0.25), (1.5, 0.5, 0.2)))
    log_prob = np.log(density + 1e-300) - np.log(1 - a**2).sum(-1)
    return (density * (q - ALPHA * log_prob)).sum() * (14 / n) ** dims


@pytest.mark.parametrize("dims", [1, 2])
def test_the_true_gradient_is_that_of_finite_differences(dims):
    at, step = torch.cat([x.flatten() for x in estimators.parameters(dims)]).numpy(), 1e-4
    steps = np.eye(len(at)) * step
    expected = [(objective(dims, at + x) - objective(dims, at - x)) / (2 * step) for x in steps]
    truth = torch.cat([x.flatten() for x in estimators.true_gradient(dims)]).numpy()
    np.testing.assert_allclose(truth, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(truth).min() > 1e-3


@pytest.fixture(scope="module", params=[1, 2])
def found(request):
    rows = estimators.study(request.param, 60_000)
    return {(row["estimator"], row["group"]): row for row in rows}


def test_the_study_has_every_estimator_and_group(found):
    assert list(found) == [(label, group) for label in ESTIMATORS for group in GROUPS]
    assert all(row["error"] > 0 and row["variance"] > 0 and np.isfinite(row["chi2"]) for row in found.values())


@pytest.mark.parametrize("label", UNBIASED)
def test_unbiased(found, label):
    for group in GROUPS:
        assert found[label, group]["chi2"] < 8  # of 3 degrees or more: once in 40,000 seeds
        assert found[label, group]["bias"] < 5 * found[label, group]["error"] < 0.3


@pytest.mark.parametrize("label", ["PMOE max", "PMOE all"])
def test_pmoe_ascends_another_objective(found, label):
    for group in GROUPS:
        assert found[label, group]["chi2"] > 100
        assert found[label, group]["bias"] > 10 * found[label, group]["error"]


def test_gumbel_is_biased_in_the_router_and_nowhere_else(found):
    assert found["Gumbel", "router"]["chi2"] > 30 and found["Gumbel", "router"]["bias"] > 0.3
    assert max(found["Gumbel", group]["chi2"] for group in ("means", "log sigmas")) < 8


def test_mrp_has_less_variance_than_the_score_function_and_a_baseline_helps_it(found):
    mrp, score, baseline = (
        np.array([found[label, group]["variance"] for group in GROUPS])
        for label in ("MRP", "score function", "score function, baseline")
    )
    assert (mrp < 0.7 * score).all() and (baseline < 0.7 * score).all()
    assert found["half, baseline", "router"]["variance"] < 0.5 * found["half-reparameterised", "router"]["variance"]
    assert (mrp < [found["half, baseline", group]["variance"] for group in GROUPS]).all()


def test_what_each_estimator_asks_of_the_critic(found):
    asked = {label: row["evaluations"] for (label, _), row in found.items()}
    assert asked == {
        "PMOE max": K + 1,  # all without a gradient, then the winner
        "PMOE all": K,
        "MRP": K,
        "half-reparameterised": 1,
        "half, baseline": 1 + K,
        "score function": 1,
        "score function, baseline": 1 + K,
        "Gumbel": 1,
    }


def test_chi2_and_variance_are_those_of_the_samples():
    truth = estimators.true_gradient(1)[0].flatten().numpy()
    samples, _ = estimators.sample_gradients("MRP", 1, 2000, torch.Generator().manual_seed(3))
    assert [tuple(x.shape) for x in samples] == [(2000, K)] * 3
    labels = list(ESTIMATORS)
    row = next(row for row in estimators.study(1, 2000, seed=3) if row["estimator"] == labels[0])
    x = estimators.sample_gradients(labels[0], 1, 2000, torch.Generator().manual_seed(3))[0][0].numpy()
    bias, covariance = x.mean(0) - truth, np.cov(x.T)
    assert np.isclose(row["chi2"], 2000 * bias @ np.linalg.inv(covariance) @ bias / K)
    assert np.isclose(row["variance"], x.var(0, ddof=1).sum())
    assert np.isclose(row["bias"], np.linalg.norm(bias) / np.linalg.norm(truth))
    assert np.isclose(row["error"], np.sqrt(x.var(0, ddof=1).sum() / 2000) / np.linalg.norm(truth))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The folder that `pmoe plot --estimators` fills, of few samples, and the figure it drew"""
    out, figures = tmp_path_factory.mktemp("plots") / "new" / "folder", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyplot, "close", figures.append)
        estimators.report(out, samples=1000)
    yield out, figures[0]
    pyplot.close("all")


def test_report_writes_the_study(reported):
    out, _ = reported
    assert {file.name for file in out.iterdir()} == {f"estimators.{x}" for x in ("csv", "md", "tex", "png", "pdf")}
    with open(out / "estimators.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["dims", "estimator", "group", "evaluations", "bias", "error", "chi2", "variance"]
    expected = [(str(dims), label, group) for dims in (1, 2) for label in ESTIMATORS for group in GROUPS]
    assert [(row["dims"], row["estimator"], row["group"]) for row in rows] == expected
    first = estimators.study(1, 1000)[4]
    assert rows[4] == {name: str(x) for name, x in first.items()}
    lines = (out / "estimators.md").read_text().splitlines()[2:]  # below the title
    head, _, *lines = (line.strip("| ").split(" | ") for line in lines)
    assert len(lines) == 2 * len(ESTIMATORS) and {len(line) for line in lines} == {len(head)}
    mine = rows[3:6]
    assert lines[1][:3] == ["1", "PMOE all", mine[0]["evaluations"]]
    assert lines[1][3] == f"{float(mine[0]['bias']):.3f} ± {float(mine[0]['error']):.3f}"
    total = sum(float(row["variance"]) for row in mine) * int(mine[0]["evaluations"])
    assert np.isclose(float(lines[1][-1]), total, rtol=5e-3)


def test_report_draws_the_study(reported):
    out, figure = reported
    with open(out / "estimators.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    axes = np.array(figure.axes).reshape(2, 3)
    for dims, (problem, bias, variance) in zip(("1", "2"), axes):
        assert problem.get_xlabel() and problem.get_title()
        assert "bias" in bias.get_title() and "variance" in variance.get_title()
        assert [x.get_text() for x in bias.get_yticklabels()] == list(ESTIMATORS)
        for ax, name in ((bias, "bias"), (variance, "variance")):
            drawn = [line for line in ax.get_lines() if len(line.get_xdata()) == len(ESTIMATORS)]
            for group, line in zip(GROUPS, drawn, strict=True):
                values = [float(row[name]) for row in rows if (row["dims"], row["group"]) == (dims, group)]
                np.testing.assert_allclose(line.get_xydata()[:, 0], values)
                assert [round(y) for y in line.get_xydata()[:, 1]] == list(range(len(ESTIMATORS)))
                low, high = ax.get_xlim()
                assert low <= min(values) and max(values) <= high
        assert variance.get_xscale() == "log" and bias.yaxis_inverted() and variance.yaxis_inverted()
    assert [x.get_text() for x in figure.legends[0].get_texts()] == list(GROUPS)
    assert [x.get_text() for x in axes[0, 0].get_legend().get_texts()] == ["Q", "density of the policy"]
    assert len(axes[0, 0].get_lines()) == 2 and axes[1, 0].get_ylabel()
    pixels = image.imread(out / "estimators.png")
    assert pixels.shape[0] >= 1000 and pixels.shape[1] >= 1500 and pixels.std() > 0.05
    assert (out / "estimators.pdf").read_bytes().startswith(b"%PDF")


def test_the_density_drawn_is_one():
    figure, ax = pyplot.subplots()
    estimators.landscape(ax, 1)
    q, density = (line.get_xydata() for line in ax.get_lines())
    pyplot.close(figure)
    assert np.isclose(np.trapezoid(density[:, 1], density[:, 0]), 1, atol=5e-3)
    np.testing.assert_allclose(q[:, 1], estimators.q_value(torch.from_numpy(q[:, :1].copy())), rtol=1e-6)


def test_plot_wants_to_know_what(pmoe):
    refused(pmoe("plot"), "--estimators")
