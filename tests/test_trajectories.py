"""`pmoe plot --trajectories`: walks against the environment's own, and what the table and the figure hold."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common import failed, refused, rows_of
from common_figures import PICTURE, TABLE, close, files_of, names_of, run_of, stdout_of, words
from common_reaching import CUT, DRAWN, FIXED, NAMES, near_targets, record
from matplotlib import pyplot
from matplotlib.patches import Circle

from pmoe.envs.target_reaching import START, TargetReaching
from pmoe.plots import trajectories
from pmoe.plots.runs import OptionError, find

WORLDS = [(FIXED, 2), (DRAWN, 0)]  # and the layouts of their episodes
WHO = {"all": None, "0": 0, "1": 1}


def make_layout(number: int) -> TargetReaching:
    world = TargetReaching(fixed_layout=number)
    world.reset()
    return world


@pytest.fixture
def two_primitives(three, plain):
    """A function of the environment: a run on it"""

    def run(env):
        root = three if env == FIXED else plain / DRAWN
        return run_of(root, "PMOE-SAC K=2")

    return run


# A walk


@pytest.mark.parametrize("env, layout", WORLDS)
@pytest.mark.parametrize("primitive", [None, 1])
def test_a_walk_is_what_the_environment_did(two_primitives, monkeypatch, env, layout, primitive):
    run = two_primitives(env)
    worlds = record(monkeypatch)
    walk = trajectories.walk(run, 6, primitive)
    assert len(walk.ends) == len(walk.returns) == 6
    expected = make_layout(layout)
    for path, (world, steps) in zip(walk.paths, worlds.items(), strict=True):
        assert (world.target == expected.target).all()
        assert (world.centres == expected.centres).all()
        assert (path[0] == START).all()
        assert (path[:-1] == [step.before for step in steps]).all()
        assert (path[1:] == [step.after for step in steps]).all()


def places(walk) -> set[tuple]:
    """Where the episodes are after five steps"""
    return {tuple(path[5]) for path in walk.paths}


def test_a_walk_draws_its_actions(three):
    """Not the mean's, which are the same from the same start in the same layout"""
    run = run_of(three, "PMOE-SAC K=2")
    walk = trajectories.walk(run, 6)
    assert len(places(walk)) == 6
    again = trajectories.walk(run, 6)
    for path, same in zip(walk.paths, again.paths, strict=True):
        assert (path == same).all()


def test_a_walk_of_each_primitive_is_another(three):
    run = run_of(three, "Gating K=2")
    walks = trajectories.walks(run, 6)
    assert list(walks) == [None, 0, 1]
    several = set.union(*(places(walk) for walk in walks.values()))
    assert len(several) == 3 * 6


def test_every_end_is_told(three, monkeypatch):
    near_targets(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(trajectories, "sampler", lambda *_: lambda obs: random_actions(generator))
    worlds = record(monkeypatch)
    walk = trajectories.walk(run_of(three, "SAC"), 40)
    assert set(walk.ends) == {"reached", "collided", "out of time"}
    for end, value, steps in zip(walk.ends, walk.returns, worlds.values(), strict=True):
        last = steps[-1]
        if last.success:
            expected = "reached"
        else:
            expected = "collided" if last.terminated else "out of time"
        assert end == expected
        assert (end == "reached") == (value >= 100)


def random_actions(generator) -> torch.Tensor:
    """Of forty episodes"""
    return torch.randn(1, 40, 2, generator=generator)


# The report

SHOWN = [("SAC", "all")]
SHOWN += [("PMOE-SAC K=2", who) for who in WHO]
SHOWN += [("Gating K=2", who) for who in WHO]


@pytest.fixture
def reported(three, tmp_path, drawn):
    runs, _ = find([three])
    return trajectories.report(runs, tmp_path, episodes=3)


def test_files_and_notes(reported):
    files, notes = reported
    picture = f"trajectories-TargetReaching-v0-fixed_layout2{CUT.replace(',', '-').replace('=', '')}"
    assert names_of(files) == files_of("trajectories", TABLE) | files_of(picture, PICTURE)
    assert len(notes) == 3
    for note in notes:
        assert "the policy shown is" in note


def test_the_table(three, reported, tmp_path):
    rows = rows_of(tmp_path / "trajectories.csv")
    assert words(rows, "method", "primitive") == SHOWN
    for row in rows:
        run = run_of(three, row["method"])
        walk = trajectories.walk(run, 3, WHO[row["primitive"]])
        for end in trajectories.ENDS:
            assert int(row[end]) == walk.ends.count(end)
        assert row["episodes"] == "3"
        assert row["k"] == ("1" if row["method"] == "SAC" else "2")
        close(float(row["return"]), walk.returns.mean())


def is_path(line) -> bool:
    return len(line.get_xdata()) > 1


@pytest.fixture
def panels(reported, drawn):
    """{(method, who): its axes}"""
    (figure,) = drawn
    axes = np.array(figure.axes).reshape(3, 3)
    filled = [[bool(ax.lines) for ax in row] for row in axes]
    assert filled == [[True, False, False], [True] * 3, [True] * 3]
    panels = {}
    for name, row in zip(NAMES, axes):
        for who, ax in zip(WHO, row):
            panels[name, who] = ax
    return panels


@pytest.mark.parametrize("name, who", SHOWN)
def test_the_figure_shows_walks(three, panels, name, who):
    ax = panels[name, who]
    walk = trajectories.walk(run_of(three, name), 3, WHO[who])
    lines = [line for line in ax.lines if is_path(line)]
    for line, path in zip(lines, walk.paths, strict=True):
        assert (line.get_xydata() == path).all()
    marks = [line for line in ax.lines if not is_path(line)]
    assert len(marks) == 4  # an end of each, and the start
    ends = [line for line in marks if (line.get_xydata() != START).any()]
    shapes = [trajectories.ENDS[end][0] for end in walk.ends]
    assert [line.get_marker() for line in ends] == shapes
    title = ax.get_title()
    assert f"{walk.ends.count('reached')} of 3 reached" in title
    policy = "SAC K=1" if name == "SAC" else name
    label = f"{policy}, seed 1" if who == "all" else f"primitive {who} alone"
    assert label in title


def test_at_most_eight_primitives_are_shown(three, tmp_path, drawn):
    still = trajectories.Walk([np.zeros((2, 2))], ["reached"], np.zeros(1))
    walks = dict.fromkeys([None, *range(10)], still)
    run = run_of(three, "PMOE-SAC K=2")
    trajectories.plot([(run, walks)], tmp_path / "x")
    titles = [ax.get_title() for ax in drawn[0].axes]
    assert sum("alone" in title for title in titles) == 8


# Some primitives, in one panel below each policy


@pytest.fixture
def together(three, tmp_path, drawn):
    """Axes of the figure with two primitives: (2, 3)"""
    runs, _ = find([three])
    trajectories.report(runs, tmp_path, episodes=2, only="1,0")
    return np.array(drawn[0].axes).reshape(2, 3)


def test_two_primitives_share_a_panel(three, together, tmp_path):
    above, below = together
    assert [bool(ax.lines) for ax in below] == [False, True, True]  # SAC has one
    rows = rows_of(tmp_path / "trajectories.csv")
    assert words(rows, "method", "primitive") == [
        (name, who) for name in NAMES for who in ("all", "1", "0") if name != "SAC" or who == "all"
    ]
    for name, policy, alone in zip(NAMES, above, below):
        run = run_of(three, name)
        assert [line.get_xydata().tolist() for line in policy.lines if is_path(line)] == [
            path.tolist() for path in trajectories.walk(run, 2).paths
        ]
        if name == "SAC":
            continue
        one, zero = trajectories.walk(run, 2, 1), trajectories.walk(run, 2, 0)
        lines = [line for line in alone.lines if is_path(line)]
        for line, path in zip(lines, one.paths + zero.paths, strict=True):
            assert (line.get_xydata() == path).all()
        shades = [line.get_color() for line in lines]
        assert shades[0] == shades[1] != shades[2] == shades[3]


def test_their_panels_say_k(together):
    above, below = together
    for ax, name in zip(above, ["SAC K=1", "PMOE-SAC K=2", "Gating K=2"]):
        assert ax.get_title().startswith(f"{name}, seed 1\n")
    for ax in below[1:]:
        assert ax.get_title().startswith("primitives 1, 0 alone, K=2\n")


def runs_with(*ks) -> list[SimpleNamespace]:
    path = Path("runs")
    return [SimpleNamespace(args={"k": k}, method=f"PMOE-SAC K={k}", path=path) for k in ks]


def test_chosen_primitives():
    runs = runs_with(1, 4, 2)
    assert trajectories.chosen("0,1", runs) == [0, 1]
    assert trajectories.chosen("1, 0,1", runs) == [1, 0]


@pytest.mark.parametrize("text", ["2", "0,2", "-1", "", "0,", "a", "0.5", "00", "١"])
def test_primitives_that_a_policy_lacks(text):
    with pytest.raises(OptionError, match=r"no primitive of PMOE-SAC K=2: give some of 0 to 1"):
        trajectories.chosen(text, runs_with(4, 1, 2))


def test_primitives_of_policies_without():
    with pytest.raises(OptionError, match="no policy here has several"):
        trajectories.chosen("0", runs_with(1))


def test_a_primitive_that_is_not_there_is_refused_beside_what_works(pmoe_here, three, tmp_path):
    """The user's mistake is no note, and nothing is written before it is told"""
    options = ["--trajectories", "--exploration", "--primitives", "--only-primitives", "0,7"]
    failed(pmoe_here("plot", three, *options), "--only-primitives 0,7", "0 to 1")
    assert not list(tmp_path.iterdir())


def test_primitives_without_trajectories_are_refused(pmoe_here, three, tmp_path):
    refused(pmoe_here("plot", three, "--only-primitives", "0,1"), "--trajectories")
    assert not list(tmp_path.iterdir())


# The plane


def circles(ax) -> list[tuple]:
    """Centre and radius of each"""
    return [(*patch.center, patch.radius) for patch in ax.patches if isinstance(patch, Circle)]


def circles_of(layout: int) -> list[tuple]:
    """Of the target and the obstacles"""
    world = make_layout(layout)
    obstacles = zip(world.centres, world.radii)
    return [(*world.target, 0.5), *((*centre, radius) for centre, radius in obstacles)]


@pytest.mark.parametrize("env, expected", [(FIXED, circles_of(2)), (DRAWN, [])])
def test_the_plane_of_an_exploration_shows_the_layout_if_it_is_fixed(drawn, env, expected):
    ax = pyplot.figure().add_subplot()
    trajectories.plot_plane(ax, SimpleNamespace(env=env))
    assert circles(ax) == expected
    assert any((line.get_xydata() == START).all() for line in ax.lines)


@pytest.mark.parametrize("env, layout", WORLDS)
def test_trajectories_are_shown_in_the_layout_that_they_were_made_in(
    two_primitives, tmp_path, drawn, env, layout
):
    trajectories.report([two_primitives(env)], tmp_path, episodes=1)
    assert circles(drawn[0].axes[0]) == circles_of(layout)


# From the command line


def test_other_environments_are_noted(pmoe_here, plain, tmp_path):
    out = stdout_of(pmoe_here("plot", plain, "--trajectories", "--episodes", "1"))
    assert "no trajectories and no exploration of Pendulum-v1" in out
    rows = rows_of(tmp_path / "figures/trajectories.csv")
    expected = {(DRAWN, "PMOE-SAC K=2"), (DRAWN, "PMOE-PPO K=2")}
    assert set(words(rows, "environment", "method")) == expected


def test_trajectories_of_other_environments_alone_are_refused(pmoe_here, plain, tmp_path):
    result = pmoe_here("plot", plain / "Pendulum-v1", "--trajectories")
    failed(result, "TargetReaching-v0", "Pendulum-v1")
    assert not list(tmp_path.iterdir())
