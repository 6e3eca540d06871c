"""Performance profiles, as the figure has them"""

import numpy as np
import pytest
from matplotlib import pyplot
from runs_on_disk import make, seeds

from pmoe.plots import auc, profile, runs


@pytest.fixture
def kept(monkeypatch):
    """The figures that are written"""
    figures = []
    monkeypatch.setattr(pyplot, "close", figures.append)
    yield figures
    monkeypatch.undo()
    pyplot.close("all")


def plot(root, labels=()):
    """The files, and notes"""
    found, _ = runs.find([root])
    runs.relabel(found, labels)
    tasks, _ = auc.compare(found)
    return profile.plot(tasks, found, root, "mean")


def test_profiles(tmp_path, kept):
    for env, scale in (("Hopper-v4", 1), ("Ant-v4", 10), ("Hopper-v5", 1)):
        seeds(tmp_path, "sac", [scale] * 3, k=1, env_id=env)
        areas = [2 * scale] if env == "Ant-v4" else [0.5, 1, 1.5, 2]
        seeds(tmp_path, "sac", areas, k=2, env_id=env)
    seeds(tmp_path, "mrp-sac", [1], env_id="Ant-v4")
    files, (note,) = plot(tmp_path)
    assert [file.name for file in files] == ["profile.png", "profile.pdf"]
    assert all(file.exists() for file in files)
    assert note.startswith("MRP K=5 is not among 2 environments")

    both, alone = kept[0].axes
    assert "Ant-v4, Hopper-v4" in both.get_title().replace("\n", " ")
    assert "Hopper-v5" in alone.get_title()
    sac = {60: 1, 99: 1, 102: 0}
    pmoe = {48: 1, 75: 0.75, 125: 0.5, 198: 0.25}
    # Environments count the same.
    pmoe_in_both = {threshold: (share + 1) / 2 for threshold, share in pmoe.items()}
    expected = [
        (both, {"SAC": sac, "PMOE-SAC K=2": pmoe_in_both}),
        (alone, {"SAC": sac, "PMOE-SAC K=2": pmoe}),
    ]
    (legend,) = kept[0].legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert entries == ["SAC (n = 3 to 6)", "PMOE-SAC K=2 (n = 4 to 5)"]
    for ax, shares in expected:
        assert "% of SAC" in ax.get_xlabel()
        assert ax.get_ylabel() == "fraction of runs above"
        bottom, top = ax.get_ylim()
        assert -0.1 < bottom <= 0
        assert 1 <= top < 1.1
        left, right = ax.get_xlim()
        assert left <= 50
        assert right >= 200
        lines = ax.get_lines()
        assert [line.get_label() for line in lines] == list(shares)
        for line in lines:
            assert line.get_drawstyle() == "steps-post"
            thresholds, fractions = line.get_data()
            for threshold, share in shares[line.get_label()].items():
                step = np.searchsorted(thresholds, threshold) - 1
                assert fractions[step] == share, threshold
            assert (np.diff(fractions) <= 0).all()
            assert fractions[-1] == 0


def test_a_title_names_few_environments_and_counts_many(tmp_path, kept):
    for env in ("Ant-v4", "Hopper-v4", "Walker2d-v4"):
        make(tmp_path, k=1, env_id=env)
    plot(tmp_path)
    (ax,) = kept[0].axes
    assert ax.get_title().replace("\n", " ") == "3 environments, 1,000,000 steps, SAC family"


def test_methods_that_are_called_alike_are_one_line(tmp_path, kept):
    """As the paper's PMOE, whose K differs between tasks"""
    for env, k in (("Ant-v4", 4), ("Hopper-v4", 2)):
        for method in (1, k):
            seeds(tmp_path, "sac", [1, 2], k=method, env_id=env)
    plot(tmp_path, ["sac-k4=Ours", "sac-k2=Ours"])
    (ax,) = kept[0].axes
    assert [line.get_label() for line in ax.get_lines()] == ["SAC", "Ours"]


def test_no_profile_without_percents(tmp_path):
    make(tmp_path, k=2)
    seeds(tmp_path, "sac", [-1, -2], k=1, env_id="Ant-v4")
    files, notes = plot(tmp_path)
    assert files == []
    assert notes == ["no performance profile, as there are no percents to plot it of"]
    assert not list(tmp_path.glob("profile.*"))
