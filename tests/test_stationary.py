"""What entropy does on the bandit: closed forms against quadrature, bounds, ascent, table and figure."""

import math

import numpy as np
import pytest
import torch
from common import rows_of
from common_figures import PICTURE, TABLE, close, files_of, names_of
from matplotlib import pyplot
from scipy import stats

from pmoe.envs.unshaped import Bimodal
from pmoe.plots import stationary

QUICK = {"alphas": (0.3, 0.6, 2.25), "steps": 400}


@pytest.fixture(scope="module", params=stationary.LEFT)
def bandit(request):
    return Bimodal(request.param)


@pytest.fixture(scope="module")
def lines():
    """The stationary Gaussians of each bandit, by the height of its left peak"""
    return {left: stationary.stationary(Bimodal(left)) for left in stationary.LEFT}


@pytest.fixture
def curves(bandit, lines):
    left, _ = bandit.heights
    return lines[left]


@pytest.fixture(scope="module")
def studies():
    """Of each bandit, by the height of its left peak"""
    return {left: stationary.study(left, **QUICK) for left in stationary.LEFT}


@pytest.fixture
def studied(studies):
    """Of the symmetric bandit"""
    return studies[1.5]


# On the line


def mean_reward(bandit, mean, sigma) -> float:
    """E[r], by the trapezoid rule"""
    action = np.linspace(-3, 3, 60_001)
    density = stats.norm.pdf(action, mean, sigma)
    return np.trapezoid(density * bandit.reward_of(action[:, None]), action)


@pytest.mark.parametrize("mean, sigma", [(1.0, 0.05), (0.9, 0.1), (-1.02, 0.02), (0.1, 0.4)])
def test_derivatives_are_those_of_finite_differences(bandit, mean, sigma):
    by_mean, by_log_sigma = stationary.derivatives(bandit, np.array(mean), np.array(sigma))
    step = 1e-4
    difference = mean_reward(bandit, mean + step, sigma) - mean_reward(bandit, mean - step, sigma)
    close(by_mean, difference / (2 * step), 1e-4)
    wider = mean_reward(bandit, mean, sigma * math.exp(step))
    narrower = mean_reward(bandit, mean, sigma * math.exp(-step))
    difference = narrower - wider
    close(by_log_sigma, difference / (2 * step), 1e-4)


def test_the_points_are_stationary(bandit, curves):
    points = [point for curve in curves for point in curve[::40]]
    assert len(points) > 30
    for point in points:
        by_mean, alpha = stationary.derivatives(bandit, np.array(point.mean), np.array(point.sigma))
        assert abs(by_mean) < 1e-3
        close(alpha, point.alpha)


def test_above_the_fold_of_a_peak_there_are_none(bandit, curves):
    """Of a narrow peak of height h it is at 2 / (3 sqrt 3) h, where sigma is sqrt 2 widths."""
    fold = 2 / (3 * math.sqrt(3)) * 1.5
    close(stationary.highest(curves), fold, 1e-3)
    assert stationary.count(curves, 1.01 * fold) == 0
    assert stationary.count(curves, 0.99 * fold) >= 2
    assert fold < stationary.BOUND * 1.5 < stationary.CLAIM * 1.5


def test_each_peak_has_two_and_between_them_are_more(lines):
    """A maximum and, at a wider sigma, a saddle. Between the peaks of the symmetric bandit, at mean 0, a
    small alpha has two more, as wide as the peaks are apart."""
    symmetric = lines[1.5]
    middle = [[point for point in curve if abs(point.mean) < 1e-6] for curve in symmetric]
    assert {point.branch for curve in middle for point in curve} == {"between"}
    assert stationary.count(symmetric, 0.3) == 4
    assert stationary.count(middle, 0.3) == 0
    assert stationary.count(symmetric, 0.02) == 6
    assert stationary.count(middle, 0.02) == 2

    lower = lines[0.75]
    assert stationary.count(lower, 0.3) == 2  # above the lower peak's fold
    assert stationary.count(lower, 0.2) == 4


def test_the_bound_holds_for_any_reward():
    """E[r (1 - z^2)] of a reward that is 1 where this is above 0, and 0 elsewhere"""
    z = np.linspace(-1, 1, 20_001)
    largest = np.trapezoid((1 - z**2) * stats.norm.pdf(z), z)
    close(stationary.BOUND, largest, 1e-6)


# Under a tanh


def two(means, log_stds, w) -> list[torch.Tensor]:
    """A mixture of two: mean, log sigma and log w"""
    rows = (means, log_stds, np.log(w))
    return [torch.tensor(np.array([row])) for row in rows]


def test_densities_are_one():
    u, du = stationary.grid()
    policy = two([0.5, -0.5], [-3.5, 1.5], [0.3, 0.7])
    log_prob = stationary.log_density(u, *policy)
    close(stationary.probability(u, du, log_prob).sum(), 1, 1e-6)


def test_the_expected_reward_is_that_of_samples():
    bandit = Bimodal(0.75)
    means = np.array([0.5, -0.6])
    log_stds = np.array([-3.0, -0.5])
    rng = np.random.default_rng(0)
    which = rng.choice(2, 400_000, p=[0.4, 0.6])
    noise = rng.normal(size=len(which))
    u = means[which] + np.exp(log_stds)[which] * noise
    action = 2 * np.tanh(u)
    rewards = bandit.reward_of(action[:, None])
    error = rewards.std() / math.sqrt(len(u))
    policy = two(means, log_stds, [0.4, 0.6])
    found = stationary.expected_reward(bandit, *policy).item()
    assert found == pytest.approx(rewards.mean(), abs=4 * error)


def test_the_best_density_is_uniform_or_at_a_peak(bandit):
    """At a large alpha and at a small one"""
    uniform = bandit.heights.sum() * 0.05 * math.sqrt(2 * math.pi) / 4
    close(stationary.soft_optimum(bandit, 1e6), uniform, 1e-2)
    assert stationary.soft_optimum(bandit, 0.01) > 1.48


def objective(bandit, alpha: float, policy: list[torch.Tensor]) -> float:
    """E[r] + alpha H of one policy under a tanh"""
    u, du = stationary.grid()
    log_prob = stationary.log_density(u, *policy)
    value = stationary.reward_of(bandit, u) - alpha * log_prob
    probability = stationary.probability(u, du, log_prob)
    return (probability * value).sum().item()


@pytest.mark.parametrize("left", stationary.LEFT)
def test_a_mixture_follows_the_soft_optimum(studies, left):
    """Its objective is nearly alpha log of the integral of exp(r / alpha), above which none is. An ascent
    that misses a peak is 0.01 below it."""
    studied = studies[left]
    action = np.linspace(-1, 1, 20_001)
    reward = studied.bandit.reward_of(2 * action[:, None])
    for i, finding in enumerate(studied.findings):
        alpha = finding.alpha
        integral = np.trapezoid(np.exp(reward / alpha), action)
        highest = alpha * math.log(integral)
        found = objective(studied.bandit, alpha, [x[i : i + 1] for x in studied.policies[5]])
        assert highest - 0.004 < found < highest + 1e-4
        assert finding.mixture == pytest.approx(finding.best, abs=0.01)


def test_a_gaussian_leaves_the_peaks(studied):
    for finding in studied.findings:
        assert finding.on_the_line == stationary.count(studied.curves, finding.alpha)
    on_a_peak, *wide = studied.findings
    assert on_a_peak.gaussian > 1.2
    assert all(finding.gaussian < 0.15 for finding in wide)


def test_a_gaussian_is_at_one_of_the_points_on_the_line(studied):
    """On a peak the tanh is nearly straight: its sigma is that of the line, in units of the actions there"""
    mean, log_std, _ = studied.policies[1]
    unit = mean[0].tanh().item()
    assert abs(2 * unit) == pytest.approx(1, abs=0.01)
    slope = 2 * (1 - unit**2)
    sigma = slope * log_std[0].exp().item()
    on_the_line = []
    for curve in studied.curves:
        on_the_line += [point for point in curve if point.branch == "right" and point.sigma < 0.05]
    nearest = min(on_the_line, key=lambda point: abs(point.alpha - 0.3))
    assert sigma == pytest.approx(nearest.sigma, rel=0.05)


# Table and figure


def test_report(tmp_path, monkeypatch, studied):
    monkeypatch.setattr(stationary, "study", lambda left: studied)
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    stationary.report(tmp_path)
    assert names_of(tmp_path.iterdir()) == files_of("stationary", TABLE + PICTURE)
    rows = rows_of(tmp_path / "stationary.csv")
    assert len(rows) == 6
    assert "above alpha = 0.577" in (tmp_path / "stationary.md").read_text()
    (figure,) = kept
    policies, line, rewards = figure.axes[:3]
    assert len(policies.get_lines()) == 3
    assert line.get_xscale() == "log"
    assert len(rewards.get_lines()) == 3
    monkeypatch.undo()
    pyplot.close("all")
