"""Figures can be read whatever is compared: no text lies on another, and none leaves the picture."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib import text as mpl_text
from runs_on_disk import UNIT, make

from pmoe.plots import auc, curves, modes, primitives, profile, routing, runs
from pmoe.plots.policies import Rollout

LONG = {"learning_rate": 3e-4, "backprop": "all", "entropy": "mixture", "detach_router": False}
METHODS = [
    ("sac", {"k": 4, **LONG}),
    ("sac", {"k": 4}),
    ("sac", {"k": 4, "alpha": "auto", "batch_size": 256, "gamma": 0.995}),
    ("gating-sac", {"k": 4, "tag": "a_tag_that_says_all_there_is_to_say_of_a_run_and_more"}),
    ("sac", {"k": 1}),
    ("gating-sac", {"k": 8, "tag": "$x^2$"}),
]
ENVS = ["Hopper-v4", "my_module:AnEnvironmentThatHasAVeryLongNameIndeed-v0", "HumanoidStandup-v4"]
ENVS += ["HalfCheetah-v4", "Ant-v4", "Walker2d-v4"]
SIZES = [(methods, envs) for methods in (1, 3, 6) for envs in (1, 4, 6)]
SHOWN = 3  # pixels of a letter's box, its margin


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A run of each method on each environment, with returns of a few or of a million"""
    root = tmp_path_factory.mktemp("runs")
    for env in ENVS:
        scale = 1e6 if "Humanoid" in env else 1000
        for algo, fields in METHODS:
            make(root, algo, scale * (1 + UNIT), env_id=env, **fields)
    found, _ = runs.find([root])
    return found


@pytest.fixture
def compared(known):
    """The runs of so many methods and environments"""

    def some(methods: int, envs: int) -> list[runs.Run]:
        wanted = {(algo, fields["k"], str(fields.get("tag", ""))) for algo, fields in METHODS[:methods]}
        own = [run for run in known if run.env in ENVS[:envs]]
        return [run for run in own if (run.algo, run.args["k"], run.args["tag"]) in wanted]

    return some


def boxes(figure, monkeypatch) -> dict:
    """Where each text is that is drawn, by the text's place among all"""
    found = {}
    draw = mpl_text.Text.draw

    def drawn(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            found[text] = text.get_window_extent(renderer)
        return draw(text, renderer, *args, **kwargs)

    monkeypatch.setattr(mpl_text.Text, "draw", drawn)
    figure.draw_without_rendering()
    return found


def check(figure, monkeypatch) -> None:
    """Asserts that no text of a figure overlaps another or is outside."""
    places = boxes(figure, monkeypatch)
    assert places
    width, height = figure.bbox.size
    for text, box in places.items():
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text.get_text()!r} leaves the picture"
    for (one, a), (other, b) in combinations(places.items(), 2):
        beside = min(a.x1, b.x1) - max(a.x0, b.x0) < SHOWN or min(a.y1, b.y1) - max(a.y0, b.y0) < SHOWN
        assert beside, f"{one.get_text()!r} lies on {other.get_text()!r}"


@pytest.mark.parametrize("methods, envs", SIZES)
def test_curves(compared, tmp_path, drawn, monkeypatch, methods, envs):
    some = compared(methods, envs)
    curves.plot(some, tmp_path, "eval", "mean", True, 1, "steps")
    check(drawn[0], monkeypatch)


def test_curves_of_seconds(known, tmp_path, drawn, monkeypatch):
    curves.plot(known, tmp_path, "train", "iqm", False, 1, "time")
    check(drawn[0], monkeypatch)


@pytest.mark.parametrize("methods, envs", SIZES)
def test_profiles(compared, tmp_path, drawn, monkeypatch, methods, envs):
    monkeypatch.setattr(profile, "REPLICATES", 20)
    some = compared(methods, envs)
    tasks, _ = auc.compare(some, some[0].method)
    profile.plot(tasks, some, tmp_path, "mean")
    check(drawn[0], monkeypatch)


# Of policies, by numbers that no policy has to give


def measures(k: int) -> primitives.Measures:
    """Of K primitives that differ a lot"""
    matrix = 1234.5 * (1 - np.eye(k))
    share = np.full(k, 1 / k)
    returns = np.full((1 + k, 2), -123456.0)
    numbers = {"entropy": 1.0, "effective": 2.0, "conditional": 0.5, "information": 0.5}
    matrices = dict.fromkeys(("bhattacharyya", "overlap", "symmetric_kl", "action_gap"), matrix)
    return primitives.Measures(states=9, usage=share, share=share, returns=returns, **matrices, **numbers)


@pytest.mark.parametrize("methods, envs", [(1, 1), (6, 1)])
def test_primitives(compared, tmp_path, drawn, monkeypatch, methods, envs):
    some = [run for run in compared(methods, envs) if run.args["k"] > 1]
    primitives.plot([(run, measures(run.args["k"])) for run in some], tmp_path)
    check(drawn[0], monkeypatch)


def steps_of(k: int, length: int = 1000) -> Rollout:
    """An episode in which the primitives act in turn"""
    chosen = np.arange(length) % k
    each = np.zeros((length, k, 2))
    one = np.zeros((length, 2))
    w = np.where(np.arange(k) == chosen[:, None], 0.9, 0.1 / k)
    zeros = np.zeros(length, int)
    policy = {"mean": each, "log_std": each - 2, "mean_action": each, "log_w": np.log(w), "chosen": chosen}
    whole = {"returns": np.array([-123456.0]), "frames": [], "paths": [[]], "ends": [{}]}
    taken = {"obs": one, "action": one, "reward": zeros, "done": zeros}
    return Rollout(episode=zeros, time=np.arange(length), **taken, **policy, **whole)


@pytest.mark.parametrize("frames", [0, routing.MOST])
@pytest.mark.parametrize("method", [3, 5])
def test_routing(compared, tmp_path, drawn, monkeypatch, method, frames):
    algo, fields = METHODS[method]
    run = [run for run in compared(6, 6) if run.algo == algo and run.args["k"] == fields["k"]][-1]
    part = routing.Part(100, 900, range(0, 10 * frames, 10))
    pictures = [np.zeros((48, 64, 3))] * frames
    routing.plot(run, steps_of(fields["k"]), pictures, tmp_path / "routing", part)
    check(drawn[0], monkeypatch)


@pytest.mark.parametrize("methods", [1, 3, 6])
def test_modes(compared, tmp_path, drawn, monkeypatch, methods):
    monkeypatch.setattr(modes, "world_of", lambda run: modes.make("Bumps-v0").unwrapped)
    panels = []
    for run in compared(methods, 1):
        k = run.args["k"]
        ends = np.zeros(20, int)
        m = modes.Measures(
            ends, np.zeros((k, 20), int), np.zeros((1 + k, 20)), 4, 0.5, np.ones(k), np.ones(k), 1
        )
        panels.append((run, m, steps_of(k)))
    modes.plot(panels, 4, tmp_path / "modes")
    check(drawn[0], monkeypatch)
