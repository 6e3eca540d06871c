"""`pmoe diff` on the real command line: what it shows, counts, and refuses."""

import os
import pty
import re
import subprocess
from difflib import SequenceMatcher

import pytest
from common import PMOE, ROOT, refused

SIBLINGS = ["gating-sac", "mcp-sac", "gumbel-sac", "reinforce-sac", "mrp-sac"]


def lines_of(name):
    """Of an algorithm's file, without the marks of copied blocks"""
    path = ROOT / ("pmoe_sac.py" if name == "sac" else f"baselines/{name.replace('-', '_')}.py")
    return [re.sub(r"  # Copied from [\w.]+$", "", line) for line in path.read_text().splitlines()]


def counts(line):
    return tuple(map(int, re.search(r"lines removed: (\d+), added: (\d+), the same: (\d+)$", line).groups()))


def test_shows_the_method_and_nothing_that_is_copied(pmoe):
    result = pmoe("diff", "sac", "mrp-sac")
    head, *lines = result.stdout.splitlines()
    assert result.returncode == 0 and result.stderr == "" and head.startswith("sac -> mrp-sac: ")
    assert "+ def marginal_loss(log_w: Tensor, log_prob: Tensor, q: Tensor, alpha) -> Tensor:" in lines
    assert "- def frequency_loss(log_w: Tensor, best: Tensor) -> Tensor:" in lines
    assert any(line.startswith("Agent.policy_loss, line ") for line in lines)
    assert "Copied from" not in result.stdout and "\x1b" not in result.stdout
    for copied in ("class Runs", "class Envs", "def train", "def minimize", "def update", "class ReplayBuffer"):
        assert not re.search(rf"^[-+] .*{copied}", result.stdout, re.MULTILINE)
    for copied in ("class Runs", "class Envs", "def evaluate", "buffer.rows"):
        assert copied not in result.stdout


def test_both_files_can_be_read_from_it(pmoe):
    result = pmoe("diff", "sac", "gating-sac", "--context", 1000)
    _, blank, scope, *lines = result.stdout.splitlines()
    assert (blank, scope) == ("", "top level, line 1")
    assert [line[2:] for line in lines if line[0] in " -"] == lines_of("sac")
    assert [line[2:] for line in lines if line[0] in " +"] == lines_of("gating-sac")


def test_names_the_place_of_a_change(pmoe):
    result = pmoe("diff", "sac", "mrp-sac", "--context", 0)
    ours, at = lines_of("mrp-sac"), None
    for block in result.stdout.split("\n\n")[1:]:
        place, *lines = block.rstrip("\n").split("\n")
        name, at = re.fullmatch(r"(.*), line (\d+)", place).groups()
        added = [line[2:] for line in lines if line[0] == "+"]
        assert ours[int(at) - 1 :][: len(added)] == added
    assert at and name.startswith("Agent.")


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_changes_little_and_stat_counts_as_difflib_does(pmoe, name):
    result = pmoe("diff", "sac", name, "--stat")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 1
    removed, added, same = counts(result.stdout.strip())
    blocks = SequenceMatcher(None, lines_of("sac"), lines_of(name), autojunk=False).get_matching_blocks()
    assert same == sum(block.size for block in blocks)
    assert (removed + same, added + same) == (len(lines_of("sac")), len(lines_of(name)))
    assert 0 < removed + added < 120


def test_side_by_side(pmoe):
    plain = pmoe("diff", "sac", "mrp-sac").stdout.splitlines()
    result = pmoe("diff", "sac", "mrp-sac", "--side-by-side", env=os.environ | {"COLUMNS": "260"})
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and lines[0] == plain[0]
    left, right = ([line[a:b].rstrip() for line in lines] for a, b in ((0, 130), (130, 260)))
    assert [line[2:] for line in plain if line.startswith("- ")] != []
    for sign, column in (("-", left), ("+", right)):
        for line in plain:
            assert line[:1] != sign or line[2:].rstrip() in column


def test_a_narrow_terminal_folds_lines_and_loses_none(pmoe):
    result = pmoe("diff", "sac", "mrp-sac", "-y", env=os.environ | {"COLUMNS": "60"})
    left = "".join(line[:30].rstrip() for line in result.stdout.splitlines())
    assert re.sub(r"\s", "", "def frequency_loss(log_w: Tensor, best: Tensor) -> Tensor:") in re.sub(r"\s", "", left)


def test_a_fork_is_compared_by_its_file(pmoe, tmp_path):
    text = (ROOT / "pmoe_sac.py").read_text()
    fork = text.replace("(alpha * log_prob - q).sum(-1)", "(alpha * log_prob - 2 * q).sum(-1)")
    tmp_path.joinpath("fork.py").write_text(fork)
    result = pmoe("diff", "sac", "fork.py")
    assert counts(result.stdout.splitlines()[0]) == (1, 1, len(text.splitlines()) - 1)
    assert "\nprimitive_loss, line " in result.stdout
    assert "+     return (alpha * log_prob - 2 * q).sum(-1)" in result.stdout
    assert counts(pmoe("diff", "fork.py", "fork.py").stdout.strip()) == (0, 0, len(text.splitlines()))


def test_the_name_of_a_fork_stands_as_it_is(pmoe, tmp_path):
    tmp_path.joinpath("my[fork].py").write_text("x = 1\n")
    assert pmoe("diff", "my[fork].py", "my[fork].py", "--stat").stdout.startswith("my[fork].py -> my[fork].py: ")


@pytest.mark.parametrize(
    "words, said",
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
def test_bad_input(pmoe, words, said):
    refused(pmoe("diff", *words), *said)


@pytest.mark.parametrize("content", [b"def f(:\n", b"\x89PNG\xff\xfe\x00"], ids=["no-python", "no-text"])
def test_a_file_that_is_no_python_is_no_traceback(pmoe, tmp_path, content):
    tmp_path.joinpath("fork.py").write_bytes(content)
    result = pmoe("diff", "sac", "fork.py")
    if result.returncode:  # a fork that does not parse yet may as well be shown
        refused(result, "fork.py")
    assert "Traceback" not in result.stderr


def in_terminal(*words):
    """What `pmoe WORDS` prints to a terminal"""
    ours, theirs = pty.openpty()
    env = {name: x for name, x in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "200"}
    with subprocess.Popen([PMOE, *words], stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        output = b""
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # Linux's word for the end
            pass
    os.close(ours)
    assert process.returncode == 0
    return output.decode().replace("\r", "")


def test_colour_on_a_terminal_alone(pmoe):
    shown, plain = in_terminal("diff", "sac", "mrp-sac"), pmoe("diff", "sac", "mrp-sac").stdout
    assert "\x1b[32m+ def marginal_loss" in shown and "\x1b[31m- def frequency_loss" in shown
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == plain and "\x1b" not in plain
