"""A folder of runs is that of one algorithm file: another of its name is refused, a moved one goes on."""

import re
import shutil
from pathlib import Path

import pytest
from common import SOURCES, files_below, json_of, same_run, short

from pmoe import algorithms

FIELDS = {**short("sac"), "total_timesteps": 100, "eval_every": 100, "env_id": "ToyTerminates-v0"}


def fork_in(folder, text="") -> Path:
    """A copy of pmoe_sac.py with another name, and some more text"""
    folder.mkdir()
    file = folder / "my_idea.py"
    file.write_text(SOURCES["sac"] + text)
    return file


def train_file(file, run_dir, **fields):
    module = algorithms.load(file)
    args = module.Args(**{**FIELDS, "run_dir": str(run_dir), **fields})
    (path,) = module.train(args)
    return path


@pytest.fixture
def first(tmp_path):
    """A fork that has a run, of seed 1, in `runs`"""
    file = fork_in(tmp_path / "first")
    path = train_file(file, tmp_path / "runs")
    assert json_of(path / "config.json")["file"] == str(file)
    return file


@pytest.mark.parametrize(
    "fields",
    [{}, {"seed": 2}, {"overwrite": True}, {"resume": True, "total_timesteps": 200}],
    ids=["the same run", "another seed", "overwrite", "resume"],
)
def test_another_file_of_the_same_name_is_refused(tmp_path, capsys, first, fields):
    other = fork_in(tmp_path / "second", "\n# another idea\n")
    before = files_below(tmp_path / "runs")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train_file(other, tmp_path / "runs", **fields)
    assert stop.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.splitlines()) == 1
    assert f"holds runs of {first}, another algorithm or another version of this file" in error
    assert files_below(tmp_path / "runs") == before
    path = train_file(other, tmp_path / "runs", tag="second")
    assert path.exists()


def test_a_file_that_was_moved_goes_on(tmp_path, first):
    moved = first.rename(tmp_path / "my_idea.py")
    path = train_file(moved, tmp_path / "runs", total_timesteps=200, resume=True)
    straight = train_file(moved, tmp_path / "straight", total_timesteps=200)
    same_run(path, straight)


def test_an_unchanged_copy_goes_on(tmp_path, first):
    copy = fork_in(tmp_path / "copy")
    path = train_file(copy, tmp_path / "runs", total_timesteps=200, resume=True)
    assert json_of(path / "done.json")["step"] == 200
    train_file(copy, tmp_path / "runs", seed=2)


def test_a_file_that_has_changed_since_goes_on_as_it_was(tmp_path, first, capsys):
    """Whoever works on an idea changes its file: refused, until the run's own copy is back in its place."""
    first.write_text(SOURCES["sac"] + "\n# a word more\n")
    with pytest.raises(SystemExit):
        train_file(first, tmp_path / "runs", total_timesteps=200, resume=True)
    [copy] = re.findall(r"to --resume it, cp (\S+) my_idea.py$", capsys.readouterr().err)
    shutil.copy(copy, first)
    path = train_file(first, tmp_path / "runs", total_timesteps=200, resume=True)
    assert json_of(path / "done.json")["step"] == 200


@pytest.mark.parametrize("text", ["", "{", "[]", '{"file": 3}', '{"algo": "my_idea"}'])
def test_a_sibling_whose_config_says_nothing_is_no_obstacle(tmp_path, text):
    file = fork_in(tmp_path / "first")
    path = train_file(file, tmp_path / "runs")
    (path / "config.json").write_text(text)
    assert train_file(file, tmp_path / "runs", seed=2).name == "seed2"
