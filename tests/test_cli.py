"""The real command line: bad input, help, --config, completion, list, eval, and the file on its own."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from common import ROOT, SHORT, flags

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Args, train


def files_below(path):
    """All but TensorBoard's, which a run of the test's own process may still be writing"""
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and "tfevents" not in file.name}


def refused(result, *words):
    """Asserts one clear line, exit status 2 and no traceback."""
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: ")
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    "command, words",
    [
        ("run sca", ["'sca'", "nearest: sac"]),
        ("run", ["pmoe run sac --help"]),
        ("rnu", ["Did you mean 'run'"]),
        ("run sac --env Hoper-v4", ["Hoper", "Did you mean: `Hopper`"]),
        ("run sac --env Hopper-v99", ["v99", "`v4`"]),
        ("run sac --env CartPole-v1", ["CartPole-v1", "flat Box", "Discrete(2)"]),
        ("run sac --env common:ToyDict-v0", ["ToyDict-v0", "flat Box", "Dict"]),
        ("run --k 4 pso", ["'pso'"]),
        ("run sac --resume --overwrite", ["--resume", "--overwrite"]),
        ("run sac --run-dir /dev/null/runs", ["--run-dir", "/dev/null"]),
        ("run sac --k 0", ["--k", "from 1", "not 0"]),
        ("run sac --k four", ["--k", "'four'"]),
        ("run sac --k", ["--k"]),
        ("run sac --total-timesteps -5", ["--total-timesteps", "-5"]),
        ("run sac --gamma nan", ["--gamma", "nan"]),
        ("run sac --alpha warm", ["--alpha", "warm"]),
        ("run sac --backprop some", ["--backprop", "'max'", "'all'"]),
        ("run sac --lerning-rate 1", ["--lerning-rate", "nearest: --learning-rate"]),
        ("run sac Hopper-v4", ["Hopper-v4"]),
        ("run sac --config nothing.json", ["nothing.json"]),
        ("run sac --config", ["--config"]),
        ("run sac --resume", ["config.json", "FileNotFoundError", "--overwrite"]),
        ("eval nothing", ["nothing", "is no run"]),
        ("eval . --episodes 0", ["--episodes"]),
        ("eval . --video film.gif", ["film.gif", ".mp4"]),
    ],
)
def test_bad_input(pmoe, tmp_path, command, words):
    refused(pmoe(*command.split(), env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(pmoe, tmp_path):
    refused(pmoe("run", "sac", "--device", "cuda"), "no CUDA GPU")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def finished(tmp_path):
    (path,) = train(Args(env_id="Pendulum-v1", run_dir=str(tmp_path / "runs"), **SHORT))
    return path


def test_a_run_is_not_overwritten_unless_told_to(pmoe, tmp_path, finished):
    command = ["run", "sac", *flags(env="Pendulum-v1")]
    before = files_below(tmp_path)
    refused(pmoe(*command), "finished", "--overwrite")
    refused(pmoe(*command, "--resume"), "finished", "--overwrite")
    (finished / "done.json").unlink()
    del before[finished / "done.json"]
    refused(pmoe(*command), "--resume", "--overwrite")
    assert files_below(tmp_path) == before
    assert pmoe(*command, "--overwrite").returncode == 0
    assert (finished / "done.json").exists()


def test_another_setting_is_another_directory_or_refused(pmoe, tmp_path):
    command = ["run", "sac", *flags(env="Pendulum-v1", tag="mine", total_timesteps=100)]
    assert pmoe(*command).returncode == 0
    (path,) = tmp_path.glob("runs/*/*/*")
    (path / "done.json").unlink()
    refused(pmoe(*command, "--gamma", "0.9", "--resume"), "another gamma", "--tag")
    paths = [tmp_path / "runs/Pendulum-v1/sac-k2", tmp_path / "runs/Pendulum-v1/sac-k2-mine"]
    assert [path.exists() for path in paths] == [False, True]


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A run that was stopped at step 200 and has a checkpoint of step 100"""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pmoe_sac.Envs, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        train(Args(env_id="Pendulum-v1", run_dir=str(tmp_path / "runs"), **SHORT))
    (path,) = tmp_path.glob("runs/*/*/*")
    return path


def test_nothing_starts_where_one_of_the_seeds_exists(pmoe, tmp_path, finished):
    before = files_below(tmp_path)
    refused(pmoe("run", "sac", *flags(env="Pendulum-v1", seed=0, num_seeds=3)), "seed1", "finished")
    assert files_below(tmp_path) == before and not (finished.parent / "seed0").exists()


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "missing", "short replay", "missing replay"])
def test_a_damaged_checkpoint(pmoe, tmp_path, interrupted, damage):
    command, path = ["run", "sac", *flags(env="Pendulum-v1")], interrupted
    state = path / "checkpoint/0000000100.pt"
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:1000])
    elif damage == "garbage":
        state.write_bytes(b"not a checkpoint")
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "missing":
        state.unlink()
    elif damage == "short replay":
        os.truncate(path / "checkpoint/replay.f32", 0)
    else:
        (path / "checkpoint/replay.f32").unlink()
    before = files_below(tmp_path)
    refused(pmoe(*command, "--resume"), "damaged")
    if "replay" not in damage:
        refused(pmoe("eval", path), "damaged")
    assert files_below(tmp_path) == before


def test_help_is_quick_and_complete(pmoe):
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        result = pmoe("--help")
        times.append(time.perf_counter() - begun)
    assert result.returncode == 0 and min(times) < 0.5
    assert all(command in result.stdout for command in ("run", "eval", "list", "--version"))
    shown = pmoe("run", "sac", "--help").stdout
    for name in vars(Args()):
        assert "--" + name.replace("_", "-") in shown
    assert "--env" in shown and "number of primitives" in shown and "default: 0.99" in shown
    assert "ALGO" in pmoe("run", "--help").stdout


def test_the_command_does_not_import_torch():
    code = "import sys, pmoe.cli; sys.exit('torch' in sys.modules or 'gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_and_list(pmoe):
    assert "pmoe 0.1.0" in pmoe("--version").stdout
    listed = pmoe("list").stdout
    assert "sac" in listed and "pmoe_sac.py" in listed and "PMOE-SAC" in listed


@pytest.mark.parametrize(
    "words, expected",
    [
        ("pmoe run s", {"sac"}),
        ("pmoe run sac --k 4 --env Humanoid-", {"Humanoid-v4", "Humanoid-v5"}),
        ("pmoe e", {"eval"}),
    ],
)
def test_shell_completion(pmoe, words, expected):
    variables = {"_PMOE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert expected <= set(pmoe(env=os.environ | variables).stdout.split())


def test_options_in_any_order_and_config_repeats_a_run(pmoe, tmp_path):
    assert pmoe("run", *flags(env="Pendulum-v1", seed=3, gamma=0.9), "--no-detach-router", "sac").returncode == 0
    (path,) = tmp_path.glob("runs/*/*/*")
    assert pmoe("run", "sac", "--run-dir", "again", "--config", path / "config.json").returncode == 0
    (again,) = tmp_path.glob("again/*/*/*")
    assert again.relative_to(tmp_path / "again") == path.relative_to(tmp_path / "runs")
    assert (again / "eval.csv").read_bytes() == (path / "eval.csv").read_bytes()
    a, b = (json.loads((x / "config.json").read_text())["args"] for x in (path, again))
    assert a | {"run_dir": "again"} == b and (a["gamma"], a["seed"], a["detach_router"]) == (0.9, 3, False)
    assert pmoe("run", f"--config={path}/config.json", "--seed", "4").returncode == 0
    assert (path.parent / "seed4" / "done.json").exists()


def test_eval_repeats_the_last_evaluation(pmoe, finished):
    result = pmoe("eval", finished, "--episodes", "2", env=os.environ | {"COLUMNS": "200"})
    mean, std = (finished / "eval.csv").read_text().splitlines()[-1].split(",")[1:3]
    assert f"{float(mean):.1f}" in result.stdout and f"{float(std):.1f}" in result.stdout
    noisy = pmoe("eval", finished, "--episodes", "2", "--obs-noise", "0.5", env=os.environ | {"COLUMNS": "200"})
    assert noisy.returncode == 0 and noisy.stdout != result.stdout
    alone = [pmoe("eval", finished, "--episodes", "2", "--primitive", k).stdout for k in (0, 1)]
    assert alone[0] != alone[1]
    assert pmoe("eval", finished, "--episodes", "2", "--routing", "sample").returncode == 0
    refused(pmoe("eval", finished, "--primitive", "2"), "primitives 0 to 1")
    refused(pmoe("eval", finished, "--obs-noise", "-1"), "--obs-noise")


def test_video(pmoe, tmp_path):
    import imageio

    (path,) = train(Args(env_id="InvertedPendulum-v4", run_dir=str(tmp_path), **(SHORT | {"total_timesteps": 60})))
    result = pmoe("eval", path, "--episodes", "1", "--video", "film.mp4")
    if result.returncode == 2:  # a machine that cannot render says so
        return refused(result, "cannot render", "libegl1")
    frames = imageio.mimread(tmp_path / "film.mp4", memtest=False)
    assert len(frames) >= 2 and frames[0].std() > 5 and (frames[0] != frames[-1]).any()
    refused(pmoe("eval", path, "--video", "film.mp4"), "film.mp4")


def test_the_file_alone_in_an_empty_folder_trains(tmp_path):
    shutil.copy(ROOT / "pmoe_sac.py", tmp_path / "fork.py")
    command = [sys.executable, "-I", "fork.py", *flags(env="Hopper-v4", total_timesteps=120)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("runs/Hopper-v4/*/seed1/done.json"))) == 1


@pytest.mark.parametrize("file", ["pmoe_sac.py"])
def test_an_algorithm_file_is_self_contained_and_can_be_read_in_one_sitting(file):
    text = (ROOT / file).read_text()
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    project = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert not imported & (project | {"pmoe"}) and len(text.splitlines()) <= 500


@pytest.mark.slow
def test_an_install_brings_one_package(tmp_path):
    """Whatever else stands in the folder, site-packages gets `pmoe` and no module called cli or tests."""
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "*.egg-info", "build"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", "site", str(source)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert {path.name for path in Path(tmp_path, "site").iterdir()} - {"bin"} == {"pmoe", "pmoe-0.1.0.dist-info"}
    assert {path.name for path in Path(tmp_path, "site/pmoe").glob("*.py")} == {"cli.py", "pmoe_sac.py"}
