"""The statistics of few runs: by hand, against scipy, and by simulation of what an interval promises."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats

from pmoe.plots import auc, stats


def first_mean(strata):
    return strata[0].mean(-1)


def difference(strata):
    return strata[0].mean(-1) - strata[1].mean(-1)


def mean_of_two(strata):
    return (strata[0].mean(-1) + strata[1].mean(-1)) / 2


def first_iqm(strata):
    return stats.iqm(strata[0])


def ratio(strata):
    return auc.percent([tuple(strata)], stats.mean)


STEPS, RETURNS = np.array([0.0, 10, 30]), np.array([0.0, 6, 2])


@pytest.mark.parametrize(
    "first, last, expected",
    [
        (0, 30, (3 * 10 + 4 * 20) / 30),
        (0, 10, 3),
        (5, 20, (4.5 * 5 + 5 * 10) / 15),  # ends between the points
        (12, 14, 5.4),  # no point inside
        (10, 10, 6),  # no range: the value there
        (20, 20, 4),
    ],
)
def test_auc_by_hand(first, last, expected):
    assert np.isclose(stats.auc(STEPS, RETURNS, first, last), expected)


def test_auc_of_one_point():
    assert stats.auc(np.array([10.0]), np.array([7.0]), 10, 10) == 7


numbers = st.integers(-1000, 1000).map(float)


@st.composite
def curves(draw):
    """Steps, returns, and two steps on the curve, a point of it or not"""
    steps = np.sort(np.array(draw(st.lists(numbers, min_size=2, max_size=9, unique=True))))
    returns = np.array(draw(st.lists(numbers, min_size=len(steps), max_size=len(steps))))
    ends = draw(st.lists(st.floats(0, 1), min_size=2, max_size=2).filter(lambda x: abs(x[0] - x[1]) > 1e-3))
    return steps, returns, *np.sort(steps[0] + np.array(ends) * np.ptp(steps))


@settings(deadline=None, max_examples=50)
@given(curves())
def test_auc_is_scipys(curve):
    steps, returns, first, last = curve
    assert np.isclose(
        stats.auc(steps, returns, steps[0], steps[-1]), integrate.trapezoid(returns, steps) / np.ptp(steps)
    )
    x = np.unique(np.concatenate([[first, last], steps.clip(first, last)]))
    expected = integrate.trapezoid(np.interp(x, steps, returns), x) / (last - first)
    assert np.isclose(stats.auc(steps, returns, first, last), expected, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(curves(), numbers, numbers, st.integers(1, 1000), numbers)
def test_auc_moves_with_the_curve_and_not_with_the_unit_of_steps(curve, factor, shift, unit, begin):
    steps, returns, first, last = curve
    expected = factor * stats.auc(steps, returns, first, last) + shift
    steps, first, last = (x * unit + begin for x in (steps, first, last))
    assert np.isclose(stats.auc(steps, factor * returns + shift, first, last), expected, rtol=1e-6, atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(curves(), numbers, numbers)
def test_auc_of_a_line_is_its_middle(curve, slope, intercept):
    steps, _, first, last = curve
    area = stats.auc(steps, slope * steps + intercept, first, last)
    assert np.isclose(area, slope * (first + last) / 2 + intercept, atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(curves(), st.floats(0.01, 0.99))
def test_auc_is_the_sum_of_its_parts(curve, share):
    steps, returns, first, last = curve
    middle = first + share * (last - first)
    area = partial(stats.auc, steps, returns)
    parts = area(first, middle) * (middle - first) + area(middle, last) * (last - middle)
    assert np.isclose(area(first, last) * (last - first), parts, atol=1e-3)


@pytest.mark.parametrize(
    "x, expected",
    [([7], 7), ([1, 5, 9], 5), ([9, 1, 2, 100], 5.5), ([50, 1, 2, 3, -50], 2), ([1, 2, 3, 4, 5, 60, 7, 80], 4.75)],
)
def test_iqm_by_hand(x, expected):
    assert stats.iqm(np.array(x, float)) == expected


@pytest.mark.parametrize("shape", [(n,) for n in range(1, 14)] + [(3, 10), (2, 3, 7)])
def test_iqm_is_scipys_trimmed_mean(shape):
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(stats.iqm(x), scipy_stats.trim_mean(x, 0.25, axis=-1))


@pytest.mark.parametrize(
    "x, y, expected",
    [
        ([1, 2], [0], 1),
        ([0], [1, 2, 3], 0),
        ([1, 2, 3], [1, 2, 3], 0.5),
        ([250, 300, 350], [100, 200, 300], 7.5 / 9),
        ([5, 5], [5, 9], 0.25),
    ],
)
def test_improvement_by_hand(x, y, expected):
    assert np.isclose(stats.improvement(np.array(x), np.array(y)), expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=7), st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_improvement_is_mann_and_whitneys(x, y):
    u = scipy_stats.mannwhitneyu(x, y).statistic
    x, y = np.array(x), np.array(y)
    assert np.isclose(stats.improvement(x, y), u / len(x) / len(y))
    assert np.isclose(stats.improvement(x, y) + stats.improvement(y, x), 1)


def test_improvement_of_many_at_once():
    x, y = (np.random.default_rng(0).integers(0, 9, size=(6, n)) for n in (4, 3))
    np.testing.assert_allclose(stats.improvement(x, y), [stats.improvement(a, b) for a, b in zip(x, y)])


def test_profile_by_hand():
    found = stats.profile(np.array([1.0, 2, 2, 4]), np.array([0, 1, 1.5, 2, 3, 4]))
    np.testing.assert_allclose(found, [1, 0.75, 0.75, 0.25, 0.25, 0])


@settings(deadline=None, max_examples=50)
@given(st.lists(numbers, min_size=1, max_size=9), st.lists(numbers, min_size=2, max_size=9))
def test_a_profile_never_rises(scores, thresholds):
    found = stats.profile(np.array([scores, scores[::-1]]), np.sort(thresholds))
    assert found.shape == (2, len(thresholds)) and (found[0] == found[1]).all()
    assert (np.diff(found) <= 0).all() and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("sizes", [[3], [5], [10], [30], [5, 5], [10, 10, 10]])
def test_how_far_an_interval_is_stretched(sizes):
    """Hesterberg's: Student's quantile for the normal one, and wider by sqrt(n / (n - 1)), about the estimate"""
    n, v = min(sizes), sum(sizes) - len(sizes)
    wider = scipy_stats.t.ppf(0.975, v) / scipy_stats.norm.ppf(0.975) * np.sqrt(n / (n - 1))
    low, high = stats.interval(0.7, np.linspace(0, 1, 1001), sizes)
    assert np.isclose(0.7 - low, wider * 0.675, rtol=5e-3) and np.isclose(high - 0.7, wider * 0.275, rtol=5e-3)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_runs_have_no_interval(n):
    few, five = np.arange(float(n)), np.arange(5.0)
    assert np.isnan(stats.bootstrap([few], first_mean)).all()
    assert np.isnan(stats.bootstrap([five, few], difference)).all()
    ends = stats.bootstrap_curves(np.arange(7.0)[None].repeat(n, 0), stats.mean)
    assert ends.shape == (2, 7) and np.isnan(ends).all()


def test_the_same_seed_gives_the_same_interval():
    x = [np.random.default_rng(n).normal(size=n) for n in (5, 9)]
    first = stats.bootstrap(x, difference)
    np.random.seed(7)
    assert (stats.bootstrap(x, difference) == first).all()
    assert (stats.bootstrap(x, difference, seed=1) != first).any()
    curves = np.random.default_rng(0).normal(size=(5, 3))
    first = stats.bootstrap_curves(curves, stats.mean)
    assert (stats.bootstrap_curves(curves, stats.mean) == first).all()
    assert (stats.bootstrap_curves(curves, stats.mean, seed=1) != first).any()


def test_strata_keep_their_runs():
    seen = []
    strata = [np.array([1.0, 2, 3]), np.array([10.0, 20]), np.array([100.0, 200, 300, 400])]
    stats.bootstrap(strata, lambda drawn: seen.extend(drawn) or drawn[0].mean(-1), 1000)
    assert all(x is stratum for x, stratum in zip(seen, strata))  # the estimate itself
    for drawn, stratum in zip(seen[3:], strata, strict=True):
        assert drawn.shape == (1000, len(stratum)) and set(drawn.flat) == set(stratum)
        shares = [(drawn == x).mean() for x in stratum]
        np.testing.assert_allclose(shares, 1 / len(stratum), atol=0.05)


def test_strata_far_apart_do_not_widen_the_interval():
    noise = np.random.default_rng(0).normal(size=5)
    near, far = (np.diff(stats.bootstrap([noise, noise[::-1] + gap], mean_of_two)) for gap in (0, 10_000))
    assert np.isclose(near, far) and near > 0.3
    assert np.diff(stats.bootstrap([np.zeros(5), np.full(5, 1000.0)], mean_of_two)) == 0


def test_strata_are_drawn_independently():
    """The same draws for two methods would make alike ones differ by nothing at all."""
    x = np.random.default_rng(0).normal(size=8)
    low, high = stats.bootstrap([x, x], difference)
    assert low < -0.5 * x.std() and high > 0.5 * x.std()


def normal(n, *means):
    return lambda generator: [generator.normal(mean, 20, n) for mean in means]


def skewed(n):
    return lambda generator: [generator.gamma(4, 1, n)]


@pytest.mark.parametrize(
    "draw, statistic, truth, least, plain",
    [  # how often it covers the truth at the least, and the percentile interval at the most
        (normal(3, 3), first_mean, 3, 0.92, 0.78),
        (normal(5, 3), first_mean, 3, 0.92, 0.86),
        (normal(10, 3), first_mean, 3, 0.93, 0.92),
        (skewed(5), first_mean, 4, 0.88, 0.85),
        (skewed(10), first_mean, 4, 0.92, 0.91),
        (normal(5, 120, 100), ratio, 120, 0.92, 0.9),
        (normal(5, 1000, 0), mean_of_two, 500, 0.92, 0.9),
        (normal(10, 3), first_iqm, 3, 0.93, 0.96),
    ],
    ids=["mean of 3", "mean of 5", "mean of 10", "skewed, 5", "skewed, 10", "ratio", "strata", "IQM"],
)
def test_how_often_an_interval_covers_the_truth(draw, statistic, truth, least, plain):
    generator, covered, kept = np.random.default_rng(1), np.zeros(2), []

    def keep(strata):
        kept.append(statistic(strata))
        return kept[-1]

    for _ in range(800):
        ends = [stats.bootstrap(draw(generator), keep, 2000), np.quantile(kept.pop(), (0.025, 0.975))]
        covered += [low <= truth <= high for low, high in ends]
    assert least < covered[0] / 800 < 0.985 and covered[1] / 800 < min(plain, covered[0] / 800)


def wander(generator, n, length=60):
    """Curves (n, length) of runs that are lucky or not from the beginning to the end"""
    return 10 + 3 * generator.normal(size=(n, 1)) + generator.normal(size=(n, length))


def test_whole_runs_are_drawn_and_not_their_points():
    """The interval of an area covers the truth; one that draws each point anew would be many times too narrow."""
    generator, covered, widths = np.random.default_rng(0), np.zeros(2), []
    for _ in range(300):
        curves = wander(generator, 10)
        areas = np.array([stats.auc(np.arange(60), curve, 0, 59) for curve in curves])
        whole = stats.bootstrap([areas], first_mean, 1000)
        points = np.array([curves[generator.integers(10, size=(200, 10)), t].mean(-1) for t in range(60)])
        pointwise = stats.interval(curves.mean(), points.mean(0), [10])
        covered += [low <= 10 <= high for low, high in (whole, pointwise)]
        widths.append([np.diff(whole)[0], np.diff(pointwise)[0]])
    assert 0.9 < covered[0] / 300 < 0.985 and covered[1] / 300 < 0.4
    assert np.divide(*np.mean(widths, 0)) > 4


@pytest.mark.parametrize("center", stats.CENTERS.values(), ids=stats.CENTERS)
def test_curves_are_drawn_as_wholes(center):
    """Of curves that differ by a constant the interval differs from them by a constant, too."""
    shape = np.sin(np.arange(40.0))
    ends = stats.bootstrap_curves(shape + np.array([[1.0], [2], [4], [8], [16]]), center)
    assert ends.shape == (2, 40)
    np.testing.assert_allclose(ends - shape, (ends - shape)[:, :1].repeat(40, 1))
    low, high = (ends - shape)[:, 0]
    assert -2 <= low < center(np.array([1.0, 2, 4, 8, 16])) < high <= 20


def test_the_interval_of_a_curve_is_that_of_its_points():
    curves = wander(np.random.default_rng(2), 8, 5)
    ends = stats.bootstrap_curves(curves, stats.mean, 20_000)
    expected = [stats.bootstrap([points], first_mean, 20_000, seed=1) for points in curves.T]
    np.testing.assert_allclose(ends.T, expected, atol=0.15)
