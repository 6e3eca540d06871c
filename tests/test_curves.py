"""Learning curves, as the figure has them"""

import numpy as np
import pytest
from matplotlib import figure as mpl_figure
from matplotlib import pyplot
from matplotlib.collections import PolyCollection
from runs_on_disk import UNIT, make, seeds

from pmoe.plots import curves, runs, style


@pytest.fixture
def plotted(monkeypatch):
    """Plots curves without writing them; gives the figure, and notes"""

    def plot(root, metric="eval", center="mean", show_seeds=False, window=1, x="steps"):
        kept = []
        monkeypatch.setattr(pyplot, "close", kept.append)
        monkeypatch.setattr(mpl_figure.Figure, "savefig", lambda *args, **kwargs: None)
        found, _ = runs.find([root], metric)
        _, notes = curves.plot(found, root, metric, center, show_seeds, window, x)
        return kept[0], notes

    yield plot
    monkeypatch.undo()
    pyplot.close("all")


def lines_of(ax) -> dict[str, np.ndarray]:
    """What is plotted, points (T, 2), by its method"""
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def only_line(figure) -> np.ndarray:
    """The points (T, 2) of a figure's one line"""
    (points,) = lines_of(figure.axes[0]).values()
    return points


def legend_of(figure) -> list[str]:
    """The one below all panels"""
    (legend,) = figure.legends
    assert not any(ax.get_legend() for ax in figure.axes)
    return [text.get_text() for text in legend.get_texts()]


def test_a_band_of_success_is_of_shares(tmp_path, plotted):
    """Of few runs intervals are stretched, here below 0 and above 1."""
    for path, share in zip(seeds(tmp_path, "sac", [1, 1, 1], k=1), (0, 0, 1)):
        (path / "eval.csv").write_text(f"step,return_mean,success\n500000,3,{share}\n1000000,3,{share}\n")
    figure, _ = plotted(tmp_path, "success")
    [band] = [x for x in figure.axes[0].collections if isinstance(x, PolyCollection)]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (0, 1)


def test_a_panel_an_environment_and_a_line_a_method(tmp_path, plotted):
    scales = {"Ant-v4": 10, "Hopper-v4": 1, "Hopper-v5": 100, "Walker2d-v4": 5}
    for env, scale in reversed(scales.items()):
        seeds(tmp_path, "sac", [scale, 2 * scale, 6 * scale], k=1, env_id=env)
        seeds(tmp_path, "sac", [scale, 2 * scale, 1.5 * scale], k=4, env_id=env)
    figure, notes = plotted(tmp_path)
    assert notes == []
    ylabels = [ax.get_ylabel() for ax in figure.axes]
    assert ylabels == ["evaluation return,\nmean and 95 % interval", ""] * 2
    assert [ax.get_title() for ax in figure.axes] == list(scales)
    means = {"SAC": 3, "PMOE-SAC K=4": 1.5}
    assert legend_of(figure) == ["SAC (n = 3)", "PMOE-SAC K=4 (n = 3)"]
    for ax, scale in zip(figure.axes, scales.values()):
        assert ax.get_xlabel() == "environment steps"
        lines = lines_of(ax)
        assert list(lines) == list(means)
        for label, mean in means.items():
            x, y = lines[label].T
            np.testing.assert_allclose(x, np.arange(1, 5) * 250_000)
            np.testing.assert_allclose(y, mean * scale * UNIT)

        left, right = ax.get_xlim()
        bottom, top = ax.get_ylim()
        assert left <= 250_000
        assert 1_000_000 <= right <= 1.1e6
        assert bottom <= 0
        assert 6 * scale < top < 30 * scale
        first, _ = [band for band in ax.collections if isinstance(band, PolyCollection)]
        corners = first.get_paths()[0].vertices
        at_end = np.isclose(corners[:, 0], 1_000_000)
        ends = corners[at_end, 1]
        assert -5 * scale <= ends.min() < 6 * scale
        assert 6 * scale < ends.max() <= 25 * scale


def test_one_legend_says_of_all_panels_how_many_runs_there_are(tmp_path, plotted):
    for env, n in (("Ant-v4", 3), ("Hopper-v4", 2)):
        seeds(tmp_path, "sac", range(n), env_id=env)
    seeds(tmp_path, "sac", [1], k=1, env_id="Hopper-v4")
    figure, _ = plotted(tmp_path)
    assert legend_of(figure) == ["SAC (n = 1)", "PMOE-SAC K=4 (n = 2 to 3)"]


def test_steps_are_thousands_and_millions_without_a_power_beside_the_axis(tmp_path, plotted):
    make(tmp_path)
    figure, _ = plotted(tmp_path)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    texts = {text.get_text() for text in ax.get_xticklabels()}
    assert {"400k", "1M"} <= texts
    assert ax.xaxis.get_offset_text().get_text() == ""


def test_lines_look_as_their_methods(tmp_path, plotted):
    for k in (1, 8):
        make(tmp_path, k=k)
    found, _ = runs.find([tmp_path])
    figure, _ = plotted(tmp_path)
    lines = figure.axes[0].get_lines()
    for line, look in zip(lines, style.styles(found).values(), strict=True):
        assert line.get_color() == look["color"]
        assert line.get_linestyle() == look["linestyle"]
        assert line.get_marker() == look["marker"]


def test_interquartile_means(tmp_path, plotted):
    seeds(tmp_path, "sac", [1, 2, 3, 4, 100])
    figure, _ = plotted(tmp_path, center="iqm")
    np.testing.assert_allclose(only_line(figure)[:, 1], 3 * UNIT)
    assert figure.axes[0].get_ylabel() == "evaluation return,\nIQM and 95 % interval"


def test_training_returns(tmp_path, plotted):
    seeds(tmp_path, "sac", [1, 3])
    figure, _ = plotted(tmp_path, metric="train")
    np.testing.assert_allclose(only_line(figure)[:, 1], 1000 + 2 * UNIT)
    assert legend_of(figure) == ["PMOE-SAC K=4 (n = 2)"]
    assert figure.axes[0].get_ylabel().startswith("training return")


def test_seeds_shown(tmp_path, plotted):
    areas = [1, 2, 6]
    seeds(tmp_path, "sac", areas)
    figure, _ = plotted(tmp_path, show_seeds=True)
    (ax,) = figure.axes
    mean, *thin = ax.get_lines()
    assert len(legend_of(figure)) == 1
    for area, line in zip(areas, thin, strict=True):
        np.testing.assert_allclose(line.get_ydata(), area * UNIT)
        assert line.get_color() == mean.get_color()
        assert line.get_linewidth() < mean.get_linewidth() / 2
    figure, _ = plotted(tmp_path)
    assert len(figure.axes[0].get_lines()) == 1


def test_smooth_by_hand(tmp_path, plotted):
    make(tmp_path, returns=[4, 8, 0, 10, 2])
    figure, _ = plotted(tmp_path, window=3)
    np.testing.assert_allclose(only_line(figure)[:, 1], [4, 6, 4, 6, 4])


@pytest.mark.parametrize("window", [1, 2, 5, 99])
def test_smooth_is_a_mean_over_the_last_values(window):
    x = np.random.default_rng(0).normal(1e6, 1, size=20)
    expected = []
    for end in range(1, 21):
        start = max(0, end - window)
        expected.append(x[start:end].mean())
    np.testing.assert_allclose(curves.smooth(x, window), expected)


# Seeds that differ in their steps


def test_seeds_with_other_steps_are_read_at_the_same_ones(tmp_path, plotted):
    """The mean of lines x and 2x is 1.5x wherever each has its points, from where both begin to where one
    ends."""
    make(tmp_path, seed=1, steps=[100, 200, 400], returns=[100, 200, 400], done=False)
    make(tmp_path, seed=2, steps=[150, 300, 500], returns=[300, 600, 1000], done=False)
    figure, notes = plotted(tmp_path)
    np.testing.assert_allclose(only_line(figure), [[x, 1.5 * x] for x in (150, 200, 300, 400)])
    assert notes == ["Hopper-v4, PMOE-SAC K=4: plotted up to step 400, which all its seeds have reached"]


def test_seeds_evaluated_at_different_intervals(tmp_path, plotted):
    """Bent curves: the mean stands at each step of either, each curve straight between its own points."""
    often = {"steps": [100, 200, 300, 400], "returns": [0, 8, 0, 4], "eval_every": 100}
    seldom = {"steps": [200, 400], "returns": [10, 30], "eval_every": 200, "eval_episodes": 3}
    make(tmp_path, seed=1, total_timesteps=400, **often)
    make(tmp_path, seed=2, total_timesteps=400, **seldom)
    figure, notes = plotted(tmp_path)
    assert legend_of(figure) == ["PMOE-SAC K=4 (n = 2)"]
    expected = [[200, (8 + 10) / 2], [300, (0 + 20) / 2], [400, (4 + 30) / 2]]
    np.testing.assert_allclose(only_line(figure), expected)
    assert notes == []


@pytest.mark.parametrize("metric", ["eval", "train"])
def test_seeds_of_different_length(tmp_path, plotted, metric):
    """Finished ones, of 1,000 and 2,000 steps: the longer goes on alone, and is not plotted there."""
    make(tmp_path, seed=1, total_timesteps=1000, returns=[1, 2, 3, 4])
    make(tmp_path, seed=2, total_timesteps=2000, returns=[2, 4, 6, 8])
    figure, notes = plotted(tmp_path, metric)
    x, y = only_line(figure).T
    np.testing.assert_allclose(x, [500, 750, 1000])
    shift = 1000 if metric == "train" else 0
    np.testing.assert_allclose(y - shift, [(2 + 2) / 2, (3 + 3) / 2, (4 + 4) / 2])
    assert notes == ["Hopper-v4, PMOE-SAC K=4: plotted up to step 1,000, which all its seeds have reached"]


def test_where_training_episodes_of_whole_runs_end_is_no_note(tmp_path, plotted):
    make(tmp_path, seed=1, steps=[100, 990_000], returns=[1, 2])
    make(tmp_path, seed=2, steps=[100, 995_000], returns=[1, 2])
    _, notes = plotted(tmp_path, "train")
    assert notes == []


def test_seeds_without_a_step_in_common_are_named(tmp_path, plotted):
    make(tmp_path, seed=1, steps=[100, 200], returns=[1, 2], done=False)
    make(tmp_path, seed=2, steps=[300, 500], returns=[1, 2], done=False)
    make(tmp_path, seed=1, k=1)
    figure, notes = plotted(tmp_path)
    assert legend_of(figure) == ["SAC (n = 1)"]
    assert notes == ["Hopper-v4, PMOE-SAC K=4: its seeds have no steps in common yet; not plotted"]


def test_thousands_of_episodes_are_plotted_as_stretches(tmp_path, plotted):
    """A line stays a line, and the mean over noise is its mean."""
    generator = np.random.default_rng(0)
    for seed in (1, 2):
        steps = generator.choice(np.arange(1, 1_000_000), 5000, replace=False)
        steps.sort()
        noise = generator.normal(50, 10, 5000)
        make(tmp_path, seed=seed, steps=steps, returns=steps * 0.01 * seed)
        make(tmp_path, seed=seed, k=1, steps=steps, returns=noise)
    figure, _ = plotted(tmp_path)
    noise, line = lines_of(figure.axes[0]).values()
    assert len(line) == len(noise) == 200
    np.testing.assert_allclose(line[:, 1], line[:, 0] * 0.015, rtol=1e-6)
    assert abs(noise[:, 1].mean() - 50) < 0.5
    assert noise[:, 1].std() < 3


# Hours


def test_hours(tmp_path, plotted):
    """A run of two hours and one of four are averaged over the two hours both took."""
    make(tmp_path, seed=1, wall_time=7200, returns=[0, 1, 2, 3])
    make(tmp_path, seed=2, wall_time=14400, returns=[0, 1, 2, 3])
    make(tmp_path, seed=3, done=False)
    make(tmp_path, k=1, done=False)
    figure, (note,) = plotted(tmp_path, x="time")
    (ax,) = figure.axes
    assert legend_of(figure) == ["PMOE-SAC K=4 (n = 2)"]
    assert ax.get_xlabel() == "hours"
    x, y = only_line(figure).T
    np.testing.assert_allclose(x, [1, 1.5, 2])
    np.testing.assert_allclose(y, [(1 + 0) / 2, (2 + 0.5) / 2, (3 + 1) / 2])
    assert note.startswith("2 unfinished runs have no time yet")


def test_minutes_where_no_run_took_an_hour(tmp_path, plotted):
    make(tmp_path, wall_time=600, returns=[0, 1])
    figure, _ = plotted(tmp_path, x="time")
    assert figure.axes[0].get_xlabel() == "minutes"
    np.testing.assert_allclose(only_line(figure)[:, 0], [5, 10])


def test_hours_of_no_finished_run(pmoe_here, tmp_path):
    make(tmp_path / "runs", done=False)
    result = pmoe_here("plot", "runs", "--x", "time")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "unfinished" in result.stderr
    assert not (tmp_path / "figures").exists()
