"""That tests/fuzz.py runs, and sees what it is there to see; `.ci/run` has a whole minute of it."""

import subprocess
import sys
from pathlib import Path

import pytest
from common import ROOT

if sys.platform != "linux":
    pytest.skip("tests/fuzz.py is for Linux", allow_module_level=True)

import fuzz
from fuzz_inputs import Example

from pmoe import cli


@pytest.mark.slow
def test_a_few_seconds():
    command = [sys.executable, ROOT / "tests/fuzz.py", "--seconds", "5"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " runs\n" in result.stdout


def raises():
    raise KeyError("step")


def climbs():
    Path("../x").write_text("")


def changes_and_refuses():
    Path("runs").mkdir()
    refuses()


def refuses():
    print("error: no", file=sys.stderr)
    sys.exit(2)


def refuses_in_two_lines():
    print("warning: odd", file=sys.stderr)
    refuses()


@pytest.mark.parametrize(
    "command, wrong",
    [
        (climbs, "wrote outside its folder"),
        (refuses, None),
        (refuses_in_two_lines, "status 2, but not one line"),
        (changes_and_refuses, "status 2, but the folder has changed"),
        (lambda: sys.exit(3), "status 3"),
        (lambda: sys.exit(1), None),
        (lambda: bytearray(2**31).count(1), "more than 2 GB"),
    ],
)
def test_what_is_wrong(tmp_path, monkeypatch, command, wrong):
    monkeypatch.setattr(cli, "main", command)
    assert fuzz.try_out(Example([]), tmp_path / "0") == wrong


def test_a_traceback_is_told_by_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "main", raises)
    wrong = fuzz.try_out(Example([]), tmp_path / "0")
    assert wrong.startswith("traceback: KeyError in test_fuzz.py")


def test_a_command_that_hangs_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "main", lambda: Path("fifo").read_text())
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    assert fuzz.try_out(Example([]), tmp_path / "0") == "more than a minute"
