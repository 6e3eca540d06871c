"""The real command line: bad input, help, --config, completion, list, eval, and the file on its own."""

import ast
import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from common import (
    ALGORITHMS,
    MODULES,
    ROOT,
    SOURCES,
    files_below,
    flags,
    refused,
    rows_of,
    same_run,
    train,
)

from pmoe import algorithms, cli, pmoe_sac


@pytest.mark.parametrize(
    "command, words",
    [
        ("run sca", ["'sca'", "nearest: sac"]),
        ("run", ["pmoe run sac --help"]),
        ("rnu", ["Did you mean 'run'"]),
        ("run sac --env Hoper-v4", ["Hoper", "Did you mean: `Hopper`"]),
        ("run sac --env Hopper-v99", ["v99", "`v4`"]),
        ("run sac --env CartPole-v1", ["CartPole-v1", "flat Box", "Discrete(2)"]),
        ("run --k 4 pso", ["'pso'"]),
        ("run ./sca.py", ["'sca.py'", "neither an algorithm nor a file"]),
        ("run sac --num-seeds 0", ["--num-seeds", "from 1", "not 0"]),
        ("run sac --resume --overwrite", ["--resume", "--overwrite"]),
        ("run sac --run-dir /dev/null/runs", ["--run-dir", "/dev/null"]),
        ("run sac --k 0", ["--k", "from 1", "not 0"]),
        ("run sac --k four", ["error: --k must be a whole number, not 'four'\n"]),
        ("run sac --k=4.5", ["error: --k must be a whole number, not '4.5'\n"]),
        ("run sac --gamma high", ["error: --gamma must be a number, not 'high'\n"]),
        ("run sac --k", ["error: --k needs a value\n"]),
        ("run sac --total-timesteps -5", ["--total-timesteps", "-5"]),
        ("run sac --gamma nan", ["--gamma", "nan"]),
        ("run sac --alpha warm", ["error: --alpha must be a number or 'auto', not 'warm'\n"]),
        ("run sac --backprop some", ["error: --backprop must be 'max' or 'all', not 'some'\n"]),
        ("run sac --lerning-rate 1", ["--lerning-rate", "nearest: --learning-rate"]),
        ("run sac Hopper-v4", ["Hopper-v4"]),
        ("run sac --config nothing.json", ["nothing.json"]),
        ("run sac --config", ["--config"]),
        ("run ppo --total-timesteps 1001 --num-envs 2", ["--total-timesteps", "multiple of --num-envs"]),
        ("run ppo --minibatch-size 201 --num-envs 2 --num-steps 100", ["--minibatch-size"]),
        ("run ppo --surrogate some", ["--surrogate", "'mixture'", "'primitive'"]),
        ("run sac --resume", ["seed1 does not exist", "--resume"]),
        ("eval nothing", ["nothing", "no such folder"]),
        ("eval . --episodes 0", ["--episodes"]),
        ("eval . --video film.gif", ["film.gif", ".mp4"]),
    ],
)
def test_bad_input(pmoe_here, tmp_path, command, words):
    refused(pmoe_here(*command.split()), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["rnu", "run sac --env Hopper-v99", "run ppo --k 0", "eval nothing"])
def test_bad_input_in_a_process_of_its_own(pmoe, tmp_path, command):
    refused(pmoe(*command.split()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("worker", [True, False])
@pytest.mark.parametrize("number", [0, -1])
def test_no_seeds(pmoe_here, tmp_path, monkeypatch, worker, number):
    if worker:
        monkeypatch.setenv("PMOE_PARENT", str(os.getpid()))
    words = ["--env", "Pendulum-v1", "--num-seeds", number, "--overwrite"]
    refused(pmoe_here("run", "sac", *words), "--num-seeds", "from 1", f"not {number}")
    assert not list(tmp_path.iterdir())


WITH_CHECKPOINT = "the last checkpoint is whole, and --resume goes on from it"
WITHOUT_CHECKPOINT = "there is no checkpoint yet: make room"


@pytest.mark.parametrize(
    "number, checkpoints, words",
    [
        (errno.ENOSPC, 1, WITH_CHECKPOINT),
        (errno.EDQUOT, 1, WITH_CHECKPOINT),
        (errno.EFBIG, 1, WITH_CHECKPOINT),
        (errno.ENOSPC, 0, WITHOUT_CHECKPOINT),
        (errno.EACCES, 1, ""),
        (errno.EIO, 1, ""),
        (errno.EAGAIN, 1, ""),  # is no other process that has the run
    ],
)
def test_only_a_full_disk_is_told_as_one(pmoe_here, tmp_path, monkeypatch, number, checkpoints, words):
    def train(args):
        (path,) = pmoe_sac.run_paths(args)
        (path / "checkpoint").mkdir(parents=True)
        for step in range(checkpoints):
            (path / f"checkpoint/{step:010}.pt").touch()
        raise OSError(number, os.strerror(number), "a file")

    monkeypatch.setattr(pmoe_sac, "train", train)
    result = pmoe_here("run", "sac", "--env", "Pendulum-v1")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert os.strerror(number) in line
    assert words in line
    assert words or "checkpoint" not in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(pmoe_here, tmp_path):
    refused(pmoe_here("run", "sac", "--device", "cuda"), "no CUDA GPU")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def finished(tmp_path):
    (path,) = train("sac", tmp_path / "runs")
    return path


def test_a_run_is_not_overwritten_unless_told_to(pmoe_here, tmp_path, finished):
    command = ["run", "sac", *flags("sac", env="Pendulum-v1")]
    before = files_below(tmp_path)
    refused(pmoe_here(*command), "finished", "--overwrite")
    refused(pmoe_here(*command, "--resume"), "finished", "--overwrite")
    (finished / "done.json").unlink()
    del before[finished / "done.json"]
    refused(pmoe_here(*command), "--resume", "--overwrite")
    assert files_below(tmp_path) == before
    assert pmoe_here(*command, "--overwrite").returncode == 0
    assert (finished / "done.json").exists()


def test_another_setting_is_another_directory_or_refused(pmoe_here, tmp_path):
    command = ["run", "sac", *flags("sac", env="Pendulum-v1", tag="first", total_timesteps=100)]
    assert pmoe_here(*command).returncode == 0
    (path,) = tmp_path.glob("runs/*/*/*")
    (path / "done.json").unlink()
    refused(pmoe_here(*command, "--gamma", "0.9", "--resume"), "--gamma 0.99, not 0.9", "--tag")
    paths = [tmp_path / "runs/Pendulum-v1/sac-k2", tmp_path / "runs/Pendulum-v1/sac-k2-first"]
    assert [path.exists() for path in paths] == [False, True]


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A run that was stopped at step 200 and has a checkpoint of step 100"""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pmoe_sac.Envs, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        train("sac", tmp_path / "runs")
    (path,) = tmp_path.glob("runs/*/*/*")
    return path


def test_nothing_starts_where_one_of_the_seeds_exists(pmoe_here, tmp_path, finished):
    before = files_below(tmp_path)
    words = flags("sac", env="Pendulum-v1", seed=0, num_seeds=3)
    refused(pmoe_here("run", "sac", *words), "seed1", "finished")
    assert files_below(tmp_path) == before
    assert not (finished.parent / "seed0").exists()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "missing", "short replay", "missing replay"])
def test_a_damaged_checkpoint(pmoe_here, tmp_path, interrupted, damage):
    state, replay = (interrupted / "checkpoint" / name for name in ("0000000100.pt", "replay.f32"))
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:1000])
    elif damage == "garbage":
        state.write_bytes(b"not a checkpoint")
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "missing":
        state.unlink()
    elif damage == "short replay":
        os.truncate(replay, 0)
    else:
        replay.unlink()
    before = files_below(tmp_path)
    refused(pmoe_here("run", "sac", *flags("sac", env="Pendulum-v1"), "--resume"), "damaged")
    if "replay" not in damage:
        refused(pmoe_here("eval", interrupted), "no checkpoint" if damage == "missing" else "damaged")
    assert files_below(tmp_path) == before


# `pmoe ...` as a Python program that ends with the names of what it imported.
PMOE_IMPORTS = (
    "import atexit, sys; from pmoe import cli; atexit.register(lambda: print(*sys.modules)); cli.main()"
)


def test_help_is_quick():
    """By the names of what it imports, as seconds differ: each of these takes 0.1 s or more"""
    command = [sys.executable, "-c", PMOE_IMPORTS, "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for command_or_option in ("run", "eval", "list", "--version"):
        assert command_or_option in result.stdout
    imported = set(result.stdout.splitlines()[-1].split())
    assert {"typer", "pmoe.cli"} <= imported
    heavy = {"torch", "numpy", "gymnasium", "mujoco", "matplotlib", "tensorboard", "tyro", "PIL", "scipy"}
    assert not heavy & imported


def test_start_imports_little_beside_torch(tmp_path):
    """A run needs nothing of figures and grids, and of the compiler only what it compiles with. By names, as
    seconds differ: each of these takes 0.1 s to 3 s."""
    few = ["--env", "Pendulum-v1", "--total-timesteps", "2", "--eval-episodes", "1", "--compile", "off"]
    command = [sys.executable, "-c", PMOE_IMPORTS, "run", "sac", *few]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = set(result.stdout.split())
    assert {"torch", "gymnasium", "pmoe.pmoe_sac"} <= imported
    heavy = {"matplotlib", "pandas", "scipy", "sympy", "mujoco", "imageio", "onnx", "wandb", "submitit"}
    heavy |= {"torch._dynamo", "torch._inductor", "pmoe.plots.runs", "pmoe.grid.workers", "pmoe.policy"}
    assert not heavy & imported


def test_help_explains_every_option(pmoe_here, monkeypatch, algo):
    """By the comment behind its field"""
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(pmoe_here("run", algo, "--help").stdout.replace("│", " ").split())
    for name in vars(MODULES[algo].Args()):
        (explanation,) = re.findall(rf"^    {name}: .*  # (.+)$", SOURCES[algo], re.MULTILINE)
        option = name.replace("_", "-")
        assert f"--{option}" in shown
        assert explanation in shown
    assert "--env" in shown
    assert "(default: 0.99)" in shown


def test_help_of_run(pmoe_here):
    assert "ALGO" in pmoe_here("run", "--help").stdout


def test_the_command_does_not_import_torch():
    code = "import sys, pmoe.cli; sys.exit('torch' in sys.modules or 'gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_and_list(pmoe):
    assert "pmoe 0.1.0" in pmoe("--version").stdout
    listed = pmoe("list").stdout
    for algo, name in ALGORITHMS.items():
        file = name.replace(".", "/")
        assert f" {algo} " in listed
        assert f" {file}.py " in listed
    assert "soft actor-critic" in listed


@pytest.mark.parametrize(
    "words, expected",
    [
        ("pmoe run s", {"sac"}),
        ("pmoe run sac --k 4 --env Humanoid-", {"Humanoid-v4", "Humanoid-v5"}),
        ("pmoe e", {"eval", "export"}),
        ("pmoe run sac --ga", {"--gamma"}),
        ("pmoe run ppo --k 4 --num-", {"--num-envs", "--num-seeds", "--num-steps"}),
        ("pmoe run dac --env Hopper-v4 --", {"--config", "--env", "--no-anneal-lr", "--log-density-floor"}),
    ],
)
def test_shell_completion(pmoe, words, expected):
    position = len(words.split()) - 1
    variables = {"_PMOE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    assert expected <= set(pmoe(env=os.environ | variables).stdout.split())


def test_options_that_can_be_completed(algo, tmp_path):
    """They are read from the file's text: all that there are, of forks too."""
    fields = dataclasses.fields(MODULES[algo].Args)
    options = algorithms.options_of(algo)
    names = {f"--{field.name.replace('_', '-')}" for field in fields} | {"--env"}
    assert names == {name for name in options if not name.startswith("--no-")}
    assert options["--gamma"] == "discount factor"
    fork = tmp_path / "fork.py"
    fork.write_text(algorithms.read_text(algo))
    assert algorithms.options_of(str(fork)) == options
    for text in ("class Args(:", "\0", "x = 1"):
        fork.write_text(text)
        assert algorithms.options_of(str(fork)) == {}


def test_mujoco_warns_once_for_all_environments(pmoe, tmp_path):
    """Of HalfCheetah's settotalmass, which MuJoCo 4 does at each of the copies for evaluations"""
    words = flags("sac", env="HalfCheetah-v4,max_episode_steps=3", total_timesteps=5, eval_episodes=4)
    result = pmoe("run", "sac", *words)
    assert result.returncode == 0
    assert len(result.stderr.splitlines()) <= 1
    (path,) = tmp_path.glob("runs/*/*/*")
    assert result.stderr == pmoe("eval", path, "--episodes", 3).stderr
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_options_in_any_order(pmoe_here, tmp_path):
    words = flags("sac", total_timesteps=60, env="Pendulum-v1", seed=3)
    assert pmoe_here("run", *words, "--no-detach-router", "sac").returncode == 0
    (path,) = tmp_path.glob("runs/Pendulum-v1/sac-k2-*/seed3")
    args = json.loads((path / "config.json").read_text())["args"]
    assert not args["detach_router"] and args["total_timesteps"] == 60
    assert pmoe_here("run", f"--config={path}/config.json", "--seed", "4").returncode == 0
    assert (path.parent / "seed4" / "done.json").exists()


def test_config_repeats_a_run(pmoe_here, tmp_path, quick_run, loop):
    result = pmoe_here("run", loop, "--config", quick_run(loop) / "config.json", "--run-dir", "again")
    assert result.returncode == 0, result.stderr
    (again,) = tmp_path.glob("again/*/*/*")
    same_run(again, quick_run(loop))
    assert again.parts[-3:] == quick_run(loop).parts[-3:]


def test_config_holds_every_option(quick_run, algo):
    args, module = json.loads((quick_run(algo) / "config.json").read_text())["args"], MODULES[algo]
    for changed in ({}, {"resume": True, "gamma": 0.5, "tag": "x"}):
        assert cli.parse(module.Args, cli.as_flags(args | changed), algo) == module.Args(**args | changed)


def test_eval_repeats_the_last_evaluation(pmoe_here, tmp_path, quick_run, algo):
    path = quick_run(algo)
    before, last = files_below(path), rows_of(path / "eval.csv")[-1]

    def shown(*options):
        result = pmoe_here("eval", path, "--episodes", 2, *options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    result = shown()
    assert all(f" {float(last[name]):.1f} " in result for name in ("return_mean", "return_std"))
    assert shown() == result
    assert len({result, shown("--obs-noise", 0.5), shown("--obs-noise", 0.6)}) == 3
    if algo == "amortized-sac":
        refused(pmoe_here("eval", path, "--primitive", 0), "has no primitives")
    else:
        assert shown("--primitive", 0) != shown("--primitive", 1)
        refused(pmoe_here("eval", path, "--primitive", 2), "primitives 0 to 1")
    assert files_below(path) == before and not list(tmp_path.iterdir())


def test_eval_from_the_command_line(pmoe, finished):
    result = pmoe("eval", finished, "--episodes", "2", "--obs-noise", "0.5", "--routing", "sample")
    assert result.returncode == 0 and "Pendulum-v1" in result.stdout
    refused(pmoe("eval", finished, "--obs-noise", "-1"), "--obs-noise")


def test_video(pmoe, tmp_path):
    import imageio

    (path,) = train("sac", tmp_path, env_id="InvertedPendulum-v4", total_timesteps=60)
    result = pmoe("eval", path, "--episodes", "1", "--video", "film.mp4")
    if result.returncode == 2:  # a machine that cannot render says so
        return refused(result, "cannot render", "libegl1")
    frames = imageio.mimread(tmp_path / "film.mp4", memtest=False)
    assert len(frames) >= 2 and frames[0].std() > 5 and (frames[0] != frames[-1]).any()
    refused(pmoe("eval", path, "--video", "film.mp4"), "film.mp4")


def test_the_file_alone_in_an_empty_folder_trains(tmp_path, loop):
    shutil.copy(MODULES[loop].__file__, tmp_path / "fork.py")
    command = [sys.executable, "-I", "fork.py", *flags(loop, env="Hopper-v4", total_timesteps=120)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs/Hopper-v4").is_dir() and list(tmp_path.glob("runs/*/fork-k2-*/seed1/done.json"))


def imports_of(text: str) -> set[str]:
    """The packages that a file imports by a statement"""
    packages = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            packages.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
    return packages


def test_an_algorithm_file_is_self_contained(algo):
    project = {path.stem for path in ROOT.glob("*.py")} | {"pmoe"}
    project |= {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not imports_of(SOURCES[algo]) & project


@pytest.mark.slow
def test_an_install_brings_one_package(tmp_path):
    """Whatever else stands in the folder, site-packages gets `pmoe` and no module called cli or tests."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "*.egg-info", "build"))
    files = {path.name for path in ROOT.glob("*.py")}
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", "site", str(source)]
    subprocess.run(command, cwd=tmp_path, check=True)
    site = {path.name for path in Path(tmp_path, "site").iterdir()}
    assert site - {"bin"} == {"pmoe", "pmoe-0.1.0.dist-info"}
    assert {path.name for path in Path(tmp_path, "site/pmoe").glob("*.py")} == files


def test_a_value_of_another_kind_at_a_terminal_of_few_letters(pmoe):
    """Which has none for tyro's box, of which the line is made"""
    result = pmoe("run", "sac", "--k", "four", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    refused(result, "error: --k must be a whole number, not 'four'\n")


@pytest.mark.parametrize("text, number", [("1e6", 10**6), ("1.5E3", 1500), ("2000", 2000)])
def test_a_million_may_be_written_with_an_exponent(text, number):
    args = cli.parse(pmoe_sac.Args, ["--total-timesteps", text], "sac")
    assert args.total_timesteps == number


@pytest.mark.parametrize("text", ["1.5e0", "1e", "nan", "inf", "1e999", "3.0"])
def test_what_is_no_whole_number_is_refused(capsys, text):
    with pytest.raises(SystemExit) as end:
        cli.parse(pmoe_sac.Args, ["--total-timesteps", text], "sac")
    assert end.value.code == 2
    error = f"error: --total-timesteps must be a whole number, not {text!r}\n"
    assert capsys.readouterr().err == error
