"""Environments by their name with options."""

import gymnasium as gym
import pytest
from common import MODULES
from gymnasium.error import NameNotFound

from pmoe import envs
from pmoe.envs.target_reaching import TargetReaching


def test_options():
    world = envs.make("TargetReaching-v0,fixed_layout=2,obstacles=5,max_episode_steps=7")
    assert isinstance(world.unwrapped, TargetReaching)
    assert world.unwrapped.fixed_layout == 2
    assert world.unwrapped.obstacles == 5
    assert world.spec.max_episode_steps == 7


@pytest.mark.parametrize("text, value", [("None", None), ("1", 1), ("2e-1", 0.2), ("-1.5", -1.5)])
def test_values(monkeypatch, text, value):
    options = {}
    monkeypatch.setattr(gym, "make", lambda name, **given: options.update(given))
    envs.make(f"Any-v0,first={text},other='a,b',last=True")
    assert options == {"first": value, "other": "a,b", "last": True}


NAMES = ["Any-v0", "a:Any/Env-v0,k=2", "Any-v0,text='a,b=1',none=None", "Any-v0,x=-2e-3,flag=False"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("module", [MODULES["sac"], MODULES["ppo"]])
def test_names_are_read_as_the_algorithms_files_read_them(monkeypatch, name, module):
    monkeypatch.setattr(gym, "make", lambda name, **options: (name, options))
    assert envs.make(name, render_mode="x") == module.make_env(name, render_mode="x")


def test_keywords_too():
    world = envs.make("TargetReaching-v0,obstacles=1", render_mode="rgb_array")
    assert world.unwrapped.render_mode == "rgb_array"


def test_an_environment_of_another_module():
    world = envs.make("common:ToyTerminates-v0,length=3")
    assert world.unwrapped.length == 3


def test_what_is_no_value():
    with pytest.raises(ValueError, match="obstacles=three is not a number"):
        envs.make("TargetReaching-v0,obstacles=three")


def test_what_there_is_not():
    with pytest.raises(NameNotFound, match="TargetReaching"):
        envs.make("TargetReachin-v0")
