"""A fork's file is an algorithm wherever a name is: run, help, grid, Slurm, eval, plot."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from common import SHORT, SOURCES, failed, flags, refused, rows_of, same_run
from grid_tools import toml

from pmoe import algorithms, cli
from pmoe.grid import workers
from pmoe.grid.read import command, read_grid

SMALL = SHORT["sac"] | {"total_timesteps": 200, "eval_every": 100}
# Smaller networks, so that its weights fit no other file, and an option of its own.
FORK = re.sub(r"\b256\b", "32", SOURCES["sac"])
FORK = FORK.replace("    tau: float", "    my_option: float = 0.25  # what my idea needs\n    tau: float")


def write_fork(folder: Path, text: str = FORK) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "my_idea.py"
    file.write_text(text)
    return file


def train_fork(file: Path, run_dir: Path, **fields) -> Path:
    """A quick run in this process"""
    module = algorithms.load(file)
    args = module.Args(**(SMALL | {"env_id": "Pendulum-v1", "run_dir": str(run_dir)} | fields))
    (path,) = module.train(args)
    return path


def small_flags(**fields) -> list[str]:
    return flags("sac", **({"total_timesteps": 200, "eval_every": 100, "env": "Pendulum-v1"} | fields))


def config_of(path: Path) -> dict:
    return json.loads((path / "config.json").read_text())


# pmoe run


@pytest.mark.parametrize("word", ["./my_idea.py", "my_idea.py", "ideas/my_idea.py", "absolute"])
def test_run(pmoe_here, tmp_path, word):
    folder = tmp_path / "ideas" if word.startswith("ideas") else tmp_path
    file = write_fork(folder)
    if word == "absolute":
        word = file
    result = pmoe_here("run", word, *small_flags(my_option=0.5))
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("runs/Pendulum-v1/my_idea-k2-*/seed1")
    config = config_of(path)
    assert config["algo"] == "my_idea"
    assert config["file"] == str(file)
    assert config["args"]["my_option"] == 0.5


def test_its_options_may_come_first(pmoe_here, tmp_path):
    write_fork(tmp_path)
    result = pmoe_here("run", *small_flags(), "--no-detach-router", "./my_idea.py")
    assert result.returncode == 0, result.stderr


def test_help(pmoe, tmp_path):
    write_fork(tmp_path)
    result = pmoe("run", "./my_idea.py", "--help")
    assert result.returncode == 0
    assert "--my-option" in result.stdout
    assert "what my idea needs" in result.stdout
    assert not (tmp_path / "runs").exists()


def test_a_script_and_the_command_are_one_run(pmoe, tmp_path):
    """The same environment, directory and bytes by `python my_idea.py` as by `pmoe run ./my_idea.py`"""
    write_fork(tmp_path)
    words = small_flags(env="TargetReaching-v0")
    script = [sys.executable, "my_idea.py", *words, "--run-dir", "script"]
    subprocess.run(script, cwd=tmp_path, capture_output=True, check=True)
    assert pmoe("run", "./my_idea.py", *words).returncode == 0
    (path,) = tmp_path.glob("runs/*/*/*")
    twin = tmp_path / "script" / path.relative_to(tmp_path / "runs")
    same_run(path, twin)
    assert config_of(path)["file"] == config_of(twin)["file"]


def test_config_repeats_a_run(pmoe_here, tmp_path):
    file = write_fork(tmp_path)
    path = train_fork(file, tmp_path / "runs")
    result = pmoe_here("run", "--config", path / "config.json", "--run-dir", "again")
    assert result.returncode == 0, result.stderr
    (again,) = tmp_path.glob("again/*/*/*")
    same_run(path, again)


def test_a_wrong_option_has_the_nearest_of_the_fork(pmoe_here, tmp_path):
    write_fork(tmp_path)
    refused(pmoe_here("run", "./my_idea.py", "--my-optoin", 1), "--my-optoin", "nearest: --my-option")


def test_the_path_of_an_own_file_is_its_name(tmp_path):
    file = algorithms.file_of("mrp-sac")
    assert algorithms.load(file) is algorithms.load("mrp-sac")
    link = tmp_path / "link.py"
    link.symlink_to(file)
    assert algorithms.load(link) is algorithms.load("mrp-sac")


def test_a_file_that_has_changed_is_loaded_anew(tmp_path):
    file = write_fork(tmp_path)
    first = algorithms.load(file)
    assert algorithms.load(str(file)) is first
    write_fork(tmp_path, FORK.replace("my_option", "other_option"))
    second = algorithms.load(file)
    assert hasattr(first.Args, "my_option")
    assert hasattr(second.Args, "other_option")
    assert not hasattr(second.Args, "my_option")


@pytest.mark.parametrize(
    "words, incomplete, expected",
    [
        ("pmoe run my_", "my_", ["my_idea.py"]),
        ("pmoe run ./m", "./m", ["./my_idea.py"]),
        ("pmoe diff sac my", "my", ["my_idea.py"]),
        ("pmoe run my_idea.py m", "m", []),
    ],
)
def test_completion(pmoe, tmp_path, words, incomplete, expected):
    write_fork(tmp_path)
    (tmp_path / "my_notes.txt").touch()
    position = len(words.split()) - 1
    variables = {"_PMOE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    shown = pmoe(env=os.environ | variables).stdout.split()
    assert [word for word in shown if word.endswith(".py")] == expected
    assert "my_notes.txt" not in shown


# pmoe grid


def write_grid(folder: Path, algos: list[str], **fields) -> Path:
    """A grid of quick runs on Pendulum"""
    folder.mkdir(exist_ok=True)
    table = SMALL | {"env": "Pendulum-v1", "seed": [1, 2]} | fields
    file = folder / "grid.toml"
    file.write_text(toml(table) + "[[method]]\n" + toml({"algo": algos}))
    return file


def test_paths_start_at_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_fork(tmp_path / "ideas")
    file = write_grid(tmp_path / "grids", ["sac", "../ideas/my_idea.py"])
    for name in (file, file.relative_to(tmp_path)):
        own, fork = read_grid(name).jobs[1:3]
        assert own.algo == "sac"
        assert Path(fork.algo).samefile("ideas/my_idea.py")
        assert fork.paths[0].parent.name.startswith("my_idea-k2-")
        assert command(fork)[:2] == ["run", fork.algo]


@pytest.mark.slow
def test_a_grid_with_a_fork(pmoe, tmp_path):
    """Its processes, `pmoe status` and `pmoe plot` of its file"""
    write_fork(tmp_path)
    write_grid(tmp_path / "grids", ["sac", "../my_idea.py"])
    result = pmoe("grid", "grids/grid.toml", "--workers", 2)
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("\n4 done\n")
    assert len(list(tmp_path.glob("runs/Pendulum-v1/my_idea-k2-*/seed[12]/done.json"))) == 2
    assert pmoe("status", "grids/grid.toml").returncode == 0
    result = pmoe("plot", "grids/grid.toml", "--auc")
    assert result.returncode == 0, result.stderr
    assert "my_idea K=2" in result.stdout


def test_a_dry_run_prints_commands_that_work(pmoe_here, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "estimate", lambda jobs: 1.0)
    write_fork(tmp_path)
    write_grid(tmp_path / "grids", ["../my_idea.py"], seed=1)
    result = pmoe_here("grid", "grids/grid.toml", "--dry-run")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("pmoe run ")]
    assert "my_idea.py" in line
    assert pmoe_here(*line.split()[1:]).returncode == 0
    assert pmoe_here("status", "grids/grid.toml").returncode == 0


@pytest.mark.parametrize("quote", ['"', "'"])
def test_the_frozen_copy_of_slurm(pmoe_here, tmp_path, quote):
    """Stands in another folder, and means the same."""
    fork = write_fork(tmp_path / "two words")
    file = write_grid(tmp_path / "grids", ["sac", "../two words/my_idea.py"])
    name = "../two words/my_idea.py"
    file.write_text(file.read_text().replace(f'"{name}"', f"{quote}{name}{quote}"))
    result = pmoe_here("grid", "grids/grid.toml", "--print-sbatch")
    assert result.returncode == 0, result.stderr
    (copy,) = tmp_path.glob("runs/slurm/grid-*.toml")
    again = read_grid(copy)
    assert again.paths == read_grid(file).paths
    (algo,) = {job.algo for job in again.jobs} - {"sac"}
    assert Path(algo).samefile(fork)
    assert pmoe_here("grid", copy, "--job", 2, "--workers", 1).returncode == 0
    assert (tmp_path / again.paths[2] / "done.json").exists()


# Two forks of one name


def test_two_forks_of_one_name_do_not_meet(pmoe_here, tmp_path):
    first = write_fork(tmp_path / "a")
    write_fork(tmp_path / "b", FORK + "\n# another text\n")
    assert pmoe_here("run", "a/my_idea.py", *small_flags()).returncode == 0
    for seed in (1, 2):
        refused(pmoe_here("run", "b/my_idea.py", *small_flags(seed=seed)), str(first), "--tag")
    result = pmoe_here("run", "b/my_idea.py", *small_flags(tag="b"))
    assert result.returncode == 0, result.stderr


def test_two_forks_of_one_name_in_a_grid(pmoe_here, tmp_path):
    for folder in ("a", "b"):
        write_fork(tmp_path / folder)
    file = write_grid(tmp_path / "grids", ["../a/my_idea.py", "../b/my_idea.py"])
    refused(pmoe_here("status", file), "two methods", "give one of them a tag")


def test_two_forks_of_one_name_are_two_methods_of_a_plot(pmoe_here, tmp_path):
    for folder in ("first", "second"):
        file = write_fork(tmp_path / folder, FORK + f"\n# of {folder}\n")
        train_fork(file, tmp_path / "runs" / folder)
    result = pmoe_here("plot", "runs", "--auc")
    assert result.returncode == 0, result.stderr
    methods = {row["method"] for row in rows_of(tmp_path / "figures/auc.csv")}
    assert len(methods) == 2
    for folder in ("first", "second"):
        assert any(folder in method for method in methods)


# pmoe eval and the figures of policies


@pytest.mark.slow
def test_eval_and_plot(pmoe, tmp_path):
    """In a process of its own, which learns of the fork by config.json alone"""
    file = write_fork(tmp_path / "ideas")
    path = train_fork(file, tmp_path / "runs")
    result = pmoe("eval", path, "--episodes", 2)
    assert result.returncode == 0, result.stderr
    last = rows_of(path / "eval.csv")[-1]
    assert f" {float(last['return_mean']):.1f} " in result.stdout
    result = pmoe("plot", "runs", "--routing", "--primitives", "--episodes", 1)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("figures/routing*.png"))
    assert list(tmp_path.glob("figures/primitives*.png"))


def test_a_fork_that_is_gone(pmoe_here, tmp_path):
    """Its policy is loaded by the run's copy; without that its curve is drawn, its policy is not."""
    file = write_fork(tmp_path / "ideas")
    path = train_fork(file, tmp_path / "runs")
    file.rename(path / "source.py")
    result = pmoe_here("eval", path, "--episodes", 1)
    assert result.returncode == 0, result.stderr
    (path / "source.py").unlink()
    refused(pmoe_here("eval", path), str(file), "gone")
    failed(pmoe_here("plot", "runs", "--routing"), str(file), "gone")
    refused(pmoe_here("run", "--config", path / "config.json"), str(file), "gone")
    result = pmoe_here("plot", "runs")
    assert result.returncode == 0, result.stderr
    assert "my_idea" in result.stdout


def test_an_own_file_elsewhere_is_found_by_its_name(tmp_path):
    """A run of an installation that is gone, or of a time before config.json named the file"""
    args = vars(algorithms.load("mrp-sac").Args())
    for named in ({"file": "/nowhere/mrp_sac.py"}, {}):
        config = {"algo": "mrp-sac", "args": args} | named
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert algorithms.load_of_run(tmp_path) is algorithms.load("mrp-sac")


def test_a_fork_that_has_changed_since(pmoe_here, tmp_path):
    """The run is evaluated as it was trained, by its copy; without one the policy no longer fits."""
    file = write_fork(tmp_path)
    path = train_fork(file, tmp_path / "runs")
    before = pmoe_here("eval", path, "--episodes", 2)
    write_fork(tmp_path, FORK.replace("self.fc2", "self.second"))
    after = pmoe_here("eval", path, "--episodes", 2)
    assert after.returncode == 0, after.stderr
    assert after.stdout == before.stdout
    (path / "source.py").unlink()
    refused(pmoe_here("eval", path), "0000000200.pt", "my_idea")
    failed(pmoe_here("plot", "runs", "--routing"), "0000000200.pt", "my_idea")


@pytest.mark.parametrize("text", ["", "[]", '{"args": {}}', "{"], ids=repr)
def test_a_config_that_names_no_algorithm(tmp_path, text):
    with pytest.raises(algorithms.AlgorithmError, match="config.json is not the config.json of a run"):
        (tmp_path / "config.json").write_text(text)
        algorithms.load_of_run(tmp_path)


# A file that is no algorithm

BROKEN = {
    "missing": (None, ["neither an algorithm nor a file"]),
    "folder": (None, ["neither an algorithm nor a file"]),
    "no text": ("\xff", ["cannot be read"]),
    "syntax": (FORK + "\ndef f(:\n", ["does not load", "SyntaxError", f"line {len(FORK.splitlines()) + 2}"]),
    "raises": ("import torch\n\nx = 1 / 0\n", ["does not load: line 3, ZeroDivisionError: division"]),
    "exits": ("raise SystemExit('no\\nway')\n", ["does not load", "SystemExit: no way"]),
    "imports": ("import nothing_there\n", ["does not load", "ModuleNotFoundError", "nothing_there"]),
    "lacks": (re.sub(r"^def load_actor", "def load", FORK, flags=re.MULTILINE), ["lacks load_actor"]),
    "empty": ("", ["lacks ALGO, FREE, Args"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file(pmoe_here, tmp_path, kind):
    """One line, in each command that would load it, and nothing on the disk"""
    text, words = BROKEN[kind]
    file = tmp_path / "my_idea.py"
    if kind == "folder":
        file.mkdir()
    elif text is not None:
        file.write_text(text, encoding="latin-1")
    grid = write_grid(tmp_path, ["sac", "./my_idea.py"])
    refused(pmoe_here("run", "./my_idea.py"), "my_idea.py", *words)
    for name in ("grid", "status"):
        refused(pmoe_here(name, grid), f"{grid}:", "my_idea.py", *words)
    assert not (tmp_path / "runs").exists()


def test_a_fork_that_breaks_while_its_grid_runs(pmoe_here, tmp_path, monkeypatch):
    """Is not tried again; the others go on."""
    write_fork(tmp_path)
    write_grid(tmp_path, ["./my_idea.py", "sac"], seed=1)
    started = workers.start

    def start(job, slot):
        write_fork(tmp_path, "x = 1 / 0\n")
        return started(job, slot)

    monkeypatch.setattr(workers, "start", start)
    result = pmoe_here("grid", "grid.toml", "--retries", 5)
    assert result.returncode == 1
    assert "1 done, 1 failed" in result.stdout
    assert result.stdout.count("ZeroDivisionError") == 1


def test_words_that_name_an_algorithm():
    assert algorithms.is_algorithm("sac")
    assert algorithms.is_algorithm("./missing.py")
    assert not algorithms.is_algorithm("my_idea")
    assert cli.alone(["--k", "4", "my_idea.py", "x", "--seed=3"]) == ["my_idea.py", "x"]
