"""`pmoe diff` on the real command line: what it shows, counts, and refuses."""

import contextlib
import os
import pty
import re
import subprocess
from difflib import SequenceMatcher

import pytest
from common import PMOE, refused
from runs_on_disk import edit, make, put, set_arg

from pmoe.algorithms import file_of

SIBLINGS = ["gating-sac", "mcp-sac", "gumbel-sac", "reinforce-sac", "mrp-sac", "amortized-sac"]


def numbered(name: str) -> dict[int, str]:
    """The lines of an algorithm's file, without the marks of copied blocks"""
    lines = {}
    for number, line in enumerate(file_of(name).read_text().splitlines(), 1):
        if not re.match(r" *# Copied from ", line):
            lines[number] = re.sub(r"  # Copied from \S+$", "", line)
    return lines


def lines_of(name: str) -> list[str]:
    return list(numbered(name).values())


def counts(line: str) -> tuple[int, ...]:
    """Lines removed, added, the same"""
    found = re.search(r"lines removed: (\d+), added: (\d+), the same: (\d+)$", line)
    return tuple(map(int, found.groups()))


def signed(lines: list[str], signs: str) -> list[str]:
    """The lines with one of the signs, without it"""
    return [line[2:] for line in lines if line[:1] in signs]


def test_shows_the_method_and_nothing_that_is_copied(pmoe):
    result = pmoe("diff", "sac", "mrp-sac")
    head, *lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert result.stderr == ""
    assert head.startswith("sac -> mrp-sac: ")
    assert any(line.startswith("+ def marginal_loss(") for line in lines)
    assert any(line.startswith("- def frequency_loss(") for line in lines)
    assert any(line.startswith("Agent.policy_loss, line ") for line in lines)
    assert "Copied from" not in result.stdout
    assert "\x1b" not in result.stdout
    changed = [line for line in lines if line.startswith(("-", "+"))]
    for copied in ("class Runs", "class Envs", "def train", "def update", "class ReplayBuffer"):
        assert not any(copied in line for line in changed)
    for copied in ("class Runs", "class Envs", "def evaluate"):
        assert copied not in result.stdout


def test_both_files_can_be_read_from_it(pmoe):
    result = pmoe("diff", "sac", "gating-sac", "--context", 2000)
    _, blank, scope, *lines = result.stdout.splitlines()
    assert (blank, scope) == ("", "top level, line 1")
    assert signed(lines, " -") == lines_of("sac")
    assert signed(lines, " +") == lines_of("gating-sac")


def test_names_the_place_of_a_change(pmoe):
    result = pmoe("diff", "sac", "mrp-sac", "--context", 0)
    changed = numbered("mrp-sac")
    names = []
    for block in result.stdout.split("\n\n")[1:]:
        place, *lines = block.rstrip("\n").split("\n")
        name, number = re.fullmatch(r"(.*), line (\d+)", place).groups()
        names.append(name)
        added = signed(lines, "+")
        following = [line for at, line in changed.items() if at >= int(number)]
        assert following[: len(added)] == added
    assert "Agent.policy_loss" in names


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_changes_little_and_stat_counts_as_difflib_does(pmoe, name):
    result = pmoe("diff", "sac", name, "--stat")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 1
    removed, added, same = counts(result.stdout.strip())
    old = lines_of("sac")
    new = lines_of(name)
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    assert same == sum(block.size for block in blocks)
    assert (removed + same, added + same) == (len(old), len(new))
    assert 0 < removed + added < 240


def test_side_by_side(pmoe):
    plain = pmoe("diff", "sac", "mrp-sac").stdout.splitlines()
    result = pmoe("diff", "sac", "mrp-sac", "--side-by-side", env=os.environ | {"COLUMNS": "260"})
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert lines[0] == plain[0]
    left = [line[:130].rstrip() for line in lines]
    right = [line[130:].rstrip() for line in lines]
    for sign, column in (("-", left), ("+", right)):
        changed = [line.rstrip() for line in signed(plain, sign)]
        assert changed
        assert set(changed) <= set(column)


def test_a_narrow_terminal_folds_lines_and_loses_none(pmoe):
    result = pmoe("diff", "sac", "mrp-sac", "-y", env=os.environ | {"COLUMNS": "60"})
    left = "".join(line[:30].rstrip() for line in result.stdout.splitlines())
    line = "def frequency_loss(log_w: Tensor, best: Tensor) -> Tensor:"
    assert re.sub(r"\s", "", line) in re.sub(r"\s", "", left)


def test_a_fork_is_compared_by_its_file(pmoe, tmp_path):
    text = file_of("sac").read_text()
    fork = text.replace("(alpha * log_prob - q).sum(-1)", "(alpha * log_prob - 2 * q).sum(-1)")
    tmp_path.joinpath("fork.py").write_text(fork)
    length = len(text.splitlines())
    result = pmoe("diff", "sac", "fork.py")
    head = result.stdout.splitlines()[0]
    assert counts(head) == (1, 1, length - 1)
    assert "\nprimitive_loss, line " in result.stdout
    assert "+     return (alpha * log_prob - 2 * q).sum(-1)" in result.stdout
    same = pmoe("diff", "fork.py", "fork.py")
    assert counts(same.stdout.strip()) == (0, 0, length)


def test_a_fork_is_found_by_its_name(pmoe_here, tmp_path):
    """The file in this folder; a name of the project's stays that."""
    tmp_path.joinpath("my_idea.py").write_text("x = 1\n")
    tmp_path.joinpath("sac.py").write_text("x = 2\n")
    shown = pmoe_here("diff", "my_idea", "my_idea.py", "--stat").stdout
    assert counts(shown.strip()) == (0, 0, 1)
    assert shown.startswith("my_idea.py -> my_idea.py: ")
    assert counts(pmoe_here("diff", "sac", "my_idea", "--stat").stdout.strip())[2] == 0
    refused(pmoe_here("diff", "sac", "my_ide"), "'my_ide' is neither")


def two_runs(tmp_path, sources) -> list[str]:
    """Run directories, the second with another K, whose config.json has hashes of `sources`"""
    words = []
    for seed, source in enumerate(sources, 1):
        path = make(tmp_path, seed=1, k=seed)
        words.append(str(path.relative_to(tmp_path)))
        set_arg("source", source)(path)
        set_arg("versions", {"torch": "2.13.0", "numpy": f"2.{seed}"})(path)
        set_arg("command", [str(seed)])(path)
    return words


def test_runs_differ_in_options_and_code(pmoe_here, tmp_path):
    a, b = two_runs(tmp_path, ["abc", "def"])
    tmp_path.joinpath(a, "source.py").write_text("x = 1\ny = 2\n")
    tmp_path.joinpath(b, "source.py").write_text("x = 1\ny = 3\n")
    result = pmoe_here("diff", a, b)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.returncode == 0
    assert lines[:2] == [["A:", a], ["B:", b]]
    assert lines[3:6] == [["--k", "1", "2"], ["source", "abc", "def"], ["numpy", "2.1", "2.2"]]
    assert counts(result.stdout.splitlines()[6]) == (1, 1, 1)
    assert "- y = 2\n+ y = 3\n" in result.stdout
    tmp_path.joinpath("mine.py").write_text("x = 1\n")
    assert counts(pmoe_here("diff", a, "mine", "--stat").stdout.strip()) == (1, 0, 1)


@pytest.mark.parametrize(
    "sources, told",
    [
        (["abc", "abc"], "the code is the same; no source.py in"),
        (["abc", "def"], "the code differs; no source.py in"),
        (["abc", None], "it is not known whether the code is the same; no source.py in"),
    ],
)
def test_runs_that_keep_no_source(pmoe_here, tmp_path, sources, told):
    a, b = two_runs(tmp_path, sources)
    for path, source in zip((a, b), sources):
        if source is None:
            edit("config.json", '"source"', '"other"')(tmp_path / path)
    result = pmoe_here("diff", a, b)
    assert result.returncode == 0
    assert f"{told} {a} and {b}\n" in result.stdout
    refused(pmoe_here("diff", "sac", a), f"{a} keeps no source.py")


def test_the_same_run_and_a_damaged_one(pmoe_here, tmp_path):
    a, b = two_runs(tmp_path, ["abc", "abc"])
    assert "the options are the same\n" in pmoe_here("diff", a, a).stdout
    put("config.json", "{")(tmp_path / b)
    refused(pmoe_here("diff", a, b), f"{b}/config.json is not the config.json of a run")


def test_the_name_of_a_fork_stands_as_it_is(pmoe, tmp_path):
    tmp_path.joinpath("my[fork].py").write_text("x = 1\n")
    shown = pmoe("diff", "my[fork].py", "my[fork].py", "--stat").stdout
    assert shown.startswith("my[fork].py -> my[fork].py: ")


@pytest.mark.parametrize(
    "words, message",
    [
        (["sac", "mpr-sac"], ["'mpr-sac'", "nearest: ", "mrp-sac"]),
        (["sca", "sac"], ["'sca'", "nearest: "]),
        (["sac", "nothing.py"], ["'nothing.py'", "neither an algorithm nor a file"]),
        (["sac", "."], ["'.'"]),
        (["sac"], ["'B'"]),
        (["sac", "ppo", "--context", "-1"], ["--context"]),
        (["sac", "ppo", "--contxt", "1"], ["--contxt"]),
    ],
)
def test_bad_input(pmoe, words, message):
    refused(pmoe("diff", *words), *message)


@pytest.mark.parametrize("content", [b"def f(:\n", b"\x89PNG\xff\xfe\x00"], ids=["no-python", "no-text"])
def test_a_file_that_is_no_python_is_no_traceback(pmoe, tmp_path, content):
    tmp_path.joinpath("fork.py").write_bytes(content)
    result = pmoe("diff", "sac", "fork.py")
    if result.returncode:  # a fork that does not parse yet may as well be shown
        refused(result, "fork.py")
    assert "Traceback" not in result.stderr


def read_all(end: int) -> str:
    """What is written to a terminal, until its other end is closed, for which Linux has an error"""
    output = b""
    with contextlib.suppress(OSError):
        for chunk in iter(lambda: os.read(end, 65536), b""):
            output += chunk
    return output.decode().replace("\r", "")


def in_terminal(*words) -> str:
    """What `pmoe WORDS` prints to a terminal"""
    terminal, end = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        env.pop(name, None)
    with subprocess.Popen([PMOE, *words], stdout=end, stderr=end, env=env) as process:
        os.close(end)
        output = read_all(terminal)
    os.close(terminal)
    assert process.returncode == 0
    return output


def test_colour_on_a_terminal_alone(pmoe):
    shown = in_terminal("diff", "sac", "mrp-sac")
    plain = pmoe("diff", "sac", "mrp-sac").stdout
    assert "\x1b[32m+ def marginal_loss" in shown
    assert "\x1b[31m- def frequency_loss" in shown
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == plain
    assert "\x1b" not in plain
