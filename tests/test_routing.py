"""`pmoe plot --routing`: what its figure and its table hold."""

import json

import numpy as np
import pytest
from common import SHORT, refused, rows_of
from common_figures import PICTURE, TABLE, close, column, files_of, names_of, run_of, stdout_of

from pmoe.plots import policies, routing, runs

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


# Of a part of the episode


@pytest.fixture
def part_of_it(run, tmp_path, drawn, monkeypatch):
    """The axes of the figure, and the table's rows"""
    monkeypatch.setattr(routing, "choose_renderer", lambda env: "no library")
    part = routing.read_part({"from": 3, "to": 8, "moments": [4, 1]})
    files, _ = routing.report([run], tmp_path, episodes=EPISODES, part=part)
    return drawn[0].axes, rows_of(files[-1])


def test_a_part_of_the_episode(part_of_it, steps):
    (along, strip, _, *bars), rows = part_of_it
    shown = range(3, 8)
    assert along.get_xlim() == (3, 8)
    assert "steps 3 to 7 of an episode" in along.get_title()
    assert strip.images[0].get_array().shape == (1, 5, 3)
    assert strip.images[0].get_extent() == [3, 8, 0, 1]
    for area, primitive in zip(along.collections, range(3), strict=True):
        (path,) = area.get_paths()
        x, y = path.vertices.T
        close(np.ptp(y[x == 3]), np.exp(steps.log_w[3, primitive]))
    assert [ax.get_xlabel() for ax in bars] == ["step 4", "step 7"]
    for ax, step in zip(bars, (4, 7), strict=True):
        close(heights(ax), np.exp(steps.log_w[step]))
    assert column(rows, "step").tolist() == np.repeat(shown, 3).tolist()


def test_frames_of_given_moments(run, tmp_path, drawn):
    part = routing.Part(3, None, [2])
    routing.report([run], tmp_path, episodes=1, part=part)
    (image,) = [ax.images[0] for ax in drawn[0].axes if ax.images and not ax.axison]
    (frame,) = policies.rollout(run, 1, frames_at=[5]).frames
    assert (image.get_array() == frame).all()


def test_moments_behind_the_episode_are_a_note(run, first, tmp_path, drawn):
    part = routing.Part(0, None, [1, 5000])
    _, notes = routing.report([run], tmp_path, episodes=EPISODES, part=part)
    assert f"TargetReaching-v0, PMOE-SAC K=3: 1 of the moments lie behind its {len(first)} steps" in notes


@pytest.mark.parametrize("part, words", [((5000, None, ()), "from 5000 on"), ((0, None, [5000]), "moments")])
def test_where_all_episodes_are_too_short(run, first, tmp_path, part, words):
    with pytest.raises(runs.PlotError, match=f"has {len(first)} steps, and none of the .*{words}"):
        routing.report([run], tmp_path, episodes=EPISODES, part=routing.Part(*part))
    assert not list(tmp_path.iterdir())


def test_an_episode_that_is_too_short_is_a_note(reaching, tmp_path, drawn, monkeypatch):
    rollout = policies.rollout

    def shorter(run, *args, **kwargs):
        """Gating's first episode has two steps."""
        steps = rollout(run, *args, **kwargs)
        if run.algo == "gating-sac":
            steps.episode[2:] += 1
        return steps

    monkeypatch.setattr(routing, "rollout", shorter)
    found, _ = runs.find([reaching])
    files, notes = routing.report(found, tmp_path, episodes=1, part=routing.Part(2))
    assert len(files) == 3
    (note,) = [note for note in notes if "Gating K=3: not shown" in note]
    assert note.endswith("has 2 steps, and none of the steps from 2 on")


PARTS = [
    (["--from", "40", "--to", "40"], "there is no step between them"),
    (["--to", "40", "--moments", "3,40"], "40 is not in the part shown, whose moments are 0 to 39"),
    (["--moments", "1,x"], "--moments 1,x"),
    (["--moments", "1,,2"], "as in 1,3,5"),
    (["--moments", ",".join(map(str, range(11)))], "at most 10"),
]


@pytest.mark.parametrize("options, words", PARTS)
def test_what_is_no_part_is_refused(pmoe_here, reaching, tmp_path, options, words):
    refused(pmoe_here("plot", reaching, "--routing", *options), words)
    assert not list(tmp_path.iterdir())


def test_a_part_without_the_figure_is_refused(pmoe_here, reaching):
    refused(pmoe_here("plot", reaching, "--from", 3), "are for --routing")


def test_a_grid_may_name_the_part(pmoe_here, reaching, tmp_path):
    """What the command line says comes first."""
    file = tmp_path / "part.toml"
    fields = {**SHORT["sac"], "env": "TargetReaching-v0", "k": 3, "total_timesteps": 300}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    lines += [f'run_dir = "{reaching}"', "[plot]", "routing = true", "from = 2", "to = 6"]
    lines += ["moments = [0, 3]", "[[method]]", 'algo = "sac"']
    file.write_text("\n".join(lines))
    stdout_of(pmoe_here("plot", file, "--to", 5, "--moments", "1", "--episodes", 1))
    rows = rows_of(tmp_path / "figures/routing.csv")
    assert set(column(rows, "step")) == {2, 3, 4}


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
