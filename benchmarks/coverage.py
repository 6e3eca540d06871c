"""How often a 95 % interval of few runs holds the truth: that of `pmoe plot`, and plain percentiles.

    python benchmarks/coverage.py

Areas are normal with mean 120 and standard deviation 20, those of the reference with mean 100.
"""

import numpy as np

from pmoe.plots.stats import bootstrap

EXPERIMENTS = 3000
DRAWS = 2000  # of the bootstrap
TRUTH = 120  # of both statistics


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


def main() -> None:
    print("| runs | mean | percentiles | % of a reference | percentiles |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for n in (3, 4, 5, 10, 20):
        generator = np.random.default_rng(n)
        held = [experiment(n, generator, seed) for seed in range(EXPERIMENTS)]
        shares = 100 * np.mean(held, axis=0)
        cells = " | ".join(f"{share:.1f} %" for share in shares)
        print(f"| {n} | {cells} |")


if __name__ == "__main__":
    main()
