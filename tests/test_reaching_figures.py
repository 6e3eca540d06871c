"""`pmoe plot --trajectories --exploration`: positions against the environment's own, areas, what the figures hold."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common import MODULES, failed, files_below, rows_of, run_at, train
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.colors import to_rgba
from matplotlib.patches import Circle

from pmoe import cli, grid
from pmoe.envs.target_reaching import START, TargetReaching
from pmoe.plots import exploration, learning, policies, trajectories
from pmoe.plots.runs import PlotError, find

FIXED, DRAWN = "TargetReaching-v0,fixed_layout=2", "TargetReaching-v0"
CUT = ",max_episode_steps=25"
STEPS = 600
RANDOM = {"total_timesteps": STEPS, "random_steps": STEPS, "learning_starts": STEPS, "eval_every": STEPS}
METHODS = (("sac", 1), ("gating-sac", 2), ("sac", 2))
NAMES = ["SAC", "PMOE-SAC K=2", "Gating K=2"]  # as in the papers' legends


def near_targets(patch) -> None:
    """Targets that random steps can reach, and no obstacles"""

    def draw_layout(self, generator):
        self.target = START + generator.uniform(0.6, 1.2, 2)
        self.centres, self.radii = np.full((self.obstacles, 2), 4.0), np.full(self.obstacles, 0.3)

    patch.setattr(TargetReaching, "draw_layout", draw_layout)


def recorded(patch) -> dict:
    """What each TargetReaching does from now on, a row a step: position before, position after, success, terminated"""
    seen, step = {}, TargetReaching.step

    def record(self, action):
        before = self.position.copy()
        result = step(self, action)
        seen.setdefault(self, []).append((before, self.position.copy(), self.success, result[2]))
        return result

    patch.setattr(TargetReaching, "step", record)
    return seen


@pytest.fixture(scope="module", params=[FIXED, DRAWN])
def truth(request, tmp_path_factory):
    """A run of random actions whose episodes end in every way, and what its environment did"""
    with pytest.MonkeyPatch.context() as patch:
        near_targets(patch)
        seen = recorded(patch)
        (path,) = train("sac", tmp_path_factory.mktemp("truth"), env_id=request.param + CUT, keep_replay=True, **RANDOM)
    steps = max(seen.values(), key=len)
    assert len(steps) == STEPS
    return run_at(path), [np.array(x) for x in zip(*steps)]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A replay of each of three methods, whose episodes end in every way; not to be changed"""
    root = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        near_targets(patch)
        for algo, k in METHODS:
            train(algo, root, env_id=FIXED + CUT, k=k, keep_replay=True, **RANDOM)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run with layouts drawn anew and no replay, one of PPO's family, and one of another environment"""
    root = tmp_path_factory.mktemp("plain")
    train("sac", root, env_id=DRAWN, total_timesteps=150)
    train("ppo", root, env_id=DRAWN, total_timesteps=150)
    train("sac", root, env_id="Pendulum-v1", total_timesteps=150)
    return root


def method(root, name):
    return next(run for run in find([root])[0] if run.method == name)


# What a replay says


def test_positions_are_the_environments_own(truth):
    run, (before, after, _, _) = truth
    seen = exploration.experience(run)
    assert seen["position"] == pytest.approx(before, abs=1e-5)
    assert seen["next_position"] == pytest.approx(after, abs=1e-5)


def test_episodes_end_where_the_run_says_and_as_the_environment_says(truth):
    run, (before, _, success, terminated) = truth
    seen = exploration.experience(run)
    ends = [int(row["step"]) for row in rows_of(run.path / "episodes.csv")]
    assert seen["ends"].tolist() == [end for end in ends if end < STEPS or terminated[-1]]  # then nothing follows
    last = seen["ends"] - 1
    assert (seen["success"] == success[last]).all() and success.sum() == seen["success"].sum()
    ways = set(zip(terminated[last], success[last]))
    assert ways == {(True, True), (True, False), (False, False)}  # reached, collided, out of time
    starts = np.append(0, seen["ends"])
    assert (before[starts[starts < STEPS]] == START).all()
    assert np.unique(seen["episode"], return_index=True)[1].tolist() == starts[starts < STEPS].tolist()


def test_a_replay_that_is_still_written(truth, tmp_path):
    """Its last row may be half there"""
    run, (before, *_) = truth
    shutil.copytree(run.path, tmp_path / "run")
    file = tmp_path / "run/checkpoint/replay.f32"
    row = file.stat().st_size // STEPS
    file.write_bytes(file.read_bytes()[: 100 * row + 10])
    seen = exploration.experience(run_at(tmp_path / "run"))
    assert seen["position"] == pytest.approx(before[:100], abs=1e-5)


def test_a_replay_that_is_still_empty(truth, tmp_path):
    """As before the first checkpoint"""
    shutil.copytree(truth[0].path, tmp_path / "run")
    (tmp_path / "run/checkpoint/replay.f32").write_bytes(b"")
    run = run_at(tmp_path / "run")
    try:
        assert len(exploration.experience(run)["position"]) == 0
        exploration.report([run], tmp_path)
    except PlotError as error:
        assert str(run.path) in str(error)


# Areas


def way(points) -> float:
    """Area of the way from point to point"""
    points = np.array(points, float)
    return exploration.area(points[:-1], points[1:])


@pytest.mark.parametrize(
    "points, cells",
    [
        ([(0.1, 0.1), (0.1, 0.1)], 1),  # at rest
        ([(0.01, 0.01), (0.24, 0.24)], 1),  # within a cell
        ([(x, 0.1) for x in np.arange(0.125, 2.4, 0.25)], 10),
        ([(x, x) for x in np.arange(0.125, 2.4, 0.25)], 10),  # from corner to corner
        ([(x, 0.1) for x in np.arange(-4.9, 4.95, 0.1)], 40),  # from edge to edge
        ([*((x, 0.1) for x in np.arange(0.125, 2.4, 0.25)), *((2.375, y) for y in np.arange(0.125, 2.4, 0.25))], 19),
        ([*((x, 0.1) for x in np.arange(0.125, 2.4, 0.25)), *((x, 0.1) for x in np.arange(2.375, 0, -0.25))], 10),
        ([(0.1, 0.1), (0.26, 0.1)], 2),  # its end alone is in the second
        ([(0.2, 0.15), (0.48, 0.43)], 2),  # its first quarter alone is beside the corner
        ([(5, 5), (5, 5)], 1),
        ([(5, 5), (4.9, 4.9)], 1),  # the edge is in the last cell
        ([(-5, -5), (-4.9, -4.9)], 1),
        ([(4.9, 0.1), (5, 0.1), (5, -0.1)], 2),
    ],
)
def test_area_by_hand(points, cells):
    assert way(points) == pytest.approx(cells / 16)


POINTS = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=30)


@given(POINTS, POINTS, st.randoms())
def test_area_of_any_ways(a, b, random):
    ways = [*zip(a, a[1:] + a[:1]), *zip(b, b[1:] + b[:1])]
    here, there = np.array(ways).transpose(1, 0, 2)
    shuffled = np.array(random.sample(ways, len(ways))).transpose(1, 0, 2)
    both = exploration.area(here, there)
    first, second = exploration.area(here[: len(a)], there[: len(a)]), exploration.area(here[len(a) :], there[len(a) :])
    assert both == exploration.area(*shuffled)
    assert max(first, second) <= both <= first + second and 0.0625 <= first <= len(a) * 4 * 0.0625 and both <= 100


def test_paths_are_cut_where_episodes_end():
    position = np.arange(12.0).reshape(6, 2)
    seen = {"position": position, "next_position": position + 0.5, "episode": np.array([0, 0, 1, 2, 2, 2])}
    expected = [[(0, 1), (2, 3), (2.5, 3.5)], [(4, 5), (4.5, 5.5)], [(6, 7), (8, 9), (8.5, 9.5)]]
    assert [path.tolist() for path in exploration.paths(seen, 5)] == [[[*x] for x in path] for path in expected]


# The figure of exploration


def test_exploration_report(three, tmp_path, drawn):
    runs, _ = find([three])
    files, notes = exploration.report(runs, tmp_path)
    names = {"exploration.csv", "exploration.md", "exploration.tex"}
    names |= {f"exploration-TargetReaching-v0-fixed_layout2-max_episode_steps25.{x}" for x in ("png", "pdf")}
    assert {file.name for file in files} == names
    assert [note for note in notes if "fewer than 10,000 steps" in note] == notes and len(notes) == 3
    rows = rows_of(tmp_path / "exploration.csv")
    assert [row["method"] for row in rows] == NAMES
    for row in rows:
        seen = exploration.experience(method(three, row["method"]))
        late = seen["success"][-max(1, len(seen["ends"]) // 10) :]
        assert (int(row["steps"]), int(row["episodes"]), row["seed"]) == (STEPS, len(seen["ends"]), "1")
        assert int(row["targets"]) == seen["success"].sum() > 0
        assert float(row["late"]) == pytest.approx(100 * late.mean())
        assert float(row["area"]) == exploration.area(seen["position"], seen["next_position"])


def test_exploration_figure(three, tmp_path, drawn):
    exploration.report(find([three])[0], tmp_path)
    (figure,) = drawn
    *planes, curves = figure.axes
    assert len(planes) == 2
    colours = {}
    for line, name in zip([x for x in curves.lines if not x.get_label().startswith("_")], NAMES, strict=True):
        seen = exploration.experience(method(three, name))
        assert line.get_label().startswith(name) and line.get_xdata().tolist() == seen["ends"].tolist()
        rates = [100 * seen["success"][max(0, i - 49) : i + 1].mean() for i in range(len(seen["ends"]))]
        assert line.get_ydata() == pytest.approx(np.array(rates)) and max(rates) > 0
        colours[name] = to_rgba(line.get_color())
    assert len(set(colours.values())) == 3
    for ax, other in zip(planes, NAMES[1:]):
        for name in (NAMES[0], other):
            mine = [x for x in ax.lines if len(x.get_xdata()) > 1 and to_rgba(x.get_color()) == colours[name]]
            expected = exploration.paths(exploration.experience(method(three, name)), STEPS)
            assert len(mine) == len(expected)
            assert all((line.get_xydata() == path).all() for line, path in zip(mine, expected))
            assert sum(text.get_text().startswith(f"{name}, seed 1: area") for text in ax.get_legend().texts) == 1
        assert len([x for x in ax.lines if len(x.get_xdata()) > 1]) == sum(
            len(exploration.paths(exploration.experience(method(three, name)), STEPS)) for name in (NAMES[0], other)
        )


def test_only_the_first_steps_are_drawn_and_counted(three, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(exploration, "STEPS", 100)
    (run,) = [run for run in find([three])[0] if run.method == "SAC"]
    _, notes = exploration.report([run], tmp_path)
    assert notes == []
    (row,), seen = rows_of(tmp_path / "exploration.csv"), exploration.experience(run)
    assert int(row["steps"]) == 100 and int(row["episodes"]) == (seen["ends"] <= 100).sum() < len(seen["ends"])
    assert int(row["targets"]) == seen["success"][seen["ends"] <= 100].sum() < seen["success"].sum()
    assert float(row["area"]) == exploration.area(seen["position"][:100], seen["next_position"][:100])
    plane, curve = drawn[0].axes
    assert sum(len(x.get_xdata()) - 1 for x in plane.lines if len(x.get_xdata()) > 1) == 100
    assert curve.lines[0].get_xdata()[-1] > 100  # all of training


def test_exploration_of_runs_without_a_replay(pmoe_here, three, plain, tmp_path):
    result = pmoe_here("plot", three, plain, "--exploration")
    assert result.returncode == 0, result.stderr
    assert {row["environment"] for row in rows_of(tmp_path / "figures/exploration.csv")} == {FIXED + CUT}
    said = " ".join(result.stdout.split())
    assert "was not run with --keep-replay" in said and "PPO's family keeps none" in said and "of Pendulum-v1" in said


@pytest.mark.parametrize("env, word", [(DRAWN, "--keep-replay"), ("Pendulum-v1", "TargetReaching-v0")])
def test_where_there_is_no_exploration(pmoe_here, plain, tmp_path, env, word):
    failed(pmoe_here("plot", plain / env, "--exploration"), word)
    assert not list(tmp_path.iterdir())


def test_one_run_with_a_replay_among_those_without(three, plain, tmp_path, drawn):
    runs, _ = find([three, plain])
    mine = [run for run in runs if run.method == "SAC" or run.family == "PPO"]
    _, notes = exploration.report(mine, tmp_path)
    assert [row["method"] for row in rows_of(tmp_path / "exploration.csv")] == ["SAC"]
    assert len(drawn) == 1 and len(drawn[0].axes) == 2
    assert any("PPO's family" in note for note in notes)


# Trajectories


@pytest.mark.parametrize("env, layout", [(FIXED, 2), (DRAWN, 0)])
@pytest.mark.parametrize("primitive", [None, 1])
def test_a_walk_is_what_the_environment_did(three, plain, monkeypatch, env, layout, primitive):
    run = method(three, NAMES[1]) if env == FIXED else method(plain / DRAWN, NAMES[1])
    seen = recorded(monkeypatch)
    paths, ends, returns = trajectories.walk(run, 6, primitive)
    assert len(paths) == len(seen) == len(ends) == len(returns) == 6
    world = TargetReaching(fixed_layout=layout)
    world.reset()
    for path, (its_world, steps) in zip(paths, seen.items()):
        assert (its_world.target == world.target).all() and (its_world.centres == world.centres).all()
        before, after, *_ = (np.array(x) for x in zip(*steps))
        assert (path[0] == START).all() and (path[:-1] == before).all() and (path[1:] == after).all()


def test_a_walk_draws_its_actions(three):
    """Not the mean's, which are the same from the same start in the same layout"""
    paths, *_ = trajectories.walk(method(three, NAMES[1]), 6)
    assert len({tuple(path[5]) for path in paths}) == 6
    again, *_ = trajectories.walk(method(three, NAMES[1]), 6)
    assert all((a == b).all() for a, b in zip(paths, again, strict=True))


def test_a_walk_of_each_primitive_is_another(three):
    walks = [trajectories.walk(method(three, NAMES[2]), 6, who)[0] for who in (None, 0, 1)]
    assert all(len({tuple(path[5]) for path in paths}) == 3 for paths in zip(*walks))


def test_every_end_is_told(three, monkeypatch):
    near_targets(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(trajectories, "sampler", lambda *_: lambda obs: 2 * torch.randn(1, 40, 2, generator=generator))
    seen = recorded(monkeypatch)
    _, ends, returns = trajectories.walk(method(three, "SAC"), 40)
    assert set(ends) == {"reached", "collided", "out of time"}
    for end, value, steps in zip(ends, returns, seen.values(), strict=True):
        _, _, success, terminated = steps[-1]
        assert end == ("reached" if success else "collided" if terminated else "out of time")
        assert (end == "reached") == (value >= 100)


def test_trajectories_report(three, tmp_path, drawn):
    files, notes = trajectories.report(find([three])[0], tmp_path, episodes=3)
    names = {"trajectories.csv", "trajectories.md", "trajectories.tex"}
    names |= {f"trajectories-TargetReaching-v0-fixed_layout2-max_episode_steps25.{x}" for x in ("png", "pdf")}
    assert {file.name for file in files} == names
    assert len(notes) == 3 and all("the policy shown is" in note for note in notes)
    rows = rows_of(tmp_path / "trajectories.csv")
    shown = [("SAC", "all"), *((name, who) for name in NAMES[1:] for who in ("all", "0", "1"))]
    assert [(row["method"], row["primitive"]) for row in rows] == shown
    for row in rows:
        who = None if row["primitive"] == "all" else int(row["primitive"])
        paths, ends, returns = trajectories.walk(method(three, row["method"]), 3, who)
        assert [int(row[end]) for end in trajectories.ENDS] == [ends.count(end) for end in trajectories.ENDS]
        assert float(row["return"]) == pytest.approx(returns.mean()) and row["episodes"] == "3"
        assert float(row["steps"]) == pytest.approx(np.mean([len(path) - 1 for path in paths]))
    table = (tmp_path / "trajectories.md").read_text()
    assert table.count("primitive 0 ") == table.count("primitive 1 ") == 2


def test_trajectories_figure(three, tmp_path, drawn):
    trajectories.report(find([three])[0], tmp_path, episodes=3)
    (figure,) = drawn
    axes = np.array(figure.axes).reshape(3, 3)  # a row a method; the policy and two primitives
    assert [[bool(ax.lines) for ax in row] for row in axes] == [[True, False, False], [True] * 3, [True] * 3]
    for row, name in zip(axes, NAMES):
        for ax, who in zip(row, (None, 0, 1)):
            if not ax.lines:
                continue
            paths, ends, _ = trajectories.walk(method(three, name), 3, who)
            lines = [x.get_xydata() for x in ax.lines if len(x.get_xdata()) > 1]
            assert len(lines) == 3 and all((a == b).all() for a, b in zip(lines, paths))
            assert len(ax.lines) == 7  # an end of each, and the start
            marked = [x for x in ax.lines if len(x.get_xdata()) == 1 and (x.get_xydata() != START).any()]
            assert [x.get_marker() for x in marked] == [trajectories.ENDS[end][0] for end in ends]
            title = ax.get_title()
            assert f"{ends.count('reached')} of 3 reached" in title
            assert (f"primitive {who} alone" if who is not None else f"{name}, seed 1") in title


def test_at_most_eight_primitives_are_shown(three, tmp_path, drawn):
    each = {who: ([np.zeros((2, 2))], ["reached"], np.zeros(1)) for who in (None, *range(10))}
    trajectories.draw([(method(three, NAMES[1]), each)], tmp_path / "x")
    assert sum("alone" in ax.get_title() for ax in drawn[0].axes) == 8


def test_other_environments_are_noted(pmoe_here, plain, tmp_path):
    result = pmoe_here("plot", plain, "--trajectories", "--episodes", "1")
    assert result.returncode == 0, result.stderr
    assert "no trajectories and no exploration of Pendulum-v1" in result.stdout
    rows = rows_of(tmp_path / "figures/trajectories.csv")
    assert {row["environment"] for row in rows} == {DRAWN} and {row["method"] for row in rows} == {
        "PMOE-SAC K=2",
        "PMOE-PPO K=2",
    }


def test_trajectories_of_other_environments_alone_are_refused(pmoe_here, plain, tmp_path):
    failed(pmoe_here("plot", plain / "Pendulum-v1", "--trajectories"), "TargetReaching-v0", "Pendulum-v1")
    assert not list(tmp_path.iterdir())


def circles(ax) -> np.ndarray:
    """Centre and radius of each, (N, 3)"""
    return np.array([(*patch.center, patch.radius) for patch in ax.patches if isinstance(patch, Circle)]).reshape(-1, 3)


def layout(number: int) -> np.ndarray:
    """The same of the target and the obstacles"""
    world = TargetReaching(fixed_layout=number)
    world.reset()
    return np.column_stack([np.vstack([world.target, world.centres]), [0.5, *world.radii]])


@pytest.mark.parametrize("env, expected", [(FIXED, layout(2)), (DRAWN, np.zeros((0, 3)))])
def test_the_plane_of_an_exploration_shows_the_layout_if_it_is_fixed(drawn, env, expected):
    ax = pyplot.figure().add_subplot()
    trajectories.plane(ax, SimpleNamespace(algo="sac", env=env))
    assert circles(ax).tolist() == expected.tolist()
    assert any((line.get_xydata() == START).all() for line in ax.lines)


@pytest.mark.parametrize("env, number", [(FIXED, 2), (DRAWN, 0)])
def test_trajectories_are_drawn_in_the_layout_that_they_were_made_in(three, plain, tmp_path, drawn, env, number):
    run = method(three, "SAC") if env == FIXED else method(plain / DRAWN, NAMES[1])
    trajectories.report([run], tmp_path, episodes=1)
    assert circles(drawn[0].axes[0]).tolist() == layout(number).tolist()


# From the command line


def test_a_grid_that_says_so_is_drawn(pmoe_here, tmp_path):
    fields = {"env": FIXED, "total_timesteps": 150, "eval_every": 150, "eval_episodes": 2, "k": 2, "compile": "off"}
    fields |= {"random_steps": 150, "keep_replay": True, "run_dir": str(tmp_path / "runs")}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    text += "[plot]\ntrajectories = true\nexploration = true\n"
    text += '[[method]]\nalgo = ["sac", "gating-sac"]\n'
    (tmp_path / "reach.toml").write_text(text)
    for job in grid.read(tmp_path / "reach.toml", cli.ALGORITHMS).jobs:
        MODULES[job.algo].train(job.args)
    result = pmoe_here("plot", "reach.toml", "--episodes", "2")
    assert result.returncode == 0, result.stderr
    names = {"curves.png", "curves.pdf"}
    for figure in ("trajectories", "exploration"):
        names |= {f"{figure}.{x}" for x in ("csv", "md", "tex")}
        names |= {f"{figure}-TargetReaching-v0-fixed_layout2.{x}" for x in ("png", "pdf")}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == names
    assert {row["episodes"] for row in rows_of(tmp_path / "figures/trajectories.csv")} == {"2"}


def test_an_analysis_that_fails_beside_one_that_works_is_a_note(pmoe_here, plain, tmp_path):
    before = files_below(plain)
    result = pmoe_here("plot", plain / DRAWN, "--trajectories", "--exploration", "--episodes", "1")
    assert result.returncode == 0 and "--exploration has nothing to show" in result.stdout
    names = {file.name.partition(".")[0] for file in (tmp_path / "figures").iterdir()}
    assert names == {"curves", "trajectories", "trajectories-TargetReaching-v0"}
    assert files_below(plain) == before


def test_where_all_analyses_fail_nothing_is_written(pmoe_here, plain, tmp_path):
    failed(pmoe_here("plot", plain / "Pendulum-v1", "--trajectories", "--exploration"), "TargetReaching-v0")
    assert not list(tmp_path.iterdir())
    result = pmoe_here("plot", plain / "Pendulum-v1", "--trajectories", "--auc")  # what can be drawn is
    assert result.returncode == 0 and "trajectories and exploration are of TargetReaching-v0" in result.stdout
    assert (tmp_path / "figures/curves.png").exists()


def test_analyses_that_fail_are_told_in_one_line(plain, tmp_path):
    def fails(word):
        def analysis(runs, out):
            raise PlotError(word)

        return analysis

    with pytest.raises(PlotError, match="^one; two$"):
        learning.report([plain], tmp_path / "out", analyses=[fails("one"), fails("two")])
    assert not (tmp_path / "out").exists()
    files = learning.report([plain], tmp_path / "out", analyses=[fails("one"), lambda *_: ([tmp_path / "x"], [])])
    assert files[0] == tmp_path / "x" and (tmp_path / "out/curves.png") in files


def test_policies_of_one_primitive_are_shown_where_that_says_something(three):
    assert len(policies.pick(find([three])[0], several=False)[0]) == 3
