"""Signals, a terminal or a reader that is gone, and a compiler that fails: training ends well, or goes on."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from common import MODULES, PMOE, at_move, checkpoint, flags, json_of, make_args, rows_of, same_run, train

# Evaluation


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs that were never stopped, by algorithm; the last of their evaluations is not due"""
    runs = {}

    def run(algo):
        if algo not in runs:
            (runs[algo],) = train(algo, tmp_path_factory.mktemp(algo), **LOOKS)
        return runs[algo]

    return run


LOOKS = {"env_id": "ToyTruncates-v0", "total_timesteps": 250, "eval_every": 100, "checkpoint_every": 1000}


def in_evaluation(monkeypatch, algo, number: int) -> None:
    """SIGTERM in the middle of the evaluation of that number"""
    envs_type = MODULES[algo].Envs
    evaluate = envs_type.evaluate
    count = 0

    def begin(envs, act, *args):
        nonlocal count
        count += 1
        acts = 0

        def act_and_signal(obs):
            nonlocal acts
            acts += 1
            if count == number and acts == 3:
                signal.raise_signal(signal.SIGTERM)
            return act(obs)

        return evaluate(envs, act_and_signal, *args)

    monkeypatch.setattr(envs_type, "evaluate", begin)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_signal_in_an_evaluation_ends_it_and_it_is_made_later(
    tmp_path, monkeypatch, capsys, straight, loop, number
):
    """The third is that at the end."""
    with monkeypatch.context() as patch:
        in_evaluation(patch, loop, number)
        with pytest.raises(SystemExit) as stop:
            train(loop, tmp_path, **LOOKS)
    assert stop.value.code == 143
    (path,) = tmp_path.glob("*/*/*")
    assert len(rows_of(path / "eval.csv")) == number - 1
    assert not (path / "done.json").exists()
    step = checkpoint(path)["step"]
    assert f"stopped at step {step:,}; the same command with --resume goes on\n" in capsys.readouterr().out

    # Once more, in the evaluation with which it goes on
    if number < 3:
        with monkeypatch.context() as patch:
            in_evaluation(patch, loop, 1)
            with pytest.raises(SystemExit):
                train(loop, tmp_path, resume=True, **LOOKS)
        assert checkpoint(path)["step"] == step
    train(loop, tmp_path, resume=True, **LOOKS)
    same_run(path, straight(loop))
    assert json_of(path / "done.json")["step"] == 250


def test_a_signal_in_an_evaluation_of_the_last_step(tmp_path, monkeypatch):
    """Which no later checkpoint follows"""
    fields = {**LOOKS, "total_timesteps": 200}
    (straight,) = train("sac", tmp_path / "straight", **fields)
    with monkeypatch.context() as patch:
        in_evaluation(patch, "sac", 2)
        with pytest.raises(SystemExit):
            train("sac", tmp_path / "stopped", **fields)
    (path,) = train("sac", tmp_path / "stopped", resume=True, **fields)
    same_run(path, straight)


# What comes twice, and hanging up


def signals_at(monkeypatch, algo, numbers) -> None:
    def send():
        for number in numbers:
            signal.raise_signal(number)

    at_move(monkeypatch, algo, 120, send)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_ctrl_c_ends_at_once(tmp_path, monkeypatch, capsys, straight, loop, first):
    with monkeypatch.context() as patch:
        signals_at(patch, loop, [first, signal.SIGINT])
        with pytest.raises(SystemExit) as stop:
            train(loop, tmp_path, **LOOKS)
    assert stop.value.code == 130
    assert "stopped at once, without a checkpoint; " in capsys.readouterr().out
    (path,) = tmp_path.glob("*/*/*")
    assert checkpoint(path)["step"] == 0
    train(loop, tmp_path, resume=True, **LOOKS)
    same_run(path, straight(loop))


@pytest.mark.parametrize(
    "numbers", [[signal.SIGHUP], [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM]], ids=len
)
def test_hanging_up_leaves_a_checkpoint(tmp_path, monkeypatch, numbers):
    """However many signals a closing terminal sends"""
    with monkeypatch.context() as patch:
        signals_at(patch, "sac", numbers)
        with pytest.raises(SystemExit) as stop:
            train("sac", tmp_path, **LOOKS)
    assert stop.value.code == 128 + signal.SIGHUP
    (path,) = tmp_path.glob("*/*/*")
    assert 100 < checkpoint(path)["step"] <= 120


def test_nohup_is_respected(tmp_path, monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals_at(monkeypatch, "sac", [signal.SIGHUP])
    (path,) = train("sac", tmp_path, **LOOKS)
    assert (path / "done.json").exists()


# Nobody reads


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_where_nobody_reads_training_goes_on(tmp_path, monkeypatch, number):
    """A pipe whose reader has gone, a terminal that was closed; what is written later is nowhere."""
    target = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)

    class Gone:
        def write(self, _):
            raise OSError(number, os.strerror(number))

        def flush(self):
            pass

        def fileno(self):
            return target

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdout", Gone())
    (path,) = train("sac", tmp_path, **LOOKS)
    assert (path / "done.json").exists()
    os.write(target, b"more")
    os.close(target)
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.slow
def test_head_does_not_end_training(tmp_path):
    words = [
        PMOE,
        "run",
        "sac",
        *flags("sac", env="Pendulum-v1", total_timesteps=3000),
        "--random-steps",
        "3000",
    ]
    words += ["--learning-starts", "3000"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("runs/Pendulum-v1/")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0
    (done,) = tmp_path.glob("runs/*/*/seed1/done.json")
    assert not list(tmp_path.rglob("*.failed"))
    assert json_of(done)["step"] == 3000


# Compiling


class Compiler:
    """Stands in for torch.compile: what it makes does `first` when it is called for the first time."""

    def __init__(self, monkeypatch, first):
        self.first = first
        self.calls = 0
        monkeypatch.setattr(torch, "compile", self.compile)
        monkeypatch.setenv("CXX", "true")

    def compile(self, function, **_):
        new = True

        def call(*inputs):
            nonlocal new
            self.calls += 1
            if new:
                new = False
                self.first()
            return function(*inputs)

        return call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_compiles_ends_at_once(tmp_path, monkeypatch, capsys, straight, loop, number):
    with monkeypatch.context() as patch:
        Compiler(patch, lambda: signal.raise_signal(number))
        with pytest.raises(SystemExit) as stop:
            train(loop, tmp_path, **{**LOOKS, "compile": "on"})
    assert stop.value.code == 128 + number
    assert "stopped at once, without a checkpoint; " in capsys.readouterr().out
    (path,) = tmp_path.glob("*/*/*")
    with monkeypatch.context() as patch:
        Compiler(patch, lambda: None)
        train(loop, tmp_path, resume=True, **{**LOOKS, "compile": "on"})
    same_run(path, straight(loop))


def test_when_it_is_compiled_a_signal_leaves_a_checkpoint(tmp_path, monkeypatch):
    Compiler(monkeypatch, lambda: None)
    signals_at(monkeypatch, "sac", [signal.SIGTERM])
    with pytest.raises(SystemExit):
        train("sac", tmp_path, **{**LOOKS, "compile": "on"})
    (path,) = tmp_path.glob("*/*/*")
    assert checkpoint(path)["step"] > 100


def fail_to_compile():
    raise RuntimeError(
        "C++ compile error\n\nCommand:\n a very long one " + 100 * "x" + "\nOutput: many lines"
    )


def test_a_compiler_that_fails_is_one_line_and_training_goes_on(
    tmp_path, monkeypatch, capsys, straight, loop
):
    compiler = Compiler(monkeypatch, fail_to_compile)
    (path,) = train(loop, tmp_path, **{**LOOKS, "compile": "on"})
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("not compiled")]
    # One for acting, one for learning
    assert len(lines) == compiler.calls == 2
    assert lines[0].startswith(
        "not compiled, and therefore slower: RuntimeError: C++ compile error Command: a"
    )
    assert len(lines[0]) < 250
    assert json_of(path / "config.json")["compiled"] is False
    same_run(path, straight(loop))


@pytest.mark.parametrize("how, compiled", [("on", True), ("off", False)])
def test_the_configuration_says_whether_it_was_compiled(tmp_path, monkeypatch, how, compiled):
    Compiler(monkeypatch, lambda: None)
    (path,) = train("sac", tmp_path, **{**LOOKS, "compile": how})
    assert json_of(path / "config.json")["compiled"] is compiled


@pytest.mark.parametrize(
    "words, expected",
    [("true", "true"), ("env true", "true"), ("nonexistent", ""), ("", ""), ("env true -O1", "true")],
)
def test_the_compiler_may_be_behind_another_program(monkeypatch, words, expected):
    """As in CXX="ccache g++"; torch takes one word."""
    monkeypatch.setenv("CXX", words)
    module = MODULES["sac"]
    assert module.cxx_compiler() == expected
    args = make_args("sac", Path("runs"), compile="on")
    assert module.can_compile(args) == bool(expected)


@pytest.mark.slow
def test_a_broken_compiler_by_the_command(tmp_path, pmoe):
    broken = tmp_path / "broken-g++"
    broken.write_text("#!/bin/sh\necho no space >&2\nexit 1\n")
    broken.chmod(0o755)
    environ = os.environ | {"CXX": str(broken), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    words = flags("sac", env="Pendulum-v1", compile="on", total_timesteps=200)
    result = pmoe("run", "sac", *words, env=environ)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert "not compiled, and therefore slower: " in result.stdout


@pytest.mark.slow
def test_ctrl_c_while_torch_compiles_ends_within_seconds(tmp_path):
    environ = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    words = flags("sac", env="Hopper-v4", compile="on", learning_starts=1, random_steps=10**6)
    process = subprocess.Popen(
        [PMOE, "run", "sac", *words], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("compiling"):
            break
    # It comes to the first update, and writes there as soon as it compiles.
    while process.poll() is None and not list(tmp_path.glob("cache/*")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out = process.stdout.read()
    assert process.wait() == 130
    assert "stopped at once" in out
    assert time.monotonic() - began < 15
