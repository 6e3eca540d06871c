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
    first, second = strata
    return first.mean(-1) - second.mean(-1)


def mean_of_two(strata):
    first, second = strata
    return (first.mean(-1) + second.mean(-1)) / 2


def first_iqm(strata):
    return stats.iqm(strata[0])


def ratio(strata):
    return auc.percent([tuple(strata)], stats.mean)


def width(interval) -> float:
    low, high = interval
    return high - low


# Areas

STEPS = np.array([0.0, 10, 30])
RETURNS = np.array([0.0, 6, 2])


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


def apart(shares: list[float]) -> bool:
    first, second = shares
    return abs(first - second) > 1e-3


@st.composite
def curves(draw):
    """Steps, returns, and two steps on the curve, a point of it or not"""
    steps = draw(st.lists(numbers, min_size=2, max_size=9, unique=True))
    steps = np.sort(np.array(steps))
    returns = draw(st.lists(numbers, min_size=len(steps), max_size=len(steps)))
    shares = draw(st.lists(st.floats(0, 1), min_size=2, max_size=2).filter(apart))
    ends = steps[0] + np.array(shares) * np.ptp(steps)
    first, last = np.sort(ends)
    return steps, np.array(returns), first, last


@settings(deadline=None, max_examples=50)
@given(curves())
def test_auc_is_scipys(curve):
    steps, returns, first, last = curve
    whole = stats.auc(steps, returns, steps[0], steps[-1])
    assert np.isclose(whole, integrate.trapezoid(returns, steps) / np.ptp(steps))
    inside = steps.clip(first, last)
    x = np.unique(np.concatenate([[first, last], inside]))
    y = np.interp(x, steps, returns)
    expected = integrate.trapezoid(y, x) / (last - first)
    assert np.isclose(stats.auc(steps, returns, first, last), expected, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(curves(), numbers, numbers, st.integers(1, 1000), numbers)
def test_auc_moves_with_the_curve_and_not_with_the_unit_of_steps(curve, factor, shift, unit, begin):
    steps, returns, first, last = curve
    expected = factor * stats.auc(steps, returns, first, last) + shift
    moved = factor * returns + shift
    steps, first, last = (x * unit + begin for x in (steps, first, last))
    assert np.isclose(stats.auc(steps, moved, first, last), expected, rtol=1e-6, atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(curves(), numbers, numbers)
def test_auc_of_a_line_is_its_middle(curve, slope, intercept):
    steps, _, first, last = curve
    line = slope * steps + intercept
    middle = slope * (first + last) / 2 + intercept
    assert np.isclose(stats.auc(steps, line, first, last), middle, atol=1e-3)


@settings(deadline=None, max_examples=50)
@given(curves(), st.floats(0.01, 0.99))
def test_auc_is_the_sum_of_its_parts(curve, share):
    steps, returns, first, last = curve
    middle = first + share * (last - first)
    mean = partial(stats.auc, steps, returns)
    left = mean(first, middle) * (middle - first)
    right = mean(middle, last) * (last - middle)
    whole = mean(first, last) * (last - first)
    assert np.isclose(whole, left + right, atol=1e-3)


# Means, improvement, profiles


@pytest.mark.parametrize(
    "x, expected",
    [
        ([7], 7),
        ([1, 5, 9], 5),
        ([9, 1, 2, 100], 5.5),
        ([50, 1, 2, 3, -50], 2),
        ([1, 2, 3, 4, 5, 60, 7, 80], 4.75),
    ],
)
def test_iqm_by_hand(x, expected):
    assert stats.iqm(np.array(x, float)) == expected


@pytest.mark.parametrize("shape", [*range(1, 14), (3, 10), (2, 3, 7)])
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


few_numbers = st.lists(st.integers(0, 4), min_size=1, max_size=7)


@settings(deadline=None, max_examples=50)
@given(few_numbers, few_numbers)
def test_improvement_is_mann_and_whitneys(x, y):
    u = scipy_stats.mannwhitneyu(x, y).statistic
    x, y = np.array(x), np.array(y)
    better = stats.improvement(x, y)
    worse = stats.improvement(y, x)
    assert np.isclose(better, u / (len(x) * len(y)))
    assert np.isclose(better + worse, 1)


def test_improvement_of_many_at_once():
    x, y = (np.random.default_rng(0).integers(0, 9, size=(6, n)) for n in (4, 3))
    expected = [stats.improvement(a, b) for a, b in zip(x, y)]
    np.testing.assert_allclose(stats.improvement(x, y), expected)


def test_profile_by_hand():
    scores = np.array([1.0, 2, 2, 4])
    thresholds = np.array([0, 1, 1.5, 2, 3, 4])
    np.testing.assert_allclose(stats.profile(scores, thresholds), [1, 0.75, 0.75, 0.25, 0.25, 0])


@settings(deadline=None, max_examples=50)
@given(st.lists(numbers, min_size=1, max_size=9), st.lists(numbers, min_size=2, max_size=9))
def test_a_profile_never_rises(scores, thresholds):
    both_ways = np.array([scores, scores[::-1]])
    found = stats.profile(both_ways, np.sort(thresholds))
    assert found.shape == (2, len(thresholds))
    first, second = found
    assert (first == second).all()
    assert (np.diff(first) <= 0).all()
    assert 0 <= found.min()
    assert found.max() <= 1


# Intervals


@pytest.mark.parametrize("v", [2, 3, 4, 9, 27, 1000])
def test_students_quantile_is_scipys(v):
    assert np.isclose(stats.student(v), scipy_stats.t.ppf(0.975, v), rtol=1e-2)


@pytest.mark.parametrize("sizes", [[3], [5], [10], [30], [5, 5], [10, 10, 10]])
def test_how_far_an_interval_is_stretched(sizes):
    """Hesterberg's: Student's quantile for the normal one, and wider by sqrt(n / (n - 1)), about the
    estimate"""
    n = min(sizes)
    v = sum(sizes) - len(sizes)
    student = scipy_stats.t.ppf(0.975, v) / scipy_stats.norm.ppf(0.975)
    wider = student * np.sqrt(n / (n - 1))
    low, high = stats.interval(0.7, np.linspace(0, 1, 1001), sizes)
    assert np.isclose(0.7 - low, wider * 0.675, rtol=5e-3)
    assert np.isclose(high - 0.7, wider * 0.275, rtol=5e-3)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_runs_have_no_interval(n):
    few = np.arange(float(n))
    five = np.arange(5.0)
    assert np.isnan(stats.bootstrap([few], first_mean)).all()
    assert np.isnan(stats.bootstrap([five, few], difference)).all()
    curves = np.ones((n, 7))
    ends = stats.bootstrap_curves(curves, stats.mean)
    assert ends.shape == (2, 7)
    assert np.isnan(ends).all()


def test_the_same_seed_gives_the_same_interval():
    strata = [np.random.default_rng(n).normal(size=n) for n in (5, 9)]
    curves = np.random.default_rng(0).normal(size=(5, 3))
    of_strata = partial(stats.bootstrap, strata, difference)
    of_curves = partial(stats.bootstrap_curves, curves, stats.mean)
    for interval in (of_strata, of_curves):
        first = interval()
        np.random.seed(7)
        assert (interval() == first).all()
        assert (interval(seed=1) != first).any()


def test_strata_keep_their_runs():
    strata = [np.array([1.0, 2, 3]), np.array([10.0, 20]), np.array([100.0, 200, 300, 400])]
    calls = []

    def statistic(arrays):
        calls.append(arrays)
        return arrays[0].mean(-1)

    stats.bootstrap(strata, statistic, 1000)
    estimate, replicates = calls
    assert estimate is strata
    for drawn, stratum in zip(replicates, strata, strict=True):
        assert drawn.shape == (1000, len(stratum))
        assert set(drawn.flat) == set(stratum)
        shares = [(drawn == run).mean() for run in stratum]
        np.testing.assert_allclose(shares, 1 / len(stratum), atol=0.05)


def test_strata_far_apart_do_not_widen_the_interval():
    noise = np.random.default_rng(0).normal(size=5)
    near = stats.bootstrap([noise, noise[::-1]], mean_of_two)
    far = stats.bootstrap([noise, noise[::-1] + 10_000], mean_of_two)
    assert np.isclose(width(near), width(far))
    assert width(near) > 0.3
    constant = stats.bootstrap([np.zeros(5), np.full(5, 1000.0)], mean_of_two)
    assert width(constant) == 0


def test_strata_are_drawn_independently():
    """The same draws for two methods would make alike ones differ by nothing at all."""
    x = np.random.default_rng(0).normal(size=8)
    low, high = stats.bootstrap([x, x], difference)
    assert low < -0.5 * x.std()
    assert high > 0.5 * x.std()


# What an interval promises


def normal(n, *means):
    def sample(generator):
        return [generator.normal(mean, 20, n) for mean in means]

    return sample


def skewed(n):
    def sample(generator):
        return [generator.gamma(4, 1, n)]

    return sample


@pytest.mark.parametrize(
    "sample, statistic, truth, least, plain",
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
def test_how_often_an_interval_covers_the_truth(sample, statistic, truth, least, plain):
    generator = np.random.default_rng(1)
    replicates = []

    def keep(strata):
        replicates.append(statistic(strata))
        return replicates[-1]

    covered = np.zeros(2)
    for _ in range(800):
        interval = stats.bootstrap(sample(generator), keep, 2000)
        percentiles = np.quantile(replicates.pop(), (0.025, 0.975))
        covered += [low <= truth <= high for low, high in (interval, percentiles)]
    ours, theirs = covered / 800
    assert least < ours < 0.985
    assert theirs < plain
    assert theirs < ours


# What the interval of P(better) promises


@pytest.mark.parametrize("n", [1, 3, 10])
def test_wilsons_interval_is_scipys(n):
    for k in range(n + 1):
        expected = scipy_stats.binomtest(k, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(stats.wilson(k / n, n), expected, atol=1e-6)


def test_where_no_run_is_out_of_order_the_bound_comes_nearer_with_more_runs():
    lows = []
    for n in (1, 2, 3, 4, 5, 10, 100):
        low, high = stats.improvement_interval(np.arange(n) + n, np.arange(n))
        assert high == 1
        lows.append(low)
    assert lows == sorted(lows)
    of_three, of_four = lows[2:4]
    # Two equal methods of three runs come out so in a tenth of the comparisons, of four in 3 %.
    assert of_three < 0.5 < of_four < 0.55
    assert 0.95 < lows[-1] < 1


@settings(deadline=None, max_examples=50)
@given(few_numbers.map(np.array), few_numbers.map(np.array))
def test_exchanged_methods_have_the_mirrored_interval(x, y):
    low, high = stats.improvement_interval(x, y)
    assert 0 <= low <= stats.improvement(x, y) <= high <= 1
    assert high - low > 0.2
    np.testing.assert_allclose(stats.improvement_interval(y, x), [1 - high, 1 - low], atol=1e-12)


def test_ties_count_half_in_the_interval():
    tied = stats.improvement_interval(np.array([5, 5, 5]), np.array([5, 5, 5]))
    halves = stats.improvement_interval(np.array([1, 4, 4]), np.array([2, 3, 9]))
    assert stats.improvement(np.array([1, 4, 4]), np.array([2, 3, 9])) == pytest.approx(4 / 9)
    np.testing.assert_allclose(tied.sum(), 1)
    assert tied[0] > halves[0]
    several = stats.improvement_interval(np.array([[5, 5, 5], [1, 4, 4]]), np.array([[5, 5, 5], [2, 3, 9]]))
    np.testing.assert_allclose(several.T, [tied, halves])


def fails(generator, areas):
    """A fifth of them"""
    return np.where(generator.random(areas.shape) < 0.2, -100, areas)


@pytest.mark.parametrize("sizes", [(3, 3), (5, 5), (10, 10), (3, 10)], ids=str)
@pytest.mark.parametrize("more", [0, 2, 5])
@pytest.mark.parametrize("case", ["normal", "ties", "spread", "fails"])
def test_how_often_the_interval_of_p_better_covers_the_truth(case, more, sizes):
    """The worst is what is all or nothing, where pairs say no more than runs: a method of which a fifth
    fails, and the others are always better."""

    def samples(shape, of_other):
        x = generator.normal(more, 1, shape)
        y = generator.normal(0, 1, of_other)
        if case == "ties":
            return x.round(), y.round()
        if case == "spread":
            return 4 * x, y
        if case == "fails":
            return fails(generator, x), y
        return x, y

    generator = np.random.default_rng(more)
    n, m = sizes
    x, y = samples((200_000,), (200_000,))
    truth = (x > y).mean() + 0.5 * (x == y).mean()
    x, y = samples((3000, n), (3000, m))
    low, high = stats.improvement_interval(x, y)
    least = 0.88 if n == 3 else 0.93
    assert ((low <= truth) & (truth <= high)).mean() > least


def test_the_interval_of_one_estimates_mean_is_its_own():
    found = stats.mean_interval(np.array([0.7]), np.array([[0.2, 0.9]]))
    np.testing.assert_allclose(found, [0.2, 0.9])


def test_the_interval_of_a_mean_by_hand():
    found = stats.mean_interval(np.array([0.5, 1.0]), np.array([[0.2, 0.7], [0.6, 1.0]]))
    np.testing.assert_allclose(found, [0.75 - 0.25, 0.75 + 0.1])


def test_how_often_the_interval_of_p_better_over_environments_covers_the_truth():
    generator = np.random.default_rng(0)
    shifts = np.array([0, 0.5, 2, 5])
    # Normal, so that the difference has twice the variance
    truth = scipy_stats.norm.cdf(shifts / 2**0.5).mean()
    estimates = []
    intervals = []
    for shift in shifts:
        x = generator.normal(shift, 1, (2000, 5))
        y = generator.normal(0, 1, (2000, 5))
        estimates.append(stats.improvement(x, y))
        intervals.append(stats.improvement_interval(x, y))
    low, high = stats.mean_interval(np.array(estimates), np.array(intervals))
    covered = ((low <= truth) & (truth <= high)).mean()
    assert covered > 0.94
    assert (high - low).mean() < 0.5


def wander(generator, n, length=60):
    """Curves (n, length) of runs that are lucky or not from the beginning to the end"""
    luck = generator.normal(size=(n, 1))
    noise = generator.normal(size=(n, length))
    return 10 + 3 * luck + noise


def drawn_anew(generator, curves) -> np.ndarray:
    """Means (200,) over curves (n, T), the runs of each of their points drawn anew"""
    n = len(curves)
    means = []
    for points in curves.T:
        indices = generator.integers(n, size=(200, n))
        means.append(points[indices].mean(-1))
    return np.mean(means, 0)


def test_whole_runs_are_drawn_and_not_their_points():
    """The interval of an area covers the truth; one that draws each point anew would be many times too
    narrow."""
    generator = np.random.default_rng(0)
    steps = np.arange(60)
    covered = np.zeros(2)
    widths = np.zeros(2)
    for _ in range(300):
        curves = wander(generator, 10)
        areas = np.array([stats.auc(steps, curve, 0, 59) for curve in curves])
        whole = stats.bootstrap([areas], first_mean, 1000)
        pointwise = stats.interval(curves.mean(), drawn_anew(generator, curves), [10])
        covered += [low <= 10 <= high for low, high in (whole, pointwise)]
        widths += [width(whole), width(pointwise)]
    by_runs, by_points = covered / 300
    assert 0.9 < by_runs < 0.985
    assert by_points < 0.4
    assert widths[0] > 4 * widths[1]


@pytest.mark.parametrize("center", stats.CENTERS.values(), ids=stats.CENTERS)
def test_curves_are_drawn_as_wholes(center):
    """Of curves that differ by a constant the interval differs from them by a constant, too."""
    shape = np.sin(np.arange(40.0))
    levels = np.array([1.0, 2, 4, 8, 16])
    ends = stats.bootstrap_curves(shape + levels[:, None], center)
    assert ends.shape == (2, 40)
    low, high = ends - shape
    np.testing.assert_allclose(low, low[0])
    np.testing.assert_allclose(high, high[0])
    assert -2 <= low[0] < center(levels) < high[0] <= 20


def test_the_interval_of_a_curve_is_that_of_its_points():
    curves = wander(np.random.default_rng(2), 8, 5)
    ends = stats.bootstrap_curves(curves, stats.mean, 20_000)
    expected = [stats.bootstrap([points], first_mean, 20_000, seed=1) for points in curves.T]
    np.testing.assert_allclose(ends.T, expected, atol=0.15)
