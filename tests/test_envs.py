"""Environments by their name with options."""

import pytest
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
    monkeypatch.setattr(envs.gym, "make", lambda name, **given: options.update(given))
    envs.make(f"Any-v0,first={text},other='a,b',last=True")
    assert options == {"first": value, "other": "a,b", "last": True}


def test_keywords_too():
    world = envs.make("TargetReaching-v0,obstacles=1", render_mode="rgb_array")
    assert world.unwrapped.render_mode == "rgb_array"


def test_an_environment_of_another_module():
    world = envs.make("common:ToyTerminates-v0,length=3")
    assert world.unwrapped.length == 3


def test_what_is_no_value():
    with pytest.raises(ValueError, match="obstacles=three is no number"):
        envs.make("TargetReaching-v0,obstacles=three")


def test_what_there_is_not():
    with pytest.raises(NameNotFound, match="TargetReaching"):
        envs.make("TargetReachin-v0")
