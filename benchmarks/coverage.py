"""How often a 95 % interval of few runs holds the truth: `pmoe plot`'s and the plain percentile one, simulated.

    python benchmarks/coverage.py

Areas are normal, mean 120 and standard deviation 20, of the reference mean 100; 3,000 experiments of 2,000 draws.
"""

import numpy as np

from pmoe.plots.stats import bootstrap


def mean(strata: list[np.ndarray]) -> np.ndarray:
    return strata[0].mean(-1)


def ratio(strata: list[np.ndarray]) -> np.ndarray:
    return 100 * strata[0].mean(-1) / strata[1].mean(-1)


def intervals(strata: list[np.ndarray], statistic, seed: int) -> np.ndarray:
    """That of `pmoe plot` and the percentiles of the same draws: (2, 2)"""
    said = []

    def heard(strata):
        said.append(statistic(strata))
        return said[-1]

    return np.array([bootstrap(strata, heard, 2000, seed), np.quantile(said[-1], (0.025, 0.975))])


def main() -> None:
    print("| runs | mean | percentiles | % of a reference | percentiles |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for n in (3, 4, 5, 10, 20):
        generator, held = np.random.default_rng(n), np.zeros(4)
        for seed in range(3000):
            method, reference = generator.normal(120, 20, n), generator.normal(100, 20, n)
            ends = intervals([method], mean, seed), intervals([method, reference], ratio, seed)
            held += [low <= 120 <= high for low, high in np.concatenate(ends)]
        print(f"| {n} | " + " | ".join(f"{100 * share:.1f} %" for share in held / 3000) + " |")


if __name__ == "__main__":
    main()
