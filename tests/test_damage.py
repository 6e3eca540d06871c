"""Damaged run directories and files that are none: every command that reads them ends with 0, 1 or 2, and
says what is wrong in a line."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from common import PMOE, failed, refused
from common import checkpoint as newest_checkpoint
from runs_on_disk import HEADER, put, set_arg

from pmoe import cli, files
from pmoe.grid.read import state
from pmoe.plots import runs

DEEP = "[" * 100_000
DIGITS = "9" * 5000


@pytest.fixture
def run(quick_run, tmp_path) -> Path:
    """A copy of a run, to be damaged"""
    path = quick_run("sac")
    return Path(shutil.copytree(path, tmp_path / "runs" / Path(*path.parts[-3:])))


@pytest.fixture
def read_by_all(pmoe_here, monkeypatch, run):
    """Every command that reads a run: the results by its name, none of them a traceback"""
    monkeypatch.setattr(cli, "train", lambda module, args: None)
    commands = {
        "status": ["status", "runs"],
        "plot": ["plot", "runs", "--auc", "--routing", "--episodes", 1],
        "eval": ["eval", run, "--episodes", 1],
        "run": ["run", "--config", run / "config.json"],
    }

    def read() -> dict:
        results = {}
        for name, words in commands.items():
            result = pmoe_here(*words)
            assert result.returncode in (0, 1, 2), name
            errors = result.stderr.splitlines()
            assert len(errors) == (result.returncode == 2), result.stderr
            results[name] = result
        return results

    return read


def make_pipe(name: str):
    """Replaces a file by a pipe that nobody writes to."""

    def change(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return change


def link(name: str, target: str):
    """Replaces a file by a link to a device."""

    def change(path: Path) -> None:
        (path / name).unlink()
        (path / name).symlink_to(target)

    return change


def replaced(name: str, old: str, new: str):
    """Replaces text in a JSON file, also by what no JSON writer writes."""

    def change(path: Path) -> None:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))

    return change


CONFIGS = {
    "args is a list": set_arg("args", [1, 2]),
    "algo is a list": set_arg("algo", ["sac"]),
    "algo is empty": set_arg("algo", ""),
    "negative seed": set_arg("seed", -1),
    "huge seed": set_arg("seed", 10**30),
    "digits": replaced("config.json", '"seed": 1', f'"seed": {DIGITS}'),
    "seed is infinite": replaced("config.json", '"seed": 1', '"seed": Infinity'),
    "no primitive": set_arg("k", 0),
    "huge number of steps": set_arg("total_timesteps", 10**400),
    "tag is a number": set_arg("tag", 5),
    "half a character in the tag": set_arg("tag", "\ud800"),
    "half a character in the environment": set_arg("env_id", "Pendulum\udcff-v1"),
    "NUL in the environment": set_arg("env_id", "Pendulum-v1\0"),
    "a long environment": set_arg("env_id", "x" * 100_000),
    "NUL in the file": set_arg("file", "\0.py"),
    "file is a number": set_arg("file", 7),
    "deep": put("config.json", DEEP),
    "not UTF-8": put("config.json", b'{"algo": "sac", "args": "\xff"}'),
    "NUL bytes": put("config.json", b"\0" * 100),
    "null": put("config.json", "null"),
    "empty": put("config.json", ""),
    "a pipe": make_pipe("config.json"),
    "no end": link("config.json", "/dev/zero"),
}
SOUND = {  # what is well-formed, but of another environment or from elsewhere
    "another environment": (set_arg("env_id", "InvertedPendulum-v4"), "another environment"),
    "an environment that there is not": (set_arg("env_id", "Pendulam-v1"), "cannot be made"),
    "an environment's module that there is not": (
        set_arg("env_id", "no_such:Pendulum-v1"),
        "does not import",
    ),
    "another K": (set_arg("k", 7), "another environment or K"),
    "a long name of a file": (set_arg("file", "x" * 3000 + ".py"), "is gone"),
}


@pytest.mark.parametrize("damage", CONFIGS)
def test_a_damaged_config(read_by_all, run, drawn, damage):
    CONFIGS[damage](run)
    results = read_by_all()
    assert results["status"].returncode == 1
    assert "1 damaged" in results["status"].stdout
    for name in ("plot", "eval", "run"):
        failed(results[name], "config.json")


@pytest.mark.parametrize("damage", SOUND)
def test_a_config_of_something_else(read_by_all, run, drawn, damage):
    change, words = SOUND[damage]
    change(run)
    results = read_by_all()
    failed(results["eval"], words)


DONES = {
    "empty": put("done.json", ""),
    "infinite": put("done.json", '{"step": 400, "wall_time": Infinity}'),
    "NaN": put("done.json", '{"step": 400, "wall_time": NaN}'),
    "step is infinite": put("done.json", '{"step": Infinity, "wall_time": 1}'),
    "step is no whole number": put("done.json", '{"step": 400.5, "wall_time": 1}'),
    "huge step": put("done.json", f'{{"step": {10**400}, "wall_time": 1}}'),
    "huge time": put("done.json", f'{{"step": 400, "wall_time": {10**400}}}'),
    "digits": put("done.json", f'{{"step": {DIGITS}, "wall_time": 1}}'),
    "negative step": put("done.json", '{"step": -1, "wall_time": 1}'),
    "step is true": put("done.json", '{"step": true, "wall_time": 1}'),
    "no time": put("done.json", '{"step": 400}'),
    "a list": put("done.json", "[400]"),
    "null": put("done.json", "null"),
    "deep": put("done.json", DEEP),
    "not UTF-8": put("done.json", b"\xff"),
    "a pipe": make_pipe("done.json"),
}


@pytest.mark.parametrize("damage", DONES)
def test_a_damaged_done_json_is_unfinished_everywhere(read_by_all, run, drawn, damage):
    assert state(run) == "done"
    DONES[damage](run)
    results = read_by_all()
    assert results["status"].returncode == 1
    assert "1 stopped" in results["status"].stdout
    assert "taken as unfinished" in results["plot"].stdout
    assert runs.read(run, "eval").wall_time is None
    for step in (None, 1, 400):
        assert state(run, step) == "stopped"


ROWS = "100,{},0,1\n200,{},0,1\n300,{},0,1\n"
CURVES = {
    "huge returns": HEADER + ROWS.format("1e308", "-1e308", "1e308"),
    "a huge return": HEADER + ROWS.format("1", "1e308", "2"),
    "large returns": HEADER + ROWS.format("1e99", "-1e99", "1e100"),
    "huge steps": HEADER + "1e300,1,0,1\n",
    "negative steps": HEADER + "-5,1,0,1\n10,1,0,1\n",
    "a byte order mark": "\ufeff" + HEADER + ROWS.format(1, 2, 3),
    "NUL bytes": HEADER + "100,\0,0,1\n" + ROWS.format(1, 2, "\0"),
    "one row": HEADER + "100,1,0,1\n",
    "columns of one name": "step,return_mean,return_mean,step\n1,2,3,4\n",
}


@pytest.mark.parametrize("damage", CURVES)
def test_a_damaged_curve(pmoe_here, quick_run, run, damage):
    """Beside a second seed, so that there is something to average"""
    shutil.copytree(run, run.with_name("seed2"))
    set_arg("seed", 2)(run.with_name("seed2"))
    put("eval.csv", CURVES[damage])(run)
    put("episodes.csv", CURVES[damage].replace("return_mean", "episodic_return"))(run)
    for metric in ("eval", "train"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = pmoe_here("plot", "runs", "--auc", "--metric", metric)
        assert result.returncode in (0, 2)
        assert len(result.stderr.splitlines()) == (result.returncode == 2)
    if damage == "a byte order mark":
        assert "damaged" not in result.stdout
        assert runs.read(run, "eval").returns.tolist() == [1, 2, 3]


def damaged_checkpoint(change):
    """Writes the newest checkpoint of a run anew, with something changed."""

    def write(path: Path) -> None:
        saved = newest_checkpoint(path)
        changed = change(saved)
        torch.save(saved if changed is None else changed, max(path.glob("checkpoint/[0-9]*.pt")))

    return write


def transpose(saved: dict) -> None:
    for name, x in saved["learnt"].items():
        saved["learnt"][name] = x.transpose(0, -1).contiguous() if x.dim() else x


def fill(value):
    def change(saved: dict) -> None:
        for x in saved["learnt"].values():
            if x.is_floating_point():
                x.fill_(value)

    return change


def rename(name: str):
    """The newest checkpoint"""

    def change(path: Path) -> None:
        file = max(path.glob("checkpoint/[0-9]*.pt"))
        file.rename(file.with_name(name))

    return change


CHECKPOINTS = {
    "no learnt": damaged_checkpoint(lambda saved: saved.pop("learnt") and None),
    "learnt is a list": damaged_checkpoint(lambda saved: saved | {"learnt": [1]}),
    "nothing is learnt": damaged_checkpoint(lambda saved: saved | {"learnt": {}}),
    "one weight": damaged_checkpoint(lambda saved: saved | {"learnt": {"actor.fc1.weight": torch.ones(3)}}),
    "weights are numbers": damaged_checkpoint(
        lambda saved: saved | {"learnt": dict.fromkeys(saved["learnt"], 1)}
    ),
    "reshaped": damaged_checkpoint(transpose),
    "NaN": damaged_checkpoint(fill(torch.nan)),
    "infinite": damaged_checkpoint(fill(torch.inf)),
    "a list": damaged_checkpoint(lambda saved: [1]),
    "empty": lambda path: max(path.glob("checkpoint/[0-9]*.pt")).write_bytes(b""),
    "another name": rename("best.pt"),
    "a strange digit": rename("²².pt"),
    "a huge step": rename("9" * 200 + ".pt"),
}


@pytest.mark.parametrize("damage", CHECKPOINTS)
def test_a_damaged_checkpoint(read_by_all, run, drawn, damage):
    CHECKPOINTS[damage](run)
    results = read_by_all()
    failed(results["eval"], str(run))
    assert results["plot"].returncode == 0
    assert "not shown" in results["plot"].stdout
    assert results["status"].returncode == 0
    # What is left of such a run is looked up for a grid as well.
    assert set(files.checkpoints(run)) <= {400}


# Files that are none


@pytest.mark.parametrize("words", ["grid {}", "status {}", "plot {}", "run --config {}"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "folder"])
def test_what_is_no_file(pmoe_here, tmp_path, words, kind):
    file = tmp_path / "odd.toml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(kind)
    refused(pmoe_here(*words.format("odd.toml").split()), "odd.toml")


def test_a_huge_file_is_not_read(pmoe_here, tmp_path):
    """One of holes takes no room, but would take memory."""
    with open(tmp_path / "huge.toml", "w") as file:
        file.truncate(files.MOST + 1)
    refused(pmoe_here("grid", "huge.toml"), "larger than 16 MiB")
    refused(pmoe_here("run", "--config", "huge.toml"), "config.json of a run")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
@pytest.mark.parametrize("command", ["eval", "plot", "status"])
def test_the_systems_folders_lead_nowhere(pmoe_here, command):
    """The links in them lead to everything on the machine."""
    refused(pmoe_here(command, "/proc/self"), "no runs there")


TOMLS = {
    "half of UTF-8": b"seed = 1\xff\n",
    "NUL": 'env = "\0"',
    "an escaped NUL": 'tag = "a\\u0000b"',
    "a new line": 'tag = """a\nb"""',
    "a new line in a list": 'env = ["a", "b\\n"]',
    "a key with a control character": '"a\\u0007b" = 1',
    "nested": f"seed = {DEEP}",
    "nested keys": f"{'a.' * 3000}a = 1",
    "digits": f"seed = {DIGITS}",
    "spaces": " " * 20_000 + "\nnothing = 1",
}


@pytest.mark.parametrize("damage", TOMLS)
def test_a_damaged_grid(pmoe_here, tmp_path, damage):
    text = TOMLS[damage]
    text = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "grid.toml").write_bytes(text + b'\n[[method]]\nalgo = "sac"\n')
    for command in ("grid", "status", "plot"):
        refused(pmoe_here(command, "grid.toml"), "grid.toml")


@pytest.mark.parametrize("text", [b"x = 1\0", b"x = " + b"(" * 5000, b"\xff", b"import nothing.at_all"])
def test_a_damaged_file_of_an_algorithm(pmoe_here, tmp_path, text):
    (tmp_path / "mine.py").write_bytes(text)
    refused(pmoe_here("run", "./mine.py"), "mine.py")
    result = pmoe_here("diff", "sac", "mine.py")
    assert result.returncode in (0, 2)
    assert len(result.stderr.splitlines()) == (result.returncode == 2)


def test_a_grid_with_a_byte_order_mark(pmoe_here, tmp_path):
    text = 'seed = 1\nenv = "Pendulum-v1"\n[[method]]\nalgo = "sac"\n'
    (tmp_path / "grid.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    result = pmoe_here("status", "grid.toml")
    assert "1 missing" in result.stdout


# Words of the command line


@pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\udcff"])
@pytest.mark.parametrize(
    "words",
    ["run sac --tag x{}", "plot runs --out x{}", "eval x{}", "status x{}", "grid x{}.toml", "diff sac x{}"],
)
def test_a_word_with_a_control_character(pmoe_here, tmp_path, character, words):
    refused(pmoe_here(*[word.format(character) for word in words.split(" ")]), "control character")
    assert not list(tmp_path.iterdir())


def test_a_config_whose_tag_has_a_control_character(pmoe_here, run):
    set_arg("tag", "a\nb")(run)
    refused(pmoe_here("run", "--config", run / "config.json"), "control character")


@pytest.mark.parametrize("option", ["tag", "run-dir"])
def test_a_name_that_is_too_long_for_a_folder(pmoe_here, tmp_path, option):
    refused(
        pmoe_here("run", "sac", "--env", "Pendulum-v1", f"--{option}", "x" * 300), "longer than 255 bytes"
    )
    assert not list(tmp_path.iterdir())


# Streams that are closed


def shell(folder: Path, line: str) -> subprocess.CompletedProcess:
    """What a shell makes of a line; {pmoe} is the command, {pipe} a pipe that nobody reads any more."""
    reader, pipe = os.pipe()
    os.close(reader)
    words = ["bash", "-c", line.format(pmoe=PMOE, pipe=pipe)]
    try:
        return subprocess.run(
            words, cwd=folder, capture_output=True, text=True, check=False, pass_fds=[pipe], timeout=120
        )
    finally:
        os.close(pipe)


@pytest.mark.parametrize(
    "line, status",
    [
        ("{pmoe} status runs >&-", 0),
        ("{pmoe} status runs <&- >&- 2>&-", 0),
        ("{pmoe} status nothing 2>&-", 2),
        ("{pmoe} status nothing >&- 2>&-", 2),
        ("{pmoe} plot runs >&-", 0),
        ("{pmoe} list >&{pipe}", 1),
        ("{pmoe} diff sac ppo >&{pipe}", 1),
        ("{pmoe} run sac --help >&{pipe}", 1),
        ("{pmoe} status nothing 2>&{pipe}", 2),
        ("{pmoe} list >/dev/full", 1),
        ("{pmoe} status nothing 2>/dev/full", 2),
    ],
)
def test_a_closed_stream(tmp_path, run, line, status):
    result = shell(tmp_path, line)
    assert result.returncode == status
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    if "/dev/full" not in line:
        assert result.stderr == ""


def test_a_name_that_is_not_utf_8_is_printed(pmoe_here, tmp_path, run):
    odd = os.fsdecode(b"odd\xff")
    (tmp_path / "runs").rename(tmp_path / odd)
    (tmp_path / "all").mkdir()
    (tmp_path / odd).rename(tmp_path / "all" / odd)
    result = pmoe_here("plot", "all", "--auc")
    assert result.returncode == 0, result.stderr
    assert "odd\\udcff" in (tmp_path / "figures/auc_runs.csv").read_text()


def test_json_is_read_as_it_was_written(tmp_path):
    content = {"tag": "ä\n", "x": [1, 2.5, None, True]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert files.read_json(tmp_path / "x.json") == content
