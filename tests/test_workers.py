"""`pmoe grid` at work: its processes, what fails, what is stopped and goes on; `pmoe plot FILE.toml`."""

import contextlib
import fcntl
import itertools
import json
import os
import pty
import random
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import torch
from common import MODULES, PMOE, ROOT, SHORT, checkpoint, same_run, train
from grid_tools import SAC, STEPS, put, read, text_of, wait
from rich.console import Console

from pmoe import cli
from pmoe.grid import workers
from pmoe.grid.claims import beside
from pmoe.grid.read import read_grid
from pmoe.grid.workers import places

# The runner, with children that only pretend

DONE = f'{{"step": {STEPS}, "wall_time": 60.0}}'
PRETEND = f'for run; do mkdir -p "$run"; echo \'{DONE}\' >"$run/done.json"; done'


@pytest.fixture
def pretend(pmoe_here, tmp_path, monkeypatch):
    """Runs a grid of n seeds whose jobs are a script's, with their run directories as arguments."""

    def run(script: str, *words, seeds=4, more=""):
        (tmp_path / "grid.toml").write_text(f"seed = {[*range(1, seeds + 1)]}\n{more}" + SAC)
        (tmp_path / "python").write_text(f"#!/bin/bash\nshift 2\n{script}\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr(workers, "PAUSE", 0.1)
        monkeypatch.setattr(workers, "command", lambda job: [*map(str, job.paths)])
        return pmoe_here("grid", "grid.toml", *words)

    return run


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


@pytest.mark.parametrize("n", [1, 3])
def test_as_many_at_a_time_as_there_are_workers(pretend, tmp_path, n):
    result = pretend(f"echo 1 >>journal; sleep 0.3; {PRETEND}; echo -1 >>journal", "--workers", n, seeds=6)
    assert result.returncode == 0 and "6 done\n" in result.stdout
    assert max(itertools.accumulate(map(int, journal(tmp_path)))) == n


def test_the_children_have_a_thread_each_and_know_their_parent(pretend, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert pretend(f"echo $OMP_NUM_THREADS $PMOE_PARENT >>journal; {PRETEND}", seeds=2).returncode == 0
    assert journal(tmp_path) == [f"1 {os.getpid()}"] * 2


@pytest.mark.parametrize(
    "gpus, visible, algo, workers, per_gpu, expected",
    [
        (0, None, "sac", None, 1, [None] * 3),
        (0, "", "sac", 4, 1, [None] * 4),
        (0, "0,1", "sac", 4, 1, [None] * 4),
        (2, None, "sac", None, 1, ["0", "1"]),
        (2, None, "sac", None, 2, ["0", "1", "0"]),  # no more than there are cores
        (2, None, "sac", 4, 2, ["0", "1", "0", "1"]),
        (2, None, "sac", 3, 1, ["0", "1", "0"]),
        (2, "5,GPU-7", "sac", None, 2, ["5", "GPU-7", "5"]),
        (2, None, "ppo", None, 1, [None] * 3),  # whose device is the CPU unless it is told otherwise
    ],
)
def test_places(monkeypatch, tmp_path, gpus, visible, algo, workers, per_gpu, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("pmoe.grid.workers.cpu_quotas", list)
    grid = read(tmp_path, text_of({"seed": [*range(9)]}, [{"algo": algo}]))
    assert places(grid, workers, per_gpu) == expected


@pytest.mark.parametrize("gpus", [0, 2])
def test_no_more_places_than_runs(monkeypatch, tmp_path, gpus):
    """However many workers are asked for"""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    grid = read(tmp_path, text_of({"seed": [1, 2, 3]}, [{"algo": "sac"}]))
    assert len(places(grid, 10**12, 10**12)) == 3


@pytest.mark.parametrize(
    "group, files, cores",
    [
        ("0::/", {}, []),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/", {"cpu.max": "200000 100000"}, [2]),
        ("0::/", {"cpu.max": "250000 100000"}, [3]),
        ("0::/", {"cpu.max": "1000 100000"}, [1]),
        ("0::/", {"cpu.max": ""}, []),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, [4]),
        ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, [3, 2]),
        ("0::/../../outside", {"cpu.max": "200000 100000"}, [2]),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("4:cpu,cpuacct:/", {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, [2]),
        # A container of version 1 sees its own group at the root, and its path outside.
        ("4:cpu:/docker/x", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "50000"}, [1]),
        ("7:memory:/", {"cpu.max": "200000 100000"}, []),
    ],
)
def test_a_containers_quota(tmp_path, group, files, cores):
    """Of a pretended /proc and /sys"""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{group}\n")
    for name, content in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    assert workers.cpu_quotas(tmp_path) == cores


def test_as_many_workers_as_a_container_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    grid = read(tmp_path, text_of({"seed": [*range(9)]}, [{"algo": "ppo"}]))
    for quotas, n in (([], 9), ([4], 4), ([3, 2], 2), ([128], 9)):
        monkeypatch.setattr(workers, "cpu_quotas", lambda quotas=quotas: quotas)
        assert places(grid, None, 1) == [None] * n


def test_no_quota_where_there_is_no_proc(tmp_path):
    assert workers.cpu_quotas(tmp_path) == []


def test_gpus_are_shared_out(pretend, tmp_path, monkeypatch):
    """Never more than --per-gpu on one"""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = "$CUDA_VISIBLE_DEVICES"
    script = f"echo {gpu} 1 >>journal; sleep 0.3; {PRETEND}; echo {gpu} -1 >>journal"
    assert pretend(script, "--per-gpu", 2, seeds=8).returncode == 0
    for gpu in "01":
        changes = [int(line.split()[1]) for line in journal(tmp_path) if line.split()[0] == gpu]
        assert max(itertools.accumulate(changes)) == 2


@pytest.mark.parametrize(
    "status, retries, starts", [(1, 0, 1), (1, 2, 3), (139, 1, 2), (143, 1, 2), (2, 5, 1)]
)
def test_what_fails_is_tried_again(pretend, tmp_path, status, retries, starts):
    """But bad input; its last words are shown, and the others go on."""
    script = f"case $1 in */seed2) echo $1 >>journal; seq 20; echo alas; exit {status};; *) {PRETEND};; esac"
    result = pretend(script, "--retries", retries, "--workers", 1)
    assert result.returncode == 1
    assert len(journal(tmp_path)) == starts
    failure = f"failed with status {status}: Hopper-v4/sac-k4/seed2; its log ends:\n    14\n"
    assert result.stdout.count(failure) == starts
    assert result.stdout.count("    alas\n") == starts
    last = "failed: Hopper-v4/sac-k4/seed2; its log is runs/Hopper-v4/sac-k4/seed2.log; without"
    assert last in result.stdout


def test_what_fails_once_is_done_in_the_end(pretend):
    assert pretend(f"mkdir $1.tried || {{ {PRETEND}; exit; }}; kill -9 $$").returncode == 0


def test_what_another_worker_has_is_waited_for(pretend, tmp_path):
    """Both what it has taken at the last moment, exit status 75, and what it has had for long"""
    place = tmp_path / "runs/Hopper-v4/sac-k4"
    place.mkdir(parents=True)
    claim = beside(place / "seed2", "claim")
    claim.write_text(json.dumps({"machine": "another", "pid": 1, "token": "its"}))
    threading.Timer(1.5, claim.unlink).start()
    script = f"[ ! -e $1.claim ] || echo twice >>journal; mkdir $1.tried || {{ {PRETEND}; exit; }}; exit 75"
    result = pretend(script, "--retries", 0)
    assert result.returncode == 0 and "failed" not in result.stdout and not (tmp_path / "journal").exists()


def test_what_another_worker_has_done_is_not_started(pretend, tmp_path):
    path = tmp_path / "runs/Hopper-v4/sac-k4/seed1"
    path.parent.mkdir(parents=True)
    claim = beside(path, "claim")
    claim.write_text(json.dumps({"machine": "another", "pid": 1, "token": "its"}))

    def finish():
        put(path, done=STEPS)
        claim.unlink()

    threading.Timer(1, finish).start()
    result = pretend("exit 1", seeds=1)
    assert result.returncode == 0 and "started" not in result.stdout


def test_a_dead_claim_holds_nobody_up(pretend, tmp_path):
    claim = beside(tmp_path / "runs/Hopper-v4/sac-k4/seed1", "claim")
    claim.parent.mkdir(parents=True)
    claim.write_text("")
    os.utime(claim, (0, 0))
    assert pretend(f"{PRETEND}; rm -f $1.claim").returncode == 0


@pytest.mark.parametrize(
    "numbers, status",
    [
        (["SIGINT"], 130),
        (["SIGTERM"], 143),
        (["SIGHUP"], 129),
        (["SIGTERM", "SIGTERM", "SIGHUP"], 143),
        (["SIGINT", "SIGINT"], 130),
    ],
    ids=str,
)
def test_a_signal_stops_the_children(pretend, tmp_path, numbers, status):
    """They end in their own time; at a second Ctrl-C they are killed. Nothing more is started."""
    save = "sleep 1.5; echo saved >>journal; exit 143"
    script = f'echo $$ >>journal; trap "{save}" TERM; while :; do sleep 0.1; done'
    kill = numbers == ["SIGINT", "SIGINT"]
    if kill:
        script = 'echo $$ >>journal; trap "" TERM; exec sleep 60'

    def stop():
        wait(lambda: (tmp_path / "journal").exists() and len(journal(tmp_path)) == 2)
        for number in numbers:
            os.kill(os.getpid(), signal.Signals[number])
            time.sleep(0.5)

    thread = threading.Thread(target=stop)
    thread.start()
    begun = time.monotonic()
    result = pretend(script, "--workers", 2)
    thread.join()
    assert result.returncode == status and time.monotonic() - begun < 20
    again = "pmoe grid grid.toml --workers 2"
    assert result.stdout.endswith(f"4 missing\nstopped; the same command goes on: {again}\n")
    lines = journal(tmp_path)
    assert lines.count("saved") == (0 if kill else 2) and result.stdout.count("started") == 2
    for pid in lines[:2]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_the_table(tmp_path):
    shared = {"seed": [1, 2, 3, 4], "seeds_per_process": 4, "run_dir": str(tmp_path)}
    wanted = read(tmp_path, text_of(shared, [{"algo": "sac"}]))
    (job,) = wanted.jobs
    lines = [
        "step 1,000 of 1,000,000 (0%)  return 3 (1 to 5)  evaluation -  100 steps/s  2:46:30 left",
        "step 2,000 of 1,000,000 (0%)  return 9 (5 to 7)  evaluation -34 (-40 to -20)  50 steps/s  5:32 left",
        "?",
    ]
    job.log.parent.mkdir(parents=True)
    job.log.write_text("\n".join(lines))
    console = Console(record=True, width=140)
    runner = workers.Workers(wanted, [None], 0)
    runner.active = [workers.Work(job, None, None)]
    console.print(runner.table())
    shown = console.export_text()
    cells = ["Hopper-v4/sac-k4/seed1-4", "running", "2,000 of 1,000,000", "-34 (-40 to -20)", "50", "5:32"]
    pattern = " +".join(map(re.escape, cells))
    assert re.search(rf"{pattern} *\n", shown)
    assert "4 missing" in shown


# The runner, with real runs


def tiny(run_dir: Path, *algos, more="", **shared) -> str:
    """A grid of quick runs on Pendulum"""
    common = {"env": "Pendulum-v1", "run_dir": str(run_dir)} | shared
    return text_of(common, [{"algo": algo} | SHORT[algo] | {"seed": [1, 2]} | shared for algo in algos], more)


def start(folder: Path, *words, **kwargs) -> subprocess.Popen:
    """`pmoe grid grid.toml --workers 2` in a process of its own, its output in a file, `out`"""
    with open(folder / "out", "a") as out:
        command = [PMOE, "grid", "grid.toml", "--workers", "2", *words]
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, **kwargs)


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The file of a grid that has been run, of two methods, two seeds side by side; its output beside it"""
    folder = tmp_path_factory.mktemp("finished")
    more = 'seeds_per_process = 2\n[plot]\nauc = true\nreference = "sac-k2"\n'
    file = folder / "grid.toml"
    file.write_text(tiny(folder / "runs", "sac", "ppo", more=more))
    assert start(folder).wait(300) == 0, (folder / "out").read_text()
    return file


def test_a_grid_from_start_to_finish(finished, tmp_path):
    """Runs as `pmoe run` makes them, two to a process"""
    out, folder = (finished.parent / "out").read_text(), finished.parent
    assert out.count("started") == out.count("done Pendulum-v1/") == 2 and out.endswith("\n4 done\n")
    assert len(list(folder.glob("runs/*/*/seed1.log"))) == 2 and not list(folder.glob("runs/*/*/seed2.log"))
    for algo in ("sac", "ppo"):
        for path in train(algo, tmp_path / "runs", num_seeds=2):
            same_run(path, folder / path.relative_to(tmp_path))


@pytest.mark.parametrize(
    "words, shown",
    [([], "4 done\n"), (["--dry-run"], "0 runs in 0 processes, 0 steps\n"), (["--print-sbatch"], "")],
)
def test_a_finished_grid_is_left_alone(finished, pmoe_here, words, shown):
    before = below(finished.parent)
    result = pmoe_here("grid", finished, *words)
    assert result.returncode == 0
    assert result.stdout == shown
    assert below(finished.parent) == before


def test_a_finished_grid_is_done(finished, pmoe_here):
    for path in (finished, finished.parent / "runs"):
        assert pmoe_here("status", path).returncode == 0
        states = json.loads(pmoe_here("status", path, "--json").stdout)
        assert [*states.values()] == ["done"] * 4 and all(Path(run).is_dir() for run in states)


@pytest.mark.slow
def test_modules_of_the_current_folder_are_not_taken_for_pythons(pmoe, tmp_path):
    """Neither by `pmoe grid` nor by its processes"""
    (tmp_path / "random.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", seed=1))
    result = pmoe("grid", "grid.toml", "--workers", 1, "--retries", 0)
    assert result.returncode == 0, result.stdout
    (config,) = tmp_path.glob("runs/*/*/seed1/config.json")
    assert json.loads(config.read_text())["command"][:3] == ["pmoe", "run", "sac"]


def test_plot_draws_what_there_is(finished, pmoe_here, tmp_path, monkeypatch):
    """With the options of [plot]"""
    monkeypatch.setenv("COLUMNS", "200")
    result = pmoe_here("plot", finished, "--out", "figures")
    assert result.returncode == 0 and f"{finished}: 4 of 4 runs have begun" in result.stdout
    drawn = {path.relative_to(tmp_path / "figures") for path in tmp_path.glob("figures/**/*.*")}
    assert {"png", "pdf", "csv", "md", "tex"} <= {path.suffix[1:] for path in drawn}
    assert "P(better than PMOE-SAC K=2)" in result.stdout
    more = tmp_path / "more.toml"
    text = finished.read_text().replace("seed = [1, 2]", "seed = [2, 3]")
    more.write_text(re.sub(r"\[plot\][^[]*", "", text))
    result = pmoe_here("plot", more, "--out", "others")
    assert result.returncode == 0 and f"{more}: 2 of 4 runs have begun" in result.stdout
    others = {path.relative_to(tmp_path / "others") for path in tmp_path.glob("others/**/*.*")}
    assert others and others < drawn


def test_plot_draws_before_the_reference_has_begun(finished, pmoe_here, tmp_path):
    more = tmp_path / "more.toml"
    more.write_text(finished.read_text().replace("sac-k2", "sac-k1") + SAC + "k = 1\nseed = 1\n")
    assert pmoe_here("plot", more).returncode == 0


@pytest.mark.slow
def test_a_run_that_fails(pmoe_here, tmp_path, monkeypatch):
    """It is tried again from its checkpoint, its last words are shown, the others go on, and a later start
    takes it up again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    fields = {"eval_every": 1000, "total_timesteps": 300}
    # The first after 130 steps of each process
    envs = ["odd_envs:Odd-v0,how='reward is nan',at=130", "Pendulum-v1"]
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", env=envs, seed=1, **fields))
    result = pmoe_here("grid", "grid.toml", "--workers", 2)
    assert result.returncode == 1 and "1 done, 1 failed" in result.stdout
    (log,) = tmp_path.glob("runs/odd_envs*/*/seed1.log")
    assert re.findall(r"reward is nan at step (\d)\d\d ", log.read_text()) == ["1", "2"]
    failures = r"failed with status 1: .*\n(?:    .*\n)*    error: .* is nan at"
    assert len(re.findall(failures, result.stdout)) == 2
    assert "seed1 from step 100\n" in result.stdout
    states = json.loads(pmoe_here("status", "grid.toml", "--json").stdout)
    assert list(states.values()) == ["failed", "done"]
    result = pmoe_here("grid", "grid.toml")
    assert result.returncode == 0 and "seed1 from step 200\n" in result.stdout and "2 done\n" in result.stdout
    assert pmoe_here("status", "grid.toml").returncode == 0 and not list(tmp_path.rglob("*.failed"))


@pytest.mark.slow
def test_a_grid_that_asks_for_more_steps(pmoe_here, tmp_path):
    """It goes on with what is finished, to the bytes of longer runs; what cannot be longer fails."""
    fields = {"env": "Pendulum-v1", "seed": [1, 2], "seeds_per_process": 2}
    methods = [{"algo": algo} | SHORT[algo] for algo in ("sac", "ppo", "gating-sac")]
    methods[2]["keep_replay"] = False
    for steps in (400, 500):
        for method in methods:
            method["total_timesteps"] = steps
        (tmp_path / "grid.toml").write_text(text_of(fields, methods))
        if steps == 400:
            assert pmoe_here("grid", "grid.toml", "--workers", 2).returncode == 0
            assert pmoe_here("status", "grid.toml").returncode == 0
    states = json.loads(pmoe_here("status", "grid.toml", "--json").stdout)
    assert list(states.values()) == ["stopped"] * 6
    assert pmoe_here("status", "runs").returncode == 0

    result = pmoe_here("grid", "grid.toml", "--workers", 2, "--retries", 3)
    assert result.returncode == 1
    assert result.stdout.count("seed1-2 from step 400\n") == 3
    assert result.stdout.endswith("\n4 done, 2 failed\n")
    assert len(re.findall(r"failed with status 2: \S+gating-sac\S+; its log ends:\n", result.stdout)) == 1
    assert len(re.findall(r"\n    error: .* cannot be made longer: its replay", result.stdout)) == 1
    for algo in ("sac", "ppo"):
        for path in train(algo, tmp_path / "straight", num_seeds=2, total_timesteps=500):
            same_run(path, tmp_path / "runs" / path.relative_to(tmp_path / "straight"))


def test_ctrl_c_in_a_terminal(tmp_path):
    """The children end with checkpoints, although the terminal does not tell them; the table is live."""
    text = tiny(tmp_path / "runs", "ppo", total_timesteps=10**6, checkpoint_every=10**6)
    (tmp_path / "grid.toml").write_text(text)
    terminal, end = pty.openpty()

    def control():
        os.setsid()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)

    env = os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm"}
    kwargs = {"stdin": end, "stdout": end, "stderr": end, "preexec_fn": control, "cwd": tmp_path, "env": env}
    process = subprocess.Popen([PMOE, "grid", "grid.toml", "--workers", "2"], **kwargs)
    os.close(end)
    shown, workers = bytearray(), set()

    def listen():
        # When the other end is closed, Linux has an error.
        with contextlib.suppress(OSError):
            for data in iter(lambda: os.read(terminal, 4096), b""):
                shown.extend(data)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    both = re.compile(rb"seed1 +running +\d\S* of 1,000,000 .*\n.*seed2 +running +\d\S* of 1,000,000")
    wait(lambda: both.search(shown) or process.poll())
    wait(lambda: len(list(tmp_path.glob("runs/*/*/*/checkpoint/*0.pt"))) == 2)
    workers = children(process.pid)
    os.write(terminal, b"\x03")
    assert process.wait(60) == 130 and len(workers) == 2 and not any(map(alive, workers))
    thread.join(10)
    text = shown.decode()
    assert "steps/s" in text and "waiting for checkpoints" in text
    end = "2 stopped\r\nstopped; the same command goes on: pmoe grid grid.toml --workers 2\r\n"
    assert text.endswith(end)
    for path in tmp_path.glob("runs/*/*/seed[12]"):
        assert checkpoint(path)["step"] > 0
    assert len(list(tmp_path.glob("runs/*/*/seed[12]"))) == 2 and not list(tmp_path.rglob("*.claim"))


LONG = {"total_timesteps": 600, "checkpoint_every": 50, "eval_every": 300}


def same_runs(run_dir: Path, other: Path) -> None:
    """`same_run` of each of the four below two run_dirs"""
    paths = sorted(run_dir.glob("*/*/seed?"))
    assert len(paths) == 4
    for path in paths:
        same_run(path, other / path.relative_to(run_dir))


def at_work(folder: Path) -> bool:
    """Whether a run is past the checkpoint of its beginning"""
    return any(int(file.stem) > 0 for file in folder.glob("runs/*/*/*/checkpoint/[0-9]*.pt"))


@pytest.fixture(scope="module")
def straight_seconds(tmp_path_factory) -> tuple[Path, float]:
    """The runs of a grid that nothing has interrupted, and the seconds it took"""
    folder, began = tmp_path_factory.mktemp("straight"), time.monotonic()
    (folder / "grid.toml").write_text(tiny(folder / "runs", "sac", "ppo", **LONG))
    assert start(folder).wait(600) == 0, (folder / "out").read_text()
    return folder / "runs", time.monotonic() - began


@pytest.fixture(scope="module")
def straight(straight_seconds) -> Path:
    return straight_seconds[0]


@pytest.mark.slow
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGINT twice", "SIGKILL", "SIGKILL of a child"])
def test_stopped_at_any_moment_and_started_again_is_as_never_stopped(tmp_path, straight_seconds, how, begun):
    straight, seconds = straight_seconds
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", "ppo", **LONG))
    rng = random.Random(f"{how} {begun}")
    status = {"SIGINT": 130, "SIGTERM": 143, "SIGINT twice": 130, "SIGKILL": -9}
    process = start(tmp_path, "--retries", "3")
    wait(lambda: at_work(tmp_path) if begun else children(process.pid))
    time.sleep(rng.uniform(0, seconds / 2))  # where the machine is fast, the last have ended by then
    workers = children(process.pid)
    if how == "SIGKILL of a child":
        for pid in workers[:1]:
            os.kill(pid, signal.SIGKILL)
        early = workers and not list(tmp_path.rglob("done.json"))  # what was killed had not done its work
        assert process.wait(600) == 0 and (not early or "killed by SIGKILL" in (tmp_path / "out").read_text())
    else:
        process.send_signal(signal.Signals[how.split()[0]])
        if how == "SIGINT twice":
            time.sleep(rng.uniform(0.3, 1))
            process.send_signal(signal.SIGINT)
        assert process.wait(60) in (status[how], 0)
        wait(lambda: not any(map(alive, workers)), 60)  # without a runner they notice by themselves
        assert start(tmp_path).wait(600) == 0
    same_runs(tmp_path / "runs", straight)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".claim", ".failed", ".burial")]


@pytest.mark.slow
def test_two_runners_at_once(tmp_path, straight):
    """Every job is run once, and both end when all are done."""
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", "ppo", **LONG))
    processes = [start(tmp_path), start(tmp_path)]
    assert [process.wait(600) for process in processes] == [0, 0]
    logs = [path.read_text() for path in tmp_path.glob("runs/*/*/*.log")]
    assert len(logs) == 4 and all(len(re.findall("^step 600 of", log, re.MULTILINE)) == 1 for log in logs)
    same_runs(tmp_path / "runs", straight)


def test_a_speed_is_measured_once_for_what_is_as_fast(tmp_path):
    """A temperature has no say in it, but whether it is tuned, and the number of primitives."""

    def measured(**options) -> int:
        fields = {"env": ["Pendulum-v1", "Hopper-v4"], "seed": [1, 2], "algo": "sac"}
        jobs = read(tmp_path, text_of({}, [fields | options])).jobs
        assert len(jobs) > 4
        return len({workers.method_of(job) for job in jobs})

    assert measured(alpha=[0.1, 0.2], gamma=[0.9, 0.99]) == 1
    assert measured(alpha=[0.1, "auto"], k=[1, 2]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True])
def test_a_dry_run(pmoe_here, tmp_path, done):
    """Prints commands that can be given as they are, for what is left, and measures how long they take."""
    fields = {"total_timesteps": 4000, "seed": [1, 2, 3], "tag": "a b"}
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", "ppo", **fields))
    jobs = read_grid(tmp_path / "grid.toml").jobs
    if done:
        put(jobs[0].paths[0], 4000, done=4000)
    before = sorted(tmp_path.rglob("*"))
    result = pmoe_here("grid", "grid.toml", "--dry-run", "--workers", 2)
    assert result.returncode == 0 and sorted(tmp_path.rglob("*")) == before
    commands = [line for line in result.stdout.splitlines() if line.startswith("pmoe run ")]
    left = jobs[1:] if done else jobs
    for line, job in zip(commands, left, strict=True):
        words = shlex.split(line)
        assert words[:3] == ["pmoe", "run", job.algo]
        assert cli.parse(MODULES[job.algo].Args, words[3:], job.algo) == job.args
    n = len(left)
    assert n > 1
    assert f"\n{n} runs in {n} processes, {4000 * n:,} steps\n" in result.stdout
    times = re.search(r"about (\S+) of one process, (\S+) of 2 at a time, ", result.stdout).groups()
    seconds, shared = map(seconds_of, times)
    assert 0 <= shared <= seconds < 3 * 3600


@pytest.mark.slow
def test_one_process_is_not_shared_out(pmoe_here, tmp_path):
    fields = {"total_timesteps": 4000, "seed": [1, 2]}
    text = "seeds_per_process = 2\n" + tiny(tmp_path / "runs", "sac", **fields)
    (tmp_path / "grid.toml").write_text(text)
    result = pmoe_here("grid", "grid.toml", "--dry-run", "--workers", 2)
    assert "\n2 runs in 1 process, 8,000 steps\n" in result.stdout
    alone, shared = re.search(r"about (\S+) of one process, (\S+) of 1 at a time, ", result.stdout).groups()
    assert alone == shared


def seconds_of(clock: str) -> int:
    """1:02:03 -> 3723"""
    hours, minutes, seconds = map(int, clock.split(":"))
    return 3600 * hours + 60 * minutes + seconds
