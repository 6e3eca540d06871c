"""`pmoe plot --tsne`: embeddings, silhouettes, states and actions, and the figures of trained runs."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from common import refused, rows_of
from common_figures import PICTURE, TABLE, close, column, files_of, names_of, run_of

from pmoe.plots import policies, runs, tsne


@pytest.fixture(scope="module")
def blobs():
    """Forty points around each of three centres"""
    rng = np.random.default_rng(0)
    centres = 12 * np.eye(5)[:3]
    points = centres[:, None] + rng.normal(size=(3, 40, 5))
    return points.reshape(120, 5)


# Embeddings

LINE = np.random.default_rng(0).normal(size=(150, 1))
POINT = np.ones((150, 2))
POINT_IN_SPACE = np.tile([1.0, 0.0, 0.0], (150, 1))


@pytest.mark.parametrize("points", [LINE, POINT, POINT_IN_SPACE])
def test_embeddings_of_lines_and_points(points):
    where = tsne.embed(points, 0, 60)
    assert where.shape == (150, 2)
    assert np.isfinite(where).all()
    assert where.std() > 0


@pytest.fixture(scope="module")
def embedding(blobs):
    """Where the points are after 300 iterations, and what it told on the way"""
    counts = []
    where = tsne.embed(blobs, 7, 300, counts.append)
    return where, counts


def test_embeddings_are_reproducible_and_tell_how_far_they_are(blobs, embedding):
    where, counts = embedding
    assert counts == list(range(10, 301, 10))
    assert (where == tsne.embed(blobs, 7, 300)).all()


def test_embeddings_keep_apart_what_is_apart(embedding):
    where, _ = embedding
    blob = np.repeat(range(3), 40)
    centres = np.array([np.median(where[blob == i], 0) for i in range(3)])
    distances = np.linalg.norm(where[:, None] - centres, axis=-1)  # (N, 3)
    near = distances.min(-1)
    # A few points may stand aside.
    assert (distances.argmin(-1) == blob).mean() > 0.95
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(centres[a] - centres[b]) > 4 * np.median(near)


@pytest.fixture
def options(monkeypatch):
    """What openTSNE is given, which does nothing"""
    import openTSNE

    options = {}

    def spy(**given):
        options.update(given)
        return SimpleNamespace(fit=lambda points: points[:, :2])

    monkeypatch.setattr(openTSNE, "TSNE", spy)
    return options


def test_the_printed_parameters(options, blobs):
    tsne.embed(np.tile(blobs, (10, 1)), 0, 7000)
    assert options["perplexity"] == 300
    assert options["learning_rate"] == 150
    assert options["early_exaggeration_iter"] + options["n_iter"] == 7000


def test_the_perplexity_is_no_more_than_the_points_allow(options, blobs):
    tsne.embed(blobs, 0, 7000)
    close(options["perplexity"], 119 / 3)


# Actions


@pytest.mark.parametrize("apart, low, high", [(0.0, -0.05, 0.05), (5.0, 0.8, 1.0)])
def test_separation(apart, low, high):
    centres = apart * np.array([[0, 0], [1, 0], [0, 1]])
    actions = centres + 0.3 * np.random.default_rng(0).normal(size=(200, 3, 2))
    value = tsne.separation(actions, 0)
    assert low < value < high
    assert value == tsne.separation(actions, 0)
    assert np.isnan(tsne.separation(actions[:1], 0))


@pytest.mark.parametrize("family", ["SAC", "PPO"])
def test_actions_are_drawn_from_each_primitive(family, monkeypatch):
    mean = np.tile([[-0.5], [0.4]], (4000, 1, 1))
    log_std = np.full_like(mean, np.log(0.1))
    monkeypatch.setattr(tsne, "gaussians_in", lambda run, obs: (mean, log_std))
    run = SimpleNamespace(family=family)
    drawn, means = tsne.draw_actions(run, None, 0)
    again, _ = tsne.draw_actions(run, None, 0)
    assert drawn.shape == (4000, 2, 1)
    assert (drawn == again).all()
    close(means, np.tanh(mean) if family == "SAC" else mean)
    inside = np.arctanh(drawn) if family == "SAC" else drawn
    close(inside.mean(0), mean[0], 0.01)
    close(inside.std(0), 0.1, 0.005)


# States


def test_states_are_of_so_many_episodes(reaching):
    run = run_of(reaching, "PMOE-SAC K=3")
    visits = tsne.visit(run, 30, 5)
    assert (np.unique(visits.episode) == range(5)).all()
    some = tsne.evenly(visits, 30)
    assert len(some.obs) == len(np.unique(some.obs, axis=0)) == 30
    assert {0, 4} < set(some.episode)


def test_states_are_of_more_episodes_where_so_many_are_too_short(reaching):
    run = run_of(reaching, "PMOE-SAC K=3")
    length = len(policies.rollout(run, 10).obs)
    visits = tsne.visit(run, length + 50, 10)
    assert len(visits.obs) >= length + 50
    assert visits.episode.max() >= 10


def visits_of(number: int, episodes: int) -> tsne.Visits:
    return tsne.Visits(np.arange(number), np.arange(number) * episodes // number)


def test_each_method_visits_as_many_states():
    chosen, lines = tsne.share([visits_of(900, 5), visits_of(500, 5)], 1000)
    assert [len(each.obs) for each in chosen] == [500, 500]
    assert lines == []


def test_a_method_of_few_states_is_not_outnumbered():
    chosen, lines = tsne.share([visits_of(900, 5), visits_of(300, 80)], 1000)
    assert [len(each.obs) for each in chosen] == [300, 300]
    assert lines == [
        (0, "300 different states of 5 episodes"),
        (1, "300 different states of 80 episodes"),
    ]


def test_the_cluster_that_is_shown_is_no_methods_own():
    """The largest is one method's; of those that both have, the smaller has more of the rarer one."""
    own = np.zeros(60, int)
    both = np.array([0] * 30 + [1] * 5)
    even = np.array([0] * 9 + [1] * 9)
    others = [np.full(4, i % 2) for i in range(5)]
    visitor = np.concatenate([own, both, even, *others])
    blob = np.repeat(np.arange(8), [60, 35, 18, 4, 4, 4, 4, 4])
    angle = blob * np.pi / 4
    where = 10 * np.stack([np.cos(angle), np.sin(angle)], 1)
    where += 0.1 * np.random.default_rng(0).normal(size=where.shape)
    cluster = tsne.clusters(where, visitor, 0)
    assert [cluster[blob == b][0] for b in (2, 1, 0)] == [0, 1, 2]


@pytest.fixture
def few(monkeypatch):
    """Gating's episodes are the same few states again and again."""
    rollout = policies.rollout

    def with_few(run, episodes):
        steps = rollout(run, episodes)
        if run.algo == "sac":
            return steps
        index = np.arange(len(steps.obs)) % 23
        return replace(steps, obs=steps.obs[index])

    monkeypatch.setattr(tsne, "rollout", with_few)


def test_a_policy_of_too_few_states_is_named_and_the_others_embedded(reaching, tmp_path, few):
    found, _ = runs.find([reaching])
    _, notes = tsne.report(found, tmp_path, count=40, iterations=50)
    rows = rows_of(tmp_path / "tsne.csv")
    assert [row["method"] for row in rows] == ["PMOE-SAC K=3"] * 8
    assert column(rows, "own").sum() == column(rows, "states").sum() == 40
    (line,) = [note for note in notes if "Gating K=3: not shown, as" in note]
    assert "only 23 different states" in line


def test_where_all_have_too_few_states(reaching, tmp_path, few):
    run = run_of(reaching, "Gating K=3")
    with pytest.raises(runs.PlotError, match="only 23 different states"):
        tsne.report([run], tmp_path, count=60, iterations=50)


def test_a_policy_that_cannot_be_asked_has_no_say_in_the_states(reaching, tmp_path, monkeypatch):
    def gaussians_in(run, obs):
        if run.algo == "sac":
            return policies.gaussians_in(run, obs)
        raise runs.PlotError("it remembers its last state")

    monkeypatch.setattr(tsne, "gaussians_in", gaussians_in)
    found, _ = runs.find([reaching])
    _, notes = tsne.report(found, tmp_path, count=40, iterations=50)
    assert "TargetReaching-v0, Gating K=3: not shown, as it remembers its last state" in notes
    rows = rows_of(tmp_path / "tsne.csv")
    assert column(rows, "own").sum() == column(rows, "states").sum() == 40


def test_a_fork_that_observes_more_is_left_out(reaching):
    found, _ = runs.find([reaching])
    one, two, three = found
    narrow = tsne.Visits(np.zeros((40, 3)), np.zeros(40))
    wide = tsne.Visits(np.zeros((40, 5)), np.zeros(40))
    notes = []
    kept = tsne.comparable([(one, narrow), (two, wide), (three, narrow)], notes)
    assert [run for run, _ in kept] == [one, three]
    (note,) = notes
    assert f"{two.method}: not shown" in note


# Of trained runs


METHODS = ["PMOE-SAC K=3", "Gating K=3"]


@pytest.fixture(scope="module")
def reported(reaching, tmp_path_factory):
    """The folder of a report, and what it embedded"""
    out = tmp_path_factory.mktemp("tsne")
    found, _ = runs.find([reaching])
    embed_all = tsne.embed_all
    embedded = []

    def kept(*args):
        embedded.extend(embed_all(*args))
        return embedded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsne, "embed_all", kept)
        files, _ = tsne.report(found, out, count=150, iterations=50)
    assert names_of(files) == files_of("tsne", TABLE) | files_of("tsne-TargetReaching-v0", PICTURE)
    return out, embedded


@pytest.mark.slow
def test_reports_are_reproducible(reaching, reported, tmp_path):
    folder, _ = reported
    found, _ = runs.find([reaching])
    files, _ = tsne.report(found, tmp_path, count=150, iterations=50)
    for file in files:
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_half_of_the_states_are_of_each_method(reaching, reported):
    _, (states, _) = reported
    assert states.where.shape == (150, 2)
    assert states.sizes.sum(1).tolist() == [75, 75]
    for number, method in enumerate(METHODS):
        visits = tsne.visit(run_of(reaching, method), 75, 5)
        own = states.obs[states.visitor == number]
        assert (own == tsne.evenly(visits, 75).obs).all()


@pytest.mark.parametrize("number", [0, 1])
def test_the_table_is_of_every_method_in_the_same_states(reaching, reported, number):
    folder, (states, actions) = reported
    each = actions[number]
    rows = [row for row in rows_of(folder / "tsne.csv") if row["method"] == METHODS[number]]
    drawn, _ = tsne.draw_actions(run_of(reaching, METHODS[number]), states.obs, 0)
    assert drawn.shape == (150, 3, 2)
    assert abs(drawn).max() <= 1
    assert (each.drawn == drawn).all()
    sizes = np.bincount(states.cluster, minlength=tsne.CLUSTERS)
    assert each.points.shape == (sizes[0], 3, 2)
    assert (column(rows, "states") == sizes).all()
    own = np.bincount(states.cluster[states.visitor == number], minlength=tsne.CLUSTERS)
    assert (column(rows, "own") == own).all()
    values = [tsne.separation(drawn[states.cluster == c], 0) for c in range(tsne.CLUSTERS)]
    close(column(rows, "drawn"), values)


def test_the_table_says_whose_states_they_are(reported):
    folder, _ = reported
    text = (folder / "tsne.md").read_text()
    for method in METHODS:
        assert f"| TargetReaching-v0 | {method} | 1 | 150 | 75 | " in text
    assert "All methods of an environment are asked in the same states" in text


def test_without_the_library_one_line_says_so(pmoe_here, reaching, monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    refused(pmoe_here("plot", reaching, "--tsne"), "pip install openTSNE")
