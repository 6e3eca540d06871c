"""What `pmoe plot` does once for each run or method, by counting, as seconds differ"""

from collections import Counter

import numpy as np
import pytest
from runs_on_disk import seeds

from pmoe.plots import auc, runs, stats

METHODS = ["sac", "gating-sac", "mcp-sac"]
ENVS = ["Hopper-v4", "Ant-v4"]


@pytest.fixture
def counted(monkeypatch):
    """Counts calls of functions by their names."""
    counts = Counter()

    def count(module, name: str, key=lambda *args: None):
        function = getattr(module, name)

        def call(*args, **kwargs):
            counts[name, key(*args)] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)
        return call

    return counts, count


def test_files_and_areas_once(tmp_path, pmoe_here, counted):
    """Each file is read once; each run's area and final return are computed once for the tables of its
    environment, and its area once more for the paper's."""
    counts, count = counted
    count(runs, "read_text", lambda file, *_: file)
    count(runs, "read_config", lambda file: file)
    count(runs, "read_done", lambda folder: folder)
    count(runs, "numbers")
    count(auc, "auc", lambda steps, *_: id(steps))
    for env in ENVS:
        for method in METHODS:
            seeds(tmp_path / "runs", method, range(1, 6), env_id=env)
    size = len(ENVS) * len(METHODS) * 5
    result = pmoe_here("plot", "runs", "--auc", "--metric", "train")
    assert result.returncode == 0, result.stderr

    of = {name: [n for (called, _), n in counts.items() if called == name] for name, _ in counts}
    for name in ("read_text", "read_config", "read_done"):
        assert of[name] == [1] * size
    assert of["numbers"] == [size]
    assert max(of["auc"]) <= 3
    assert len(of["auc"]) == size


def test_curves_of_means_are_not_drawn_at_each_point(counted):
    """The interval of a mean curve is that of any center, without a call at each of its points."""
    counts, count = counted
    curves = np.random.default_rng(0).normal(size=(6, 50))
    expected = stats.bootstrap_curves(curves, lambda x: x.mean(-1))
    ends = stats.bootstrap_curves(curves, count(stats, "mean"))
    np.testing.assert_allclose(ends, expected, rtol=0, atol=1e-12)
    assert counts["mean", None] == 1
