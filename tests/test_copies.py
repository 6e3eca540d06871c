"""What is the same in two algorithm files is the same letter for letter.

Below the line THE SAME IN EVERY FILE stands one text for each family, whose lower half is the same in both.
Above it, what two files share is marked as copied, and stands in the same order.

    python tests/test_copies.py --write

copies what stands below the line: the half that both families have from pmoe_sac.py to pmoe_ppo.py, and then
all of it from these two to their siblings.
"""

import ast
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
NEWEST = ROOT / "baselines/amortized_sac.py"  # last, so that no elder is marked as its copy
SAC = [ROOT / "pmoe_sac.py", *sorted(set(ROOT.glob("baselines/*_sac.py")) - {NEWEST}), NEWEST]
PPO = [ROOT / "pmoe_ppo.py", *sorted(ROOT.glob("baselines/*_ppo.py"))]
FILES = [SAC[0], PPO[0], *SAC[1:], *PPO[1:]]  # a copy names the first in this order that has the original

RULER = "# " + "=" * 108 + "\n"
LINE = RULER + "# THE SAME IN EVERY FILE"
SHARED = re.compile(r"^# -+ the (SAC|PPO) family has this too\n", re.MULTILINE)

LONGEST = 110
MARK = re.compile(r"^ *# Copied from \S+\n|  # Copied from \S+$", re.MULTILINE)
HEAD = re.compile(r" *(def|class) ")

NAMES = "ALGO FREE HEADERS Args Actor Agent Envs check fail load_actor make_env run_paths train write_whole"


def name(file: Path) -> str:
    return file.stem


each_file = pytest.mark.parametrize("file", FILES, ids=name)
each_family = pytest.mark.parametrize("family", [SAC, PPO], ids=["sac", "ppo"])


# Parts of a file


def method_of(file: Path) -> str:
    """What stands above the line"""
    method, _, _ = file.read_text().partition(LINE)
    return method


def machinery_of(file: Path) -> str:
    """The line, and what stands below it"""
    _, line, machinery = file.read_text().partition(LINE)
    return line + machinery


def halves_of(file: Path) -> tuple[str, str]:
    """The machinery that the family has, up to the heading of the other half, and what both families have"""
    machinery = machinery_of(file)
    heading = SHARED.search(machinery)
    assert heading, f"{file.name} has no line that matches {SHARED.pattern!r}"
    return machinery[: heading.end()], machinery[heading.end() :]


def definitions(text: str) -> dict[str, ast.stmt]:
    """Functions and classes by their names, as in Agent or Agent.update"""
    found = {}
    for node in ast.parse(text).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            continue
        found[node.name] = node
        for child in node.body:
            if isinstance(node, ast.ClassDef) and isinstance(child, ast.FunctionDef):
                found[f"{node.name}.{child.name}"] = child
    return found


def top_level(text: str) -> list[str]:
    """Names of functions, classes and constants, in order"""
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.append(node.name)
        if isinstance(node, ast.Assign):
            found += [target.id for target in node.targets]
    return found


# Blocks above the line, and their marks


class Block(NamedTuple):
    """A function, class or method"""

    text: str  # without marks
    written: str  # as it stands in the file
    original: str | None  # which its mark names


def source(node: ast.stmt, lines: list[str]) -> str:
    """The lines of a definition, from its decorators on, and from a mark above these"""
    first = min(child.lineno for child in [node, *node.decorator_list])
    above = lines[first - 2]
    if MARK.fullmatch(above + "\n"):
        first -= 1
    return "\n".join(lines[first - 1 : node.end_lineno])


def mark_of(written: str) -> str | None:
    """What the mark above a definition, or at the end of its line of `def` or `class`, names"""
    lines = written.splitlines()
    heads = [line for line in lines if HEAD.match(line)]
    for line in (lines[0], heads[0]):
        _, mark, original = line.partition("# Copied from ")
        if mark:
            return original
    return None


def blocks(file: Path) -> dict[str, Block]:
    text = method_of(file)
    lines = text.splitlines()
    found = {}
    for full_name, node in definitions(text).items():
        written = source(node, lines)
        found[full_name] = Block(MARK.sub("", written), written, mark_of(written))
    return found


BLOCKS = {file.stem: blocks(file) for file in FILES}


def marked(text: str, original: str) -> str:
    """A definition with its mark: at the end of the line of `def` or `class` or, where that becomes too long,
    on a line of its own above it and its decorators"""
    lines = text.splitlines()
    is_head = [bool(HEAD.match(line)) for line in lines]
    head = is_head.index(True)
    beside = f"{lines[head]}  # Copied from {original}"
    if len(beside) <= LONGEST:
        lines[head] = beside
    else:
        indent = re.match(" *", text)[0]
        lines.insert(0, f"{indent}# Copied from {original}")
    return "\n".join(lines)


def first_with(full_name: str, text: str) -> str:
    """The first file in whose method a definition stands with this name and text"""
    for stem, found in BLOCKS.items():
        if full_name in found and found[full_name].text == text:
            return stem
    raise KeyError(full_name)


def is_in_a_copy(full_name: str, found: dict[str, Block]) -> bool:
    """Whether a method belongs to a class that is copied as a whole"""
    owner, dot, _ = full_name.partition(".")
    return bool(dot) and found[owner].original is not None


@each_file
def test_what_is_marked_as_a_copy_is_one(file):
    copies = {}
    for full_name, block in BLOCKS[file.stem].items():
        if block.original:
            copies[full_name] = block
    for full_name, block in copies.items():
        stem, _, original = block.original.partition(".")
        assert block.text == BLOCKS[stem][original].text, full_name
        assert block.written == marked(block.text, block.original), full_name
    # No mark stands where it is not read.
    assert len(copies) == file.read_text().count("Copied from")


@each_file
def test_what_is_the_same_is_marked(file):
    found = BLOCKS[file.stem]
    for full_name, block in found.items():
        length = len(block.text.splitlines())
        if length <= 3 or is_in_a_copy(full_name, found):
            continue
        first = first_with(full_name, block.text)
        expected = None if first == file.stem else f"{first}.{full_name}"
        assert block.original == expected, full_name


def test_the_mark_of_a_long_line_stands_above_it():
    short = "def f(x):\n    return x"
    assert marked(short, "file.f") == "def f(x):  # Copied from file.f\n    return x"
    method = f"    @property\n    def {'f' * 90}(self):\n        return 1"
    assert marked(method, "file.f") == f"    # Copied from file.f\n{method}"
    for text in (short, method):
        assert MARK.sub("", marked(text, "file.f")) == text


# Below the line


@each_family
def test_the_machinery_is_one_text(family):
    for file in family:
        assert machinery_of(file) == machinery_of(family[0]), f"run {Path(__file__).name} --write"


def test_half_of_the_machinery_is_that_of_both_families():
    own, shared = halves_of(SAC[0])
    other, shared_too = halves_of(PPO[0])
    assert shared == shared_too
    # What has the same name in the other halves is the same too, apart from these.
    differ = set()
    theirs = definitions(other)
    for full_name, node in definitions(own).items():
        if full_name in theirs and "." not in full_name:
            text = ast.get_source_segment(own, node)
            if text != ast.get_source_segment(other, theirs[full_name]):
                differ.add(full_name)
    assert differ == {"Linear", "Adam", "memory_needed"}


# Order, names and options


def test_the_sections_stand_in_the_same_order():
    for a, b in combinations(FILES, 2):
        names = top_level(method_of(a))
        others = top_level(method_of(b))
        common = [x for x in names if x in others]
        assert common == [x for x in others if x in names], f"{a.name}, {b.name}"


@each_file
def test_every_file_has_the_same_headings(file):
    headings = re.findall(r"^# -+ (.+)$", method_of(file), re.MULTILINE)
    assert headings == ["networks", "densities and losses", "agent", "training loop"]


@each_file
def test_every_file_offers_the_same_names(file):
    assert set(NAMES.split()) <= set(top_level(file.read_text()))


def test_every_algorithm_file_is_known_to_the_command_line():
    from pmoe.algorithms import ALGORITHMS, file_of

    files = {file_of(algo).resolve() for algo in ALGORITHMS}
    assert files == {file.resolve() for file in FILES}


def generic_options(file: Path) -> dict[str, ast.AnnAssign]:
    """The options that every file has, by their names"""
    method = method_of(file)
    lines = method.splitlines()
    last = lines.index("    # This algorithm")
    found = {}
    for node in definitions(method)["Args"].body:
        if isinstance(node, ast.AnnAssign) and node.lineno <= last:
            found[node.target.id] = node
    return found


def options_as_written(file: Path) -> dict[str, str]:
    """The lines of each generic option, comments included"""
    lines = method_of(file).splitlines()
    found = {}
    for option, node in generic_options(file).items():
        found[option] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
    return found


def types_and_defaults(file: Path) -> dict[str, tuple[str, str]]:
    """Of the generic options"""
    found = {}
    for option, node in generic_options(file).items():
        found[option] = (ast.unparse(node.annotation), ast.unparse(node.value))
    return found


@each_family
def test_generic_options_are_the_same_letter_for_letter(family):
    first = options_as_written(family[0])
    for file in family:
        options = options_as_written(file)
        assert list(options) == list(first)
        differ = {option for option in options if options[option] != first[option]}
        assert differ <= {"env_id", "k"}, file.name


@each_file
def test_generic_options_have_one_type_and_default(file):
    options = types_and_defaults(file)
    first = types_and_defaults(SAC[0])
    if file in PPO:
        del first["keep_replay"]  # there is no replay
    assert list(options) == list(first)
    differ = {option for option in options if options[option] != first[option]}
    assert differ <= {"env_id", "k"}


# Copying


def write(sac: list[Path], ppo: list[Path]) -> None:
    """Copies what stands below the line: the shared half to the other family, then all to the siblings."""
    own, _ = halves_of(ppo[0])
    _, shared = halves_of(sac[0])
    ppo[0].write_text(method_of(ppo[0]) + own + shared)
    for family in (sac, ppo):
        machinery = machinery_of(family[0])
        for file in family[1:]:
            file.write_text(method_of(file) + machinery)


def test_write_copies_what_stands_below_the_line(tmp_path):
    families = []
    for family in (SAC, PPO):
        copies = [tmp_path / file.name for file in (family[0], family[-1])]
        for copy in copies:
            copy.write_text(family[0].read_text())
        families.append(copies)
    sac, ppo = families
    methods = [f"# {file.name}\n" for file in (sac[1], ppo[1])]
    for file, method in zip((sac[1], ppo[1]), methods):
        file.write_text(method + machinery_of(file))
    own, shared = halves_of(sac[0])
    changed = shared.replace("def write_whole", "def write_wholly")
    sac[0].write_text(method_of(sac[0]) + own + changed)

    write(sac, ppo)
    for family, parent, method in zip(families, (SAC[0], PPO[0]), methods):
        half, _ = halves_of(parent)
        assert family[0].read_text() == method_of(parent) + half + changed
        assert family[1].read_text() == method + half + changed


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit(__doc__)
    write(SAC, PPO)
