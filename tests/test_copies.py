"""What is the same in two algorithm files is the same letter for letter, marked as copied, and in the same place."""

import ast
import re
from dataclasses import fields
from itertools import combinations

import pytest
from common import MODULES, ROOT

from pmoe import cli

PATHS = sorted([*ROOT.glob("pmoe_*.py"), *ROOT.glob("baselines/[!_]*.py")], key=lambda x: (x.stem != "pmoe_sac", x))
ORIGINALS = ("pmoe_sac", "pmoe_ppo")
MARK = re.compile(r"  # Copied from (\w+)\.([\w.]+)$")


def top_level(path) -> dict[str, ast.stmt]:
    """Functions, classes and constants by their names, in order"""
    body = ast.parse(path.read_text()).body
    named = {node.targets[0].id: node for node in body if isinstance(node, ast.Assign)}
    named |= {node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return dict(sorted(named.items(), key=lambda item: item[1].lineno))


def blocks(path) -> dict[str, tuple[str, tuple | None]]:
    """The source of each function, class and method, and what it is marked as a copy of"""
    lines, found = path.read_text().splitlines(), {}
    for name, node in top_level(path).items():
        methods = {f"{name}.{x.name}": x for x in getattr(node, "body", ()) if isinstance(x, ast.FunctionDef)}
        for full_name, x in ({name: node} | (methods if isinstance(node, ast.ClassDef) else {})).items():
            if isinstance(x, (ast.FunctionDef, ast.ClassDef)):
                above = [lines[decorator.lineno - 1] for decorator in x.decorator_list]
                mark = MARK.search(lines[x.lineno - 1])
                source = [*above, MARK.sub("", lines[x.lineno - 1]), *lines[x.lineno : x.end_lineno]]
                found[full_name] = "\n".join(source), mark and mark.groups()
    return found


BLOCKS = {path.stem: blocks(path) for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_marked_as_a_copy_is_one(path):
    copies = {name: (source, mark) for name, (source, mark) in BLOCKS[path.stem].items() if mark}
    for name, (source, (file, original)) in copies.items():
        assert BLOCKS[file].get(original) == (source, None), name
    assert len(copies) == path.read_text().count("Copied from")  # none stands where it is not read
    assert bool(copies) == (path.stem != "pmoe_sac")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_the_same_is_marked(path):
    mine = BLOCKS[path.stem]
    for original in ORIGINALS[: ORIGINALS.index(path.stem) if path.stem in ORIGINALS else None]:
        for name, (source, mark) in mine.items():
            marked = mark or mine[name.split(".")[0]][1]  # itself or its class
            long = len(source.splitlines()) > 3
            assert marked or not long or BLOCKS[original].get(name, ("",))[0] != source, f"{name}: as in {original}"


def test_the_sections_stand_in_the_same_order():
    for a, b in combinations(map(top_level, PATHS), 2):
        assert [name for name in a if name in b] == [name for name in b if name in a]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_file_has_the_same_names_and_constants(path):
    mine, first = top_level(path), top_level(PATHS[0])
    assert {"Args", "Actor", "train", "load_actor"} <= mine.keys()
    assert ast.dump(mine["CSV"]) == ast.dump(first["CSV"])
    free, known = (ast.literal_eval(x["FREE"].value) for x in (mine, first))
    assert free == tuple(name for name in known if name != "keep_replay" or "ReplayBuffer" in mine)


def test_every_algorithm_file_is_known_to_the_command_line():
    assert {path.stem for path in PATHS} == {file.split(".")[-1] for file in cli.ALGORITHMS.values()}


def test_generic_options_are_the_same(algo):
    ours, first = ({x.name: (x.type, x.default) for x in fields(MODULES[x].Args)} for x in (algo, "sac"))
    generic = list(first)[: list(first).index("track") + 1]
    if "num_steps" in ours:  # PPO's family has no replay to keep
        generic.remove("keep_replay")
    assert list(ours)[: len(generic)] == generic
    assert {name for name in generic if ours[name] != first[name]} <= {"env_id", "k"}
