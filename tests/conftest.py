import functools
import os
import signal
import subprocess
import sys

import pytest
import torch
from common import ALGORITHMS, LOOPS, PMOE, train
from matplotlib import figure as mpl_figure
from matplotlib import pyplot

from pmoe import cli

# The networks are small: more threads only wait for each other, above all beside other processes.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


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

    def run(algo):
        (path,) = train(algo, tmp_path_factory.mktemp(algo))
        return path

    return functools.cache(run)


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
