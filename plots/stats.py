"""Statistics of few runs: interquartile mean, bootstrap over whole runs, probability of improvement and its
interval, profiles.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv
2108.13264). A run is one number, or one curve, and is drawn as a whole: to draw each point of a curve anew
would be to average runs whose luck changes at every step, which makes the interval of an area many times too
narrow.
"""

from collections.abc import Callable, Sequence

import numpy as np

NORMAL = 1.959964  # the 97.5 % quantile of the normal distribution


def mean(x: np.ndarray) -> np.ndarray:
    """Along the last axis"""
    return x.mean(-1)


def iqm(x: np.ndarray) -> np.ndarray:
    """Interquartile mean along the last axis: without the lowest and the highest quarter, int(n / 4) of
    each"""
    n = x.shape[-1]
    cut = n // 4
    ordered = np.sort(x, -1)
    return ordered[..., cut : n - cut].mean(-1)


CENTERS = {"mean": mean, "iqm": iqm}


def student(v: int) -> float:
    """The 97.5 % quantile of Student's distribution with v degrees of freedom (Abramowitz and Stegun
    26.7.5)"""
    if v == 2:
        # The series is too far off there.
        return 4.302653
    z = NORMAL
    first = z**3 + z
    second = 5 * z**5 + 16 * z**3 + 3 * z
    third = 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z

    quantile = z
    quantile += first / (4 * v)
    quantile += second / (96 * v**2)
    quantile += third / (384 * v**3)
    return quantile


def interval(estimate: np.ndarray, replicates: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """95 % interval (2, ...) of an estimate (...) from its bootstrap replicates (R, ...), drawn from strata
    of `sizes` runs.

    Of few runs percentiles are too narrow, by sqrt((n - 1) / n) and because Student's quantiles are wider
    than the normal ones (Hesterberg 2015, arXiv 1411.5279): both stretch their distances from the estimate.
    Of one or two runs there is no interval: NaN."""
    n = min(sizes)
    if n < 3:
        return np.full((2, *np.shape(estimate)), np.nan)

    # The degrees of freedom are those of strata of equal sizes.
    degrees = len(sizes) * (n - 1)
    percentiles = np.quantile(replicates, (0.025, 0.975), axis=0)
    distances = (percentiles - estimate) * student(degrees) / NORMAL
    return estimate + distances * (n / (n - 1)) ** 0.5


def draw(generator: np.random.Generator, n: int, replicates: int) -> np.ndarray:
    """For each replicate n of n runs, with replacement: their indices (R, n)"""
    return generator.integers(n, size=(replicates, n))


def bootstrap(
    strata: Sequence[np.ndarray], statistic: Callable, replicates: int = 5000, seed: int = 0
) -> np.ndarray:
    """95 % interval (2, ...) of statistic(strata), each stratum's runs (n,) drawn with replacement among
    themselves. `statistic` takes a list of arrays (R, n) or (n,) and returns (R, ...) or (...)."""
    generator = np.random.default_rng(seed)
    drawn = []
    for stratum in strata:
        indices = draw(generator, len(stratum), replicates)
        drawn.append(stratum[indices])
    sizes = [len(stratum) for stratum in strata]
    return interval(statistic(strata), statistic(drawn), sizes)


def bootstrap_curves(
    curves: np.ndarray, center: Callable, replicates: int = 5000, seed: int = 0
) -> np.ndarray:
    """95 % interval (2, T) of the center of curves (n, T), drawn as wholes"""
    n = len(curves)
    generator = np.random.default_rng(seed)
    indices = draw(generator, n, replicates)
    if center is mean:
        # One product of matrices, in place of drawing at every point
        centers = curves.T @ times_drawn(indices, n).T / n
    else:
        centers = np.stack([center(points[indices]) for points in curves.T])
    return interval(center(curves.T), centers.T, [n])


def times_drawn(indices: np.ndarray, n: int) -> np.ndarray:
    """How often each replicate of indices (R, ...) has each of n runs (R, n)"""
    replicates = len(indices)
    first = n * np.arange(replicates)
    places = indices + first[:, None]
    counts = np.bincount(places.ravel(), minlength=n * replicates)
    return counts.reshape(replicates, n)


def trapezoids(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Areas (T - 1,) under a curve y(x) between each of its points (T,) and the next"""
    heights = (y[1:] + y[:-1]) / 2
    return heights * np.diff(x)


def auc(steps: np.ndarray, returns: np.ndarray, first: float, last: float) -> float:
    """Area under a curve from step `first` to `last` by trapezoids, divided by their distance: in units of
    return"""
    start, end = np.interp([first, last], steps, returns)
    if last <= first:
        return float(end)

    inside = (steps > first) & (steps < last)
    x = np.concatenate([[first], steps[inside], [last]])
    y = np.concatenate([[start], returns[inside], [end]])
    area = trapezoids(x, y).sum()
    return float(area / (last - first))


def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probability that a run of x (..., n) is better than one of y (..., m), ties counted half: (...)"""
    shares = []
    for run in np.moveaxis(x, -1, 0):
        run = run[..., None]
        wins = run > y
        ties = run == y
        share = (wins + 0.5 * ties).mean(-1)
        shares.append(share)
    return np.mean(shares, 0)


def wilson(share: np.ndarray | float, n: int) -> np.ndarray:
    """95 % interval (2, ...) of a probability from its share of n trials (...) (Wilson 1927, JASA 22:209)"""
    square = NORMAL**2 / n

    def lower(share):
        # The smaller root, by way of the larger one: of a share of 0 exactly 0
        larger = share + square / 2 + np.sqrt(square * (share * (1 - share) + square / 4))
        return share**2 / larger

    return np.stack([lower(share), 1 - lower(1 - share)])


def improvement_interval(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """95 % interval (2, ...) of the probability of improvement of runs x (..., n) over runs y (..., m)

    Wilson's of min(n, m) trials: the n m pairs share their runs, but whatever these are distributed like,
    the share has at most the variance of min(n, m) pairs that have no run in common, as it is the mean over
    all ways of pairing runs off (Hoeffding 1948, Annals of Mathematical Statistics 19:293; Birnbaum and Klose
    1957, ibid. 28:933). It holds, too, where every run of one beats every run of the other."""
    return wilson(improvement(x, y), min(x.shape[-1], y.shape[-1]))


def mean_interval(estimates: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """95 % interval (2, ...) of the mean of independent estimates (T, ...) from theirs (T, 2, ...): their
    distances add as their squares (Zou and Donner 2008, Statistics in Medicine 27:1693)"""
    distances = intervals - estimates[:, None]
    low, high = np.sqrt((distances**2).sum(0)) / len(estimates)
    estimate = estimates.mean(0)
    return np.stack([estimate - low, estimate + high])


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Performance profile: the fraction of the scores (..., n) above each threshold (T,), (..., T)"""
    fractions = [(scores > threshold).mean(-1) for threshold in thresholds]
    return np.stack(fractions, -1)
