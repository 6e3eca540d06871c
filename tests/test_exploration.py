"""`pmoe plot --exploration`: positions against the environment's own, areas, what table and figure hold."""

import shutil

import numpy as np
import pytest
from common import failed, rows_of, run_at, train
from common_figures import PICTURE, TABLE, close, column, files_of, names_of, run_of, stdout_of
from common_reaching import CUT, DRAWN, FIXED, NAMES, RANDOM, STEPS, near_targets, record
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from pmoe.envs.target_reaching import START, TargetReaching
from pmoe.plots import exploration
from pmoe.plots.runs import PlotError, find

# What a replay says


@pytest.fixture(scope="module", params=[FIXED, DRAWN])
def truth(request, tmp_path_factory):
    """A run of random actions whose episodes end in every way, and the steps that its environment made"""
    with pytest.MonkeyPatch.context() as patch:
        near_targets(patch)
        worlds = record(patch)
        env_id = request.param + CUT
        # Seed 3 reaches the target several times in either task.
        (path,) = train("sac", tmp_path_factory.mktemp("truth"), env_id=env_id, seed=3, **RANDOM)
    steps = max(worlds.values(), key=len)
    assert len(steps) == STEPS
    return run_at(path), steps


@pytest.fixture
def copy(truth, tmp_path):
    """A copy of the run, to be changed, and the file of its replay"""
    run, _ = truth
    path = tmp_path / "run"
    shutil.copytree(run.path, path)
    return path, path / "checkpoint" / "replay.f32"


def test_positions_are_the_environments_own(truth):
    run, steps = truth
    known = exploration.experience(run)
    close(known.position, [step.before for step in steps], 1e-5)
    close(known.next_position, [step.after for step in steps], 1e-5)


def test_episodes_end_where_the_run_says(truth):
    run, steps = truth
    known = exploration.experience(run)
    ends = column(rows_of(run.path / "episodes.csv"), "step").astype(int).tolist()
    # A time limit at the very end does not show: nothing follows it.
    if ends[-1] == STEPS and not steps[-1].terminated:
        ends.pop()
    assert known.ends.tolist() == ends
    starts = [0, *(end for end in ends if end < STEPS)]
    for start in starts:
        assert (steps[start].before == START).all()
    _, first = np.unique(known.episode, return_index=True)
    assert first.tolist() == starts


def test_episodes_end_as_the_environment_says(truth):
    run, steps = truth
    known = exploration.experience(run)
    last = [steps[end - 1] for end in known.ends]
    assert known.success.tolist() == [step.success for step in last]
    ways = {(step.terminated, step.success) for step in last}
    assert ways == {(True, True), (True, False), (False, False)}  # reached, collided, out of time


def test_a_replay_that_is_still_written(truth, copy):
    """Its last row may be half there"""
    _, steps = truth
    path, file = copy
    content = file.read_bytes()
    row = len(content) // STEPS
    file.write_bytes(content[: 100 * row + 10])
    known = exploration.experience(run_at(path))
    close(known.position, [step.before for step in steps[:100]], 1e-5)


def test_a_replay_that_is_still_empty(copy, tmp_path):
    """As before the first checkpoint"""
    path, file = copy
    file.write_bytes(b"")
    run = run_at(path)
    with pytest.raises(PlotError, match="no steps yet") as error:
        exploration.report([run], tmp_path)
    assert str(path) in str(error.value)


def test_a_replay_that_is_gone(copy, tmp_path):
    path, file = copy
    file.unlink()
    run = run_at(path)
    with pytest.raises(PlotError, match="replay.f32 is gone"):
        exploration.report([run], tmp_path)


# Areas

X = np.arange(0.125, 2.4, 0.25)  # the middles of ten cells
ALONG = [(x, 0.1) for x in X]
BACK = [(x, 0.1) for x in X[::-1]]
UP = [(2.375, y) for y in X]
ACROSS = [(x, 0.1) for x in np.arange(-4.9, 4.95, 0.1)]


@pytest.mark.parametrize(
    "points, cells",
    [
        ([(0.1, 0.1), (0.1, 0.1)], 1),  # at rest
        ([(0.01, 0.01), (0.24, 0.24)], 1),  # within a cell
        (ALONG, 10),
        ([(x, x) for x in X], 10),  # from corner to corner
        (ACROSS, 40),  # from edge to edge
        (ALONG + UP, 19),
        (ALONG + BACK, 10),
        ([(0.1, 0.1), (0.26, 0.1)], 2),  # its end alone is in the second
        ([(0.2, 0.15), (0.48, 0.43)], 2),  # its first quarter alone is beside the corner
        ([(5, 5), (5, 5)], 1),
        ([(5, 5), (4.9, 4.9)], 1),  # the edge is in the last cell
        ([(-5, -5), (-4.9, -4.9)], 1),
        ([(4.9, 0.1), (5, 0.1), (5, -0.1)], 2),
    ],
)
def test_area_by_hand(points, cells):
    points = np.array(points, float)
    area = exploration.area(points[:-1], points[1:])
    close(area, cells / 16)


COORDINATES = st.floats(-5, 5)
WAY = st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES)
WAYS = st.lists(WAY, min_size=1, max_size=30)


def area_of(ways) -> float:
    """Of ways (x, y) -> (x, y)"""
    ways = np.array(ways)
    return exploration.area(ways[:, :2], ways[:, 2:])


@given(WAYS, WAYS, st.randoms())
def test_area_of_any_ways(some, others, random):
    area = area_of(some)
    other = area_of(others)
    ways = some + others
    both = area_of(ways)
    random.shuffle(ways)
    assert area_of(ways) == both
    assert max(area, other) <= both <= min(area + other, 100)
    assert 0.0625 <= area <= 0.0625 * 4 * len(some)


def test_paths_are_cut_where_episodes_end():
    position = np.arange(12.0).reshape(6, 2)
    episode = np.array([0, 0, 1, 2, 2, 2])
    none = np.array([])
    known = exploration.Experience(position, position + 0.5, episode, none, none)
    first, second, third = exploration.paths(known, 5)
    assert first.tolist() == [[0, 1], [2, 3], [2.5, 3.5]]
    assert second.tolist() == [[4, 5], [4.5, 5.5]]
    assert third.tolist() == [[6, 7], [8, 9], [8.5, 9.5]]


# The target region

EDGES = [(0, 0), (3, 3), (0, 3), (1.5, 2.9), (-0.01, 1), (1, 3.01), (3.01, -1), (-4.5, -4.5)]


def test_the_target_region_is_that_of_the_paper():
    inside = exploration.in_region(np.array(EDGES, float))
    assert inside.tolist() == [True] * 4 + [False] * 4


def drive(world, generator) -> tuple[np.ndarray, bool]:
    """One step of an agent that goes for the target, a little unsure: its row of the replay, and whether the
    episode ended"""
    before = world.observe()
    action = before[:2] - 2 * world.velocity + generator.normal(0, 1, 2)
    after, reward, terminated, _, _ = world.step(action)
    return np.concatenate([before, action, after, [reward, terminated]]), terminated


@pytest.fixture
def driven(plain, tmp_path):
    """A run whose layouts, the environment's own, differ, with a replay of 20 such episodes; its worlds'
    targets, paths and successes"""
    path = tmp_path / "run"
    shutil.copytree(run_of(plain / DRAWN, "PMOE-SAC K=2").path, path)
    world = TargetReaching()
    generator = np.random.default_rng(0)
    rows = []
    episodes = []
    for seed in range(20):
        world.reset(seed=seed)
        ended = False
        while not ended:
            row, ended = drive(world, generator)
            rows.append(row)
        episodes.append((world.target, np.array(world.path), world.success))
    np.array(rows, np.float32).tofile(path / "checkpoint" / "replay.f32")
    return run_at(path), episodes


def test_each_episode_has_its_own_target(driven):
    run, episodes = driven
    known = exploration.experience(run)
    obs, *_ = exploration.replay(run)
    assert known.success.tolist() == [success for _, _, success in episodes]
    assert len(set(known.success)) == 2
    for i, (target, path, _) in enumerate(episodes):
        own = known.episode == i
        close(known.position[own] + obs[own, :2], np.tile(target, (own.sum(), 1)), 1e-5)
        close(known.next_position[own], path[1:], 1e-5)


def test_steps_in_the_target_region(driven, tmp_path, drawn):
    run, episodes = driven
    exploration.report([run], tmp_path)
    positions = [(x, y) for _, path, _ in episodes for x, y in path[1:]]
    inside = [0 <= x <= 3 and 0 <= y <= 3 for x, y in positions]
    (row,) = rows_of(tmp_path / "exploration.csv")
    assert int(row["region"]) == sum(inside) > 20
    close(float(row["region_share"]), 100 * np.mean(inside))
    plane, _ = drawn[0].axes
    shown = [patch for patch in plane.patches if patch.get_label() == "target region"]
    assert [patch.get_bbox().extents.tolist() for patch in shown] == [[0, 0, 3, 3]]
    own, region = [text.get_text() for text in plane.get_legend().texts]
    assert "% of steps in the region" in own + region


# The table


def test_files_and_notes(three, tmp_path, drawn):
    runs, _ = find([three])
    files, notes = exploration.report(runs, tmp_path)
    picture = f"exploration-TargetReaching-v0-fixed_layout2{CUT.replace(',', '-').replace('=', '')}"
    assert names_of(files) == files_of("exploration", TABLE) | files_of(picture, PICTURE)
    assert len(notes) == 3
    for note in notes:
        assert "fewer than 10,000 steps" in note


def test_the_table(three, tmp_path, drawn):
    runs, _ = find([three])
    exploration.report(runs, tmp_path)
    rows = rows_of(tmp_path / "exploration.csv")
    assert [row["method"] for row in rows] == NAMES
    for row in rows:
        known = exploration.experience(run_of(three, row["method"]))
        tenth = max(1, len(known.ends) // 10)
        assert row["seed"] == "1"
        assert int(row["steps"]) == STEPS
        assert int(row["episodes"]) == len(known.ends)
        assert int(row["targets"]) == known.success.sum() > 0
        assert float(row["area"]) == exploration.area(known.position, known.next_position)
        close(float(row["late"]), 100 * known.success[-tenth:].mean())
        assert int(row["region"]) == 0  # these targets are near the start


def test_only_the_first_steps_are_counted(three, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(exploration, "STEPS", 100)
    run = run_of(three, "SAC")
    _, notes = exploration.report([run], tmp_path)
    assert notes == []
    (row,) = rows_of(tmp_path / "exploration.csv")
    known = exploration.experience(run)
    early = known.ends <= 100
    assert int(row["steps"]) == 100
    assert int(row["episodes"]) == early.sum() < len(early)
    assert int(row["targets"]) == known.success[early].sum() < known.success.sum()
    assert float(row["area"]) == exploration.area(known.position[:100], known.next_position[:100])


# The figure


@pytest.fixture
def axes(three, tmp_path, drawn):
    """The planes, and at the end the success rates"""
    runs, _ = find([three])
    exploration.report(runs, tmp_path)
    (figure,) = drawn
    assert len(figure.axes) == 3
    return figure.axes


@pytest.fixture
def rates(axes):
    """The lines of success, by method"""
    lines = [line for line in axes[-1].lines if not line.get_label().startswith("_")]
    for line, name in zip(lines, NAMES, strict=True):
        assert line.get_label().startswith(name)
    return dict(zip(NAMES, lines))


def lengths(lines) -> list[int]:
    return [len(line.get_xdata()) for line in lines]


def test_success_rates(three, rates):
    for name, line in rates.items():
        known = exploration.experience(run_of(three, name))
        expected = []
        for end in range(1, len(known.ends) + 1):
            last = known.success[max(0, end - exploration.WINDOW) : end]
            expected.append(100 * last.mean())
        x, y = line.get_xydata().T
        assert x.tolist() == known.ends.tolist()
        close(y, expected)
        assert max(expected) > 0


def test_each_plane_shows_the_paths_of_the_first_method_and_another(three, axes, rates):
    colours = {name: to_rgba(line.get_color()) for name, line in rates.items()}
    assert len(set(colours.values())) == 3
    for ax, other in zip(axes, NAMES[1:]):
        lines = [line for line in ax.lines if len(line.get_xdata()) > 1]
        labels = [text.get_text() for text in ax.get_legend().texts]
        expected = []
        assert labels.pop() == "target region"
        for name, label in zip((NAMES[0], other), labels, strict=True):
            paths = exploration.paths(exploration.experience(run_of(three, name)), STEPS)
            expected += [(path, colours[name]) for path in paths]
            assert label.startswith(f"{name}, seed 1:\narea")
        for line, (path, colour) in zip(lines, expected, strict=True):
            assert (line.get_xydata() == path).all()
            assert to_rgba(line.get_color()) == colour


def test_only_the_first_steps_are_shown(three, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(exploration, "STEPS", 100)
    exploration.report([run_of(three, "SAC")], tmp_path)
    plane, curve = drawn[0].axes
    paths = [n - 1 for n in lengths(plane.lines) if n > 1]
    assert sum(paths) == 100
    assert curve.lines[0].get_xdata()[-1] > 100  # all of training


# Runs without a replay


def test_exploration_of_runs_without_a_replay(pmoe_here, three, plain, tmp_path):
    out = stdout_of(pmoe_here("plot", three, plain, "--exploration"))
    rows = rows_of(tmp_path / "figures/exploration.csv")
    assert {row["environment"] for row in rows} == {FIXED + CUT}
    text = " ".join(out.split())
    assert "was run with --no-keep-replay" in text
    assert "PPO's family keeps none" in text
    assert "of Pendulum-v1" in text


@pytest.mark.parametrize("env, word", [(DRAWN, "keep"), ("Pendulum-v1", "TargetReaching-v0")])
def test_where_there_is_no_exploration(pmoe_here, plain, tmp_path, env, word):
    failed(pmoe_here("plot", plain / env, "--exploration"), word)
    assert not list(tmp_path.iterdir())


def test_one_run_with_a_replay_among_those_without(three, plain, tmp_path, drawn):
    runs, _ = find([three, plain])
    mixed = [run for run in runs if run.method == "SAC" or run.family == "PPO"]
    _, notes = exploration.report(mixed, tmp_path)
    rows = rows_of(tmp_path / "exploration.csv")
    assert [row["method"] for row in rows] == ["SAC"]
    (figure,) = drawn
    assert len(figure.axes) == 2
    assert any("PPO's family" in note for note in notes)
