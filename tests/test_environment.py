"""`pmoe plot --environment`: what the picture of a layout and of a frame show, and what is refused."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from common import Toy, refused
from common_figures import PICTURE, files_of, names_of, stdout_of
from matplotlib.patches import Circle

from pmoe.envs.target_reaching import START, TargetReaching
from pmoe.plots import environment
from pmoe.plots.runs import PlotError


class Painted(Toy):
    """Renders a picture of what its reset drew."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012

    def __init__(self, render_mode=None, flat=False):
        super().__init__()
        self.render_mode = render_mode
        self.flat = flat

    def render(self):
        shade = np.uint8(abs(self.noise) * 50)
        return np.full((4,) if self.flat else (6, 8, 3), shade)


gym.register("Painted-v0", Painted)


@pytest.fixture
def renders(monkeypatch):
    """As if a process had tried it: it knows no environments of a test's."""
    monkeypatch.setattr(environment, "choose_renderer", lambda env_id: "")


# Target-reaching


@pytest.mark.parametrize("env, seed", [("TargetReaching-v0", 4), ("TargetReaching-v0,fixed_layout=2", 0)])
def test_a_layout_is_drawn(tmp_path, drawn, env, seed):
    files = environment.report(env, tmp_path, seed)
    stem = f"environment-{env.replace(',', '-').replace('=', '')}"
    assert names_of(files) == files_of(stem, PICTURE)
    world = TargetReaching(fixed_layout=2 if "fixed" in env else None)
    world.reset(seed=seed)
    (ax,) = drawn[0].axes
    circles = [(*patch.center, patch.radius) for patch in ax.patches if isinstance(patch, Circle)]
    assert circles == [(*world.target, 0.5), *zip(*world.centres.T, world.radii)]
    (region,) = [patch for patch in ax.patches if patch.get_label() == "target region"]
    assert region.get_bbox().extents.tolist() == [0, 0, 3, 3]
    assert [line.get_xydata().tolist() for line in ax.lines] == [[START.tolist()]]
    names = [text.get_text() for text in ax.get_legend().texts]
    assert names == ["agent", "target", "obstacle", "target region"]


def test_a_layout_without_obstacles(tmp_path, drawn):
    environment.report("TargetReaching-v0,obstacles=0", tmp_path)
    (ax,) = drawn[0].axes
    assert "obstacle" not in [text.get_text() for text in ax.get_legend().texts]


# Any other


def test_a_frame_is_that_of_the_reset_with_this_seed(renders, tmp_path, drawn):
    shades = []
    for seed in (1, 2):
        environment.report("Painted-v0", tmp_path, seed)
        env = Painted()
        env.reset(seed=seed)
        image = drawn[-1].axes[0].images[0].get_array()
        assert (image == env.render()).all()
        shades.append(image[0, 0, 0])
    assert shades[0] != shades[1]


def test_what_is_no_picture_is_refused(renders, tmp_path, drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one line is all
        with pytest.raises(PlotError, match="Painted-v0,flat=True: what it renders is no picture"):
            environment.report("Painted-v0,flat=True", tmp_path)
    assert not drawn


# From the command line


def test_a_picture_needs_no_runs(pmoe_here, tmp_path):
    out = stdout_of(pmoe_here("plot", "--environment", "TargetReaching-v0", "--seed", "3", "--out", "here"))
    assert "wrote here/environment-TargetReaching-v0.png" in out
    assert (tmp_path / "here/environment-TargetReaching-v0.png").stat().st_size < 200_000


@pytest.mark.parametrize(
    "env, word",
    [
        ("Nowhere-v0", "Nowhere"),
        ("", "ID"),
        ("no_such_module:X-v0", "does not import"),
        ("TargetReaching-v0,obstacles=-1", "from 0 up"),
        ("TargetReaching-v0,obstacles=many", "obstacles=many"),
        ("TargetReaching-v0,speed=1", "speed"),
    ],
)
def test_there_is_no_such_environment(pmoe_here, tmp_path, env, word):
    refused(pmoe_here("plot", "--environment", env), "--environment", word)
    assert not list(tmp_path.iterdir())


def test_a_seed_without_an_environment_is_refused(pmoe_here, tmp_path):
    refused(pmoe_here("plot", "--estimators", "--seed", 3), "--seed is for --environment")
    assert not list(tmp_path.iterdir())


def test_an_environment_that_does_not_render(pmoe_here, tmp_path, monkeypatch):
    """Its reason is told as the process that tried it told it"""
    monkeypatch.setattr(environment, "choose_renderer", lambda env_id: "no display")
    refused(pmoe_here("plot", "--environment", "Pendulum-v1"), "Pendulum-v1 does not render (no display)")
    assert not list(tmp_path.iterdir())
