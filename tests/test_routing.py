"""`pmoe plot --routing`: what its figure and its table hold."""

import numpy as np
import pytest
from common import rows_of
from common_figures import PICTURE, TABLE, close, column, files_of, names_of, run_of, stdout_of

from pmoe.plots import policies, routing

EPISODES = 3


@pytest.fixture
def run(reaching):
    return run_of(reaching, "PMOE-SAC K=3")


@pytest.fixture
def steps(run):
    return policies.rollout(run, EPISODES)


@pytest.fixture
def first(steps):
    """The steps of the first episode"""
    return np.flatnonzero(steps.episode == 0)


def heights(bars) -> list[float]:
    return [bar.get_height() for bar in bars.patches]


@pytest.fixture
def axes(run, tmp_path, drawn, monkeypatch):
    """Of the figure where nothing renders"""
    monkeypatch.setattr(routing, "choose_renderer", lambda env: "no library")
    _, notes = routing.report([run], tmp_path, episodes=EPISODES)
    shown = f"TargetReaching-v0, PMOE-SAC K=3: the policy shown is {run.path} at step 300"
    assert notes == [shown, "TargetReaching-v0: drawn without frames, as nothing renders here (no library)"]
    return drawn[0].axes


def test_probabilities_along_the_episode(axes, steps, first):
    along, *_ = axes
    probabilities = np.exp(steps.log_w[first[0]])
    widths = []
    for area in along.collections:
        (path,) = area.get_paths()
        x, y = path.vertices.T
        widths.append(np.ptp(y[x == 0]))
    close(widths, probabilities)
    assert f"return {steps.returns[0]:.0f}" in along.get_title()


def test_the_strip_shows_who_acts(axes, steps, first):
    _, strip, *_ = axes
    colours = strip.images[0].get_array()[0]
    assert len(colours) == len(first)
    for primitive in range(3):
        shades = colours[steps.chosen[first] == primitive]
        assert len(np.unique(shades, axis=0)) <= 1
    acting = np.unique(steps.chosen[first])
    assert len(np.unique(colours, axis=0)) == len(acting)


def test_how_often_each_is_used(axes, steps):
    _, _, used, *_ = axes
    probability = np.exp(steps.log_w).mean(0)
    share = np.bincount(steps.chosen, minlength=3) / len(steps.chosen)
    close(heights(used), [*probability, *share])


def test_five_moments(axes, steps, first):
    _, _, _, *bars = axes
    times = routing.moments(len(first))
    assert len(bars) == 5
    for ax, time in zip(bars, times, strict=True):
        assert ax.get_xlabel() == f"step {time}"
        probabilities = np.exp(steps.log_w[time])
        close(heights(ax), probabilities)


def test_frames_of_the_moments(run, first, tmp_path, drawn):
    routing.report([run], tmp_path, episodes=EPISODES)
    images = []
    for ax in drawn[0].axes:
        if ax.images and not ax.axison:
            images.append(ax.images[0].get_array())
    times = routing.moments(len(first))
    frames = policies.rollout(run, EPISODES, frames_at=times).frames
    assert len(images) == 5
    for image, frame in zip(images, frames, strict=True):
        assert (image == frame).all()


def test_the_table(run, steps, tmp_path, drawn):
    files, notes = routing.report([run], tmp_path, episodes=EPISODES)
    assert len(files) == 3
    (note,) = notes
    assert "the policy shown is" in note
    rows = [row for row in rows_of(files[-1]) if row["step"] == "5"]
    close(column(rows, "probability"), np.exp(steps.log_w[5]))
    acts = np.arange(3) == steps.chosen[5]
    assert (column(rows, "acts") == acts).all()


MOMENTS = [(1000, [100, 300, 500, 700, 900]), (5, [0, 1, 2, 3, 4]), (1, [0])]


@pytest.mark.parametrize("length, times", MOMENTS)
def test_moments(length, times):
    assert routing.moments(length).tolist() == times


@pytest.mark.slow
def test_from_runs_to_figures(pmoe_here, reaching, tmp_path):
    out = stdout_of(pmoe_here("plot", reaching, "--routing", "--primitives", "--episodes", 2))
    names = {"routing.csv", "primitives_pairs.csv"}
    for method in ("PMOE-SAC", "Gating"):
        names |= files_of(f"routing-TargetReaching-v0-{method}-K3", PICTURE)
    names |= files_of("primitives", TABLE + PICTURE)
    names |= files_of("curves", PICTURE)
    folder = tmp_path / "figures"
    assert names_of(folder.iterdir()) == names
    assert "the policy shown is" in out
    assert "SAC: its policy is not shown" in out
