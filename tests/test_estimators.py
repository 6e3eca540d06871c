"""The study of the gradient estimators: its truth against finite differences, what it finds and leaves."""

from dataclasses import asdict, fields
from itertools import product

import numpy as np
import pytest
import torch
from common import refused, rows_of
from common_figures import PICTURE, TABLE, close, column, files_of, names_of, words
from matplotlib import image, pyplot
from scipy import special, stats

from pmoe.plots import estimators
from pmoe.plots.estimators import ALPHA, ESTIMATORS, GROUPS, K

UNBIASED = ["MRP", "half-reparameterised", "half, baseline", "score function", "score function, baseline"]
FEW = 1000  # samples, where it does not matter what the study finds


# The truth


def objective(dims, parameters):
    """E[Q - alpha log pi] with numpy alone, by the midpoint rule over u, a = tanh(u)"""
    size = K * dims
    means = parameters[:size].reshape(K, dims)
    log_stds = parameters[size:-K].reshape(K, dims)
    w = special.softmax(parameters[-K:])

    n = 1500 if dims == 1 else 300
    width = 14 / n
    line = (np.arange(n) + 0.5) * width - 7
    axes = np.meshgrid(*[line] * dims, indexing="ij")
    u = np.stack(axes, -1).reshape(-1, 1, dims)
    each = stats.norm.pdf(u, means, np.exp(log_stds))
    density = each.prod(-1) @ w

    action = np.tanh(u[:, 0])
    high = peak(action, 2, -0.6, 0.25)
    low = peak(action, 1.5, 0.5, 0.2)
    log_det = np.log(1 - action**2).sum(-1)
    log_prob = np.log(density + 1e-300) - log_det
    value = high + low - ALPHA * log_prob
    return (density * value).sum() * width**dims


def peak(action, height, centre, width) -> np.ndarray:
    z = (action - centre) / width
    return height * np.exp(-(z**2).sum(-1) / 2)


def flat(tensors) -> np.ndarray:
    """All numbers of some tensors"""
    return torch.cat([x.flatten() for x in tensors]).numpy()


@pytest.mark.parametrize("dims", [1, 2])
def test_the_true_gradient_is_that_of_finite_differences(dims):
    parameters = flat(estimators.parameters(dims))
    expected = []
    for step in 1e-4 * np.eye(len(parameters)):
        above = objective(dims, parameters + step)
        below = objective(dims, parameters - step)
        expected.append((above - below) / 2e-4)
    truth = flat(estimators.true_gradient(dims))
    np.testing.assert_allclose(truth, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(truth).min() > 1e-3


# What the study finds


@pytest.fixture(scope="module", params=[1, 2])
def study(request):
    return estimators.study(request.param, 60_000)


@pytest.fixture
def found(study):
    """{estimator: {group: finding}}"""
    table = {}
    for finding in study:
        table.setdefault(finding.estimator, {})[finding.group] = finding
    return table


def variances(findings: dict) -> np.ndarray:
    """Of the groups"""
    return np.array([findings[group].variance for group in GROUPS])


def test_the_study_has_every_estimator_and_group(found):
    assert list(found) == list(ESTIMATORS)
    for findings in found.values():
        assert list(findings) == list(GROUPS)
        for finding in findings.values():
            assert finding.error > 0
            assert finding.variance > 0
            assert np.isfinite(finding.chi2)


@pytest.mark.parametrize("label", UNBIASED)
def test_unbiased(found, label):
    for finding in found[label].values():
        assert finding.chi2 < 8  # of 3 degrees or more: once in 40,000 seeds
        assert finding.bias < 5 * finding.error < 0.3


@pytest.mark.parametrize("label", ["PMOE max", "PMOE all"])
def test_pmoe_ascends_another_objective(found, label):
    for finding in found[label].values():
        assert finding.chi2 > 100
        assert finding.bias > 10 * finding.error


def test_gumbel_is_biased_in_the_router_and_nowhere_else(found):
    gumbel = found["Gumbel"]
    assert gumbel["router"].chi2 > 30
    assert gumbel["router"].bias > 0.3
    assert gumbel["means"].chi2 < 8
    assert gumbel["log sigmas"].chi2 < 8


def test_mrp_has_less_variance_than_the_others(found):
    mrp = variances(found["MRP"])
    score = variances(found["score function"])
    half = variances(found["half, baseline"])
    assert (mrp < 0.7 * score).all()
    assert (mrp < half).all()


@pytest.mark.parametrize("dims", [1, 2])
def test_mrp_has_more_variance_than_the_score_function_where_peaks_are_narrow(monkeypatch, dims):
    """The path gradient grows with Q's slope, the score function with Q alone."""

    def narrow(action):
        high = estimators.peak(action, 2.0, -0.6, 0.1)
        return high + estimators.peak(action, 1.5, 0.5, 0.1)

    monkeypatch.setattr(estimators, "q_value", narrow)
    totals = {}
    for label in ("MRP", "score function"):
        generator = torch.Generator().manual_seed(0)
        groups, _ = estimators.sample_gradients(label, dims, 20_000, generator)
        totals[label] = sum(group.var(0).sum() for group in groups)
    assert totals["MRP"] > 1.2 * totals["score function"]


def test_a_baseline_helps(found):
    score = variances(found["score function"])
    with_baseline = variances(found["score function, baseline"])
    assert (with_baseline < 0.7 * score).all()


def test_a_baseline_helps_the_router_of_the_half_reparameterised(found):
    half = found["half-reparameterised"]["router"]
    with_baseline = found["half, baseline"]["router"]
    assert with_baseline.variance < 0.5 * half.variance


def test_what_each_estimator_asks_of_the_critic(found):
    evaluations = {label: findings["means"].evaluations for label, findings in found.items()}
    assert evaluations == {
        "PMOE max": K + 1,  # all without a gradient, then the winner
        "PMOE all": K,
        "MRP": K,
        "half-reparameterised": 1,
        "half, baseline": 1 + K,
        "score function": 1,
        "score function, baseline": 1 + K,
        "Gumbel": 1,
    }


def test_numbers_are_those_of_the_samples():
    n = 2000
    means, *_ = estimators.true_gradient(1)
    truth = means.flatten().numpy()
    generator = torch.Generator().manual_seed(3)
    samples, _ = estimators.sample_gradients("PMOE max", 1, n, generator)
    for x in samples:
        assert x.shape == (n, K)
    x = samples[0].numpy()
    first, *_ = estimators.study(1, n, seed=3)
    assert first.estimator == "PMOE max"

    bias = x.mean(0) - truth
    size = np.linalg.norm(truth)
    inverse = np.linalg.inv(np.cov(x.T))
    variance = x.var(0, ddof=1).sum()
    close(first.bias, np.linalg.norm(bias) / size)
    close(first.error, np.sqrt(variance / n) / size)
    close(first.chi2, n * bias @ inverse @ bias / K)
    close(first.variance, variance)


# What it leaves


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The folder that `pmoe plot --estimators` fills, of few samples, and its figure"""
    out = tmp_path_factory.mktemp("plots") / "new" / "folder"
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyplot, "close", kept.append)
        estimators.report(out, samples=FEW)
    yield out, kept[0]
    pyplot.close("all")


@pytest.fixture
def folder(reported):
    return reported[0]


@pytest.fixture
def axes(reported):
    """A row for each number of dimensions"""
    _, figure = reported
    return np.array(figure.axes).reshape(2, 3)


def test_files(folder):
    assert names_of(folder.iterdir()) == files_of("estimators", TABLE + PICTURE)
    pixels = image.imread(folder / "estimators.png")
    height, width, _ = pixels.shape
    assert height >= 1000
    assert width >= 1500
    assert pixels.std() > 0.05
    assert (folder / "estimators.pdf").read_bytes().startswith(b"%PDF")


def test_the_findings_are_in_the_csv(folder):
    rows = rows_of(folder / "estimators.csv")
    assert list(rows[0]) == [field.name for field in fields(estimators.Finding)]
    expected = list(product("12", ESTIMATORS, GROUPS))
    assert words(rows, "dims", "estimator", "group") == expected
    finding = estimators.study(1, FEW)[4]
    assert rows[4] == {name: str(x) for name, x in asdict(finding).items()}


def test_the_table(folder):
    groups = rows_of(folder / "estimators.csv")[3:6]
    lines = (folder / "estimators.md").read_text().splitlines()[2:]  # below the title
    head, _, *table = [line.strip("| ").split(" | ") for line in lines]
    assert len(table) == 2 * len(ESTIMATORS)
    for cells in table:
        assert len(cells) == len(head)
    biases = column(groups, "bias")
    errors = column(groups, "error")
    variance = column(groups, "variance").sum()
    evaluations = groups[0]["evaluations"]
    dims, label, critic, bias, *_, cost = table[1]
    assert dims == "1"
    assert label == "PMOE all"
    assert critic == evaluations
    assert bias == f"{biases[0]:.3f} ± {errors[0]:.3f}"
    close(float(cost), variance * int(evaluations), 5e-3)


@pytest.mark.parametrize("number, name", [(1, "bias"), (2, "variance")])
@pytest.mark.parametrize("dims", [1, 2])
def test_the_figure_shows_the_findings(folder, axes, dims, number, name):
    ax = axes[dims - 1, number]
    rows = [row for row in rows_of(folder / "estimators.csv") if row["dims"] == str(dims)]
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == len(ESTIMATORS)]
    low, high = ax.get_xlim()
    for group, line in zip(GROUPS, lines, strict=True):
        values = column([row for row in rows if row["group"] == group], name)
        x, y = line.get_xydata().T
        close(x, values)
        assert y.round().tolist() == list(range(len(ESTIMATORS)))
        assert low <= values.min()
        assert values.max() <= high
    assert name in ax.get_title()
    assert ax.yaxis_inverted()


def texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_what_stands_beside(reported, axes):
    _, figure = reported
    for problem, bias, variance in axes:
        assert problem.get_xlabel()
        assert problem.get_title()
        assert texts(bias.get_yticklabels()) == list(ESTIMATORS)
        assert variance.get_xscale() == "log"
    assert texts(figure.legends[0].get_texts()) == list(GROUPS)
    line, plane = axes[:, 0]
    assert texts(line.get_legend().get_texts()) == ["Q", "density of the policy"]
    assert len(line.get_lines()) == 2
    assert plane.get_ylabel()


def test_the_density_that_is_plotted_is_one():
    figure, ax = pyplot.subplots()
    estimators.plot_problem(ax, 1)
    q, density = (line.get_xydata() for line in ax.get_lines())
    pyplot.close(figure)
    action, height = density.T
    close(np.trapezoid(height, action), 1, 5e-3)
    action = torch.from_numpy(q[:, :1].copy())
    close(q[:, 1], estimators.q_value(action))


def test_plot_wants_to_know_what(pmoe_here):
    refused(pmoe_here("plot"), "--estimators")
