"""How methods look: the same in every figure, and no two alike"""

import numpy as np
import pytest
from common import ALGORITHMS
from runs_on_disk import make

from pmoe.plots import runs, style


def looks_of(root, *ks, algos=("sac",), **fields) -> dict[str, tuple]:
    """The looks of methods, as a key each"""
    for algo in algos:
        for k in ks:
            make(root, algo, k=k, **fields)
    found, _ = runs.find([root])
    keys = {}
    for name, look in style.styles(found).items():
        colour = np.round(look["color"], 3)
        keys[name] = (*colour, look["linestyle"], look["marker"], look.get("markerfacecolor"))
    return keys


def test_a_method_looks_the_same_in_every_figure(tmp_path):
    few = looks_of(tmp_path / "few", 1, 8)
    many = looks_of(tmp_path / "many", 1, 2, 4, 8, 16, algos=[*ALGORITHMS, "my_idea"], env_id="Ant-v5")
    assert len(few) == 2
    for name, look in few.items():
        assert look == many[name]


@pytest.mark.parametrize("setting", [{"tag": "mine"}, {"gamma": 0.9}, {"gamma": 0.9, "tau": 0.1}])
def test_a_variant_beside_it_does_not_change_how_a_method_looks(tmp_path, setting):
    (alone,) = looks_of(tmp_path, 4).values()
    beside = list(looks_of(tmp_path, 4, **setting).values())
    assert len(beside) == 2
    assert alone in beside


@pytest.mark.parametrize(
    "algos, ks",
    [
        (ALGORITHMS, [1, 2, 4, 8, 10, 14, 16]),
        (["sac"], range(1, 17)),
        (["one_fork", "another", "my_idea", "idea2", "idea3", "entropy"], [4]),
    ],
    ids=["the paper's", "every K", "forks"],
)
def test_no_two_methods_look_alike(tmp_path, algos, ks):
    found = looks_of(tmp_path, *ks, algos=algos)
    assert len(found) == len(algos) * len(ks)
    assert len(set(found.values())) == len(found)


def test_variants_do_not_look_alike(tmp_path):
    for rate in (1e-3, 3e-4, 1e-4, 3e-5):
        found = looks_of(tmp_path, 1, 4, learning_rate=rate)
    assert len(found) == 8
    assert len(set(found.values())) == 8


def test_settings_of_one_method_differ_in_colour_dash_and_marker(tmp_path):
    for i, rate in enumerate((1e-3, 3e-4, 1e-4, 3e-5)):
        found = looks_of(tmp_path, 4, learning_rate=rate, seed=i)
    assert len(found) == 4
    for part in (slice(0, 3), slice(3, 4), slice(4, 5)):
        assert len({look[part] for look in found.values()}) == 4


def test_what_a_method_is_called_does_not_change_how_it_looks(tmp_path):
    make(tmp_path)
    make(tmp_path, gamma=0.9)
    found, _ = runs.find([tmp_path])
    before = list(style.styles(found).values())
    runs.relabel(found, ["PMOE-SAC K=4 gamma=0.9=A", "PMOE-SAC K=4 gamma=0.99=B"])
    after = style.styles(found)
    assert list(after) == ["A", "B"]
    assert list(after.values()) == before


def test_long_words_are_broken_after_a_mark():
    text = "PMOE-SAC K=4 a_tag_of_many_words_that_goes_on learning_rate=0.1"
    lines = style.wrapped(text, 20).splitlines()
    assert lines == ["PMOE-SAC K=4", "a_tag_of_many_words_", "that_goes_on", "learning_rate=0.1"]
    assert style.wrapped("x" * 30, 20).splitlines() == ["x" * 20, "x" * 10]
    assert style.wrapped("_a $b", 20) == r" _a \$b"


def test_forks_of_one_name_do_not_look_alike(tmp_path):
    for folder in ("one", "other"):
        make(tmp_path / folder, "my_idea", file=f"/home/{folder}/my_idea.py")
    looks = looks_of(tmp_path)
    assert looks["my_idea K=4 one"] != looks["my_idea K=4 other"]


def test_methods_are_told_apart_without_colour():
    """By dashes and markers, full or hollow; in a family, colours differ, too."""
    looks = [(dash, marker) for _, dash, marker in style.STYLES.values()]
    assert len(set(looks)) == len(looks)
    names = list(style.STYLES)
    first_of_ppo = names.index("PPO")
    for family in (names[:first_of_ppo], names[first_of_ppo:]):
        colours = [style.STYLES[name][0] for name in family]
        assert len(set(colours)) == len(family)


@pytest.mark.parametrize("ks", [[2, 4, 8, 10, 14], [2, 3, 4, 5]])
def test_methods_and_their_k_are_told_apart_in_grey(tmp_path, ks):
    """By the method's marker, full or hollow, and the dashes of K"""
    looks_of(tmp_path, 1)
    found = looks_of(tmp_path, *ks, algos=ALGORITHMS)
    assert len(found) == 1 + len(ks) * len(ALGORITHMS)
    without_colour = [look[3:] for look in found.values()]
    assert len(set(without_colour)) == len(found)
    for method in ("PMOE-SAC", "Gating"):
        markers = {look[4] for name, look in found.items() if name.startswith(method)}
        assert len(markers) == 1
