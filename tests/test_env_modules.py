"""Environments of a module in the current folder: --env my_module:MyEnv-v0"""

import json
import sys
from pathlib import Path

import imageio
import pytest
from common import files_below, flags, refused

from pmoe import envs

FILM = """
import gymnasium as gym
import numpy as np


class Film(gym.Env):
    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float64)

    def __init__(self, shade, render_mode=None):
        self.shade = shade
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(2), 1.0, self.steps == 9, False, {}

    def render(self):
        if self.render_mode == "rgb_array":
            return np.full((64, 64, 3), self.shade, np.uint8)


gym.register("Film-v0", Film)
"""
ENV = "films:Film-v0,shade=200,render_mode='human'"


@pytest.fixture
def folder(tmp_path) -> Path:
    """With the module of an environment, and with one that is called like one of Python's own"""
    (tmp_path / "films.py").write_text(FILM)
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong one')\n")
    return tmp_path


def test_from_a_module_to_a_film(pmoe, folder):
    """The film is of the run's own options, and rendered for itself, whatever the run did."""
    result = pmoe("run", "sac", *flags("sac", env=ENV, total_timesteps=60))
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("runs/*/*/seed1")
    result = pmoe("eval", path, "--episodes", 2, "--video", "film.mp4")
    assert result.returncode == 0, result.stderr
    assert " 9.0 " in result.stdout
    frames = imageio.mimread(folder / "film.mp4", memtest=False)
    assert len(frames) == 10
    for frame in frames:
        assert abs(frame.astype(int) - 200).max() < 9


def test_a_grid_finds_a_module(pmoe_here, folder, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    grid = f'env = {json.dumps(ENV)}\n[[method]]\nalgo = "sac"\n'
    (folder / "grid.toml").write_text(grid)
    result = pmoe_here("status", "grid.toml")
    assert result.returncode == 1
    assert "1 missing" in result.stdout
    assert sys.path[-1] == str(folder)


BROKEN = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "ends": ("import sys; sys.exit()", "SystemExit"),
    "syntax": ("def", "SyntaxError"),
    "lines": ("raise ValueError('a\\nb')", "ValueError: a b"),
    "missing": (None, "ModuleNotFoundError"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_module_that_does_not_import(pmoe_here, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(sys, "path", list(sys.path))
    text, words = BROKEN[damage]
    name = f"broken_{damage}"
    if text:
        (tmp_path / f"{name}.py").write_text(text)
    grid = f'env = "{name}:My-v0"\n[[method]]\nalgo = "sac"\n'
    (tmp_path / "grid.toml").write_text(grid)
    before = files_below(tmp_path)
    for command in (["run", "sac", "--env", f"{name}:My-v0"], ["grid", "grid.toml"]):
        refused(pmoe_here(*command), name, words)
    assert files_below(tmp_path).keys() - before.keys() <= set(tmp_path.glob("__pycache__/*"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "env_id, left",
    [
        ("A-v0", "A-v0"),
        ("A-v0,render_mode='human'", "A-v0"),
        ("m:A-v0,x=1,render_mode='rgb_array',y='a,b'", "m:A-v0,x=1,y='a,b'"),
        ("A-v0,render_mode=None,x=2", "A-v0,x=2"),
        ("A-v0,no_render_mode=1", "A-v0,no_render_mode=1"),
    ],
)
def test_without_render_mode(env_id, left):
    assert envs.without_render_mode(env_id) == left
