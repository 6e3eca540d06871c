"""`pmoe plot --primitives`: distances by hand, and the figures of trained runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from common import rows_of
from common_figures import close, column, names_of, words
from scipy import integrate, stats

from pmoe.plots import modes, policies, primitives, runs

EPISODES = 3
METHODS = ["PMOE-SAC K=3", "Gating K=3"]


# Distances

P = stats.norm(0.3, 0.5)
Q = stats.norm(-1.1, 1.4)
MEANS = np.array([[[0.3], [-1.1]]])
LOG_STDS = np.log([[[0.5], [1.4]]])
OTHERS = 1 - np.eye(2)  # 0 for the same primitive


def test_the_distance_is_that_of_the_integral():
    def product(x):
        return np.sqrt(P.pdf(x) * Q.pdf(x))

    overlap, _ = integrate.quad(product, -30, 30, points=[-1, 0])
    (distance,) = primitives.bhattacharyya(MEANS, LOG_STDS)
    close(distance, -np.log(overlap) * OTHERS)


def test_the_divergence_is_that_of_the_integral():
    def difference(x):
        ratio = P.logpdf(x) - Q.logpdf(x)
        return (P.pdf(x) - Q.pdf(x)) * ratio

    kl, _ = integrate.quad(difference, -30, 30, points=[-1, 0])
    close(primitives.symmetric_kl(MEANS, LOG_STDS), kl * OTHERS)


def mean_bhattacharyya(mean, log_std):
    return primitives.bhattacharyya(mean, log_std).mean(0)


@pytest.fixture(params=[mean_bhattacharyya, primitives.symmetric_kl])
def distance(request):
    return request.param


@pytest.fixture
def gaussians():
    """Mean and log sigma of three primitives in seven states, with four dimensions"""
    return np.random.default_rng(0).normal(size=(2, 7, 3, 4))


def test_distances_are_symmetric(distance, gaussians):
    whole = distance(*gaussians)
    assert whole.shape == (3, 3)
    assert (whole == whole.T).all()
    assert (np.diag(whole) == 0).all()
    above = np.triu_indices(3, 1)
    assert whole[above].min() > 0


def test_distances_add_up_over_dimensions(distance, gaussians):
    parts = [distance(*gaussians[..., [i]]) for i in range(4)]
    close(distance(*gaussians), sum(parts))


def test_distances_are_means_over_states(distance, gaussians):
    each = [distance(*gaussians[:, [i]]) for i in range(7)]
    close(distance(*gaussians), np.mean(each, 0))


def test_a_primitive_has_no_distance_from_itself(distance, gaussians):
    twice = gaussians[:, :, [0, 0]]
    close(distance(*twice), np.zeros((2, 2)))


def test_the_gap_of_actions():
    low = [-1, -1]
    high = [1, 1]
    middle = [0, 0]
    gap = primitives.action_gap(np.array([[low, high, middle]]))
    close(gap, [[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]])


# Entropies


def test_entropy():
    even = np.full(5, 0.2)
    close(primitives.entropy(even), np.log(5))
    sure = np.float32([[1, 0], [0, 1]])
    assert primitives.entropy(sure).tolist() == [0, 0]


def test_two_of_four_primitives_each_sure_in_its_half_of_the_states(monkeypatch):
    w = np.zeros((8, 4))
    w[:4, 0] = 1
    w[4:, 2] = 1
    with np.errstate(divide="ignore"):
        log_w = np.log(w)
    zeros = np.zeros((8, 4, 1))

    def rollout(run, episodes, primitive=None):
        returns = np.full(episodes, 9 if primitive is None else primitive)
        steps = {"obs": np.zeros((8, 2)), "mean": zeros, "log_std": zeros, "mean_action": zeros}
        return SimpleNamespace(log_w=log_w, chosen=w.argmax(-1), returns=returns, **steps)

    monkeypatch.setattr(primitives, "rollout", rollout)
    m = primitives.measure(SimpleNamespace(args={"k": 4}, family="SAC"), 2)
    close(m.entropy, np.log(2))
    close(m.effective, 2)
    close(m.conditional, 0)
    close(m.information, 0)
    close(m.usage, [0.5, 0, 0.5, 0])
    close(m.share, [0.5, 0, 0.5, 0])
    assert m.returns[:, 0].tolist() == [9, 0, 1, 2, 3]


# Of trained runs


@pytest.fixture(scope="module")
def picked(reaching):
    found, _ = runs.find([reaching])
    picked, _ = policies.pick(found)
    return picked


@pytest.fixture(scope="module")
def folder(picked, tmp_path_factory):
    out = tmp_path_factory.mktemp("primitives")
    files, _ = primitives.report(picked, out, episodes=EPISODES)
    assert names_of(files) == names_of(out.iterdir())
    return out


@pytest.fixture(params=[0, 1])
def shown(request, picked, folder):
    """A run, and its rows: of all primitives, and of each"""
    rows = rows_of(folder / "primitives.csv")
    run = picked[request.param]
    return run, [row for row in rows if row["method"] == run.method]


def test_rows(folder):
    rows = rows_of(folder / "primitives.csv")
    expected = []
    for method in METHODS:
        expected += [(method, who) for who in ("all", "0", "1", "2")]
    assert words(rows, "method", "primitive") == expected


def test_returns(shown):
    run, rows = shown
    for row, primitive in zip(rows, (None, 0, 1, 2), strict=True):
        returns = policies.rollout(run, EPISODES, primitive).returns
        close(float(row["return_mean"]), returns.mean())
        close(float(row["return_std"]), returns.std())


def test_usage(shown):
    run, (_, *each) = shown
    steps = policies.rollout(run, EPISODES)
    usage = column(each, "usage")
    close(usage, np.exp(steps.log_w).mean(0))
    close(usage.sum(), 1, 1e-5)


def test_entropies(shown):
    run, (whole, *_) = shown
    steps = policies.rollout(run, EPISODES)
    assert int(whole["states"]) == len(steps.obs)
    effective = float(whole["effective"])
    entropy = float(whole["entropy"])
    assert 1 <= effective <= 3 + 1e-6
    close(effective, np.exp(entropy))
    assert 0 <= float(whole["conditional"]) <= entropy + 1e-6


def test_information(shown):
    run, (whole, *_) = shown
    steps = policies.rollout(run, EPISODES)
    some = modes.states_of(steps)
    expected = modes.information(steps.mean[some], steps.log_std[some], steps.log_w[some], True)
    close(float(whole["information"]), expected)


def test_distances(picked, folder):
    rows = rows_of(folder / "primitives_pairs.csv")[:3]
    assert words(rows, "i", "j") == [("0", "1"), ("0", "2"), ("1", "2")]
    steps = policies.rollout(picked[0], EPISODES)
    distance = primitives.bhattacharyya(steps.mean, steps.log_std)[:, 0, 1]
    close(float(rows[0]["bhattacharyya"]), distance.mean())
    close(float(rows[0]["overlap"]), np.exp(-distance).mean())
