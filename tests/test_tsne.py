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


@pytest.mark.parametrize("squashed", [True, False])
def test_actions_are_drawn_from_each_primitive(squashed):
    mean = np.tile([[-0.5], [0.4]], (4000, 1, 1))
    log_std = np.full_like(mean, np.log(0.1))
    mean_action = np.tanh(mean) if squashed else mean
    steps = SimpleNamespace(mean=mean, log_std=log_std, mean_action=mean_action, squashed=squashed)
    drawn, means = tsne.draw_actions(steps, 0)
    again, _ = tsne.draw_actions(steps, 0)
    assert drawn.shape == (4000, 2, 1)
    assert (drawn == again).all()
    assert (means == mean_action).all()
    close(drawn.mean(0), mean_action[0], 0.03)
    inside = np.arctanh(drawn) if squashed else drawn
    close(inside.std(0), 0.1, 0.005)


# States


def test_few_states_are_of_ten_episodes(reaching):
    run = run_of(reaching, "PMOE-SAC K=3")
    steps = tsne.states(run, 100)
    assert len(steps.obs) == 100
    assert 8 <= steps.episode.max() < 10


def test_states_are_of_more_episodes_where_ten_are_too_short(reaching):
    run = run_of(reaching, "PMOE-SAC K=3")
    length = len(policies.rollout(run, 10).obs)
    steps = tsne.states(run, length + 50)
    assert len(steps.obs) == length + 50
    assert steps.episode.max() >= 10


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
    _, notes = tsne.report(found, tmp_path, count=60, iterations=50)
    rows = rows_of(tmp_path / "tsne.csv")
    assert [row["method"] for row in rows] == ["PMOE-SAC K=3"] * 8
    (line,) = [note for note in notes if "Gating K=3: not shown, as" in note]
    assert "only 23 different states" in line


def test_where_all_have_too_few_states(reaching, tmp_path, few):
    run = run_of(reaching, "Gating K=3")
    with pytest.raises(runs.PlotError, match="only 23 different states"):
        tsne.report([run], tmp_path, count=60, iterations=50)


# Of trained runs


@pytest.fixture(scope="module")
def reported(reaching, tmp_path_factory):
    """The folder of a report, and what it embedded"""
    out = tmp_path_factory.mktemp("tsne")
    found, _ = runs.find([reaching])
    embed_run = tsne.embed_run
    embedded = []

    def kept(*args):
        embedded.append(embed_run(*args))
        return embedded[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsne, "embed_run", kept)
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


@pytest.mark.parametrize("number, method", [(0, "PMOE-SAC K=3"), (1, "Gating K=3")])
def test_the_table_is_of_the_clusters(reported, number, method):
    folder, embedded = reported
    e = embedded[number]
    rows = [row for row in rows_of(folder / "tsne.csv") if row["method"] == method]
    assert e.where.shape == (150, 2)
    assert e.drawn.shape == (150, 3, 2)
    assert abs(e.drawn).max() <= 1
    assert e.points.shape == (e.sizes[0], 3, 2)
    assert (np.diff(e.sizes) <= 0).all()
    assert (column(rows, "states") == e.sizes).all()
    values = [tsne.separation(e.drawn[e.cluster == c], 0) for c in range(tsne.CLUSTERS)]
    close(column(rows, "drawn"), values)


def test_without_the_library_one_line_says_so(pmoe_here, reaching, monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    refused(pmoe_here("plot", reaching, "--tsne"), "pip install openTSNE")
