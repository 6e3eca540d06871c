"""Statistics of few runs: interquartile mean, bootstrap over whole runs, probability of improvement, profiles.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (arXiv 2108.13264). A run
is one number, or one curve, and is drawn as a whole: to draw each point of a curve anew would be to average runs whose
luck changes at every step, which makes the interval of an area many times too narrow.
"""

from collections.abc import Callable, Sequence

import numpy as np


def mean(x: np.ndarray) -> np.ndarray:
    """Along the last axis"""
    return x.mean(-1)


def iqm(x: np.ndarray) -> np.ndarray:
    """Interquartile mean along the last axis: without the lowest and the highest quarter, int(n / 4) of each"""
    cut = x.shape[-1] // 4
    return np.sort(x, -1)[..., cut : x.shape[-1] - cut].mean(-1)


CENTERS = {"mean": mean, "iqm": iqm}


def interval(estimate: np.ndarray, replicates: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """95 % interval (2, ...) of an estimate (...) from its bootstrap replicates (R, ...), drawn from strata of `sizes`
    runs. Of few runs percentiles are too narrow, by sqrt((n - 1) / n) and because Student's quantiles are wider than
    the normal ones (Hesterberg 2015, arXiv 1411.5279): both stretch their distances from the estimate. Of one or two
    there is none: NaN."""
    n, z = min(sizes), 1.959964
    if n < 3:
        return np.full((2, *np.shape(estimate)), np.nan)
    v = len(sizes) * (n - 1)  # degrees of freedom, those of equal sizes
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)  # Abramowitz and Stegun 26.7.5
    t = 4.302653 if v == 2 else t + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return estimate + (np.quantile(replicates, (0.025, 0.975), axis=0) - estimate) * t / z * (n / (n - 1)) ** 0.5


def bootstrap(strata: Sequence[np.ndarray], statistic: Callable, replicates: int = 5000, seed: int = 0) -> np.ndarray:
    """95 % interval (2, ...) of statistic(strata), each stratum's runs (n,) drawn with replacement among themselves.
    `statistic` takes a list of arrays (R, n) or (n,) and returns (R, ...) or (...)."""
    generator = np.random.default_rng(seed)
    drawn = [x[generator.integers(len(x), size=(replicates, len(x)))] for x in strata]
    return interval(statistic(strata), statistic(drawn), [len(x) for x in strata])


def bootstrap_curves(curves: np.ndarray, center: Callable, replicates: int = 5000, seed: int = 0) -> np.ndarray:
    """95 % interval (2, T) of the center of curves (n, T), drawn as wholes"""
    drawn = np.random.default_rng(seed).integers(len(curves), size=(replicates, len(curves)))
    return interval(center(curves.T), np.stack([center(points[drawn]) for points in curves.T], -1), [len(curves)])


def auc(steps: np.ndarray, returns: np.ndarray, first: float, last: float) -> float:
    """Area under a curve from step `first` to `last` by trapezoids, divided by their distance: in units of return"""
    inside = (steps > first) & (steps < last)
    x = np.concatenate([[first], steps[inside], [last]])
    y = np.concatenate([np.interp([first], steps, returns), returns[inside], np.interp([last], steps, returns)])
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (last - first)) if last > first else float(y[-1])


def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probability that a run of x (..., n) is better than one of y (..., m), ties counted half: (...)"""
    shares = [((a[..., None] > y) + 0.5 * (a[..., None] == y)).mean(-1) for a in np.moveaxis(x, -1, 0)]
    return np.mean(shares, 0)


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Performance profile: the fraction of the scores (..., n) above each threshold (T,), (..., T)"""
    return np.stack([(scores > threshold).mean(-1) for threshold in thresholds], -1)
