import functools
import os
import signal
import subprocess
import sys

import pytest
import torch
from common import ALGORITHMS, LOOPS, PMOE, train
from common_reaching import CUT, DRAWN, FIXED, RANDOM, near_targets
from filelock import FileLock
from matplotlib import figure as mpl_figure
from matplotlib import pyplot

from pmoe import cli

# The networks are small: more threads only wait for each other, above all beside other processes.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def small_numbers():
    """Numbers below 1e-38: training does away with them in the whole process, hypothesis must have them"""
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(params=ALGORITHMS)
def algo(request) -> str:
    """Each algorithm in turn"""
    return request.param


@pytest.fixture(params=LOOPS)
def loop(request) -> str:
    """Each algorithm whose `train` is its own; that of the others is a copy, which test_copies.py sees to."""
    return request.param


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory):
    """The directory of a quick run of an algorithm, trained when it is first asked for; not to be changed"""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the same for all processes of `pytest -n`, which train it once

    def run(algo):
        with FileLock(folder / f"{algo}.lock"):
            for done in folder.glob(f"{algo}-quick/*/*/*/done.json"):
                return done.parent
            (path,) = train(algo, folder / f"{algo}-quick")
            return path

    return functools.cache(run)


@pytest.fixture(scope="session")
def reaching(tmp_path_factory):
    """PMOE-SAC and gating, K = 3, and plain SAC on TargetReaching-v0, whose episodes differ in length; not to
    be changed"""
    root = tmp_path_factory.mktemp("reaching")
    for algo, k in (("sac", 3), ("gating-sac", 3), ("sac", 1)):
        train(algo, root, env_id="TargetReaching-v0", k=k, total_timesteps=300)
    return root


@pytest.fixture(scope="session")
def three(tmp_path_factory):
    """A replay of each of three methods, whose episodes end in every way; not to be changed"""
    root = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        near_targets(patch)
        for algo, k in (("sac", 1), ("gating-sac", 2), ("sac", 2)):
            train(algo, root, env_id=FIXED + CUT, k=k, **RANDOM)
    return root


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A run with layouts drawn anew and no replay, one of PPO's family, one of another environment; not to
    be changed"""
    root = tmp_path_factory.mktemp("plain")
    train("sac", root, env_id=DRAWN, total_timesteps=150, keep_replay=False)
    train("ppo", root, env_id=DRAWN, total_timesteps=150)
    train("sac", root, env_id="Pendulum-v1", total_timesteps=150)
    return root


@pytest.fixture(autouse=True)
def ctrl_c():
    """Works where the tests were started by nohup or in the background, which ignore it."""
    wanted = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    handlers = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, which are not written"""
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    monkeypatch.setattr(mpl_figure.Figure, "savefig", lambda *args, **kwargs: None)
    yield kept
    monkeypatch.undo()
    pyplot.close("all")


@pytest.fixture
def pmoe(tmp_path):
    """Runs `pmoe ARGS` in an empty folder, in a process of its own."""

    def run(*args, **kwargs) -> subprocess.CompletedProcess:
        command = [PMOE, *map(str, args)]
        kwargs = {"capture_output": True, "text": True, "timeout": 300, **kwargs}
        return subprocess.run(command, cwd=tmp_path, check=False, **kwargs)

    return run


@pytest.fixture
def pmoe_here(tmp_path, monkeypatch, capsys):
    """The same in this process, where nothing has to be imported anew"""

    def run(*args) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["pmoe", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        status = stop.value.code or 0
        out, error = capsys.readouterr()
        return subprocess.CompletedProcess(args, status, out, error)

    return run
