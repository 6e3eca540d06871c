"""How often a 95 % interval of few runs holds the truth: those of `pmoe plot`, and others.

    python benchmarks/coverage.py

The tables of docs/comparing.md: normal areas, skewed areas, P(better). It takes a minute or two.
"""

from collections.abc import Callable

import numpy as np

from pmoe.plots.stats import (
    CENTERS,
    NORMAL,
    bootstrap,
    draw,
    improvement_interval,
    interval,
    student,
)

EXPERIMENTS = 3000
DRAWS = 2000  # of the bootstrap
SIZES = (3, 5, 10, 20)
TRUTH = 120  # of both statistics of normal areas
Sample = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]  # areas of a shape


# Normal areas: mean 120 and standard deviation 20, those of the reference mean 100


def mean(strata: list[np.ndarray]) -> np.ndarray:
    return strata[0].mean(-1)


def ratio(strata: list[np.ndarray]) -> np.ndarray:
    method, reference = strata
    return 100 * method.mean(-1) / reference.mean(-1)


def intervals(strata: list[np.ndarray], statistic, seed: int) -> list[np.ndarray]:
    """The interval of `pmoe plot`, and the percentiles of the same draws"""
    calls = []

    def recorded(strata):
        calls.append(statistic(strata))
        return calls[-1]

    ours = bootstrap(strata, recorded, DRAWS, seed)
    draws = max(calls, key=np.size)  # the other call is for the estimate
    percentiles = np.quantile(draws, (0.025, 0.975))
    return [ours, percentiles]


def experiment(n: int, generator: np.random.Generator, seed: int) -> list[bool]:
    """Whether each of the four intervals of n runs holds the truth"""
    method = generator.normal(120, 20, n)
    reference = generator.normal(100, 20, n)
    found = intervals([method], mean, seed)
    found += intervals([method, reference], ratio, seed)
    return [low <= TRUTH <= high for low, high in found]


def normal_areas() -> None:
    print("| runs | mean | percentiles | % of a reference | percentiles |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for n in (3, 4, 5, 10, 20):
        generator = np.random.default_rng(n)
        held = [experiment(n, generator, seed) for seed in range(EXPERIMENTS)]
        print(row(str(n), np.mean(held, axis=0)))


def row(name: str, shares: np.ndarray) -> str:
    """A row of a table: shares in percent"""
    cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
    return f"| {name} | {cells} |"


# Skewed areas


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.normal(120, 20, shape)


def lognormal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return generator.lognormal(0, 1, shape)


def failing(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A fifth of the runs stay at a tenth of what they would have had."""
    fails = generator.random(shape) < 0.2
    return normal(generator, shape) * np.where(fails, 0.1, 1)


def held_by_student(areas: np.ndarray, truth: float) -> np.ndarray:
    """Whether Student's intervals of the mean of areas (E, n) hold the truth (E,)"""
    n = areas.shape[-1]
    error = areas.std(-1, ddof=1) / n**0.5
    return np.abs(areas.mean(-1) - truth) <= student(n - 1) * error


def held_by_bootstrap(areas: np.ndarray, center: Callable, truth: float) -> list[bool]:
    """Whether the intervals of `pmoe plot` of areas (E, n) hold the truth (E,)"""
    held = []
    for seed, runs in enumerate(areas):
        low, high = bootstrap([runs], lambda drawn: center(drawn[0]), DRAWS, seed)
        held.append(bool(low <= truth <= high))
    return held


def skewed_areas() -> None:
    print("\n| areas | runs | mean | mean, Student's t | IQM |")
    print("| --- | ---: | ---: | ---: | ---: |")
    samples = {"normal": normal, "lognormal, s = 1": lognormal, "a fifth of the seeds fail": failing}
    for name, sample in samples.items():
        many = sample(np.random.default_rng(0), (1_000_000,))
        truths = {each: float(center(many)) for each, center in CENTERS.items()}
        for n in SIZES:
            areas = sample(np.random.default_rng(n), (EXPERIMENTS, n))
            held = [held_by_bootstrap(areas, CENTERS["mean"], truths["mean"])]
            held.append(held_by_student(areas, truths["mean"]).tolist())
            held.append(held_by_bootstrap(areas, CENTERS["iqm"], truths["iqm"]))
            print(row(f"{name} | {n}", np.mean(held, axis=1)))


# P(better): the intervals (2, E) of samples (E, n) and (E, m). It knows the order of the areas only, so that
# lognormal ones are no other case than normal ones


def wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of the pairs (E, n, m) x wins, ties counted half"""
    x = x[:, :, None]
    y = y[:, None, :]
    return (x > y) + 0.5 * (x == y)


def newcombe(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Method 5 of Newcombe 2006 (Statistics in Medicine 25:559): the probabilities that are not too far from
    the share, by the variance that they would have with exponential areas, sought on a grid"""
    n = x.shape[-1]
    m = y.shape[-1]
    p = np.linspace(0, 1, 1001)
    pairs = (n + m) / 2 - 1
    variance = p * (1 - p) / (n * m) * (1 + pairs * ((1 - p) / (2 - p) + p / (1 + p)))
    share = wins(x, y).mean((1, 2))
    # A distance of 0 must not fail for its rounding.
    inside = np.abs(share[:, None] - p) <= NORMAL * np.sqrt(variance) + 1e-9
    low = p[inside.argmax(1)]
    high = p[-1 - inside[:, ::-1].argmax(1)]
    return np.stack([low, high])


def delong(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Variances (E,) of the share (DeLong et al. 1988, Biometrics 44:837)"""
    pairs = wins(x, y)
    by_x = pairs.mean(2).var(1, ddof=1) / x.shape[-1]
    by_y = pairs.mean(1).var(1, ddof=1) / y.shape[-1]
    return by_x + by_y


def plain_delong(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The share more or less Student's quantile of its error, much as Brunner and Munzel's"""
    share = wins(x, y).mean((1, 2))
    degrees = x.shape[-1] + y.shape[-1] - 2
    half = student(degrees) * np.sqrt(delong(x, y))
    return np.clip([share - half, share + half], 0, 1)


def logit_delong(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """On the logit scale; where no run is out of order there is none, that is from 0 to 1"""
    share = wins(x, y).mean((1, 2))
    none = (share == 0) | (share == 1)
    inner = np.where(none, 0.5, share)
    logit = np.log(inner / (1 - inner))
    half = NORMAL * np.sqrt(delong(x, y)) / (inner * (1 - inner))
    low = 1 / (1 + np.exp(half - logit))
    high = 1 / (1 + np.exp(-half - logit))
    return np.stack([np.where(none, 0, low), np.where(none, 1, high)])


def bootstrapped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """By drawing runs, as for the means; where no run is out of order, from 0 to 1"""
    generator = np.random.default_rng(0)
    of_x = np.eye(x.shape[-1])[draw(generator, x.shape[-1], 1000)].mean(1)
    of_y = np.eye(y.shape[-1])[draw(generator, y.shape[-1], 1000)].mean(1)
    pairs = wins(x, y)
    share = pairs.mean((1, 2))
    drawn = np.einsum("rn,enm,rm->re", of_x, pairs, of_y, optimize=True)
    low, high = interval(share, drawn, [x.shape[-1], y.shape[-1]]).clip(0, 1)
    none = (share == 0) | (share == 1)
    return np.stack([np.where(none, 0, low), np.where(none, 1, high)])


METHODS = {
    "Wilson, min(n, m)": improvement_interval,
    "Newcombe 5": newcombe,
    "DeLong, logit": logit_delong,
    "DeLong, t": plain_delong,
    "bootstrap": bootstrapped,
}


def spread(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """As good as the normal areas, and four times less alike"""
    return generator.normal(120, 80, shape)


# Areas of a method, of another, and how much is added to the first
PAIRS: list[tuple[Sample, Sample, float]] = [
    (normal, normal, 0),
    (normal, normal, 20),
    (normal, normal, 40),
    (spread, normal, 0),
    (spread, normal, 100),
    (failing, normal, 0),
    (failing, normal, 70),
    (failing, failing, 40),
]


def compared(of_x: Sample, of_y: Sample, more: float, n: int, m: int) -> list[list[float]]:
    """How often the interval of each method holds P(better), and its mean width"""
    generator = np.random.default_rng(0)
    many = (1_000_000,)
    truth = (of_x(generator, many) + more > of_y(generator, many)).mean()
    x = of_x(generator, (EXPERIMENTS, n)) + more
    y = of_y(generator, (EXPERIMENTS, m))
    found = []
    for method in METHODS.values():
        low, high = method(x, y)
        held = (low <= truth) & (truth <= high)
        found.append([held.mean(), (high - low).mean()])
    return found


def probability_of_improvement() -> None:
    """How often in the worst of the pairs, and the mean width"""
    print(f"\n| runs | {' | '.join(METHODS)} |")
    print(f"| --- | {' | '.join(['---:'] * len(METHODS))} |")
    for n, m in ((3, 3), (5, 5), (10, 10), (3, 10)):
        found = np.array([compared(*pair, n, m) for pair in PAIRS])
        least = found[..., 0].min(0)
        width = found[..., 1].mean(0)
        cells = [f"{100 * share:.1f} % ({each:.2f})" for share, each in zip(least, width)]
        print(f"| {n} and {m} | {' | '.join(cells)} |")


def main() -> None:
    normal_areas()
    skewed_areas()
    probability_of_improvement()


if __name__ == "__main__":
    main()
